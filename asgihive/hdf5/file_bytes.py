"""HDF5's metadata as they lie in the file's bytes, read without libhdf5.

What is read is bounded by the end of the file, and what has a checksum is compared with it
(HDF5 File Format Specification 3.0, "Disk Format"). Addresses in a file are relative to its
superblock, which a user block may precede.
"""

import ctypes
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

Bytes = np.ndarray[Any, np.dtype[np.uint8]]

_SIGNATURE = b"\x89HDF\r\n\x1a\n"

# Of versions 0 and 1; as much as any other needs.
_SUPERBLOCK_BYTES = 104

# Children of a node of a version 1 B-tree of chunks, halved, where the file does not say it.
DEFAULT_TREE_K = 32

# While a writer is writing, a checksum may be wrong for a moment (see `asgihive.hdf5.swmr`).
_LIVE_ATTEMPTS = 22
_LIVE_PAUSE_SECONDS = 50e-6

# Structures with fewer bytes between them are read together, up to so many bytes at once.
_GAP_BYTES = 1 << 13
_TOGETHER_BYTES = 1 << 20


class NotPlain(Exception):  # says what the bytes are, not what went wrong
    """libhdf5 must look: the structure is of a rare kind, or damaged."""


class DamagedMetadata(ValueError):  # translated at once by those who know the chunk
    """A structure of the file is not what it should be; the message says how."""


@dataclass(frozen=True, slots=True)
class FileBytes:
    """The bytes of one open file.

    Attributes:
        descriptor: libhdf5's own, for reading past it.
        base: where in the file HDF5 begins.
        end: the size of the file in bytes, when it was opened.
        is_live: whether a writer is writing it, so that it grows and checksums may be late.
        address_bytes, length_bytes: of an address and of a length in this file.
        tree_k: half the most children of a node of a version 1 B-tree of chunks.
        extension: address of the superblock extension, if there is one.
    """

    descriptor: int
    base: int
    end: int
    is_live: bool
    address_bytes: int
    length_bytes: int
    tree_k: int = DEFAULT_TREE_K
    extension: int | None = None

    @property
    def undefined(self) -> int:
        """The address that means "nowhere"."""
        return (1 << 8 * self.address_bytes) - 1

    def read(self, address: int, size: int) -> bytes:
        """Return `size` bytes at `address`.

        Raises:
            DamagedMetadata: the file ends before.
        """
        start = self.base + address
        if start + size > self.end and (not self.is_live or start + size > self._end_now()):
            raise DamagedMetadata(f"the file ends before {size} bytes of its index at {start}")
        stored = os.pread(self.descriptor, size, start)
        while len(stored) < size:
            more = os.pread(self.descriptor, size - len(stored), start + len(stored))
            if not more:
                raise DamagedMetadata(f"the file ends inside its index, at {start + len(stored)}")
            stored += more
        return stored

    def read_checked(self, address: int, size: int, signature: bytes) -> bytes:
        """Return the structure of `size` bytes at `address`, of which the last four are its sum.

        Raises:
            DamagedMetadata: it is another one, or its checksum is wrong.
        """
        for attempt in range(_LIVE_ATTEMPTS if self.is_live else 1):
            if attempt:
                time.sleep(_LIVE_PAUSE_SECONDS)
            stored = self.read(address, size)
            if is_checked(stored, signature):
                return stored
        name = signature.decode() or "page"
        if not stored.startswith(signature):
            raise DamagedMetadata(f"there is no {name} of its index at {address}")
        raise DamagedMetadata(f"the checksum of the {name} of its index at {address} is wrong")

    def read_many(self, addresses: np.ndarray[Any, np.dtype[np.uint64]], size: int) -> Bytes:
        """Return `size` bytes at each of `addresses`, which ascend; one row each.

        Raises:
            DamagedMetadata: the file ends before one of them does.
        """
        rows = np.empty((len(addresses), size), np.uint8)
        if not len(addresses):
            return rows
        if int(addresses[-1]) + size > self.end:  # only what ascends is compared below
            self.read(int(addresses[-1]), size)
        places = addresses.astype(np.int64)
        # Neighbours are read together.
        apart = np.flatnonzero(np.diff(places) > size + _GAP_BYTES) + 1
        for first, stop in zip([0, *apart.tolist()], [*apart.tolist(), len(places)], strict=True):
            at = first
            while at < stop:
                limit = int(places[at]) + max(_TOGETHER_BYTES - size, 0)
                until = max(at + 1, int(np.searchsorted(places[:stop], limit, "right")))
                start = int(places[at])
                block = self.read(start, int(places[until - 1]) + size - start)
                # Each row is copied as one element; the view's elements overlap.
                count = len(block) - size + 1
                view = np.ndarray((count,), f"V{size}", block, strides=(1,))
                rows[at:until] = (
                    view[places[at:until] - start].view(np.uint8).reshape(until - at, size)
                )
                at = until
        return rows

    def address(self, stored: bytes, at: int) -> int:
        """Return the address that is stored at position `at`."""
        return int.from_bytes(stored[at : at + self.address_bytes], "little")

    def length(self, stored: bytes, at: int) -> int:
        """Return the length that is stored at position `at`."""
        return int.from_bytes(stored[at : at + self.length_bytes], "little")

    def _end_now(self) -> int:
        return os.fstat(self.descriptor).st_size


def read_superblock(descriptor: int, base: int, end: int, *, is_live: bool) -> FileBytes:
    """Return the bytes of a file as its superblock explains them (section II.A).

    Raises:
        NotPlain: libhdf5 must read this file.
    """
    stored = os.pread(descriptor, _SUPERBLOCK_BYTES, base)
    if not stored.startswith(_SIGNATURE) or len(stored) < 48:
        raise NotPlain
    version = stored[8]
    address_bytes, length_bytes = stored[13:15] if version < 2 else stored[9:11]
    if version > 3 or not {address_bytes, length_bytes} <= {4, 8}:
        raise NotPlain
    tree_k = int.from_bytes(stored[24:26], "little") if version == 1 else DEFAULT_TREE_K
    if not tree_k:
        raise NotPlain
    plain = FileBytes(descriptor, base, end, is_live, address_bytes, length_bytes, tree_k)
    if version < 2:
        return plain
    extension = plain.address(stored, 12 + address_bytes)
    if extension == plain.undefined:
        return plain
    return FileBytes(
        descriptor, base, end, is_live, address_bytes, length_bytes, extension=extension
    )


def uints_of(stored: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Return little-endian integers of up to eight bytes, which are the last axis of `stored`."""
    if stored.dtype != np.uint8:
        return stored.astype(np.uint64)
    wide = np.zeros((*stored.shape[:-1], 8), np.uint8)
    wide[..., : stored.shape[-1]] = stored
    return wide.view("<u8")[..., 0].astype(np.uint64, copy=False)


def is_checked(stored: bytes, signature: bytes) -> bool:
    """Whether it begins with `signature` and ends with the checksum of what is before."""
    if not stored.startswith(signature) or checksum is None:
        return False
    end = len(stored) - 4
    return checksum(stored, end, 0) == int.from_bytes(stored[end:], "little")


def find_checksum() -> Callable[[bytes, int, int], int] | None:
    """libhdf5's own checksum of metadata (Jenkins' lookup3); None in a build that hides it."""
    try:
        # Looking up a symbol also searches the libraries that h5py's module depends on.
        function = ctypes.PyDLL(h5py.h5.__file__)["H5_checksum_metadata"]
    except (OSError, AttributeError):
        return None
    function.restype = ctypes.c_uint32
    function.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint32)
    found: Callable[[bytes, int, int], int] = function
    return found


checksum = find_checksum()
