"""The way of `/data`: parameters → `Prepared` → blocks → encoded pieces → response."""

import math
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import h5py
import numpy as np

from asgihive.asgi import (
    BufferedResponse,
    ByteRange,
    StreamedResponse,
    closing,
    format_content_disposition,
)
from asgihive.concurrency import Portions, measured
from asgihive.encoders.json import Json
from asgihive.encoders.protocol import Encoder, Values, check_fit, is_numeric
from asgihive.errors import (
    AnswerTooLarge,
    FileChanged,
    FormatMismatch,
    NeedsThread,
    PageTooLarge,
)
from asgihive.hdf5.buffers import find_bytes
from asgihive.hdf5.columns import Columns, find_columns
from asgihive.hdf5.datasets import Array, Dataset
from asgihive.hdf5.file_bytes import allow_waiting, without_waiting
from asgihive.hdf5.layout import LayoutKind
from asgihive.hdf5.opening import dataset_key, open_dataset
from asgihive.hdf5.plan import (
    Block,
    Selection,
    measure_chunk_row,
    parse_selection,
    plan_blocks,
    plan_run,
    select_all,
)
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.reader import Held
from asgihive.hdf5.views import View, plan_view
from asgihive.hdf5.virtual_sources import SourcesFound, search_sources
from asgihive.padding import has_padding, zero_padding
from asgihive.service.requests import (
    COMPRESS_OVER_BYTES,
    ReadRequest,
    Version,
    Wanted,
    answer_preconditions,
    choose_wanted_range,
)
from asgihive.service.store import BytesPlace, Store
from asgihive.tasks import WorkAhead

T = TypeVar("T")

MAX_PAGE_BYTES = 64 << 20
"""Most JSON that a browser is sent as a page: it would hold several times as much, and stop."""

# Large enough that a thread's cost is nothing, small enough that others get their turn.
_BLOCK_BYTES = 4 << 20

# Elements of variable length are pointers: the size of what they point to is not known before.
_POINTED_BYTES = 4096

# What is read and encoded without a thread; a lane costs as much as encoding this much.
_INLINE_BYTES = 1 << 16
_INLINE_STRINGS = 1 << 8
_INLINE_COLUMNS = 1 << 5

# Of a chunk that is in memory, what the event loop copies behind a head: less than a millisecond.
_COPIED_BYTES = 1 << 21


@dataclass(frozen=True, slots=True)
class BodyPart:
    """A range of a body, and what of the body is needed for it."""

    range: ByteRange
    size: int
    """Bytes of the whole body."""
    skip: int
    """Bytes before the range, of the head or of the first element."""
    elements: tuple[int, int]
    """From which to before which element is needed, of those of the dataset."""

    def cut(self, piece: bytes, before: int) -> bytes:
        """Return the range's share of a piece that comes so many bytes behind the first."""
        first = self.skip - before
        return piece[max(0, first) : max(0, first + self.range.length)]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a request reads of a dataset: computed once, and handed on."""

    request: ReadRequest
    dataset: Dataset
    lease: Lease
    held: Held
    """The dataset by the lease, and whether its chunks are worth a place in the cache."""
    sources: SourcesFound
    """What its values come from."""
    selection: Selection | None
    """Of the dataset; None = an empty dataspace."""
    columns: Columns
    """What is taken of each element."""
    view: View | None
    values: Values
    """What is sent."""
    encoder: Encoder
    is_raw: bool
    """Whether the body is the head and then the elements as they lie in memory, no more."""
    is_as_stored: bool
    """Whether these are the elements as they are read, so that encoding is no work."""
    item_size: int
    """How many values an element of the dataset is."""
    head: bytes
    """What is sent before the values."""
    length: int | None
    """Of the body in bytes, where that is known."""
    count: int
    """How many elements of the dataset are read."""
    block: Block | None
    """The first block; None when nothing is read."""
    blocks: Iterator[Block]
    """Those after it."""
    part: BodyPart | None = None
    """The range of the body that is sent; None = all of it."""

    @property
    def is_one_piece(self) -> bool:
        """Whether the whole body is little enough to be sent at once."""
        is_last = self.block is None or self.block.size == self.count
        return is_last and self.count * self.item_size <= self.encoder.block_elements

    def encode(self, block: Block, array: Array) -> list[bytes]:
        """Return the pieces of a block as it was read."""
        shape = (*block.shape, *self.columns.item_shape)
        taken = self.columns.take(array)
        return encode(self.encoder, self.values, taken, shape, block.first * self.item_size)


def open_asked_dataset(request: ReadRequest, lease: Lease) -> Portions[Dataset]:
    """Return the dataset that a request asks for, held by `lease`. In the library lane."""
    file = lease.open_asked(request.file)
    dataset = yield from open_dataset(lease, file, request.path)
    lease.objects.append(dataset)
    return dataset


def select_elements(request: ReadRequest, dataset: Dataset) -> Selection | None:
    """Return what a request selects; None of an empty dataspace. Raises BadSelection."""
    selection = parse_selection(request.values["selection"], dataset.shape or ())
    return None if dataset.shape is None else selection


def choose_columns(request: ReadRequest, dataset: Dataset) -> Columns:
    """Return what a request takes of each element. Raises BadParameter."""
    fields, description = request.values["fields"], dataset.description
    return find_columns(fields, dataset.dtype, dataset.item_shape, description)


def hold(store: Store, dataset: Dataset, lease: Lease, selection: Selection | None) -> Held:
    """Return a dataset as it is read; a long selection would sweep the cache of chunks clean."""
    most = store.pool.chunks.max_bytes // 4
    keep = selection is not None and selection.size * dataset.item_bytes <= most
    return Held(dataset, lease, keep)


def measure_blocks(dataset: Dataset, selection: Selection, store: Store) -> tuple[int, int]:
    """Return the bytes of an element, as far as they are known, and those of a block at most."""
    item_bytes = dataset.item_bytes
    if dataset.dtype.hasobject:
        item_bytes = max(item_bytes, _POINTED_BYTES)
    row = measure_chunk_row(selection, dataset.layout.chunks, item_bytes)
    return item_bytes, min(max(_BLOCK_BYTES, row), store.reader.read_ahead_bytes)


def make_values(
    request: ReadRequest,
    dataset: Dataset,
    columns: Columns,
    shape: tuple[int, ...] | None,
    dtype: np.dtype[Any],
) -> Values:
    """Return what is sent of columns in a shape and type.

    Raises:
        FormatMismatch: they are to be what a JavaScript typed array holds, and are not numbers.
    """
    if request.values["flatten"] and shape:
        shape = (math.prod(shape),)
    safe = request.values["dtype"]
    if is_numeric(dtype):
        # Without what h5py notes beside numbers, such as the names of an enum.
        dtype = np.dtype(dtype.str)
        if safe and dtype.kind == "f" and not 4 <= dtype.itemsize <= 8:
            dtype = np.dtype("<f4" if dtype.itemsize < 4 else "<f8")
        elif safe:
            dtype = dtype.newbyteorder("<")
    elif safe:
        accepted = f"safe converts numbers, and these values are {dtype}; use origin"
        raise FormatMismatch("dtype", "safe", accepted)
    column = "" if columns.is_several else ".".join(columns.names)
    described = columns.description if dtype == columns.dtype else {}
    return Values(dataset.path.rsplit("/", 1)[-1], shape, dtype, column, described)


def check_values(request: ReadRequest, values: Values) -> None:
    """Make sure that values can be sent as asked for, before any of them is read.

    Raises:
        FormatMismatch: the format cannot hold them.
        PageTooLarge: a browser would show them as a page.
        NeedsThread: the thread must not wait, and to describe all columns takes a while.
    """
    encoder: Any = request.encoder
    check_fit(encoder, values)
    if _is_wide(encoder, values):
        allow_waiting()
    if request.is_navigation and isinstance(encoder, Json):
        size = encoder.estimate_length(values)
        if size > MAX_PAGE_BYTES:
            raise PageTooLarge(size, MAX_PAGE_BYTES)


@measured("plan")
def plan_values(store: Store, request: ReadRequest, dataset: Dataset, lease: Lease) -> Prepared:
    """Return what is read of a dataset, once it is certain that it may be."""
    encoder: Any = request.encoder
    selection, view = select_elements(request, dataset), None
    columns = choose_columns(request, dataset)
    if selection is not None and request.view is not None:
        view = plan_view(selection, columns.dtype, request.view, columns.item_shape)
        selection = view.nearest
    shape = None if selection is None else (*selection.shape, *columns.item_shape)
    values = make_values(request, dataset, columns, shape, columns.dtype)
    count = 0
    blocks: Iterator[Block] = iter(())
    if selection is not None:
        count = selection.size
        size = count * columns.item_bytes
        if size > store.settings.max_response_bytes:
            raise AnswerTooLarge(size, store.settings.max_response_bytes)
        item_bytes, block_bytes = measure_blocks(dataset, selection, store)
        if getattr(encoder, "has_whole_rows", False) and len(selection.shape) == 2:
            block_bytes = max(block_bytes, item_bytes * selection.shape[1])
        blocks = plan_blocks(selection, dataset.layout.chunks, item_bytes, block_bytes)
    check_values(request, values)
    is_raw = getattr(encoder, "is_raw", False)
    return Prepared(
        request=request,
        dataset=dataset,
        lease=lease,
        held=hold(store, dataset, lease, selection),
        sources=SourcesFound(depends_on_all=dataset.layout.kind is not LayoutKind.EXTERNAL),
        selection=selection,
        columns=columns,
        view=view,
        values=values,
        encoder=encoder,
        is_raw=is_raw,
        is_as_stored=is_raw and columns.ways is None and values.dtype == dataset.dtype,
        item_size=math.prod(columns.item_shape),
        head=encoder.head(values),
        length=encoder.length(values),
        count=count,
        block=next(blocks, None),
        blocks=blocks,
    )


def narrow(store: Store, prepared: Prepared, wanted: ByteRange) -> Prepared:
    """Return what is read for a range of the body alone."""
    head, values, selection = prepared.head, prepared.values, prepared.selection
    item_bytes = max(1, prepared.item_size * values.dtype.itemsize)
    start, stop = max(0, wanted.start - len(head)), max(0, wanted.stop - len(head))
    first, last = start // item_bytes, -(-stop // item_bytes)
    size = len(head) + values.nbytes
    skip = wanted.start
    if wanted.start >= len(head):
        head, skip = b"", start - first * item_bytes
    part = BodyPart(wanted, size, skip, (first, last))
    blocks: Iterator[Block] = iter(())
    if selection is not None:
        item, most = measure_blocks(prepared.dataset, selection, store)
        blocks = plan_run(selection, part.elements, prepared.dataset.layout.chunks, item, most)
    return replace(
        prepared,
        head=head,
        count=last - first,
        block=next(blocks, None),
        blocks=blocks,
        part=part,
    )


Answered = tuple[Version, BufferedResponse | StreamedResponse, BytesPlace | None]
"""The version, the response, which may be a 304, and the place of its bytes, if that is known."""


async def answer_values(store: Store, request: ReadRequest, wanted: Wanted) -> Answered:
    """Answer with the values that are asked for; whole when they are one piece, else streamed.

    Raises:
        HTTPException: 412 or 416.
        and whatever reading raises.
    """
    answered = await _answer_at_hand(store, request, wanted)
    if answered is None:
        answered = (await store.read(partial(_answer, store, request, wanted)))[0]
    return answered


async def _answer(store: Store, request: ReadRequest, wanted: Wanted, lease: Lease) -> Answered:
    """Do everything before the first byte; what a 304 needs is all of it, where it is one."""

    def prepare(lease: Lease) -> Portions[tuple[Prepared, Array | None]]:
        dataset = yield from open_asked_dataset(request, lease)
        prepared = plan_values(store, request, dataset, lease)
        if dataset.virtual is not None:
            axes = None if prepared.selection is None else prepared.selection.axes
            sources = yield from search_sources(lease, dataset, axes)
            return replace(prepared, sources=sources), None
        block = prepared.block
        if block is None:
            return prepared, None
        if wanted.is_conditional or wanted.has_range:  # it may be that nothing is read, or little
            return prepared, None
        # What has to be read here anyway, or is so little that another visit would cost more.
        is_little = block.size * dataset.item_bytes <= _INLINE_BYTES
        # A store is not waited for here, where others wait as well.
        is_little = is_little and isinstance(dataset.file.descriptor, int)
        if dataset.has_many_chunks(block.axes) or not (dataset.needs_library or is_little):
            return prepared, None
        return prepared, dataset.read(lease, block.axes)

    prepared, array = await store.in_portions(lease, prepare)
    return await _read_first(store, prepared, wanted, array)


async def _answer_at_hand(store: Store, request: ReadRequest, wanted: Wanted) -> Answered | None:
    """Do the same for values that need no libhdf5; few plain bytes in memory need no thread."""

    async def answer(dataset: Dataset, lease: Lease) -> Answered:
        if dataset.needs_library:
            raise NeedsThread
        with without_waiting():
            prepared = plan_values(store, request, dataset, lease)
        return await _read_first(store, prepared, wanted, None)

    return await read_at_hand(store, request, answer)


async def read_at_hand(
    store: Store, request: ReadRequest, work: Callable[[Dataset, Lease], Awaitable[T]]
) -> T | None:
    """Return what `work` makes of a dataset that is open already, in an unchanged file.

    A thread may be needed to read and decode it, but not that of libhdf5. None when there is no
    such dataset, or `work` raises NeedsThread.

    Args:
        work: releases the lease when it is done.
    """
    # A function of its own, so that nothing of this is held while the library lane is waited for.
    lease = Lease(store.pool)
    try:
        dataset = store.pool.at_hand(request.file, dataset_key(request.path), lease)
        if isinstance(dataset, Dataset):
            lease.objects.append(dataset)
            return await work(dataset, lease)
    except (FileChanged, NeedsThread):
        pass
    except BaseException:
        lease.release()
        raise
    if lease.files:
        lease.release()
    return None


async def _read_first(
    store: Store, prepared: Prepared, wanted: Wanted, array: Array | None
) -> Answered:
    """Read the first block, unless `array` is what was read, and answer with it."""
    dataset, lease = prepared.dataset, prepared.lease
    is_large: bool | None = True
    if prepared.is_one_piece:
        is_large = None if prepared.length is None else prepared.length > COMPRESS_OVER_BYTES
    version = await store.make_version(prepared.request, lease, prepared.sources, is_large=is_large)
    if wanted.is_conditional:
        unchanged = answer_preconditions(wanted, version)
        if unchanged is not None:
            lease.release()
            return version, unchanged, None
    if wanted.has_range and prepared.length is not None and prepared.is_raw:
        chosen = choose_wanted_range(wanted, version, prepared.length)
        prepared = prepared if chosen is None else narrow(store, prepared, chosen)
    block = prepared.block
    if block is None:
        return _make_answer(store, prepared, version, [])
    if array is None and not dataset.needs_library:
        array = _read_at_once(store, dataset, block, lease)
    encode_block = partial(prepared.encode, block)
    if array is None:
        pieces = await store.reader.read(prepared.held, block.axes, encode_block, patient=False)
    elif _is_encoded_at_once(prepared, array):
        pieces = encode_block(array)
    else:
        pieces = await store.lanes.decode.run(partial(encode_block, array), patient=True)
    return _make_answer(store, prepared, version, pieces)


def _make_answer(
    store: Store, prepared: Prepared, version: Version, pieces: list[bytes]
) -> Answered:
    """Return the answer of which these are the first pieces behind the head, or all."""
    headers = make_value_headers(prepared.encoder, prepared.values, prepared.view)
    if prepared.is_raw:
        headers["accept-ranges"] = "bytes"
    part, status, length = prepared.part, 200, prepared.length
    if part is not None:
        headers["content-range"] = part.range.format_content_range(part.size)
        status, length = 206, part.range.length
    if not prepared.is_one_piece:
        chunks = _stream(store, prepared, pieces)
        response = StreamedResponse(
            body_chunks=chunks, content_length=length, status=status, headers=headers
        )
        return version, response, None
    place = _find_place(prepared)
    prepared.lease.release()
    body = join_pieces([prepared.head, *pieces, prepared.encoder.tail(prepared.values)])
    if part is not None:
        body = part.cut(body, 0)
    return version, BufferedResponse(body, status, headers), place


def _read_at_once(store: Store, dataset: Dataset, block: Block, lease: Lease) -> Array | None:
    """Return few plain bytes, or those of a chunk, if they are in memory.

    Raises:
        FileChanged
    """
    array = None
    if dataset.chunked is not None:
        array = dataset.chunked.read_kept(block.axes, _INLINE_BYTES)
    elif dataset.contiguous is not None:
        run = dataset.contiguous.find_run(block.axes)
        if run is not None and run[1] <= _INLINE_BYTES:
            array = dataset.contiguous.read_cached(run)
    if array is not None:
        try:
            store.pool.stat_guard.ask(Lease.check, lease)
        except NeedsThread:
            return None
    return array


def _is_encoded_at_once(prepared: Prepared, array: Array) -> bool:
    """Return whether that is too little work for a thread, or none."""
    if _is_wide(prepared.encoder, prepared.values):
        return False
    if array.nbytes <= _INLINE_BYTES:
        return not array.dtype.hasobject or _is_little_text(array)
    is_one_block = array.size <= prepared.encoder.block_elements
    is_no_work = prepared.is_as_stored and not has_padding(array.dtype)
    return is_no_work and is_one_block and find_bytes(array) is not None


def _is_wide(encoder: Encoder, values: Values) -> bool:
    """Return whether a table has many columns, each of which is some work in every block."""
    if not getattr(encoder, "has_whole_rows", False):
        return False
    columns = len(values.dtype.names or ()) or math.prod((values.shape or ())[1:])
    return columns > _INLINE_COLUMNS


def _is_little_text(array: Array) -> bool:
    """Return whether the values are strings of few bytes."""
    if array.size > _INLINE_STRINGS or h5py.check_string_dtype(array.dtype) is None:
        return False
    return sum(map(len, array.flat)) <= _INLINE_BYTES


def _find_place(prepared: Prepared) -> BytesPlace | None:
    """Return where the body lies, if it is all values as they lie in a file or chunk.

    Nothing but that file, which is looked at each time, may have a say in the answer.
    """
    dataset, block, file = prepared.dataset, prepared.block, prepared.dataset.file
    if block is None or prepared.part is not None or not prepared.is_as_stored:
        return None
    if prepared.lease.depends.keys() != {file.place.asked} or not file.settled or file.live:
        return None
    if dataset.contiguous is not None:
        values = dataset.contiguous.find_run(block.axes)
        if values is None or values[1] > _INLINE_BYTES:
            return None
        return BytesPlace(prepared.head, weakref.ref(file), values, dataset.dtype)
    chunk = None if dataset.chunked is None else dataset.chunked.find_kept_chunk(block.axes)
    # Behind a head it is copied.
    if chunk is None or (prepared.head and block.size * dataset.item_bytes > _COPIED_BYTES):
        return None
    return BytesPlace(prepared.head, weakref.ref(file), chunk, dataset.dtype)


@asynccontextmanager
async def _stream(
    store: Store, prepared: Prepared, pieces: list[bytes]
) -> AsyncIterator[AsyncIterator[bytes]]:
    """Yield the body, piece by piece, while the next blocks are read; the lease ends with it."""
    try:
        async with (
            store.reader.read_blocks(prepared.held, prepared.blocks, prepared.encode) as ahead,
            closing(_send_pieces(prepared, pieces, ahead)) as sent,
        ):
            yield sent
    finally:
        prepared.lease.release()


async def _send_pieces(
    prepared: Prepared, pieces: list[bytes], ahead: WorkAhead[list[bytes]]
) -> AsyncIterator[bytes]:
    part, before = prepared.part, 0
    pieces.insert(0, prepared.head)
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
    tail = prepared.encoder.tail(prepared.values)
    if tail:
        yield tail


def make_value_headers(encoder: Encoder, values: Values, view: View | None) -> dict[str, str]:
    """Return what a response with these values says of them; of a view, also what it shows."""
    headers = {"content-type": encoder.media_type}
    if encoder.extension is not None:
        name = f"{values.name or 'data'}.{encoder.extension}"
        headers["content-disposition"] = format_content_disposition(name)
    if view is not None:
        headers["x-asgihive-shape"] = ",".join(map(str, view.selection.shape))
        headers["x-asgihive-factors"] = ",".join(map(str, view.factors))
        headers["x-asgihive-method"] = view.method
    return headers


@measured("encode")
def encode(
    encoder: Encoder, values: Values, array: Array, shape: tuple[int, ...], first: int
) -> list[bytes]:
    """Return the pieces of some elements of `values`; `first` elements come before these.

    Args:
        shape: of the elements, before `values` are flattened.
    """
    # What is too large for the safe type is infinite there; signalling NaNs are as good as others.
    with np.errstate(over="ignore", invalid="ignore"):
        array = array.astype(values.dtype, order="C", copy=False)
    is_flattened = values.shape is not None and len(values.shape) < len(shape)
    array = zero_padding(array.reshape(-1 if is_flattened else shape))
    cuts, pieces = [(array, first)], []
    if array.size > encoder.block_elements:  # in whole rows of one axis
        cuts = []
        for block in plan_blocks(select_all(array.shape), None, 1, encoder.block_elements):
            rows = array[tuple(slice(axis.start, axis.stop) for axis in block.axes)]
            cuts.append((rows.reshape(block.shape), first + block.first))
    for rows, before in cuts:
        encoded = encoder.block(values, rows, before)
        # ASGI takes bytes, and servers differ in what else they put up with.
        if not isinstance(encoded, bytes):
            encoded = find_bytes(encoded) or bytes(encoded)
        pieces.append(encoded)
    return pieces


def make_whole_response(
    encoder: Encoder, values: Values, pieces: list[bytes], view: View | None
) -> BufferedResponse:
    """Return the response that consists of these pieces, the head among them, and the tail."""
    body = join_pieces([*pieces, encoder.tail(values)])
    return BufferedResponse(body, headers=make_value_headers(encoder, values, view))


def join_pieces(pieces: list[bytes]) -> bytes:
    """Return one piece of all; without a copy, where only one of them is not empty."""
    filled = list(filter(None, pieces))
    return filled[0] if len(filled) == 1 else b"".join(filled)
