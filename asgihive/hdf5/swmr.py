"""Files that a writer has open: for single-writer-multiple-reader access (SWMR), or not."""

import ctypes
import fcntl
import os
import signal
import time

from h5py import h5p
from h5py._objects import phil

from asgihive.hdf5.file_bytes import find_in_libhdf5, read_bytes, signature_offset
from asgihive.hdf5.remote import Descriptor, identify

# Where the superblock (versions 2 and 3) holds its consistency flags, and the one that says
# that a SWMR writer has the file open (HDF5 File Format Specification, section II.A).
_FLAGS_OFFSET = 11
_WRITING = 0x01
_SWMR_WRITING = 0x04

SILENT_SECONDS = 60.0
"""How long a writer that cannot be seen may write nothing until it counts as dead.

It runs on another machine, or without locks and as another user.
"""

# Where Linux refuses a lease only if a program has the file open for writing. NFS refuses others.
_LEASING_FILE_SYSTEMS = {"ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs"}

# A reader that finds a checksum wrong reads again, until the writer is done with what it writes.
# Before each attempt it sleeps twice as long, from a nanosecond on, and h5py lets no other thread
# run meanwhile: of the 100 attempts that are libhdf5's own limit, the last ones take centuries.
_ATTEMPTS = 22  # 4 ms in all


def is_written(descriptor: int, base: int) -> bool:
    """Return whether a SWMR writer has an open file, which begins at `base`."""
    flags = os.pread(descriptor, 1, base + _FLAGS_OFFSET)
    return bool(flags) and bool(flags[0] & _SWMR_WRITING)


def seems_written(descriptor: int) -> bool:
    """Return the same of any file."""
    base = signature_offset(descriptor, os.fstat(descriptor).st_size)
    return base is not None and is_written(descriptor, base)


def is_being_written(descriptor: int) -> bool:
    """Return whether a program is writing an HDF5 file that libhdf5 cannot open.

    The flags in the file alone do not tell: they stay behind when a writer ends without closing
    it. It is a lock that libhdf5 holds while it writes, unless that is switched off, or that the
    operating system knows of a writer; where it cannot tell, that the flags say so and that the
    file was written lately.
    """
    status = os.fstat(descriptor)
    base = signature_offset(descriptor, status.st_size)
    if base is None and status.st_size:
        return False
    has_writer = _is_locked(descriptor) or _has_writer(descriptor, status.st_dev)
    if has_writer is not None:
        return has_writer
    return was_left_open(descriptor) and time.time() - status.st_mtime < SILENT_SECONDS


def was_left_open(descriptor: Descriptor) -> bool:
    """Return whether the flags in a file say that a writer has not closed it."""
    base = signature_offset(descriptor, identify(descriptor).size)
    if base is None:
        return False
    flags = read_bytes(descriptor, 1, base + _FLAGS_OFFSET)
    return bool(flags) and bool(flags[0] & _WRITING)


def _is_locked(descriptor: int) -> bool:
    """Return whether a program has an exclusive lock of a file, as libhdf5's writers have."""
    try:
        # Held for an instant, and only where libhdf5 refuses the file to each other program, too.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def _has_writer(descriptor: int, device: int) -> bool | None:
    """Return whether a program of this machine may write to an open file; None if not known.

    Linux gives a lease for reading only where there is none, and only to the file's owner.
    """
    if not hasattr(fcntl, "F_SETLEASE") or find_file_system(device) not in _LEASING_FILE_SYSTEMS:
        return None
    try:
        # Who opens it in this instant sends a signal: one that is ignored by default.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:
        return None
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def find_file_system(device: int) -> str | None:
    """Return the kind of file system that a device number stands for (proc(5), mountinfo)."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo") as mounts:
        for line in mounts:
            fields = line.split()
            if fields[2] == wanted:
                return fields[fields.index("-") + 1]
    return None


def reading_live(access: h5p.PropFAID) -> h5p.PropFAID | None:
    """Return `access` for files that are written; None where no bound of the time can be set."""
    live, types = access.copy(), (ctypes.c_int64, ctypes.c_uint)
    set_attempts = find_in_libhdf5("H5Pset_metadata_read_attempts", ctypes.c_int, *types)
    if set_attempts is None:
        return None
    with phil:
        return live if set_attempts(live.id, _ATTEMPTS) >= 0 else None
