"""Chunked datasets, read and decoded past libhdf5, which trusts that chunks are whole.

A chunk that decodes to less than its size would be filled up by libhdf5 2.0 with whatever lay
in its memory. So what can be is read and decoded here, and what only libhdf5 can convert is
decoded here first. Where the chunks lie is read from the file's bytes, too. What is read of a chunk
is never more than its size may be, by what the layout says of it.
"""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from h5py import h5d, h5p

from asgihive.context import measured
from asgihive.hdf5.chunk_cache import ChunkCache
from asgihive.hdf5.chunk_index import ChunkIndex, DamagedChunk, chunk_index
from asgihive.hdf5.chunk_parts import Part, begin_of, count_touched, parts_of, stored_parts
from asgihive.hdf5.chunk_table import ChunkGrid, ChunkPlace, ChunkTable, FoundChunks, Places
from asgihive.hdf5.decoders import BadChunk, Bytes, Room, as_bytes
from asgihive.hdf5.filters import Pipeline, pipeline_of
from asgihive.hdf5.layout import Layout, has_edges_unfiltered
from asgihive.hdf5.open_file import OpenFile, libhdf5_reason
from asgihive.hdf5.selection import Axis
from asgihive.hdf5.stored_size import stored_size
from asgihive.hdf5.types import without_dimensions
from asgihive.padding import has_padding, zero_padding

# Chunks remembered as whole, of those that libhdf5 reads.
_MAX_VERIFIED = 1 << 16

# Less than that is decoded by one thread.
_SHARE_BYTES = 1 << 20

# So many chunks are read in one go; many more take turns with what else waits for a thread.
_SHARE_CHUNKS = 1 << 14

# From so many chunks on, those that were never written are filled in one go.
_MANY_CHUNKS = 64

_ALL_FILTERS = -1

Array = np.ndarray[Any, Any]

# Called before each chunk; raises when nobody waits for it any more.
Progress = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Share:
    """A part of what is read: its `axes`, and where it goes."""

    axes: tuple[Axis, ...]
    target: tuple[slice, ...]


class KeptChunk(NamedTuple):
    """A chunk by the address of its dataset in its file, and by its number in the dataset."""

    address: int
    number: int


@dataclass(slots=True, eq=False)
class ChunkedStorage:
    """The chunks of one open dataset.

    address: of the dataset in its file.
    dtype, item_shape: of one element in memory.
    fill: what was never written, in memory; None = only libhdf5 can say, or convert the rest.
    """

    file: OpenFile
    address: int
    dtype: np.dtype[Any]
    item_shape: tuple[int, ...]
    fill: Array | None
    edges_unfiltered: bool
    pipeline: Pipeline
    index: ChunkIndex
    cache: ChunkCache
    _verified: set[int] = field(default_factory=set)

    @property
    def needs_library(self) -> bool:
        """Whether reading calls libhdf5, which is for the library lane alone."""
        return self.fill is None or self.pipeline.needs_library

    @property
    def _is_ever_kept(self) -> bool:
        """Whether the cache may have a chunk in the form in which it is sent."""
        is_decoded = bool(self.pipeline.filters) and not (self.needs_library or self.file.live)
        return is_decoded and self.pipeline.chunk_bytes < self.cache.max_bytes

    def locate(self, axes: tuple[Axis, ...], progress: Progress) -> Places:
        """Where the chunks of `axes` lie. In the library lane if the index `needs_library`.

        Raises:
            DamagedChunk: names a chunk that cannot be found.
            and whatever `progress` raises.
        """
        if not all(axis.count for axis in axes):
            return FoundChunks({})
        return self.index.locate(axes, progress)

    def read(
        self, axes: tuple[Axis, ...], places: Places, progress: Progress, *, keep: bool
    ) -> Array:
        """The elements at `axes`, C-contiguous; perhaps what is kept, and so not to be written.

        Args:
            places: from `locate`.
            progress: asked before each chunk.
            keep: whether chunks that are wanted whole are likely to be asked for again.

        Raises:
            DamagedChunk: names the first chunk that is not whole.
            NoDecoder: a chunk went through a filter that is not installed.
            and whatever `progress` raises.
        """
        shape = (*(axis.count for axis in axes), *self.item_shape)
        if math.prod(shape) and count_touched(axes, self.index.grid.chunks) == 1:
            (part,) = parts_of(axes, self.index.grid.chunks)
            progress()
            taken = self._taken(places, part, keep)
            if taken.shape == shape:
                return np.ascontiguousarray(taken)
            return np.full(shape, taken, self.dtype)
        values = np.empty(shape, self.dtype)
        self.read_into(values, axes, places, progress, keep=keep)
        return values

    def read_into(
        self,
        values: Array,
        axes: tuple[Axis, ...],
        places: Places,
        progress: Progress,
        *,
        keep: bool,
    ) -> None:
        """Overwrite `values`, of the shape that `read` would return; the rest as `read`."""
        for part in self._parts(values, axes, places):
            progress()
            values[part.outside] = self._taken(places, part, keep)

    def kept_chunk(self, axes: tuple[Axis, ...]) -> KeptChunk | None:
        """The chunk that these elements are all of, if such a chunk is ever kept."""
        if not self._is_ever_kept or count_touched(axes, self.index.grid.chunks) != 1:
            return None
        (part,) = parts_of(axes, self.index.grid.chunks)
        if not part.is_whole(self.index.grid.chunks):
            return None
        return KeptChunk(self.address, self.index.grid.number(part.coordinates))

    def read_at_hand(self, axes: tuple[Axis, ...], most_copied: int) -> Array | None:
        """The elements at `axes`, as `read` returns them, if they lie in a chunk that is kept.

        For the event loop: nothing is waited for, and more than `most_copied` bytes are returned
        only where nothing is copied.
        """
        grid = self.index.grid
        if not self._is_ever_kept or count_touched(axes, grid.chunks) != 1:
            return None
        (part,) = parts_of(axes, grid.chunks)
        raw = self.cache.at_hand((self.file, self.address, grid.number(part.coordinates)))
        if raw is None:
            return None
        taken = self._within(raw, part)
        if taken.nbytes > most_copied and taken.nbytes != raw.nbytes:
            return None
        return np.ascontiguousarray(taken)

    def shares(self, axes: tuple[Axis, ...], most: int) -> list[Share]:
        """`axes` cut between chunks into up to `most` parts that are worth a thread each.

        Into more than that where a part would have more chunks than are read in one go.
        """
        chunks = self.index.grid.chunks
        touched = [
            count_touched((axis,), (chunk,)) for axis, chunk in zip(axes, chunks, strict=True)
        ]
        decoded = math.prod(touched) * self.pipeline.chunk_bytes
        most = max(min(most, decoded // _SHARE_BYTES), self._visits(math.prod(touched)))
        most = min(most, max(touched, default=1))
        if most <= 1:
            return [Share(axes, ())]
        cut = touched.index(max(touched))
        shares = []
        for number in range(most):
            first, stop = (
                begin_of(axes[cut], chunks[cut], each * touched[cut] // most)
                for each in (number, number + 1)
            )
            part = axes[cut].part(first, stop - first)
            target = (*(slice(None),) * cut, slice(first, stop))
            shares.append(Share((*axes[:cut], part, *axes[cut + 1 :]), target))
        return shares

    def verify(self, axes: tuple[Axis, ...], progress: Progress) -> None:
        """Make sure that each chunk of `axes` is whole, before libhdf5 reads it.

        Raises:
            DamagedChunk, NoDecoder: as `read`, and whatever `progress` raises.
        """
        places = self.locate(axes, progress)
        grid = self.index.grid
        parts = parts_of(axes, grid.chunks)
        if isinstance(places, ChunkTable) and grid.is_numbered:
            parts = stored_parts(axes, grid, places)
        for part in parts:
            progress()
            number = grid.number(part.coordinates)
            if number in self._verified:
                continue
            self._raw(places, part)
            if not self.file.live:
                if len(self._verified) >= _MAX_VERIFIED:
                    self._verified.clear()
                self._verified.add(number)

    def _visits(self, touched: int) -> int:
        """In how many goes that many chunks are read; those that are not stored cost nothing."""
        table = self.index.table
        if table is not None and self.index.grid.is_numbered:
            touched = min(touched, len(table.numbers))
        return -(-touched // _SHARE_CHUNKS)

    def _parts(self, values: Array, axes: tuple[Axis, ...], places: Places) -> Iterator[Part]:
        """What is to be read of each chunk, in `values` where the rest is filled."""
        grid = self.index.grid
        if count_touched(axes, grid.chunks) < _MANY_CHUNKS or not grid.is_numbered:
            return parts_of(axes, grid.chunks)
        if not isinstance(places, ChunkTable):
            return parts_of(axes, grid.chunks)
        values[...] = self.fill
        return stored_parts(axes, grid, places)

    def written_shares(self, axes: tuple[Axis, ...], progress: Progress) -> list[Share] | None:
        """The parts of `axes` in chunks that were written; None when all were.

        Raises as `locate`.
        """
        places, grid = self.locate(axes, progress), self.index.grid
        shares, is_whole = [], True
        for part in parts_of(axes, grid.chunks):
            if places.find(grid.number(part.coordinates)) is None:
                is_whole = False
                continue
            cut = (
                axis.part(outside.start, outside.stop - outside.start)
                for axis, outside in zip(axes, part.outside, strict=True)
            )
            shares.append(Share(tuple(cut), part.outside))
        return None if is_whole else shares

    def _taken(self, places: Places, part: Part, keep: bool) -> Array:
        """What `part` wants of its chunk; one fill value for a chunk that was never written."""
        raw = self._decoded(places, part, keep)
        if raw is None:
            assert self.fill is not None  # noqa: S101  # who has none is read by libhdf5
            return self.fill
        return self._within(raw, part)

    def _within(self, raw: Bytes, part: Part) -> Array:
        chunk_shape = (*self.index.grid.chunks, *self.item_shape)
        taken: Array = raw.view(self.dtype).reshape(chunk_shape)[part.inside]
        return taken

    def _decoded(self, places: Places, part: Part, keep: bool) -> Bytes | None:
        """The raw bytes of the chunk; None when it was never written."""
        # What is not filtered lies in the page cache, and chunks of a live file change.
        if self.file.live or not self.pipeline.filters:
            return self._raw(places, part)
        key = (self.file, self.address, self.index.grid.number(part.coordinates))
        # The rest of a chunk that is wanted in parts is likely to be wanted next.
        keep = keep or not part.is_whole(self.index.grid.chunks)
        return self.cache.chunk(key, lambda: self._without_padding(places, part), keep=keep)

    def _without_padding(self, places: Places, part: Part) -> Bytes | None:
        """The raw bytes of a chunk as they may be sent."""
        raw = self._raw(places, part)
        if raw is None or self.fill is None or not has_padding(self.dtype):
            return raw
        return as_bytes(zero_padding(raw.view(self.dtype)).tobytes())

    @measured("decode")
    def _raw(self, places: Places, part: Part) -> Bytes | None:
        try:
            return self._read(places, part)
        except BadChunk as error:
            raise DamagedChunk(part.coordinates, str(error)) from None
        except (OSError, RuntimeError, ValueError, OverflowError, MemoryError) as error:
            raise DamagedChunk(part.coordinates, libhdf5_reason(error)) from error

    def _read(self, places: Places, part: Part) -> Bytes | None:
        grid = self.index.grid
        found = places.find(grid.number(part.coordinates))
        if found is None:
            return None
        mask = found.filter_mask
        if self.edges_unfiltered and grid.is_partial(part.coordinates):
            mask = _ALL_FILTERS
        if not self.pipeline.applies(mask):
            return self._unfiltered(found, part)
        if found.size > self.pipeline.most_stored:
            message = (
                f"{found.size} bytes are stored, for {self.pipeline.chunk_bytes} "
                f"at most {self.pipeline.most_stored} are expected"
            )
            raise BadChunk(message)
        return self.pipeline.decode(self._stored(found.offset, found.size), mask)

    def _unfiltered(self, place: ChunkPlace, part: Part) -> Bytes:
        """The chunk as it lies in the file; if it is not kept, only its bytes that `part` needs."""
        size = self.pipeline.chunk_bytes
        Room(size).check("it", place.size)
        start, stop = self._span(part.inside)
        if stop - start == size or self.pipeline.filters:
            return self._stored(place.offset, size)
        raw = np.empty(size, np.uint8)
        raw[start:stop] = self._stored(place.offset + start, stop - start)
        return raw

    def _span(self, inside: tuple[slice, ...]) -> tuple[int, int]:
        """From the first to behind the last of those elements, in bytes of the chunk."""
        first = last = 0
        for chosen, extent in zip(inside, self.index.grid.chunks, strict=True):
            first = first * extent + chosen.start
            last = last * extent + chosen.stop - 1
        item_bytes = self.pipeline.chunk_bytes // math.prod(self.index.grid.chunks)
        return first * item_bytes, (last + 1) * item_bytes

    @measured("read")
    def _stored(self, offset: int, size: int) -> Bytes:
        stored = os.pread(self.file.descriptor, size, offset)
        while len(stored) < size:
            more = os.pread(self.file.descriptor, size - len(stored), offset + len(stored))
            if not more:
                message = f"the file ends {size - len(stored)} bytes before its end at"
                raise BadChunk(f"{message} {offset + size}")
            stored += more
        return as_bytes(stored)


def chunked_storage(  # noqa: PLR0913  # each is known already where a dataset is opened
    file: OpenFile,
    dataset: h5d.DatasetID,
    layout: Layout,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    *,
    cache: ChunkCache,
    as_in_memory: bool,
) -> ChunkedStorage:
    """The chunks of `dataset`; `as_in_memory`: what they decode to is NumPy's bytes."""
    chunks = layout.chunks or ()
    chunk_bytes = math.prod(chunks) * stored_size(file, dataset.get_type())
    base, item_shape = without_dimensions(dtype)
    index = chunk_index(file, dataset, ChunkGrid(shape, chunks), is_filtered=bool(layout.filters))
    edges_unfiltered = index.edges_unfiltered
    if edges_unfiltered is None:
        edges_unfiltered = has_edges_unfiltered(layout.properties)
    return ChunkedStorage(
        file=file,
        address=index.address,
        dtype=base,
        item_shape=item_shape,
        fill=_fill(layout.properties, base, item_shape) if as_in_memory else None,
        edges_unfiltered=edges_unfiltered and bool(layout.filters),
        pipeline=pipeline_of(layout.filters, chunk_bytes),
        index=index,
        cache=cache,
    )


def _fill(
    properties: h5p.PropDCID | None, dtype: np.dtype[Any], item_shape: tuple[int, ...]
) -> Array | None:
    """What libhdf5 gives for a chunk that was never written; zeros where that is nothing."""
    fill = np.zeros((), dtype)
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
