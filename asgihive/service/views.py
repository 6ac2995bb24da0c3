"""Views: a large selection as few points, each of which tells of a bin of elements."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
from starlette.types import Receive

from asgihive.asgi import BufferedResponse, StreamedResponse, closing, run_while_connected
from asgihive.concurrency import Portions
from asgihive.context import measured
from asgihive.encoders.protocol import Values
from asgihive.errors import AnswerTooLarge
from asgihive.hdf5.datasets import Array, Dataset
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.reader import Held, ReadAhead
from asgihive.hdf5.views import (
    View,
    ViewBlock,
    ViewReducer,
    ViewRequest,
    plan_view,
    plan_view_blocks,
)
from asgihive.hdf5.virtual_sources import search_sources
from asgihive.service.bodies import encode, headers_of, whole_response
from asgihive.service.parameters import DataParameters
from asgihive.service.representations import Representation
from asgihive.service.selecting import (
    answer_dtype,
    block_bytes_of,
    check_values,
    found,
    is_kept,
    item_bytes_of,
    selected,
)
from asgihive.service.store import Store


async def answer_view(
    store: Store,
    parameters: DataParameters,
    request: ViewRequest,
    representation: Representation,
    receive: Receive,
) -> BufferedResponse | StreamedResponse | None:
    """The view that `request` means; None when the client went away before it was there.

    Not for `nearest`, which is a selection like others. A view of many points is streamed.

    Raises:
        NotModified
        FormatMismatch, BadParameter, AnswerTooLarge: and whatever reading raises.
    """

    def begin(lease: Lease) -> Portions[tuple[Dataset, Values, View | None]]:
        dataset = yield from found(parameters.entity, lease)
        values, view = _planned(store, parameters, request, dataset)
        axes = None if view is None else view.selection.axes
        sources = yield from search_sources(lease, dataset, axes)
        representation.identify(
            lease,
            sources,
            length=parameters.encoder.length(values),
            is_streamed=values.size > parameters.encoder.block_elements,
        )
        return dataset, values, view

    (dataset, values, view), lease = await store.read(lambda lease: store.in_portions(lease, begin))
    encoder = parameters.encoder
    try:
        if view is None or not values.size:
            lease.release()
            return whole_response(encoder, values, [], view)
        held = Held(dataset, lease, is_kept(store, dataset, view.selection))
        reading = _ViewRead(store, parameters, held, values, view)
        if values.size > encoder.block_elements:
            return StreamedResponse(
                body_chunks=reading.body(),
                content_length=encoder.length(values),
                headers=headers_of(encoder, values, view),
            )
        pieces = await run_while_connected(receive, reading.whole)
        return None if pieces is None else whole_response(encoder, values, pieces, view)
    except BaseException:
        lease.release()
        raise


@measured("plan")
def _planned(
    store: Store, parameters: DataParameters, request: ViewRequest, dataset: Dataset
) -> tuple[Values, View | None]:
    """What will be answered; without a view of an empty dataspace."""
    name = dataset.path.rsplit("/", 1)[-1]
    selection = selected(dataset, parameters.selection)
    if selection is None:
        view, shape, dtype = None, None, dataset.dtype
    else:
        view = plan_view(selection, dataset.dtype, request, dataset.item_shape)
        shape, dtype = view.shape, view.dtype
    values = Values(name, shape, answer_dtype(dtype, safe=parameters.safe))
    if parameters.flatten and shape:
        values = Values(name, (values.size,), values.dtype)
    if values.nbytes > store.settings.max_response_bytes:
        raise AnswerTooLarge(values.nbytes, store.settings.max_response_bytes)
    check_values(parameters, values)
    return values, view


@dataclass(frozen=True, slots=True)
class _ViewRead:
    """A view that is being read, reduced and encoded."""

    store: Store
    parameters: DataParameters
    held: Held
    values: Values
    view: View

    async def whole(self) -> list[bytes]:
        """All pieces but head and tail; the lease ends with it."""
        async with self._points() as points:
            return [piece async for piece in points]

    @asynccontextmanager
    async def body(self) -> AsyncIterator[AsyncIterator[bytes]]:
        """The body, piece by piece; the lease ends with it."""
        async with self._points() as points, closing(self._with_ends(points)) as pieces:
            yield pieces

    async def _with_ends(self, points: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        encoder = self.parameters.encoder
        # With the first points, so that what goes wrong before them can still be answered.
        yield encoder.head(self.values) + await anext(points)
        async for piece in points:
            yield piece
        tail = encoder.tail(self.values)
        if tail:
            yield tail

    @asynccontextmanager
    async def _points(self) -> AsyncIterator[AsyncIterator[bytes]]:
        store, dataset, view = self.store, self.held.dataset, self.view
        block_bytes = block_bytes_of(dataset, view.selection, store)
        chunks, item_bytes = dataset.layout.chunks, item_bytes_of(dataset)
        blocks = plan_view_blocks(view, chunks, item_bytes, block_bytes)
        try:
            async with (
                store.reader.read_blocks(self.held, blocks, lambda *read: read) as ahead,
                closing(self._reduced(ahead)) as points,
            ):
                yield points
        finally:
            self.held.lease.release()

    async def _reduced(self, ahead: ReadAhead[tuple[ViewBlock, Array]]) -> AsyncIterator[bytes]:
        """What the blocks, one after the other, are reduced and encoded to."""
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
        # What is too large for the safe type is infinite there.
        with np.errstate(over="ignore", invalid="ignore"):
            points = points.astype(self.values.dtype, order="C", copy=False)
        if self.values.shape is not None and len(self.values.shape) < len(self.view.shape):
            points = points.reshape(-1)
        return points.size, encode(self.parameters.encoder, self.values, points, first)
