"""What generators left open: closed after the response, in reverse order, whatever happened."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import TypeVar

import anyio

from asgihive.concurrency import run_in_worker

T = TypeVar("T")
_Exit = Callable[
    [type[BaseException] | None, BaseException | None, TracebackType | None], Awaitable[object]
]

_logger = logging.getLogger(__name__)

MAX_SECONDS = 60.0
"""For all cleaning up of one request, after which it is cancelled and the rest is tried."""


class Cleanups:
    """The opened context managers of one request."""

    __slots__ = ("_exits",)

    def __init__(self) -> None:
        self._exits: list[_Exit] = []

    async def enter(self, manager: AbstractAsyncContextManager[T]) -> T:
        """Open a context manager on the event loop."""
        value = await manager.__aenter__()
        self._exits.append(manager.__aexit__)
        return value

    async def enter_in_worker(self, manager: AbstractContextManager[T]) -> T:
        """Open a context manager in a worker thread; it is closed in one as well."""
        value = await run_in_worker(manager.__enter__)

        async def close(
            kind: type[BaseException] | None,
            error: BaseException | None,
            traceback: TracebackType | None,
        ) -> object:
            return await run_in_worker(manager.__exit__, kind, error, traceback)

        self._exits.append(close)
        return value

    async def close(self, error: BaseException | None) -> None:
        """Close all in reverse order, shielded from cancellation.

        Each sees `error`, the exception that ended the request, or the one that an earlier
        cleanup raised in its place. One that swallows it changes nothing for the others.

        Raises:
            BaseException: what a cleanup raised, unless it is `error` itself.
        """
        current = error
        while self._exits:
            leave = self._exits.pop()
            with anyio.move_on_after(MAX_SECONDS, shield=True) as limit:
                try:
                    await leave(
                        None if current is None else type(current),
                        current,
                        None if current is None else current.__traceback__,
                    )
                except Exception as raised:  # noqa: BLE001  # raised below, after the others
                    current = raised
            if limit.cancelled_caught:
                _logger.error("A cleanup took more than %g seconds and was cancelled", MAX_SECONDS)
        if current is not None and current is not error:
            raise current
