"""Who may ask for what: the host's name, the bearer token, an application's permission."""

import contextlib
import hmac
import inspect
import ipaddress
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgihive.asgi import (
    HTTPException,
    QueryFields,
    get_route_path,
    parse_query,
    send_error,
)
from asgihive.asgi.errors import clip_text
from asgihive.context import request_context
from asgihive.errors import FileForbidden
from asgihive.hdf5.names import components, encoded
from asgihive.hdf5.sandbox import normalised
from asgihive.service.parameters import FILE_PREFIX, file_in_path
from asgihive.service.statuses import STATUSES

OPEN_ROUTES = frozenset({"", "health", "metrics", "openapi.json", "docs"})
"""What is answered without a token: nothing of it is of a file. What is below it is, too."""

PERMISSION = "h5_permission"
"""The key of `scope["state"]`, which is `request.state`, where a `Permission` is looked for."""

# The parameter that stands in for the header where a link carries none, and who logs queries.
_PARAMETER = "token"
_LOGGERS = ("uvicorn.access", "uvicorn.asgi", "hypercorn.access", "granian.access")
_FIELD = re.compile(r"(^|[?&\s\"'])([^?&=\s\"']+)=[^&\s\"']*")

# An address in brackets or a name, and a port (RFC 3986, section 3.2.2).
_HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]@/]+))(?::[0-9]*)?")

# A directive of Cache-Control (RFC 9111, section 5.2), and those that are for shared caches.
_DIRECTIVE = re.compile(r'([^\s,="]+)(?:="(?:[^"\\]|\\.)*"|=[^\s,"]*)?')
_OF_SHARED_CACHES = frozenset({"public", "s-maxage"})


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked for, by the names that the service itself goes by.

    route: `meta`, `data`, `file` and so on, without slashes.
    file: relative to the served directory, without `.`, `..` and needless slashes; of the
        route `files` a directory, `""` being the served one. Bytes that are not UTF-8 are
        surrogates (PEP 383).
    path: in the file, with one leading slash and no other needless one, likewise.
    """

    route: str
    file: str
    path: str


Permission = Callable[[Target], bool | Awaitable[bool]]
"""May it be answered? Anything but true is 403; an `HTTPException` answers as it says."""


class Guard:
    """An ASGI application: another one, which only answers who may ask.

    A request has to show the token, if there is one, and what it asks for has to have the
    permission in its `scope["state"]`, if there is one. The application does not see the
    token, so that it is in nothing that is logged, kept or answered.

    Args:
        token: None = none is needed.
    """

    def __init__(self, app: ASGIApp, token: str | None = None) -> None:
        self._app = Permitted(app)
        self._token = None if token is None else token.encode()
        if token is not None:
            hide_tokens()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        # Not the port: who opens many connections has no more of the lanes by that.
        client = scope.get("client")
        context = replace(request_context.get(), client=client[0] if client else "")
        before = request_context.set(context)
        try:
            if self._token is not None and not is_open(route_of(scope)):
                await self._answer(self._token, scope, receive, send)
            else:
                await self._app(scope, receive, send)
        finally:
            request_context.reset(before)

    async def _answer(self, token: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_varying(message: Message) -> None:
            # Or a shared cache would answer others with it (RFC 9111, section 4.1).
            if message["type"] == "http.response.start":
                headers = [*message["headers"], (b"vary", b"authorization")]
                message = {**message, "headers": headers}
            await send(message)

        shown = _bearer(scope)
        if shown is None:
            shown = _token_of(scope["query_string"])
        # In constant time: how long it takes says nothing of how much of a guess is right.
        if shown is None or not hmac.compare_digest(shown, token):
            refusal = _unauthorized(is_wrong=shown is not None)
            await send_error(refusal, scope, receive, send_varying)
            return
        scope = {**scope, "query_string": without_token(scope["query_string"])}
        await self._app(scope, receive, send_varying)


class HostCheck:
    """An ASGI application: another one, which answers only where its own name is asked for.

    A page of the web can let its own name lead to an address of the visitor's network (DNS
    rebinding), and so be of one origin with what listens there. The browser still says the
    page's name in `Host`. A request without that comes from no browser (RFC 9112, section 3.2).

    Args:
        allowed: names beside those of the machine itself (`is_local_host`); `*` = all.
    """

    def __init__(self, app: ASGIApp, allowed: Collection[str]) -> None:
        self._app = app
        self._allowed = frozenset(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            for name, value in scope["headers"]:
                if name == b"host" and not self._is_allowed(value):
                    await send_error(_misdirected(value), scope, receive, send)
                    return
        await self._app(scope, receive, send)

    def _is_allowed(self, value: bytes) -> bool:
        host = _host_of(value)
        return "*" in self._allowed or host in self._allowed or is_local_host(host)


def is_local_host(host: str) -> bool:
    """Whether a name or address means the machine itself: `localhost`, 127.0.0.0/8, `::1`."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


class Permitted:
    """An ASGI application: another one, which is asked only for what the permission allows.

    Where there is a permission, answers are `private`, refusals and 304 included: it may go by
    anything of a request, so that a shared cache cannot tell who else may have an answer.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        permission = scope.get("state", {}).get(PERMISSION)
        if permission is None or scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if not is_open(route_of(scope)):
            send = _sending_private(send)
        try:
            await _check(permission, target_of(scope))
        except Exception as error:  # noqa: BLE001  # answered
            await send_error(error, scope, receive, send, statuses=STATUSES)
            return
        await self._app(scope, receive, send)


def route_of(scope: Scope) -> str:
    """The name of the route that a request to the service asks; of `/file/{path}` `file`."""
    path = get_route_path(scope)
    return "file" if path.startswith(FILE_PREFIX) else path.strip("/")


def is_open(route: str) -> bool:
    """Whether a route is answered without a token."""
    return route.partition("/")[0] in OPEN_ROUTES


def target_of(scope: Scope) -> Target | None:
    """What a request asks for; None where that is no file.

    Raises:
        BadParameter, FileMissing: nothing can be meant.
    """
    route, query = route_of(scope), parse_query(scope["query_string"])
    if route == "files":
        return Target(route, normalised(query.first("dir") or ""), "/")
    named = file_in_path(scope)
    if named is not None:
        return Target(route, normalised(named), "/")
    file = query.first("file")
    if not file:
        return None
    return Target(route, normalised(file), _path(query))


def without_token(query: bytes) -> bytes:
    """A query without the fields that are the token; the others as they are."""
    return b"&".join(each for each in query.split(b"&") if not _is_token(each))


def private(directives: str) -> str:
    """A `Cache-Control` as it is for whoever asked, and nobody else (RFC 9111, section 5.2.2.7).

    As it was where that or `no-store` is said already. `private="…"` does not say it: that is
    of single fields, and whoever keeps the others has the body.
    """
    found = [(each[0], each[1].lower()) for each in _DIRECTIVE.finditer(directives)]
    if any(whole.lower() in {"private", "no-store"} for whole, _ in found):
        return directives
    left = (whole for whole, name in found if name not in {"private", *_OF_SHARED_CACHES})
    return ", ".join(["private", *left])


def hide_tokens() -> None:
    """Let the access logs of servers show `token=***`, in this process."""
    for name in _LOGGERS:
        log = logging.getLogger(name)
        if not any(isinstance(each, TokenFilter) for each in log.filters):
            log.addFilter(TokenFilter())


class TokenFilter(logging.Filter):
    """Takes tokens out of the URLs in log records."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record, and let it pass."""
        arguments = record.args or ()
        if isinstance(arguments, tuple) and all(isinstance(each, str | int) for each in arguments):
            # Formatters of access logs take these apart.
            record.msg = _redacted(record.msg)
            record.args = tuple(_redacted(each) for each in arguments)
        else:
            record.msg, record.args = _redacted(record.getMessage()), ()
        return True


def _redacted(text: Any) -> Any:
    return _FIELD.sub(_redacted_field, text) if isinstance(text, str) else text


def _redacted_field(field: re.Match[str]) -> str:
    before, name = field.groups()
    return f"{before}{name}=***" if _is_token(name.encode()) else field[0]


def _is_token(field: bytes) -> bool:
    return unquote_to_bytes(field.partition(b"=")[0]) == _PARAMETER.encode()


def _host_of(value: bytes) -> str:
    """The host of a field `Host`, without its port; what is no host is returned as it is."""
    match = _HOST.fullmatch(value)
    if match is not None and match[1]:
        with contextlib.suppress(ValueError):  # in the form of `parse_host`
            return str(ipaddress.IPv6Address(match[1].decode()))
    host = value if match is None else match[1] or match[2]
    return host.decode("latin-1").lower().rstrip(".")


def _misdirected(value: bytes) -> HTTPException:
    host = clip_text(_host_of(value))
    message = (
        f"This service answers at local names (localhost, 127.0.0.1, [::1]) only, not at {host!r}: "
        "allow a name with --allowed-host NAME, or with the setting allowed_hosts"
    )
    return HTTPException(403, message)


def _bearer(scope: Scope) -> bytes | None:
    """The credentials of the scheme Bearer (RFC 6750, section 2.1; its name in any case)."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, credentials = value.partition(b" ")
            if scheme.lower() == b"bearer":
                found: bytes = credentials.strip(b" \t")
                return found
    return None


def _token_of(query: bytes) -> bytes | None:
    fields = [each for each in query.split(b"&") if _is_token(each)]
    return unquote_to_bytes(fields[0].partition(b"=")[2]) if fields else None


def _unauthorized(*, is_wrong: bool) -> HTTPException:
    # RFC 6750, section 3: a request without credentials is told of no error.
    challenge = 'Bearer realm="asgihive"'
    if not is_wrong:
        message = "A token is needed: send it as `Authorization: Bearer …`, or as `?token=…`"
        return HTTPException(401, message, {"WWW-Authenticate": challenge})
    challenge += ', error="invalid_token"'
    return HTTPException(401, "This is not the token", {"WWW-Authenticate": challenge})


def _path(query: QueryFields) -> str:
    path = b"/".join(components(encoded(query.first("path") or "/")))
    return "/" + path.decode("utf-8", "surrogateescape")


def _sending_private(send: Send) -> Send:
    async def send_private(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": _private(message["headers"])}
        await send(message)

    return send_private


def _private(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """With one `Cache-Control`: of several, some caches read only the first."""
    given = list(headers)
    stated = b", ".join(value for name, value in given if name == b"cache-control")
    others = [each for each in given if each[0] != b"cache-control"]
    return [*others, (b"cache-control", private(stated.decode("latin-1")).encode("latin-1"))]


async def _check(permission: Permission, target: Target | None) -> None:
    """Raises FileForbidden, or whatever `permission` raises."""
    if target is None:
        return
    allowed = permission(target)
    if inspect.isawaitable(allowed):
        allowed = await allowed
    if allowed is not True:
        raise FileForbidden(target.file or "/")
