"""Answers made of many values, block by block in the decode lanes.

`/stats` and `/histogram` reduce a selection to numbers; views show a large one as few points, each
computed from a bin of elements.
"""

import operator
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from starlette.types import Receive

from asgihive.asgi import BufferedResponse, StreamedResponse, closing, run_while_connected
from asgihive.concurrency import Portions, measured
from asgihive.encoders.protocol import Encoder, Values
from asgihive.errors import AnswerTooLarge, KindMismatch
from asgihive.hdf5.datasets import Array, Dataset
from asgihive.hdf5.plan import Selection, plan_blocks
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
from asgihive.hdf5.views import (
    View,
    ViewBlock,
    ViewReducer,
    ViewRequest,
    plan_view,
    plan_view_blocks,
)
from asgihive.hdf5.virtual import make_fill_values
from asgihive.hdf5.virtual_sources import SourcesFound, search_sources
from asgihive.service.data import (
    check_values,
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
        dataset = self.held.dataset
        item_bytes, block_bytes = measure_blocks(dataset, self.selection, self.store)
        blocks = plan_blocks(self.selection, dataset.layout.chunks, item_bytes, block_bytes)
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
        partial(store.in_portions, work=prepare)
    )
    held = hold(store, dataset, lease, selection)
    return Numbers(store, held, selection, element, sources), lease


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

    def prepare(lease: Lease) -> Portions[tuple[Dataset, Values, View | None, SourcesFound]]:
        dataset = yield from open_asked_dataset(request, lease)
        values, view = _plan(store, request, view_request, dataset)
        axes = None if view is None else view.selection.axes
        sources = yield from search_sources(lease, dataset, axes)
        return dataset, values, view, sources

    (dataset, values, view, sources), lease = await store.read(
        partial(store.in_portions, work=prepare)
    )
    encoder: Any = request.encoder
    try:
        is_streamed = values.size > encoder.block_elements
        length = encoder.length(values)
        is_large = True if is_streamed else None if length is None else length > COMPRESS_OVER_BYTES
        version = await store.make_version(request, lease, sources, is_large=is_large)
        unchanged = answer_preconditions(wanted, version)
        if unchanged is not None or view is None or not values.size:
            lease.release()
            return version, unchanged or make_whole_response(encoder, values, [], view)
        held = hold(store, dataset, lease, view.selection)
        reading = _ViewRead(store, encoder, held, values, view)
        if is_streamed:
            headers = make_value_headers(encoder, values, view)
            return version, StreamedResponse(
                body_chunks=reading.stream(), content_length=length, headers=headers
            )
        pieces = await run_while_connected(receive, reading.read_all)
        if pieces is None:
            return None
        return version, make_whole_response(encoder, values, pieces, view)
    except BaseException:
        lease.release()
        raise


@measured("plan")
def _plan(
    store: Store, request: ReadRequest, view_request: ViewRequest, dataset: Dataset
) -> tuple[Values, View | None]:
    """Return the values of the answer and its view, None of an empty dataspace."""
    selection, view = select_elements(request, dataset), None
    shape, dtype = None, dataset.dtype
    if selection is not None:
        view = plan_view(selection, dataset.dtype, view_request, dataset.item_shape)
        shape, dtype = view.shape, view.dtype
    values = make_values(request, dataset, shape, dtype)
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
    values: Values
    view: View

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
        yield encoder.head(self.values) + await anext(points)
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
                store.reader.read_blocks(self.held, blocks, lambda *read: read) as ahead,
                closing(self._reduce_blocks(ahead)) as points,
            ):
                yield points
        finally:
            self.held.lease.release()

    async def _reduce_blocks(
        self, ahead: WorkAhead[tuple[ViewBlock, Array]]
    ) -> AsyncIterator[bytes]:
        """Yield the pieces that the blocks, one after the other, are reduced and encoded to."""
        reducer = ViewReducer(self.view, self.held.dataset.dtype)
        decode = self.store.lanes.decode
        first = 0
        async for block, array in ahead:
            reduce = partial(self._reduce, reducer, block, array, first)
            count, pieces = await decode.run(reduce, patient=True)
            first += count
            for piece in pieces:
                yield piece

    def _reduce(
        self, reducer: ViewReducer, block: ViewBlock, array: Array, first: int
    ) -> tuple[int, list[bytes]]:
        points = reducer.add(block, array)
        if not points.size:
            return 0, []
        return points.size, encode(self.encoder, self.values, points, points.shape, first)
