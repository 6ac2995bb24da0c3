"""HDF5's metadata as they lie in the file's bytes, read without libhdf5.

What is read is bounded by the end of the file, and what has a checksum is compared with it
(HDF5 File Format Specification 3.0, "Disk Format"). Addresses in a file are relative to its
superblock, which a user block may precede.

HDF5 says that names are UTF-8 or ASCII, files say otherwise. What is not UTF-8 is shown with
U+FFFD, and a name asked for with U+FFFD finds the one that is shown so.
"""

import ctypes
import os
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np

from asgihive.errors import NeedsThread
from asgihive.hdf5.buffers import Bytes, read_cached_bytes
from asgihive.hdf5.remote import Descriptor, identify

_SIGNATURE = b"\x89HDF\r\n\x1a\n"

# All that is looked at of a superblock of any version.
_SUPERBLOCK_BYTES = 76

# What is read at once of metadata, and how many such pages are kept of a file that is only open.
_PAGE_BYTES = 1 << 14
_KEPT_PAGES = 32

# Bytes of a global heap that is kept, and how many are.
_KEPT_HEAP_BYTES, _KEPT_HEAPS = 1 << 14, 256

MAX_PAGES = 1024
"""How many pages of metadata are kept while many objects are read."""

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


class _ThisThread(threading.local):
    must_not_wait = False
    leaves_for_stores = False


_this_thread = _ThisThread()


@contextmanager
def without_waiting() -> Iterator[None]:
    """Let the calling thread raise NeedsThread wherever it would wait for a disk or for libhdf5."""
    _this_thread.must_not_wait = True
    try:
        yield
    finally:
        _this_thread.must_not_wait = False


@contextmanager
def leaving_for_stores(leaves: bool = True) -> Iterator[None]:
    """Let the calling thread raise NeedsStore where it would wait for an object store, or not."""
    before = _this_thread.leaves_for_stores
    _this_thread.leaves_for_stores = leaves
    try:
        yield
    finally:
        _this_thread.leaves_for_stores = before


def leaves_for_stores() -> bool:
    """Return whether the calling thread raises NeedsStore rather than wait for an object store."""
    return _this_thread.leaves_for_stores


def may_wait() -> bool:
    """Return whether the calling thread may wait for a disk or for libhdf5."""
    return not _this_thread.must_not_wait


def allow_waiting() -> None:
    """Return where the calling thread may wait.

    Raises:
        NeedsThread: it may not.
    """
    if _this_thread.must_not_wait:
        raise NeedsThread


def read_bytes(descriptor: Descriptor, size: int, offset: int) -> bytes:
    """Return `size` bytes of a file from `offset` on; fewer only where the file ends.

    Raises:
        NeedsThread: they are not in memory, and the thread must not wait (preadv2(2), RWF_NOWAIT).
    """
    if _this_thread.must_not_wait:
        cached = read_cached_bytes(descriptor, size, offset)
        if cached is None:
            raise NeedsThread
        return cached
    if not isinstance(descriptor, int):
        return descriptor.read(size, offset)
    stored = os.pread(descriptor, size, offset)
    while len(stored) < size:
        more = os.pread(descriptor, size - len(stored), offset + len(stored))
        if not more:
            break
        stored += more
    return stored


def read_into(descriptor: Descriptor, target: memoryview, offset: int) -> int:
    """Fill `target` with bytes of a file from `offset` on; return how many there were."""
    allow_waiting()
    if not isinstance(descriptor, int):
        stored = descriptor.read(len(target), offset)
        target[: len(stored)] = stored
        return len(stored)
    done = 0
    while done < len(target):
        read = os.preadv(descriptor, [target[done:]], offset + done)
        if not read:
            break
        done += read
    return done


class DamagedMetadata(ValueError):  # translated at once by those who know the chunk
    """A structure of the file is not what it should be; the message says how."""


@dataclass(frozen=True, slots=True)
class FileBytes:
    """The bytes of one open file.

    Attributes:
        descriptor: for reading past libhdf5.
        base: where in the file HDF5 begins.
        end: the size of the file in bytes, when it was opened.
        is_live: whether a writer is writing it, so that it grows and checksums may be late.
        address_bytes, length_bytes: of an address and of a length in this file.
        undefined: the address that means "nowhere".
        root: address of the header of the root group.
        tree_k: half the most children of a node of a version 1 B-tree of chunks.
        extension: address of the superblock extension, if there is one.
    """

    descriptor: Descriptor
    base: int
    end: int
    is_live: bool
    address_bytes: int
    length_bytes: int
    undefined: int
    root: int
    tree_k: int = DEFAULT_TREE_K
    extension: int | None = None
    _pages: dict[int, bytes] = field(default_factory=dict)
    _heaps: dict[int, dict[int, bytes]] = field(default_factory=dict)

    def read(self, address: int, size: int) -> bytes:
        """Return `size` bytes at `address`.

        Raises:
            DamagedMetadata: the file ends before.
        """
        start = self.base + address
        stop = start + size
        if stop > self.end and not (self.is_live and stop <= identify(self.descriptor).size):
            raise DamagedMetadata(f"the file ends before {size} bytes of its index at {start}")
        stored = read_bytes(self.descriptor, size, start)
        if len(stored) < size:
            raise DamagedMetadata(f"the file ends inside its index, at {start + len(stored)}")
        return stored

    def read_page(self, address: int, size: int) -> bytes:
        """Return `size` bytes at `address`, of pages that are kept in memory.

        For small structures, which lie close together. Of a file that a writer writes nothing is
        kept.

        Raises:
            NotPlain: the file ends before.
        """
        try:
            if self.is_live:
                return self.read(address, size)
            number, start = divmod(self.base + address, _PAGE_BYTES)
            stored = b""
            while True:
                page = self._pages.get(number)
                if page is None:
                    if len(self._pages) >= MAX_PAGES:
                        self._pages.clear()
                    page = read_bytes(self.descriptor, _PAGE_BYTES, number * _PAGE_BYTES)
                    self._pages[number] = page
                stored += page[start : start + size - len(stored)]
                if len(stored) >= size:
                    return stored
                if len(page) < _PAGE_BYTES:
                    raise NotPlain
                number, start = number + 1, 0
        except (DamagedMetadata, OSError, OverflowError):
            raise NotPlain from None

    def expect(self, addresses: Iterable[int]) -> None:
        """Note where reading goes on, so that an object store is asked for all of it at once.

        Raises:
            NeedsStore: it is to be asked.
        """
        if not isinstance(self.descriptor, int) and _this_thread.leaves_for_stores:
            self.descriptor.expect([self.base + each for each in addresses])

    def drop_pages(self) -> None:
        """Keep no more pages than an open file may have."""
        self._heaps.clear()
        if len(self._pages) > _KEPT_PAGES:
            self._pages.clear()

    def find_heap(self, address: int) -> dict[int, bytes] | None:
        """Return the objects of a global heap that were kept, by their index; None = none were."""
        return self._heaps.get(address)

    def keep_heap(self, address: int, objects: dict[int, bytes], size: int) -> None:
        """Keep the objects of a small global heap: many strings of many objects lie in one.

        Of a file that a writer writes nothing is kept.
        """
        if self.is_live or size > _KEPT_HEAP_BYTES:
            return
        if len(self._heaps) >= _KEPT_HEAPS:
            self._heaps.clear()
        self._heaps[address] = objects

    def read_checked(self, address: int, size: int, signature: bytes) -> bytes:
        """Return the structure of `size` bytes at `address`; the last four are its checksum.

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


def signature_offset(descriptor: Descriptor, size: int) -> int | None:
    """Return where HDF5 begins in a file, which is not 0 behind a user block; None if nowhere.

    HDF5 File Format Specification, section II.A: the superblock is at the offset 0, 512,
    1024, 2048 and so on.
    """
    offset = 0
    while offset + len(_SIGNATURE) <= size:
        if read_bytes(descriptor, len(_SIGNATURE), offset) == _SIGNATURE:
            return offset
        offset = max(512, 2 * offset)
    return None


def read_superblock(descriptor: Descriptor, base: int, end: int, *, is_live: bool) -> FileBytes:
    """Return the bytes of a file as its superblock explains them (section II.A).

    Raises:
        NotPlain: libhdf5 must read this file, or say what is wrong with it.
        NeedsThread
    """
    stored = read_bytes(descriptor, _SUPERBLOCK_BYTES, base)
    if not stored.startswith(_SIGNATURE) or len(stored) < _SUPERBLOCK_BYTES:
        raise NotPlain
    version = stored[8]
    wide, long = stored[13:15] if version < 2 else stored[9:11]
    if version > 3 or not {wide, long} <= {4, 8}:
        raise NotPlain
    word, undefined = ("Q" if wide == 8 else "I"), (1 << 8 * wide) - 1
    tree_k, extension = DEFAULT_TREE_K, undefined
    if version < 2:
        if version == 1:
            tree_k = int.from_bytes(stored[24:26], "little")
        addresses = struct.unpack_from(f"<6{word}", stored, 24 + 4 * version)
        stored_base, _, stored_end, driver, _, root = addresses
        # A driver's own information tells of a file in several parts.
        is_plain = driver == undefined
    else:
        stored_base, extension, stored_end, root = struct.unpack_from(f"<4{word}", stored, 12)
        # Flags say that a writer has the file open, or ended without closing it.
        is_plain = is_live or (not stored[11] and is_checked(stored[: 16 + 4 * wide], b""))
    # libhdf5 refuses what is shorter than it says; while it is written it may be.
    is_whole = is_live or stored_end <= end
    if not (is_plain and is_whole and tree_k and stored_base == base):
        raise NotPlain
    return FileBytes(
        descriptor=descriptor,
        base=base,
        end=end,
        is_live=is_live,
        address_bytes=wide,
        length_bytes=long,
        undefined=undefined,
        root=root,
        tree_k=tree_k,
        extension=None if extension == undefined else extension,
    )


def uints_of(stored: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Return little-endian integers of up to eight bytes, which are the last axis of `stored`."""
    if stored.dtype != np.uint8:
        return stored.astype(np.uint64)
    wide = np.zeros((*stored.shape[:-1], 8), np.uint8)
    wide[..., : stored.shape[-1]] = stored
    return wide.view("<u8")[..., 0].astype(np.uint64, copy=False)


def is_checked(stored: bytes, signature: bytes) -> bool:
    """Return whether it begins with `signature` and ends with the checksum of what is before."""
    if not stored.startswith(signature) or checksum is None:
        return False
    end = len(stored) - 4
    return checksum(stored, end, 0) == int.from_bytes(stored[end:], "little")


def find_in_libhdf5(name: str, result: Any, *arguments: Any) -> Callable[..., int] | None:
    """Return a function of libhdf5 that h5py leaves out; None in a build that hides it.

    What calls libhdf5's interface holds h5py's lock, `h5py._objects.phil`.

    Args:
        name: of the function.
        result: its type, of `ctypes`.
        arguments: their types.
    """
    try:
        # Looking up a symbol also searches the libraries that h5py's module depends on.
        function = ctypes.PyDLL(h5py.h5.__file__)[name]
    except (OSError, AttributeError):
        return None
    function.restype, function.argtypes = result, arguments
    found: Callable[..., int] = function
    return found


# libhdf5's own checksum of metadata (Jenkins' lookup3).
checksum = find_in_libhdf5(
    "H5_checksum_metadata", ctypes.c_uint32, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint32
)


def text(name: bytes) -> str:
    """Return a name or a string as it is shown."""
    return name.decode("utf-8", "replace")


def encoded(name: str) -> bytes:
    """Return the bytes that a client's text stands for; `%FF` in a URL arrives as a surrogate."""
    return name.encode("utf-8", "surrogateescape")


def decoded(name: bytes) -> str:
    """Return the text that stands for exactly these bytes, see `encoded`."""
    return name.decode("utf-8", "surrogateescape")


def split_path(path: str | bytes) -> list[bytes]:
    """Return the links that a path names; `.` and repeated slashes mean nothing in HDF5."""
    if isinstance(path, str):
        path = encoded(path)
    return [part for part in path.split(b"/") if part not in {b"", b"."}]
