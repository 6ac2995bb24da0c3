"""The gate: what protects every hive, before a request reaches the router and until it is sent."""

import logging
from functools import partial
from types import MappingProxyType

from starlette.types import ASGIApp, Receive, Scope, Send

from asgihive.asgi.errors import SendsError, Statuses, send_error
from asgihive.asgi.request_fields import check_framing
from asgihive.asgi.responses import ClientStalled, Passage
from asgihive.errors import AnswerBroken, AsgihiveError

SEND_TIMEOUT_SECONDS = 60.0
"""How long a client may take for one body chunk, by default."""

# Where servers log what an application raises.
_ERROR_LOGGERS = ("uvicorn.error", "hypercorn.error")


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
        self.errors: SendsError | None = None
        """What answers an exception in place of `send_error`; it changes with `app`."""
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
            answer = self.errors or partial(send_error, statuses=self.statuses)
            await answer(error, scope, receive, passage.send, phase=passage.phase)


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
