"""Chunked datasets, read and decoded past libhdf5, which trusts that chunks are whole.

A chunk that decodes to less than its size would be filled up by libhdf5 2.0 with whatever lay
in its memory. So what can be is read and decoded here, and what only libhdf5 can convert is
decoded here first. Needed of libhdf5 is where the chunks lie, and that only once.
"""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from h5py import h5d, h5o, h5p

from asgihive.hdf5.chunk_cache import ChunkCache
from asgihive.hdf5.chunk_index import (
    ChunkGrid,
    ChunkIndex,
    ChunkPlace,
    DamagedChunk,
    Places,
)
from asgihive.hdf5.decoders import BadChunk, Bytes, Room, as_bytes
from asgihive.hdf5.filters import Pipeline, pipeline_of
from asgihive.hdf5.layout import Layout
from asgihive.hdf5.open_file import OpenFile, libhdf5_reason
from asgihive.hdf5.selection import Axis
from asgihive.hdf5.stored_size import stored_size
from asgihive.hdf5.types import without_dimensions
from asgihive.padding import has_padding, zero_padding
from asgihive.timings import measured

# Chunks remembered as whole, of those that libhdf5 reads.
_MAX_VERIFIED = 1 << 16

# Less than that is decoded by one thread.
_SHARE_BYTES = 1 << 20

# A chunk that is looked for and read in one call may be that much larger than it is decoded.
_READ_ALONE_SLACK = 1 << 12

_ALL_FILTERS = -1

Array = np.ndarray[Any, Any]

# Called before each chunk; raises when nobody waits for it any more.
Progress = Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Part:
    """What a selection takes of one chunk: `inside` the chunk, and `outside` where it goes."""

    coordinates: tuple[int, ...]
    inside: tuple[slice, ...]
    outside: tuple[slice, ...]

    def is_whole(self, chunks: tuple[int, ...]) -> bool:
        return all(
            (each.stop - each.start, each.step) == (chunk, 1)
            for each, chunk in zip(self.inside, chunks, strict=True)
        )


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

    def locate(self, axes: tuple[Axis, ...]) -> Places:
        """Where the chunks of `axes` lie, or those that are read already. In the library lane."""
        touched = [part.coordinates for part in _parts(axes, self.index.grid.chunks)]
        return self.index.locate(touched, self.pipeline.chunk_bytes + _READ_ALONE_SLACK)

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
        if math.prod(shape) and _touched(axes, self.index.grid.chunks) == 1:
            (part,) = _parts(axes, self.index.grid.chunks)
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
        for part in _parts(axes, self.index.grid.chunks):
            progress()
            values[part.outside] = self._taken(places, part, keep)

    def kept_chunk(self, axes: tuple[Axis, ...]) -> KeptChunk | None:
        """The chunk that these elements are all of, if such a chunk is ever kept."""
        if not self._is_ever_kept or _touched(axes, self.index.grid.chunks) != 1:
            return None
        (part,) = _parts(axes, self.index.grid.chunks)
        if not part.is_whole(self.index.grid.chunks):
            return None
        return KeptChunk(self.address, self.index.grid.number(part.coordinates))

    def read_at_hand(self, axes: tuple[Axis, ...], most_copied: int) -> Array | None:
        """The elements at `axes`, as `read` returns them, if they lie in a chunk that is kept.

        For the event loop: nothing is waited for, and more than `most_copied` bytes are returned
        only where nothing is copied.
        """
        grid = self.index.grid
        if not self._is_ever_kept or _touched(axes, grid.chunks) != 1:
            return None
        (part,) = _parts(axes, grid.chunks)
        raw = self.cache.at_hand((self.file, self.address, grid.number(part.coordinates)))
        if raw is None:
            return None
        taken = self._within(raw, part)
        if taken.nbytes > most_copied and taken.nbytes != raw.nbytes:
            return None
        return np.ascontiguousarray(taken)

    def shares(self, axes: tuple[Axis, ...], most: int) -> list[Share]:
        """`axes` cut between chunks into up to `most` parts that are worth a thread each."""
        chunks = self.index.grid.chunks
        touched = [_touched((axis,), (chunk,)) for axis, chunk in zip(axes, chunks, strict=True)]
        decoded = math.prod(touched) * self.pipeline.chunk_bytes
        most = min(most, decoded // _SHARE_BYTES, max(touched, default=1))
        if most <= 1:
            return [Share(axes, ())]
        cut = touched.index(max(touched))
        pieces = list(_cut(axes[cut], chunks[cut]))
        shares = []
        for number in range(most):
            first = pieces[number * len(pieces) // most][2].start
            stop = pieces[(number + 1) * len(pieces) // most - 1][2].stop
            part = axes[cut].part(first, stop - first)
            target = (*(slice(None),) * cut, slice(first, stop))
            shares.append(Share((*axes[:cut], part, *axes[cut + 1 :]), target))
        return shares

    def verify(self, axes: tuple[Axis, ...], progress: Progress) -> None:
        """Make sure that each chunk of `axes` is whole, before libhdf5 reads it.

        Raises:
            DamagedChunk, NoDecoder: as `read`, and whatever `progress` raises.
        """
        places = self.locate(axes)
        for part in _parts(axes, self.index.grid.chunks):
            progress()
            number = self.index.grid.number(part.coordinates)
            if number in self._verified:
                continue
            self._raw(places, part)
            if not self.file.live:
                if len(self._verified) >= _MAX_VERIFIED:
                    self._verified.clear()
                self._verified.add(number)

    def _taken(self, places: Places, part: _Part, keep: bool) -> Array:
        """What `part` wants of its chunk; one fill value for a chunk that was never written."""
        raw = self._decoded(places, part, keep)
        if raw is None:
            assert self.fill is not None  # noqa: S101  # who has none is read by libhdf5
            return self.fill
        return self._within(raw, part)

    def _within(self, raw: Bytes, part: _Part) -> Array:
        chunk_shape = (*self.index.grid.chunks, *self.item_shape)
        taken: Array = raw.view(self.dtype).reshape(chunk_shape)[part.inside]
        return taken

    def _decoded(self, places: Places, part: _Part, keep: bool) -> Bytes | None:
        """The raw bytes of the chunk; None when it was never written."""
        # What is not filtered lies in the page cache, and chunks of a live file change.
        if self.file.live or not self.pipeline.filters:
            return self._raw(places, part)
        key = (self.file, self.address, self.index.grid.number(part.coordinates))
        # The rest of a chunk that is wanted in parts is likely to be wanted next.
        keep = keep or not part.is_whole(self.index.grid.chunks)
        return self.cache.chunk(key, lambda: self._without_padding(places, part), keep=keep)

    def _without_padding(self, places: Places, part: _Part) -> Bytes | None:
        """The raw bytes of a chunk as they may be sent."""
        raw = self._raw(places, part)
        if raw is None or self.fill is None or not has_padding(self.dtype):
            return raw
        return as_bytes(zero_padding(raw.view(self.dtype)).tobytes())

    @measured("decode")
    def _raw(self, places: Places, part: _Part) -> Bytes | None:
        try:
            return self._read(places, part)
        except BadChunk as error:
            raise DamagedChunk(part.coordinates, str(error)) from None
        except (OSError, RuntimeError, ValueError, OverflowError, MemoryError) as error:
            raise DamagedChunk(part.coordinates, libhdf5_reason(error)) from error

    def _read(self, places: Places, part: _Part) -> Bytes | None:
        grid = self.index.grid
        found = places.find(grid.number(part.coordinates))
        if found is None:
            return None
        mask = found.filter_mask
        if self.edges_unfiltered and grid.is_partial(part.coordinates):
            mask = _ALL_FILTERS
        if not isinstance(found, ChunkPlace):
            return self.pipeline.decode(found.content, mask)
        if not self.pipeline.applies(mask):
            return self._unfiltered(found, part)
        if found.size > self.pipeline.most_stored:
            message = (
                f"{found.size} bytes are stored, for {self.pipeline.chunk_bytes} "
                f"at most {self.pipeline.most_stored} are expected"
            )
            raise BadChunk(message)
        return self.pipeline.decode(self._stored(found.offset, found.size), mask)

    def _unfiltered(self, place: ChunkPlace, part: _Part) -> Bytes:
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
    return ChunkedStorage(
        file=file,
        address=h5o.get_info(dataset).addr,
        dtype=base,
        item_shape=item_shape,
        fill=_fill(layout.properties, base, item_shape) if as_in_memory else None,
        edges_unfiltered=layout.edges_unfiltered,
        pipeline=pipeline_of(layout.filters, chunk_bytes),
        index=ChunkIndex(dataset, ChunkGrid(shape, chunks), keep=not file.live),
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


def _touched(axes: tuple[Axis, ...], chunks: tuple[int, ...]) -> int:
    """How many chunks the selection touches."""
    return math.prod(
        min(axis.count, (axis.stop - 1) // chunk - axis.start // chunk + 1) if axis.count else 0
        for axis, chunk in zip(axes, chunks, strict=True)
    )


def _parts(axes: tuple[Axis, ...], chunks: tuple[int, ...]) -> Iterator[_Part]:
    """What the selection takes of each chunk it touches, in C order."""
    if not axes:
        yield _Part((), (), ())
        return
    for before in _parts(axes[:-1], chunks[:-1]):
        for at, inside, outside in _cut(axes[-1], chunks[-1]):
            yield _Part(
                (*before.coordinates, at), (*before.inside, inside), (*before.outside, outside)
            )


def _cut(axis: Axis, chunk: int) -> Iterator[tuple[int, slice, slice]]:
    """Each chunk along one axis, what is selected inside it, and where that goes."""
    done = 0
    while done < axis.count:
        at, first = divmod(axis.start + done * axis.step, chunk)
        count = min(axis.count - done, -(-(chunk - first) // axis.step))
        inside = slice(first, first + (count - 1) * axis.step + 1, axis.step)
        yield at, inside, slice(done, done + count)
        done += count
