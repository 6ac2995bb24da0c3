"""Answers made of many values: `/stats` and `/histogram`, block by block in the decode lanes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, Self, TypeVar

from asgihive.concurrency import Portions
from asgihive.errors import KindMismatch
from asgihive.hdf5.datasets import Array, Dataset
from asgihive.hdf5.histogram import Extent, Histogram, extent, needs_extent
from asgihive.hdf5.plan import Block
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.reader import Held
from asgihive.hdf5.selection import Selection
from asgihive.hdf5.statistics import Statistics, summarise
from asgihive.hdf5.virtual import fill_values
from asgihive.hdf5.virtual_sources import search_sources
from asgihive.service.parameters import EntityParameters, HistogramParameters
from asgihive.service.representations import Representation
from asgihive.service.selecting import found, is_kept, planned, selected
from asgihive.service.store import Store


class _Repeatable(Protocol):
    """What is made of values."""

    def repeated(self, times: int) -> Self:
        """Of so many times the same values."""


T = TypeVar("T", bound=_Repeatable)


@dataclass(frozen=True, slots=True)
class _Numbers:
    """A selection of real numbers that is about to be read; None = an empty dataspace.

    element: what each of its elements is, where nothing but fill values is there.
    """

    store: Store
    held: Held
    selection: Selection | None
    element: Array | None

    async def each(self, work: Callable[[Array], T], take: Callable[[T], None]) -> None:
        """`take`, in order, what `work` makes of each block in the decode lanes."""
        if self.selection is None:
            return
        if self.element is not None:
            if self.selection.size:
                part = await self.store.lanes.decode.run(partial(work, self.element))
                take(part.repeated(self.selection.size))
            return
        blocks: Iterator[Block] = planned(self.held.dataset, self.selection, self.store)
        reader = self.store.reader

        async def read(block: Block) -> T:
            return await reader.read(self.held, block.axes, work)

        async with reader.ahead(self.held.dataset, blocks, read) as parts:
            async for part in parts:
                take(part)


async def compute_statistics(
    store: Store, entity: EntityParameters, selection: str | None, representation: Representation
) -> dict[str, Any]:
    """`/stats`: of the finite values of the selection.

    Raises:
        NotModified
        KindMismatch: the values are not real numbers.
        and whatever reading raises.
    """
    numbers = await _numbers(store, entity, selection, representation)
    statistics = Statistics()

    def take(part: Statistics) -> None:
        nonlocal statistics
        statistics = statistics.merge(part)

    try:
        await numbers.each(summarise, take)
    finally:
        numbers.held.lease.release()
    return statistics.described()


async def compute_histogram(
    store: Store, parameters: HistogramParameters, representation: Representation
) -> dict[str, Any]:
    """`/histogram`: how many of the finite values of the selection are in each bin.

    Without a range the values are read twice, the first time for their extent, unless their
    type has few values.

    Raises:
        NotModified
        KindMismatch: the values are not real numbers.
        and whatever reading raises.
    """
    numbers = await _numbers(store, parameters.entity, parameters.selection, representation)
    dtype = numbers.held.dataset.dtype
    try:
        span = parameters.range
        if span is None and needs_extent(dtype):
            span = Extent()

            def widen(part: Extent) -> None:
                nonlocal span
                span = part if span is None else span.merge(part)

            await numbers.each(extent, widen)
        count = partial(_histogram, parameters.bins, dtype, span)
        total = Histogram(parameters.bins, dtype, span)
        await numbers.each(count, total.merge)
        return total.described()
    finally:
        numbers.held.lease.release()


def _histogram(bins: int, dtype: Any, span: Extent | None, block: Array) -> Histogram:
    histogram = Histogram(bins, dtype, span)
    histogram.add(block)
    return histogram


async def _numbers(
    store: Store, entity: EntityParameters, selection: str | None, representation: Representation
) -> _Numbers:
    def begin(lease: Lease) -> Portions[tuple[Dataset, Selection | None, Array | None]]:
        dataset = yield from found(entity, lease)
        if dataset.dtype.kind not in "biuf":
            kind = f"dataset of {dataset.dtype}"
            raise KindMismatch(entity.file, dataset.path, kind, "a dataset of real numbers")
        chosen = selected(dataset, selection)
        axes = None if chosen is None else chosen.axes
        sources = yield from search_sources(lease, dataset, axes)
        representation.identify(lease, sources)
        element = None
        if dataset.virtual is not None and sources.is_nothing_there:
            # However many there are, they are all the same.
            shape = (1, *dataset.item_shape)
            element = fill_values(dataset.layout.properties, shape, dataset.dtype)
        return dataset, chosen, element

    (dataset, chosen, element), lease = await store.read(
        lambda lease: store.in_portions(lease, begin)
    )
    keep = chosen is not None and is_kept(store, dataset, chosen)
    return _Numbers(store, Held(dataset, lease, keep), chosen, element)
