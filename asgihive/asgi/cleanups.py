"""Context managers that are open while a request is answered, and are closed in time."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from functools import partial
from typing import Any, TypeVar

import anyio

from asgihive.concurrency import WorkerContext

T = TypeVar("T")

MAX_CLEANUP_SECONDS = 60.0
"""For all cleaning up of one request, after which it is cancelled and the rest is tried."""

_logger = logging.getLogger(__name__)


class Cleanups(AsyncExitStack):
    """The open context managers of one request, which are closed after its response.

    Those of the scope "function" are closed before the response is sent. In reverse order,
    shielded from cancellation, each for `MAX_CLEANUP_SECONDS` at most. Each sees the exception
    that ended the request, or the one that an earlier cleanup raised in its place. One that
    swallows it changes nothing for the others.

    Args:
        must_finish: whether one that takes too long raises, and is not only logged.
    """

    def __init__(self, *, must_finish: bool = False) -> None:
        super().__init__()
        self._must_finish = must_finish

    async def open(self, manager: AbstractAsyncContextManager[T]) -> T:
        """Open a context manager on the event loop."""
        value = await manager.__aenter__()
        self._add(manager.__aexit__)
        return value

    async def open_in_worker(self, manager: AbstractContextManager[T]) -> T:
        """Open a context manager in a worker thread; it is closed in one as well."""
        context = WorkerContext()
        value = await context.run(manager.__enter__)
        self._add(partial(context.run, manager.__exit__))
        return value

    def _add(self, leave: Callable[..., Awaitable[object]]) -> None:
        async def leave_in_time(*raised: Any) -> None:
            with anyio.move_on_after(MAX_CLEANUP_SECONDS, shield=True) as limit:
                await leave(*raised)
            if limit.cancelled_caught:
                text = "A cleanup took more than %g seconds and was cancelled"
                _logger.error(text, MAX_CLEANUP_SECONDS)
                if self._must_finish:
                    raise TimeoutError(text % MAX_CLEANUP_SECONDS)

        self.push_async_exit(leave_in_time)
