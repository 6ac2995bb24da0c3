"""From planned blocks to values: read in the lanes, in parallel, ahead of the one being sent."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

import anyio
import numpy as np

from asgihive.concurrency import Lanes
from asgihive.errors import NeedsThread, ReadTimeout
from asgihive.hdf5.buffers import Array
from asgihive.hdf5.chunk_grid import Places
from asgihive.hdf5.chunks import Box
from asgihive.hdf5.datasets import Dataset
from asgihive.hdf5.file_bytes import without_waiting
from asgihive.hdf5.opening import Source
from asgihive.hdf5.plan import Axis
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.remote import ByteRun, Descriptor, RemoteFile
from asgihive.hdf5.virtual import VirtualLayout
from asgihive.hdf5.virtual_sources import BoxRead, VirtualRead
from asgihive.tasks import Budget, InFlight, WorkAhead, run_all, work_ahead

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


class Located(NamedTuple):
    """Elements that are read past libhdf5."""

    axes: tuple[Axis, ...]
    places: Places | None
    """Of their chunks, if only libhdf5 could tell."""
    boxes: Sequence[Box]
    """Of them, each for a thread; one or none = they are for one thread."""


StoredRead = tuple[Descriptor, Callable[[], list[ByteRun]]]
"""A file, and what lists the runs of its bytes that are about to be read; in a decode lane."""


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
    ) -> AbstractAsyncContextManager[WorkAhead[R]]:
        """Iterate over what `work` makes of each block, in order, while the next ones are read.

        As many blocks are in flight as keep the decode lanes busy and `read_ahead_bytes` holds; one
        at a time while those of all answers are too many; and none further when the context ends.
        All that reads values goes through this: it is sent, reduced, or thinned out to a view.

        Args:
            held: the dataset.
            blocks: of it.
            work: called in a decode lane with a block and its elements, as `read` calls `then`.
        """

        def read(block: A) -> Awaitable[R]:
            return self.read(held, block.axes, partial(work, block))

        return self.read_ahead(held.dataset, blocks, read)

    def read_ahead(
        self, dataset: Dataset, blocks: Iterator[B], read: Callable[[B], Awaitable[R]]
    ) -> AbstractAsyncContextManager[WorkAhead[R]]:
        """Iterate over what `read` makes of each block of `dataset`, as `read_blocks`."""
        item_bytes = dataset.item_bytes
        # Each block of a virtual dataset is many reads by itself, and holds many files.
        most = 1 if dataset.virtual is not None else self.lanes.decode.threads + 1
        budget = Budget(self.read_ahead_bytes, self.in_flight)
        return work_ahead(blocks, read, most, budget, lambda block: block.size * item_bytes)

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
        if isinstance(dataset.file.descriptor, int):
            return await self._decode(held, Located(axes, places, boxes), then, patient=patient)
        runs = partial(dataset.list_runs, lease, axes, places)
        async with self.holding([(dataset.file.descriptor, runs)], patient=patient):
            return await self._decode(held, Located(axes, places, boxes), then, patient=patient)

    async def _decode(
        self,
        held: Held,
        located: Located,
        then: Callable[[Array], T],
        *,
        patient: bool,
    ) -> T:
        """Return what `then` makes of elements that are read past libhdf5."""
        dataset, lease, decode = held.dataset, held.lease, self.lanes.decode
        axes, places, boxes = located
        if len(boxes) <= 1:
            # What libhdf5 has no part in need not wait for it, nor for a second thread.
            read = partial(dataset.read, lease, axes, places=places, keep=held.keep)
            return await decode.run(lambda: then(read()), patient=patient)
        values = np.empty((*(axis.count for axis in axes), *dataset.item_shape), dataset.dtype)
        fill = partial(dataset.read_into, lease=lease, places=places, keep=held.keep)
        await self._run_all([partial(fill, values[box.target], axes=box.axes) for box in boxes])
        return await decode.run(partial(then, values), patient=True)

    @asynccontextmanager
    async def holding(self, reads: Sequence[StoredRead], *, patient: bool) -> AsyncIterator[None]:
        """Have in memory what is about to be read of remote files; others are not looked at.

        Raises:
            FileChanged, StoreUnavailable, StoreRefused: and whatever lists the runs raises.
        """
        remotes = [(remote, each) for remote, each in reads if not isinstance(remote, int)]
        if not remotes:
            yield
            return
        by_file: dict[int, tuple[RemoteFile, list[ByteRun]]] = {}

        def list_runs() -> None:
            by_file.clear()
            for remote, list_of in remotes:
                by_file.setdefault(id(remote), (remote, []))[1].extend(list_of())

        try:
            with without_waiting():
                list_runs()
        except NeedsThread:
            await self.lanes.decode.run(list_runs, patient=patient)
        async with AsyncExitStack() as stack:
            entering = [remote.holding(runs) for remote, runs in by_file.values() if runs]
            await run_all([partial(stack.enter_async_context, each) for each in entering])
            yield

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
                reads = [(each.dataset.file.descriptor, each.list_runs) for each in boxes]
                async with self.holding(reads, patient=True):
                    await self._run_all([partial(each.read, keep=held.keep) for each in boxes])
        finally:
            reading.close()
        return reading.values

    async def _run_all(self, jobs: Sequence[Callable[[], None]]) -> None:
        """Run all in the decode lanes; the first to fail ends the others, and is raised."""
        await run_all([partial(self.lanes.decode.run, job, patient=True) for job in jobs])
