"""The grid of a dataset's chunks: their numbers, their places, and what a selection takes of them.

Pure. A chunk's coordinates count chunks, not elements; its number is its position in C order.
"""

import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from asgihive.hdf5.file_bytes import DamagedMetadata, FileBytes, uints_of
from asgihive.hdf5.plan import Axis

Numbers = np.ndarray[Any, np.dtype[np.int64]]
Uints = np.ndarray[Any, np.dtype[np.uint64]]
Flags = np.ndarray[Any, np.dtype[np.bool]]
Coordinates = tuple[int, ...]

GoOn = Callable[[], None]
"""Called regularly by what takes long; raises when the request is over."""

# Numbers of chunks beyond that are no int64 any more, with room for sums of them.
_MAX_NUMBERED = 1 << 62

# An address that no file has, so that reading there fails. It stands for all larger ones.
_NOWHERE = 1 << 61

# So many chunks at a time are turned from rows of a table into objects.
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class ChunkPlace:
    """Where a raw chunk lies in the file."""

    offset: int
    size: int
    filter_mask: int
    """A bit for each filter that it did not go through."""


def place_chunk(base: int, address: int, size: int, filter_mask: int) -> ChunkPlace:
    """Return the place of a chunk whose address counts from `base`."""
    return ChunkPlace(base + min(address, _NOWHERE), size, filter_mask)


@dataclass(frozen=True, slots=True)
class ChunkTable:
    """The places of stored chunks, in the order of their numbers."""

    numbers: Numbers
    offsets: Uints
    sizes: Uints
    filter_masks: np.ndarray[Any, np.dtype[np.uint32]]

    def get(self, number: int) -> ChunkPlace | None:
        """Return where the chunk lies; None when it was never written."""
        at = bisect.bisect_left(self.numbers, number)
        if at == len(self.numbers) or self.numbers[at] != number:
            return None
        return ChunkPlace(int(self.offsets[at]), int(self.sizes[at]), int(self.filter_masks[at]))


Places = ChunkTable | dict[int, ChunkPlace]
"""Where chunks lie, by number: all of them, or some that are not worth listing."""


class StoredChunks(Protocol):
    """The index of one dataset's chunks in the file's bytes. For all threads."""

    @property
    def at_most(self) -> int:
        """How many chunks are stored at most."""

    def find(self, coordinates: Coordinates, /) -> ChunkPlace | None:
        """Return where the chunk at `coordinates` lies; None when it was never written.

        Raises:
            DamagedMetadata: what leads to it is damaged.
        """

    def gather(self, wanted: Numbers | None, most: int, go_on: GoOn, /) -> ChunkTable | None:
        """Return the stored chunks among `wanted`, whose numbers ascend; None = all in the grid.

        Returns None when they are more than `most`.

        Raises:
            DamagedMetadata: some part of the index that had to be read is damaged.
            and whatever `go_on` raises, which is called regularly.
        """


@dataclass(slots=True, eq=False)
class ChunkGrid:
    """The chunks of a dataset, stored or not."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    """The shape of a chunk, in elements."""

    counts: tuple[int, ...] = field(init=False)
    """How many chunks there are along each axis."""

    strides: tuple[int, ...] = field(init=False)
    size: int = field(init=False)
    """The number of chunks."""

    is_numbered: bool = field(init=False)
    """Whether NumPy can hold the numbers of all chunks."""

    def __post_init__(self) -> None:
        counts, strides, size = [], [], 1
        for extent, chunk in zip(reversed(self.shape), reversed(self.chunks), strict=True):
            strides.append(size)
            counts.append(-(-extent // chunk))
            size *= counts[-1]
        self.counts, self.strides, self.size = tuple(counts[::-1]), tuple(strides[::-1]), size
        self.is_numbered = size < _MAX_NUMBERED

    def number(self, coordinates: Sequence[int]) -> int:
        """Return the number of the chunk at `coordinates`."""
        return sum(map(int.__mul__, coordinates, self.strides))

    def is_partial(self, coordinates: Sequence[int]) -> bool:
        """Return whether the chunk reaches beyond the extent."""
        corners = zip(coordinates, self.chunks, self.shape, strict=True)
        return any((at + 1) * chunk > extent for at, chunk, extent in corners)

    def find_coordinates(self, numbers: Numbers) -> list[Numbers]:
        """Return the coordinates of many chunks, one array an axis."""
        coordinates = []
        for stride in self.strides:
            along, numbers = np.divmod(numbers, max(stride, 1))
            coordinates.append(along)
        return coordinates

    def find_numbers(self, coordinates: Sequence[Uints]) -> tuple[Numbers, Flags]:
        """Return the numbers of many chunks, and which of them are inside the extent.

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


@dataclass(slots=True, eq=False)
class RecordedChunks:
    """What those indexes share that have a record of each chunk, with its size if it is filtered.

    Attributes:
        file: that it is in.
        grid: of the dataset.
        address: of its header; None = nothing was ever written.
        chunk_bytes: of a chunk that went through no filter.
        size_bytes: how wide the sizes of chunks are; 0 = there are no filters, and no sizes.
        record: an address, size and filter mask, and what else a record has.
    """

    file: FileBytes
    grid: ChunkGrid
    address: int | None
    chunk_bytes: int
    size_bytes: int
    record: np.dtype[Any] = field(init=False)

    def make_record(self, *more: tuple[Any, ...]) -> np.dtype[Any]:
        """Return the type of a record that ends with the fields `more`."""
        filtered = [("size", "u1", (self.size_bytes,)), ("mask", "<u4")] if self.size_bytes else []
        return np.dtype([("address", f"<u{self.file.address_bytes}"), *filtered, *more])

    def parse_record(self, stored: bytes, at: int) -> ChunkPlace | None:
        """Return the place of a chunk by its record at position `at`; None = it has none."""
        address = self.file.address(stored, at)
        if address == self.file.undefined:
            return None
        size, mask = self.chunk_bytes, 0
        if self.size_bytes:
            sized = at + self.file.address_bytes
            masked = sized + self.size_bytes
            size = int.from_bytes(stored[sized:masked], "little")
            mask = int.from_bytes(stored[masked : masked + 4], "little")
        return place_chunk(self.file.base, address, size, mask)

    def find_sizes(self, records: np.ndarray[Any, Any]) -> tuple[Uints, Any]:
        """Return sizes and filter masks of many chunks."""
        if self.size_bytes:
            return uints_of(records["size"]), records["mask"]
        sizes = np.full(len(records), self.chunk_bytes, np.uint64)
        return sizes, np.zeros(len(records), np.uint32)


class TableBuilder:
    """Collects what indexes say of chunks, in any order."""

    def __init__(self, grid: ChunkGrid, base: int, wanted: Numbers | None, most: int) -> None:
        """Begin a table.

        Args:
            grid: of the dataset.
            base: where addresses begin in the file.
            wanted: numbers, ascending; None = all in the grid.
            most: chunks.
        """
        self._grid = grid
        self._base = np.uint64(base)
        self._wanted = wanted
        self._most = most
        self._rows: list[tuple[Numbers, Uints, Uints, Any]] = []
        self._count = 0

    def add(self, coordinates: Sequence[Uints], addresses: Uints, sizes: Uints, masks: Any) -> bool:
        """Note chunks by their coordinates, if they are wanted; all have addresses.

        Returns whether they are no more than what was asked for.
        """
        numbers, chosen = self._grid.find_numbers(coordinates)
        if self._wanted is not None and len(self._wanted):
            at = np.searchsorted(self._wanted, numbers)
            at[at == len(self._wanted)] = 0
            chosen &= self._wanted[at] == numbers
        if not chosen.all():
            numbers, addresses = numbers[chosen], addresses[chosen]
            sizes, masks = sizes[chosen], masks[chosen]
        if len(numbers):
            self._rows.append((numbers, addresses, sizes, masks))
            self._count += len(numbers)
        return self._count <= self._most

    def finish(self) -> ChunkTable:
        """Return the table of all of them.

        Raises:
            DamagedMetadata: a chunk is there twice.
        """
        if not self._rows:
            no = np.empty(0, np.uint64)
            return ChunkTable(no.astype(np.int64), no, no, no.astype(np.uint32))
        columns: list[Any] = list(map(np.concatenate, zip(*self._rows, strict=True)))
        steps = np.diff(columns[0])
        if (steps <= 0).any():
            order = np.argsort(columns[0], kind="stable")
            columns = [column[order] for column in columns]
            if (np.diff(columns[0]) == 0).any():
                raise DamagedMetadata("its index has a chunk twice")
        numbers, addresses, sizes, masks = columns
        offsets = np.minimum(addresses, np.uint64(_NOWHERE)) + self._base
        return ChunkTable(numbers, offsets, sizes, masks.astype(np.uint32))


@dataclass(frozen=True, slots=True)
class ChunkBox:
    """What a selection takes of one chunk."""

    coordinates: Coordinates
    inside: tuple[slice, ...]
    """The elements that it takes, from the chunk's corner on."""

    outside: tuple[slice, ...]
    """Where they go in what is read."""

    def is_whole(self, chunks: tuple[int, ...]) -> bool:
        """Return whether it is all elements of the chunk."""
        for taken, chunk in zip(self.outside, chunks, strict=True):
            if taken.stop - taken.start != chunk:
                return False
        return True


def find_only_box(axes: tuple[Axis, ...], chunks: tuple[int, ...]) -> ChunkBox | None:
    """Return what is taken of the chunk that has all elements at `axes`.

    None where they lie in several chunks, or there are none.
    """
    coordinates, inside, outside = [], [], []
    for axis, chunk in zip(axes, chunks, strict=True):
        at, first = divmod(axis.start, chunk)
        last = first + (axis.count - 1) * axis.step
        if not axis.count or last >= chunk:
            return None
        coordinates.append(at)
        inside.append(slice(first, last + 1, axis.step))
        outside.append(slice(0, axis.count))
    return ChunkBox(tuple(coordinates), tuple(inside), tuple(outside))


def count_touched(axes: tuple[Axis, ...], chunks: tuple[int, ...]) -> int:
    """Return how many chunks the selection touches."""
    touched = 1
    for axis, chunk in zip(axes, chunks, strict=True):
        stop = axis.start + (axis.count - 1) * axis.step
        between = stop // chunk - axis.start // chunk + 1
        touched *= min(axis.count, between) if axis.count else 0
    return touched


def cut_by_chunks(axes: tuple[Axis, ...], chunks: tuple[int, ...]) -> Iterator[ChunkBox]:
    """Yield what the selection takes of each chunk it touches, in C order."""
    if not axes:
        yield ChunkBox((), (), ())
        return
    for before in cut_by_chunks(axes[:-1], chunks[:-1]):
        for at, inside, outside in cut_axis(axes[-1], chunks[-1]):
            yield ChunkBox(
                (*before.coordinates, at), (*before.inside, inside), (*before.outside, outside)
            )


def cut_axis(axis: Axis, chunk: int) -> Iterator[tuple[int, slice, slice]]:
    """Yield each chunk along one axis, what is selected inside it, and where that goes."""
    done = 0
    while done < axis.count:
        at, first = divmod(axis.start + done * axis.step, chunk)
        count = min(axis.count - done, -(-(chunk - first) // axis.step))
        inside = slice(first, first + (count - 1) * axis.step + 1, axis.step)
        yield at, inside, slice(done, done + count)
        done += count


def find_begin(axis: Axis, chunk: int, number: int) -> int:
    """Return the position along the axis of the first index in the `number`-th chunk it touches."""
    if axis.step > chunk:
        return number
    boundary = (axis.start // chunk + number) * chunk
    return min(-(-max(boundary - axis.start, 0) // axis.step), axis.count)


def walk_touched(axes: tuple[Axis, ...], chunks: tuple[int, ...]) -> Iterator[Coordinates]:
    """Yield the coordinates of the chunks that the selection touches, in C order."""
    if not axes:
        yield ()
        return
    for before in walk_touched(axes[:-1], chunks[:-1]):
        for at, _, _ in cut_axis(axes[-1], chunks[-1]):
            yield (*before, at)


def number_touched(axes: tuple[Axis, ...], grid: ChunkGrid) -> Numbers:
    """Return the numbers of the chunks that the selection touches, ascending."""
    numbers = np.zeros(1, np.int64)
    for axis, chunk, stride in zip(axes, grid.chunks, grid.strides, strict=True):
        if axis.step <= chunk:
            along = np.arange(axis.start // chunk, (axis.stop - 1) // chunk + 1)
        else:
            along = (axis.start + np.arange(axis.count) * axis.step) // chunk
        numbers = (numbers[:, None] + along * stride).reshape(-1)
    return numbers


def cut_by_stored_chunks(
    axes: tuple[Axis, ...], grid: ChunkGrid, table: ChunkTable
) -> Iterator[ChunkBox]:
    """Yield what the selection takes of each chunk of `table` that it touches, in C order.

    Costs what the table has there, however many chunks the selection touches.
    """
    pairs = list(zip(axes, grid.chunks, strict=True))
    ends = [
        grid.number([index // chunk for index, (_, chunk) in zip(corner, pairs, strict=True)])
        for corner in ([axis.start for axis in axes], [axis.stop - 1 for axis in axes])
    ]
    first, stop = np.searchsorted(table.numbers, [ends[0], ends[1] + 1]).tolist()
    for row in range(first, stop, _ROWS_AT_ONCE):
        coordinates = grid.find_coordinates(table.numbers[row : min(row + _ROWS_AT_ONCE, stop)])
        is_touched = np.ones(coordinates[0].shape, bool)
        for along, (axis, chunk) in zip(coordinates, pairs, strict=True):
            begin = along * chunk
            # The first index of the axis that is not before the chunk.
            index = axis.start + -(-np.maximum(begin - axis.start, 0) // axis.step) * axis.step
            is_touched &= (index < begin + chunk) & (index < axis.stop)
        for each in zip(*(along[is_touched].tolist() for along in coordinates), strict=True):
            yield _cut_chunk(each, pairs)


def _cut_chunk(coordinates: Coordinates, pairs: list[tuple[Axis, int]]) -> ChunkBox:
    """Return what is taken of one chunk that is touched."""
    inside, outside = [], []
    for at, (axis, chunk) in zip(coordinates, pairs, strict=True):
        begin = at * chunk
        done = -(-max(begin - axis.start, 0) // axis.step)
        first = axis.start + done * axis.step - begin
        count = min(axis.count - done, -(-(chunk - first) // axis.step))
        inside.append(slice(first, first + (count - 1) * axis.step + 1, axis.step))
        outside.append(slice(done, done + count))
    return ChunkBox(coordinates, tuple(inside), tuple(outside))
