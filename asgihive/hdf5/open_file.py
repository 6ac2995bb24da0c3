"""One open HDF5 file, and what tells whether it is still what it was."""

import contextlib
import ctypes
import os
import re
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

from h5py import h5d, h5f, h5g, h5p
from h5py._objects import phil

from asgihive.errors import (
    AsgihiveError,
    FileChanged,
    FileUnreadable,
    LibraryRefused,
    Overloaded,
    TypeUnsupported,
)
from asgihive.hdf5.file_bytes import FileBytes, allow_waiting, find_in_libhdf5
from asgihive.hdf5.headers import ObjectHeader
from asgihive.hdf5.remote import Descriptor
from asgihive.hdf5.sandbox import Identity, Place
from asgihive.hdf5.stored_metadata import Link
from asgihive.hdf5.swmr import is_written

# The path asked for and the inode: relative link targets start at the path, so that two
# names of one inode are two open files, and a file that was replaced is not its successor.
Key = tuple[str, int, int]


_MAX_WAIT_SECONDS = 3.0

# Of all handles of the process, which several pools share, each in a thread of its own.
handles_lock = threading.RLock()


class Unsettled(AsgihiveError):
    """The file changed so recently that a further change might not show: wait, then retry."""

    def __init__(self, file: str, seconds: float) -> None:
        super().__init__(file, seconds)
        self.file = file
        self.seconds = seconds


@dataclass(slots=True, eq=False)
class Retries:
    """How often one read starts again because a file changed under it.

    Three times, and it waits for three seconds at most for a file to stop changing: the coarsest
    clock that stamps files ticks every two seconds.
    """

    _left: int = 3
    _began: float = field(default_factory=time.monotonic)

    def find_pause(self, error: Unsettled | FileChanged) -> float:
        """Return how many seconds to wait before the next attempt.

        Raises:
            FileChanged: there is no next one.
        """
        if isinstance(error, Unsettled):
            if time.monotonic() + error.seconds > self._began + _MAX_WAIT_SECONDS:
                raise FileChanged(error.file) from None
            return error.seconds
        self._left -= 1
        if not self._left:
            raise error
        return 0.0


@dataclass(slots=True, eq=False, weakref_slot=True)
class Handle:
    """One open inode: one handle for all names of it in the process.

    libhdf5 shares one internal file between all handles of an inode, and what it has read through
    one points to that: once it is closed, the others show old content, or crash (HDF5 2.0).
    libhdf5 opens the inode when it is first needed.

    Attributes:
        name: of the file, for errors.
        identity: of the inode when it was opened.
        descriptor: of the inode, which the handle closes.
        base: where in the file HDF5 begins, behind the user block.
        live: written to at this moment under HDF5's single-writer-multiple-reader protocol,
            which keeps readers consistent while the identity goes on changing.
        settled: whether a change after opening is certain to show in the identity.
        metadata: how they are read without libhdf5; None = they are not.
        open_by_library: opens the inode of a descriptor by libhdf5.
        refreshed: the datasets of a live file, by address.
        headers: of objects, by address; None = only libhdf5 can tell.
        links: of groups, by address and name.
        checked: addresses of objects that libhdf5 may open, see `asgihive.hdf5.structure_checks`.
        files: the open files that use it, one a name and pool.
        close_descriptor: closes the descriptor once, at the latest when the handle is forgotten.
    """

    name: str
    identity: Identity
    descriptor: Descriptor
    base: int
    live: bool
    settled: bool
    metadata: FileBytes | None
    open_by_library: Callable[[Descriptor], h5f.FileID]
    refreshed: dict[int, h5d.DatasetID] = field(default_factory=dict)
    headers: dict[int, ObjectHeader | None] = field(default_factory=dict)
    links: dict[int, dict[bytes, Link]] = field(default_factory=dict)
    checked: set[int] = field(default_factory=set)
    files: "weakref.WeakSet[OpenFile]" = field(default_factory=weakref.WeakSet)
    closed: bool = False
    close_descriptor: Callable[[], object] = field(init=False)
    _library: tuple[h5f.FileID, h5g.GroupID] | None = None
    _sizes: tuple[int, int] | None = None

    def library(self) -> tuple[h5f.FileID, h5g.GroupID]:
        """Return the file and its root group as libhdf5 has them open. In the library lane.

        Raises:
            NeedsThread: the thread must not wait.
            FileChanged: it was closed, or has become another file.
            FileUnreadable, FileBeingWritten: libhdf5 cannot open it.
            DescriptorsExhausted
        """
        allow_waiting()
        if self._library is not None:
            return self._library
        with handles_lock:
            if self.closed:
                raise FileChanged(self.name)
            file_id = self.open_by_library(self.descriptor)
            # Where it is opened by its path, another file may be there by now.
            if not self._is_opened_by(file_id):
                close_id(file_id)
                raise FileChanged(self.name)
            try:
                root = h5g.open(file_id, b"/")
            except (KeyError, OSError, RuntimeError, ValueError) as error:
                close_id(file_id)
                raise FileUnreadable(self.name, libhdf5_reason(error)) from error
            self._library = (file_id, root)
            return self._library

    def _is_opened_by(self, file_id: h5f.FileID) -> bool:
        if not isinstance(self.descriptor, int):
            return True
        status = os.fstat(file_id.get_vfd_handle())
        return (status.st_dev, status.st_ino) == inode_of(self.identity)

    @property
    def sizes(self) -> tuple[int, int]:
        """The bytes of an address and of a length in the file."""
        if self.metadata is not None:
            return self.metadata.address_bytes, self.metadata.length_bytes
        if self._sizes is None:
            self._sizes = self.library()[0].get_create_plist().get_sizes()
        return self._sizes

    @property
    def is_held(self) -> bool:
        """Whether a request holds one of its files."""
        with handles_lock:
            return any(file.holders for file in self.files)

    def has_changed(self) -> bool:
        """Return whether the content may differ from what it was when the file was opened."""
        if not isinstance(self.descriptor, int):
            return self.closed or self.descriptor.has_changed()
        try:
            status = os.fstat(self.descriptor)
            written = self.live and is_written(self.descriptor, self.base)
        except OSError:
            return True
        # Asked last: the descriptor of what was closed meanwhile may be another file's.
        if self.closed:
            return True
        if self.live:
            return not written or status.st_size < self.identity.size
        return (status.st_size, status.st_mtime_ns) != (self.identity.size, self.identity.mtime_ns)

    def can_serve(self, identity: Identity) -> bool:
        """Return whether a file may be opened on it that has `identity` now.

        Between two requests, what cannot be trusted is opened anew: a live file may have got
        another writer, and a content whose change time moved may have been written by a program
        that puts the modification time back. While a request holds it, others share it.
        """
        if self.closed or inode_of(self.identity) != inode_of(identity):
            return False
        if self.live:
            return self.is_held and not self.has_changed()
        if self.settled and self.identity == identity:
            return True
        return self.is_held and self.identity.has_content_of(identity)

    def leave(self, file: "OpenFile") -> None:
        """Close the handle with the last of its files."""
        with handles_lock:
            self.files.discard(file)
            if not self.files:
                self.close()

    def close(self) -> None:
        """Close it and every object in it; its files are revoked."""
        with handles_lock:
            if self.closed:
                return
            self.closed = True
            for file in list(self.files):
                file.revoked = True
            if self._library is not None:
                file_id, _ = self._library
                # As h5py.File.close does: objects left open would keep the file open. A strong
                # close degree would do it too, but then nothing else in the process could open it.
                with contextlib.suppress(RuntimeError):
                    file_id._close_open_objects(h5f.OBJ_LOCAL | ~h5f.OBJ_FILE)  # noqa: SLF001
                close_id(file_id)
            self.close_descriptor()


@dataclass(slots=True, eq=False, weakref_slot=True)
class OpenFile:
    """One open file under one name.

    Attributes:
        place: where it lies.
        handle: of its inode.
        key: under which the pool finds it.
        identity: when it was opened by this name, or shared afterwards.
        settled: whether a change after that is certain to show in the identity.
        descriptor, base, live, metadata: copied from its handle, as each read asks for them.
        holders: the leases that hold it.
        datasets: paths of those that the pool keeps open.
        revoked: whether it was closed.
        used: when it was last used, on the monotonic clock.
    """

    place: Place
    handle: Handle
    key: Key
    identity: Identity
    settled: bool
    descriptor: Descriptor
    base: int
    live: bool
    metadata: FileBytes | None
    holders: set[object] = field(default_factory=set)
    datasets: set[bytes] = field(default_factory=set)
    revoked: bool = False
    used: float = field(default_factory=time.monotonic)

    @property
    def root(self) -> h5g.GroupID:
        """Its root group as libhdf5 has it open, see `Handle.library`."""
        return self.handle.library()[1]

    def changed(self) -> bool:
        """Return whether the content may differ from what it was when the file was opened."""
        # In this order: the descriptor of a file revoked meanwhile may be another file's.
        return self.handle.has_changed() or self.revoked

    def shows(self, identity: Identity) -> bool:
        """Return whether this is certainly the content that `identity` stands for."""
        if self.revoked:
            return False
        if self.live:
            return inode_of(self.identity) == inode_of(identity) and not self.changed()
        return self.identity == identity

    def renew(self, identity: Identity) -> bool:
        """Take on the identity that the file has now, if only its change time moved.

        That is for as long as a request holds it, which is not disturbed. Nothing is kept of what
        is read meanwhile, and the next request opens the file anew.
        """
        if self.live or self.revoked or not self.handle.can_serve(identity):
            return False
        self.settled = False
        self.identity = identity
        return True

    def close(self) -> None:
        """Close the file, and its handle if no other uses it; holders see that by `changed`."""
        if not self.revoked:
            self.revoked = True
            self.handle.leave(self)


def close_id(file_id: h5f.FileID) -> None:
    """Close a file that may be damaged.

    libhdf5 says so once more of what it found damaged in its cache, and has closed it then. It is
    no error of the request that needs the place in the pool.
    """
    with contextlib.suppress(RuntimeError):
        file_id.close()


def inode_of(identity: Identity) -> tuple[int, int]:
    return identity.device, identity.inode


def libhdf5_reason(error: BaseException) -> str:
    """Return what libhdf5 says in parentheses, without the server's own paths."""
    found = re.search(r"\((.*)\)", str(error), re.DOTALL)
    reason = found.group(1) if found else str(error)
    return "" if "/" in reason else reason


def address_of(thing: h5g.GroupID | h5d.DatasetID) -> int:
    """Return the address of an open object's header in its file.

    H5Oget_info, as h5py calls it, also measures the index of a dataset: half a second for a
    million chunks. It walks all links of a group, too, by recursion: see `structure_checks`.
    """
    low, high = h5g.get_objinfo(thing, b".").objno
    return int(low) | int(high) << 32  # of two unsigned longs, mostly of 64 bits


# What libhdf5 and h5py say when they know no way from a type in a file to one in memory.
_NO_CONVERSION = (
    "no appropriate function for conversion path",
    "unable to convert between src and dest datatype",
    "No conversion path for dtype",
)
# What libhdf5 says when it has no way to read something, whatever the bytes are.
_NOT_READ = ("no write intent on file", "unsupported", "not supported", "not implemented")


def refusal_of(file: str, path: str, error: BaseException, what: str = "") -> AsgihiveError | None:
    """Return why values are not read though they need not be damaged; None if they are, or may be.

    Args:
        file, path: of the entity that they belong to.
        error: what libhdf5, h5py or NumPy raised.
        what: names them, if they are not those of the entity itself.
    """
    before, message = f"{what}: " if what else "", str(error)
    if isinstance(error, MemoryError):
        return Overloaded("they would need more memory than is left")
    if any(each in message for each in _NO_CONVERSION):
        return TypeUnsupported(
            file, path, f"{before}HDF5 knows no conversion of its type to memory"
        )
    if isinstance(error, TypeError | NotImplementedError):
        return TypeUnsupported(file, path, f"{before}{libhdf5_reason(error)}")
    if any(each in message for each in _NOT_READ):
        return LibraryRefused(file, path, f"{before}{libhdf5_reason(error)}")
    return None


def accept_unused_bits(access: h5p.PropFAID) -> None:
    """Let libhdf5 open what has numbers with more unused bits than used ones.

    libhdf5 2.0 takes types such as 12 bits in 32, which its own n-bit filter is for, for a sign
    of damage, and then opens neither the entity nor its attributes. An earlier one has neither the
    check nor the function that relaxes it.
    """
    types = (ctypes.c_int64, ctypes.c_uint64)
    relax = find_in_libhdf5("H5Pset_relax_file_integrity_checks", ctypes.c_int, *types)
    if relax is not None:
        with phil:
            relax(access.id, _UNUSED_BITS)


_UNUSED_BITS = 0x1  # H5F_RFIC_UNUSUAL_NUM_UNUSED_NUMERIC_BITS (H5Fpublic.h)


def dataset_refreshed(file: OpenFile, dataset: h5d.DatasetID) -> h5d.DatasetID:
    """Return the open `dataset`, with the extent that a live writer has given it by now.

    Of a live file there is one identifier per dataset, and further ones are closed: libhdf5
    (2.0) fails to read through either of two once one of them was refreshed.
    """
    if not file.live:
        return dataset
    shared: h5d.DatasetID = file.handle.refreshed.setdefault(address_of(dataset), dataset)
    if shared is not dataset:
        dataset._close()  # noqa: SLF001  # h5py has no public way for anything but files
    shared.refresh()
    return shared
