"""Exceptions as answers: `HTTPException`, and the boundary that answers all others."""

import logging
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from asgihive.asgi.responses import BufferedResponse

_logger = logging.getLogger(__name__)

# What has become of a connection, by the last message that changed it; at first it is "new".
PHASES = {
    "http.response.start": "begun",
    "websocket.accept": "open",
    "websocket.close": "begun",
    "websocket.http.response.start": "begun",
}


class HTTPException(Exception):
    """Answers a request with a status and the JSON `{"message": …}`.

    Args:
        details: further members of the JSON object, which `orjson` can encode.
    """

    def __init__(
        self,
        status: int,
        message: str,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})
        self.details = dict(details or {})

    def __str__(self) -> str:
        return self.message

    def response(self) -> BufferedResponse:
        """The answer: always encodable, whatever the message holds."""
        message = self.message.encode("utf-8", "replace").decode()
        return BufferedResponse(
            orjson.dumps({"message": message, **self.details}),
            self.status,
            {"content-type": "application/json", **self.headers},
        )


async def send_error(error: HTTPException, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with `error` where nothing has been sent yet.

    A websocket handshake gets the same answer where the server offers the extension
    `websocket.http.response`; else it is closed, which is a 403 without a body.
    """
    if scope["type"] == "websocket":
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            await send(_close(error))
            return
        send = _denying(send)
    await error.response()(scope, receive, send)


class ErrorBoundary:
    """Answers every exception of `app` as JSON `{"message": …}`, and lets none through.

    `HTTPException`, also Starlette's, is answered as it says; an exception whose class is
    in `statuses`, the nearest in its method resolution order, with that status and its
    `str`; any other is logged with its traceback and answered by a bare 500. An exception
    group of one counts as that one.

    When the response has begun there is no second one: the exception is raised, and the
    server aborts the connection. An open websocket is closed, with code 1008 for client
    errors and 1011 for the others. Exceptions that only say that the client is gone end
    here quietly.

    Args:
        statuses: HTTP status by class of exception.
        headers: further headers by status; those of an `HTTPException` win. By default
            503 has `Retry-After: 1`.
    """

    def __init__(
        self,
        app: ASGIApp,
        statuses: Mapping[type[Exception], int] | None = None,
        headers: Mapping[int, Mapping[str, str]] | None = None,
    ) -> None:
        self.app = app
        self.statuses = dict(statuses or {})
        self.headers = {503: {"retry-after": "1"}} if headers is None else headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        phase = "new"

        async def noting_send(message: Message) -> None:
            nonlocal phase
            phase = PHASES.get(message["type"], phase)
            await send(message)

        try:
            await self.app(scope, receive, noting_send)
        except Exception as error:  # noqa: BLE001  # answered or raised again
            await self.answer(error, phase, scope, receive, send)

    async def answer(
        self, error: Exception, phase: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer an exception of whatever sent what brought the connection to `phase`.

        Raises:
            Exception: `error` itself, where the response has begun.
        """
        if isinstance(error, ClientDisconnect | WebSocketDisconnect):
            return
        if phase == "begun":
            raise error
        answer = self._answer(error, scope)
        if phase == "open":
            await send(_close(answer))
        else:
            await send_error(answer, scope, receive, send)

    def _answer(self, error: Exception, scope: Scope) -> HTTPException:
        while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        answer = self._known(error)
        if answer is None:
            _logger.error("Unexpected error at %r", scope["path"], exc_info=error)
            answer = HTTPException(500, "Internal server error")
        headers = {**self.headers.get(answer.status, {}), **answer.headers}
        return HTTPException(answer.status, answer.message, headers, answer.details)

    def _known(self, error: Exception) -> HTTPException | None:
        if isinstance(error, HTTPException):
            return error
        if isinstance(error, StarletteHTTPException):
            return HTTPException(error.status_code, str(error.detail), error.headers)
        for each in type(error).__mro__:
            if each in self.statuses:
                return HTTPException(self.statuses[each], str(error))
        return None


def _close(error: HTTPException) -> Message:
    # RFC 6455 §7.4.1 for the codes, §5.5 for the length of a reason.
    reason = error.message.encode("utf-8", "replace")[:123].decode("utf-8", "ignore")
    return {
        "type": "websocket.close",
        "code": 1008 if error.status < 500 else 1011,
        "reason": reason,
    }


def _denying(send: Send) -> Send:
    async def send_denial(message: Message) -> None:
        await send({**message, "type": f"websocket.{message['type']}"})

    return send_denial
