"""From planned blocks to values: read in the lanes, in parallel, ahead of the one being sent."""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import anyio
import numpy as np

from asgihive.concurrency import Lanes, LoopLocal
from asgihive.errors import ReadTimeout
from asgihive.hdf5.buffers import Array
from asgihive.hdf5.datasets import Dataset
from asgihive.hdf5.opening import Source
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.selection import Axis
from asgihive.hdf5.virtual import VirtualLayout
from asgihive.hdf5.virtual_sources import BoxRead, VirtualRead

T = TypeVar("T")
R = TypeVar("R")


class HasSize(Protocol):
    """Something that is read at one go."""

    @property
    def size(self) -> int:
        """The number of elements."""


class HasAxes(HasSize, Protocol):
    """A block of a dataset."""

    @property
    def axes(self) -> tuple[Axis, ...]:
        """What to read, one axis per dimension of the dataset."""


B = TypeVar("B", bound=HasSize)
A = TypeVar("A", bound=HasAxes)


class InFlight:
    """Bytes of blocks that are read and not yet sent, for all answers of an event loop."""

    def __init__(self, most: int) -> None:
        self.most = most
        """Bytes over which no answer reads ahead."""
        self._used: LoopLocal[list[int]] = LoopLocal()

    def get(self) -> list[int]:
        """Return the bytes of the running event loop, as the only member of a list."""
        return self._used.get(lambda: [0])


class Budget:
    """What one answer may have in flight; one block at a time it always may."""

    def __init__(self, most: int, in_flight: InFlight) -> None:
        """Begin with nothing.

        Args:
            most: bytes of this answer.
            in_flight: with those of all others.
        """
        self.used = 0
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


@dataclass(frozen=True, slots=True)
class Held:
    """A dataset for a while."""

    dataset: Dataset
    lease: Lease
    keep: bool
    """Whether chunks that are wanted whole are likely to be asked for again."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads datasets in the lanes of one service."""

    lanes: Lanes
    read_ahead_bytes: int
    """Of blocks in flight for one answer."""

    in_flight: InFlight
    """Those of all answers."""

    timeout_seconds: float
    """For one block."""

    def read_blocks(
        self, held: Held, blocks: Iterator[A], work: Callable[[A, Array], R]
    ) -> "AbstractAsyncContextManager[ReadAhead[R]]":
        """Iterate over what `work` makes of each block, in order, while the next ones are read.

        All that reads values goes through this: it is sent, reduced, or thinned out to a view.

        Args:
            held: the dataset.
            blocks: of it.
            work: called in a decode lane with a block and its elements, as `read` calls `then`.
        """

        def read(block: A) -> Awaitable[R]:
            return self.read(held, block.axes, partial(work, block))

        return self.read_ahead(held.dataset, blocks, read)

    async def read(
        self,
        held: Held,
        axes: tuple[Axis, ...],
        then: Callable[[Array], T],
        *,
        patient: bool = True,
    ) -> T:
        """Return what `then`, in a decode lane, makes of the elements at `axes`.

        They are C-contiguous and not to be written to; their shape is the axes' counts and the
        dataset's `item_shape`. Cancellation ends it at the next chunk.

        Args:
            held: the dataset.
            axes: one a dimension.
            then: called with the elements.
            patient: whether to wait however many calls wait already.

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
        places, boxes = None, []
        if dataset.chunked is not None:
            if dataset.chunked.index.needs_library:
                places = await library.run(partial(dataset.locate, lease, axes), patient=patient)
            boxes = dataset.chunked.split(axes, decode.threads)
        if len(boxes) <= 1:
            # What libhdf5 has no part in need not wait for it, nor for a second thread.
            read = partial(dataset.read, lease, axes, places=places, keep=held.keep)
            return await decode.run(lambda: then(read()), patient=patient)
        values = np.empty((*(axis.count for axis in axes), *dataset.item_shape), dataset.dtype)
        fill = partial(dataset.read_into, lease=lease, places=places, keep=held.keep)
        await self._run_all([partial(fill, values[box.target], axes=box.axes) for box in boxes])
        return await decode.run(partial(then, values), patient=True)

    async def _read_by_library(self, held: Held, axes: tuple[Axis, ...], *, patient: bool) -> Array:
        """Return elements that libhdf5 has a part in; other calls get between very many chunks."""
        dataset, library = held.dataset, self.lanes.library
        boxes = [] if dataset.chunked is None else dataset.chunked.split(axes, 1)
        if len(boxes) <= 1:
            return await library.run(partial(dataset.read, held.lease, axes), patient=patient)
        values = np.zeros((*(axis.count for axis in axes), *dataset.item_shape), dataset.dtype)
        for box in boxes:
            target = values[box.target]
            fill = partial(dataset.read_into, target, held.lease, box.axes, None, keep=held.keep)
            await library.run(fill, patient=patient)
            patient = True
        return values

    async def _read_virtual(
        self, held: Held, layout: VirtualLayout, axes: tuple[Axis, ...]
    ) -> Array:
        library, lease = self.lanes.library, held.lease
        source = Source(held.dataset, lease)
        begin = partial(VirtualRead, source, layout, axes, held.dataset.dtype)
        reading = await library.run(begin, patient=True)
        try:
            boxes: list[BoxRead] | None = None
            while boxes is None or boxes:
                work = reading.advance()
                # Where the request ends between two portions, their HDF5 objects end in the lane.
                lease.objects.append(work)
                boxes = await library.run_in_portions(work, patient=True)
                lease.objects.remove(work)
                await self._run_all([partial(each.read, keep=held.keep) for each in boxes])
        finally:
            reading.close()
        return reading.values

    async def _run_all(self, jobs: Sequence[Callable[[], None]]) -> None:
        """Run all in the decode lanes; the first to fail ends the others, and is raised."""
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
    async def read_ahead(
        self,
        dataset: Dataset,
        blocks: Iterator[B],
        read: Callable[[B], Awaitable[R]],
    ) -> AsyncIterator["ReadAhead[R]"]:
        """Iterate over what `read` makes of each block of `dataset`, as `read_blocks`.

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
                budget.add(-budget.used)
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

    async def wait(self) -> R:
        await self._done.wait()
        if self._error is not None:
            raise self._error
        return self._results.pop()


class ReadAhead(Generic[R]):
    """An asynchronous iterator over blocks in order, of which the next ones are in flight."""

    def __init__(
        self,
        blocks: Iterator[B],
        begin: Callable[[B], _Pending[R]],
        item_bytes: int,
        most: int,
        budget: Budget,
    ) -> None:
        """Begin with nothing in flight.

        Args:
            blocks: in order.
            begin: starts reading one.
            item_bytes: of an element of a block.
            most: blocks in flight, beside the one that was taken last.
            budget: of blocks in flight, with that one.
        """
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
        budget = self._budget
        budget.add(-self._taken)
        self._taken = 0
        while self._next is not None:
            size = self._next.size * self._item_bytes
            is_full = len(self._pending) >= self._most or not budget.has_room(size)
            if budget.used and is_full:
                break
            pending = self._begin(self._next)
            self._next = next(self._blocks, None)
            budget.add(pending.nbytes)
            self._pending.append(pending)
        if not self._pending:
            raise StopAsyncIteration
        first = self._pending.popleft()
        self._taken = first.nbytes
        return await first.wait()
