"""Chunks whose places lie in an array, in the order of a larger grid than the extent's.

That grid reaches to the most that the dataset may become, with its unlimited axis first (HDF5
File Format Specification 3.0, sections III and VII: single chunk, implicit, fixed array and
extensible array). What has a checksum is compared with it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from asgihive.hdf5.chunk_grid import (
    ChunkGrid,
    ChunkPlace,
    ChunkTable,
    GoOn,
    Numbers,
    RecordedChunks,
    TableBuilder,
    Uints,
    place_chunk,
)
from asgihive.hdf5.file_bytes import DamagedMetadata, FileBytes, NotPlain

# What says which pages or blocks of an array there are is never larger in an honest file.
_MAX_BLOCK_BYTES = 1 << 24
_MAX_PAGE_BITS = 20

# Of index numbers, which are 64 bits wide in a file.
_MAX_INDEX = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class ArrayOrder:
    """The grid in whose C order an array has its elements."""

    axes: tuple[int, ...]
    """Of the dataset, the slowest first."""

    strides: tuple[int, ...]
    """How far apart neighbours along each of these are."""

    @classmethod
    def of(cls, chunks: Sequence[int], most: Sequence[int | None]) -> "ArrayOrder":
        """Return the order for chunks of that shape in an extent that may grow to `most`.

        Raises:
            NotPlain: several axes have no bounds.
        """
        growing = [axis for axis, bound in enumerate(most) if bound is None]
        if len(growing) > 1:
            raise NotPlain
        axes = (*growing, *(axis for axis, bound in enumerate(most) if bound is not None))
        counts = [-(-(most[axis] or 1) // chunks[axis]) for axis in axes]
        strides = [math.prod(counts[at + 1 :]) for at in range(len(counts))]
        return cls(axes, tuple(strides))

    def find_index(self, coordinates: Sequence[int]) -> int:
        """Return the position of the element of the chunk at `coordinates`."""
        pairs = zip(self.axes, self.strides, strict=True)
        return sum(coordinates[axis] * stride for axis, stride in pairs)

    def find_indices(self, coordinates: Sequence[Numbers]) -> Numbers:
        """Return the positions of many chunks, by one array of coordinates an axis."""
        indices = np.zeros(coordinates[0].shape, np.float64)
        exact = np.zeros(coordinates[0].shape, np.int64)
        for axis, stride in zip(self.axes, self.strides, strict=True):
            indices += coordinates[axis].astype(np.float64) * float(stride)
            exact += coordinates[axis] * min(stride, _MAX_INDEX)
        # What overflows lies behind all that an array can have.
        exact[indices >= float(_MAX_INDEX)] = _MAX_INDEX
        return exact

    def find_coordinates(self, indices: Numbers) -> list[Uints]:
        """Return the coordinates of the chunks at `indices`, one array an axis of the dataset."""
        found: list[Uints] = [np.empty(0, np.uint64)] * len(self.axes)
        for axis, stride in zip(self.axes, self.strides, strict=True):
            along, indices = np.divmod(indices, min(max(stride, 1), _MAX_INDEX))
            found[axis] = along.astype(np.uint64)
        return found


@dataclass(slots=True, eq=False)
class ImplicitChunks:
    """Chunks without an index: all are there, one behind the other. Also a single one."""

    file: FileBytes
    grid: ChunkGrid
    order: ArrayOrder
    address: int | None
    """Of the first; None = nothing was ever written."""

    size: int
    """Of each, in bytes."""

    filter_mask: int = 0
    """Of each."""

    @property
    def at_most(self) -> int:
        """How many chunks are stored at most: all."""
        return 0 if self.address is None else self.grid.size

    def find(self, coordinates: tuple[int, ...]) -> ChunkPlace | None:
        """Find one chunk, as `StoredChunks.find`."""
        if self.address is None:
            return None
        address = self.address + self.order.find_index(coordinates) * self.size
        return place_chunk(self.file.base, address, self.size, self.filter_mask)

    def gather(self, wanted: Numbers | None, most: int, go_on: GoOn) -> ChunkTable | None:
        """Gather many chunks, as `StoredChunks.gather`."""
        go_on()
        rows = TableBuilder(self.grid, self.file.base, wanted, most)
        if self.address is None:
            return rows.finish()
        if wanted is None and self.grid.size > most:
            return None
        numbers = np.arange(self.grid.size) if wanted is None else wanted
        coordinates = self.grid.find_coordinates(numbers)
        indices = self.order.find_indices(coordinates).astype(np.uint64)
        if int(indices.max(initial=0)) * self.size > self.file.end and not self.file.is_live:
            raise DamagedMetadata("its chunks reach beyond the end of the file")
        addresses = indices * np.uint64(self.size) + np.uint64(self.address)
        sizes = np.full(len(numbers), self.size, np.uint64)
        masks = np.full(len(numbers), self.filter_mask, np.uint32)
        along = [each.astype(np.uint64) for each in coordinates]
        return rows.finish() if rows.add(along, addresses, sizes, masks) else None


@dataclass(slots=True, eq=False)
class _ArrayChunks(RecordedChunks):
    """What fixed and extensible arrays share."""

    order: ArrayOrder
    count: int = field(init=False, default=0)
    page_elements: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.record = self.make_record()
        if self.address is not None:
            self._read_header(self.address)

    @property
    def at_most(self) -> int:
        """How many chunks are stored at most: no more than the array has elements."""
        return min(self.grid.size, self.count)

    def find(self, coordinates: tuple[int, ...]) -> ChunkPlace | None:
        """Find one chunk, as `StoredChunks.find`."""
        index = self.order.find_index(coordinates)
        if index >= self.count:
            return None
        for first, stored in self._read_segments(index, index + 1):
            return self.parse_record(stored, (index - first) * self.record.itemsize)
        return None

    def gather(self, wanted: Numbers | None, most: int, go_on: GoOn) -> ChunkTable | None:
        """Gather many chunks, as `StoredChunks.gather`."""
        go_on()
        rows = TableBuilder(self.grid, self.file.base, wanted, most)
        for start, stop in self._find_runs(wanted):
            for first, stored in self._read_segments(start, stop):
                go_on()
                if not self._add(rows, first, np.frombuffer(stored, self.record)):
                    return None
        return rows.finish()

    def _find_runs(self, wanted: Numbers | None) -> Iterator[tuple[int, int]]:
        """Yield from where to where elements are wanted, without what lies far between."""
        if not self.count:
            return
        if wanted is None:
            yield 0, self.count
            return
        indices = np.sort(self.order.find_indices(self.grid.find_coordinates(wanted)))
        indices = indices[indices < self.count]
        apart = np.flatnonzero(np.diff(indices) > max(self.page_elements, 1)) + 1
        for run in np.split(indices, apart) if len(indices) else ():
            yield int(run[0]), int(run[-1]) + 1

    def _read_segments(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """Yield runs of stored elements, at least `start` to `stop`, and the index of the first."""
        raise NotImplementedError

    def _read_header(self, address: int) -> None:
        """Read the header."""
        raise NotImplementedError

    def _check_header(self, head: bytes) -> None:
        """Check version, client (whether chunks are filtered), and size of an element."""
        if head[4] or head[5] != bool(self.size_bytes) or head[6] != self.record.itemsize:
            raise NotPlain

    def _read_block(self, address: int, size: int, signature: bytes) -> bytes:
        """Return a block that names the array that it is part of."""
        if size > _MAX_BLOCK_BYTES:
            raise DamagedMetadata(f"a block of its index has {size} bytes")
        block = self.file.read_checked(address, size, signature)
        if block[4] or block[5] != bool(self.size_bytes):
            raise DamagedMetadata(f"the block of its index at {address} is of another kind")
        if self.file.address(block, 6) != self.address:
            raise DamagedMetadata(f"the block of its index at {address} is another array's")
        return block

    def _read_page(self, address: int, count: int) -> bytes:
        """Return a page of `count` elements."""
        size = count * self.record.itemsize
        return self.file.read_checked(address, size + 4, b"")[:size]

    def _add(self, rows: TableBuilder, first: int, elements: np.ndarray[Any, Any]) -> bool:
        elements = elements[: self.count - first]
        addresses = elements["address"].astype(np.uint64)
        at = np.flatnonzero(addresses != self.file.undefined)
        sizes, masks = self.find_sizes(elements[at])
        return rows.add(self.order.find_coordinates(at + first), addresses[at], sizes, masks)


@dataclass(slots=True, eq=False)
class FixedArrayChunks(_ArrayChunks):
    """A fixed array, in one block or in pages (section VII.C).

    Raises:
        NotPlain: it is of another kind.
    """

    _data: int = field(init=False, default=0)
    _pages: bytes = field(init=False, default=b"")
    _prefix_bytes: int = field(init=False, default=0)

    def _read_header(self, address: int) -> None:
        width = self.file.address_bytes
        size = 12 + self.file.length_bytes + width
        head = self.file.read_checked(address, size, b"FAHD")
        self._check_header(head)
        if head[7] > _MAX_PAGE_BITS:
            raise NotPlain
        self.page_elements = 1 << head[7]
        self._data = self.file.address(head, 8 + self.file.length_bytes)
        if self._data == self.file.undefined:
            return
        self.count = self.file.length(head, 8)
        self._prefix_bytes = 10 + width
        if self.count > self.page_elements:
            pages = -(-self.count // self.page_elements)
            self._prefix_bytes += (pages + 7) // 8
            block = self._read_block(self._data, self._prefix_bytes, b"FADB")
            self._pages = block[6 + width : -4]

    def _read_segments(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        if not self._pages:
            size = self.count * self.record.itemsize
            block = self._read_block(self._data, self._prefix_bytes + size, b"FADB")
            yield 0, block[6 + self.file.address_bytes : -4]
            return
        page_bytes = self.page_elements * self.record.itemsize + 4
        for page in range(start // self.page_elements, -(-stop // self.page_elements)):
            # The first page is the highest bit.
            if not self._pages[page // 8] << page % 8 & 0x80:
                continue
            first = page * self.page_elements
            count = min(self.page_elements, self.count - first)
            address = self._data + self._prefix_bytes + page * page_bytes
            yield first, self._read_page(address, count)


@dataclass(frozen=True, slots=True)
class _SuperBlock:
    """Data blocks of one size: their elements, how many they are, and the first of them."""

    elements: int
    blocks: int
    first_index: int
    first_block: int


@dataclass(slots=True, eq=False)
class ExtensibleArrayChunks(_ArrayChunks):
    """An extensible array (section VII.D).

    Its index block has the first elements itself, then the addresses of data blocks, then those
    of super blocks, which have the addresses of further data blocks; large ones are in pages.

    Raises:
        NotPlain: it is of another kind.
    """

    _index: int = field(init=False, default=0)
    _in_index: int = field(init=False, default=0)
    _offset_bytes: int = field(init=False, default=0)
    _direct: int = field(init=False, default=0)
    _super_blocks: tuple[_SuperBlock, ...] = field(init=False, default=())

    def _read_header(self, address: int) -> None:
        width, length = self.file.address_bytes, self.file.length_bytes
        head = self.file.read_checked(address, 16 + 6 * length + width, b"EAHD")
        self._check_header(head)
        bits, self._in_index, smallest, pointers, page_bits = head[7:12]
        is_power = all(each and not each & (each - 1) for each in (smallest, pointers))
        if not is_power or pointers < 2 or not smallest.bit_length() <= bits <= 64:
            raise NotPlain
        if page_bits > _MAX_PAGE_BITS or page_bits > bits:
            raise NotPlain
        self.page_elements = 1 << page_bits
        self._offset_bytes = (bits + 7) // 8
        # The data blocks of so many super blocks are named by the index block itself.
        self._direct = 2 * (pointers.bit_length() - 1)
        self._super_blocks = _make_super_blocks(smallest, 2 + bits - smallest.bit_length())
        if self._direct > len(self._super_blocks):
            raise NotPlain
        if any(each.elements > self.page_elements for each in self._super_blocks[: self._direct]):
            raise NotPlain
        self._index = self.file.address(head, 12 + 6 * length)
        if self._index != self.file.undefined:
            self.count = min(self.file.length(head, 12 + 4 * length), _MAX_INDEX)

    def _read_segments(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        stop = min(stop, self.count)
        if start >= stop:
            return
        width, at = self.file.address_bytes, 6 + self.file.address_bytes
        direct = sum(each.blocks for each in self._super_blocks[: self._direct])
        elements = self._in_index * self.record.itemsize
        addresses = (direct + len(self._super_blocks) - self._direct) * width
        block = self._read_block(self._index, at + elements + addresses + 4, b"EAIB")
        if start < self._in_index:
            yield 0, block[at : at + elements]
        at += elements
        # From here on, indices do not count those in the index block.
        wanted = range(max(start - self._in_index, 0), stop - self._in_index)
        for number, each in enumerate(self._super_blocks):
            if each.first_index >= wanted.stop:
                return
            blocks = _find_overlap(each, wanted)
            if number < self._direct:
                for position in blocks:
                    address = self.file.address(block, at + (each.first_block + position) * width)
                    yield from self._read_data_block(each, position, address, None, wanted)
            elif blocks:
                address = self.file.address(block, at + (direct + number - self._direct) * width)
                if address != self.file.undefined:
                    yield from self._read_super_block(each, blocks, address, wanted)

    def _read_super_block(
        self, super_block: _SuperBlock, blocks: range, address: int, wanted: range
    ) -> Iterator[tuple[int, bytes]]:
        width = self.file.address_bytes
        pages = super_block.elements // self.page_elements
        # A bit for each page, if there are any.
        at = 6 + width + self._offset_bytes
        bits = super_block.blocks * ((pages + 7) // 8) if pages > 1 else 0
        size = at + bits + super_block.blocks * width + 4
        stored = self._read_block(address, size, b"EASB")
        written = stored[at : at + bits] if bits else None
        for position in blocks:
            below = self.file.address(stored, at + bits + position * width)
            yield from self._read_data_block(super_block, position, below, written, wanted)

    def _read_data_block(
        self,
        super_block: _SuperBlock,
        position: int,
        address: int,
        written: bytes | None,
        wanted: range,
    ) -> Iterator[tuple[int, bytes]]:
        """Yield the elements of one data block, if it has an address.

        Args:
            written: a bit for each page of all data blocks of the super block; None = no pages.
            wanted: of the elements behind those in the index block.
        """
        if address == self.file.undefined:
            return
        elements = super_block.elements
        first = super_block.first_index + position * elements
        head = 6 + self.file.address_bytes + self._offset_bytes
        if written is None:
            size = head + elements * self.record.itemsize + 4
            yield first + self._in_index, self._read_block(address, size, b"EADB")[head:-4]
            return
        pages = elements // self.page_elements
        page_bytes = self.page_elements * self.record.itemsize + 4
        before = max(wanted.start - first, 0) // self.page_elements
        behind = -(-min(wanted.stop - first, elements) // self.page_elements)
        for page in range(before, behind):
            # The first page is the highest bit.
            bit = position * pages + page
            if written[bit // 8] << bit % 8 & 0x80:
                index = first + page * self.page_elements + self._in_index
                yield (
                    index,
                    self._read_page(address + head + 4 + page * page_bytes, self.page_elements),
                )


def _find_overlap(super_block: _SuperBlock, wanted: range) -> range:
    """Return the data blocks that have elements which are wanted."""
    first = max(wanted.start - super_block.first_index, 0) // super_block.elements
    stop = -(-(wanted.stop - super_block.first_index) // super_block.elements)
    return range(first, min(stop, super_block.blocks))


def _make_super_blocks(smallest: int, count: int) -> tuple[_SuperBlock, ...]:
    """Return super blocks, each twice as large as the last, by more or larger blocks in turns."""
    found = []
    first_index = first_block = 0
    for number in range(count):
        elements, blocks = smallest << (number + 1) // 2, 1 << number // 2
        found.append(_SuperBlock(elements, blocks, first_index, first_block))
        first_index += elements * blocks
        first_block += blocks
    return tuple(found)
