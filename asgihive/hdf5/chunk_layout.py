"""What the layout message of a chunked dataset says: where the index of its chunks lies, and of
which kind that is (HDF5 File Format Specification 3.0, section IV.A.2.i).
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from asgihive.hdf5.file_bytes import FileBytes, NotPlain
from asgihive.hdf5.headers import read_messages

_LAYOUT = 0x08


class IndexKind(IntEnum):
    """How the chunks of a dataset are found, by the numbers of the layout message (IV.A.2.i)."""

    TREE_1 = 0
    SINGLE = 1
    IMPLICIT = 2
    FIXED_ARRAY = 3
    EXTENSIBLE_ARRAY = 4
    TREE_2 = 5


@dataclass(frozen=True, slots=True)
class ChunkLayout:
    """What the layout message of a chunked dataset says.

    Attributes:
        version: 3 to 5.
        chunks: shape of a chunk.
        item_bytes: of one element.
        kind: of the index.
        address: of the index, of the chunks themselves where there is none; None = not written.
        edges_unfiltered: whether chunks that reach beyond the extent went through no filter.
        single: size and filter mask of a single chunk that went through filters.
    """

    version: int
    chunks: tuple[int, ...]
    item_bytes: int
    kind: IndexKind
    address: int | None
    edges_unfiltered: bool = False
    single: tuple[int, int] | None = None


# Flags of chunked storage.
_EDGES_UNFILTERED, _SINGLE_FILTERED = 0x01, 0x02

# What the message says of how an index was made, which its own header says again.
_PARAMETER_BYTES = {
    IndexKind.SINGLE: 0,
    IndexKind.IMPLICIT: 0,
    IndexKind.FIXED_ARRAY: 1,
    IndexKind.EXTENSIBLE_ARRAY: 5,
    IndexKind.TREE_2: 6,
}


def read_chunk_layout(file: FileBytes, address: int) -> ChunkLayout:
    """How the chunks of the dataset are found whose header is at `address`.

    Raises:
        NotPlain: libhdf5 must look.
    """
    told = read_messages(file, address, frozenset((_LAYOUT,)))
    try:
        return _parse_chunk_layout(told.get(_LAYOUT, b""), file)
    except (IndexError, struct.error):
        raise NotPlain from None


def _parse_chunk_layout(message: bytes, file: FileBytes) -> ChunkLayout:
    """Section IV.A.2.i, versions 3 to 5; behind the shape of a chunk is the size of an element."""
    width = file.address_bytes
    version, storage = message[0], message[1]
    if storage != 2 or version not in {3, 4, 5}:
        raise NotPlain
    if version == 3:
        rank = message[2]
        dimensions = struct.unpack_from(f"<{rank}I", message, 3 + width)
        at, kind, flags, single = 3, IndexKind.TREE_1, 0, None
    else:
        flags, rank, size = message[2], message[3], message[4]
        at = 5 + rank * size
        if not 1 <= size <= 8 or flags & ~(_EDGES_UNFILTERED | _SINGLE_FILTERED):
            raise NotPlain
        ends = range(5 + size, at + 1, size)
        dimensions = tuple(int.from_bytes(message[end - size : end], "little") for end in ends)
        kind = IndexKind(message[at]) if 0 < message[at] <= max(IndexKind) else IndexKind.TREE_1
        if kind is IndexKind.TREE_1:  # never in these versions
            raise NotPlain
        single = None
        at += 1 + _PARAMETER_BYTES[kind]
        if kind is IndexKind.SINGLE and flags & _SINGLE_FILTERED:
            single = (
                file.length(message, at),
                *struct.unpack_from("<I", message, at + file.length_bytes),
            )
            at += file.length_bytes + 4
    if rank < 2 or not all(dimensions) or len(message) < at + width:
        raise NotPlain
    stored = file.address(message, at)
    return ChunkLayout(
        version=version,
        chunks=dimensions[:-1],
        item_bytes=dimensions[-1],
        kind=kind,
        address=None if stored == file.undefined else stored,
        edges_unfiltered=bool(flags & _EDGES_UNFILTERED),
        single=single,
    )
