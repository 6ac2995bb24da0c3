"""Where the chunks of a dataset lie in its file.

The index is read from the file's bytes: libhdf5 lists slowly, reports the chunks of an
extensible array by rotated coordinates, and its one fast way to a single chunk overruns buffers
(h5py 3.16, HDF5 2.0). A single chunk is found by descending the index. As soon as so many
were looked for that listing all would have been no slower, all are listed, and the list is kept.
Where the bytes are of a rare kind, libhdf5 is asked, in the library lane.
"""

import ctypes
import functools
import math
import struct
import threading
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from h5py import h5d, h5f, h5p, h5s, h5t
from h5py._objects import phil

from asgihive.hdf5.chunk_arrays import (
    ArrayOrder,
    ExtensibleArrayChunks,
    FixedArrayChunks,
    ImplicitChunks,
)
from asgihive.hdf5.chunk_grid import (
    ChunkGrid,
    ChunkPlace,
    ChunkTable,
    Coordinates,
    GoOn,
    Numbers,
    Places,
    StoredChunks,
    count_touched,
    find_only_box,
    number_touched,
    walk_touched,
)
from asgihive.hdf5.chunk_trees import ChunkTree1, ChunkTree2
from asgihive.hdf5.file_bytes import (
    DamagedMetadata,
    FileBytes,
    NotPlain,
    allow_waiting,
    find_in_libhdf5,
)
from asgihive.hdf5.headers import LAYOUT, read_messages
from asgihive.hdf5.objects import StoredObject
from asgihive.hdf5.open_file import libhdf5_reason
from asgihive.hdf5.plan import Axis
from asgihive.hdf5.stored_metadata import parse_chunk_dimensions

# More chunks than that are not listed: it would take tens of megabytes.
MAX_LISTED = 1 << 20

# How many chunks are listed in the time that finding a single one takes.
_LISTED_PER_LOOKUP = 256

# So few are listed also on the event loop.
_FEW_CHUNKS = 256

LOOKED_FOR_ALONE = 16
"""Chunks that are found one by one, 6 to 9 µs each; to list takes 80 to 140 µs for the first."""

# What a listed chunk takes in memory.
LISTED_BYTES = 28


class DamagedChunk(Exception):  # translated at once where the entity is known
    """The chunk at `coordinates` is not what it should be."""

    def __init__(self, coordinates: Coordinates, reason: str) -> None:
        super().__init__(coordinates, reason)
        self.coordinates = coordinates
        self.reason = reason

    def __str__(self) -> str:
        return f"chunk {self.coordinates} ({self.reason})"


@dataclass(slots=True, eq=False)
class ChunkIndex:
    """Finds the chunks of one open dataset. For all threads, unless it `needs_library`."""

    dataset: StoredObject
    """For libhdf5, where only that can tell."""

    grid: ChunkGrid
    stored: StoredChunks | None
    """The index in the file's bytes; None = only libhdf5 can tell."""

    keep: bool
    """Whether the table is kept; not of a live file, whose chunks come and go."""

    edges_unfiltered: bool | None = None
    """Whether chunks that reach beyond the extent went through no filter; None = not known."""

    table: ChunkTable | None = None
    """All chunks, once they are worth listing."""

    _looked_for: int = 0
    _is_unlisted: bool = False
    _listing: threading.Lock = field(default_factory=threading.Lock)

    @property
    def needs_library(self) -> bool:
        """Whether `locate` calls libhdf5, which is for the library lane alone."""
        return self.stored is None and self.table is None

    @property
    def bytes(self) -> int:
        """The most memory that the table may take."""
        count = self.grid.size if self.stored is None else self.stored.at_most
        return LISTED_BYTES * min(count, MAX_LISTED)

    def locate(self, axes: tuple[Axis, ...], go_on: GoOn) -> Places:
        """Return where all chunks lie, or at least those that have elements at `axes`.

        In the library lane if it `needs_library`.

        Args:
            axes: what will be read.
            go_on: called regularly.

        Raises:
            DamagedChunk: one cannot be found.
            and whatever `go_on` raises.
        """
        if self.table is not None:
            return self.table
        count = count_touched(axes, self.grid.chunks)
        if not count:
            return {}
        if self.stored is None:
            return self._locate_by_library(axes, go_on)
        try:
            if self.is_worth_listing(self.stored, count):
                if self.stored.at_most > _FEW_CHUNKS:
                    allow_waiting()
                table = self._list(self.stored, go_on)
                if table is not None:
                    return table
            if count > LOOKED_FOR_ALONE and self.grid.is_numbered:
                allow_waiting()
                table = self.stored.gather(number_touched(axes, self.grid), MAX_LISTED, go_on)
                if table is not None:
                    return table
        except (DamagedMetadata, OSError, OverflowError):
            # The damaged part may belong to another chunk.
            self._is_unlisted = True
        return self._locate_each(self.stored, axes, go_on)

    def list_all(self, go_on: GoOn) -> ChunkTable:
        """Return all stored chunks inside the extent, however many. In the library lane.

        Raises:
            DamagedMetadata, OSError, RuntimeError: they cannot be listed.
            and whatever `go_on` raises.
        """
        table = self.table
        if table is None and self.stored is not None:
            table = self.stored.gather(None, self.grid.size, go_on)
        if table is None:
            table = list_by_library(self.dataset.id, self.grid, None, self.grid.size, go_on)
        assert table is not None  # noqa: S101  # no more are stored inside the extent than it has
        return table

    def is_worth_listing(self, stored: StoredChunks, count: int) -> bool:
        """Return whether listing all chunks costs no more than finding `count` of them."""
        if self._is_unlisted or not self.grid.is_numbered:
            return False
        if self.keep:
            self._looked_for += count
            count = self._looked_for
        is_many = count > LOOKED_FOR_ALONE
        return is_many and min(stored.at_most, MAX_LISTED) <= count * _LISTED_PER_LOOKUP

    def _list(self, stored: StoredChunks, go_on: GoOn) -> ChunkTable | None:
        """Return all stored chunks, listed by one thread at a time; None when they are too many."""
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
        only = find_only_box(axes, self.grid.chunks)
        touched = walk_touched(axes, self.grid.chunks) if only is None else (only.coordinates,)
        for coordinates in touched:
            go_on()
            try:
                place = stored.find(coordinates)
            except (DamagedMetadata, OverflowError) as error:
                raise DamagedChunk(coordinates, str(error)) from None
            if place is not None:
                found[self.grid.number(coordinates)] = place
        return found

    def _locate_by_library(self, axes: tuple[Axis, ...], go_on: GoOn) -> Places:
        try:
            table = list_by_library(self.dataset.id, self.grid, None, MAX_LISTED, go_on)
            if table is None:
                wanted = number_touched(axes, self.grid)
                table = list_by_library(self.dataset.id, self.grid, wanted, MAX_LISTED, go_on)
            elif self.keep:
                self.table = table
        except DamagedMetadata as error:
            first = next(walk_touched(axes, self.grid.chunks))
            raise DamagedChunk(first, str(error)) from None
        assert table is not None  # noqa: S101  # a block touches no more chunks than are listed
        return table


@dataclass(frozen=True, slots=True)
class DamagedIndex:
    """An index whose header is damaged, so that no chunk is found: a `StoredChunks`."""

    reason: str
    at_most: int = 0

    def find(self, _coordinates: Coordinates) -> ChunkPlace | None:
        """Raise DamagedMetadata."""
        raise DamagedMetadata(self.reason)

    def gather(self, _wanted: Numbers | None, _most: int, _go_on: GoOn) -> ChunkTable | None:
        """Raise DamagedMetadata."""
        raise DamagedMetadata(self.reason)


def open_index(
    dataset: StoredObject,
    grid: ChunkGrid,
    max_shape: tuple[int | None, ...],
    *,
    is_filtered: bool,
) -> ChunkIndex:
    """Return the index of a dataset's chunks.

    Args:
        dataset: as it was found.
        grid: of its chunks.
        max_shape: how large it may become; None = without a limit.
        is_filtered: whether its chunks went through filters.
    """
    file, keep = dataset.file.metadata, not dataset.file.live
    if file is None:
        return ChunkIndex(dataset, grid, None, keep)
    try:
        message = _read_layout_message(file, dataset)
        found = _open_stored_chunks(file, message, grid, max_shape, is_filtered=is_filtered)
    except (NotPlain, OSError):
        return ChunkIndex(dataset, grid, None, keep)
    except DamagedMetadata as error:
        return ChunkIndex(dataset, grid, DamagedIndex(str(error)), keep)
    return ChunkIndex(dataset, grid, found, keep, message.edges_unfiltered)


class IndexKind(IntEnum):
    """How the chunks of a dataset are found, by the numbers of the layout message."""

    TREE_1 = 0
    SINGLE = 1
    IMPLICIT = 2
    FIXED_ARRAY = 3
    EXTENSIBLE_ARRAY = 4
    TREE_2 = 5


@dataclass(frozen=True, slots=True)
class _LayoutMessage:
    """What the layout message of a chunked dataset says (File Format Specification, IV.A.2.i)."""

    version: int
    """3 to 5."""

    chunks: tuple[int, ...]
    """The shape of a chunk."""

    item_bytes: int
    kind: IndexKind
    address: int | None
    """Of the index, or of the chunks themselves where there is none; None = not written."""

    edges_unfiltered: bool
    single: tuple[int, int] | None
    """Size and filter mask of a single chunk that went through filters."""


# Of a rank of one byte and eight bytes a dimension, with all that may be around them.
_LONGEST_MESSAGE_BYTES = 1 << 12

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


def _read_layout_message(file: FileBytes, dataset: StoredObject) -> _LayoutMessage:
    """Return what the layout message of a dataset says.

    Raises:
        NotPlain: libhdf5 must look.
    """
    if dataset.header is not None:
        found = dataset.header.messages[LAYOUT]
    else:
        found = read_messages(file, dataset.address, frozenset((LAYOUT,))).get(LAYOUT, b"")
    # Longer than any, so that only its end is checked.
    width, message = file.address_bytes, found + bytes(_LONGEST_MESSAGE_BYTES)
    version, storage = message[0], message[1]
    if storage != 2 or version not in {3, 4, 5}:
        raise NotPlain
    *chunks, item_bytes = parse_chunk_dimensions(message, width)
    kind, flags, single = IndexKind.TREE_1, 0, None
    if version == 3:
        at, end = 3, 3 + width + 4 * message[2]
    else:
        flags, at = message[2], 5 + message[3] * message[4]
        if flags & ~(_EDGES_UNFILTERED | _SINGLE_FILTERED) or not 0 < message[at] <= max(IndexKind):
            raise NotPlain
        kind = IndexKind(message[at])
        at += 1 + _PARAMETER_BYTES[kind]
        if kind is IndexKind.SINGLE and flags & _SINGLE_FILTERED:
            (mask,) = struct.unpack_from("<I", message, at + file.length_bytes)
            single = (file.length(message, at), mask)
            at += file.length_bytes + 4
        end = at + width
    if len(found) < end:
        raise NotPlain
    stored = file.address(message, at)
    return _LayoutMessage(
        version=version,
        chunks=tuple(chunks),
        item_bytes=item_bytes,
        kind=kind,
        address=None if stored == file.undefined else stored,
        edges_unfiltered=bool(flags & _EDGES_UNFILTERED),
        single=single,
    )


def _open_stored_chunks(
    file: FileBytes,
    message: _LayoutMessage,
    grid: ChunkGrid,
    max_shape: tuple[int | None, ...],
    *,
    is_filtered: bool,
) -> StoredChunks:
    """Return the index that the layout message names.

    Raises:
        NotPlain, DamagedMetadata
    """
    if message.chunks != grid.chunks:
        raise NotPlain
    address, chunk_bytes = message.address, message.item_bytes * math.prod(message.chunks)
    if message.kind is IndexKind.TREE_1:
        return ChunkTree1(file, grid, address)
    # How wide the sizes of filtered chunks are (sections VII.C, D and III.A.2): one byte more than
    # the size of a chunk takes, in case a filter makes it larger.
    width = min(8, 1 + (chunk_bytes.bit_length() + 7) // 8)
    size_bytes = 0 if not is_filtered else file.length_bytes if message.version > 4 else width
    if message.kind is IndexKind.TREE_2:
        return ChunkTree2(file, grid, address, chunk_bytes, size_bytes)
    order = ArrayOrder.of(message.chunks, max_shape)
    if message.kind is IndexKind.SINGLE:
        if is_filtered != (message.single is not None) or grid.size > 1:
            raise NotPlain
        size, mask = message.single or (chunk_bytes, 0)
        return ImplicitChunks(file, grid, order, address, size, mask)
    if message.kind is IndexKind.IMPLICIT:
        if is_filtered:
            raise NotPlain
        return ImplicitChunks(file, grid, order, address, chunk_bytes)
    kind = FixedArrayChunks if message.kind is IndexKind.FIXED_ARRAY else ExtensibleArrayChunks
    return kind(file, grid, address, chunk_bytes, size_bytes, order)


# Chunks between two calls of `go_on`.
_LOOK_EVERY = 1 << 10


def list_by_library(
    dataset: h5d.DatasetID, grid: ChunkGrid, wanted: Numbers | None, most: int, go_on: GoOn
) -> ChunkTable | None:
    """Return the stored chunks among `wanted`, by number; None = among all inside the extent.

    For the rare files whose own bytes are not read. In the library lane. Of libhdf5's calls only
    the one that lists is used: it writes into no buffer, and what it says wrongly of extensible
    arrays can be put right. Returns None when they are more than `most`.

    Raises:
        DamagedMetadata: libhdf5 cannot list them.
        and whatever `go_on` raises, which is called regularly.
    """
    rows: list[tuple[int, int, int, int]] = []
    chosen = None if wanted is None else set(wanted.tolist())
    rotation = _find_rotation(dataset, grid)
    stopped: list[BaseException] = []
    seen = 0

    def add(info: Any) -> bool | None:
        nonlocal seen
        seen += 1
        if seen % _LOOK_EVERY == 0:
            try:
                go_on()
            except BaseException as error:  # noqa: BLE001  # raised below, outside of libhdf5
                stopped.append(error)
                return True
        at = tuple(map(int.__floordiv__, info.chunk_offset, grid.chunks))
        if rotation is not None:
            at = rotation.undo(at)
        if info.byte_offset is not None and all(map(int.__lt__, at, grid.counts)):
            number = grid.number(at)
            if chosen is None or number in chosen:
                rows.append((number, info.byte_offset, info.size, info.filter_mask))
        return len(rows) > most or None

    go_on()
    try:
        dataset.chunk_iter(add)
    except (OSError, RuntimeError, ValueError, OverflowError) as error:
        raise DamagedMetadata(libhdf5_reason(error)) from error
    if stopped:
        raise stopped[0]
    if len(rows) > most:
        return None
    rows.sort()
    numbers, offsets, sizes, masks = zip(*rows, strict=True) if rows else ((), (), (), ())
    return ChunkTable(
        np.array(numbers, np.int64),
        np.array(offsets, np.uint64),
        np.array(sizes, np.uint64),
        np.array(masks, np.uint32),
    )


@dataclass(frozen=True, slots=True)
class _Rotation:
    """How libhdf5 reports the chunks of an extensible array whose unlimited axis is not the first.

    Their elements are in the C order of the grid with that axis first, and are counted as if it
    were not (H5D__earray_idx_iterate_cb in H5Dearray.c, HDF5 1.10 to 2.0).
    """

    axis: int
    """The unlimited one."""

    counts: tuple[int, ...]
    """Chunks along each axis at the most, without meaning for that one."""

    def undo(self, reported: Coordinates) -> Coordinates:
        """Return the coordinates of a chunk that are reported so."""
        axis, index = self.axis, 0
        # Those before the unlimited axis are never reached, since that has no end.
        for at, count in zip(reported[axis:], (0, *self.counts[axis + 1 :]), strict=True):
            index = index * count + at
        bounded = (*self.counts[:axis], *self.counts[axis + 1 :])
        along, index = divmod(index, math.prod(bounded))
        others: list[int] = []
        for count in reversed(bounded):
            index, at = divmod(index, count)
            others.insert(0, at)
        return (*others[:axis], along, *others[axis:])


def _find_rotation(dataset: h5d.DatasetID, grid: ChunkGrid) -> _Rotation | None:
    """Return how this dataset's coordinates are rotated; None where they are right."""
    most = dataset.get_space().get_simple_extent_dims(True)
    growing = [axis for axis, extent in enumerate(most) if extent == h5s.UNLIMITED]
    if len(growing) != 1 or growing == [0] or not is_rotating():
        return None
    if not _is_extensible_array(dataset):
        return None
    pairs = zip(most, grid.chunks, strict=True)
    counts = tuple(-(-int(extent) // chunk) for extent, chunk in pairs)
    return _Rotation(growing[0], counts)


@functools.cache
def is_rotating() -> bool:
    """Return whether this libhdf5 reports such coordinates, by a file in memory."""
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fapl_core(1 << 16, False)
    access.set_libver_bounds(h5f.LIBVER_V110, h5f.LIBVER_LATEST)
    file = h5f.create(b"asgihive, in memory", h5f.ACC_TRUNC, fapl=access)
    try:
        properties = h5p.create(h5p.DATASET_CREATE)
        properties.set_chunk((1, 1))
        space = h5s.create_simple((2, 1), (2, h5s.UNLIMITED))
        dataset = h5d.create(file, b"x", h5t.STD_I8LE, space, properties)
        dataset.write_direct_chunk((1, 0), b"\0")
        reported: list[tuple[int, ...]] = []
        dataset.chunk_iter(lambda info: reported.append(info.chunk_offset))
    finally:
        file.close()
    return reported != [(1, 0)]


# H5D_CHUNK_IDX_EARRAY (H5Dpublic.h).
_EXTENSIBLE_ARRAY = 4


def _is_extensible_array(dataset: h5d.DatasetID) -> bool:
    """Return whether the index of a dataset is an extensible array.

    Raises:
        DamagedMetadata: libhdf5 does not say it, so that nothing can be said of the dataset.
    """
    types = (ctypes.c_int64, ctypes.c_void_p)
    get_type = find_in_libhdf5("H5Dget_chunk_index_type", ctypes.c_int, *types)
    if get_type is None:
        raise DamagedMetadata("libhdf5 does not say of which kind its index is")
    kind = ctypes.c_int(-1)
    with phil:
        failed = get_type(dataset.id, ctypes.byref(kind)) < 0
    if failed:
        raise DamagedMetadata("libhdf5 does not know of which kind its index is")
    return kind.value == _EXTENSIBLE_ARRAY
