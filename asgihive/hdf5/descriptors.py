"""File descriptors: how many the process may have, and what it means that none is left."""

import errno
import logging
import re
import resource

_logger = logging.getLogger(__name__)

# For connections, the log, the libraries and whatever else an application opens.
_RESERVED_DESCRIPTORS = 256

_DESCRIPTORS_PER_FILE = 3

_EXHAUSTED = {errno.EMFILE, errno.ENFILE}

# How libhdf5 says it through h5py, which has no `errno` in its exceptions.
_ERRNO = re.compile(r"errno = (\d+)")


def is_exhaustion(error: BaseException) -> bool:
    """Return whether the process, or the system, could open no further file."""
    if isinstance(error, OSError) and error.errno in _EXHAUSTED:
        return True
    found = _ERRNO.search(str(error))
    return found is not None and int(found[1]) in _EXHAUSTED


def fit_open_files(wanted: int) -> int:
    """Return how many files may be open at once: `wanted`, or as many as the process may have.

    The soft limit of descriptors is raised as far as is needed and the hard one lets it. Each
    file that is open has one, libhdf5 may have a second one, and it may be sent as a whole at the
    same time, by a third one.
    """
    needed = _DESCRIPTORS_PER_FILE * wanted + _RESERVED_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (OSError, ValueError):  # macOS has a further limit for the whole system
        most = soft
    if most >= needed:
        return wanted
    left = most - min(_RESERVED_DESCRIPTORS, most // 2)
    fitting = min(wanted, max(1, left // _DESCRIPTORS_PER_FILE))
    _logger.warning(
        "max_open_files is %d instead of %d: the process may have %d file descriptors "
        "(`ulimit -n`), and %d are needed",
        *(fitting, wanted, most, needed),
    )
    return fitting
