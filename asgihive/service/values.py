"""The way of `/data`: selection → blocks → encoded pieces."""

import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from asgihive.asgi import BufferedResponse, StreamedResponse, closing
from asgihive.concurrency import Portions
from asgihive.context import measured
from asgihive.encoders.protocol import Values
from asgihive.errors import AnswerTooLarge, FileChanged
from asgihive.hdf5.buffers import find_bytes
from asgihive.hdf5.datasets import Array, Dataset
from asgihive.hdf5.opening import dataset_key
from asgihive.hdf5.plan import Block, plan_run
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.reader import Held, ReadAhead
from asgihive.hdf5.selection import Selection
from asgihive.hdf5.views import View, plan_view
from asgihive.hdf5.virtual_sources import SourcesFound, search_sources, sources_at_hand
from asgihive.padding import has_padding
from asgihive.service.bodies import encode, headers_of, joined
from asgihive.service.parameters import DataParameters
from asgihive.service.parts import Part, has_parts, part_of
from asgihive.service.plain import PlainSource
from asgihive.service.representations import Representation
from asgihive.service.selecting import (
    answer_dtype,
    block_bytes_of,
    check_values,
    found,
    is_kept,
    item_bytes_of,
    planned,
    selected,
)
from asgihive.service.store import Store

# What is read and encoded without a thread; a lane costs as much as encoding this much.
_INLINE_BYTES = 1 << 16

# Of a chunk that is in memory, what the event loop copies behind a head: less than a millisecond.
_COPIED_BYTES = 1 << 21


@dataclass(slots=True)
class ValuesRead:
    """A selection of a dataset that is being read and encoded.

    wanted: the number of elements that are read.
    block: the first one; None when nothing is. `pieces` is what it is encoded to.
    blocks: those after it.
    keep: whether its chunks are likely to be asked for again.
    part: the range of the body that is sent; None = all of it.
    """

    dataset: Dataset
    parameters: DataParameters
    values: Values
    selection: Selection | None
    wanted: int
    block: Block | None
    blocks: Iterator[Block]
    keep: bool
    view: View | None = None
    part: Part | None = None
    pieces: list[bytes] = field(default_factory=list)

    @property
    def is_one_piece(self) -> bool:
        """Whether the whole body is little enough to be sent at once."""
        is_last = self.block is None or self.block.size == self.wanted
        return is_last and self.wanted * self.item_size <= self.parameters.encoder.block_elements

    @property
    def item_size(self) -> int:
        """How many values an element of the dataset is."""
        return math.prod(self.dataset.item_shape)

    @property
    def head(self) -> bytes:
        """What is sent before the values."""
        return self.parameters.encoder.head(self.values) if self.part is None else self.part.head

    @property
    def tail(self) -> bytes:
        """What is sent behind them; what has parts has none."""
        return self.parameters.encoder.tail(self.values)

    @property
    def is_as_stored(self) -> bool:
        """Whether the body is all values as they lie in memory, so that encoding is no work."""
        return self.values.dtype == self.dataset.dtype and has_parts(self.parameters.encoder)

    @property
    def plain(self) -> PlainSource | None:
        """Of what the body is made, if it is all values as they lie in a file or chunk."""
        dataset = self.dataset
        if self.block is None or self.part is not None or not self.is_as_stored:
            return None
        if dataset.contiguous is not None:
            run = dataset.contiguous.find_run(self.block.axes)
            if run is None or run[1] > _INLINE_BYTES:
                return None
            return PlainSource(self.head, dataset.file, run, dataset.dtype)
        chunked = dataset.chunked
        chunk = None if chunked is None else chunked.find_kept_chunk(self.block.axes)
        # Behind a head it is copied.
        if chunk is None or (
            self.head and self.block.size * self.dataset.item_bytes > _COPIED_BYTES
        ):
            return None
        return PlainSource(self.head, dataset.file, chunk, dataset.dtype)

    def encode(self, block: Block, array: Array) -> list[bytes]:
        """The pieces of a block as it was read."""
        # What is too large for the safe type is infinite there; signalling NaNs are as good as
        # others.
        with np.errstate(over="ignore", invalid="ignore"):
            array = array.astype(self.values.dtype, order="C", copy=False)
        shape = (*block.shape, *self.dataset.item_shape)
        flattened = self.values.shape is not None and len(self.values.shape) < len(shape)
        array = array.reshape(-1 if flattened else shape)
        first = block.first * self.item_size
        return encode(self.parameters.encoder, self.values, array, first)


async def answer_data(
    store: Store, parameters: DataParameters, representation: Representation
) -> BufferedResponse | StreamedResponse:
    """The values as `parameters` ask for them; whole when they are one piece, else streamed.

    Raises:
        NotModified
        HTTPException: 412 or 416.
        and whatever reading raises.
    """
    begun = await _begin_at_hand(store, parameters, representation)
    if begun is None:
        begun = await store.read(partial(_begin, store, parameters, representation))
    reading, lease = begun
    encoder, values, part = parameters.encoder, reading.values, reading.part
    try:
        headers = headers_of(encoder, values, reading.view)
        if has_parts(encoder):
            headers["accept-ranges"] = "bytes"
        status, length = 200, encoder.length(values)
        if part is not None:
            headers |= part.headers
            status, length = 206, part.range.length
        if reading.is_one_piece:
            representation.plain = reading.plain
            lease.release()
            body = joined([reading.head, *reading.pieces, reading.tail])
            if part is not None:
                body = part.cut(body, 0)
            return BufferedResponse(body, status, headers)
        return StreamedResponse(
            body_chunks=_body(store, reading, lease),
            content_length=length,
            status=status,
            headers=headers,
        )
    except BaseException:
        lease.release()
        raise


async def _begin(
    store: Store, parameters: DataParameters, representation: Representation, lease: Lease
) -> ValuesRead:
    """Everything before the first byte."""

    def begin(lease: Lease) -> Portions[tuple[ValuesRead, Array | None]]:
        dataset = yield from found(parameters.entity, lease)
        prepared = _prepared(store, parameters, dataset)
        axes = None if prepared.selection is None else prepared.selection.axes
        sources = yield from search_sources(lease, dataset, axes)
        reading = _represented(store, representation, prepared, sources, lease)
        block = reading.block
        if block is None or dataset.virtual is not None or dataset.has_many_chunks(block.axes):
            return reading, None
        if not dataset.needs_library and block.size * dataset.item_bytes > _INLINE_BYTES:
            return reading, None
        # What has to be read here anyway, or is so little that another visit would cost more.
        return reading, dataset.read(lease, block.axes)

    reading, array = await store.in_portions(lease, begin)
    if reading.block is not None:
        await _read_first(store, reading, reading.block, lease, array)
    return reading


async def _begin_at_hand(
    store: Store, parameters: DataParameters, representation: Representation
) -> tuple[ValuesRead, Lease] | None:
    """The same for values of a file that is open already that need no libhdf5.

    A thread is needed to read and decode them, and it need not be libhdf5's; for few plain
    bytes that are in memory not even that. None when the values are not like that.
    """
    lease = Lease(store.pool)
    key = dataset_key(parameters.entity.path)
    try:
        dataset = store.pool.at_hand(parameters.entity.file, key, lease)
        if not isinstance(dataset, Dataset):
            return None
        lease.objects.append(dataset)
        if dataset.needs_library:
            lease.release()
            return None
        prepared, sources = _prepared(store, parameters, dataset), sources_at_hand(dataset)
        reading = _represented(store, representation, prepared, sources, lease)
        block = reading.block
        if block is None:
            return reading, lease
        await _read_first(store, reading, block, lease, _read_at_once(dataset, block, lease))
    except FileChanged:
        lease.release()
        return None
    except BaseException:
        lease.release()
        raise
    return reading, lease


def _read_at_once(dataset: Dataset, block: Block, lease: Lease) -> Array | None:
    """Few plain bytes, or those of a chunk, if they are in memory. Raises FileChanged."""
    array = None
    if dataset.chunked is not None:
        array = dataset.chunked.read_kept(block.axes, _INLINE_BYTES)
    elif dataset.contiguous is not None:
        run = dataset.contiguous.find_run(block.axes)
        if run is not None and run[1] <= _INLINE_BYTES:
            array = dataset.contiguous.read_cached(run)
    if array is not None:
        lease.check()
    return array


async def _read_first(
    store: Store, reading: ValuesRead, block: Block, lease: Lease, array: Array | None
) -> None:
    """Read the first block, unless `array` is what was read, and encode it."""
    encode_block = partial(reading.encode, block)
    if array is None:
        held = Held(reading.dataset, lease, reading.keep)
        reading.pieces = await store.reader.read(held, block.axes, encode_block, patient=False)
    elif _is_encoded_at_once(reading, array):
        reading.pieces = encode_block(array)
    else:
        reading.pieces = await store.lanes.decode.run(partial(encode_block, array), patient=True)


def _is_encoded_at_once(reading: ValuesRead, array: Array) -> bool:
    """Whether that is too little work for a thread, or none."""
    if array.nbytes <= _INLINE_BYTES:
        return not array.dtype.hasobject
    is_one_block = array.size <= reading.parameters.encoder.block_elements
    is_no_work = reading.is_as_stored and not has_padding(array.dtype)
    return is_no_work and is_one_block and find_bytes(array) is not None


@measured("plan")
def _prepared(store: Store, parameters: DataParameters, dataset: Dataset) -> ValuesRead:
    """What will be read of `dataset`, and that it may be; reads nothing."""
    name = dataset.path.rsplit("/", 1)[-1]
    selection = selected(dataset, parameters.selection)
    if selection is None:
        dtype = answer_dtype(dataset.dtype, safe=parameters.safe)
        values = Values(name, None, dtype)
        check_values(parameters, values)
        return ValuesRead(dataset, parameters, values, None, 0, None, iter(()), keep=False)
    view = None
    if parameters.view is not None:
        view = plan_view(selection, dataset.dtype, parameters.view, dataset.item_shape)
        selection = view.nearest
    dtype = answer_dtype(dataset.dtype, safe=parameters.safe)
    shape = (*selection.shape, *dataset.item_shape)
    values = Values(name, shape, dtype)
    if parameters.flatten and shape:
        values = Values(name, (values.size,), dtype)
    size = selection.size * dataset.item_bytes
    if size > store.settings.max_response_bytes:
        raise AnswerTooLarge(size, store.settings.max_response_bytes)
    check_values(parameters, values)
    blocks = planned(dataset, selection, store)
    first, keep = next(blocks, None), is_kept(store, dataset, selection)
    size = selection.size
    return ValuesRead(dataset, parameters, values, selection, size, first, blocks, keep, view)


def _represented(
    store: Store,
    representation: Representation,
    reading: ValuesRead,
    sources: SourcesFound,
    lease: Lease,
) -> ValuesRead:
    """What will be read of it for this request: nothing the client has, and only what it wants.

    Raises as `answer_data`.
    """
    encoder, values, selection = reading.parameters.encoder, reading.values, reading.selection
    dataset, length = reading.dataset, encoder.length(values)
    is_streamed = not reading.is_one_piece
    representation.identify(lease, sources, length=length, is_streamed=is_streamed)
    wanted = None
    if length is not None and has_parts(encoder):
        wanted = representation.range_of(length)
    if wanted is None:
        return reading
    part = part_of(encoder, values, reading.item_size, wanted)
    first, stop = part.elements
    blocks: Iterator[Block] = iter(())
    if selection is not None:
        block_bytes = block_bytes_of(dataset, selection, store)
        chunks, item_bytes = dataset.layout.chunks, item_bytes_of(dataset)
        blocks = plan_run(selection, part.elements, chunks, item_bytes, block_bytes)
    block = next(blocks, None)
    return replace(reading, part=part, wanted=stop - first, block=block, blocks=blocks)


@asynccontextmanager
async def _body(
    store: Store, reading: ValuesRead, lease: Lease
) -> AsyncIterator[AsyncIterator[bytes]]:
    """The body, piece by piece, while the next blocks are read; the lease ends with it."""
    held = Held(reading.dataset, lease, reading.keep)
    try:
        async with (
            store.reader.read_blocks(held, reading.blocks, reading.encode) as ahead,
            closing(_pieces(reading, ahead)) as pieces,
        ):
            yield pieces
    finally:
        lease.release()


async def _pieces(reading: ValuesRead, ahead: ReadAhead[list[bytes]]) -> AsyncIterator[bytes]:
    part, before = reading.part, 0
    pieces = [reading.head, *reading.pieces]
    reading.pieces = []
    while pieces:
        # Let go of each before the next one is asked for.
        pieces.reverse()
        while pieces:
            piece = pieces.pop()
            if part is not None:
                before, piece = before + len(piece), part.cut(piece, before)
            if piece:
                yield piece
            del piece
        pieces = await anext(ahead, [])
    if reading.tail:
        yield reading.tail
