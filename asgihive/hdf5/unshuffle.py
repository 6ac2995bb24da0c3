"""Filter 2 undone by c-blosc, which does it in the vector units of the processor.

Several times as fast as copies by NumPy, and it gives a bytes object, which is sent without a
further copy.
"""

import struct
from collections.abc import Callable, Mapping

import numpy as np

from asgihive.hdf5 import decoders
from asgihive.hdf5.decoders import Bytes, Room

# A Blosc 1 buffer of one block (README_CHUNK_FORMAT of c-blosc): versions, flags, size of an
# element, sizes of the whole, of the block and of the buffer; where the block begins, and its
# length. A block that is as long as what it stands for is not compressed.
_HEAD = struct.Struct("<BBBBIIIII")
_SHUFFLED, _NOT_SPLIT = 0x01, 0x10

# Below, the call costs more than it saves; above, c-blosc's own buffers would be large.
_LEAST_BYTES, _MOST_BYTES = 1 << 12, 64 << 20


class Unshuffle:
    """A decoder like `decoders.shuffle`.

    Args:
        blosc_decode: a Blosc 1 buffer, and the size that it stands for.
        decode_into: decoders of other filters by number, which write stored bytes' content to
            where they are told, return what they wrote, and raise RuntimeError.
    """

    def __init__(
        self,
        blosc_decode: Callable[[Bytes, int], Bytes],
        decode_into: Mapping[int, Callable[[Bytes, Bytes], Bytes]],
    ) -> None:
        self._blosc_decode = blosc_decode
        self._decode_into = decode_into

    def __call__(self, stored: Bytes, values: tuple[int, ...], room: Room) -> Bytes:
        if not _suits(stored.size, values):
            return decoders.shuffle(stored, values, room)
        room.check("shuffle", stored.size)
        buffer = _buffer(stored.size, values[0])
        buffer[_HEAD.size :] = stored
        return self._blosc_decode(buffer, stored.size)

    def after(
        self, number: int, stored: Bytes, values: tuple[int, ...], room: Room
    ) -> Bytes | None:
        """What shuffle was given, and then the filter of that number: both undone, with no copy.

        None where only one after the other does it, or can say what is wrong.
        """
        decode = self._decode_into.get(number)
        if decode is None or not room.exact or not _suits(room.most, values):
            return None
        buffer = _buffer(room.most, values[0])
        try:
            written = decode(stored, buffer[_HEAD.size :])
        except RuntimeError:
            return None
        return self._blosc_decode(buffer, room.most) if written.size == room.most else None


def _suits(size: int, values: tuple[int, ...]) -> bool:
    return len(values) == 1 and 1 < values[0] < 256 and _LEAST_BYTES <= size <= _MOST_BYTES


def _buffer(size: int, item: int) -> Bytes:
    """One that stands for so many bytes, whose shuffled form belongs behind its head."""
    begin = _HEAD.size
    buffer = np.empty(begin + size, np.uint8)
    flags = _SHUFFLED | _NOT_SPLIT
    _HEAD.pack_into(buffer.data, 0, 2, 1, flags, item, size, size, begin + size, begin - 4, size)
    return buffer
