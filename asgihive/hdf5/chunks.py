"""Chunked datasets, read and decoded past libhdf5, which trusts that chunks are whole.

A chunk that decodes to less than its size would be filled up by libhdf5 2.0 with what lay in its
memory. So what can be is read and decoded here, and what only libhdf5 can convert is decoded here
first. Where the chunks lie is read from the file's bytes, too. What is read of a chunk is never
more than its size may be, by what the layout says of it.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from h5py import h5d, h5p, h5t

from asgihive.concurrency import measured
from asgihive.hdf5.buffers import Array, Bytes
from asgihive.hdf5.cache import ChunkCache
from asgihive.hdf5.chunk_grid import (
    ChunkBox,
    ChunkGrid,
    ChunkPlace,
    ChunkTable,
    GoOn,
    Places,
    count_touched,
    cut_by_chunks,
    cut_by_stored_chunks,
    find_begin,
    find_only_box,
)
from asgihive.hdf5.chunk_index import ChunkIndex, DamagedChunk, open_index
from asgihive.hdf5.file_bytes import allow_waiting, read_bytes
from asgihive.hdf5.filters.contract import BadChunk, Room
from asgihive.hdf5.filters.pipeline import Pipeline, make_pipeline
from asgihive.hdf5.layout import Layout, has_edges_unfiltered
from asgihive.hdf5.objects import StoredObject
from asgihive.hdf5.open_file import OpenFile, libhdf5_reason
from asgihive.hdf5.plan import Axis
from asgihive.hdf5.remote import ByteRun
from asgihive.hdf5.types import without_dimensions
from asgihive.padding import has_padding, zero_padding

# Chunks remembered as whole, of those that libhdf5 reads.
_MAX_VERIFIED = 1 << 16

SPLIT_BYTES = 1 << 20
"""Less than that is decoded by one thread."""

CHUNKS_AT_ONCE = 1 << 14
"""So many chunks are read in one go; many more take turns with what else waits for a thread."""

# From so many chunks on, those that were never written are filled in one go.
_MANY_CHUNKS = 64

# What a thread that must not wait decodes all the same.
_INLINE_BYTES = 1 << 16

SENT_AT_ONCE_BYTES = 2 << 20
"""What the event loop reads of bytes in memory that are sent as they lie: in 0.3 ms or less."""

_ALL_FILTERS = -1

# What filters add at most to a raw chunk that is asked for ahead; a larger one is read in a lane.
_MOST_ADDED_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Box:
    """Some of the elements that are read."""

    axes: tuple[Axis, ...]
    target: tuple[slice, ...]
    """Where they go in what is read."""


class KeptChunk(NamedTuple):
    """A chunk of an open file."""

    address: int
    """Of its dataset in the file."""

    number: int
    """In the dataset."""


@dataclass(frozen=True, slots=True)
class RawChunk:
    """A stored chunk, as it lies in the file."""

    place: ChunkPlace
    content: Bytes
    """Nothing of a chunk that did not go through all filters."""

    is_filtered: bool
    """Whether it went through all filters, or there are none."""


@dataclass(slots=True, eq=False)
class ChunkedStorage:
    """The chunks of one open dataset."""

    file: OpenFile
    index: ChunkIndex
    pipeline: Pipeline
    cache: ChunkCache
    dtype: np.dtype[Any]
    item_shape: tuple[int, ...]
    """Of one element in memory, which is of `dtype`."""

    fill: Array | None
    """What was never written, in memory; None = only libhdf5 can say, or convert the rest."""

    edges_unfiltered: bool
    """Whether chunks that reach beyond the extent went through no filter."""

    needs_library: bool
    """Whether reading calls libhdf5, which is for the library lane alone."""

    is_kept: bool
    """Whether the cache may have a chunk in the form in which it is sent."""

    has_padding: bool
    """Whether what is decoded has padding, which is to be cleared."""

    verified: set[int] = field(init=False, default_factory=set)
    """Numbers of stored chunks that are known to be whole."""

    def read(self, axes: tuple[Axis, ...], places: Places, go_on: GoOn, *, keep: bool) -> Array:
        """Return the elements at `axes`, C-contiguous; perhaps what is kept, and so not writable.

        Args:
            axes: one a dimension.
            places: from `index.locate`.
            go_on: called before each chunk.
            keep: whether chunks that are wanted whole are likely to be asked for again.

        Raises:
            DamagedChunk: names the first chunk that is not whole.
            NoDecoder: a chunk went through a filter that is not installed.
            and whatever `go_on` raises.
        """
        box = find_only_box(axes, self.index.grid.chunks) if 0 not in self.item_shape else None
        if box is not None:
            go_on()
            taken = self._take(places, box, keep=keep)
            if taken is not self.fill:
                return np.ascontiguousarray(taken)
        values = np.empty((*(axis.count for axis in axes), *self.item_shape), self.dtype)
        if box is not None:
            values[...] = self.fill
        else:
            self.read_into(values, axes, places, go_on, keep=keep)
        return values

    def read_into(
        self,
        values: Array,
        axes: tuple[Axis, ...],
        places: Places,
        go_on: GoOn,
        *,
        keep: bool,
    ) -> None:
        """Overwrite `values`, of the shape that `read` would return; the rest as `read`."""
        grid = self.index.grid
        has_many = grid.is_numbered and count_touched(axes, grid.chunks) >= _MANY_CHUNKS
        if isinstance(places, ChunkTable) and has_many:
            values[...] = self.fill
            boxes = cut_by_stored_chunks(axes, grid, places)
        else:
            boxes = cut_by_chunks(axes, grid.chunks)
        for box in boxes:
            go_on()
            values[box.outside] = self._take(places, box, keep=keep)

    def read_raw_chunk(self, axes: tuple[Axis, ...], go_on: GoOn) -> RawChunk | None:
        """Return the one stored chunk that has all elements at `axes`; None = never written.

        As it lies in the file: no decoder looks at it, but its size is checked. In the library lane
        if the index `needs_library`.

        Raises:
            DamagedChunk, NeedsThread: and whatever `go_on` raises.
        """
        box, pipeline = find_only_box(axes, self.index.grid.chunks), self.pipeline
        assert box is not None  # noqa: S101  # who asks has cut the dataset by its chunks
        places = self.index.locate(axes, go_on)
        with _naming(box):
            place = places.get(self.index.grid.number(box.coordinates))
            if place is None:
                return None
            if pipeline.filters and self._find_mask(place, box):
                return RawChunk(place, np.empty(0, np.uint8), is_filtered=False)
            if pipeline.filters:
                pipeline.check_stored(place.size)
            else:
                Room(pipeline.chunk_bytes).check("it", place.size)
            if place.size > SENT_AT_ONCE_BYTES:
                allow_waiting()
            content = self._read_raw(place.offset, place.size)
            return RawChunk(place, content, is_filtered=True)

    def list_runs(
        self, axes: tuple[Axis, ...], places: Places | None, go_on: GoOn
    ) -> list[ByteRun]:
        """Return where the bytes of the file lie that `read` of the same elements will read.

        Without those of chunks that are kept decoded, and of chunks that will be found damaged.
        Raises as `index.locate`.
        """
        places, grid = places or self.index.locate(axes, go_on), self.index.grid
        if isinstance(places, ChunkTable) and grid.is_numbered:
            boxes = cut_by_stored_chunks(axes, grid, places)
        else:
            boxes = cut_by_chunks(axes, grid.chunks)
        runs = []
        for box in boxes:
            number = grid.number(box.coordinates)
            place = places.get(number)
            if place is None:
                continue
            if self.pipeline.filters:
                key = (self.file, self.index.dataset.address, number)
                if self.cache.find_kept(key) is not None:
                    continue
            with suppress(BadChunk):
                runs.append(self._find_run(place, box))
        return runs

    def _find_run(self, place: ChunkPlace, box: ChunkBox) -> ByteRun:
        """Return what is read of a chunk: all of it, if it is filtered or kept. Raises BadChunk."""
        if self.pipeline.is_applied(self._find_mask(place, box)):
            self.pipeline.check_stored(place.size)
            return place.offset, place.size
        Room(self.pipeline.chunk_bytes).check("it", place.size)
        start, stop = self._find_unfiltered(box)
        return place.offset + start, stop - start

    def find_raw_run(self, axes: tuple[Axis, ...], go_on: GoOn) -> ByteRun | None:
        """Return where the bytes lie that `read_raw_chunk` reads, None if there are none."""
        box = find_only_box(axes, self.index.grid.chunks)
        if box is None:
            return None
        place = self.index.locate(axes, go_on).get(self.index.grid.number(box.coordinates))
        if place is None or place.size > self.pipeline.chunk_bytes + _MOST_ADDED_BYTES:
            return None
        return place.offset, place.size

    def find_kept_chunk(self, axes: tuple[Axis, ...]) -> KeptChunk | None:
        """Return the chunk that these elements are all of, if such a chunk is ever kept."""
        grid = self.index.grid
        box = find_only_box(axes, grid.chunks) if self.is_kept else None
        if box is None or not box.is_whole(grid.chunks):
            return None
        return KeptChunk(self.index.dataset.address, grid.number(box.coordinates))

    def read_kept(self, axes: tuple[Axis, ...], most_copied: int) -> Array | None:
        """Return the elements at `axes`, as `read`, if they lie in a chunk that is kept.

        For the event loop: nothing is waited for, and more than `most_copied` bytes are returned
        only where nothing is copied.
        """
        grid = self.index.grid
        box = find_only_box(axes, grid.chunks) if self.is_kept else None
        if box is None:
            return None
        decoded = self.cache.find_kept(
            (self.file, self.index.dataset.address, grid.number(box.coordinates))
        )
        if decoded is None:
            return None
        chunk = decoded.view(self.dtype).reshape(*grid.chunks, *self.item_shape)
        taken = chunk[box.inside]
        if taken.nbytes > most_copied and taken.nbytes != decoded.nbytes:
            return None
        return np.ascontiguousarray(taken)

    def split(self, axes: tuple[Axis, ...], most: int) -> list[Box]:
        """Return `axes` cut between chunks into up to `most` boxes that are worth a thread each.

        Into more than that where a box would have more chunks than are read in one go.
        """
        chunks = self.index.grid.chunks
        touched = count = count_touched(axes, chunks)
        most = min(most, touched * self.pipeline.chunk_bytes // SPLIT_BYTES)
        if self.index.table is not None and self.index.grid.is_numbered:
            # Those that are not stored cost nothing.
            count = min(count, len(self.index.table.numbers))
        most = max(most, -(-count // CHUNKS_AT_ONCE))
        if most <= 1 or touched <= 1:
            return [Box(axes, ())]
        pairs = zip(axes, chunks, strict=True)
        along = [count_touched((axis,), (chunk,)) for axis, chunk in pairs]
        cut = along.index(max(along))
        most = min(most, along[cut])
        boxes = []
        for number in range(most):
            first, stop = (
                find_begin(axes[cut], chunks[cut], each * along[cut] // most)
                for each in (number, number + 1)
            )
            part = axes[cut].part(first, stop - first)
            target = (*(slice(None),) * cut, slice(first, stop))
            boxes.append(Box((*axes[:cut], part, *axes[cut + 1 :]), target))
        return boxes

    def find_written(self, axes: tuple[Axis, ...], go_on: GoOn) -> list[Box] | None:
        """Return the boxes of `axes` in chunks that were written; None when all were.

        Raises as `index.locate`.
        """
        places, grid = self.index.locate(axes, go_on), self.index.grid
        boxes, is_whole = [], True
        for box in cut_by_chunks(axes, grid.chunks):
            if places.get(grid.number(box.coordinates)) is None:
                is_whole = False
                continue
            pairs = zip(axes, box.outside, strict=True)
            cut = (axis.part(each.start, each.stop - each.start) for axis, each in pairs)
            boxes.append(Box(tuple(cut), box.outside))
        return None if is_whole else boxes

    def verify(self, axes: tuple[Axis, ...], go_on: GoOn) -> None:
        """Make sure that each chunk of `axes` is whole, before libhdf5 reads it.

        Raises:
            DamagedChunk, NoDecoder: as `read`, and whatever `go_on` raises.
        """
        places, grid = self.index.locate(axes, go_on), self.index.grid
        if isinstance(places, ChunkTable) and grid.is_numbered:
            boxes = cut_by_stored_chunks(axes, grid, places)
        else:
            boxes = cut_by_chunks(axes, grid.chunks)
        for box in boxes:
            go_on()
            number = grid.number(box.coordinates)
            if number in self.verified:
                continue
            is_written = self._decode(places, box) is not None
            if is_written and not self.file.live:
                if len(self.verified) >= _MAX_VERIFIED:
                    self.verified.clear()
                self.verified.add(number)

    def _take(self, places: Places, box: ChunkBox, *, keep: bool) -> Array:
        """Return what `box` has of its chunk; one fill value for one that was never written."""
        grid = self.index.grid
        # What is not filtered lies in the page cache, and chunks of a live file change.
        if self.file.live or not self.pipeline.filters:
            decoded = self._decode(places, box)
        else:
            # The rest of a chunk that is wanted in part is likely to be wanted next.
            keep = keep or not box.is_whole(grid.chunks)
            key = (self.file, self.index.dataset.address, grid.number(box.coordinates))
            decode = partial(self._decode, places, box)
            decoded = self.cache.get_or_decode(key, decode, keep=keep)
        if decoded is None:
            assert self.fill is not None  # noqa: S101  # libhdf5 reads where there is none
            return self.fill
        chunk: Array = decoded.view(self.dtype).reshape(*grid.chunks, *self.item_shape)
        return chunk[box.inside]

    @measured("decode")
    def _decode(self, places: Places, box: ChunkBox) -> Bytes | None:
        """Return the decoded chunk; None when it was never written."""
        grid, pipeline = self.index.grid, self.pipeline
        with _naming(box):
            place = places.get(grid.number(box.coordinates))
            if place is None:
                return None
            mask = self._find_mask(place, box)
            if not pipeline.is_applied(mask):
                decoded = self._read_unfiltered(place, box)
            else:
                if pipeline.chunk_bytes > _INLINE_BYTES:
                    allow_waiting()
                pipeline.check_stored(place.size)
                decoded = pipeline.decode(self._read_raw(place.offset, place.size), mask)
        if self.has_padding:
            return np.frombuffer(zero_padding(decoded.view(self.dtype)).tobytes(), np.uint8)
        return decoded

    def _find_mask(self, place: ChunkPlace, box: ChunkBox) -> int:
        """Return a bit for each filter that a chunk did not go through."""
        if self.edges_unfiltered and self.index.grid.is_partial(box.coordinates):
            return _ALL_FILTERS
        return place.filter_mask

    def _read_unfiltered(self, place: ChunkPlace, box: ChunkBox) -> Bytes:
        """Return a chunk that went through no filter; only what `box` needs, if it is not kept."""
        size = self.pipeline.chunk_bytes
        Room(size).check("it", place.size)
        start, stop = self._find_unfiltered(box)
        if stop - start == size:
            return self._read_raw(place.offset, size)
        raw = np.empty(size, np.uint8)
        raw[start:stop] = self._read_raw(place.offset + start, stop - start)
        return raw

    def _find_unfiltered(self, box: ChunkBox) -> tuple[int, int]:
        """Return the bytes that are read of a chunk without filters: all, if it may be kept."""
        size, chunks = self.pipeline.chunk_bytes, self.index.grid.chunks
        if self.pipeline.filters:
            return 0, size
        # From the first to the last element.
        first = last = 0
        for chosen, extent in zip(box.inside, chunks, strict=True):
            first = first * extent + chosen.start
            last = last * extent + chosen.stop - 1
        item_bytes = size // math.prod(chunks)
        return first * item_bytes, (last + 1) * item_bytes

    @measured("read")
    def _read_raw(self, offset: int, size: int) -> Bytes:
        stored = read_bytes(self.file.descriptor, size, offset)
        if len(stored) < size:
            message = f"the file ends {size - len(stored)} bytes before its end at"
            raise BadChunk(f"{message} {offset + size}")
        return np.frombuffer(stored, np.uint8)


@contextmanager
def _naming(box: ChunkBox) -> Iterator[None]:
    """Raise DamagedChunk, which names the chunk, where it cannot be read or decoded."""
    try:
        yield
    except BadChunk as error:
        raise DamagedChunk(box.coordinates, str(error)) from None
    except (OSError, RuntimeError, ValueError, OverflowError, MemoryError) as error:
        raise DamagedChunk(box.coordinates, libhdf5_reason(error)) from error


def open_chunks(  # noqa: PLR0913  # each is known already where a dataset is opened
    dataset: StoredObject,
    layout: Layout,
    *,
    dtype: np.dtype[Any],
    item_shape: tuple[int, ...],
    shape: tuple[int, ...],
    max_shape: tuple[int | None, ...],
    item_bytes: int,
    fill: Array | None,
    cache: ChunkCache,
) -> ChunkedStorage:
    """Return the chunks of a dataset.

    Args:
        dataset: as it was found.
        layout: how it is stored, in chunks.
        dtype: of one element in memory, of dimensions `item_shape`.
        item_shape: of one element, of an array type.
        shape: its extent.
        max_shape: how large it may become; None = without a limit.
        item_bytes: of one element in the file.
        fill: what an unwritten chunk holds; None = only libhdf5 can say, or convert the rest.
        cache: of decoded chunks.
    """
    chunks, is_filtered, file = layout.chunks or (), bool(layout.filters), dataset.file
    index = open_index(dataset, ChunkGrid(shape, chunks), max_shape, is_filtered=is_filtered)
    edges_unfiltered = index.edges_unfiltered
    if edges_unfiltered is None:
        edges_unfiltered = has_edges_unfiltered(layout.properties)
    pipeline = make_pipeline(layout.filters, math.prod(chunks) * item_bytes)
    needs_library = fill is None or pipeline.needs_library
    is_decoded = is_filtered and not (needs_library or file.live)
    return ChunkedStorage(
        file=file,
        index=index,
        pipeline=pipeline,
        cache=cache,
        dtype=dtype,
        item_shape=item_shape,
        fill=fill,
        edges_unfiltered=edges_unfiltered and is_filtered,
        needs_library=needs_library,
        is_kept=is_decoded and pipeline.chunk_bytes < cache.max_bytes,
        has_padding=is_filtered and fill is not None and has_padding(dtype),
    )


def find_fill(properties: h5p.PropDCID | None, dtype: np.dtype[Any]) -> Array | None:
    """Return what libhdf5 gives for a chunk that was never written; zeros where that is nothing.

    Args:
        properties: of the dataset, if they say anything.
        dtype: of an element in memory, an array type included.

    Returns:
        An array of no dimensions; None where only libhdf5 can say.
    """
    base, item_shape = without_dimensions(dtype)
    fill = np.zeros((), base)
    if properties is None or properties.get_fill_time() == h5d.FILL_TIME_NEVER:
        return fill
    if properties.fill_value_defined() != h5d.FILL_VALUE_USER_DEFINED:
        return fill
    if item_shape:
        # h5py has no way to ask for one of an array type.
        return None
    try:
        properties.get_fill_value(fill)
    except (OSError, RuntimeError, TypeError, ValueError):
        return None
    return fill


def find_stored_size(file: OpenFile, type_id: h5t.TypeID) -> int:
    """Return the bytes of an element in the file; of one in memory where it says nothing else."""
    size: int = type_id.get_size()
    if not type_id.detect_class(h5t.VLEN) and not type_id.detect_class(h5t.STRING):
        return size
    address_bytes, _ = file.handle.sizes
    return size + _count_pointer_growth(type_id, address_bytes)


def _count_pointer_growth(type_id: h5t.TypeID, address_bytes: int) -> int:
    """Return by how many bytes an element is larger in the file than in memory.

    What has a variable length is there a length and a place in a global heap, four bytes, an
    address and four bytes (HDF5 File Format Specification, section III.E); members of
    compounds move with it (H5T_set_loc).
    """
    match type_id:
        case h5t.TypeCompoundID():
            members = map(type_id.get_member_type, range(type_id.get_nmembers()))
            return sum(_count_pointer_growth(member, address_bytes) for member in members)
        case h5t.TypeArrayID():
            count = math.prod(type_id.get_array_dims())
            return int(count) * _count_pointer_growth(type_id.get_super(), address_bytes)
        case h5t.TypeVlenID():
            return 8 + address_bytes - int(type_id.get_size())
        case h5t.TypeStringID() if type_id.is_variable_str():
            return 8 + address_bytes - int(type_id.get_size())
    return 0
