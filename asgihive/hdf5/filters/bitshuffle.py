"""Filters whose chunks are blocks with their sizes: LZ4 in HDF5's own framing, and bitshuffle."""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from asgihive.hdf5.buffers import Bytes
from asgihive.hdf5.filters.contract import (
    BadChunk,
    FilterDecoder,
    Room,
    Values,
    call_codec,
    has_codecs,
    imagecodecs,
)

# Decodes all blocks in one call; not there for each Python.
try:
    from bitshuffle import decompress_lz4
except ImportError:
    decompress_lz4 = None

# Compressions of bitshuffle, by its fifth value.
_WITH_LZ4, _WITH_ZSTD = 2, 3


@dataclass(frozen=True, slots=True)
class _StoredBlock:
    """Bytes of a stream from `start` to `stop`, which give `size` bytes."""

    start: int
    stop: int
    size: int
    plain: bool = False
    """Whether they are stored as they are."""


def _read_header(stored: Bytes, name: str, room: Room) -> tuple[int, int]:
    """Return the sizes of all and of a block, big-endian."""
    if stored.size < 12:
        raise BadChunk(f"{name}: {stored.size} bytes have no room for a header")
    size, block = struct.unpack(">QI", stored[:12].tobytes())
    room.check(name, size)
    if block == 0:
        raise BadChunk(f"{name}: blocks of 0 bytes are announced")
    return size, block


def _find_blocks(
    stored: Bytes, name: str, sizes: Iterator[int], rest: int = 0
) -> Iterator[_StoredBlock]:
    """Yield blocks with four bytes of compressed size before each, from position 12 on.

    One by one: a forged chunk may have many, of one byte each.

    Args:
        stored: the whole chunk.
        name: of the filter.
        sizes: of the blocks, decoded.
        rest: bytes that follow the last block as they are.
    """
    content = stored.data
    place = 12
    for size in sizes:
        if place + 4 > stored.size:
            raise BadChunk(f"{name}: the blocks end early")
        start = place + 4
        place = start + int.from_bytes(content[place:start], "big")
        if place > stored.size:
            message = f"{name}: a block of {place - start} bytes does not fit into what is stored"
            raise BadChunk(message)
        yield _StoredBlock(start, place, size)
    if place + rest > stored.size:
        raise BadChunk(f"{name}: the last elements are missing")
    if rest:
        yield _StoredBlock(place, place + rest, rest, plain=True)


def _find_lz4_blocks(stored: Bytes, room: Room) -> tuple[int, Iterator[_StoredBlock]]:
    """Return the size of all, and the blocks (H5Zlz4.c): what did not shrink is as it is."""
    size, block = _read_header(stored, "lz4", room)
    sizes = (min(block, size - start) for start in range(0, size, block))
    return size, (
        _StoredBlock(each.start, each.stop, each.size, plain=each.stop - each.start == each.size)
        for each in _find_blocks(stored, "lz4", sizes)
    )


def _find_bitshuffle_blocks(
    stored: Bytes, values: Values, room: Room
) -> tuple[int, int, Iterator[_StoredBlock]]:
    """Return the size of all, the elements of a block, and the blocks.

    Blocks are of whole eights of elements; the elements behind the last eight follow as they
    are (bitshuffle.c, bshuf_blocked_wrap_fun).
    """
    size, block = _read_header(stored, "bitshuffle", room)
    item = values[2]
    elements = block // item
    if size % item or elements == 0 or elements % 8:
        message = f"bitshuffle: blocks of {block} bytes, {size} in all, with items of {item} bytes"
        raise BadChunk(message)
    shuffled = size // item // 8 * 8
    sizes = (min(elements, shuffled - at) * item for at in range(0, shuffled, elements))
    rest = size - shuffled * item
    return size, elements, _find_blocks(stored, "bitshuffle", sizes, rest)


def _decode_blocks(
    name: str, stored: Bytes, size: int, blocks: Iterator[_StoredBlock], codec: Callable[..., Bytes]
) -> Bytes:
    decoded = np.empty(size, np.uint8)
    done = 0
    for each in blocks:
        source, target = stored[each.start : each.stop], decoded[done : done + each.size]
        if each.plain:
            target[:] = source
        else:
            made = call_codec(name, codec, source, out=target)
            Room(each.size).check(f"a block of {name}", len(made))
        done += each.size
    return decoded


def decode_lz4(stored: Bytes, _values: Values, room: Room) -> Bytes:
    """Decode filter 32004."""
    size, blocks = _find_lz4_blocks(stored, room)
    return _decode_blocks("lz4", stored, size, blocks, imagecodecs.lz4_decode)


def check_lz4(stored: Bytes, _values: Values, room: Room) -> None:
    """Check that all blocks lie in what is stored."""
    for _ in _find_lz4_blocks(stored, room)[1]:
        pass


def _parse_values(values: Values) -> tuple[int, int, int]:
    """Return the size of an element, the elements of a block, and the compression."""
    if len(values) < 3 or values[2] == 0:
        raise BadChunk(f"bitshuffle: its values are {values}, without the size of an element")
    block, compression = (*values[3:5], 0, 0)[:2]
    if compression not in {0, _WITH_LZ4, _WITH_ZSTD}:
        raise BadChunk(f"bitshuffle: compression {compression} is unknown")
    return values[2], block, compression


def decode_bitshuffle(stored: Bytes, values: Values, room: Room) -> Bytes:
    """Decode filter 32008: with LZ4, with zstd, or without (bshuf_h5filter.c)."""
    item, elements, compression = _parse_values(values)
    if compression:
        size, elements, blocks = _find_bitshuffle_blocks(stored, values, room)
        if compression == _WITH_LZ4 and decompress_lz4 is not None:
            # In one call, which trusts that the blocks lie inside `stored`.
            for _ in blocks:
                pass
            shape, dtype = (size // item,), np.dtype((np.void, item))
            arguments = (stored[12:], shape, dtype, elements)
            decoded = call_codec("bitshuffle", decompress_lz4, *arguments)
            Room(size).check("bitshuffle", decoded.size)
            return decoded
        is_lz4 = compression == _WITH_LZ4
        codec = imagecodecs.lz4_decode if is_lz4 else imagecodecs.zstd_decode
        stored = _decode_blocks("bitshuffle", stored, size, blocks, codec)
    room.check("bitshuffle", stored.size)
    if stored.size % item or elements % 8:
        message = f"bitshuffle: {stored.size} bytes in blocks of {elements} items of {item} bytes"
        raise BadChunk(message)
    # It takes the size of an element from the array, whatever kind of element that is.
    items = stored.view(np.dtype((np.void, item)))
    decoded = call_codec("bitshuffle", imagecodecs.bitshuffle_decode, items, blocksize=elements)
    room.check("bitshuffle", decoded.size)
    return decoded


def check_bitshuffle(stored: Bytes, values: Values, room: Room) -> None:
    """Check that all blocks lie in what is stored."""
    if _parse_values(values)[2]:
        for _ in _find_bitshuffle_blocks(stored, values, room)[2]:
            pass


FILTERS = (
    FilterDecoder(32004, decode_lz4 if has_codecs("LZ4") else None, check_lz4),
    FilterDecoder(
        32008,
        decode_bitshuffle if has_codecs("BITSHUFFLE", "LZ4", "ZSTD") else None,
        check_bitshuffle,
    ),
)
