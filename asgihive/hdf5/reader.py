"""From planned blocks to values: read in the lanes, in parallel, ahead of who takes them."""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import anyio
import numpy as np

from asgihive.concurrency import Lanes, LoopLocal
from asgihive.errors import ReadTimeout
from asgihive.hdf5.datasets import Array, Dataset
from asgihive.hdf5.opening import Source
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.selection import Axis
from asgihive.hdf5.virtual import VirtualLayout
from asgihive.hdf5.virtual_sources import BoxRead, VirtualRead

T = TypeVar("T")
R = TypeVar("R")


class InFlight:
    """Bytes of blocks that answers of one event loop have in flight, together.

    Args:
        most: over which no answer reads ahead.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._used: LoopLocal[list[int]] = LoopLocal()

    def here(self) -> list[int]:
        """The bytes of the running event loop, as the only member of a list."""
        return self._used.get(lambda: [0])


class Budget:
    """What one answer may have in flight; one block at a time it always may.

    Args:
        most: bytes.
        in_flight: with those of all others.

    Attributes:
        used: bytes.
    """

    def __init__(self, most: int, in_flight: InFlight) -> None:
        self.used = 0
        self._most = most
        self._most_of_all = in_flight.most
        self._all = in_flight.here()

    def has_room(self, size: int) -> bool:
        """Whether so many more bytes may be read ahead."""
        return self.used + size <= self._most and self._all[0] + size <= self._most_of_all

    def take(self, size: int) -> None:
        """So many more are in flight."""
        self.used += size
        self._all[0] += size

    def give(self, size: int) -> None:
        """So many fewer are."""
        self.used -= size
        self._all[0] -= size


class HasSize(Protocol):
    """A part of what is read."""

    @property
    def size(self) -> int:
        """The number of elements."""


B = TypeVar("B", bound=HasSize)


@dataclass(frozen=True, slots=True)
class Held:
    """A dataset for a while.

    keep: whether chunks that are wanted whole are likely to be asked for again.
    """

    dataset: Dataset
    lease: Lease
    keep: bool


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads datasets in the lanes of one service.

    read_ahead_bytes: of blocks in flight for one answer.
    in_flight: those of all answers.
    timeout_seconds: for one block.
    """

    lanes: Lanes
    read_ahead_bytes: int
    in_flight: InFlight
    timeout_seconds: float

    async def read(
        self,
        held: Held,
        axes: tuple[Axis, ...],
        then: Callable[[Array], T],
        *,
        patient: bool = True,
    ) -> T:
        """What `then`, in a decode lane, makes of the elements at `axes`.

        They are C-contiguous and not to be written to; their shape is the axes' counts and the
        dataset's `item_shape`. Cancellation ends it at the next chunk.

        Args:
            patient: whether to wait however many wait already.

        Raises:
            ReadTimeout, Overloaded: and as `Dataset.read`, and whatever `then` raises.
        """
        with anyio.move_on_after(self.timeout_seconds):
            return await self._read(held, axes, then, patient=patient)
        raise ReadTimeout(self.timeout_seconds)

    async def _read(
        self, held: Held, axes: tuple[Axis, ...], then: Callable[[Array], T], *, patient: bool
    ) -> T:
        dataset, lease = held.dataset, held.lease
        decode, library = self.lanes.decode, self.lanes.library
        if dataset.virtual is not None:
            values = await self._read_virtual(held, dataset.virtual, axes)
            return await decode.run(partial(then, values), patient=True)
        if dataset.needs_library:
            values = await self._read_by_library(held, axes, patient=patient)
            return await decode.run(partial(then, values), patient=True)
        places = dataset.places()
        if dataset.needs_library_to_locate:
            places = await library.run(partial(dataset.locate, lease, axes), patient=patient)
        shares = dataset.shares(axes, decode.threads)
        if len(shares) == 1:
            # What libhdf5 has no part in need not wait for it, nor for a second thread.
            read = partial(dataset.read, lease, axes, places=places, keep=held.keep)
            return await decode.run(lambda: then(read()), patient=patient)
        values = np.empty((*(axis.count for axis in axes), *dataset.item_shape), dataset.dtype)
        fill = partial(dataset.read_into, lease=lease, places=places, keep=held.keep)
        await self._all([partial(fill, values[each.target], axes=each.axes) for each in shares])
        return await decode.run(partial(then, values), patient=True)

    async def _read_by_library(self, held: Held, axes: tuple[Axis, ...], *, patient: bool) -> Array:
        """What libhdf5 has a part in; where chunks are very many, others get in between."""
        dataset, library = held.dataset, self.lanes.library
        shares = dataset.shares(axes, 1)
        if len(shares) == 1:
            return await library.run(partial(dataset.read, held.lease, axes), patient=patient)
        shape = (*(axis.count for axis in axes), *dataset.item_shape)
        values = np.zeros(shape, dataset.dtype)
        for each in shares:
            target = values[each.target]
            fill = partial(dataset.read_into, target, held.lease, each.axes, None, keep=held.keep)
            await library.run(fill, patient=patient)
            patient = True
        return values

    async def _read_virtual(
        self, held: Held, layout: VirtualLayout, axes: tuple[Axis, ...]
    ) -> Array:
        library = self.lanes.library
        source = Source(held.dataset, held.lease)
        begin = partial(VirtualRead, source, layout, axes, held.dataset.dtype)
        reading = await library.run(begin, patient=True)
        try:
            while shares := await self._advanced(reading, held.lease):
                await self._all([partial(each.read, keep=held.keep) for each in shares])
        finally:
            reading.close()
        return reading.values

    async def _advanced(self, reading: VirtualRead, lease: Lease) -> list[BoxRead]:
        """What `reading` is to read next, found in portions in the library lane."""
        work = reading.advance()
        # Where the request ends between two portions, the HDF5 objects in them end in the lane.
        lease.objects.append(work)
        shares = await self.lanes.library.run_in_portions(work, patient=True)
        lease.objects.remove(work)
        return shares

    async def _all(self, jobs: Sequence[Callable[[], None]]) -> None:
        """Run all in the decode lanes; what the first to fail raises ends the others."""
        failures: list[Exception] = []

        async def run(job: Callable[[], None], scope: anyio.CancelScope) -> None:
            try:
                await self.lanes.decode.run(job, patient=True)
            except Exception as error:  # noqa: BLE001  # raised below, outside of the group
                failures.append(error)
                scope.cancel()

        async with anyio.create_task_group() as tasks:
            for job in jobs:
                tasks.start_soon(run, job, tasks.cancel_scope)
        if failures:
            raise failures[0]

    @asynccontextmanager
    async def ahead(
        self,
        dataset: Dataset,
        blocks: Iterator[B],
        read: Callable[[B], Awaitable[R]],
    ) -> AsyncIterator["ReadAhead[R]"]:
        """What `read` makes of each block of `dataset`, in order, while the next ones are read.

        As many blocks are in flight as keep the decode lanes busy and `read_ahead_bytes`
        holds; one at a time while those of all answers are too many; and none further when the
        context ends.
        """
        item_bytes = dataset.item_bytes
        # Each block of a virtual dataset is many reads by itself, and holds many files.
        most = 1 if dataset.virtual is not None else self.lanes.decode.threads + 1
        failure: Exception | None = None
        budget = Budget(self.read_ahead_bytes, self.in_flight)
        async with anyio.create_task_group() as tasks:

            def begin(block: B) -> _Pending[R]:
                pending = _Pending[R](block.size * item_bytes)
                tasks.start_soon(pending.run, read, block)
                return pending

            try:
                yield ReadAhead(blocks, begin, item_bytes, most, budget)
            except Exception as error:  # noqa: BLE001  # raised below, outside of the group
                failure = error
            finally:
                tasks.cancel_scope.cancel()
                budget.give(budget.used)
        if failure is not None:
            raise failure


@dataclass(slots=True, eq=False)
class _Pending(Generic[R]):
    """A block that is being read."""

    nbytes: int
    _done: anyio.Event = field(default_factory=anyio.Event)
    _results: list[R] = field(default_factory=list)
    _error: Exception | None = None

    async def run(self, read: Callable[[B], Awaitable[R]], block: B) -> None:
        try:
            self._results.append(await read(block))
        except Exception as error:  # noqa: BLE001  # raised where it is waited for
            self._error = error
        self._done.set()

    async def result(self) -> R:
        await self._done.wait()
        if self._error is not None:
            raise self._error
        return self._results.pop()


class ReadAhead(Generic[R]):
    """An asynchronous iterator over blocks in order, of which the next ones are in flight.

    Args:
        begin: starts reading a block.
        item_bytes: of an element of a block.
        most: blocks in flight, beside the one that was taken last.
        budget: of blocks in flight, with that one.
    """

    def __init__(
        self,
        blocks: Iterator[B],
        begin: Callable[[B], _Pending[R]],
        item_bytes: int,
        most: int,
        budget: Budget,
    ) -> None:
        self._blocks = blocks
        self._begin = begin
        self._item_bytes = item_bytes
        self._most = most
        self._budget = budget
        self._pending: deque[_Pending[R]] = deque()
        self._next: Any = next(blocks, None)
        self._taken = 0

    def __aiter__(self) -> "ReadAhead[R]":
        return self

    async def __anext__(self) -> R:
        self._budget.give(self._taken)
        self._taken = 0
        while self._next is not None and self._has_room(self._next):
            pending = self._begin(self._next)
            self._next = next(self._blocks, None)
            self._budget.take(pending.nbytes)
            self._pending.append(pending)
        if not self._pending:
            raise StopAsyncIteration
        first = self._pending.popleft()
        self._taken = first.nbytes
        return await first.result()

    def _has_room(self, block: HasSize) -> bool:
        if not self._budget.used:
            return True
        size = block.size * self._item_bytes
        return len(self._pending) < self._most and self._budget.has_room(size)
