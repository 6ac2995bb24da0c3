"""Elements of variable length that were never written, where others in the dataset were.

libhdf5 (2.0) writes their fill value into the file before it reads it, and fails with a file that
is open for reading. h5py's way to ask for a fill value frees it twice, except of text. So what
was written is read alone, and the fill value is taken of another dataset, in memory.
"""

from threading import get_ident
from typing import Any

import numpy as np
from h5py import h5d, h5f, h5p, h5s, h5t

from asgihive.hdf5.types import MemoryType, without_dimensions

Array = np.ndarray[Any, Any]


def has_fill_of_variable_length(properties: h5p.PropDCID | None, memory: MemoryType) -> bool:
    """Whether a dataset has a fill value that libhdf5 cannot put beside what was written."""
    if properties is None or not memory.dtype.hasobject:
        return False
    is_given = properties.fill_value_defined() == h5d.FILL_VALUE_USER_DEFINED
    return bool(is_given and properties.get_fill_time() != h5d.FILL_TIME_NEVER)


def fill_of_variable_length(
    properties: h5p.PropDCID, type_id: h5t.TypeID, memory: MemoryType
) -> Array:
    """One element with the fill value, as h5py reads it.

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
