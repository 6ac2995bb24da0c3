"""The gate: what protects every hive, before a request reaches the router and until it is sent."""

import logging
from dataclasses import dataclass
from types import MappingProxyType

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgihive.asgi.errors import PHASES, HTTPException, Statuses, send_error
from asgihive.errors import AnswerBroken, AsgihiveError

SEND_TIMEOUT_SECONDS = 60.0
"""How long a client may take for one body chunk, by default."""

# Less than this lies in the buffers of the server and the operating system.
_BUFFERED_BYTES = 1 << 16

_AMBIGUOUS = "Content-Length and Transfer-Encoding exclude each other: send one of them"

# Where servers log what an application raises.
_ERROR_LOGGERS = ("uvicorn.error", "hypercorn.error")


class ClientStalled(OSError):  # as if the client were gone: there is no one to answer
    """A client took nothing of a body chunk for too long."""


class Gate:
    """An ASGI application: another one, behind what protects every hive.

    A request whose end is ambiguous is refused. Every exception is answered as `send_error` does.
    A client may hold a response up for a bounded time, since a response that is streamed holds
    files open and blocks in memory.
    """

    def __init__(
        self,
        app: ASGIApp,
        statuses: Statuses = MappingProxyType({}),
        send_timeout_seconds: float = SEND_TIMEOUT_SECONDS,
    ) -> None:
        self.app = app
        """The application behind the gate; it may change between two requests."""
        self.statuses = statuses
        """HTTP status by class of exception; they change with `app`."""
        self.send_timeout_seconds = send_timeout_seconds
        """How long a client may take for one body chunk."""
        shorten_broken_answers()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        passage = Passage(send, self.send_timeout_seconds)
        try:
            check_framing(scope)
            await self.app(scope, receive, passage.send)
        except Exception as error:  # noqa: BLE001  # answered or raised again
            await send_error(
                error, scope, receive, passage.send, statuses=self.statuses, phase=passage.phase
            )


@dataclass(slots=True, eq=False)
class Passage:
    """One request on its way through a gate."""

    to_server: Send
    seconds: float
    """How long the client may take for one body chunk."""
    phase: str = "new"
    """Of the connection, see `PHASES`."""

    async def send(self, message: Message) -> None:
        """Send a message, which the client may hold up for a bounded time.

        A server whose `send` cannot be cancelled (Hypercorn on trio) waits as long as it likes.

        Raises:
            ClientStalled: the client took too long; the server then drops the connection.
        """
        self.phase = PHASES.get(message["type"], self.phase)
        if not message.get("more_body") and len(message.get("body", b"")) < _BUFFERED_BYTES:
            await self.to_server(message)
        else:
            with anyio.move_on_after(self.seconds) as scope:
                await self.to_server(message)
            if scope.cancelled_caught:
                raise ClientStalled(f"the client took no block within {self.seconds:g} s")


def check_framing(scope: Scope) -> None:
    """Refuse a request whose end is ambiguous.

    With both headers a proxy may have taken the next client's request for a part of the body,
    or the other way round; the connection ends with the refusal (RFC 9112, section 6.1), which
    not every server sees to (h11).

    Raises:
        HTTPException: 400.
    """
    has_length = has_coding = False
    for name, _ in scope["headers"]:
        has_length = has_length or name == b"content-length"
        has_coding = has_coding or name == b"transfer-encoding"
    if has_length and has_coding:
        raise HTTPException(400, _AMBIGUOUS, {"connection": "close"})


def shorten_broken_answers() -> None:
    """Let servers log a response that is broken off in one line, in this process.

    A response that has begun is broken off by an exception: a server aborts the connection then,
    so that the client notices, and no middleware in between takes the response for complete.
    Servers log each exception as a fault of the application, with a hundred lines of traceback.
    """
    for name in _ERROR_LOGGERS:
        log = logging.getLogger(name)
        if not any(isinstance(each, BrokenAnswerFilter) for each in log.filters):
            log.addFilter(BrokenAnswerFilter())


class BrokenAnswerFilter(logging.Filter):
    """Makes a warning of one line of a record whose exception is no fault of the application."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record, and return whether it is to be logged."""
        error = record.exc_info[1] if record.exc_info else None
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if not isinstance(error, AsgihiveError | ClientStalled):
            return True
        if isinstance(error, AnswerBroken) and error.is_logged:
            return False
        record.levelno, record.levelname = logging.WARNING, logging.getLevelName(logging.WARNING)
        record.msg, record.args = "An answer that had begun was broken off: %s", (str(error),)
        record.exc_info = record.exc_text = None
        return logging.getLogger(record.name).isEnabledFor(logging.WARNING)
