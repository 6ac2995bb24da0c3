"""Stored chunks in a frame of Blosc, which all clients of Zarr decode; pure.

A Blosc frame has blocks, each of which was shuffled and then compressed by itself. Some filters of
HDF5 do the same, and differ in what stands before a block: a stream of deflate or zstd, behind a
shuffle or not, is a frame of one block, and what LZ4 and bitshuffle have made is one of many. So
a new head makes a frame of them; what is compressed stays as it is stored.

Sources: README_CHUNK_FORMAT.rst and blosc.c of c-blosc, bitshuffle.c and bshuf_h5filter.c of
bitshuffle, H5Zlz4.c.
"""

import struct
from dataclasses import dataclass
from enum import Enum

import numpy as np

from asgihive.hdf5.buffers import Bytes

SHUFFLES = ("noshuffle", "shuffle", "bitshuffle")
"""Of Blosc, by its numbers for them."""

MOST_ITEM_BYTES = 255
"""Of an element that Blosc shuffles."""

MOST_FRAME_BYTES = (1 << 31) - 1
"""Of a frame, whose sizes are signed integers of 32 bits."""

HEAD_BYTES = 16

_MOST_BLOCK_BYTES = (MOST_FRAME_BYTES - MOST_ITEM_BYTES * 4) // 3
_MOST_BLOCKS = 1 << 14  # whose sizes are read one by one: some milliseconds

_VERSION, _CODEC_VERSION, _COPIED, _IS_WHOLE = 2, 1, 0x02, 0x10
_SHUFFLE_FLAGS = {"noshuffle": 0, "shuffle": 0x01, "bitshuffle": 0x04}
_CODECS = {"lz4": 1, "zlib": 3, "zstd": 4}
_HEAD = struct.Struct("<BBBBIII")


class StoredForm(Enum):
    """What a chunk is, as it is stored."""

    STREAM = "stream"
    """One compressed stream."""

    BLOCKS = "blocks"
    """Compressed blocks, each behind its size, behind the sizes of all and of a block."""


@dataclass(frozen=True, slots=True)
class BloscFrame:
    """How a stored chunk becomes a frame."""

    form: StoredForm
    codec: str
    """That has compressed it, as Blosc calls it."""
    shuffle: str
    """One of `SHUFFLES`, before that."""
    item_bytes: int
    """Of an element that was shuffled."""

    def make_head(self, content: Bytes, chunk_bytes: int) -> bytes | None:
        """Return what makes a frame of a stream that follows it; None where nothing does.

        Args:
            content: the stored chunk.
            chunk_bytes: of the decoded one.
        """
        # A block that is as long as what it stands for is copied by decoders.
        if not 0 < content.size != chunk_bytes <= _MOST_BLOCK_BYTES or not self._is_stream(
            content, chunk_bytes
        ):
            return None
        begin = HEAD_BYTES + 4
        head = self._make_begin(chunk_bytes, chunk_bytes, begin + 4 + content.size)
        return None if head is None else head + struct.pack("<II", begin, content.size)

    def _is_stream(self, content: Bytes, chunk_bytes: int) -> bool:
        if self.codec == "zlib":
            return is_zlib_head(content[:2].tobytes())
        return find_zstd_size(content[:ZSTD_HEAD_BYTES].tobytes()) == chunk_bytes

    def make_frame(self, content: Bytes, chunk_bytes: int) -> bytes | None:
        """Return a frame of the stored blocks; None where there is none that would say the same.

        Args:
            content: the stored chunk.
            chunk_bytes: of the decoded one.
        """
        if content.size < _SIZES.size:
            return None
        size, block = _SIZES.unpack(content[: _SIZES.size].tobytes())
        block = min(block, size)
        if size != chunk_bytes or not 0 < block <= _MOST_BLOCK_BYTES:
            return None
        count = -(-size // block)
        if count > _MOST_BLOCKS or not self._is_cut_alike(size, block):
            return None
        places = self._find_blocks(content, size, block)
        if places is None:
            return None
        # Of the first block in the frame.
        begin = HEAD_BYTES + 4 * count
        head = self._make_begin(size, block, begin + content.size - _SIZES.size)
        if head is None:
            return None
        frame = np.empty(begin + content.size - _SIZES.size, np.uint8)
        frame[:HEAD_BYTES] = np.frombuffer(head, np.uint8)
        moved = np.array(places) + (begin - _SIZES.size)
        frame[HEAD_BYTES:begin] = moved.astype("<u4").view(np.uint8)
        frame[begin:] = content[_SIZES.size :]
        # Their sizes are big-endian where they are stored.
        at = moved[:, np.newaxis] + np.arange(4)
        frame[at] = frame[at[:, ::-1]]
        return frame.tobytes()

    def _is_cut_alike(self, size: int, block: int) -> bool:
        """Return whether Blosc shuffles the same elements in each block."""
        if self.shuffle == "bitshuffle":
            # Neither leaves a rest of fewer than eight elements as the other does.
            return size % (8 * self.item_bytes) == block % (8 * self.item_bytes) == 0
        return self.shuffle == "noshuffle" or size == block

    def _find_blocks(self, content: Bytes, size: int, block: int) -> list[int] | None:
        """Return where the size of each block stands; None where they are not as Blosc's."""
        view, place, places = content.data, _SIZES.size, []
        for start in range(0, size, block):
            if place + 4 > content.size:
                return None
            stored = int.from_bytes(view[place : place + 4], "big")
            # Those of LZ4 are copied as in Blosc, those of bitshuffle are compressed all the same.
            if not stored or (self.shuffle == "bitshuffle" and stored == min(block, size - start)):
                return None
            places.append(place)
            place += 4 + stored
        return places if place == content.size else None

    def _make_begin(self, size: int, block: int, frame_bytes: int) -> bytes | None:
        if frame_bytes > MOST_FRAME_BYTES:
            return None
        flags = _IS_WHOLE | _SHUFFLE_FLAGS[self.shuffle] | _CODECS[self.codec] << 5
        return _HEAD.pack(
            _VERSION, _CODEC_VERSION, flags, self.item_bytes, size, block, frame_bytes
        )


_SIZES = struct.Struct(">QI")


def copy_into_frame(content: bytes | memoryview, item_bytes: int) -> bytes:
    """Return a frame with a buffer as it is."""
    size = len(content)
    head = _HEAD.pack(_VERSION, _CODEC_VERSION, _COPIED, item_bytes, size, size, HEAD_BYTES + size)
    return head + bytes(content)


def is_zlib_head(head: bytes) -> bool:
    """Return whether two bytes begin a stream of deflate (RFC 1950, section 2.2)."""
    return len(head) == 2 and head[0] & 0x0F == 8 and int.from_bytes(head) % 31 == 0


ZSTD_HEAD_BYTES = 18
"""The most bytes before the first block of a frame of zstd."""

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_DICTIONARY_BYTES, _SIZE_BYTES = (0, 1, 2, 4), (0, 2, 4, 8)


def find_zstd_size(head: bytes) -> int | None:
    """Return the size of the content by the head of a zstd frame (RFC 8878, section 3.1.1.1).

    None where it does not say it, or needs a dictionary.
    """
    if len(head) < 6 or not head.startswith(_ZSTD_MAGIC):
        return None
    descriptor = head[4]
    is_single_segment = descriptor >> 5 & 1
    at = 5 + 1 - is_single_segment
    width = _SIZE_BYTES[descriptor >> 6] or is_single_segment
    if _DICTIONARY_BYTES[descriptor & 3] or not width or len(head) < at + width:
        return None
    return int.from_bytes(head[at : at + width], "little") + (256 if width == 2 else 0)
