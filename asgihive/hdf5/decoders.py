"""Decoders of the filters that HDF5 has itself, and what all decoders share.

A decoder turns stored bytes into what one filter was given when the chunk was written, and
trusts nothing: it never makes more than its `Room`, and fails rather than make less. All of
them release the GIL for the work itself, and call nothing of libhdf5.
"""

import bz2
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from isal import igzip_lib, isal_zlib

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class BadChunk(Exception):  # translated at once by those who know the entity
    """Stored bytes that are not what they should be; the message says how."""


class UnknownForm(BadChunk):
    """A stream in a form of its filter that a decoder does not know, though others may."""


@dataclass(frozen=True, slots=True)
class Room:
    """How many bytes a decoder may make: `most`, and when `exact` not one less."""

    most: int
    exact: bool = True

    def check(self, name: str, size: int) -> None:
        """Raise BadChunk unless `size` bytes, made or announced by the filter, are right."""
        if size > self.most or (self.exact and size != self.most):
            expected = "" if self.exact else "at most "
            message = f"{name} gives {size} bytes, {expected}{self.most} are expected"
            raise BadChunk(message)

    def check_stream(self, name: str, size: int, *, ended: bool) -> None:
        """The same for a decoder that stopped at one byte too many, or at the end of its stream."""
        if size > self.most:
            raise BadChunk(f"{name} gives more than the {self.most} bytes expected")
        if not ended:
            raise BadChunk(f"{name}: the stream ends early")
        self.check(name, size)


Decoder = Callable[[Bytes, tuple[int, ...], Room], Bytes]


def as_bytes(decoded: bytes | bytearray | memoryview | Bytes) -> Bytes:
    """A view of whatever a codec returned."""
    return np.frombuffer(decoded, np.uint8)


def deflate(stored: Bytes, _values: tuple[int, ...], room: Room) -> Bytes:
    """Filter 1, a zlib stream (RFC 1950); what follows its end is ignored, as by libhdf5."""
    stream = isal_zlib.decompressobj()
    try:
        decoded = stream.decompress(stored, room.most + 1)
    except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stub says it is no class
        raise BadChunk(f"deflate: {error}") from None
    room.check_stream("deflate", len(decoded), ended=stream.eof)
    return as_bytes(decoded)


def bzip2(stored: Bytes, _values: tuple[int, ...], room: Room) -> Bytes:
    """Filter 307, a bzip2 stream."""
    stream = bz2.BZ2Decompressor()
    try:
        decoded = stream.decompress(stored.data, room.most + 1)
    except OSError as error:
        raise BadChunk(f"bzip2: {error}") from None
    room.check_stream("bzip2", len(decoded), ended=stream.eof)
    return as_bytes(decoded)


def shuffle(stored: Bytes, values: tuple[int, ...], room: Room) -> Bytes:
    """Filter 2: first bytes of all elements, then second bytes, …; a remainder as it is.

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


def fletcher32(stored: Bytes, _values: tuple[int, ...], room: Room) -> Bytes:
    """Filter 3: four bytes of checksum at the end.

    Also the sum that libhdf5 wrote before 1.6.3, bytes swapped within its halves, is right
    (H5Zfletcher32.c).
    """
    if stored.size < 4:
        raise BadChunk(f"fletcher32: {stored.size} bytes have no room for a checksum")
    data = stored[:-4]
    room.check("fletcher32", data.size)
    (written,) = struct.unpack("<I", stored[-4:].tobytes())
    computed = checksum(data)
    swapped = (computed & 0x00FF00FF) << 8 | (computed >> 8) & 0x00FF00FF
    if written not in (computed, swapped):
        raise BadChunk(f"fletcher32: the checksum is {computed:08x}, {written:08x} is stored")
    return data


# Sums of so many words times their weights are far from 2**64.
_ROW_WORDS = 1 << 15
_WEIGHTS = np.arange(_ROW_WORDS, 0, -1, dtype=np.uint64)


def checksum(data: Bytes) -> int:
    """H5_checksum_fletcher32 (H5checksum.c): big-endian words, sums modulo 65535.

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
    return _folded(second) << 16 | _folded(first)


def _folded(total: int) -> int:
    return total and (total % 65535 or 65535)
