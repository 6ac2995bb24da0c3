"""Where the chunks of a dataset lie in its file.

libhdf5 finds a single chunk fast only when it reads it, too (`read_direct_chunk`); all other
questions walk through all chunks. So few chunks of many are asked for one by one, and as soon
as that would take longer than to list all of them, they are listed and the list is kept.
"""

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from h5py import h5d

from asgihive.hdf5.decoders import Bytes, as_bytes
from asgihive.hdf5.open_file import libhdf5_reason

# More chunks than that are not listed: it would take more than seconds, and tens of megabytes.
MAX_LISTED = 1 << 20

# So few that listing them is nothing.
_FEW_CHUNKS = 2048

# How many chunks are listed in the time that one takes by itself.
_LISTED_PER_LOOKUP = 16

# What libhdf5 says of a chunk that is not there; other words only make it slower.
_NEVER_WRITTEN = "storage is not allocated"

# What a listed chunk takes in memory.
LISTED_BYTES = 28


class DamagedChunk(Exception):  # translated at once by those who know the entity
    """The chunk at `coordinates` (in chunks) is not what it should be."""

    def __init__(self, coordinates: tuple[int, ...], reason: str) -> None:
        super().__init__(coordinates, reason)
        self.coordinates = coordinates
        self.reason = reason

    def __str__(self) -> str:
        return f"chunk {self.coordinates} ({self.reason})"


@dataclass(frozen=True, slots=True)
class ChunkPlace:
    """A stored chunk: where it lies in the file, and the filters it did not go through."""

    offset: int
    size: int
    filter_mask: int


@dataclass(frozen=True, slots=True)
class ReadChunk:
    """A chunk as it is stored, and the filters it did not go through."""

    content: Bytes
    filter_mask: int


@dataclass(frozen=True, slots=True)
class ChunkTable:
    """All stored chunks, in the order of their numbers."""

    numbers: np.ndarray[Any, np.dtype[np.int64]]
    offsets: np.ndarray[Any, np.dtype[np.uint64]]
    sizes: np.ndarray[Any, np.dtype[np.uint64]]
    filter_masks: np.ndarray[Any, np.dtype[np.uint32]]

    def find(self, number: int) -> ChunkPlace | None:
        """Where the chunk lies; None when it was never written."""
        at = bisect.bisect_left(self.numbers, number)
        if at == len(self.numbers) or self.numbers[at] != number:
            return None
        return ChunkPlace(int(self.offsets[at]), int(self.sizes[at]), int(self.filter_masks[at]))


@dataclass(frozen=True, slots=True)
class FetchedChunks:
    """Some chunks, by number, of those that are not worth listing."""

    chunks: dict[int, ReadChunk | ChunkPlace]

    def find(self, number: int) -> ReadChunk | ChunkPlace | None:
        """The chunk, as it is stored; None when it was never written."""
        return self.chunks.get(number)


Places = ChunkTable | FetchedChunks


@dataclass(slots=True, eq=False)
class ChunkGrid:
    """The chunks of a dataset: how many there are along each axis, and how they are numbered."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    counts: tuple[int, ...] = field(init=False)
    strides: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        pairs = zip(self.shape, self.chunks, strict=True)
        self.counts = tuple(-(-extent // chunk) for extent, chunk in pairs)
        self.strides = tuple(math.prod(self.counts[axis + 1 :]) for axis in range(len(self.counts)))

    @property
    def size(self) -> int:
        """The number of chunks, stored or not."""
        return math.prod(self.counts)

    def number(self, coordinates: Sequence[int]) -> int:
        """The number of the chunk at `coordinates` (in chunks), in C order."""
        return sum(map(int.__mul__, coordinates, self.strides))

    def is_partial(self, coordinates: Sequence[int]) -> bool:
        """Whether the chunk reaches beyond the extent."""
        corners = zip(coordinates, self.chunks, self.shape, strict=True)
        return any((at + 1) * chunk > extent for at, chunk, extent in corners)


@dataclass(slots=True, eq=False)
class ChunkIndex:
    """Finds the chunks of one open dataset.

    keep: whether the table is kept; not of a live file, whose chunks come and go.
    table: None until it is worth listing.
    """

    id: h5d.DatasetID
    grid: ChunkGrid
    keep: bool
    table: ChunkTable | None = None
    _looked_up: int = 0
    _too_many: bool = False

    def locate(self, touched: Sequence[tuple[int, ...]], most: int) -> Places:
        """Where all chunks lie, or these at least. In the library lane.

        Args:
            touched: coordinates, in chunks.
            most: the bytes of a stored chunk that is read where it is found; of a larger one
                the place is told.

        Raises:
            DamagedChunk: libhdf5 cannot find one.
        """
        if self.table is not None:
            return self.table
        self._looked_up += len(touched)
        worth = max(_FEW_CHUNKS, self._looked_up * _LISTED_PER_LOOKUP)
        if not self._too_many and self.grid.size <= min(worth, MAX_LISTED):
            table = self._listed()
            if table is not None:
                if self.keep:
                    self.table = table
                return table
            self._too_many = True
        found = {self.grid.number(each): self._fetched(each, most) for each in touched}
        return FetchedChunks({n: chunk for n, chunk in found.items() if chunk is not None})

    @property
    def bytes(self) -> int:
        """What the table may take."""
        return LISTED_BYTES * self.grid.size if self.grid.size <= MAX_LISTED else 0

    def _fetched(self, coordinates: tuple[int, ...], most: int) -> ReadChunk | ChunkPlace | None:
        """The stored chunk; None when it was never written, its place when larger than `most`."""
        try:
            return self._found(coordinates, most)
        except (OSError, RuntimeError, ValueError, OverflowError, MemoryError) as error:
            raise DamagedChunk(coordinates, libhdf5_reason(error)) from error

    def _found(self, coordinates: tuple[int, ...], most: int) -> ReadChunk | ChunkPlace | None:
        corner = tuple(map(int.__mul__, coordinates, self.grid.chunks))
        buffer = np.empty(most, np.uint8)
        try:
            filter_mask, content = self.id.read_direct_chunk(corner, out=buffer)
        except (OSError, RuntimeError, ValueError) as error:
            if _NEVER_WRITTEN in str(error):
                return None
        else:
            return ReadChunk(as_bytes(content), filter_mask)
        # This walks through all chunks, but knows.
        info = self.id.get_chunk_info_by_coord(corner)
        if info.byte_offset is None:
            return None
        return ChunkPlace(info.byte_offset, info.size, info.filter_mask)

    def _listed(self) -> ChunkTable | None:
        """All stored chunks inside the extent; None when they are too many."""
        rows: list[tuple[int, int, int, int]] = []
        grid = self.grid

        def add(info: Any) -> bool | None:
            coordinates = tuple(map(int.__floordiv__, info.chunk_offset, grid.chunks))
            inside = all(map(int.__lt__, coordinates, grid.counts))
            if inside and info.byte_offset is not None:
                number = grid.number(coordinates)
                rows.append((number, info.byte_offset, info.size, info.filter_mask))
            return len(rows) > MAX_LISTED or None

        self.id.chunk_iter(add)
        if len(rows) > MAX_LISTED:
            return None
        rows.sort()
        numbers, offsets, sizes, masks = zip(*rows, strict=True) if rows else ((), (), (), ())
        return ChunkTable(
            np.array(numbers, np.int64),
            np.array(offsets, np.uint64),
            np.array(sizes, np.uint64),
            np.array(masks, np.uint32),
        )
