"""Open datasets, read in hyperslabs without ever leaving the sandbox."""

import contextlib
import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import get_ident
from typing import Any

import numpy as np
from h5py import h5d, h5f, h5p, h5s, h5t

from asgihive.concurrency import measured
from asgihive.errors import (
    AsgihiveError,
    ChunkTooLarge,
    DamagedData,
    FilterMissing,
    TypeUnsupported,
)
from asgihive.hdf5.chunk_grid import Places, count_touched, walk_touched
from asgihive.hdf5.chunk_index import DamagedChunk
from asgihive.hdf5.chunks import ChunkedStorage, RawChunk
from asgihive.hdf5.file_bytes import NotPlain
from asgihive.hdf5.filters.pipeline import NoDecoder
from asgihive.hdf5.layout import Layout, LayoutKind
from asgihive.hdf5.linear import ContiguousStorage, RawStorage, list_segments
from asgihive.hdf5.objects import StoredObject
from asgihive.hdf5.open_file import OpenFile, libhdf5_reason, refusal_of
from asgihive.hdf5.plan import Axis
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.remote import ByteRun
from asgihive.hdf5.stored_metadata import MAX_STRINGS, read_strings
from asgihive.hdf5.types import (
    MemoryType,
    NoEquivalent,
    converted_type,
    memory_type,
    relabel_sequences,
    without_dimensions,
)
from asgihive.hdf5.virtual import VirtualLayout

Array = np.ndarray[Any, Any]

MANY_CHUNKS = 1 << 9
"""More chunks than that are read by a visit of their own, or by several."""

# What leads to strings of variable length, read in one go.
_MAX_TEXTS_BYTES = 1 << 16

# Chunks tried one by one to name the damaged one.
_MAX_CHUNKS_TRIED = 4096

# What reading raises, by whatever way.
READ_ERRORS = (
    *(OSError, RuntimeError, ValueError, TypeError, KeyError, MemoryError),
    *(NoEquivalent, NoDecoder, DamagedChunk),
)


@dataclass(slots=True, eq=False)
class Dataset:
    """An open dataset.

    Attributes:
        path: by which it was asked for.
        file: that it lies in.
        object: where it lies there.
        layout: how it is stored.
        virtual: of what it is made, if it is virtual.
        shape: of its dataspace; None = empty.
        max_shape: the largest extent of each dimension, None = without a limit; of a virtual
            dataset empty.
        dtype, item_shape: of one element in memory; an HDF5 array type has an `item_shape`.
        is_as_stored: whether the bytes of an element in the file are those of one in memory, once
            the filters are undone.
        description: its type as `/meta` shows it; shared, and not to be changed.
        item_bytes: of one element in memory, without what its pointers point to.
        contiguous: where its values lie as they lie in memory; None = they do not.
        texts: address and number of the bytes that lead to strings of variable length; None =
            they are no such strings, or not in one piece.
        chunked: its chunks, if it has any.
        needs_library: whether reading calls libhdf5, which is for the library lane alone.
    """

    path: str
    file: OpenFile
    object: StoredObject
    layout: Layout
    virtual: VirtualLayout | None
    shape: tuple[int, ...] | None
    max_shape: tuple[int | None, ...]
    dtype: np.dtype[Any]
    item_shape: tuple[int, ...]
    is_as_stored: bool
    description: dict[str, Any]
    item_bytes: int
    contiguous: ContiguousStorage | None
    texts: tuple[int, int] | None
    chunked: ChunkedStorage | None
    needs_library: bool
    _memory_type: MemoryType | None = None

    @property
    def id(self) -> h5d.DatasetID:
        """The dataset as libhdf5 has it open, see `StoredObject.id`."""
        dataset: h5d.DatasetID = self.object.id
        return dataset

    @property
    def memory_type(self) -> MemoryType:
        """How libhdf5 puts one element into memory. In the library lane."""
        if self._memory_type is None:
            self._memory_type = memory_type(self.id.get_type())
        return self._memory_type

    @measured("read")
    def read(
        self,
        lease: Lease,
        axes: tuple[Axis, ...],
        dtype: np.dtype[Any] | None = None,
        *,
        places: Places | None = None,
        keep: bool = True,
    ) -> Array:
        """Return the elements at `axes`, one axis per dimension, C-contiguous and read-only.

        Its shape is the axes' counts and `item_shape`; `dtype` converts as HDF5 converts. In the
        library lane where it `needs_library`, converts, or has to find chunks; not for virtual
        datasets, which a `virtual_sources.VirtualRead` puts together.

        Args:
            places: what `locate` said of these elements or more.
            keep: whether chunks that are wanted whole are likely to be asked for again.

        Raises:
            FileChanged: what was read may be a mixture.
            Released: the lease was, and what is not read yet will not be.
            FilterMissing, DamagedData, TypeUnsupported, LinkUnresolved
            ChunkTooLarge: a chunk or an element is more than the pool lets be in memory.
        """
        dtype = self.dtype if dtype is None else dtype
        with self.diagnosed(lease, axes):
            return self.read_unchecked(lease, axes, dtype, places, keep=keep)

    @measured("read")
    def read_into(
        self,
        values: Array,
        lease: Lease,
        axes: tuple[Axis, ...],
        places: Places | None,
        *,
        keep: bool,
    ) -> None:
        """Overwrite `values`, of the shape and type that `read` returns; the rest as `read`."""
        with self.diagnosed(lease, axes):
            if self.needs_library:
                values[...] = self.read_unchecked(lease, axes, self.dtype, places, keep=keep)
            elif self.contiguous is not None:
                self.contiguous.read_into(values, axes)
            elif self.chunked is not None:
                places = places or self.chunked.index.locate(axes, lease.go_on)
                self.chunked.read_into(values, axes, places, lease.go_on, keep=keep)

    @measured("read")
    def read_raw_chunk(self, lease: Lease, axes: tuple[Axis, ...]) -> RawChunk | None:
        """Return the chunk of `axes` as `ChunkedStorage.read_raw_chunk`. Raises as `read`."""
        assert self.chunked is not None  # noqa: S101  # who asks has cut the dataset by its chunks
        with self.diagnosed(lease, axes):
            return self.chunked.read_raw_chunk(axes, lease.go_on)

    def locate(self, lease: Lease, axes: tuple[Axis, ...]) -> Places | None:
        """Return where the chunks of `axes` lie if only libhdf5 can tell; None = `read` finds them.

        In the library lane. Raises as `read`.
        """
        chunked = self.chunked
        if chunked is None or chunked.needs_library or not chunked.index.needs_library:
            return None
        with self.diagnosed(lease, axes):
            return chunked.index.locate(axes, lease.go_on)

    def list_runs(
        self, lease: Lease, axes: tuple[Axis, ...], places: Places | None
    ) -> list[ByteRun]:
        """Return where the bytes of its file lie that `read`, past libhdf5, will read of them.

        Raises as `read`.
        """
        with self.diagnosed(lease, axes):
            if self.contiguous is not None:
                return self.contiguous.list_runs(axes)
            return [] if self.chunked is None else self.chunked.list_runs(axes, places, lease.go_on)

    def list_raw_runs(self, lease: Lease, axes: tuple[Axis, ...]) -> list[ByteRun]:
        """Return where the bytes of its file lie that `read_raw_chunk` will read. As that."""
        if self.chunked is None:
            return []
        with self.diagnosed(lease, axes):
            run = self.chunked.find_raw_run(axes, lease.go_on)
            return [] if run is None else [run]

    def has_many_chunks(self, axes: tuple[Axis, ...]) -> bool:
        """Return whether `axes` touch more chunks than are read in passing."""
        chunks = self.layout.chunks
        return chunks is not None and count_touched(axes, chunks) > MANY_CHUNKS

    @contextmanager
    def diagnosed(self, lease: Lease, axes: tuple[Axis, ...]) -> Iterator[None]:
        """Make a context to read `axes` in, which raises what says where an error is."""
        lease.go_on()
        limit, what, size = lease.pool.max_chunk_bytes, "element", self.item_bytes
        if size <= limit and self.chunked is not None and self.chunked.pipeline.filters:
            # What went through no filter is read in parts.
            what, size = "chunk", self.chunked.pipeline.chunk_bytes
        if size > limit:
            raise ChunkTooLarge(self.file.place.name, self.path, what, size, limit)
        try:
            yield
        except READ_ERRORS as error:
            lease.check()
            raise self._diagnosis(lease, axes, error) from error
        lease.check()

    def read_unchecked(
        self,
        lease: Lease,
        axes: tuple[Axis, ...],
        dtype: np.dtype[Any],
        places: Places | None,
        *,
        keep: bool,
    ) -> Array:
        """Return the elements as `read` does, which finds out whether they may be a mixture."""
        if self.contiguous is not None and dtype == self.dtype:
            return self.contiguous.read(axes)
        if self.texts is not None and dtype == self.dtype:
            with contextlib.suppress(NotPlain):
                return self._read_texts(axes, *self.texts)
        if self.layout.kind is LayoutKind.EXTERNAL:
            read = self._raw_storage(lease).read(axes, dtype, self._as_read(dtype))
            return read.reshape((*(axis.count for axis in axes), *self.item_shape))
        if self.chunked is not None:
            if self.chunked.fill is not None and dtype == self.dtype:
                places = places or self.chunked.index.locate(axes, lease.go_on)
                return self.chunked.read(axes, places, lease.go_on, keep=keep)
            self.chunked.verify(axes, lease.go_on)
            if has_fill_of_variable_length(self.layout.properties, self.memory_type):
                return self._read_written(lease, self.chunked, axes)
        return self._read_by_libhdf5(axes, dtype)

    def _read_texts(self, axes: tuple[Axis, ...], address: int, size: int) -> Array:
        """Read texts from the file's bytes; raise NotPlain where libhdf5 must read them."""
        file = self.file.metadata
        count = math.prod(self.shape or ())
        if file is None or count > MAX_STRINGS or size > _MAX_TEXTS_BYTES:
            raise NotPlain
        found = read_strings(file, file.read_page(address, size), count)
        chosen = tuple(slice(a.start, a.start + a.count * a.step, a.step) for a in axes)
        texts: Array = np.array(found.reshape(self.shape or ())[chosen], self.dtype)
        return texts

    def _read_written(self, lease: Lease, chunked: ChunkedStorage, axes: tuple[Axis, ...]) -> Array:
        """Return what was written, and the fill value of variable length elsewhere."""
        shares = chunked.find_written(axes, lease.go_on)
        if shares is None or self.layout.properties is None:
            return self._read_by_libhdf5(axes, self.dtype)
        fill = fill_of_variable_length(self.layout.properties, self.id.get_type(), self.memory_type)
        if self.memory_type.is_mislabelled:
            relabel_sequences(fill, self.dtype)
        values = np.empty((*(axis.count for axis in axes), *self.item_shape), self.dtype)
        flat = values.reshape(-1, *self.item_shape)
        for position in range(len(flat)):
            flat[position] = fill if self.item_shape else fill[()]
        for share in shares:
            lease.go_on()
            values[share.target] = self._read_by_libhdf5(share.axes, self.dtype)
        return values

    def _read_by_libhdf5(self, axes: tuple[Axis, ...], dtype: np.dtype[Any]) -> Array:
        # Zeros, not empty: HDF5 leaves elements untouched that were never written and have
        # no fill value, and what lay in memory before must not be sent.
        values = np.zeros((*(axis.count for axis in axes), *self.item_shape), dtype)
        memory_space = file_space = h5s.ALL
        if any(axis.count != extent for axis, extent in zip(axes, self.shape or (), strict=True)):
            counts = tuple(axis.count for axis in axes)
            memory_space = h5s.create_simple(counts)
            file_space = self.id.get_space()
            file_space.select_hyperslab(
                tuple(axis.start for axis in axes), counts, tuple(axis.step for axis in axes)
            )
        self.id.read(memory_space, file_space, values, self._as_read(dtype))
        if self.memory_type.is_mislabelled:
            relabel_sequences(values, self.dtype)
        return values

    def _as_read(self, dtype: np.dtype[Any]) -> h5t.TypeID:
        """Return the HDF5 type of elements of `dtype` in memory."""
        if dtype == self.dtype:
            return self.memory_type.id
        return converted_type(self.dtype, dtype, self.item_shape)

    def _raw_storage(self, lease: Lease) -> RawStorage:
        return RawStorage(
            lease=lease,
            file=self.file,
            path=self.path,
            segments=list_segments(self.layout.properties),
            shape=self.shape or (),
            file_type=self.id.get_type(),
        )

    def _diagnosis(self, lease: Lease, axes: tuple[Axis, ...], error: Exception) -> AsgihiveError:
        place = (self.file.place.name, self.path)
        match error:
            case NoEquivalent():
                return TypeUnsupported(*place, str(error))
            case NoDecoder():
                return FilterMissing(*place, error.filter.id, error.filter.name)
            case DamagedChunk():
                return DamagedData(*place, str(error))
        return self._diagnosis_of_libhdf5(lease, axes, error)

    def _diagnosis_of_libhdf5(
        self, lease: Lease, axes: tuple[Axis, ...], error: Exception
    ) -> AsgihiveError:
        place = (self.file.place.name, self.path)
        for each in self.layout.filters:
            if not each.available:
                return FilterMissing(*place, each.id, each.name)
        refusal = refusal_of(*place, error)
        if refusal is not None:
            return refusal
        reason = libhdf5_reason(error)
        chunk = self._damaged_chunk(lease, axes)
        if chunk is not None:
            return DamagedData(*place, f"chunk {chunk} ({reason})")
        return DamagedData(*place, reason)

    def _damaged_chunk(self, lease: Lease, axes: tuple[Axis, ...]) -> tuple[int, ...] | None:
        """Return the chunk coordinates (in chunks) of the first chunk that cannot be read alone."""
        if self.layout.chunks is None or not self.needs_library:
            return None
        touched = walk_touched(axes, self.layout.chunks)
        for coordinates in itertools.islice(touched, _MAX_CHUNKS_TRIED):
            corner = zip(coordinates, self.layout.chunks, strict=True)
            one = tuple(Axis(position * chunk, 1, 1) for position, chunk in corner)
            try:
                self.read_unchecked(lease, one, self.dtype, None, keep=False)
            except READ_ERRORS:
                return coordinates
        return None


# Elements of variable length that were never written, where others in the dataset were: libhdf5
# (2.0) writes their fill value into the file before it reads it, and fails with a file that is open
# for reading. h5py's way to ask for a fill value frees it twice, except of text. So what was
# written is read alone, and the fill value is taken of another dataset, in memory.


def has_fill_of_variable_length(properties: h5p.PropDCID | None, memory: MemoryType) -> bool:
    """Return whether a dataset has a fill value that libhdf5 cannot put beside what was written."""
    if properties is None or not memory.dtype.hasobject:
        return False
    is_given = properties.fill_value_defined() == h5d.FILL_VALUE_USER_DEFINED
    return bool(is_given and properties.get_fill_time() != h5d.FILL_TIME_NEVER)


def fill_of_variable_length(
    properties: h5p.PropDCID, type_id: h5t.TypeID, memory: MemoryType
) -> Array:
    """Return one element with the fill value, as h5py reads it.

    In the library lane.

    Args:
        properties: of a dataset that `has_fill_of_variable_length`.
        type_id: of that dataset, whose values are read as `memory` says.

    Returns:
        An array of the dimensions of the array type, or without any.
    """
    alone = properties.copy()
    alone.set_layout(h5d.CONTIGUOUS)
    if alone.get_nfilters():
        alone.remove_filter(_ALL_FILTERS)
    alone.set_alloc_time(h5d.ALLOC_TIME_LATE)
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fapl_core(backing_store=False)
    # libhdf5 refuses a second file of one name, even in memory, and other threads may be here.
    file = h5f.create(b"fill value %d" % get_ident(), fapl=access)
    try:
        dataset = h5d.create(file, b"x", type_id, h5s.create(h5s.SCALAR), alone)
        base, dimensions = without_dimensions(memory.dtype)
        values = np.zeros(dimensions, base)
        dataset.read(h5s.ALL, h5s.ALL, values, memory.id)
        return values
    finally:
        file.close()


_ALL_FILTERS = 0  # H5Z_FILTER_ALL
