"""The requests that a life is answering: shutdown waits for them, and cancels those that go on."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import anyio
from starlette.exceptions import WebSocketException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgihive.asgi import HTTPException, send_error
from asgihive.asgi.responses import PHASES
from asgihive.errors import HiveError
from asgihive.hive.contexts import HOOKED, HookedRequest

_logger = logging.getLogger("asgihive.hive")

_STOPPING = "This hive is stopping"


class HiveStopping(HTTPException, HiveError):
    """A request was still being answered when the time for it at shutdown was over."""

    def __init__(self) -> None:
        super().__init__(503, _STOPPING)


class WebSocketStopping(WebSocketException):
    """The same of a websocket, whose close code says that the server goes down."""

    def __init__(self) -> None:
        super().__init__(1001, _STOPPING)  # RFC 6455 §7.4.1


class RequestsInFlight:
    """The requests of one life that are not over yet, their hooks and cleanups included.

    It is made and used on one event loop.
    """

    def __init__(self) -> None:
        self._is_asyncio = anyio.get_cancelled_exc_class() is asyncio.CancelledError
        self._left: dict[object, tuple[Any, Scope]] = {}
        """By request: the task or cancel scope to be cancelled, and its scope."""
        self._cancelled: set[object] = set()
        self._all_ended: anyio.Event | None = None

    def track(self, app: ASGIApp) -> ASGIApp:
        """Return `app`, whose requests are counted from now on."""
        # A cancel scope costs asyncio as much as a fifth of a plain request.
        return self._track_tasks(app) if self._is_asyncio else self._track_scopes(app)

    async def end(self, seconds: float, cleanup_seconds: float) -> None:
        """Return when all of them are over; cancel those that take longer than `seconds`.

        If the caller is cancelled, they are cancelled at once. Either way their hooks and
        cleanups are waited for.

        Args:
            cleanup_seconds: how long those may take after that.
        """
        pending: BaseException | None = None
        try:
            with anyio.move_on_after(seconds):
                await self._wait()
        except anyio.get_cancelled_exc_class() as cancelled:
            pending = cancelled
        if self._left:
            for key, (work, scope) in [*self._left.items()]:
                hooked: HookedRequest | None = scope.get(HOOKED)
                # Hooks after a request are bounded in time, and no shield keeps asyncio's
                # cancellation from them.
                if hooked is None or not hooked.is_over:
                    self._cancelled.add(key)
                    work.cancel()
            with anyio.move_on_after(cleanup_seconds, shield=True):
                await self._wait()
        if self._left:
            text = "%d requests were still at work %g seconds after they were cancelled"
            _logger.error(text, len(self._left), cleanup_seconds)
        if pending is not None:
            raise pending

    async def _wait(self) -> None:
        while self._left:
            self._all_ended = anyio.Event()
            await self._all_ended.wait()

    def _track_tasks(self, app: ASGIApp) -> ASGIApp:
        left, cancelled = self._left, self._cancelled
        get_task: Callable[[], Any] = asyncio.current_task

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            key, task = object(), get_task()
            left[key] = task, scope
            try:
                await app(scope, receive, send)
            except asyncio.CancelledError:
                # The server, or a scope around, may have cancelled it too.
                if key not in cancelled or task.cancelling() > 1:
                    raise
                raise _refuse(scope) from None
            finally:
                del left[key]
                if self._all_ended is not None and not left:
                    self._all_ended.set()
                if key in cancelled:
                    cancelled.discard(key)
                    task.uncancel()

        return answer

    def _track_scopes(self, app: ASGIApp) -> ASGIApp:
        left = self._left

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            key = object()
            with anyio.CancelScope() as cancel_scope:
                left[key] = cancel_scope, scope
                try:
                    await app(scope, receive, send)
                finally:
                    del left[key]
                    if self._all_ended is not None and not left:
                        self._all_ended.set()
            self._cancelled.discard(key)
            if cancel_scope.cancelled_caught:
                raise _refuse(scope)

        return answer


def answer_stopping(app: ASGIApp) -> ASGIApp:
    """Return `app`, whose requests that were cancelled at shutdown are answered, and no others."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        phase = "new"

        async def send_and_note(message: Message) -> None:
            nonlocal phase
            phase = PHASES.get(message["type"], phase)
            await send(message)

        try:
            await app(scope, receive, send_and_note)
        except (HiveStopping, WebSocketStopping) as error:
            await send_error(error, scope, receive, send, phase=phase)

    return answer


def _refuse(scope: Scope) -> Exception:
    return WebSocketStopping() if scope["type"] == "websocket" else HiveStopping()
