"""Where the chunks of a dataset lie in its file.

The index is read from the file's bytes: libhdf5 lists slowly, reports the chunks of an
extensible array by rotated coordinates, and its one fast way to a single chunk overruns buffers
(h5py 3.16, HDF5 2.0). One chunk is looked for by itself; as soon as so many were looked for that
listing all of them would have been no slower, they are listed, and the list is kept. Only what is
not plain is asked of libhdf5, see `asgihive.hdf5.library_chunks`.
"""

import threading
from dataclasses import dataclass, field

from h5py import h5d, h5s

from asgihive.hdf5.chunk_arrays import (
    ExtensibleArrayChunks,
    FixedArrayChunks,
    ImplicitChunks,
    Order,
)
from asgihive.hdf5.chunk_layout import ChunkLayout, IndexKind, read_chunk_layout
from asgihive.hdf5.chunk_parts import coordinates_touched, count_touched, numbers_touched
from asgihive.hdf5.chunk_table import (
    ChunkGrid,
    ChunkPlace,
    ChunkTable,
    FoundChunks,
    GoOn,
    Numbers,
    Places,
    StoredChunks,
)
from asgihive.hdf5.chunk_trees import ChunkTree1, ChunkTree2
from asgihive.hdf5.file_bytes import DamagedMetadata, FileBytes, NotPlain
from asgihive.hdf5.headers import bytes_of
from asgihive.hdf5.library_chunks import list_by_library
from asgihive.hdf5.open_file import OpenFile, address_of
from asgihive.hdf5.selection import Axis

# More chunks than that are not listed: it would take tens of megabytes.
MAX_LISTED = 1 << 20

# So few that listing them costs no more than a few chunks that are looked for.
_FEW_CHUNKS = 256

# How many chunks are listed in the time that one takes that is looked for by itself.
_LISTED_PER_LOOKUP = 256

# Looked for one by one, rather than together.
_LOOKED_FOR_ALONE = 16

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


@dataclass(slots=True, eq=False)
class ChunkIndex:
    """Finds the chunks of one open dataset. For all threads, unless it `needs_library`.

    Attributes:
        id: for libhdf5, where only that can tell.
        address: of the dataset in its file.
        grid: of the dataset.
        stored: the index in the file's bytes; None = only libhdf5 can tell.
        keep: whether the table is kept; not of a live file, whose chunks come and go.
        edges_unfiltered: whether chunks that reach beyond the extent went through no filter; None
            = the layout message was not read.
        table: None until it is worth listing.
    """

    id: h5d.DatasetID
    address: int
    grid: ChunkGrid
    stored: StoredChunks | None
    keep: bool
    edges_unfiltered: bool | None = None
    table: ChunkTable | None = None
    _looked_for: int = 0
    _is_unlisted: bool = False
    _listing: threading.Lock = field(default_factory=threading.Lock)

    @property
    def needs_library(self) -> bool:
        """Whether `locate` calls libhdf5, which is for the library lane alone."""
        return self.stored is None and self.table is None

    @property
    def bytes(self) -> int:
        """What the table may take."""
        count = self.grid.size if self.stored is None else self.stored.at_most
        return LISTED_BYTES * min(count, MAX_LISTED)

    def locate(self, axes: tuple[Axis, ...], go_on: GoOn) -> Places:
        """Where all chunks lie, or at least those that have elements at `axes`.

        Args:
            axes: what will be read; not empty.
            go_on: called regularly.

        Raises:
            DamagedChunk: one cannot be found.
            and whatever `go_on` raises.
        """
        if self.table is not None:
            return self.table
        count = count_touched(axes, self.grid.chunks)
        if self.stored is None:
            return self._locate_by_library(axes, go_on)
        try:
            if self._is_worth_listing(self.stored, count):
                table = self._list(self.stored, go_on)
                if table is not None:
                    return table
            if count > _LOOKED_FOR_ALONE and self.grid.is_numbered:
                table = self.stored.gather(numbers_touched(axes, self.grid), MAX_LISTED, go_on)
                if table is not None:
                    return table
        except (DamagedMetadata, OSError, OverflowError):
            # What is damaged may be another chunk's.
            self._is_unlisted = True
        return self._locate_each(self.stored, axes, go_on)

    def list_all(self, go_on: GoOn) -> ChunkTable:
        """All stored chunks inside the extent, however many. In the library lane.

        Raises:
            DamagedMetadata, OSError, RuntimeError: they cannot be listed.
            and whatever `go_on` raises.
        """
        table = self.table
        if table is None and self.stored is not None:
            table = self.stored.gather(None, self.grid.size, go_on)
        if table is None:
            table = list_by_library(self.id, self.grid, None, self.grid.size, go_on)
        assert table is not None  # noqa: S101  # no more are stored inside the extent than it has
        return table

    def _is_worth_listing(self, stored: StoredChunks, count: int) -> bool:
        if self._is_unlisted or not self.grid.is_numbered:
            return False
        if self.keep:
            self._looked_for += count
            count = self._looked_for
        return min(stored.at_most, MAX_LISTED) <= max(_FEW_CHUNKS, count * _LISTED_PER_LOOKUP)

    def _list(self, stored: StoredChunks, go_on: GoOn) -> ChunkTable | None:
        """All stored chunks, listed by one thread at a time; None when they are too many."""
        with self._listing:
            if self.table is not None:
                return self.table
            table = stored.gather(None, MAX_LISTED, go_on)
            if table is None:
                self._is_unlisted = True
            elif self.keep:
                self.table = table
            return table

    def _locate_each(self, stored: StoredChunks, axes: tuple[Axis, ...], go_on: GoOn) -> Places:
        found: dict[int, ChunkPlace] = {}
        for coordinates in coordinates_touched(axes, self.grid.chunks):
            go_on()
            try:
                place = stored.find(coordinates)
            except (DamagedMetadata, OverflowError) as error:
                raise DamagedChunk(coordinates, str(error)) from None
            if place is not None:
                found[self.grid.number(coordinates)] = place
        return FoundChunks(found)

    def _locate_by_library(self, axes: tuple[Axis, ...], go_on: GoOn) -> Places:
        try:
            table = list_by_library(self.id, self.grid, None, MAX_LISTED, go_on)
            if table is None:
                wanted = numbers_touched(axes, self.grid)
                table = list_by_library(self.id, self.grid, wanted, MAX_LISTED, go_on)
            elif self.keep:
                self.table = table
        except DamagedMetadata as error:
            first = next(coordinates_touched(axes, self.grid.chunks))
            raise DamagedChunk(first, str(error)) from None
        assert table is not None  # noqa: S101  # a block touches no more chunks than are listed
        return table


@dataclass(frozen=True, slots=True)
class _DamagedChunks:
    """An index whose header is damaged, so that no chunk is found. `StoredChunks`."""

    reason: str
    at_most: int = 0

    def find(self, _coordinates: tuple[int, ...]) -> ChunkPlace | None:
        raise DamagedMetadata(self.reason)

    def gather(self, _wanted: Numbers | None, _most: int, _go_on: GoOn) -> ChunkTable | None:
        raise DamagedMetadata(self.reason)


def chunk_index(
    file: OpenFile, dataset: h5d.DatasetID, grid: ChunkGrid, *, is_filtered: bool
) -> ChunkIndex:
    """The index of a dataset of `file`. In the library lane."""
    keep, address = not file.live, address_of(dataset)
    try:
        stored = bytes_of(file)
        layout = read_chunk_layout(stored, address)
        most = dataset.get_space().get_simple_extent_dims(True)
        found = _stored_chunks(stored, layout, grid, most, is_filtered=is_filtered)
    except (NotPlain, OSError):
        return ChunkIndex(dataset, address, grid, None, keep)
    except DamagedMetadata as error:
        return ChunkIndex(dataset, address, grid, _DamagedChunks(str(error)), keep)
    return ChunkIndex(dataset, address, grid, found, keep, layout.edges_unfiltered)


def _stored_chunks(
    file: FileBytes,
    layout: ChunkLayout,
    grid: ChunkGrid,
    most: tuple[int, ...],
    *,
    is_filtered: bool,
) -> StoredChunks:
    """The index that the layout message names; `most`: how large the dataset may become.

    Raises:
        NotPlain, DamagedMetadata
    """
    if layout.chunks != grid.chunks:
        raise NotPlain
    chunk_bytes = layout.item_bytes
    for extent in layout.chunks:
        chunk_bytes *= extent
    if layout.kind is IndexKind.TREE_1:
        return ChunkTree1(file, grid, layout.address)
    size_bytes = _size_bytes(file, layout, chunk_bytes) if is_filtered else 0
    if layout.kind is IndexKind.TREE_2:
        return ChunkTree2(file, grid, layout.address, chunk_bytes, size_bytes)
    bounds = tuple(None if extent == h5s.UNLIMITED else int(extent) for extent in most)
    order = Order.of(layout.chunks, bounds)
    if layout.kind is IndexKind.SINGLE:
        if is_filtered != (layout.single is not None) or grid.size > 1:
            raise NotPlain
        size, mask = layout.single or (chunk_bytes, 0)
        return ImplicitChunks(file, grid, order, layout.address, size, mask)
    if layout.kind is IndexKind.IMPLICIT:
        if is_filtered:
            raise NotPlain
        return ImplicitChunks(file, grid, order, layout.address, chunk_bytes)
    kind = FixedArrayChunks if layout.kind is IndexKind.FIXED_ARRAY else ExtensibleArrayChunks
    return kind(file, grid, order, layout.address, chunk_bytes, size_bytes)


def _size_bytes(file: FileBytes, layout: ChunkLayout, chunk_bytes: int) -> int:
    """How wide the sizes of filtered chunks are in an index (sections VII.C, D and III.A.2)."""
    if layout.version > 4:
        return file.length_bytes
    # One byte more than the size of a chunk takes, in case a filter makes it larger.
    return min(8, 1 + (chunk_bytes.bit_length() + 7) // 8)
