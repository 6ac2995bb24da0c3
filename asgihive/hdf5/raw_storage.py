"""External raw storage: values that lie in plain files, read inside the sandbox alone.

libhdf5 would open those files wherever their names lead. The layout is the contiguous one,
cut into segments of files (HDF5 Reference Manual, H5Pset_external).
"""

import itertools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from h5py import h5p, h5t

from asgihive.errors import FileChanged, FileForbidden, FileMissing, LinkUnresolved
from asgihive.hdf5.identity import Identity
from asgihive.hdf5.open_file import OpenFile
from asgihive.hdf5.plan import spans
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.sandbox import Place, open_regular
from asgihive.hdf5.selection import Axis
from asgihive.hdf5.types import NoEquivalent

# Read at once for elements that lie apart, of which only each `step`-th one is wanted.
_SPAN_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Segment:
    """`size` bytes of the storage: those of `file` from `offset` on."""

    file: str
    offset: int
    size: int


def raw_segments(properties: h5p.PropDCID) -> tuple[Segment, ...]:
    """The segments in the order of the storage; opens nothing."""
    stored = map(properties.get_external, range(properties.get_external_count()))
    return tuple(Segment(os.fsdecode(name), offset, size) for name, offset, size in stored)


@dataclass(frozen=True, slots=True)
class RawStorage:
    """The values of one dataset in external raw storage; `shape` is its extent."""

    lease: Lease
    file: OpenFile
    path: str
    segments: tuple[Segment, ...]
    shape: tuple[int, ...]
    file_type: h5t.TypeID

    def read(
        self, axes: tuple[Axis, ...], dtype: np.dtype[Any], memory_type: h5t.TypeID
    ) -> np.ndarray[Any, Any]:
        """The elements at `axes` in C order, flat, converted to `dtype` as HDF5 converts.

        Args:
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
            parts = (
                self._strided(files, start, count, step, item_bytes)
                for start, count, step in spans(axes, self.shape)
            )
            stored = np.concatenate(list(itertools.chain.from_iterable(parts)))
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

    def _strided(
        self, files: "_SegmentFiles", start: int, count: int, step: int, item_bytes: int
    ) -> Iterator[np.ndarray[Any, np.dtype[np.uint8]]]:
        """Each `step`-th of `count` elements from `start` on, with few bytes between in memory."""
        if step == 1:
            yield self._bytes(files, start * item_bytes, count * item_bytes)
            return
        together = max(1, _SPAN_BYTES // (step * item_bytes))
        for first in range(0, count, together * step):
            length = min((together - 1) * step + 1, count - first)
            span = self._bytes(files, (start + first) * item_bytes, length * item_bytes)
            yield span.reshape(length, item_bytes)[::step].reshape(-1)

    def _bytes(
        self, files: "_SegmentFiles", start: int, count: int
    ) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Bytes of the storage; zeros where a file ends too early, as libhdf5 has it."""
        wanted = np.zeros(count, np.uint8)
        base = 0
        for segment in self.segments:
            first, last = max(start, base), min(start + count, base + segment.size)
            if first < last:
                part = wanted.data[first - start : last - start]
                files.read_into(part, segment.file, segment.offset + first - base)
            base += segment.size
        return wanted


class _SegmentFiles:
    """The files of one read, each opened once, and unchanged between that and the end."""

    def __init__(self, storage: RawStorage) -> None:
        self._storage = storage
        self._opened: dict[str, tuple[Place, int, Identity]] = {}

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
            after = Identity.of(os.fstat(descriptor))
            os.close(descriptor)
            if not after.has_content_of(
                self._storage.lease.depends.setdefault(place.asked, before)
            ):
                changed = place
        if changed is not None:
            raise FileChanged(changed.name)

    def read_into(self, part: memoryview, name: str, offset: int) -> None:
        """Fill `part` as far as the file goes."""
        if name not in self._opened:
            self._opened[name] = self._open(name)
        _, descriptor, _ = self._opened[name]
        done = 0
        while done < len(part):
            piece = os.preadv(descriptor, [part[done:]], offset + done)
            if piece == 0:
                break
            done += piece

    def _open(self, name: str) -> tuple[Place, int, Identity]:
        storage = self._storage
        for place in storage.lease.pool.sandbox.linked(storage.file.place, name):
            try:
                descriptor = open_regular(place)
            except (FileMissing, FileForbidden):
                continue
            return place, descriptor, Identity.of(os.fstat(descriptor))
        detail = f"its external raw storage {name!r} is not in the served directory"
        raise LinkUnresolved(storage.file.place.name, storage.path, detail)
