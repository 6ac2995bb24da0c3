"""Answers made of many values, block by block in the decode lanes.

`/stats` and `/histogram` reduce a selection to numbers; views show a large one as few points, each
computed from a bin of elements.
"""

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from starlette.types import Receive

from asgihive.asgi import BufferedResponse, StreamedResponse, closing, run_while_connected
from asgihive.concurrency import Portions, measured
from asgihive.encoders.protocol import Encoder, Values, show_names
from asgihive.errors import AnswerTooLarge, BadParameter, KindMismatch
from asgihive.hdf5.columns import Columns
from asgihive.hdf5.datasets import Array, Dataset
from asgihive.hdf5.plan import Selection, plan_blocks
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.reader import Held
from asgihive.hdf5.reductions import (
    HistogramReduction,
    MergingReduction,
    RangeReduction,
    StatisticsReduction,
    ViewReduction,
)
from asgihive.hdf5.statistics import Histogram, Statistics, ValueRange, needs_range
from asgihive.hdf5.views import (
    BlockBins,
    View,
    ViewBlock,
    ViewReducer,
    ViewRequest,
    plan_view,
    plan_view_blocks,
)
from asgihive.hdf5.virtual import make_fill_values
from asgihive.hdf5.virtual_sources import SourcesFound, search_sources
from asgihive.service.cluster_reading import (
    AskedElements,
    ClusterReading,
    Reduced,
    begin_cluster_reading,
)
from asgihive.service.data import (
    check_values,
    choose_columns,
    encode,
    hold,
    make_value_headers,
    make_values,
    make_whole_response,
    measure_blocks,
    open_asked_dataset,
    select_elements,
)
from asgihive.service.requests import (
    COMPRESS_OVER_BYTES,
    ReadRequest,
    Version,
    Wanted,
    answer_preconditions,
)
from asgihive.service.store import Store
from asgihive.tasks import WorkAhead

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Numbers:
    """A selection of real numbers, or of columns of them, that is about to be read."""

    store: Store
    request: ReadRequest
    held: Held
    selection: Selection | None
    """None = an empty dataspace."""
    columns: Columns
    """What is taken of each element."""
    element: Array | None
    """The one element that all are copies of, where nothing but fill values is there."""
    sources: SourcesFound
    """What they come from."""

    async def reduce(self, reduction: MergingReduction[T]) -> T | None:
        """Return what is made of each block, here or by a cluster, merged; None of no block.

        The blocks and their order are the same wherever they are read, and so is the answer.
        """
        if self.selection is None or not self.selection.size:
            return None
        work, merge = reduction.prepare(self.columns), reduction.merge
        if self.element is not None:
            part = await self.store.lanes.decode.run(partial(work, None, self.element))
            return _merge_times(part, self.selection.size, merge)
        dataset = self.held.dataset
        item_bytes, block_bytes = measure_blocks(dataset, self.selection, self.store)
        blocks = plan_blocks(self.selection, dataset.layout.chunks, item_bytes, block_bytes)
        found: T | None = None
        asked = AskedElements(self.store, self.request, self.held, self.columns, self.sources)
        reading = await begin_cluster_reading(asked, reduction, self.selection.size)
        if reading is not None:
            async with reading.read(blocks) as tasks:
                async for _, results in tasks:
                    found = functools.reduce(merge, results if found is None else [found, *results])
            return found
        async with self.store.reader.read_blocks(self.held, blocks, work) as parts:
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

    Returns:
        The statistics; of several columns those of each by its name.

    Raises:
        Exception: whatever reading raises.
    """
    found = await numbers.reduce(StatisticsReduction())
    columns = list(numbers.columns.split())
    described = [each.describe() for each in found or [Statistics()] * len(columns)]
    if not numbers.columns.is_several:
        return described[0]
    return dict(zip(show_names(numbers.columns.names), described, strict=True))


async def compute_histogram(request: ReadRequest, numbers: Numbers) -> dict[str, Any]:
    """Return what `/histogram` shows: how many finite values of the selection each bin holds.

    Without a range the values are read twice, the first time for their range, unless their
    type has few values.

    Raises:
        Exception: whatever reading raises.
    """
    columns, given = numbers.columns, request.values["range"]
    if given is None and needs_range(columns.dtype):
        given = await numbers.reduce(RangeReduction()) or ValueRange()
    bins = request.values["bins"]
    counts = await numbers.reduce(HistogramReduction(bins, given))
    return Histogram(bins, columns.dtype, given).describe(counts)


async def prepare_numbers(store: Store, request: ReadRequest) -> tuple[Numbers, Lease]:
    """Return the real numbers that a request selects, and the lease that holds them.

    Raises:
        KindMismatch: the values are not real numbers.
        BadParameter: there are no such columns, or too many.
        Exception: whatever opening raises.
    """

    def prepare(
        lease: Lease,
    ) -> Portions[tuple[Dataset, Selection | None, Columns, Array | None, SourcesFound]]:
        dataset = yield from open_asked_dataset(request, lease)
        columns = choose_columns(request, dataset)
        _check_numbers(request, dataset, columns)
        selection = select_elements(request, dataset)
        axes = None if selection is None else selection.axes
        sources = yield from search_sources(lease, dataset, axes)
        element = None
        if dataset.virtual is not None and sources.is_nothing_there:
            # However many there are, they are all the same.
            shape = (1, *dataset.item_shape)
            element = make_fill_values(dataset.layout.properties, shape, dataset.dtype)
        return dataset, selection, columns, element, sources

    (dataset, selection, columns, element, sources), lease = await store.read(
        partial(store.in_portions, work=prepare)
    )
    held = hold(store, dataset, lease, selection)
    return Numbers(store, request, held, selection, columns, element, sources), lease


def _check_numbers(request: ReadRequest, dataset: Dataset, columns: Columns) -> None:
    """Make sure that columns are real numbers, and one where only one is accepted.

    Raises:
        KindMismatch, BadParameter
    """
    if columns.is_several and request.route == "histogram":
        accepted = "a histogram is of one column"
        raise BadParameter("fields", ",".join(columns.names), accepted)
    for name, each in zip(columns.names or ("",), columns.split(), strict=True):
        if each.dtype.kind in "biuf":
            continue
        if name:
            raise BadParameter("fields", name, f"it is {each.dtype}, and real numbers are needed")
        needed = "a dataset of real numbers"
        if dataset.dtype.names is not None:
            needed += ", or a column of them (`fields`),"
        raise KindMismatch(request.file, dataset.path, f"dataset of {dataset.dtype}", needed)


async def answer_view(
    store: Store, request: ReadRequest, wanted: Wanted, view_request: ViewRequest, receive: Receive
) -> tuple[Version, BufferedResponse | StreamedResponse] | None:
    """Answer with the view that is asked for; None when the client went away before it was there.

    Not for `nearest`, which is a selection like others. A view of many points is streamed.

    Returns:
        The version, and the response, which may be a 304.

    Raises:
        HTTPException: 412.
        FormatMismatch, BadParameter, AnswerTooLarge: and whatever reading raises.
    """

    def prepare(
        lease: Lease,
    ) -> Portions[tuple[Dataset, Columns, Values, View | None, bytes, SourcesFound]]:
        dataset = yield from open_asked_dataset(request, lease)
        columns = choose_columns(request, dataset)
        values, view = _plan(store, request, view_request, dataset, columns)
        axes = None if view is None else view.selection.axes
        sources = yield from search_sources(lease, dataset, axes)
        return dataset, columns, values, view, encoder.head(values), sources

    encoder: Any = request.encoder
    (dataset, columns, values, view, head, sources), lease = await store.read(
        partial(store.in_portions, work=prepare)
    )
    try:
        is_streamed = values.size > encoder.block_elements
        length = encoder.length(values)
        is_large = True if is_streamed else None if length is None else length > COMPRESS_OVER_BYTES
        version = await store.make_version(request, lease, sources, is_large=is_large)
        unchanged = answer_preconditions(wanted, version)
        if unchanged is not None or view is None or not values.size:
            lease.release()
            return version, unchanged or make_whole_response(encoder, values, [head], view)
        held = hold(store, dataset, lease, view.selection)
        asked = AskedElements(store, request, held, columns, sources)
        cluster = await begin_cluster_reading(
            asked, ViewReduction(view), view.selection.size, view.factors
        )
        reading = _ViewRead(store, encoder, held, columns, values, view, head, cluster)
        if is_streamed:
            headers = make_value_headers(encoder, values, view)
            return version, StreamedResponse(
                body_chunks=reading.stream(), content_length=length, headers=headers
            )
        pieces = await run_while_connected(receive, reading.read_all)
        if pieces is None:
            return None
        return version, make_whole_response(encoder, values, [head, *pieces], view)
    except BaseException:
        lease.release()
        raise


@measured("plan")
def _plan(
    store: Store,
    request: ReadRequest,
    view_request: ViewRequest,
    dataset: Dataset,
    columns: Columns,
) -> tuple[Values, View | None]:
    """Return the values of the answer and its view, None of an empty dataspace."""
    selection, view = select_elements(request, dataset), None
    shape, dtype = None, columns.dtype
    if selection is not None:
        view = plan_view(selection, dtype, view_request, columns.item_shape)
        shape, dtype = view.shape, view.dtype
    values = make_values(request, dataset, columns, shape, dtype)
    if values.nbytes > store.settings.max_response_bytes:
        raise AnswerTooLarge(values.nbytes, store.settings.max_response_bytes)
    check_values(request, values)
    return values, view


@dataclass(frozen=True, slots=True)
class _ViewRead:
    """A view that is being read, reduced and encoded."""

    store: Store
    encoder: Encoder
    held: Held
    columns: Columns
    values: Values
    view: View
    head: bytes
    """What is sent before the points."""
    cluster: ClusterReading[BlockBins] | None
    """Who reads the blocks; None = this process."""

    async def read_all(self) -> list[bytes]:
        """Return all pieces but head and tail; the lease ends with it."""
        async with self._read_points() as points:
            return [piece async for piece in points]

    @asynccontextmanager
    async def stream(self) -> AsyncIterator[AsyncIterator[bytes]]:
        """Iterate over the body, piece by piece; the lease ends with it."""
        async with self._read_points() as points, closing(self._add_ends(points)) as pieces:
            yield pieces

    async def _add_ends(self, points: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        encoder = self.encoder
        # With the first points, so that what goes wrong before them can still be answered.
        yield self.head + await anext(points)
        async for piece in points:
            yield piece
        tail = encoder.tail(self.values)
        if tail:
            yield tail

    @asynccontextmanager
    async def _read_points(self) -> AsyncIterator[AsyncIterator[bytes]]:
        store, dataset, view = self.store, self.held.dataset, self.view
        item_bytes, block_bytes = measure_blocks(dataset, view.selection, store)
        chunks = dataset.layout.chunks
        blocks = plan_view_blocks(view, chunks, item_bytes, block_bytes)
        try:
            async with (
                self._read_blocks(blocks) as read,
                closing(self._reduce_blocks(read)) as points,
            ):
                yield points
        finally:
            self.held.lease.release()

    @asynccontextmanager
    async def _read_blocks(
        self, blocks: Iterator[ViewBlock]
    ) -> AsyncIterator[AsyncIterator[tuple[ViewBlock, Array | BlockBins]]]:
        """Iterate over the blocks with what was read, or what that was reduced to elsewhere."""
        if self.cluster is None:
            reader = self.store.reader
            async with reader.read_blocks(self.held, blocks, lambda *read: read) as ahead:
                yield ahead
        else:
            async with self.cluster.read(blocks) as tasks, closing(_list_blocks(tasks)) as each:
                yield each

    async def _reduce_blocks(
        self, blocks: AsyncIterator[tuple[ViewBlock, Array | BlockBins]]
    ) -> AsyncIterator[bytes]:
        """Yield the pieces that the blocks, one after the other, are reduced and encoded to."""
        reducer = ViewReducer(self.view, self.columns.dtype)
        decode = self.store.lanes.decode
        first = 0
        async for block, read in blocks:
            reduce = partial(self._reduce, reducer, block, read, first)
            count, pieces = await decode.run(reduce, patient=True)
            first += count
            for piece in pieces:
                yield piece

    def _reduce(
        self, reducer: ViewReducer, block: ViewBlock, read: Array | BlockBins, first: int
    ) -> tuple[int, list[bytes]]:
        if isinstance(read, BlockBins):
            points = reducer.add_bins(block, read)
        else:
            points = reducer.add(block, self.columns.take(read))
        if not points.size:
            return 0, []
        return points.size, encode(self.encoder, self.values, points, points.shape, first)


async def _list_blocks(
    tasks: WorkAhead[Reduced[BlockBins]],
) -> AsyncIterator[tuple[Any, Array | BlockBins]]:
    async for blocks, results in tasks:
        for each in zip(blocks, results, strict=True):
            yield each
