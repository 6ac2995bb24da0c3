"""What is seen of each request from outside: `Server-Timing`, metrics, the access log."""

from collections.abc import Collection, Iterable
from dataclasses import replace
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgihive.asgi import get_route_path
from asgihive.context import Timings, request_context
from asgihive.service import access_log
from asgihive.service.access_log import AccessEntry
from asgihive.service.metrics import Metrics
from asgihive.service.parameters import FILE_PREFIX
from asgihive.settings import H5Settings

OTHER = "other"
"""The route of what no route of the service answers."""

CLIENT_GONE = 499
"""The status where none was sent, since nobody waited for it any more; nginx's number for it."""

_EXCHANGE = "asgihive.observed"


class Observer:
    """An ASGI application: another one, whose requests are measured, counted and logged.

    Around another observer of the same service the outer one does it, once.

    Args:
        app: the next application.
        routes: the paths that are told apart in metrics; others count as `other`.
        settings: whether answers have the header `Server-Timing`; the origins whose pages may
            read that (`Timing-Allow-Origin`, Resource Timing, section 4.5.1); the token, which
            is in no line of the access log.
        metrics: where requests are counted, if they are.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        routes: Collection[str],
        settings: H5Settings,
        metrics: Metrics | None = None,
    ) -> None:
        self.app = app
        self.metrics = metrics
        self._routes = frozenset(routes)
        self._settings = settings
        self._server_timing = settings.server_timing
        self._origins = [(b"timing-allow-origin", each.encode()) for each in settings.cors_origins]
        self._hide = _unchanged if settings.token is None else access_log.hiding(settings.token)

    def around(self, app: ASGIApp) -> "Observer":
        """The same, for an application that this one is a part of."""
        return Observer(app, routes=self._routes, settings=self._settings, metrics=self.metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        outer = scope.get(_EXCHANGE)
        if isinstance(outer, _Exchange):
            outer.route = self._route(scope)
            await self.app(scope, receive, send)
        elif self._server_timing or self.metrics is not None or access_log.is_logged():
            await self._observe(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _observe(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _Exchange(send, self._origins if self._server_timing else None)
        exchange.route = self._route(scope)
        context = replace(request_context.get(), timings=exchange.timings)
        token = request_context.set(context)
        if self.metrics is not None:
            self.metrics.begin()
        try:
            await self.app({**scope, _EXCHANGE: exchange}, receive, exchange.send)
        finally:
            request_context.reset(token)
            seconds = perf_counter() - exchange.began
            if self.metrics is not None:
                self.metrics.end(exchange.route, exchange.status, exchange.sent_bytes, seconds)
            if access_log.is_logged():
                access_log.log(self._entry(scope, exchange, seconds))

    def _route(self, scope: Scope) -> str:
        path = get_route_path(scope).rstrip("/") or "/"
        if path.startswith(FILE_PREFIX):
            path = FILE_PREFIX.rstrip("/")
        return path if path in self._routes else OTHER

    def _entry(self, scope: Scope, exchange: "_Exchange", seconds: float) -> AccessEntry:
        return AccessEntry(
            client=access_log.client_of(scope),
            method=access_log.printable(scope["method"].encode()),
            path=self._hide(access_log.path_of(scope)),
            query=self._hide(access_log.query_of(scope)),
            http_version=scope.get("http_version", "1.1"),
            status=exchange.status,
            sent_bytes=exchange.sent_bytes,
            seconds=seconds,
            is_complete=exchange.is_complete,
            timings=exchange.timings.get_spent(),
        )


class _Exchange:
    """One request while it is answered: what was sent of the answer, and what took how long."""

    __slots__ = (
        "_headers",
        "_origins",
        "_send",
        "began",
        "is_complete",
        "route",
        "sent_bytes",
        "status",
        "timings",
    )

    def __init__(self, send: Send, origins: list[tuple[bytes, bytes]] | None) -> None:
        self.began = perf_counter()
        self.timings = Timings()
        self.route = OTHER
        self.status = CLIENT_GONE
        self.sent_bytes = 0
        self.is_complete = False
        self._headers: Iterable[tuple[bytes, bytes]] = ()
        self._origins = origins
        self._send = send

    async def send(self, message: Message) -> None:
        """For the application: counted once the server has taken it."""
        kind = message["type"]
        if kind == "http.response.start":
            if self._origins is not None:
                value = self._server_timing()
                headers = [*message["headers"], (b"server-timing", value), *self._origins]
                message = {**message, "headers": headers}
            await self._send(message)
            self.status = message["status"]
            self._headers = message["headers"]
            return
        await self._send(message)
        if kind == "http.response.body":
            self.sent_bytes += len(message.get("body", b""))
            self.is_complete = not message.get("more_body", False)
        elif kind == "http.response.pathsend":  # an ASGI extension: the server reads the file
            self.sent_bytes += _content_length(self._headers)
            self.is_complete = True

    def _server_timing(self) -> bytes:
        """What is known before the first byte (W3C Server Timing, section 4), in milliseconds."""
        total = f"total;dur={(perf_counter() - self.began) * 1000:.3f}"
        spent = self.timings.get_spent()
        parts = [f"{stage};dur={seconds * 1000:.3f}" for stage, seconds in spent.items()]
        return ", ".join([*parts, total]).encode()


def _content_length(headers: Iterable[tuple[bytes, bytes]]) -> int:
    for name, value in headers:
        if name == b"content-length":
            return int(value)
    return 0


def _unchanged(text: str) -> str:
    return text
