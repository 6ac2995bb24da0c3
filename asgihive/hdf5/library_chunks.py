"""Where chunks lie by what libhdf5 says, of the rare files whose own bytes are not read.

Everything here runs in the library lane. Of libhdf5's calls only the one that lists is used: it
writes into no buffer, and what it says wrongly of extensible arrays can be put right.
"""

import ctypes
import functools
import math
from typing import Any

import numpy as np
from h5py import h5d, h5f, h5p, h5s, h5t
from h5py._objects import phil

from asgihive.hdf5.chunk_table import ChunkGrid, ChunkTable, GoOn, Numbers
from asgihive.hdf5.file_bytes import DamagedMetadata
from asgihive.hdf5.open_file import libhdf5_reason

# Chunks between two looks whether the request is over.
_LOOK_EVERY = 1 << 10


def list_by_library(
    dataset: h5d.DatasetID, grid: ChunkGrid, wanted: Numbers | None, most: int, go_on: GoOn
) -> ChunkTable | None:
    """The stored chunks among `wanted`, by number; None = among all inside the extent.

    Returns None when they are more than `most`.

    Raises:
        DamagedMetadata: libhdf5 cannot list them.
        and whatever `go_on` raises, which is called regularly.
    """
    rows: list[tuple[int, int, int, int]] = []
    chosen = None if wanted is None else set(wanted.tolist())
    rotation = _rotation(dataset, grid)
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


class _Rotation:
    """How libhdf5 reports the chunks of an extensible array whose unlimited axis is not the first.

    Their elements are in the C order of the grid with that axis first, and are counted as if it
    were not (H5D__earray_idx_iterate_cb in H5Dearray.c, HDF5 1.10 to 2.0).

    Args:
        axis: the unlimited one.
        counts: chunks along each axis at the most, without meaning for that one.
    """

    def __init__(self, axis: int, counts: tuple[int, ...]) -> None:
        self._axis = axis
        self._behind = counts[axis + 1 :]
        self._others = (*counts[:axis], *counts[axis + 1 :])

    def undo(self, reported: tuple[int, ...]) -> tuple[int, ...]:
        """The coordinates of a chunk that are reported so."""
        index = 0
        # Those before the unlimited axis are never reached, since that has no end.
        for at, count in zip(reported[self._axis :], (0, *self._behind), strict=True):
            index = index * count + at
        along, index = divmod(index, math.prod(self._others))
        others: list[int] = []
        for count in reversed(self._others):
            index, at = divmod(index, count)
            others.insert(0, at)
        return (*others[: self._axis], along, *others[self._axis :])


def _rotation(dataset: h5d.DatasetID, grid: ChunkGrid) -> _Rotation | None:
    """How to put right what is said of this dataset; None where it is right."""
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
    """Whether this libhdf5 reports such coordinates, by a file in memory; a later one may not."""
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
    """H5Dget_chunk_index_type, which h5py leaves out; found in the libhdf5 that h5py is linked to.

    Raises:
        DamagedMetadata: it is not there, so that nothing can be said of the dataset.
    """
    try:
        get_type = ctypes.CDLL(h5d.__file__).H5Dget_chunk_index_type
    except (AttributeError, OSError):
        raise DamagedMetadata("libhdf5 does not say of which kind its index is") from None
    kind = ctypes.c_int(-1)
    with phil:
        failed = get_type(ctypes.c_int64(dataset.id), ctypes.byref(kind)) < 0
    if failed:
        raise DamagedMetadata("libhdf5 does not know of which kind its index is")
    return kind.value == _EXTENSIBLE_ARRAY
