"""Errors as responses: `HTTPException`, and what is wrong with a request."""

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol, Self

import orjson
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.exceptions import WebSocketException
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from asgihive.asgi.responses import BufferedResponse
from asgihive.errors import BadParameter


class SendsError(Protocol):
    """Answers an exception, as `send_error` does."""

    async def __call__(  # as `send_error`
        self, error: Exception, scope: Scope, receive: Receive, send: Send, *, phase: str = "new"
    ) -> None: ...


Statuses = Mapping[type[Exception], int]
"""HTTP status by class of exception; a class also stands for its subclasses."""

MAX_TEXT_CHARACTERS = 200
"""Most characters of a message that a client may have written."""

_MAX_PROBLEMS = 100

# What FastAPI calls otherwise.
_INSTEAD = {"status_code": "status", "detail": "message (text) or details (a mapping)"}
_NO_STATUSES: Statuses = {}

# How msgspec ends its messages: "Expected `int` - at `$.items[3].name`".
_PLACE = re.compile(r" - at (?:`key` in )?`\$([^`]*)`$")
_STEP = re.compile(r"\.([^.\[]+)|\[([0-9]+|\.\.\.)\]")

_logger = logging.getLogger(__name__)


class HTTPException(Exception):
    """Answers a request with a status and the JSON `{"message": …}`.

    Args:
        status: the HTTP status.
        message: the reason, for people; by default the name of the status, `Not Found`.
        headers: further headers of the response.
        details: further members of the JSON object, which `orjson` can encode.
    """

    def __init__(
        self,
        status: int,
        message: str | None = None,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        message = _name_status(status) if message is None else message
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})
        self.details = dict(details or {})

    if not TYPE_CHECKING:  # whose answer would be that it takes anything

        def __new__(cls, *_: object, **named: object) -> Self:
            if cls.__init__ is HTTPException.__init__ and named.keys() & _INSTEAD.keys():
                said = ", ".join(f"{each}=…" for each in named)
                hints = [f"for {each} write {_INSTEAD[each]}" for each in named if each in _INSTEAD]
                raise TypeError(f"HTTPException({said}): {'; '.join(hints)}")
            return super().__new__(cls)

    def __str__(self) -> str:
        return str(self.message)


def _name_status(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"Status {status}"


_UNEXPECTED = HTTPException(500, "Internal server error")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a request."""

    where: tuple[str | int, ...]
    """`("query", "limit")`, or `("body", "items", 3, "name")`."""

    message: str


class ProblemsFound(Exception):
    """A value cannot be converted; the places of the problems are relative to the value."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)
        self.problems = problems


def clip_text(text: str) -> str:
    """Return a text that is short enough for a message, and that UTF-8 can encode."""
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= MAX_TEXT_CHARACTERS else f"{text[: MAX_TEXT_CHARACTERS - 1]}…"


def parse_msgspec_message(message: str) -> Problem:
    """Take a message of `msgspec` apart: what is wrong, and where."""
    match = _PLACE.search(message)
    if match is None:
        return Problem((), clip_text(message))
    where = tuple(
        int(index) if index.isdigit() else name or index for name, index in _STEP.findall(match[1])
    )
    return Problem(where, clip_text(message[: match.start()]))


def refuse_request(problems: Iterable[Problem]) -> HTTPException:
    """Return the 422 (RFC 9110 §15.5.21) that says all problems, in order, each once."""
    shown = list(dict.fromkeys(problems))[:_MAX_PROBLEMS]
    sentences = []
    for each in shown:
        source, *rest = each.where
        if source == "body":
            place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in rest)
            at = f" at {clip_text(place.removeprefix('.'))!r}" if rest else ""
            sentences.append(f"The body is wrong{at}: {each.message}")
        else:
            name = ".".join(map(str, rest))
            at = f"parameter {name!r}" if rest else "parameters together"
            verb = "is" if rest else "are"
            sentences.append(f"The {source} {at} {verb} wrong: {each.message}")
    errors = [{"where": list(each.where), "message": each.message} for each in shown]
    return HTTPException(422, "; ".join(sentences), details={"errors": errors})


def unwrap_group(error: Exception) -> Exception:
    """Return the one exception that a group is of, or what is no such group itself."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def find_http_exception(
    error: Exception, statuses: Statuses = _NO_STATUSES
) -> HTTPException | None:
    """Return the `HTTPException` that an exception means, or None if it is unexpected.

    An `HTTPException`, also Starlette's, means itself. Any other exception has the status of
    its class, or of the nearest base class that has one, and its `str` as the message. An
    exception group of one exception means that exception.
    """
    error = unwrap_group(error)
    if isinstance(error, HTTPException):
        return error
    if isinstance(error, StarletteHTTPException):
        detail: object = error.detail  # of FastAPI's own subclass it may be anything
        if isinstance(detail, str):
            return HTTPException(error.status_code, detail, error.headers)
        return HTTPException(error.status_code, None, error.headers, {"detail": detail})
    for each in type(error).__mro__:
        if each in statuses:
            details = None
            if isinstance(error, BadParameter):
                # Encodable, whatever bytes the client sent.
                details = {
                    "errors": [
                        {
                            "where": ["query", clip_text(problem.parameter)],
                            "message": str(problem).encode("utf-8", "replace").decode(),
                        }
                        for problem in error.problems
                    ]
                }
            return HTTPException(statuses[each], str(error) or None, details=details)
    return None


def answer_error(error: Exception, statuses: Statuses = _NO_STATUSES) -> BufferedResponse:
    """Return the response that answers an exception; a pure function.

    The body is JSON, `{"message": …}`, whatever its text holds. An unexpected exception is
    a 500 that does not say what happened. A 503 has `Retry-After: 1`, unless the exception has
    another one.

    Args:
        error: see `find_http_exception`.
        statuses: the statuses of exceptions that are no `HTTPException`.
    """
    known = find_http_exception(error, statuses) or _UNEXPECTED
    headers = {"content-type": "application/json"}
    if known.status == 503:
        headers["retry-after"] = "1"
    document = {"message": known.message, **known.details}
    try:
        body = orjson.dumps(document)
    except orjson.JSONEncodeError:  # text of a client or a file that UTF-8 cannot encode
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
        body = text.encode("utf-8", "replace")
    return BufferedResponse(body, known.status, {**headers, **known.headers})


async def send_error(  # noqa: PLR0913  # the three of ASGI, and three facts of the error
    error: Exception,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    statuses: Statuses = _NO_STATUSES,
    phase: str = "new",
) -> None:
    """Answer an exception as `answer_error` says, and log it if it is unexpected.

    A websocket handshake gets the same response where the server offers the extension
    `websocket.http.response`; else it is closed, which is a 403 without a body. An open
    websocket is closed with code 1008 for client errors and 1011 for others. Starlette's
    `WebSocketException` closes with its own code and reason, which before the handshake is a
    403. An exception that says that the client is gone is answered by nothing.

    Args:
        phase: of the connection, see `responses.PHASES`.

    Raises:
        Exception: `error` itself, if the response has begun: there is no second one, and the
            server aborts the connection.
    """
    if isinstance(error, ClientDisconnect | WebSocketDisconnect):
        return
    if phase == "begun":
        raise error
    if isinstance(error, WebSocketException) and scope["type"] == "websocket":
        reason = _clip_reason(error.reason)
        await send({"type": "websocket.close", "code": error.code, "reason": reason})
        return
    known = find_http_exception(error, statuses)
    if known is None:
        _logger.error("Unexpected error at %r", scope["path"], exc_info=error)
        known = _UNEXPECTED
    if scope["type"] == "websocket":
        if phase == "open" or "websocket.http.response" not in (scope.get("extensions") or {}):
            code = 1008 if known.status < 500 else 1011  # RFC 6455 §7.4.1
            reason = _clip_reason(known.message)
            await send({"type": "websocket.close", "code": code, "reason": reason})
            return
        send = send_as_denial(send)
    await answer_error(known)(scope, receive, send)


def _clip_reason(text: str) -> str:
    """Return as much of a text as the reason of a close frame may have (RFC 6455 §5.5)."""
    return text.encode("utf-8", "replace")[:123].decode("utf-8", "ignore")


def send_as_denial(send: Send) -> Send:
    """Return a `send` that makes an HTTP response the refusal of a websocket handshake."""

    async def send_denial(message: Message) -> None:
        await send({**message, "type": f"websocket.{message['type']}"})

    return send_denial
