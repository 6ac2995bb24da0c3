"""Files that a writer has open for single-writer-multiple-reader access (SWMR)."""

import ctypes
import os

import h5py
from h5py import h5p

from asgihive.hdf5.directory import signature_offset

# Where the superblock (versions 2 and 3) holds its consistency flags, and the one that says
# that a SWMR writer has the file open (HDF5 File Format Specification, section II.A).
_FLAGS_OFFSET = 11
_SWMR_WRITING = 0x04

# A reader that finds a checksum wrong reads again, until the writer is done with what it writes.
# Before each attempt it sleeps twice as long, from a nanosecond on, and h5py lets nobody else
# run meanwhile: of the 100 attempts that are libhdf5's own limit, the last ones take centuries.
_ATTEMPTS = 22  # 4 ms in all


def is_written(descriptor: int, base: int) -> bool:
    """Whether a SWMR writer has an open file, which begins at `base`."""
    flags = os.pread(descriptor, 1, base + _FLAGS_OFFSET)
    return bool(flags) and bool(flags[0] & _SWMR_WRITING)


def seems_written(descriptor: int) -> bool:
    """The same of any file."""
    base = signature_offset(descriptor, os.fstat(descriptor).st_size)
    return base is not None and is_written(descriptor, base)


def reading_live(access: h5p.PropFAID) -> h5p.PropFAID | None:
    """`access` for files that are written; None where they cannot be read in bounded time."""
    live = access.copy()
    # h5py does not offer it, but what its modules are linked with is found through them.
    library = ctypes.CDLL(h5py.h5p.__file__)
    try:
        function = library.H5Pset_metadata_read_attempts
    except AttributeError:
        return None
    function.argtypes, function.restype = (ctypes.c_int64, ctypes.c_uint), ctypes.c_int
    return live if function(live.id, _ATTEMPTS) >= 0 else None
