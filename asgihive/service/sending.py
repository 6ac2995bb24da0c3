"""What holds for every message to a client: how long it may take, one header, what is logged."""

import logging
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
from starlette.types import Message, Send

from asgihive.errors import AsgihiveError

NO_SNIFFING = (b"x-content-type-options", b"nosniff")
"""A browser takes a body for nothing but its `Content-Type` (Fetch standard, section 3.6)."""

_STARTS = frozenset({"http.response.start", "websocket.http.response.start"})

# Whatever is less lies in the buffers of the server and the operating system.
_LITTLE_BYTES = 1 << 16


class ClientStalled(OSError):  # as when it were gone: nobody is left to be answered
    """A client took nothing of a block for too long."""


def within(seconds: float, send: Send) -> Callable[[Message], Coroutine[Any, Any, None]]:
    """`send`, which a client may hold up for so long in one call.

    Whoever streams to it meanwhile holds files open, and blocks in memory. A server whose
    `send` cannot be cancelled (Hypercorn on trio) holds them as long as it likes.

    Raises:
        ClientStalled: by what is returned; the server then drops the connection.
    """

    async def sending(message: Message) -> None:
        if message["type"] in _STARTS:
            await send(_marked(message))
            return
        if not message.get("more_body") and len(message.get("body", b"")) < _LITTLE_BYTES:
            await send(message)
            return
        with anyio.move_on_after(seconds) as scope:
            await send(message)
        if scope.cancelled_caught:
            raise ClientStalled(f"the client took no block within {seconds:g} s")

    return sending


def mark(send: Send) -> Send:
    """`send`, which adds `NO_SNIFFING` to the start of a response."""

    async def send_marked(message: Message) -> None:
        await send(_marked(message) if message["type"] in _STARTS else message)

    return send_marked


def _marked(message: Message) -> Message:
    headers = message["headers"]
    # It is there where the response has come from a reader process.
    if any(name == NO_SNIFFING[0] for name, _ in headers):
        return message
    return {**message, "headers": [*headers, NO_SNIFFING]}


# Where servers log what an application raises.
_ERROR_LOGGERS = ("uvicorn.error", "hypercorn.error")


def shorten_broken_answers() -> None:
    """Let servers log an answer that is broken off in one line, in this process.

    An answer that has begun is broken off by an exception: a server aborts the connection then,
    so that the client notices, and no middleware in between takes the answer for complete.
    Servers log each exception as a fault of the application, with a hundred lines of traceback.
    """
    for name in _ERROR_LOGGERS:
        log = logging.getLogger(name)
        if not any(isinstance(each, BrokenAnswerFilter) for each in log.filters):
            log.addFilter(BrokenAnswerFilter())


class BrokenAnswerFilter(logging.Filter):
    """Makes a warning of one line of a record whose exception is no fault of the application."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record, and say whether it is to be logged."""
        error = record.exc_info[1] if record.exc_info else None
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if not isinstance(error, AsgihiveError | ClientStalled):
            return True
        record.levelno, record.levelname = logging.WARNING, logging.getLevelName(logging.WARNING)
        record.msg, record.args = "An answer that had begun was broken off: %s", (str(error),)
        record.exc_info = record.exc_text = None
        return logging.getLogger(record.name).isEnabledFor(logging.WARNING)
