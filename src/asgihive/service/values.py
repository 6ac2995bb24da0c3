"""The way of `/data` and `/stats`: selection → blocks → encoded pieces."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import numpy as np

from asgihive.asgi import BufferedResponse, StreamedResponse, content_disposition
from asgihive.encoders.protocol import Values, is_numeric
from asgihive.encoders.registry import check
from asgihive.errors import AnswerTooLarge, FileChanged, FormatMismatch, KindMismatch, ReadTimeout
from asgihive.hdf5.datasets import Dataset, dataset_key, find_dataset
from asgihive.hdf5.plan import Block, chunk_row_bytes, plan_blocks
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.reduce import Statistics, summarise
from asgihive.hdf5.selection import Selection, parse_selection, whole
from asgihive.service.parameters import DataParameters, EntityParameters
from asgihive.service.store import Store
from asgihive.settings import H5Settings

Array = np.ndarray[Any, Any]

# What is read and encoded without a thread; a lane costs as much as encoding this much.
_INLINE_BYTES = 1 << 16

# Large enough that a thread's cost is nothing, small enough that others get their turn.
_BLOCK_BYTES = 4 << 20

# Elements of variable length are pointers: what they point to is not known before reading.
_POINTED_BYTES = 4096


@dataclass(slots=True)
class ValuesRead:
    """A selection of a dataset that is being read.

    block: the first one; None when nothing is selected. `array` is what it holds.
    blocks: those after it.
    """

    dataset: Dataset
    values: Values
    dtype: np.dtype[Any]
    block: Block | None
    blocks: Iterator[Block]
    array: Array | None = None

    @property
    def whole(self) -> bool:
        """Whether there is nothing behind the first block."""
        return self.array is None or self.array.size == self.values.size


async def answer_data(
    store: Store, parameters: DataParameters
) -> BufferedResponse | StreamedResponse:
    """The values as `parameters` ask for them; whole when they are one piece, else streamed."""
    begun = await _begin_at_hand(store, parameters)
    if begun is None:
        begun = await store.read(lambda lease: _begin(store.settings, parameters, lease))
    reading, lease = begun
    try:
        encoder, values = parameters.encoder, reading.values
        headers = {"content-type": encoder.media_type}
        if encoder.extension is not None:
            name = values.name or "data"
            headers["content-disposition"] = content_disposition(f"{name}.{encoder.extension}")
        if reading.whole and values.size <= encoder.block_elements:
            body = await _whole_body(store, reading, parameters)
            lease.release()
            return BufferedResponse(body, headers=headers)
    except BaseException:
        lease.release()
        raise

    async def release() -> None:
        lease.release()

    return StreamedResponse(
        blocks=_pieces(store, reading, parameters, lease),
        content_length=encoder.length(values),
        headers=headers,
        on_close=release,
    )


async def compute_statistics(
    store: Store, entity: EntityParameters, selection: str | None
) -> dict[str, Any]:
    """`/stats`: of the finite values of the selection."""

    def begin(lease: Lease) -> tuple[Dataset, Iterator[Block]]:
        dataset = find_dataset(
            lease, store.open(lease, entity.file), entity.path, store.settings.max_link_hops
        )
        lease.objects.append(dataset)
        if dataset.dtype.kind not in "biuf":
            kind = f"dataset of {dataset.dtype}"
            raise KindMismatch(entity.file, dataset.path, kind, "a dataset of real numbers")
        if dataset.shape is None:
            parse_selection(selection, ())
            return dataset, iter(())
        chosen = parse_selection(selection, dataset.shape)
        return dataset, _plan(dataset, chosen, store.settings)

    (dataset, blocks), lease = await store.read(begin)
    try:
        statistics = Statistics()
        for block in blocks:
            array = await _read_block(store, dataset, block, lease)
            part = await store.lanes.decode.run(partial(summarise, array), patient=True)
            statistics = statistics.merge(part)
        return statistics.described()
    finally:
        lease.release()


def _begin(settings: H5Settings, parameters: DataParameters, lease: Lease) -> ValuesRead:
    """Everything before the first byte, in one visit to the library lane."""
    file = lease.open_asked(parameters.entity.file)
    dataset = find_dataset(lease, file, parameters.entity.path, settings.max_link_hops)
    lease.objects.append(dataset)
    reading = _prepared(settings, parameters, dataset)
    if reading.block is not None:
        reading.array = _shaped(reading, reading.block, dataset.read(lease, reading.block.axes))
    return reading


async def _begin_at_hand(
    store: Store, parameters: DataParameters
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
        reading = _prepared(store.settings, parameters, dataset)
        block = reading.block
        if block is None or dataset.needs_library(block.axes):
            lease.release()
            return None
        run = dataset.stored_run(block.axes)
        read = None
        if run is not None and run[1] <= _INLINE_BYTES:
            read = dataset.read_at_once(lease, run)
        if read is None:
            read = await _read_block(store, dataset, block, lease, patient=False)
        reading.array = _shaped(reading, block, read)
    except FileChanged:
        lease.release()
        return None
    except BaseException:
        lease.release()
        raise
    return reading, lease


def _prepared(settings: H5Settings, parameters: DataParameters, dataset: Dataset) -> ValuesRead:
    """What will be read of `dataset`, and that it may be; reads nothing."""
    if parameters.safe and not is_numeric(dataset.dtype):
        accepted = f"safe converts numbers, and these values are {dataset.dtype}; use origin"
        raise FormatMismatch("dtype", "safe", accepted)
    dtype = _plain_dtype(dataset.dtype)
    if parameters.safe:
        dtype = safe_dtype(dtype)
    name = dataset.path.rsplit("/", 1)[-1]
    if dataset.shape is None:
        parse_selection(parameters.selection, ())
        values = Values(name, None, dtype)
        check(parameters.encoder, values)
        return ValuesRead(dataset, values, dtype, None, iter(()))
    selection = parse_selection(parameters.selection, dataset.shape)
    shape = (*selection.shape, *dataset.item_shape)
    values = Values(name, shape, dtype)
    if parameters.flatten and shape:
        values = Values(name, (values.size,), dtype)
    size = selection.size * dataset.item_bytes
    if size > settings.max_response_bytes:
        raise AnswerTooLarge(size, settings.max_response_bytes)
    check(parameters.encoder, values)
    blocks = _plan(dataset, selection, settings)
    return ValuesRead(dataset, values, dtype, next(blocks, None), blocks)


def safe_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The nearest type that a JavaScript typed array holds, little-endian."""
    if dtype.kind == "f" and dtype.itemsize < 4:
        return np.dtype("<f4")
    if dtype.kind == "f" and dtype.itemsize > 8:
        return np.dtype("<f8")
    return dtype.newbyteorder("<")


def _plain_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Numbers without what h5py notes beside them, such as the names of an enum."""
    return np.dtype(dtype.str) if is_numeric(dtype) else dtype


def _plan(dataset: Dataset, selection: Selection, settings: H5Settings) -> Iterator[Block]:
    item_bytes = dataset.item_bytes
    if dataset.dtype.hasobject:
        item_bytes = max(item_bytes, _POINTED_BYTES)
    chunks = dataset.layout.chunks
    block_bytes = max(_BLOCK_BYTES, chunk_row_bytes(selection, chunks, item_bytes))
    return plan_blocks(selection, chunks, item_bytes, min(block_bytes, settings.read_ahead_bytes))


def _shaped(reading: ValuesRead, block: Block, array: Array) -> Array:
    """A block as it was read, in the type and shape of the answer."""
    # What is too large for the safe type is infinite there; signalling NaNs are as good as others.
    with np.errstate(over="ignore", invalid="ignore"):
        array = array.astype(reading.dtype, order="C", copy=False)
    shape = (*block.shape, *reading.dataset.item_shape)
    whole_shape = reading.values.shape
    flattened = whole_shape is not None and len(whole_shape) < len(shape)
    return array.reshape(-1 if flattened else shape)


async def _whole_body(store: Store, reading: ValuesRead, parameters: DataParameters) -> bytes:
    encoder, values = parameters.encoder, reading.values
    parts = [encoder.head(values)]
    if reading.array is not None:
        parts.append(await _encoded(store, parameters, values, reading.array, 0))
    parts.append(encoder.tail(values))
    filled = [part for part in parts if part]
    return filled[0] if len(filled) == 1 else b"".join(filled)


async def _pieces(
    store: Store, reading: ValuesRead, parameters: DataParameters, lease: Lease
) -> AsyncIterator[bytes]:
    """The body, piece by piece; at most one block of the dataset is in memory."""
    encoder, values = parameters.encoder, reading.values
    head = encoder.head(values)
    if head:
        yield head
    array, first = reading.array, 0
    while array is not None:
        for piece, before in _cut(array, encoder.block_elements):
            yield await _encoded(store, parameters, values, piece, first + before)
        first += array.size
        block = next(reading.blocks, None)
        array = None
        if block is not None:
            read = await _read_block(store, reading.dataset, block, lease)
            array = _shaped(reading, block, read)
    tail = encoder.tail(values)
    if tail:
        yield tail


def _cut(array: Array, most: int) -> Iterator[tuple[Array, int]]:
    """Pieces of at most `most` elements, each whole rows of one axis, and where they begin."""
    if array.size <= most:
        yield array, 0
        return
    for block in plan_blocks(whole(array.shape), None, 1, most):
        index = tuple(slice(axis.start, axis.stop) for axis in block.axes)
        yield array[index].reshape(block.shape), block.first


async def _encoded(
    store: Store, parameters: DataParameters, values: Values, array: Array, first: int
) -> bytes:
    def encode() -> bytes:
        return _as_bytes(parameters.encoder.block(values, array, first))

    if array.nbytes <= _INLINE_BYTES and not array.dtype.hasobject:
        return encode()
    return await store.lanes.decode.run(encode, patient=True)


def _as_bytes(block: bytes | memoryview) -> bytes:
    """ASGI takes bytes, and servers differ in what else they put up with.

    What views the whole of a bytes object, as contiguous data do, is that object.
    """
    owner: Any = block
    while isinstance(owner, memoryview | np.ndarray):
        owner = owner.obj if isinstance(owner, memoryview) else owner.base
    if isinstance(owner, bytes) and len(owner) == len(block):
        return owner
    return bytes(block)


async def _read_block(
    store: Store, dataset: Dataset, block: Block, lease: Lease, *, patient: bool = True
) -> Array:
    seconds = store.settings.read_timeout_seconds
    # What libhdf5 has no part in need not wait for it.
    lanes = store.lanes
    lane = lanes.library if dataset.needs_library(block.axes) else lanes.decode
    with anyio.move_on_after(seconds):
        return await lane.run(lambda: dataset.read(lease, block.axes), patient=patient)
    raise ReadTimeout(seconds)
