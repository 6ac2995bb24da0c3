"""Contiguous values whose bytes are NumPy's, read past libhdf5: `pread` is all it takes."""

import itertools
import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from asgihive.context import measured
from asgihive.hdf5.open_file import OpenFile
from asgihive.hdf5.plan import spans, windows
from asgihive.hdf5.selection import Axis

Array = np.ndarray[Any, Any]

_NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)

# Read at once of what is not wanted whole: little enough to stay in a core's own cache.
_WINDOW_BYTES = 1 << 19


@dataclass(frozen=True, slots=True)
class ContiguousStorage:
    """The values of one open dataset, `shape` elements of `dtype` and `item_shape` at `offset`."""

    file: OpenFile
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    item_shape: tuple[int, ...]

    @property
    def item_bytes(self) -> int:
        """Of one element."""
        return self.dtype.itemsize * math.prod(self.item_shape)

    def run(self, axes: tuple[Axis, ...]) -> tuple[int, int] | None:
        """Offset and number of the bytes of the file that are these elements, if they are."""
        runs = list(itertools.islice(spans(axes, self.shape), 2))
        if len(runs) != 1 or runs[0][2] != 1:
            return None
        start, count, _ = runs[0]
        return self.offset + start * self.item_bytes, count * self.item_bytes

    def read(self, axes: tuple[Axis, ...]) -> Array:
        """The elements at `axes`, C-contiguous; a single run of bytes is not copied any further."""
        shape = (*(axis.count for axis in axes), *self.item_shape)
        run = self.run(axes)
        if run is not None:
            offset, size = run
            stored = os.pread(self.file.descriptor, size, offset)
            while len(stored) < size:
                more = os.pread(self.file.descriptor, size - len(stored), offset + len(stored))
                # Zeros where the file ends, as libhdf5 has it.
                stored += more or bytes(size - len(stored))
            return np.frombuffer(stored, self.dtype).reshape(shape)
        values = np.empty(shape, self.dtype)
        self.read_into(values, axes)
        return values

    def read_into(self, values: Array, axes: tuple[Axis, ...]) -> None:
        """Overwrite `values`, of the shape that `read` would return."""
        scratch = np.empty(0, np.uint8)
        for window in windows(axes, self.shape, self.item_bytes, _WINDOW_BYTES):
            target = values[window.target]
            size = window.count * self.item_bytes
            offset = self.offset + window.first * self.item_bytes
            if window.inside is None and target.flags.c_contiguous:
                self._fill(target.reshape(-1).view(np.uint8), offset)
                continue
            if scratch.size < size:
                scratch = np.empty(size, np.uint8)
            self._fill(scratch[:size], offset)
            read = scratch[:size].view(self.dtype).reshape(*window.shape, *self.item_shape)
            target[...] = read if window.inside is None else read[window.inside]

    @measured("read")
    def read_at_once(self, run: tuple[int, int]) -> Array | None:
        """The elements of a `run`, flat, if the kernel has them in memory; else None."""
        stored = bytes_at_once(self.file.descriptor, run)
        return None if stored is None else np.frombuffer(stored, self.dtype)

    def _fill(self, part: np.ndarray[Any, np.dtype[np.uint8]], offset: int) -> None:
        """Read over `part`; zeros where the file ends."""
        view = part.data
        done = 0
        while done < len(view):
            read = os.preadv(self.file.descriptor, [view[done:]], offset + done)
            if not read:
                part[done:] = 0
                return
            done += read


def bytes_at_once(descriptor: int, run: tuple[int, int]) -> bytes | None:
    """Some bytes of a file from an offset on, if the kernel has them in memory; else None.

    For the event loop, which must not wait for a disk: RWF_NOWAIT (Linux, preadv2(2)) reads
    from the page cache or not at all.
    """
    offset, size = run
    if not _NOWAIT:
        return None
    buffer = bytearray(size)
    try:
        read = os.preadv(descriptor, [buffer], offset, _NOWAIT)
    except OSError:
        return None
    return bytes(buffer) if read == size else None
