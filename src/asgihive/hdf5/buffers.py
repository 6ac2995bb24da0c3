"""The memory of blocks and chunks: megabytes at a time, freed and needed again at once, or sent."""

from typing import Any

import numpy as np

# The most that glibc takes such a hint from, less what it adds itself (mallopt(3)).
_HINT_BYTES = (32 << 20) - (1 << 16)


def keep_freed_buffers() -> None:
    """Let the allocator keep what is freed for the next block, instead of giving it back.

    glibc gives large free memory back to the kernel, and each page that comes back is a fault:
    for decoded frames of 2 MiB that took more time than their decoding. It learns by itself: once
    a mapped buffer is freed, buffers of that size come from memory that is kept, of which twice
    as much may be free (mallopt(3), M_MMAP_THRESHOLD). So one is allocated, never touched, and
    freed. Elsewhere that does nothing. Harmless when repeated.
    """
    np.empty(_HINT_BYTES, np.uint8)


def all_of_bytes(view: memoryview | np.ndarray[Any, Any]) -> bytes | None:
    """The bytes object of which it shows all, if it does: that one needs no copy to be sent."""
    owner: Any = view
    while isinstance(owner, memoryview | np.ndarray):
        owner = owner.obj if isinstance(owner, memoryview) else owner.base
    return owner if isinstance(owner, bytes) and len(owner) == view.nbytes else None
