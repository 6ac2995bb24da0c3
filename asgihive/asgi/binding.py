"""A request → the arguments of functions, as their signatures say."""

from collections.abc import Callable
from http.cookies import CookieError
from typing import Any

from starlette.background import BackgroundTasks
from starlette.requests import HTTPConnection, Request, cookie_parser
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from asgihive.asgi.bodies import INLINE_BYTES, JSON, MSGPACK, BodyReader, decode_body
from asgihive.asgi.conversion import converter
from asgihive.asgi.errors import HTTPException, Problem, ProblemsFound
from asgihive.asgi.request_fields import parse_query
from asgihive.asgi.signature import Argument, Source
from asgihive.concurrency import run_in_worker
from asgihive.errors import BadParameter


class Call:
    """One request while it is answered: what was read of it, and what was made of that."""

    __slots__ = (
        "_connection",
        "_cookies",
        "_fields",
        "_headers",
        "_replayed",
        "background",
        "problems",
        "receive",
        "results",
        "scope",
        "send",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.problems: list[Problem] = []
        self.results: list[Any] = []
        """Of the dependencies, in the order of their calls."""
        self.background: BackgroundTasks | None = None
        self._connection: HTTPConnection | None = None
        self._cookies: dict[str, str] | None = None
        self._fields: dict[str, list[str]] | None = None
        self._headers: dict[str, list[str]] | None = None
        self._replayed: bytes | None = None

    def fields(self) -> dict[str, list[str]]:
        """Of the query string."""
        if self._fields is None:
            try:
                self._fields = parse_query(self.scope["query_string"]).fields
            except BadParameter as error:
                raise HTTPException(422, str(error)) from None
        return self._fields

    def headers(self) -> dict[str, list[str]]:
        """By name in lower case, in the order of the request."""
        if self._headers is None:
            self._headers = {}
            for name, value in self.scope["headers"]:
                self._headers.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
        return self._headers

    def header(self, name: bytes) -> str | None:
        """The first value of a header, by its name in lower case."""
        for each, value in self.scope["headers"]:
            if each == name:
                text: str = value.decode("latin-1")
                return text
        return None

    def cookies(self) -> dict[str, str]:
        """Of all `Cookie` headers (RFC 6265 §5.4, RFC 9113 §8.2.3)."""
        if self._cookies is None:
            text = "; ".join(self.headers().get("cookie", ()))
            try:
                self._cookies = cookie_parser(text)
            except CookieError:
                self._cookies = {}
        return self._cookies

    def connection(self) -> Any:
        """The `Request` or `WebSocket`, one a call; after the body was read it can be again."""
        if self._connection is None:
            if self.scope["type"] == "websocket":
                self._connection = WebSocket(self.scope, self.receive, self.send)
            else:
                self._connection = Request(self.scope, self._next_message, self.send)
        return self._connection

    def background_tasks(self) -> BackgroundTasks:
        """What runs after the response."""
        if self.background is None:
            self.background = BackgroundTasks()
        return self.background

    async def body(self, argument: Argument, reader: BodyReader) -> Any:
        """The decoded body, or the argument's default where there is none.

        Raises:
            HTTPException: as `BodyReader` says.
            ClientDisconnect
        """
        content_type = self.header(b"content-type") or ""
        raw = await reader.read(self.receive, self.header(b"content-length"))
        self._replayed = raw
        if not raw and not argument.required:
            return argument.own_default()
        decode = reader.decoder(content_type) if raw else None
        if decode is None:
            if raw or reader.decoders is None:
                return raw
            message = f"it is missing; {JSON} and {MSGPACK} are accepted"
            self.problems.append(Problem(("body",), message))
            return None
        try:
            return (
                decode_body(decode, raw)
                if len(raw) <= INLINE_BYTES
                else await run_in_worker(decode_body, decode, raw)
            )
        except ProblemsFound as found:
            self.note(found, ("body",))
            return None

    def note(self, found: ProblemsFound, where: tuple[str | int, ...]) -> None:
        """Keep what is wrong for the answer."""
        self.problems.extend(
            Problem((*where, *each.where), each.message) for each in found.problems
        )

    async def _next_message(self) -> Message:
        if self._replayed is not None:
            body, self._replayed = self._replayed, None
            return {"type": "http.request", "body": body, "more_body": False}
        return await self.receive()


Read = Callable[[Call], Any]


def reader_of(argument: Argument) -> Read:
    """What reads an argument that is neither the body nor a dependency.

    Where the request is wrong, it notes why in the call and returns None.
    """
    if argument.source is Source.INJECTED:
        return Call.background_tasks if argument.annotation is BackgroundTasks else Call.connection
    convert = converter(argument.annotation)
    get = _GETTERS[argument.source](argument)
    where = (argument.source.value, argument.key)
    missing = Problem(where, "it is missing")
    required = argument.required

    def read(call: Call) -> Any:
        try:
            raw = get(call)
            value = None if raw is None else convert(raw)
        except ProblemsFound as found:
            call.note(found, where)
            return None
        if raw is not None:
            return value
        if not required:
            return argument.own_default()
        call.problems.append(missing)
        return None

    return read


def _path_getter(argument: Argument) -> Read:
    key = argument.key
    return lambda call: call.scope["path_params"][key]


def _query_getter(argument: Argument) -> Read:
    key = argument.key

    def get_all(call: Call) -> Any:
        values = call.fields().get(key)
        return values and [_unicode(each) for each in values]

    def get_first(call: Call) -> Any:
        values = call.fields().get(key)
        return values and _unicode(values[0])

    return get_all if argument.many else get_first


def _header_getter(argument: Argument) -> Read:
    key = argument.key
    if argument.many:
        return lambda call: call.headers().get(key)
    name = key.encode("latin-1", "replace")
    return lambda call: call.header(name)


def _cookie_getter(argument: Argument) -> Read:
    key = argument.key
    return lambda call: call.cookies().get(key)


_GETTERS: dict[Source, Callable[[Argument], Read]] = {
    Source.PATH: _path_getter,
    Source.QUERY: _query_getter,
    Source.HEADER: _header_getter,
    Source.COOKIE: _cookie_getter,
}


def _unicode(text: str) -> str:
    """The text of a query's field, whose bytes may be anything."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ProblemsFound([Problem((), "it is not UTF-8")]) from None
    return text
