"""Answers made of many values: `/stats` and `/histogram`, block by block in the decode lanes."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from asgihive.concurrency import Portions
from asgihive.errors import KindMismatch
from asgihive.hdf5.datasets import Array, Dataset
from asgihive.hdf5.plan import Selection
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.reader import Held
from asgihive.hdf5.statistics import (
    Histogram,
    Statistics,
    ValueRange,
    find_range,
    needs_range,
    summarise,
)
from asgihive.hdf5.virtual import make_fill_values
from asgihive.hdf5.virtual_sources import SourcesFound, search_sources
from asgihive.service.data import (
    is_worth_keeping,
    open_asked_dataset,
    plan_selection,
    select_elements,
)
from asgihive.service.parameters import ReadRequest
from asgihive.service.store import Store

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Numbers:
    """A selection of real numbers that is about to be read."""

    store: Store
    held: Held
    selection: Selection | None
    """None = an empty dataspace."""
    element: Array | None
    """The one element that all are copies of, where nothing but fill values is there."""
    sources: SourcesFound
    """What they come from."""

    async def reduce(self, work: Callable[[Array], T], merge: Callable[[T, T], T]) -> T | None:
        """Return what `work` makes of each block in the decode lanes, merged; None of no block."""
        if self.selection is None or not self.selection.size:
            return None
        if self.element is not None:
            part = await self.store.lanes.decode.run(partial(work, self.element))
            return _merge_times(part, self.selection.size, merge)
        blocks = plan_selection(self.held.dataset, self.selection, self.store)
        found: T | None = None
        reduced = self.store.reader.read_blocks(self.held, blocks, lambda _, array: work(array))
        async with reduced as parts:
            async for part in parts:
                found = part if found is None else merge(found, part)
        return found


def _merge_times(part: T, times: int, merge: Callable[[T, T], T]) -> T:
    """Return what as many equal parts merge to, in as many steps as their number has digits."""
    merged = part
    for digit in bin(times)[3:]:
        merged = merge(merged, merged)
        if digit == "1":
            merged = merge(merged, part)
    return merged


async def compute_statistics(_request: ReadRequest, numbers: Numbers) -> dict[str, Any]:
    """Return what `/stats` shows of the finite values of the selection.

    Raises:
        Exception: whatever reading raises.
    """
    statistics = await numbers.reduce(summarise, Statistics.merge)
    return (statistics or Statistics()).describe()


async def compute_histogram(request: ReadRequest, numbers: Numbers) -> dict[str, Any]:
    """Return what `/histogram` shows: how many finite values of the selection each bin holds.

    Without a range the values are read twice, the first time for their range, unless their
    type has few values.

    Raises:
        Exception: whatever reading raises.
    """
    dtype, given = numbers.held.dataset.dtype, request.values["range"]
    if given is None and needs_range(dtype):
        given = await numbers.reduce(find_range, ValueRange.merge) or ValueRange()
    histogram = Histogram(request.values["bins"], dtype, given)
    return histogram.describe(await numbers.reduce(histogram.count, operator.add))


async def prepare_numbers(store: Store, request: ReadRequest) -> tuple[Numbers, Lease]:
    """Return the real numbers that a request selects, and the lease that holds them.

    Raises:
        KindMismatch: the values are not real numbers.
        Exception: whatever opening raises.
    """

    def prepare(
        lease: Lease,
    ) -> Portions[tuple[Dataset, Selection | None, Array | None, SourcesFound]]:
        dataset = yield from open_asked_dataset(request, lease)
        if dataset.dtype.kind not in "biuf":
            kind = f"dataset of {dataset.dtype}"
            raise KindMismatch(request.file, dataset.path, kind, "a dataset of real numbers")
        selection = select_elements(request, dataset)
        axes = None if selection is None else selection.axes
        sources = yield from search_sources(lease, dataset, axes)
        element = None
        if dataset.virtual is not None and sources.is_nothing_there:
            # However many there are, they are all the same.
            shape = (1, *dataset.item_shape)
            element = make_fill_values(dataset.layout.properties, shape, dataset.dtype)
        return dataset, selection, element, sources

    (dataset, selection, element, sources), lease = await store.read(
        lambda lease: store.in_portions(lease, prepare)
    )
    held = Held(dataset, lease, is_worth_keeping(store, dataset, selection))
    return Numbers(store, held, selection, element, sources), lease
