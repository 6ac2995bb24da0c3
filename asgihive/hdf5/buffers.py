"""Bytes: read from files, kept in memory, and cleared of padding before they leave the process.

Blocks and chunks are megabytes, freed and needed again at once, or sent.

Padding is bytes of an element that belong to no value, and must show nothing. NumPy copies the
elements of compounds member by member, and computes long doubles, but writes only ten of their
sixteen bytes, so that the padding of what it makes is what lay in memory before; and what a file
has there may come from the memory of the process that wrote it. So bytes that leave this process
go through `zero_padding`.
"""

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from asgihive.hdf5.remote import Descriptor

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Array = np.ndarray[Any, Any]

# Linux, preadv2(2): read from the page cache or not at all.
_NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)


def read_cached_bytes(descriptor: Descriptor, size: int, offset: int) -> bytes | None:
    """Return `size` bytes of a file if they are in memory; else None.

    For the event loop, which must not wait for a disk. Of a disk on Linux only. They are fewer
    only where the file ends.
    """
    if not isinstance(descriptor, int):
        return descriptor.find_bytes(size, offset)
    if not _NOWAIT:
        return None
    content, target = _make_bytes(size)
    try:
        read = os.preadv(descriptor, [target], offset, _NOWAIT)
    except OSError:
        return None
    if read < size and offset + read < os.fstat(descriptor).st_size:
        return None
    if content is None:
        return bytes(target[:read])
    return content if read == size else content[:read]


# Python's C API makes bytes to be filled before anything else sees them (PyBytes_FromStringAndSize,
# PyBytes_AsString). What is read into an array and then copied takes nearly twice as long.
_CAN_FILL_BYTES = sys.implementation.name == "cpython"
if _CAN_FILL_BYTES:
    # Declared on objects of their own: those of `ctypes.pythonapi` are shared.
    _new_bytes = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t)(
        ("PyBytes_FromStringAndSize", ctypes.pythonapi)
    )
    _find_address = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object)(
        ("PyBytes_AsString", ctypes.pythonapi)
    )
    _view_memory = ctypes.PYFUNCTYPE(
        ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int
    )(("PyMemoryView_FromMemory", ctypes.pythonapi))

_WRITABLE = 0x200  # PyBUF_WRITE

# Less is copied in no time; the shortest bytes are shared by all that are equal.
_LEAST_FILLED_BYTES = 1 << 12


def _make_bytes(size: int) -> tuple[bytes | None, memoryview]:
    """Return bytes and what fills them; None where they are to be copied from that."""
    if not _CAN_FILL_BYTES or size < _LEAST_FILLED_BYTES:
        return None, memoryview(bytearray(size))
    content: bytes = _new_bytes(None, size)
    return content, _view_memory(_find_address(content), size, _WRITABLE)


# The most that glibc takes such a hint from, less what it adds itself (mallopt(3)).
_HINT_BYTES = (32 << 20) - (1 << 16)

_M_ARENA_MAX, _M_PERTURB = -8, -6  # of malloc.h

# What the allocator fills new memory with is the complement of this.
_PERTURBED_TO_ZERO = 0xFF


def keep_freed_buffers() -> None:
    """Let the allocator keep what is freed for the next block, instead of giving it back.

    glibc gives large free memory back to the kernel, and each page that comes back is a fault:
    for decoded frames of 2 MiB that took more time than their decoding. It learns by itself: once
    a mapped buffer is freed, buffers of that size come from memory that is kept, and twice as
    much of that may be free (mallopt(3), M_MMAP_THRESHOLD). So one is allocated, never touched, and
    freed. Elsewhere that does nothing. Harmless when repeated.
    """
    np.empty(_HINT_BYTES, np.uint8)


def share_one_arena() -> None:
    """Let all threads allocate from the same memory; for processes that are this service's alone.

    glibc gives threads arenas of their own, and each keeps what was once needed at the same time
    there (mallopt(3), M_ARENA_MAX): under a mixed load a process with 40 MiB in use came to 320
    in some minutes, and so to 165 at once. Before threads are started. `MALLOC_ARENA_MAX` in the
    environment goes before; elsewhere it does nothing.
    """
    mallopt = _find_in_allocator("mallopt")
    if mallopt is not None and "MALLOC_ARENA_MAX" not in os.environ:
        mallopt(_M_ARENA_MAX, 1)


def trim_freed_memory() -> None:
    """Give what is freed and kept back to the system, whole pages of it (malloc_trim(3)).

    glibc does so by itself only at the end of its heap, where one small block that lives holds
    all that is free below. A thread that needs memory meanwhile waits, some 30 ms where 100 MiB are
    given back: for once in a while. Elsewhere it does nothing.
    """
    malloc_trim = _find_in_allocator("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


class _ZeroedMemory:
    """Counts the threads that want new memory to be zero; without any, it is as at the start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted = 0
        self._mallopt = _find_in_allocator("mallopt")
        setting = os.environ.get("MALLOC_PERTURB_", "")
        self._before = int(setting) if setting.isdecimal() else 0

    def change(self, number: int) -> None:
        if self._mallopt is None:
            return
        with self._lock:
            self._wanted += number
            self._mallopt(_M_PERTURB, _PERTURBED_TO_ZERO if self._wanted else self._before)


@contextmanager
def zeroed_memory() -> Iterator[None]:
    """Have the allocator clear all memory that it gives meanwhile, in all threads.

    For libraries that may show what they did not write. glibc does so (mallopt(3), M_PERTURB) but
    for blocks of up to a kilobyte that were freed in the same thread before; elsewhere this does
    nothing.
    """
    _zeroed.change(1)
    try:
        yield
    finally:
        _zeroed.change(-1)


def _find_in_allocator(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None


_zeroed = _ZeroedMemory()


def find_bytes(view: memoryview | np.ndarray[Any, Any]) -> bytes | None:
    """Return the bytes object that it shows, all and in order: that is sent without a copy."""
    in_order = view.c_contiguous if isinstance(view, memoryview) else view.flags.c_contiguous
    if not in_order:
        return None
    owner: Any = view
    while isinstance(owner, memoryview | np.ndarray):
        owner = owner.obj if isinstance(owner, memoryview) else owner.base
    return owner if isinstance(owner, bytes) and len(owner) == view.nbytes else None
