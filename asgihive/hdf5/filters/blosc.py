"""Filters 32001 and 32026: Blosc buffers, and Blosc 2 in the frames that its plugin writes.

Sources: README_CFRAME_FORMAT.rst, README_CHUNK_FORMAT.rst and b2nd.h of c-blosc2, and
blosc2_filter.c of hdf5-blosc2. Arrays of several dimensions are cut into blocks (b2nd).
"""

import math
import struct
from collections.abc import Sequence
from typing import Any

import msgpack
import numpy as np

from asgihive.hdf5.buffers import Bytes
from asgihive.hdf5.filters.contract import (
    BadChunk,
    FilterDecoder,
    Room,
    UnknownForm,
    Values,
    as_bytes,
    call_codec,
    has_codecs,
    imagecodecs,
)


def check_blosc(stored: Bytes, _values: Values, room: Room) -> int:
    """Return the size that the header of a Blosc 1 buffer announces.

    Raises:
        BadChunk: it is not what is expected, or more is announced than is stored.
    """
    if stored.size < 16:
        raise BadChunk(f"blosc: {stored.size} bytes have no room for a header")
    size, _, compressed = struct.unpack("<III", stored[4:16].tobytes())
    if compressed > stored.size:
        raise BadChunk(f"blosc: {compressed} bytes are announced, {stored.size} are stored")
    room.check("blosc", size)
    return int(size)


def decode_blosc(stored: Bytes, values: Values, room: Room) -> Bytes:
    """Decode filter 32001."""
    size = check_blosc(stored, values, room)
    decoded = call_codec("blosc", imagecodecs.blosc_decode, stored, numthreads=1, out=size)
    room.check("blosc", decoded.size)
    return decoded


_MAGIC = b"b2frame\0"
_FIXED_BYTES = 15
_CHUNK_HEADER_BYTES = 16
_EXTENDED_HEADER_BYTES = 32
_MOST_DIMENSIONS = 16

# Blocks reach beyond the chunk by less than its length along each dimension.
_MOST_PADDING = 16

# In the highest byte of an offset of the index: instead of a chunk there is a value, or nothing.
_ZEROS, _UNINITIALISED = 0x81, 0x84

# Of a chunk: the bits of its flags that say that its header is extended, and in the last byte of
# that, from bit 4 on, the special value that stands for nothing.
_IS_EXTENDED = 0x05
_NOTHING_STORED = 4

# What is in every build of c-blosc2, others being plugins: codecs, in the upper bits of the flags,
# and filters up to truncation.
_KNOWN_CODECS = {0, 1, 3, 4}
_LAST_KNOWN_FILTER = 4


def decode_blosc2(stored: Bytes, _values: Values, room: Room) -> Bytes:
    """Decode filter 32026.

    Raises:
        UnknownForm: the frame has several chunks, or codecs and filters that are plugins.
    """
    header, start, metalayer = _read_frame(stored)
    array_shape, chunk_shape, block_shape = _read_shapes(stored, metalayer)
    item = _read_integer(header, 6)
    raw_size = item * math.prod(array_shape) if chunk_shape else _read_integer(header, 4)
    room.check("blosc2", raw_size)
    # Of an inner chunk, which c-blosc2 makes room for.
    if _read_integer(header, 8) > _MOST_PADDING * room.most:
        raise BadChunk(f"blosc2: inner chunks of {header[8]} bytes for {raw_size}")
    if array_shape != chunk_shape or (not chunk_shape and raw_size != header[8]):
        raise UnknownForm("blosc2: the frame has not one inner chunk")
    padded = [-(-n // m) * m for n, m in zip(chunk_shape, block_shape, strict=True)]
    size = item * math.prod(padded) if chunk_shape else raw_size
    if size > _MOST_PADDING * room.most:
        raise BadChunk(f"blosc2: blocks of {size} bytes for {raw_size} are too many")
    raw = _decode_first_chunk(stored, start, size, is_stored=_read_integer(header, 5) != 0)
    if padded == chunk_shape == block_shape:
        return raw
    return _join_blocks(raw, item, chunk_shape, block_shape, padded)


def _read_frame(stored: Bytes) -> tuple[Sequence[Any], int, int | None]:
    """Return the header's fields, where its chunks begin, and where its shapes are described."""
    content = stored[:_FIXED_BYTES].tobytes()
    if stored.size < _FIXED_BYTES or content[2:10] != _MAGIC:
        raise BadChunk("blosc2: there is no frame")
    (size,) = struct.unpack(">i", content[11:15])
    if not _FIXED_BYTES < size <= stored.size:
        raise BadChunk(f"blosc2: a header of {size} bytes is announced, {stored.size} are stored")
    try:
        header = msgpack.unpackb(stored[:size].tobytes(), raw=True, strict_map_key=False)
        _, metalayers, _ = header[-1]
        return header, size, metalayers.get(b"b2nd")
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise BadChunk(f"blosc2: its header cannot be read ({error})") from None


def _read_integer(header: Sequence[Any], position: int) -> int:
    value = header[position] if position < len(header) else None
    if not isinstance(value, int) or value < 0:
        raise BadChunk(f"blosc2: field {position} of its header is {value!r}")
    return value


def _read_shapes(stored: Bytes, place: int | None) -> tuple[list[int], list[int], list[int]]:
    """Return the shapes of the array, of its chunks and their blocks; empty when it is not cut."""
    if place is None:
        return [], [], []
    try:
        content = stored[place : place + 5].tobytes()
        (size,) = struct.unpack(">xI", content)
        _, _, shape, chunks, blocks, *_ = msgpack.unpackb(
            stored[place + 5 : place + 5 + size].tobytes(), raw=True
        )
        rows = list(zip(shape, chunks, blocks, strict=True))
        is_cut = all(0 < m <= n < 1 << 31 and 0 < of < 1 << 31 for of, n, m in rows)
        if 0 < len(rows) <= _MOST_DIMENSIONS and is_cut:
            return list(shape), list(chunks), list(blocks)
    except (ValueError, TypeError, struct.error) as error:
        raise BadChunk(f"blosc2: its shape cannot be read ({error})") from None
    raise BadChunk(f"blosc2: chunks of {chunks} in blocks of {blocks}")


def _decode_first_chunk(stored: Bytes, start: int, size: int, *, is_stored: bool) -> Bytes:
    if is_stored:
        return _decode_buffer(stored, start, size)
    index = _decode_buffer(stored, start, 8)
    if index.size != 8:
        raise BadChunk("blosc2: the frame has no chunk, nor a value instead")
    if index[7] not in {_ZEROS, _UNINITIALISED}:
        raise UnknownForm(f"blosc2: a value of kind {index[7]:#x} instead of its chunk")
    return np.zeros(size, np.uint8)


def _decode_buffer(stored: Bytes, start: int, size: int) -> Bytes:
    header = stored[start : start + _CHUNK_HEADER_BYTES]
    if header.size < _CHUNK_HEADER_BYTES:
        raise BadChunk("blosc2: the frame ends before its chunk")
    announced, _, compressed = struct.unpack("<III", header[4:].tobytes())
    if announced != size:
        raise BadChunk(f"blosc2: {announced} bytes are announced, {size} are expected")
    if compressed > stored.size - start:
        raise BadChunk(f"blosc2: a chunk of {compressed} bytes does not fit into what is stored")
    if header[2] & _IS_EXTENDED == _IS_EXTENDED:
        extension = stored[start : start + _EXTENDED_HEADER_BYTES][_CHUNK_HEADER_BYTES:]
        if extension.size < _CHUNK_HEADER_BYTES:
            raise BadChunk("blosc2: the frame ends in the header of its chunk")
        if extension[15] >> 4 & 7 == _NOTHING_STORED:
            # c-blosc2 would leave what lay in memory.
            return np.zeros(size, np.uint8)
        if header[2] >> 5 not in _KNOWN_CODECS or (extension[:6] > _LAST_KNOWN_FILTER).any():
            raise UnknownForm("blosc2: its codec or a filter is a plugin of c-blosc2")
    buffer = stored[start : start + compressed]
    decoded = call_codec("blosc2", imagecodecs.blosc2_decode, buffer, numthreads=1, out=size)
    Room(size).check("blosc2", decoded.size)
    return decoded


def _join_blocks(
    raw: Bytes, item: int, chunks: Sequence[int], blocks: Sequence[int], padded: Sequence[int]
) -> Bytes:
    """Return elements in C order of the chunk from those in C order of the blocks, no padding."""
    counts = [n // m for n, m in zip(padded, blocks, strict=True)]
    dimensions = range(len(blocks))
    order = [each for k in dimensions for each in (k, len(blocks) + k)]
    cut = raw.view(np.dtype((np.void, item))).reshape(*counts, *blocks)
    whole = cut.transpose(order).reshape(padded)[tuple(slice(n) for n in chunks)]
    return as_bytes(np.ascontiguousarray(whole).reshape(-1).view(np.uint8))


FILTERS = (
    FilterDecoder(32001, decode_blosc if has_codecs("BLOSC") else None, check_blosc),
    FilterDecoder(32026, decode_blosc2 if has_codecs("BLOSC2") else None),
)
