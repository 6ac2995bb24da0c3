"""Tasks: results in order while the next ones are made, and several jobs at once."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

import anyio
from anyio.from_thread import BlockingPortal

from asgihive.concurrency import LoopLocal

B = TypeVar("B")
R = TypeVar("R")


@dataclass(slots=True, eq=False)
class _Pending(Generic[R]):
    """A result that is being made."""

    size: int
    done: anyio.Event = field(default_factory=anyio.Event)
    results: list[R] = field(default_factory=list)
    error: Exception | None = None

    async def run(self, work: Callable[[B], Awaitable[R]], item: B) -> None:
        try:
            self.results.append(await work(item))
        except Exception as error:  # noqa: BLE001  # raised where it is waited for
            self.error = error
        self.done.set()


class WorkAhead(Generic[R]):
    """An asynchronous iterator over results in order, while the next ones are being made.

    Args:
        items: what the results are made of.
        begin: starts making one.
        most: results that are being made, or wait, beside the one that was taken last.
        budget: of the bytes of all of them, with that one; None = any number.
        measure: the bytes of the result of an item.
    """

    def __init__(
        self,
        items: Iterator[B],
        begin: Callable[[B], _Pending[R]],
        most: int,
        budget: "Budget | None",
        measure: Callable[[B], int],
    ) -> None:
        self._items = items
        self._begin = begin
        self._most = most
        self._budget = budget
        self._measure: Callable[[Any], int] = measure
        self._pending: deque[_Pending[R]] = deque()
        self._next: Any = next(items, None)
        self._taken = 0

    @property
    def is_ready(self) -> bool:
        """Whether the next result is there already."""
        return bool(self._pending) and self._pending[0].done.is_set()

    def __aiter__(self) -> "WorkAhead[R]":
        return self

    async def __anext__(self) -> R:
        budget = self._budget
        if budget is not None:
            budget.add(-self._taken)
            self._taken = 0
        while self._next is not None:
            size = self._measure(self._next)
            is_first = not self._pending if budget is None else not budget.used
            if not is_first and (
                len(self._pending) >= self._most
                or (budget is not None and not budget.has_room(size))
            ):
                break
            pending = self._begin(self._next)
            self._next = next(self._items, None)
            if budget is not None:
                budget.add(size)
            self._pending.append(pending)
        if not self._pending:
            raise StopAsyncIteration
        first = self._pending.popleft()
        self._taken = first.size
        await first.done.wait()
        if first.error is not None:
            raise first.error
        return first.results.pop()


@asynccontextmanager
async def work_ahead(
    items: Iterator[B],
    work: Callable[[B], Awaitable[R]],
    most: int,
    budget: "Budget | None" = None,
    measure: Callable[[B], int] = lambda _: 0,
) -> AsyncIterator[WorkAhead[R]]:
    """Yield what `work` makes of each item, in order, while the next ones are being made.

    At most `most` at once; one at a time while the budget has no room for more; and none further
    when the context ends.
    """
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:

        def begin(item: B) -> _Pending[R]:
            pending = _Pending[R](measure(item))
            tasks.start_soon(pending.run, work, item)
            return pending

        try:
            yield WorkAhead(items, begin, most, budget, measure)
        except Exception as error:  # noqa: BLE001  # raised below, outside of the group
            failure = error
        finally:
            tasks.cancel_scope.cancel()
            if budget is not None:
                budget.add(-budget.used)
    if failure is not None:
        raise failure


class InFlight:
    """Bytes of blocks that answers of one event loop have in flight, together.

    Args:
        most: over which no answer reads ahead.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._used: LoopLocal[list[int]] = LoopLocal()

    def get(self) -> list[int]:
        """Return the bytes of the running event loop, as the only member of a list."""
        return self._used.get(lambda: [0])


class Budget:
    """What one answer may have in flight; one block at a time it always may.

    Args:
        most: bytes.
        in_flight: with those of all others.
    """

    def __init__(self, most: int, in_flight: InFlight) -> None:
        self.used = 0
        """In bytes."""
        self._most = most
        self._most_of_all = in_flight.most
        self._all = in_flight.get()

    def has_room(self, size: int) -> bool:
        """Return whether so many more bytes may be read ahead."""
        return self.used + size <= self._most and self._all[0] + size <= self._most_of_all

    def add(self, size: int) -> None:
        """Count so many more bytes, or fewer."""
        self.used += size
        self._all[0] += size


async def run_all(jobs: Sequence[Callable[[], Awaitable[object]]]) -> None:
    """Run all jobs at once; what the first to fail raises ends the others."""
    failures: list[Exception] = []

    async def run(job: Callable[[], Awaitable[object]], scope: anyio.CancelScope) -> None:
        try:
            await job()
        except Exception as error:  # noqa: BLE001  # raised below, outside of the group
            failures.append(error)
            scope.cancel()

    async with anyio.create_task_group() as tasks:
        for job in jobs:
            tasks.start_soon(run, job, tasks.cancel_scope)
    if failures:
        raise failures[0]


class LoopThread:
    """An asyncio event loop in a thread of its own, which does not keep the process alive.

    For what knows asyncio alone, whatever event loop the application runs in.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._is_over = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def begin(self, work: Coroutine[Any, Any, R]) -> Future[R]:
        """Start `work` in the thread; from any thread, and without waiting for it."""
        # In a context of its own: that of the caller may say that trio runs.
        return Context().run(asyncio.run_coroutine_threadsafe, work, self._loop)

    async def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Return what `work` returns in the thread; it is cancelled with the calling task.

        Raises:
            Exception: whatever `work` raises.
        """
        is_done = anyio.Event()
        async with BlockingPortal() as portal:
            future = self.begin(work)
            try:
                future.add_done_callback(partial(_tell, portal, is_done))
                # Where it was done before, the callback has run in this thread, in vain.
                if not future.done():
                    await is_done.wait()
            finally:
                future.cancel()
        return future.result()

    def close(self) -> None:
        """Cancel all work, and wait for the end of the thread."""
        self._loop.call_soon_threadsafe(self._is_over.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._wait())

    async def _wait(self) -> None:
        await self._is_over.wait()


def _tell(portal: BlockingPortal, event: anyio.Event, _: object) -> None:
    # The task that waited may have been cancelled.
    with suppress(RuntimeError):
        portal.start_task_soon(event.set)
