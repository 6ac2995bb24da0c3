"""Views: a large selection as few points, each computed from a bin of elements."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from starlette.types import Receive

from asgihive.asgi import BufferedResponse, StreamedResponse, closing, run_while_connected
from asgihive.concurrency import Portions, WorkAhead
from asgihive.context import measured
from asgihive.encoders.protocol import Encoder, Values
from asgihive.errors import AnswerTooLarge
from asgihive.hdf5.datasets import Array, Dataset
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.reader import Held
from asgihive.hdf5.views import (
    View,
    ViewBlock,
    ViewReducer,
    ViewRequest,
    plan_view,
    plan_view_blocks,
)
from asgihive.hdf5.virtual_sources import SourcesFound, search_sources
from asgihive.service.data import (
    check_values,
    encode,
    is_worth_keeping,
    make_value_headers,
    make_values,
    make_whole_response,
    measure_blocks,
    open_asked_dataset,
    select_elements,
)
from asgihive.service.parameters import ReadRequest
from asgihive.service.store import Store
from asgihive.service.versions import (
    COMPRESS_OVER_BYTES,
    Version,
    Wanted,
    answer_preconditions,
)


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
        lambda lease: store.in_portions(lease, prepare)
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
        held = Held(dataset, lease, is_worth_keeping(store, dataset, view.selection))
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
        # A value that is too large for the safe type is infinite there.
        with np.errstate(over="ignore", invalid="ignore"):
            points = points.astype(self.values.dtype, order="C", copy=False)
        if self.values.shape is not None and len(self.values.shape) < len(self.view.shape):
            points = points.reshape(-1)
        return points.size, encode(self.encoder, self.values, points, first)
