"""The filters that HDF5 itself brings and most files use: deflate, shuffle, fletcher32.

Deflate and shuffle have two decoders each. Those that need no extra package are always there;
libdeflate and c-blosc, which come with imagecodecs, are faster.
"""

import struct

import numpy as np
from isal import igzip_lib, isal_zlib

from asgihive.hdf5.buffers import Bytes
from asgihive.hdf5.filters.contract import (
    BadChunk,
    FilterDecoder,
    Room,
    Values,
    as_bytes,
    call_codec,
    has_codecs,
    imagecodecs,
)

DEFLATE, SHUFFLE, FLETCHER32, _ZSTD = 1, 2, 3, 32015


def decode_deflate_by_isal(stored: Bytes, _values: Values, room: Room) -> Bytes:
    """Decode a zlib stream (RFC 1950); what follows its end is ignored, as by libhdf5."""
    stream = isal_zlib.decompressobj()
    try:
        decoded = stream.decompress(stored, room.most + 1)
    except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stub says it is no class
        raise BadChunk(f"deflate: {error}") from None
    room.check_stream("deflate", len(decoded), ended=stream.eof)
    return as_bytes(decoded)


def decode_deflate(stored: Bytes, values: Values, room: Room) -> Bytes:
    """Decode by libdeflate, which is faster than ISA-L, and says less about what is wrong."""
    try:
        decoded = as_bytes(imagecodecs.deflate_decode(stored, out=room.most))
    except RuntimeError:
        return decode_deflate_by_isal(stored, values, room)
    room.check("deflate", decoded.size)
    return decoded


def unshuffle_by_numpy(stored: Bytes, values: Values, room: Room) -> Bytes:
    """Undo filter 2: first bytes of all elements, then second bytes, …; a remainder as it is.

    The size of an element is its one value (H5Zshuffle.c).
    """
    room.check("shuffle", stored.size)
    if len(values) != 1 or values[0] == 0:
        raise BadChunk(f"shuffle: its values are {values}, not the size of an element")
    item = values[0]
    count = stored.size // item
    if item == 1 or count <= 1:
        return stored
    planes = stored[: count * item].reshape(item, count)
    if item == 2 and stored.size % 2 == 0:
        # Whole elements at a time: more than twice as fast as byte by byte.
        pairs = planes[1].astype("<u2")
        pairs <<= np.uint16(8)
        pairs |= planes[0]
        return as_bytes(pairs)
    decoded = np.empty(stored.size, np.uint8)
    elements = decoded[: count * item].reshape(count, item)
    # Many short copies take longest.
    if item <= count:
        for position in range(item):
            elements[:, position] = planes[position]
    else:
        for position in range(count):
            elements[position] = planes[:, position]
    decoded[count * item :] = stored[count * item :]
    return decoded


# c-blosc undoes the shuffle in the vector units of the processor, several times as fast as copies
# by NumPy, and gives a bytes object, which is sent without a further copy. It is given a buffer of
# one block that is not compressed (README_CHUNK_FORMAT of c-blosc): versions, flags, size of an
# element, sizes of the whole, of the block and of the buffer; where the block begins, and its
# length. A block that is as long as what it stands for is not compressed.
_BLOSC_HEAD = struct.Struct("<BBBBIIIII")
_SHUFFLED, _NOT_SPLIT = 0x01, 0x10

# Below, the call costs more than it saves; above, c-blosc's own buffers would be large.
_LEAST_BYTES, _MOST_BYTES = 1 << 12, 64 << 20


def _make_blosc_buffer(size: int, values: Values) -> Bytes | None:
    """Return one whose block of `size` bytes is to be filled; None where NumPy does better."""
    if len(values) != 1 or not 1 < values[0] < 256 or not _LEAST_BYTES <= size <= _MOST_BYTES:
        return None
    begin, flags = _BLOSC_HEAD.size, _SHUFFLED | _NOT_SPLIT
    buffer = np.empty(begin + size, np.uint8)
    sizes = (size, size, begin + size, begin - 4, size)
    _BLOSC_HEAD.pack_into(buffer.data, 0, 2, 1, flags, values[0], *sizes)
    return buffer


def unshuffle(stored: Bytes, values: Values, room: Room) -> Bytes:
    """Undo filter 2 by c-blosc."""
    buffer = _make_blosc_buffer(stored.size, values)
    if buffer is None:
        return unshuffle_by_numpy(stored, values, room)
    room.check("shuffle", stored.size)
    buffer[_BLOSC_HEAD.size :] = stored
    decode = imagecodecs.blosc_decode
    return call_codec("shuffle", decode, buffer, numthreads=1, out=stored.size)


def decode_and_unshuffle(number: int, stored: Bytes, values: Values, room: Room) -> Bytes | None:
    """Undo the filter of that number and the shuffle before it, with no copy in between.

    Args:
        number: of the last filter; `stored` went through it.
        stored: the bytes.
        values: of the shuffle.
        room: for both.

    Returns:
        None where only one after the other does it, or can say what is wrong.
    """
    if number not in _DECODERS_INTO or not room.exact:
        return None
    buffer = _make_blosc_buffer(room.most, values)
    if buffer is None:
        return None
    try:
        written = _DECODERS_INTO[number](stored, out=buffer[_BLOSC_HEAD.size :])
    except RuntimeError:
        return None
    if written.size != room.most:
        return None
    decode = imagecodecs.blosc_decode
    return call_codec("shuffle", decode, buffer, numthreads=1, out=room.most)


_HAS_CODECS = has_codecs("BLOSC", "DEFLATE", "ZSTD")

# What writes decoded bytes where it is told to, and returns what it wrote.
_DECODERS_INTO = (
    {DEFLATE: imagecodecs.deflate_decode, _ZSTD: imagecodecs.zstd_decode} if _HAS_CODECS else {}
)


def decode_fletcher32(stored: Bytes, _values: Values, room: Room) -> Bytes:
    """Check and take off the four bytes of filter 3 at the end.

    Also the sum that libhdf5 wrote before 1.6.3, bytes swapped within its halves, is right
    (H5Zfletcher32.c).
    """
    if stored.size < 4:
        raise BadChunk(f"fletcher32: {stored.size} bytes have no room for a checksum")
    data = stored[:-4]
    room.check("fletcher32", data.size)
    (written,) = struct.unpack("<I", stored[-4:].tobytes())
    computed = compute_fletcher32(data)
    swapped = (computed & 0x00FF00FF) << 8 | (computed >> 8) & 0x00FF00FF
    if written not in (computed, swapped):
        raise BadChunk(f"fletcher32: the checksum is {computed:08x}, {written:08x} is stored")
    return data


# Sums of so many words times their weights are far from 2**64.
_ROW_WORDS = 1 << 15
_WEIGHTS = np.arange(_ROW_WORDS, 0, -1, dtype=np.uint64)


def compute_fletcher32(data: Bytes) -> int:
    """Return H5_checksum_fletcher32 (H5checksum.c): big-endian words, sums modulo 65535.

    libhdf5 folds carries, so that a sum of anything but zeros is never 0 but 65535.
    """
    if data.size % 2:
        data = np.append(data, np.uint8(0))
    words = data.view(">u2")
    first = second = 0
    for start in range(0, words.size, _ROW_WORDS):
        row = words[start : start + _ROW_WORDS].astype(np.uint64)
        second += first * row.size + int(np.dot(row, _WEIGHTS[-row.size :]))
        first += int(row.sum())
    first, second = (total and (total % 65535 or 65535) for total in (first, second))
    return second << 16 | first


FILTERS = (
    FilterDecoder(DEFLATE, decode_deflate if has_codecs("DEFLATE") else decode_deflate_by_isal),
    FilterDecoder(SHUFFLE, unshuffle if _HAS_CODECS else unshuffle_by_numpy),
    FilterDecoder(FLETCHER32, decode_fletcher32),
)
