"""One chunk of a Zarr array: its bytes as they lie in the file, or read and encoded.

What goes out as it lies needs no decoder and no libhdf5, and no thread where it is in memory. A
chunk of which that would not do, since it did not go through all filters or its head is not what
clients decode, is read like any other, and encoded by the codecs that the array announces.
"""

import math
import struct
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from asgihive.asgi import BufferedResponse, compress_zstd
from asgihive.concurrency import Portions, measured
from asgihive.encoders.protocol import as_text
from asgihive.errors import AnswerTooLarge, BadParameter, NeedsThread, TypeUnsupported
from asgihive.hdf5.buffers import Array, Bytes, find_bytes
from asgihive.hdf5.chunks import SENT_AT_ONCE_BYTES, RawChunk
from asgihive.hdf5.datasets import READ_ERRORS, Dataset
from asgihive.hdf5.file_bytes import without_waiting
from asgihive.hdf5.filters.blosc import check_blosc
from asgihive.hdf5.filters.builtin import decode_fletcher32
from asgihive.hdf5.filters.contract import BadChunk, Room, has_codecs, imagecodecs
from asgihive.hdf5.opening import open_dataset
from asgihive.hdf5.plan import Axis, Selection, plan_blocks
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.reader import Held
from asgihive.hdf5.virtual_sources import SourcesFound, search_sources
from asgihive.service.data import measure_blocks, read_at_hand
from asgihive.service.requests import (
    ReadRequest,
    Version,
    Wanted,
    answer_preconditions,
    finish_response,
)
from asgihive.service.store import MAX_DOCUMENT_BYTES, Answer, BytesPlace, Store
from asgihive.zarr.data_types import NoDataType, name_data_type
from asgihive.zarr.frames import (
    SHUFFLES,
    ZSTD_HEAD_BYTES,
    StoredForm,
    copy_into_frame,
    find_zstd_size,
)
from asgihive.zarr.grid import LZ4_LEVEL, ArrayPlan, ChunkSource, Codec, plan_array

Answered = tuple[Version, BufferedResponse, BytesPlace | None]
"""The version, the response, which may be a 304, and the place of its bytes, if that is known."""

_HEADERS = {"content-type": "application/octet-stream", "accept-ranges": "bytes"}


@dataclass(frozen=True, slots=True)
class ChunkRead:
    """What a request reads of a dataset for one chunk."""

    request: ReadRequest
    dataset: Dataset
    lease: Lease
    plan: ArrayPlan
    axes: tuple[Axis, ...]
    """What of the dataset is in the chunk."""


@dataclass(frozen=True, slots=True)
class ChunkBody:
    """The bytes of a chunk."""

    content: bytes
    place: tuple[int, int] | None = None
    """Where in the file they lie as they are sent (offset, number); None = nowhere."""
    head: bytes = b""
    """What is sent before those."""


async def answer_chunk(
    store: Store, request: ReadRequest, coordinates: tuple[int, ...], wanted: Wanted
) -> Answered:
    """Answer with a whole chunk of an array.

    Args:
        request: names the file and the dataset, and keeps the answer in `store.zarr_chunks`.
        coordinates: of the chunk in the grid of the array.
        wanted: of which the range is left to the caller.

    Raises:
        BadParameter: there is no chunk at these coordinates.
        TypeUnsupported: Zarr cannot express the values.
        HTTPException: 412.
        and whatever reading raises.
    """

    async def answer(dataset: Dataset, lease: Lease) -> Answered:
        read = plan_read(store, request, coordinates, dataset, lease)
        if _needs_library(read):
            raise NeedsThread
        # External raw storage and virtual datasets need the library.
        return await _answer_read(store, read, SourcesFound(depends_on_all=True), wanted)

    answered = await read_at_hand(store, request, answer)
    if answered is None:
        work = partial(_open_and_answer, store, request, coordinates, wanted)
        answered = (await store.read(work))[0]
    return answered


def plan_read(
    store: Store,
    request: ReadRequest,
    coordinates: tuple[int, ...],
    dataset: Dataset,
    lease: Lease,
) -> ChunkRead:
    """Return what is read for a chunk.

    Raises:
        BadParameter, TypeUnsupported, AnswerTooLarge
    """
    name = dataset.file.place.name
    if dataset.shape is None:
        raise TypeUnsupported(name, dataset.path, "Zarr has no empty dataspaces")
    try:
        name_data_type(dataset.dtype)
    except NoDataType as error:
        raise TypeUnsupported(name, dataset.path, str(error)) from None
    plan = plan_array(dataset, store.settings)
    if not plan.has_chunk(coordinates):
        key = "/".join(map(str, ("c", *coordinates)))
        counts = " x ".join(map(str, plan.counts)) or "one"
        raise BadParameter("key", key, f"{dataset.path} has {counts} chunks, counted from c/0 on")
    size, most = (
        math.prod(plan.chunk_shape) * plan.dtype.itemsize,
        store.settings.max_response_bytes,
    )
    if size > most:
        raise AnswerTooLarge(size, most, "its chunks are as large; use /data to ask for a part")
    return ChunkRead(request, dataset, lease, plan, plan.find_axes(coordinates))


def _needs_library(read: ChunkRead) -> bool:
    """Return whether libhdf5 is needed, as far as that is known before."""
    dataset = read.dataset
    if read.plan.source is ChunkSource.STORED and dataset.chunked is not None:
        return dataset.chunked.index.needs_library
    return dataset.needs_library


async def _open_and_answer(
    store: Store,
    request: ReadRequest,
    coordinates: tuple[int, ...],
    wanted: Wanted,
    lease: Lease,
) -> Answered:
    def prepare(lease: Lease) -> Portions[tuple[ChunkRead, SourcesFound]]:
        file = lease.open_asked(request.file)
        dataset = yield from open_dataset(lease, file, request.path)
        lease.objects.append(dataset)
        read = plan_read(store, request, coordinates, dataset, lease)
        return read, (yield from search_sources(lease, dataset, read.axes))

    read, sources = await store.in_portions(lease, prepare)
    return await _answer_read(store, read, sources, wanted)


async def _answer_read(
    store: Store, read: ChunkRead, sources: SourcesFound, wanted: Wanted
) -> Answered:
    lease = read.lease
    version = await store.make_version(read.request, lease, sources, is_large=False)
    if wanted.is_conditional:
        unchanged = answer_preconditions(wanted, version)
        if unchanged is not None:
            lease.release()
            return version, unchanged, None
    match read.plan.source:
        case ChunkSource.STORED:
            body = await _send_stored(store, read)
        case ChunkSource.RUN:
            body = await _send_run(store, read)
        case ChunkSource.READ:
            body = None
    place = None
    if body is None:
        content = await _find_or_encode(store, read, version, wanted)
    else:
        content, place = body.content, _find_place(read, body)
    lease.release()
    return version, BufferedResponse(content, headers=_HEADERS), place


def _find_place(read: ChunkRead, body: ChunkBody) -> BytesPlace | None:
    """Return the place of a body, if nothing but that file has a say in it."""
    file = read.dataset.file
    if body.place is None or body.place[1] > SENT_AT_ONCE_BYTES:
        return None
    if read.lease.depends.keys() != {file.place.asked} or not file.settled or file.live:
        return None
    return BytesPlace(body.head, weakref.ref(file), body.place, np.dtype(np.uint8))


# As it lies in the file.


async def _send_stored(store: Store, read: ChunkRead) -> ChunkBody | None:
    """Return a stored chunk; None where it has to be read and encoded."""
    dataset, plan, lease = read.dataset, read.plan, read.lease
    assert dataset.chunked is not None  # noqa: S101  # it is planned by its chunks
    read_chunk = partial(dataset.read_raw_chunk, lease, read.axes)
    found, chunk = False, None
    if not dataset.chunked.index.needs_library:
        found, chunk = _read_at_once(
            store, lease, partial(dataset.chunked.read_raw_chunk, read.axes, lease.go_on)
        )
    if not found:
        needs_library = dataset.chunked.index.needs_library
        lane = store.lanes.library if needs_library else store.lanes.decode
        runs = partial(dataset.list_raw_runs, lease, read.axes)
        reads = [] if needs_library else [(dataset.file.descriptor, runs)]
        async with store.reader.holding(reads, patient=False):
            chunk = await lane.run(read_chunk, patient=False)
    if chunk is None:
        fill = dataset.chunked.fill
        return None if fill is None else ChunkBody(await _make_fill(store, plan, fill))
    assert plan.stored is not None  # noqa: S101  # as above
    if plan.stored.has_checksum and chunk.is_filtered:
        check = partial(_take_checksum_off, chunk)
        is_little = chunk.content.size <= _INLINE_BYTES
        chunk = check() if is_little else await store.lanes.decode.run(check, patient=True)
    make = partial(_make_body, plan, chunk, dataset.chunked.pipeline.chunk_bytes)
    frame = plan.stored.frame
    if frame is None or frame.form is StoredForm.STREAM or chunk.content.size <= _INLINE_BYTES:
        return make()
    return await store.lanes.decode.run(make, patient=True)


def _make_body(plan: ArrayPlan, chunk: RawChunk, chunk_bytes: int) -> ChunkBody | None:
    """Return a stored chunk as it is sent; None where clients could not decode it."""
    content, place = chunk.content, (chunk.place.offset, chunk.content.size)
    frame = None if plan.stored is None else plan.stored.frame
    if not chunk.is_filtered:
        return None
    if frame is None:
        if not is_decodable(plan.codecs[-1], content, chunk_bytes):
            return None
        return ChunkBody(find_bytes(content) or content.tobytes(), place)
    if frame.form is StoredForm.BLOCKS:
        framed = frame.make_frame(content, chunk_bytes)
        return None if framed is None else ChunkBody(framed)
    head = frame.make_head(content, chunk_bytes)
    return None if head is None else ChunkBody(head + content.tobytes(), place, head)


# What is checked, encoded or put together without a thread.
_INLINE_BYTES = 1 << 14


def _read_at_once(
    store: Store, lease: Lease, read: Callable[[], RawChunk | None]
) -> tuple[bool, RawChunk | None]:
    """Return whether a chunk and all that leads to it is in memory, and the chunk.

    Raises:
        FileChanged
    """
    try:
        with without_waiting():
            chunk = read()
        store.pool.stat_guard.ask(Lease.check, lease)
    except (NeedsThread, *READ_ERRORS):  # what is wrong with it is found out by a thread
        return False, None
    return True, chunk


def _take_checksum_off(chunk: RawChunk) -> RawChunk:
    """Return a chunk without its checksum, or what will be decoded where that is wrong."""
    try:
        content = decode_fletcher32(chunk.content, (), Room(chunk.content.size, exact=False))
    except BadChunk:
        return replace(chunk, is_filtered=False)
    return replace(chunk, content=content)


_BLOSC_FORMATS = {0, 1, 3, 4}  # BloscLZ, LZ4, zlib, zstd
_BLOSC_VERSION, _BLOSC2_EXTENDED = 2, 0x05


def is_decodable(codec: Codec, content: Bytes, chunk_bytes: int) -> bool:
    """Return whether the head of a stored chunk is what clients decode to a whole chunk.

    Args:
        codec: the last one of the array, which undoes the chunk first.
        content: the chunk as it is stored.
        chunk_bytes: of a decoded chunk.
    """
    match codec.name:
        case "zstd":
            return find_zstd_size(content[:ZSTD_HEAD_BYTES].tobytes()) == chunk_bytes
        case "blosc":
            try:
                check_blosc(content, (), Room(chunk_bytes))
            except BadChunk:
                return False
            head = content[:16].tobytes()
            is_first_version = head[0] <= _BLOSC_VERSION and head[2] >> 5 in _BLOSC_FORMATS
            is_plain = head[2] & _BLOSC2_EXTENDED != _BLOSC2_EXTENDED
            # Some clients refuse what has anything behind it.
            (size,) = struct.unpack_from("<I", head, 12)
            return is_first_version and is_plain and size == content.size
    return content.size == chunk_bytes


async def _send_run(store: Store, read: ChunkRead) -> ChunkBody | None:
    """Return a run of the file's bytes; None where the values do not lie in one."""
    contiguous, plan, lease = read.dataset.contiguous, read.plan, read.lease
    run = None if contiguous is None else contiguous.find_run(read.axes)
    if contiguous is None or run is None:
        return None
    array = None
    if run[1] <= SENT_AT_ONCE_BYTES:
        array = contiguous.read_cached(run)
        try:
            store.pool.stat_guard.ask(Lease.check, lease)
        except NeedsThread:
            array = None
    counts = tuple(axis.count for axis in read.axes)
    shape = (*counts, *read.dataset.item_shape)
    encode = partial(encode_elements, plan, np.zeros((), plan.dtype))
    if shape != plan.chunk_shape:
        if array is None:
            return ChunkBody(await store.reader.read(_hold(read), read.axes, encode, patient=False))
        if run[1] > _INLINE_BYTES:
            return ChunkBody(await store.run_in_decode_lane(partial(encode, array.reshape(shape))))
        return ChunkBody(encode(array.reshape(shape)))
    if array is None:
        content = await store.reader.read(_hold(read), read.axes, _to_bytes, patient=False)
    else:
        content = _to_bytes(array)
    return ChunkBody(content, run)


def _to_bytes(array: Array) -> bytes:
    return find_bytes(array) or array.tobytes()


def _hold(read: ChunkRead) -> Held:
    # Its chunks are kept as they are sent.
    return Held(read.dataset, read.lease, keep=False)


# Read and encoded.


async def _find_or_encode(store: Store, read: ChunkRead, version: Version, wanted: Wanted) -> bytes:
    """Return a chunk that is encoded for being sent; once, however many requests ask for it."""
    key = read.request.key

    async def make() -> Answer:
        content = await _encode_chunk(store, read)
        response = BufferedResponse(content, headers=_HEADERS)
        finished = await finish_response(wanted, version, response, store.run_in_decode_lane)
        assert isinstance(finished, BufferedResponse)  # noqa: S101  # as it was before
        answer = Answer(version, {None: finished})
        store.zarr_chunks.keep(key, answer)
        return answer

    # It may have been made while the dataset was opened.
    answer = await store.zarr_chunks.find(key) or await store.zarr_chunks.find_or_make(key, make)
    # Another request may have read another content of the file.
    is_same = answer.version.validators.etag == version.validators.etag
    if not is_same or answer.place is not None or None not in answer.responses:
        answer = await make()
    return answer.responses[None].body


async def _encode_chunk(store: Store, read: ChunkRead) -> bytes:
    dataset, plan = read.dataset, read.plan
    if plan.is_text and dataset.dtype.hasobject:
        texts = await _read_texts(store, read)
        return await store.run_in_decode_lane(partial(encode_texts, plan, texts))
    if plan.is_text:
        encode: Callable[[Array], bytes] = partial(encode_texts, plan)
    else:
        fill = None if dataset.chunked is None else dataset.chunked.fill
        if fill is None:
            fill = np.zeros((), dataset.dtype)
        encode = partial(encode_elements, plan, fill)
    return await store.reader.read(_hold(read), read.axes, encode, patient=False)


async def _read_texts(store: Store, read: ChunkRead) -> Array:
    """Return strings of variable length, which are read block by block, and counted.

    Raises:
        AnswerTooLarge
    """
    dataset, selection = read.dataset, Selection(read.axes)
    texts = np.empty((*selection.shape, *dataset.item_shape), object)
    flat = texts.reshape(-1, *dataset.item_shape)
    size, most = 0, min(MAX_DOCUMENT_BYTES, store.settings.max_response_bytes)
    item_bytes, block_bytes = measure_blocks(dataset, selection, store)
    blocks = plan_blocks(selection, dataset.layout.chunks, item_bytes, block_bytes)

    def measure(block: Any, array: Array) -> tuple[Any, Array, int]:
        return block, array, sum(map(len, array.flat))

    async with store.reader.read_blocks(_hold(read), blocks, measure) as ahead:
        async for block, array, block_size in ahead:
            size += block_size
            if size > most:
                raise AnswerTooLarge(size, most, "its strings are too long for a chunk of Zarr")
            flat[block.first : block.first + block.size] = array.reshape(-1, *dataset.item_shape)
    return texts


@measured("encode")
def encode_texts(plan: ArrayPlan, texts: Array) -> bytes:
    """Return strings by `vlen-utf8`, and the codecs behind it.

    That is their number, and then of each the length and the bytes (numcodecs, `VLenUTF8`). What
    is not UTF-8 is U+FFFD, as in all text that is sent: files have units such as µm in Latin-1, and
    one of them would be enough that clients cannot load a whole file.

    Args:
        plan: of the array.
        texts: as bytes, of the shape of what is read.
    """
    padded = np.full(plan.chunk_shape, b"", object)
    inside: tuple[Any, ...] = (*map(slice, texts.shape), ...)
    # With dots, or an array of no axes would itself become the element.
    padded[inside] = texts
    values = padded.reshape(-1).tolist()
    pieces = [struct.pack("<I", len(values))]
    for value in values:
        encoded = value if value.isascii() else as_text(value).encode()
        pieces.append(struct.pack("<I", len(encoded)))
        pieces.append(encoded)
    return compress(plan.codecs[1:], b"".join(pieces))


@measured("encode")
def encode_elements(plan: ArrayPlan, fill: Array, array: Array) -> bytes:
    """Return elements by the codecs of an array; what is beyond the extent is the fill value.

    Args:
        plan: of the array.
        fill: one element.
        array: what is read of the chunk.
    """
    array = array.astype(plan.dtype, order="C", copy=False)
    if array.shape != plan.chunk_shape:
        padded = np.empty(plan.chunk_shape, plan.dtype)
        padded[...] = fill.astype(plan.dtype)
        padded[tuple(map(slice, array.shape))] = array
        array = padded
    if len(plan.codecs) == 1:
        return _to_bytes(array)
    return compress(plan.codecs[1:], array.reshape(-1).view(np.uint8).data)


async def _make_fill(store: Store, plan: ArrayPlan, fill: Array) -> bytes:
    """Return the bytes of a chunk that was never written; made once, while others ask for it."""
    key = (plan.chunk_shape, str(plan.dtype), fill.tobytes(), repr(plan.codecs))
    made = store.zarr_fills.get(key)
    if made is None:
        empty = np.empty((0,) * len(plan.chunk_shape), plan.dtype)
        made = await store.run_in_decode_lane(partial(encode_elements, plan, fill, empty))
        store.zarr_fills.put(key, made, len(made))
    return made


def compress(codecs: tuple[Codec, ...], content: bytes | memoryview) -> bytes:
    """Return bytes by the codecs that follow the first one, each by an encoder that is always here.

    The levels that stored chunks announce are not kept to: the fastest does here.
    """
    for codec in codecs:
        match codec.name:
            case "zstd":
                content = compress_zstd(content)
            case "blosc":
                content = compress_blosc(content, codec.configuration)
    return content if isinstance(content, bytes) else bytes(content)


def compress_blosc(content: bytes | memoryview, configuration: Any) -> bytes:
    """Return a frame of Blosc; with the content as it is, where there is no encoder."""
    item_bytes = configuration["typesize"]
    if _HAS_BLOSC:
        shuffle = SHUFFLES.index(configuration["shuffle"])
        encoded: bytes = imagecodecs.blosc_encode(
            content,
            level=LZ4_LEVEL,
            compressor="lz4",
            typesize=item_bytes,
            shuffle=shuffle,
            numthreads=1,
        )
        return encoded
    return copy_into_frame(content, item_bytes)


_HAS_BLOSC = has_codecs("BLOSC")
