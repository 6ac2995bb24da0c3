"""Values that lie one behind the other in C order: contiguous datasets, and external raw storage.

Contiguous values whose bytes are NumPy's are read past libhdf5: `pread` is all it takes. External
raw storage is the same layout, cut into segments of plain files (HDF5 Reference Manual,
H5Pset_external), which are read inside the sandbox alone: libhdf5 would open them wherever their
names lead.
"""

import math
import os
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from h5py import h5p, h5t

from asgihive.concurrency import measured
from asgihive.errors import FileChanged, FileForbidden, FileMissing, LinkUnresolved
from asgihive.hdf5.buffers import Array, Bytes, read_cached_bytes
from asgihive.hdf5.file_bytes import read_bytes, read_into
from asgihive.hdf5.open_file import OpenFile
from asgihive.hdf5.plan import Axis, find_run, plan_windows
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.remote import ByteRun, Descriptor, close_descriptor, identify
from asgihive.hdf5.sandbox import Identity, Place
from asgihive.hdf5.types import NoEquivalent

WINDOW_BYTES = 1 << 19
"""Read at once of what is not wanted whole: little enough to stay in a core's own cache."""


@dataclass(frozen=True, slots=True)
class ContiguousStorage:
    """The values of one open dataset, in one run of its file."""

    file: OpenFile
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    item_shape: tuple[int, ...]
    """Of one element, which is of `dtype`."""

    @property
    def item_bytes(self) -> int:
        """The size of one element."""
        return self.dtype.itemsize * math.prod(self.item_shape)

    def find_run(self, axes: tuple[Axis, ...]) -> tuple[int, int] | None:
        """Return offset and number of the bytes of the file that are these elements, if one run."""
        run, item_bytes = find_run(axes, self.shape), self.item_bytes
        return run and (self.offset + run[0] * item_bytes, run[1] * item_bytes)

    def list_runs(self, axes: tuple[Axis, ...]) -> list[ByteRun]:
        """Return where the bytes of the file lie that `read` of the same elements will read."""
        run = self.find_run(axes)
        if run is not None:
            return [run]
        windows = plan_windows(axes, self.shape, self.item_bytes, WINDOW_BYTES)
        return [
            (self.offset + each.first * self.item_bytes, each.count * self.item_bytes)
            for each in windows
        ]

    def read(self, axes: tuple[Axis, ...]) -> Array:
        """Return the elements at `axes`, C-contiguous; a single run is not copied any further."""
        shape = (*(axis.count for axis in axes), *self.item_shape)
        run = self.find_run(axes)
        if run is not None:
            offset, size = run
            stored = read_bytes(self.file.descriptor, size, offset)
            if len(stored) < size:
                # Zeros where the file ends, as libhdf5 has it.
                stored += bytes(size - len(stored))
            return np.frombuffer(stored, self.dtype).reshape(shape)
        values = np.empty(shape, self.dtype)
        self.read_into(values, axes)
        return values

    def read_into(self, values: Array, axes: tuple[Axis, ...]) -> None:
        """Overwrite `values`, of the shape that `read` would return."""
        scratch = np.empty(0, np.uint8)
        for window in plan_windows(axes, self.shape, self.item_bytes, WINDOW_BYTES):
            target = values[window.target]
            size = window.count * self.item_bytes
            offset = self.offset + window.first * self.item_bytes
            is_direct = window.inside is None and target.flags.c_contiguous
            if not is_direct and scratch.size < size:
                scratch = np.empty(size, np.uint8)
            part = target.reshape(-1).view(np.uint8) if is_direct else scratch[:size]
            # Zeros where the file ends.
            part[read_into(self.file.descriptor, part.data, offset) :] = 0
            if not is_direct:
                read = part.view(self.dtype).reshape(*window.shape, *self.item_shape)
                target[...] = read if window.inside is None else read[window.inside]

    @measured("read")
    def read_cached(self, run: tuple[int, int]) -> Array | None:
        """Return the elements of a run, flat, if the kernel has them in memory; else None."""
        offset, size = run
        stored = read_cached_bytes(self.file.descriptor, size, offset)
        if stored is None or len(stored) < size:
            return None
        return np.frombuffer(stored, self.dtype)


@dataclass(frozen=True, slots=True)
class Segment:
    """`size` bytes of raw storage: those of `file` from `offset` on."""

    file: str
    offset: int
    size: int


def list_segments(properties: h5p.PropDCID) -> tuple[Segment, ...]:
    """Return the segments in the order of the storage; opens nothing."""
    stored = map(properties.get_external, range(properties.get_external_count()))
    return tuple(Segment(os.fsdecode(name), offset, size) for name, offset, size in stored)


@dataclass(frozen=True, slots=True)
class RawStorage:
    """The values of one dataset in external raw storage."""

    lease: Lease
    file: OpenFile
    path: str
    segments: tuple[Segment, ...]
    shape: tuple[int, ...]
    """The dataset's extent."""

    file_type: h5t.TypeID

    def read(self, axes: tuple[Axis, ...], dtype: np.dtype[Any], memory_type: h5t.TypeID) -> Array:
        """Return the elements at `axes` in C order, flat, converted to `dtype` as HDF5 converts.

        Args:
            axes: one a dimension.
            dtype: of the elements in memory.
            memory_type: the HDF5 type of `dtype`, or an array type of it.

        Raises:
            LinkUnresolved: a segment's file is missing or lies outside the served directory.
            FileChanged: it changed while it was read.
            NoEquivalent: the elements are pointers, which mean nothing in a plain file.
        """
        if dtype.hasobject:
            detail = "variable-length values cannot lie in external raw storage"
            raise NoEquivalent(detail)
        item_bytes = self.file_type.get_size()
        with _SegmentFiles(self) as files:
            run = find_run(axes, self.shape)
            if run is not None:
                stored = self._read_bytes(files, run[0] * item_bytes, run[1] * item_bytes)
            else:
                items = np.empty((*(axis.count for axis in axes), item_bytes), np.uint8)
                for window in plan_windows(axes, self.shape, item_bytes, WINDOW_BYTES):
                    first, size = window.first * item_bytes, window.count * item_bytes
                    read = self._read_bytes(files, first, size).reshape(*window.shape, item_bytes)
                    items[window.target] = read if window.inside is None else read[window.inside]
                stored = items.reshape(-1)
        while isinstance(memory_type, h5t.TypeArrayID):
            memory_type = memory_type.get_super()
        size = memory_type.get_size()
        source_type = self.file_type
        scalars = stored.size // item_bytes
        while isinstance(source_type, h5t.TypeArrayID):
            scalars *= math.prod(source_type.get_array_dims())
            source_type = source_type.get_super()
        buffer = np.zeros(scalars * max(size, source_type.get_size()), np.uint8)
        buffer[: stored.size] = stored
        h5t.convert(source_type, memory_type, scalars, buffer)
        return buffer[: scalars * size].view(dtype)

    def _read_bytes(self, files: "_SegmentFiles", start: int, count: int) -> Bytes:
        """Return bytes of the storage; zeros where a file ends too early, as libhdf5 has it."""
        wanted = np.zeros(count, np.uint8)
        base = 0
        for segment in self.segments:
            first, last = max(start, base), min(start + count, base + segment.size)
            if first < last:
                descriptor = files.open(segment.file)
                target = wanted.data[first - start : last - start]
                read_into(descriptor, target, segment.offset + first - base)
            base += segment.size
        return wanted


class _SegmentFiles:
    """The files of one read, each opened once, and unchanged between that and the end."""

    def __init__(self, storage: RawStorage) -> None:
        self._storage = storage
        self._opened: dict[str, tuple[Place, Descriptor, Identity]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        changed = None
        for place, descriptor, before in self._opened.values():
            after = identify(descriptor)
            close_descriptor(descriptor)
            if not after.has_content_of(
                self._storage.lease.depends.setdefault(place.asked, before)
            ):
                changed = place
        if changed is not None:
            raise FileChanged(changed.name)

    def open(self, name: str) -> Descriptor:
        """Return the descriptor of a segment's file.

        Raises:
            LinkUnresolved: it is missing or lies outside the served directory.
        """
        if name in self._opened:
            return self._opened[name][1]
        storage = self._storage
        for place in storage.lease.pool.sandbox.linked(storage.file.place, name):
            try:
                descriptor = storage.lease.pool.sandbox.open(place)
            except (FileMissing, FileForbidden):
                continue
            self._opened[name] = (place, descriptor, identify(descriptor))
            return descriptor
        detail = f"its external raw storage {name!r} is not in the served directory"
        raise LinkUnresolved(storage.file.place.name, storage.path, detail)
