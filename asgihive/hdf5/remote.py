"""What stands for an open file: a descriptor, or one content of an object in a store.

All that is read of a file past libhdf5 is read from a `Descriptor`, and the rooms above ask here
what differs. `asgihive.object_stores` has the other form, which this room does not know.
"""

import os
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from h5py import h5f, h5p

from asgihive.hdf5.sandbox import Identity

ByteRun = tuple[int, int]
"""Offset and number of bytes of a file."""


class RemoteFile(Protocol):
    """One content of an object in a store, read by ranges; its bytes are never of another one."""

    @property
    def identity(self) -> Identity:
        """Of this content; another content is another inode, as after a replacement by rename."""

    def read(self, size: int, offset: int) -> bytes:
        """Return `size` bytes from `offset` on, fewer where it ends; waits for the store.

        Raises:
            FileChanged: the object has another content now.
            NeedsStore: the thread leaves waiting to the event loop.
            StoreUnavailable, StoreRefused
        """

    def expect(self, offsets: Sequence[int]) -> None:
        """Raise NeedsStore if several blocks are not in memory that have bytes at some offsets."""

    def find_bytes(self, size: int, offset: int) -> bytes | None:
        """Return the same if they are in memory, else None; from any thread."""

    def has_changed(self) -> bool:
        """Return whether the object is known to have another content now; asks nothing."""

    def holding(self, runs: Sequence[ByteRun]) -> AbstractAsyncContextManager[None]:
        """Have runs of bytes in memory while the context lasts; on the event loop.

        Neighbours are asked for together, and all at the same time. Raises as `read`.
        """

    def open_by_library(self, access: h5p.PropFAID) -> h5f.FileID:
        """Open it by libhdf5, with that access but for the driver; in the library lane."""


Descriptor = int | RemoteFile


def identify(descriptor: Descriptor) -> Identity:
    """Return the identity of an open file now, by a system call; of a remote one, what it was."""
    if isinstance(descriptor, int):
        return Identity.of(os.fstat(descriptor))
    return descriptor.identity


def duplicate(descriptor: Descriptor) -> Descriptor:
    """Return another descriptor of the same file."""
    return os.dup(descriptor) if isinstance(descriptor, int) else descriptor


def close_descriptor(descriptor: Descriptor) -> None:
    """Close it; what is remote holds nothing."""
    if isinstance(descriptor, int):
        os.close(descriptor)
