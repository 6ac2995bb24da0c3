"""Chunks by their numbers: the grid that they are in, and the places of those that are stored."""

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from asgihive.hdf5.file_bytes import DamagedMetadata

Numbers = np.ndarray[Any, np.dtype[np.int64]]
Uints = np.ndarray[Any, np.dtype[np.uint64]]

# Called regularly; raises when the request is over.
GoOn = Callable[[], None]

# Numbers of chunks beyond that are no int64 any more, with room for sums of them.
_MAX_NUMBERED = 1 << 62

# An address that no file has, so that reading there says so.
_NOWHERE = np.uint64(1 << 61)


@dataclass(frozen=True, slots=True)
class ChunkPlace:
    """A stored chunk: where it lies in the file, and the filters it did not go through."""

    offset: int
    size: int
    filter_mask: int


@dataclass(frozen=True, slots=True)
class ChunkTable:
    """Stored chunks, in the order of their numbers."""

    numbers: Numbers
    offsets: Uints
    sizes: Uints
    filter_masks: np.ndarray[Any, np.dtype[np.uint32]]

    def find(self, number: int) -> ChunkPlace | None:
        """Where the chunk lies; None when it was never written."""
        at = bisect.bisect_left(self.numbers, number)
        if at == len(self.numbers) or self.numbers[at] != number:
            return None
        return ChunkPlace(int(self.offsets[at]), int(self.sizes[at]), int(self.filter_masks[at]))


@dataclass(frozen=True, slots=True)
class FoundChunks:
    """The places of some chunks, by number, of those that are not worth listing."""

    chunks: dict[int, ChunkPlace]

    def find(self, number: int) -> ChunkPlace | None:
        """Where the chunk lies; None when it was never written."""
        return self.chunks.get(number)


Places = ChunkTable | FoundChunks


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
        self.strides = strides_of(self.counts)

    @property
    def size(self) -> int:
        """The number of chunks, stored or not."""
        return math.prod(self.counts)

    @property
    def is_numbered(self) -> bool:
        """Whether NumPy can hold the numbers of all chunks."""
        return self.size < _MAX_NUMBERED

    def number(self, coordinates: Sequence[int]) -> int:
        """The number of the chunk at `coordinates` (in chunks), in C order."""
        return sum(map(int.__mul__, coordinates, self.strides))

    def is_partial(self, coordinates: Sequence[int]) -> bool:
        """Whether the chunk reaches beyond the extent."""
        corners = zip(coordinates, self.chunks, self.shape, strict=True)
        return any((at + 1) * chunk > extent for at, chunk, extent in corners)

    def coordinates_of(self, numbers: Numbers) -> list[Numbers]:
        """The coordinates (in chunks) of many chunks, one array an axis."""
        coordinates = []
        for stride in self.strides:
            along, numbers = np.divmod(numbers, max(stride, 1))
            coordinates.append(along)
        return coordinates

    def numbers_of(self, coordinates: Sequence[Uints]) -> tuple[Numbers, np.ndarray[Any, Any]]:
        """The numbers of many chunks, and which of them are inside the extent.

        Of one outside, the number is that of the first chunk behind it in C order, as if all
        coordinates in the order of the file were looked for.
        """
        numbers = np.zeros(coordinates[0].shape if coordinates else (1,), np.int64)
        outside = np.zeros(numbers.shape, bool)
        for along, count, stride in zip(coordinates, self.counts, self.strides, strict=True):
            # All further coordinates of one that is behind the extent are without meaning.
            within = np.where(outside, np.uint64(0), np.minimum(along, np.uint64(count)))
            outside |= along >= count
            numbers += within.astype(np.int64) * stride
        return numbers, ~outside


class StoredChunks(Protocol):
    """Where the chunks of one dataset lie, by an index in the file's bytes. For all threads."""

    @property
    def at_most(self) -> int:
        """How many chunks are stored at most."""

    def find(self, coordinates: tuple[int, ...], /) -> ChunkPlace | None:
        """Where the chunk at `coordinates` lies; None when it was never written.

        Raises:
            DamagedMetadata: what leads to it is damaged.
        """

    def gather(self, wanted: Numbers | None, most: int, go_on: GoOn, /) -> ChunkTable | None:
        """The stored chunks among `wanted`, whose numbers ascend; None = among all in the grid.

        Returns None when they are more than `most`.

        Raises:
            DamagedMetadata: some part of the index that had to be read is damaged.
            and whatever `go_on` raises, which is called regularly.
        """


class Rows:
    """Collects what indexes say of chunks, in any order.

    Args:
        grid: of the dataset.
        base: where addresses begin in the file.
        wanted: numbers, ascending; None = all in the grid.
        most: chunks.
    """

    def __init__(self, grid: ChunkGrid, base: int, wanted: Numbers | None, most: int) -> None:
        self._grid = grid
        self._base = np.uint64(base)
        self._wanted = wanted
        self._most = most
        self._parts: list[tuple[Numbers, Uints, Uints, Any]] = []
        self._count = 0

    @property
    def has_too_many(self) -> bool:
        """Whether they are more than what was asked for."""
        return self._count > self._most

    def add(self, coordinates: Sequence[Uints], addresses: Uints, sizes: Uints, masks: Any) -> None:
        """Note chunks by their coordinates, if they are wanted; all have addresses."""
        numbers, chosen = self._grid.numbers_of(coordinates)
        if self._wanted is not None and len(self._wanted):
            at = np.searchsorted(self._wanted, numbers)
            at[at == len(self._wanted)] = 0
            chosen &= self._wanted[at] == numbers
        if not chosen.all():
            numbers, addresses = numbers[chosen], addresses[chosen]
            sizes, masks = sizes[chosen], masks[chosen]
        if len(numbers):
            self._parts.append((numbers, addresses, sizes, masks))
            self._count += len(numbers)

    def table(self) -> ChunkTable:
        """All of them.

        Raises:
            DamagedMetadata: a chunk is there twice.
        """
        if not self._parts:
            no = np.empty(0, np.uint64)
            return ChunkTable(no.astype(np.int64), no, no, no.astype(np.uint32))
        columns = [np.concatenate(column) for column in zip(*self._parts, strict=True)]
        steps = np.diff(columns[0])
        if (steps <= 0).any():
            order = np.argsort(columns[0], kind="stable")
            columns = [column[order] for column in columns]
            if (np.diff(columns[0]) == 0).any():
                raise DamagedMetadata("its index has a chunk twice")
        numbers, addresses, sizes, masks = columns
        offsets = np.minimum(addresses, _NOWHERE) + self._base
        return ChunkTable(numbers, offsets, sizes, masks.astype(np.uint32))


def strides_of(counts: Sequence[int]) -> tuple[int, ...]:
    """How far apart neighbours along each axis are in C order."""
    return tuple(math.prod(counts[axis + 1 :]) for axis in range(len(counts)))
