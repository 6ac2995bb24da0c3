"""Datasets of every layout, read in hyperslabs without ever leaving the sandbox.

Everything here runs in the library lane.
"""

import itertools
import math
import os
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import numpy as np
from h5py import h5d, h5s, h5t

from asgihive.errors import (
    AsgihiveError,
    DamagedData,
    FilterMissing,
    KindMismatch,
    TypeUnsupported,
)
from asgihive.hdf5.chunks import ChunkedStorage, DamagedChunk, chunked_storage
from asgihive.hdf5.filters import NoDecoder
from asgihive.hdf5.layout import Layout, LayoutKind, layout_of
from asgihive.hdf5.links import PASSING, LinkResolution, Resolved, kind_of, walk
from asgihive.hdf5.names import components, encoded
from asgihive.hdf5.open_file import OpenFile, dataset_refreshed, libhdf5_reason
from asgihive.hdf5.plan import spans
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.raw_storage import RawStorage, raw_segments
from asgihive.hdf5.selection import Axis
from asgihive.hdf5.types import NoEquivalent, memory_type, numpy_dtype, without_dimensions
from asgihive.hdf5.virtual import VirtualLayout, fill_values, read_virtual, virtual_layout

# Virtual datasets made of virtual datasets: HDF5 sets no bound, and cycles are possible.
MAX_VIRTUAL_DEPTH = 8

_NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)

# Chunks tried one by one to name the damaged one.
_MAX_CHUNKS_TRIED = 4096

_READ_ERRORS = (
    *(OSError, RuntimeError, ValueError, TypeError, KeyError, MemoryError),
    *(NoEquivalent, NoDecoder, DamagedChunk),
)


@dataclass(slots=True, eq=False)
class Dataset:
    """An open dataset.

    shape: of its dataspace; None = empty.
    dtype, item_shape: of one element in memory; an HDF5 array type has an `item_shape`.
    offset: where contiguous values lie in the file as they lie in memory; None = they do not.
    chunked: its chunks, if it has any.
    memory_type: the HDF5 type of one element in memory.
    """

    path: str
    file: OpenFile
    id: h5d.DatasetID
    layout: Layout
    virtual: VirtualLayout | None
    shape: tuple[int, ...] | None
    dtype: np.dtype[Any]
    item_shape: tuple[int, ...]
    offset: int | None
    memory_type: h5t.TypeID
    chunked: ChunkedStorage | None
    max_hops: int
    depth: int = 0

    @property
    def item_bytes(self) -> int:
        """Bytes of one element in memory, without what its pointers point to."""
        return self.dtype.itemsize * math.prod(self.item_shape)

    def read(
        self, lease: Lease, axes: tuple[Axis, ...], dtype: np.dtype[Any] | None = None
    ) -> np.ndarray[Any, Any]:
        """The elements at `axes`, one axis per dimension, C-contiguous and not to be written to.

        Its shape is the axes' counts and `item_shape`; `dtype` converts as HDF5 converts.

        Raises:
            FileChanged: what was read may be a mixture.
            FilterMissing, DamagedData, TypeUnsupported, LinkUnresolved
        """
        dtype = self.dtype if dtype is None else dtype
        try:
            values = self._read(lease, axes, dtype)
        except _READ_ERRORS as error:
            lease.check()
            raise self._diagnosis(lease, axes, error) from error
        lease.check()
        return values

    def _read(
        self, lease: Lease, axes: tuple[Axis, ...], dtype: np.dtype[Any]
    ) -> np.ndarray[Any, Any]:
        shape = (*(axis.count for axis in axes), *self.item_shape)
        run = self.stored_run(axes) if dtype == self.dtype else None
        if run is not None:
            return self._read_run(*run).reshape(shape)
        if self.layout.kind is LayoutKind.EXTERNAL:
            return self._raw_storage(lease).read(axes, dtype).reshape(shape)
        if self.chunked is not None:
            fill = self.chunked.fill
            if fill is not None and dtype == self.dtype:
                return self.chunked.read(axes, fill)
            self.chunked.verify(axes)
        if self.virtual is not None:
            values = fill_values(self.layout.properties, shape, dtype)
            with _Sources(lease, self.file, self.max_hops, self.depth) as sources:
                read_virtual(self.virtual, axes, values, sources.open)
            return values
        # Zeros, not empty: HDF5 leaves elements untouched that were never written and have
        # no fill value, and what lay in memory before is nobody's business.
        values = np.zeros(shape, dtype)
        as_read = self.memory_type
        if dtype != self.dtype:
            as_read = h5t.py_create(np.dtype((dtype, self.item_shape)))
        memory_space = file_space = h5s.ALL
        if any(axis.count != extent for axis, extent in zip(axes, self.shape or (), strict=True)):
            counts = tuple(axis.count for axis in axes)
            memory_space = h5s.create_simple(counts)
            file_space = self.id.get_space()
            file_space.select_hyperslab(
                tuple(axis.start for axis in axes), counts, tuple(axis.step for axis in axes)
            )
        self.id.read(memory_space, file_space, values, as_read)
        return values

    def needs_library(self, axes: tuple[Axis, ...]) -> bool:
        """Whether reading these elements calls libhdf5, which is for the library lane alone."""
        chunked = self.chunked is not None and not self.chunked.needs_library
        return not chunked and self.stored_run(axes) is None

    def stored_run(self, axes: tuple[Axis, ...]) -> tuple[int, int] | None:
        """Offset and number of the bytes of the file that are these elements, if they are.

        Reading those needs no libhdf5, and so not the library lane either.
        """
        if self.offset is None or self.shape is None:
            return None
        runs = list(itertools.islice(spans(axes, self.shape), 2))
        if len(runs) != 1 or runs[0][2] != 1:
            return None
        start, count, _ = runs[0]
        return self.offset + start * self.item_bytes, count * self.item_bytes

    def read_at_once(self, lease: Lease, run: tuple[int, int]) -> np.ndarray[Any, Any] | None:
        """The elements of a `stored_run`, flat, if the kernel has them in memory; else None.

        For the event loop, which must not wait for a disk: RWF_NOWAIT (Linux, preadv2(2))
        reads from the page cache or not at all.

        Raises:
            FileChanged: what was read may be a mixture.
        """
        offset, size = run
        if not _NOWAIT:
            return None
        buffer = bytearray(size)
        try:
            read = os.preadv(self.file.descriptor, [buffer], offset, _NOWAIT)
        except OSError:
            return None
        if read != size:
            return None
        lease.check()
        return np.frombuffer(bytes(buffer), self.dtype)

    def _read_run(self, offset: int, size: int) -> np.ndarray[Any, Any]:
        """Bytes of the file, not copied any further; zeros where it ends, as libhdf5 has it."""
        stored = os.pread(self.file.descriptor, size, offset)
        while len(stored) < size:
            more = os.pread(self.file.descriptor, size - len(stored), offset + len(stored))
            stored += more or bytes(size - len(stored))
        return np.frombuffer(stored, self.dtype)

    def _raw_storage(self, lease: Lease) -> RawStorage:
        return RawStorage(
            lease=lease,
            file=self.file,
            path=self.path,
            segments=raw_segments(self.layout.properties),
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
        reason = libhdf5_reason(error)
        chunk = self._damaged_chunk(lease, axes)
        if chunk is not None:
            return DamagedData(*place, f"chunk {chunk} ({reason})")
        if "no appropriate function for conversion path" in str(error):
            return TypeUnsupported(*place, "HDF5 knows no conversion of its type to memory")
        return DamagedData(*place, reason)

    def _damaged_chunk(self, lease: Lease, axes: tuple[Axis, ...]) -> tuple[int, ...] | None:
        """The chunk coordinates (in chunks) of the first chunk that cannot be read alone."""
        if self.layout.chunks is None or not self.needs_library(axes):
            return None
        touched = [
            sorted({(axis.start + i * axis.step) // chunk for i in range(axis.count)})
            for axis, chunk in zip(axes, self.layout.chunks, strict=True)
        ]
        for coordinates in itertools.islice(itertools.product(*touched), _MAX_CHUNKS_TRIED):
            corner = zip(coordinates, self.layout.chunks, strict=True)
            one = tuple(Axis(position * chunk, 1, 1) for position, chunk in corner)
            try:
                self._read(lease, one, self.dtype)
            except _READ_ERRORS:
                return coordinates
        return None


def dataset_key(path: str) -> bytes:
    """By what the pool keeps the dataset at `path`."""
    return b"/".join(components(encoded(path)))


def find_dataset(lease: Lease, file: OpenFile, path: str, max_hops: int, depth: int = 0) -> Dataset:
    """The dataset at `path`; its file keeps it open for the next request.

    Raises:
        KindMismatch: something else is there.
        TypeUnsupported: its values cannot be held by NumPy.
        and whatever `walk` raises.
    """
    key = dataset_key(path)
    known = lease.pool.dataset(file, key)
    if isinstance(known, Dataset):
        return known
    entity = walk(lease, file, path, LinkResolution.ALL, max_hops)
    if not isinstance(entity, Resolved) or not isinstance(entity.id, h5d.DatasetID):
        kind = kind_of(entity).replace("_", " ")
        raise KindMismatch(file.place.name, entity.path, kind, "a dataset")
    dataset = _opened(lease, entity, max_hops, depth)
    # Its path and extent depend on this file alone.
    alone = len(lease.depends) == 1 and entity.file is file and not file.live
    if alone and dataset.virtual is None:
        index_bytes = 0 if dataset.chunked is None else dataset.chunked.index.bytes
        through_libhdf5 = dataset.chunked is not None and dataset.chunked.fill is None
        lease.pool.keep_dataset(
            file, key, dataset, chunk_cache=through_libhdf5, index_bytes=index_bytes
        )
    return dataset


def _opened(lease: Lease, entity: Resolved, max_hops: int, depth: int) -> Dataset:
    dataset_id = dataset_refreshed(entity.file, entity.id)
    entity = replace(entity, id=dataset_id)
    try:
        layout = layout_of(dataset_id)
        dtype = numpy_dtype(dataset_id.get_type())
        base, item_shape = without_dimensions(dtype)
        virtual = None
        if layout.kind is LayoutKind.VIRTUAL:
            virtual = virtual_layout(layout.properties)
        shape = dataset_shape(lease, entity, layout, max_hops, depth)
        as_in_memory = _as_in_memory(dataset_id, dtype)
        chunked = None
        if layout.kind is LayoutKind.CHUNKED and shape is not None:
            chunked = chunked_storage(
                entity.file,
                dataset_id,
                layout,
                dtype,
                shape,
                cache=lease.pool.chunks,
                as_in_memory=as_in_memory,
            )
        return Dataset(
            path=entity.path,
            file=entity.file,
            id=dataset_id,
            layout=layout,
            virtual=virtual,
            shape=shape,
            dtype=base,
            item_shape=item_shape,
            offset=dataset_id.get_offset() if as_in_memory else None,
            memory_type=memory_type(dataset_id.get_type(), dtype),
            chunked=chunked,
            max_hops=max_hops,
            depth=depth,
        )
    except NoEquivalent as error:
        raise TypeUnsupported(entity.file.place.name, entity.path, str(error)) from None
    except _READ_ERRORS as error:
        lease.check()
        reason = libhdf5_reason(error)
        raise DamagedData(entity.file.place.name, entity.path, reason) from error


def _as_in_memory(dataset: h5d.DatasetID, dtype: np.dtype[Any]) -> bool:
    """Whether what is stored are NumPy's bytes: an equal type, no pointers."""
    file_type = dataset.get_type()
    if dtype.hasobject or file_type.get_size() != dtype.itemsize:
        return False
    return bool(file_type == h5t.py_create(dtype, logical=True))


def dataset_shape(
    lease: Lease, entity: Resolved, layout: Layout, max_hops: int, depth: int = 0
) -> tuple[int, ...] | None:
    """The extent of a dataset, None = empty; of a virtual one, inside the sandbox alone."""
    virtual = virtual_layout(layout.properties) if layout.kind is LayoutKind.VIRTUAL else None
    if virtual is None or not virtual.written_shape:
        shape: tuple[int, ...] | None = entity.id.get_space().shape
        return shape
    with _Sources(lease, entity.file, max_hops, depth) as sources:
        return virtual.shape(sources.open)


@dataclass(slots=True)
class _BoundSource:
    """A source of a virtual dataset together with the lease that holds it."""

    dataset: Dataset
    lease: Lease

    @property
    def shape(self) -> tuple[int, ...] | None:
        return self.dataset.shape

    def read_as(self, axes: tuple[Axis, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        return self.dataset.read(self.lease, axes, dtype)


class _Sources:
    """Opens the sources of one virtual dataset, one at a time: there may be thousands."""

    def __init__(self, lease: Lease, file: OpenFile, max_hops: int, depth: int) -> None:
        self._parent = lease
        self._file = file
        self._max_hops = max_hops
        self._depth = depth
        self._lease: Lease | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._give_back()

    def open(self, file: str, dataset: str) -> _BoundSource | None:
        """The source called `dataset` in `file`; None where there is none to read."""
        self._give_back()
        if self._depth >= MAX_VIRTUAL_DEPTH:
            detail = f"virtual datasets nested more than {MAX_VIRTUAL_DEPTH} deep"
            raise NoEquivalent(detail)
        self._lease = lease = Lease(self._parent.pool)
        try:
            if file == ".":
                opened = lease.open(self._file.place)
            else:
                opened = lease.open_linked(self._file, file)
            found = find_dataset(lease, opened, dataset, self._max_hops, self._depth + 1)
        except PASSING:
            raise
        except TypeUnsupported as error:
            raise NoEquivalent(error.detail) from None
        except AsgihiveError:
            return None
        return _BoundSource(found, lease)

    def _give_back(self) -> None:
        if self._lease is not None:
            lease, self._lease = self._lease, None
            lease.release()
            self._parent.adopt(lease)
