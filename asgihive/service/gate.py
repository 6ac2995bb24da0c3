"""The gate of the service: who may ask for what, and what is noted of each request.

A request passes, in this order: preflights of other origins, the name of the host, framing, the
token, an application's permission. What is sent passes one `send`, which completes the headers,
bounds the time that the client takes, and counts.
"""

import contextlib
import hmac
import inspect
import ipaddress
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any
from urllib.parse import unquote_to_bytes

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgihive import errors
from asgihive.asgi import HTTPException, get_route_path, parse_query, send_error
from asgihive.asgi.errors import clip_text
from asgihive.asgi.gate import Gate
from asgihive.asgi.layers import enter_layer
from asgihive.asgi.request_fields import check_framing
from asgihive.asgi.responses import Passage
from asgihive.concurrency import RequestContext, Timings, get_spent, request_context
from asgihive.hdf5.file_bytes import decoded, split_path
from asgihive.hdf5.open_file import Unsettled
from asgihive.hdf5.sandbox import normalised
from asgihive.service import access_log
from asgihive.service.access_log import AccessEntry
from asgihive.service.operations import Metrics
from asgihive.service.parameters import FILE_PREFIX, VIEW_PREFIX, ZARR_PREFIX, find_file_in_path
from asgihive.settings import H5Settings

STATUSES: dict[type[Exception], int] = {
    errors.BadParameter: 422,
    errors.ExtraMissing: 501,
    errors.FileMissing: 404,
    errors.FileForbidden: 403,
    errors.FileUnreadable: 422,
    errors.FileBeingWritten: 503,
    errors.FileChanged: 503,
    errors.RootUnreadable: 503,
    errors.StoreUnavailable: 503,
    errors.StoreRefused: 502,
    errors.StoreUnlisted: 501,
    errors.ReaderCrashed: 500,
    errors.EntityMissing: 404,
    errors.LinkUnresolved: 404,
    errors.SourceRefused: 404,
    errors.KindMismatch: 422,
    errors.AttributeMissing: 404,
    errors.TypeUnsupported: 422,
    errors.FilterMissing: 501,
    errors.LibraryRefused: 501,
    errors.DamagedData: 500,
    errors.AnswerTooLarge: 413,
    errors.ChunkTooLarge: 413,
    errors.TooManyPaths: 413,
    errors.Overloaded: 503,
    errors.DescriptorsExhausted: 503,
    errors.ReadTimeout: 504,
    Unsettled: 503,
}
"""Which error answers with which HTTP status: the one table of it (RFC 9110, section 15)."""

OPEN_ROUTES = frozenset({"", "health", "metrics", "openapi.json", "docs", "view"})
"""What is answered without a token: nothing of it is of a file. What is below it is, too."""

PERMISSION = "h5_permission"
"""The key of `scope["state"]`, which is `request.state`, where a `Permission` is looked for."""

NO_SNIFFING = (b"x-content-type-options", b"nosniff")
"""A browser takes a body for nothing but its `Content-Type` (Fetch standard, section 3.6)."""

METHODS = ("GET", "HEAD", "POST")
"""The methods that pages of other origins may use."""

EXPOSED_HEADERS = (
    "accept-ranges",
    "allow",
    "content-disposition",
    "content-length",
    "content-range",
    "etag",
    "missing-sources",
    "retry-after",
    "server-timing",
    "www-authenticate",
    "x-asgihive-factors",
    "x-asgihive-limits",
    "x-asgihive-method",
    "x-asgihive-paths",
    "x-asgihive-selection",
    "x-asgihive-shape",
)
"""What a page may read of a response beside the CORS-safelisted names (Fetch standard, 2.2.2)."""

OTHER = "other"
"""The route in metrics of what no route of the service answers."""

CLIENT_GONE = 499
"""The status where none was sent, since the client has gone; nginx's number for it."""

_STARTS = frozenset({"http.response.start", "websocket.http.response.start"})

# Where the scope says that a request has passed a gate already.
_PASSAGE = "asgihive.passage"

_OF_BODY = frozenset({"content-length", "content-type"})

# An address in brackets or a name, and a port (RFC 9110, section 4.2.4; RFC 3986, 3.2.2).
_HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]@/]+))(?::[0-9]*)?")

# A directive of Cache-Control (RFC 9111, section 5.2), and those that are for shared caches.
_DIRECTIVE = re.compile(r'([^\s,="]+)(?:="(?:[^"\\]|\\.)*"|=[^\s,"]*)?')
_OF_SHARED_CACHES = frozenset({"public", "s-maxage"})


@dataclass(frozen=True, slots=True)
class RequestedEntity:
    """What a request asks for, by the names that the service itself goes by."""

    route: str
    """`meta`, `data`, `file` and so on, without slashes."""
    file: str
    """The file, relative to the served directory, without `.`, `..` and needless slashes; of the
    route `files` a directory, `""` being the served one. Bytes that are not UTF-8 are surrogates
    (PEP 383)."""
    path: str
    """The path in the file, with one leading slash and no other needless one, likewise."""


Permission = Callable[[RequestedEntity], bool | Awaitable[bool]]
"""May it be answered? Anything but true is 403; an `HTTPException` answers as it says."""


class ServiceGate(Gate):
    """An ASGI application: the service, behind all that a request must pass.

    Args:
        app: the service.
        settings: its token, allowed hosts, origins and timeouts.
        routes: the paths that are told apart in metrics; others count as `other`.
        metrics: where requests are counted, if they are.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: H5Settings,
        routes: Collection[str] = (),
        metrics: Metrics | None = None,
    ) -> None:
        super().__init__(app, STATUSES, settings.send_timeout_seconds)
        self.metrics = metrics
        # By route and status, which are few.
        self._counters: dict[tuple[str, int], tuple[Any, Any, Any]] = {}
        self._routes = frozenset(routes)
        self._token = None if settings.token is None else settings.token.encode()
        self._hosts = None if settings.allowed_hosts is None else frozenset(settings.allowed_hosts)
        self._cors = CrossOrigin(app, settings.cors_origins) if settings.cors_origins else None
        self._timing_headers = (
            [(b"timing-allow-origin", each.encode()) for each in settings.cors_origins]
            if settings.server_timing
            else None
        )
        if settings.token is not None:
            access_log.hide_tokens_in_server_logs()
        self._hide = access_log.make_token_hider(settings.token)

    def make_outer(self, app: ASGIApp) -> "OuterGate":
        """Return the gate of an application that the service is a part of."""
        return OuterGate(app, self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif (passage := scope.get(_PASSAGE)) is not None:
            await self._admit(scope, receive, send, passage)
        else:
            await self.observe(self._admit, scope, receive, send)

    async def observe(self, answer: "Observed", scope: Scope, receive: Receive, send: Send) -> None:
        """Let `answer` answer a request; measure, count and log it."""
        metrics, is_logged = self.metrics, access_log.logger.isEnabledFor(logging.INFO)
        is_observed = scope["type"] == "http" and (
            self._timing_headers is not None or metrics is not None or is_logged
        )
        timings: Timings | None = {} if is_observed else None
        passage = ServicePassage(
            send, self.send_timeout_seconds, timings=timings, timing_headers=self._timing_headers
        )
        # Not the port: a client that opens many connections gets no more of the lanes by that.
        client = scope.get("client")
        if timings is None:
            timings = request_context.get().timings
        token = request_context.set(RequestContext(client[0] if client else "", timings))
        if is_observed and metrics is not None:
            metrics.in_progress += 1
        try:
            await answer(scope, receive, passage.send, passage)
        finally:
            request_context.reset(token)
            if is_observed:
                self._note(scope, passage)

    async def _admit(
        self, scope: Scope, receive: Receive, send: Send, passage: "ServicePassage"
    ) -> None:
        """Hand a request that may pass to the service, and answer any other, and what it raises."""
        path = get_route_path(scope) if scope.get("root_path") else scope["path"]
        route = find_route_name(path)
        if (label := f"/{route}") in self._routes:
            passage.label = label
        if self._cors is not None and scope["type"] == "http":
            headers = Headers(scope=scope)
            if "origin" in headers:
                if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                    await self._cors.preflight_response(headers)(scope, receive, send)
                    return
                send = partial(self._cors.send, send=send, request_headers=headers)
        try:
            if self._hosts is not None:
                check_host(scope, self._hosts)
            check_framing(scope)
            if self._token is not None and not is_open(route):
                passage.varies_by_token = True
                check_token(scope, self._token)
                # So that the token is in nothing that is logged, kept or answered.
                query = remove_token(scope["query_string"])
                scope = enter_layer(scope, {"query_string": query})
            if PERMISSION in scope.get("state", ()):
                passage.is_private = not is_open(route)
                await check_permission(scope)
            await self.app(scope, receive, send)
        except Exception as error:  # noqa: BLE001  # answered or raised again
            await send_error(
                error, scope, receive, send, statuses=self.statuses, phase=passage.phase
            )

    def _note(self, scope: Scope, passage: "ServicePassage") -> None:
        """Count and log a request that was answered."""
        seconds = perf_counter() - passage.began
        if self.metrics is not None:
            label, status = passage.label, passage.status
            counters = self._counters.get((label, status))
            if counters is None:  # which take as long to find as to count with
                found = self.metrics.instruments
                counters = self._counters[label, status] = (
                    found.requests.labels(label, str(status)),
                    found.sent.labels(label),
                    found.seconds.labels(label),
                )
            requests, sent, duration = counters
            requests.inc()
            sent.inc(passage.sent_bytes)
            duration.observe(seconds)
            self.metrics.in_progress -= 1
        if access_log.logger.isEnabledFor(logging.INFO):
            access_log.log(
                AccessEntry(
                    client=access_log.get_client(scope),
                    method=access_log.make_printable(scope["method"].encode()),
                    path=self._hide(access_log.get_path(scope)),
                    query=self._hide(access_log.get_query(scope)),
                    http_version=scope.get("http_version", "1.1"),
                    status=passage.status,
                    sent_bytes=passage.sent_bytes,
                    seconds=seconds,
                    is_complete=passage.is_complete,
                    timings=get_spent(passage.timings or {}),
                    route=getattr(scope.get("route"), "path", ""),
                )
            )


class OuterGate:
    """An ASGI application: one that the service is a part of, observed as the service is."""

    def __init__(self, app: ASGIApp, gate: ServiceGate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        else:
            await self._gate.observe(self._answer, scope, receive, send)

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, passage: "ServicePassage"
    ) -> None:
        await self._app(enter_layer(scope, {_PASSAGE: passage}), receive, send)


@dataclass(slots=True, eq=False)
class ServicePassage(Passage):
    """One request at the gate: what is sent of its response, and what took how long."""

    timings: Timings | None = None
    """None = the request is not observed."""
    timing_headers: list[tuple[bytes, bytes]] | None = None
    """Beside `Server-Timing`; None = that is not sent."""
    began: float = field(default_factory=perf_counter)
    label: str = OTHER
    """The route in metrics."""
    status: int = CLIENT_GONE
    sent_bytes: int = 0
    is_complete: bool = False
    varies_by_token: bool = False
    is_private: bool = False
    """Whether the response is for the client alone."""
    length: int = 0
    """The `Content-Length` of the response."""

    async def send(self, message: Message) -> None:
        """Send a message for the service; it counts once the server has taken it."""
        kind = message["type"]
        if kind in _STARTS:
            message = {**message, "headers": self._complete(message["headers"])}
        # Not by `super`, which knows no class that has `slots` (python/cpython#90562).
        await Passage.send(self, message)
        if kind == "http.response.start":
            self.status = message["status"]
        elif kind == "http.response.body":
            self.sent_bytes += len(message.get("body", b""))
            self.is_complete = not message.get("more_body", False)
        elif kind == "http.response.pathsend":  # an ASGI extension: the server reads the file
            self.sent_bytes += self.length
            self.is_complete = True

    def _complete(self, given: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        headers = list(given)
        # It is there where the response has come from a reader process.
        if NO_SNIFFING not in headers:
            headers.append(NO_SNIFFING)
        if self.is_private:
            # One field: of several, some caches read only the first.
            stated = b", ".join(value for name, value in headers if name == b"cache-control")
            directives = make_private(stated.decode("latin-1")).encode("latin-1")
            headers = [each for each in headers if each[0] != b"cache-control"]
            headers.append((b"cache-control", directives))
        if self.varies_by_token:
            # Or a shared cache would answer others with it (RFC 9111, section 4.1).
            headers.append((b"vary", b"authorization"))
        for name, value in headers:
            if name == b"content-length":
                self.length = int(value)
        if self.timings is not None and self.timing_headers is not None:
            # What is known before the first byte (W3C Server Timing, section 4), in milliseconds.
            text = ""
            if self.timings:
                for stage, seconds in get_spent(self.timings).items():
                    text += f"{stage};dur={seconds * 1000:.3f}, "
            text += f"total;dur={(perf_counter() - self.began) * 1000:.3f}"
            headers.append((b"server-timing", text.encode()))
            headers += self.timing_headers
        return headers


Observed = Callable[[Scope, Receive, Send, ServicePassage], Awaitable[None]]
"""Answers a request that is measured, counted and logged."""


class CrossOrigin(CORSMiddleware):
    """Cross-origin requests (Fetch standard, 3.3), as Starlette answers them.

    A refused preflight is an error in JSON, as all others are.

    Args:
        origins: as `H5Settings.cors_origins`.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=("*",),
            expose_headers=EXPOSED_HEADERS,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Return the answer to a preflight: 200, or 400 with what is wrong and what is accepted."""
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        wrong = bytes(answer.body).decode()
        origins = "any origin" if self.allow_all_origins else ", ".join(self.allow_origins)
        message = f"{wrong}: {', '.join(METHODS)} from {origins} are accepted"
        headers = {name: each for name, each in answer.headers.items() if name not in _OF_BODY}
        return JSONResponse({"message": message}, answer.status_code, headers)


def find_route_name(path: str) -> str:
    """Return what a route is called: its path without slashes, and without names of files."""
    for prefix in (FILE_PREFIX, VIEW_PREFIX, ZARR_PREFIX):
        if path.startswith(prefix):
            return prefix.strip("/")
    return path.strip("/")


def is_open(route: str) -> bool:
    """Return whether a route is answered without a token."""
    return route.partition("/")[0] in OPEN_ROUTES


def check_host(scope: Scope, allowed: Collection[str]) -> None:
    """Refuse a request for another name than the service's own.

    A page of the web can let its own name lead to an address of the client's network (DNS
    rebinding), and so be of one origin with what listens there. The browser still says the
    page's name in `Host`. A request without that comes from no browser (RFC 9112, section 3.2).

    Args:
        allowed: names beside those of the machine itself (`is_local_host`); `*` = all.

    Raises:
        HTTPException: 403.
    """
    for name, value in scope["headers"]:
        if name != b"host" or "*" in allowed:
            continue
        match = _HOST.fullmatch(value)
        host = (value if match is None else match[1] or match[2]).decode("latin-1")
        host = host.lower().rstrip(".")
        if match is not None and match[1]:
            with contextlib.suppress(ValueError):  # in the form of `parse_host`
                host = str(ipaddress.IPv6Address(host))
        if host not in allowed and not is_local_host(host):
            message = (
                "This service answers at local names (localhost, 127.0.0.1, [::1]) only, not at "
                f"{clip_text(host)!r}: allow a name with --allowed-host NAME, or with the setting "
                "allowed_hosts"
            )
            raise HTTPException(403, message)


def is_local_host(host: str) -> bool:
    """Return whether a name or address means the machine: `localhost`, 127.0.0.0/8, `::1`."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def check_token(scope: Scope, token: bytes) -> None:
    """Refuse a request that does not show the token, in a header or in the query.

    Raises:
        HTTPException: 401.
    """
    shown: bytes | None = None
    for name, value in scope["headers"]:
        if name == b"authorization":
            # The scheme in any case (RFC 6750, section 2.1; RFC 9110, section 11.1).
            scheme, _, credentials = value.partition(b" ")
            if scheme.lower() == b"bearer":
                shown = credentials.strip(b" \t")
                break
    if shown is None:
        for each in scope["query_string"].split(b"&"):
            if access_log.is_token_field(each):
                shown = unquote_to_bytes(each.partition(b"=")[2])
                break
    # RFC 6750, section 3: a request without credentials is told of no error.
    challenge = 'Bearer realm="asgihive"'
    if shown is None:
        message = "A token is needed: send it as `Authorization: Bearer …`, or as `?token=…`"
        raise HTTPException(401, message, {"WWW-Authenticate": challenge})
    # In constant time: how long it takes says nothing of how much of a guess is right.
    if not hmac.compare_digest(shown, token):
        challenge += ', error="invalid_token"'
        raise HTTPException(401, "This is not the token", {"WWW-Authenticate": challenge})


def remove_token(query: bytes) -> bytes:
    """Return a query without the fields that are the token; the others as they are."""
    return b"&".join(each for each in query.split(b"&") if not access_log.is_token_field(each))


async def check_permission(scope: Scope) -> None:
    """Ask the permission in `scope["state"]`, if there is one, for what a request asks for.

    Where there is a permission, responses are `private`, refusals and 304 included: it may go by
    anything of a request, so that a shared cache cannot tell who else may have a response.

    Raises:
        FileForbidden: it may not be answered.
        BadParameter, FileMissing: nothing can be meant.
        Exception: whatever the permission raises.
    """
    permission = find_permission(scope)
    requested = None if permission is None else get_requested_entity(scope)
    if permission is None or requested is None:
        return
    if not await is_permitted(permission, requested):
        raise errors.FileForbidden(requested.file or "/")


def find_permission(scope: Scope) -> Permission | None:
    """Return the permission that an application has put into the state of a request."""
    found: Permission | None = scope.get("state", {}).get(PERMISSION)
    return found


async def is_permitted(permission: Permission, requested: RequestedEntity) -> bool:
    """Return whether a permission lets something be answered; raises whatever it raises."""
    allowed = permission(requested)
    if inspect.isawaitable(allowed):
        allowed = await allowed
    return allowed is True


def get_requested_entity(scope: Scope) -> RequestedEntity | None:
    """Return what a request asks for; None where that is no file.

    And None of `/zarr`, which asks the permission itself: which part of its URL is a file, and
    which entity a name there stands for, is known to whoever has looked at them. And of `/view`,
    whose query says what the page is to ask for; the page itself is of no file.

    Raises:
        BadParameter, FileMissing: nothing can be meant.
    """
    query, named = parse_query(scope["query_string"]), find_file_in_path(scope)
    if named is not None:
        return RequestedEntity("file", normalised(named), "/")
    route = find_route_name(get_route_path(scope))
    if route in {ZARR_PREFIX.strip("/"), VIEW_PREFIX.strip("/")}:
        return None
    if route == "files":
        return RequestedEntity(route, normalised(query.get("dir", [""])[0]), "/")
    file = query.get("file", [""])[0]
    if not file:
        return None
    path = b"/".join(split_path(query.get("path", [""])[0] or "/"))
    return RequestedEntity(route, normalised(file), "/" + decoded(path))


def make_private(directives: str) -> str:
    """Return a `Cache-Control` for the client alone (RFC 9111, section 5.2.2.7).

    Unchanged where that or `no-store` is said already. `private="…"` does not say it: that is
    of single fields, and a cache that keeps the others has the body.
    """
    found = [(each[0], each[1].lower()) for each in _DIRECTIVE.finditer(directives)]
    if any(whole.lower() in {"private", "no-store"} for whole, _ in found):
        return directives
    left = (whole for whole, name in found if name not in {"private", *_OF_SHARED_CACHES})
    return ", ".join(["private", *left])
