"""Decoders of the filters that are found with the extra `codecs` (package imagecodecs).

Their formats announce sizes, and HDF5's own plugins believe them. Here each is checked against
what was stored and what is expected before anything is allocated. `CHECKS` do the same ahead
of filters that libhdf5 has to undo, see `asgihive.hdf5.library_filters`.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from asgihive.hdf5.blosc2 import blosc2_decoder
from asgihive.hdf5.decoders import BadChunk, Bytes, Decoder, Room, as_bytes, deflate
from asgihive.hdf5.unshuffle import Unshuffle

imagecodecs: Any
try:
    import imagecodecs
except ImportError:
    imagecodecs = None

# Decodes all blocks in one call; not there for each Python.
try:
    from bitshuffle import decompress_lz4
except ImportError:
    decompress_lz4 = None

_DEFLATE, _SHUFFLE, _SZIP, _NBIT, _SCALE_OFFSET = 1, 2, 4, 5, 6
_LZF, _BLOSC, _LZ4, _BITSHUFFLE, _ZSTD, _BLOSC2 = 32000, 32001, 32004, 32008, 32015, 32026

# Of bitshuffle, by its fifth value.
_BITSHUFFLE_LZ4, _BITSHUFFLE_ZSTD = 2, 3


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of a stream: from `start` to `stop`, giving `size` bytes; `plain` as it is."""

    start: int
    stop: int
    size: int
    plain: bool = False


def _decoded(name: str, codec: Callable[[], bytes | Bytes]) -> Bytes:
    """What a codec of imagecodecs returns; its errors are RuntimeErrors."""
    try:
        return as_bytes(codec())
    except (RuntimeError, ValueError) as error:
        raise BadChunk(f"{name}: {error}") from None


def _deflate(stored: Bytes, values: tuple[int, ...], room: Room) -> Bytes:
    """A zlib stream by libdeflate, which is faster than ISA-L, and says less of what is wrong."""
    try:
        decoded = as_bytes(imagecodecs.deflate_decode(stored, out=room.most))
    except RuntimeError:
        return deflate(stored, values, room)
    room.check("deflate", decoded.size)
    return decoded


def _lzf(stored: Bytes, _values: tuple[int, ...], room: Room) -> Bytes:
    decoded = _decoded("lzf", lambda: imagecodecs.lzf_decode(stored, out=room.most))
    room.check("lzf", decoded.size)
    return decoded


def _zstd(stored: Bytes, _values: tuple[int, ...], room: Room) -> Bytes:
    decoded = _decoded("zstd", lambda: imagecodecs.zstd_decode(stored, out=room.most))
    room.check("zstd", decoded.size)
    return decoded


def _blosc_size(stored: Bytes, room: Room) -> int:
    """The size that the header of a Blosc 1 buffer announces (README_CHUNK_FORMAT)."""
    if stored.size < 16:
        raise BadChunk(f"blosc: {stored.size} bytes have no room for a header")
    size, _, compressed = struct.unpack("<III", stored[4:16].tobytes())
    if compressed > stored.size:
        raise BadChunk(f"blosc: {compressed} bytes are announced, {stored.size} are stored")
    room.check("blosc", size)
    return int(size)


def _blosc(stored: Bytes, _values: tuple[int, ...], room: Room) -> Bytes:
    decoded = _blosc_buffer(stored, _blosc_size(stored, room))
    room.check("blosc", decoded.size)
    return decoded


def _blosc_buffer(stored: Bytes, size: int) -> Bytes:
    decode = imagecodecs.blosc_decode
    return _decoded("blosc", lambda: decode(stored, numthreads=1, out=size))


def _blosc2_buffer(stored: Bytes, size: int) -> Bytes:
    decode = imagecodecs.blosc2_decode
    return _decoded("blosc2", lambda: decode(stored, numthreads=1, out=size))


UNSHUFFLE = Unshuffle(
    _blosc_buffer,
    {
        _DEFLATE: lambda stored, out: imagecodecs.deflate_decode(stored, out=out),
        _ZSTD: lambda stored, out: imagecodecs.zstd_decode(stored, out=out),
    },
)


def _szip_size(stored: Bytes, room: Room) -> int:
    if stored.size < 4:
        raise BadChunk(f"szip: {stored.size} bytes have no room for a header")
    (size,) = struct.unpack("<I", stored[:4].tobytes())
    room.check("szip", size)
    return int(size)


def _szip(stored: Bytes, values: tuple[int, ...], room: Room) -> Bytes:
    """Four bytes of size and a stream of szip (H5Zszip.c)."""
    size = _szip_size(stored, room)
    if len(values) != 4:
        raise BadChunk(f"szip: it has {len(values)} values, not 4")
    _, block, _, scanline = values
    if not block or not scanline:
        raise BadChunk(f"szip: blocks of {block} pixels, scanlines of {scanline}")
    if scanline % block:
        return _szip_padded(stored, values, size)
    # Zeros, since of the last pixel perhaps a part is not written.
    buffer = np.zeros(size, np.uint8)
    decode = imagecodecs.szip_decode
    decoded = _decoded("szip", lambda: decode(stored[4:], *values, out=buffer))
    Room(size).check("szip", decoded.size)
    return decoded


def _szip_padded(stored: Bytes, values: tuple[int, ...], size: int) -> Bytes:
    """A stream whose scanlines do not end with a block, and so are padded.

    libaec takes the padding away itself, but looks nowhere whether the stream had all of the rest
    (sz_compat.c). So it decodes as if the padding belonged to the scanlines, and says how much
    there was; of pixels of 4 and 8 bytes it is given the bytes one by one, as they are coded.
    """
    mask, block, bits, scanline = values
    planes = bits // 8 if bits in {32, 64} else 1
    pixel_bits = 8 if planes > 1 else bits
    pixel = 1 if pixel_bits <= 8 else 2 if pixel_bits <= 16 else 4
    line = scanline * pixel
    padded_line = -(-scanline // block) * block * pixel
    lines = -(-size // line)
    if padded_line > 2 * line + _SZIP_SLACK_BYTES:
        raise BadChunk(f"szip: scanlines of {scanline} pixels in blocks of {block}")
    buffer = np.zeros(lines * padded_line, np.uint8)
    pixels = padded_line // pixel
    if pixels > _SZIP_MOST_PIXELS:
        raise BadChunk(f"szip: scanlines of {scanline} pixels are too long")
    arguments = (mask, block, pixel_bits, pixels)
    decode = imagecodecs.szip_decode
    # Without the header, whose size it would say instead of what there was.
    decoded = _decoded("szip", lambda: decode(stored[4:], *arguments, out=buffer))
    last_line, last = divmod(size - 1, line)
    if decoded.size <= last_line * padded_line + last:
        raise BadChunk("szip: the stream ends early")
    raw = buffer.reshape(lines, padded_line)[:, :line].reshape(-1)[:size]
    if planes == 1:
        return raw
    # A remainder that is no whole pixel has no planes.
    items = np.zeros(size, np.uint8)
    count = size // planes
    whole = raw[: count * planes].reshape(planes, count).T
    items[: count * planes].reshape(count, planes)[...] = whole
    return items


# Of libaec and of szip themselves (szlib.h): the pixels of a scanline.
_SZIP_MOST_PIXELS = 4096

# Blocks that are longer than the scanlines are sound, where they are little.
_SZIP_SLACK_BYTES = 1 << 8


def _block_header(stored: Bytes, name: str, room: Room) -> tuple[int, int]:
    """Size of all and of a block, big-endian, of the LZ4 and bitshuffle filters."""
    if stored.size < 12:
        raise BadChunk(f"{name}: {stored.size} bytes have no room for a header")
    size, block = struct.unpack(">QI", stored[:12].tobytes())
    room.check(name, size)
    if block == 0:
        raise BadChunk(f"{name}: blocks of 0 bytes are announced")
    return size, block


def _blocks(stored: Bytes, name: str, sizes: Iterator[int]) -> Iterator[_Part]:
    """Blocks with four bytes of compressed size before each, from position 12 on."""
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
        yield _Part(start, place, size)


def _lz4_parts(stored: Bytes, room: Room) -> tuple[int, Iterator[_Part]]:
    """HDF5's own framing of LZ4 (H5Zlz4.c): what did not shrink is stored as it is."""
    size, block = _block_header(stored, "lz4", room)
    sizes = (min(block, size - start) for start in range(0, size, block))
    parts = _blocks(stored, "lz4", sizes)
    return size, (
        _Part(each.start, each.stop, each.size, plain=each.stop - each.start == each.size)
        for each in parts
    )


def _bitshuffle_parts(
    stored: Bytes, values: tuple[int, ...], room: Room
) -> tuple[int, int, Iterator[_Part]]:
    """Size of all, elements of a block, and parts of bitshuffle's compressed format.

    Blocks are of whole eights of elements; the elements behind the last eight follow as they
    are (bitshuffle.c, bshuf_blocked_wrap_fun).
    """
    size, block = _block_header(stored, "bitshuffle", room)
    item = values[2]
    elements = block // item
    if size % item or elements == 0 or elements % 8:
        message = f"bitshuffle: blocks of {block} bytes, {size} in all, with items of {item} bytes"
        raise BadChunk(message)
    shuffled = size // item // 8 * 8
    sizes = (min(elements, shuffled - at) * item for at in range(0, shuffled, elements))
    return size, elements, _with_rest(stored, sizes, size - shuffled * item)


def _with_rest(stored: Bytes, sizes: Iterator[int], rest: int) -> Iterator[_Part]:
    stop = 12
    for part in _blocks(stored, "bitshuffle", sizes):
        stop = part.stop
        yield part
    if stop + rest > stored.size:
        raise BadChunk("bitshuffle: the last elements are missing")
    if rest:
        yield _Part(stop, stop + rest, rest, plain=True)


def _joined(
    name: str, stored: Bytes, size: int, parts: Iterator[_Part], codec: Callable[..., Bytes]
) -> Bytes:
    decoded = np.empty(size, np.uint8)
    done = 0
    for part in parts:
        source, target = stored[part.start : part.stop], decoded[done : done + part.size]
        if part.plain:
            target[:] = source
        else:
            try:
                made = codec(source, out=target)
            except (RuntimeError, ValueError) as error:
                raise BadChunk(f"{name}: {error}") from None
            Room(part.size).check(f"a block of {name}", len(made))
        done += part.size
    return decoded


def _lz4(stored: Bytes, _values: tuple[int, ...], room: Room) -> Bytes:
    size, parts = _lz4_parts(stored, room)
    return _joined("lz4", stored, size, parts, imagecodecs.lz4_decode)


def _bitshuffle_values(values: tuple[int, ...]) -> tuple[int, int, int]:
    """Size of an element, elements of a block, and compression, from the filter's values."""
    if len(values) < 3 or values[2] == 0:
        raise BadChunk(f"bitshuffle: its values are {values}, without the size of an element")
    block, compression = (*values[3:5], 0, 0)[:2]
    if compression not in {0, _BITSHUFFLE_LZ4, _BITSHUFFLE_ZSTD}:
        raise BadChunk(f"bitshuffle: compression {compression} is unknown")
    return values[2], block, compression


def _bitshuffle(stored: Bytes, values: tuple[int, ...], room: Room) -> Bytes:
    """Bitshuffle with LZ4, with zstd, or without (bshuf_h5filter.c)."""
    item, elements, compression = _bitshuffle_values(values)
    if compression:
        size, elements, parts = _bitshuffle_parts(stored, values, room)
        lz4 = compression == _BITSHUFFLE_LZ4
        if lz4 and decompress_lz4 is not None:
            return _bitshuffle_lz4(stored, size, item, elements, parts)
        codec = imagecodecs.lz4_decode if lz4 else imagecodecs.zstd_decode
        stored = _joined("bitshuffle", stored, size, parts, codec)
    room.check("bitshuffle", stored.size)
    if stored.size % item or elements % 8:
        message = f"bitshuffle: {stored.size} bytes in blocks of {elements} items of {item} bytes"
        raise BadChunk(message)
    decode = imagecodecs.bitshuffle_decode
    # It takes the size of an element from the array, whatever kind of element that is.
    items = stored.view(np.dtype((np.void, item)))
    decoded = _decoded("bitshuffle", lambda: decode(items, blocksize=elements))
    room.check("bitshuffle", decoded.size)
    return decoded


def _bitshuffle_lz4(
    stored: Bytes, size: int, item: int, elements: int, parts: Iterator[_Part]
) -> Bytes:
    """In one call, which trusts that the blocks lie inside `stored`: they are looked at first."""
    for _ in parts:
        pass
    shape, dtype = (size // item,), np.dtype((np.void, item))
    coded = stored[12:]
    items = _decoded("bitshuffle", lambda: decompress_lz4(coded, shape, dtype, elements))
    Room(size).check("bitshuffle", items.size)
    return items


def _check_lz4(stored: Bytes, _values: tuple[int, ...], room: Room) -> None:
    for _ in _lz4_parts(stored, room)[1]:
        pass


def _check_bitshuffle(stored: Bytes, values: tuple[int, ...], room: Room) -> None:
    if _bitshuffle_values(values)[2]:
        for _ in _bitshuffle_parts(stored, values, room)[2]:
            pass


def _check_blosc(stored: Bytes, _values: tuple[int, ...], room: Room) -> None:
    _blosc_size(stored, room)


def _check_szip(stored: Bytes, _values: tuple[int, ...], room: Room) -> None:
    _szip_size(stored, room)


def _check_scale_offset(stored: Bytes, values: tuple[int, ...], room: Room) -> None:
    """The header, then `minbits` for each element (H5Zscaleoffset.c); values 2, 4: how many, size.

    libhdf5 reads as many bits as that is, whatever is stored.
    """
    if len(values) < 5 or stored.size < _SCALE_OFFSET_HEADER:
        raise BadChunk(f"scaleoffset: {len(values)} values, and {stored.size} bytes are stored")
    count, item = values[2], values[4]
    room.check("scaleoffset", count * item)
    (bits,) = struct.unpack("<I", stored[:4].tobytes())
    if bits > item * 8:
        raise BadChunk(f"scaleoffset: {bits} bits are announced for items of {item} bytes")
    needed = _SCALE_OFFSET_HEADER + -(-count * bits // 8)
    if stored.size < needed:
        raise BadChunk(f"scaleoffset: {stored.size} bytes are stored, {needed} are needed")


# The bits, the length of the minimum, sixteen bytes for it (H5Zscaleoffset.c, buf_offset).
_SCALE_OFFSET_HEADER = 21


def _check_nbit(stored: Bytes, values: tuple[int, ...], room: Room) -> None:
    """As many bits as the type has, for each element (H5Znbit.c)."""
    if len(values) < 5 or values[0] != len(values):
        raise BadChunk(f"nbit: it has {len(values)} values, and does not say so")
    _, uncompressed, count = values[:3]
    if uncompressed:
        room.check("nbit", stored.size)
        return
    room.check("nbit", count * values[4])
    bits, _ = _nbit_bits(values, 3, values[4], 0)
    needed = -(-count * bits // 8)
    if stored.size < needed:
        raise BadChunk(f"nbit: {stored.size} bytes are stored, {needed} are needed")


_NBIT_ATOMIC, _NBIT_ARRAY, _NBIT_COMPOUND, _NBIT_AS_IT_IS = 1, 2, 3, 4
_NBIT_NESTING = 32


def _nbit_bits(values: tuple[int, ...], at: int, room: int, depth: int) -> tuple[int, int]:
    """The bits of the type described from `at` on, and where its description ends.

    Its parts must fit into `room` bytes: libhdf5 writes them where the values say.
    """
    kind, size = (*values[at : at + 2], 0, 0)[:2]
    rest = values[at + 2 :]
    if not 0 < size <= room or depth > _NBIT_NESTING:
        raise BadChunk(f"nbit: its values describe {size} bytes where there are {room}")
    if kind == _NBIT_AS_IT_IS:
        return size * 8, at + 2
    if kind == _NBIT_ATOMIC and len(rest) >= 3:
        _, precision, offset = rest[:3]
        if precision and precision + offset <= size * 8:
            return precision, at + 5
    if kind == _NBIT_ARRAY and len(rest) >= 2:
        bits, end = _nbit_bits(values, at + 2, size, depth + 1)
        return size // rest[1] * bits, end
    if kind == _NBIT_COMPOUND and rest:
        total, end = 0, at + 3
        for _ in range(rest[0]):
            offset = values[end] if end < len(values) else size
            bits, end = _nbit_bits(values, end + 1, size - offset, depth + 1)
            total += bits
        return total, end
    raise BadChunk("nbit: its values describe no type")


Check = Callable[[Bytes, tuple[int, ...], Room], None]

CHECKS: dict[int, Check] = {
    _SZIP: _check_szip,
    _NBIT: _check_nbit,
    _SCALE_OFFSET: _check_scale_offset,
    _BLOSC: _check_blosc,
    _LZ4: _check_lz4,
    _BITSHUFFLE: _check_bitshuffle,
}


def installed() -> dict[int, Decoder]:
    """The decoders that there are here, by the filter's number."""
    if imagecodecs is None:
        return {}
    # By number: its own name, and the codecs that must have been built into imagecodecs.
    table: dict[int, tuple[Decoder, tuple[str, ...]]] = {
        _DEFLATE: (_deflate, ("DEFLATE",)),
        _SHUFFLE: (UNSHUFFLE, ("BLOSC", "DEFLATE", "ZSTD")),
        _SZIP: (_szip, ("SZIP",)),
        _LZF: (_lzf, ("LZF",)),
        _BLOSC: (_blosc, ("BLOSC",)),
        _BLOSC2: (blosc2_decoder(_blosc2_buffer), ("BLOSC2",)),
        _LZ4: (_lz4, ("LZ4",)),
        _BITSHUFFLE: (_bitshuffle, ("BITSHUFFLE", "LZ4", "ZSTD")),
        _ZSTD: (_zstd, ("ZSTD",)),
    }
    return {
        number: decoder
        for number, (decoder, codecs) in table.items()
        if all(getattr(imagecodecs, codec).available for codec in codecs)
    }
