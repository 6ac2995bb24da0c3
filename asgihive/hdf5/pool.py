"""Open HDF5 files: opened once, shared, replaced when the file changes, closed when idle.

Everything here but `Lease.check` and `Lease.release` runs in the library lane, one call at a
time. That is why a changed file can be closed at once, under the feet of requests that
still hold it: they are between two calls, and their next one finds the file revoked.
"""

import contextlib
import os
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from h5py import h5f, h5p

from asgihive.concurrency import measured
from asgihive.errors import (
    DescriptorsExhausted,
    FileBeingWritten,
    FileChanged,
    FileForbidden,
    FileMissing,
    FileOutside,
    FileUnreadable,
    Overloaded,
)
from asgihive.hdf5.cache import BytesCache, ChunkCache
from asgihive.hdf5.file_bytes import (
    FileBytes,
    NotPlain,
    allow_waiting,
    may_wait,
    signature_offset,
)
from asgihive.hdf5.headers import ObjectHeader, bytes_of_file, read_header
from asgihive.hdf5.open_file import (
    Handle,
    Key,
    OpenFile,
    Unsettled,
    accept_unused_bits,
    close_id,
    handles_lock,
    libhdf5_reason,
)
from asgihive.hdf5.remote import (
    Descriptor,
    RemoteFile,
    close_descriptor,
    duplicate,
    identify,
)
from asgihive.hdf5.sandbox import (
    Identity,
    Place,
    Sandbox,
    is_exhaustion,
)
from asgihive.hdf5.structure_checks import EndlessStructure, check_before_opening
from asgihive.hdf5.swmr import (
    is_being_written,
    reading_live,
    seems_written,
    was_left_open,
)
from asgihive.hdf5.types import NoEquivalent

# Opening through the descriptor means that what was checked is what is opened.
_BY_DESCRIPTOR = os.path.isdir("/proc/self/fd")

# HDF5 keeps decoded chunks per open dataset; this is its own default since 2.0.
_CHUNK_CACHE_PER_DATASET = 8 << 20

# About what an open dataset takes otherwise, and what all of them may take beside chunks.
_DATASET_BYTES = 16 << 10
_DATASETS_BYTES = 32 << 20

_LEFT_OPEN = (
    "its writer ended without closing it; if no program writes it any more, "
    "`h5clear --status` makes it readable, as far as it was written"
)

# Whatever pool opened them, by inode: there must be one for each. Under `handles_lock`.
_handles: weakref.WeakValueDictionary[tuple[int, int], Handle] = weakref.WeakValueDictionary()


# Sources of virtual datasets that are opened to tell extents for one answer, or to read one
# block through virtual datasets of virtual ones.
MAX_OPENED_SOURCES = 10_000


class TooManySources(NoEquivalent):
    """More than MAX_OPENED_SOURCES would have to be opened."""

    def __init__(self) -> None:
        super().__init__(f"more than {MAX_OPENED_SOURCES} sources would have to be opened at once")


# A dataset: its file, and the address of its object header there.
ObjectKey = tuple[Key, int]


@dataclass(slots=True, eq=False)
class SourcesSeen:
    """What is known of the sources of virtual datasets while one answer is made.

    shapes: the extents of virtual datasets that grow, by then.
    growing: those whose extents are being looked for.
    missing: sources that were not there, by file of the virtual dataset, file and dataset; and
        whether it is the file that was not.
    opened: how many sources were.
    """

    shapes: dict[ObjectKey, tuple[int, ...] | None] = field(default_factory=dict)
    growing: set[ObjectKey] = field(default_factory=set)
    missing: dict[tuple[Key, str, str], bool] = field(default_factory=dict)
    opened: int = 0

    def count(self) -> None:
        """Count one more that is opened; raises TooManySources."""
        self.opened += 1
        if self.opened > MAX_OPENED_SOURCES:
            raise TooManySources

    def counted_anew(self) -> "SourcesSeen":
        """Return the same knowledge, with another count."""
        return SourcesSeen(self.shapes, self.growing, self.missing)


class Released(Exception):  # control flow: the request that would be answered is over
    """The request is over, and nothing more is read for it."""


@dataclass(slots=True, eq=False)
class Lease:
    """The files that one request holds, and the identities that its answer depends on.

    depends: absolute path → identity when it was looked at, None where nothing was.
    lasting: whether what was adopted may be kept, see `settled`.
    objects: HDF5 objects of the request beside the files, which the library lane closes.
    seen: shared with the leases of the sources of its virtual datasets.
    """

    pool: "FilePool"
    files: dict[Key, OpenFile] = field(default_factory=dict)
    depends: dict[str, Identity | None] = field(default_factory=dict)
    lasting: bool = True
    objects: list[object] = field(default_factory=list)
    released: bool = False
    seen: SourcesSeen = field(default_factory=SourcesSeen)

    def open_asked(self, name: str) -> OpenFile:
        """Open the client's file `name`, or find it open.

        Raises:
            FileMissing, FileForbidden, FileUnreadable, FileChanged, Overloaded, Unsettled
        """
        pool = self.pool
        known = pool.find_known(name)
        if known is not None:
            return self.hold(known)
        allow_waiting()
        file = self.open(pool.sandbox.place(name))
        # One file has many spellings, and clients may try them all.
        if len(pool.by_name) >= 4 * pool.max_open:
            pool.by_name.clear()
        pool.by_name[name] = file
        return file

    def open(self, place: Place) -> OpenFile:
        """Open `place`, or find it open; raises as `open_asked`."""
        allow_waiting()
        # Before trying, so that what turns up after it failed is a change.
        identity = self.pool.stat_guard.find_identity(place.asked)
        try:
            file = self.pool.acquire(place, identity)
        except (FileMissing, FileForbidden, FileUnreadable):
            self._depend(place.asked, identity)
            self.lasting &= identity is None or identity.settles_in(time.time_ns()) == 0
            raise
        except FileBeingWritten:
            self._depend(place.asked, identity)
            self.lasting = False
            raise
        return self.hold(file)

    def hold(self, file: OpenFile) -> OpenFile:
        """Keep `file` open, and depend on it; raises FileChanged."""
        if self.files.setdefault(file.key, file) is not file:
            raise FileChanged(file.place.name)
        identity = file.identity
        if file.live:  # its content goes on changing
            identity = replace(identity, size=0, mtime_ns=0, ctime_ns=0)
        self._depend(file.place.asked, identity)
        # In this order, and `release` in the opposite one: it may come at any moment.
        file.holders.add(self)
        if self.released:
            file.holders.discard(self)
        return file

    def _depend(self, path: str, identity: Identity | None) -> None:
        before = self.depends.setdefault(path, identity)
        if before == identity:
            return
        if before is None or not before.has_content_of(identity):
            raise FileChanged(os.path.relpath(path, self.pool.sandbox.root))
        self.lasting = False

    def open_linked(self, origin: OpenFile, target: str) -> OpenFile:
        """Open the file that a link, a virtual source or the like in `origin` names.

        Raises:
            FileMissing: it is not there.
            FileOutside: it is not inside the served directory, where it may be or not.
            FileForbidden, FileUnreadable, FileChanged, Overloaded, Unsettled
        """
        allow_waiting()
        for place in self.pool.sandbox.linked(origin.place, target):
            try:
                return self.open(place)
            except FileMissing:
                continue
        if self.pool.sandbox.leads_outside(origin.place, target):
            raise FileOutside(target)
        raise FileMissing(target)

    def adopt(self, other: "Lease") -> None:
        """Depend on what `other`, released by now, depended on.

        Raises:
            FileChanged: a file is not what it was when this lease depended on it before.
        """
        self.lasting &= other.settled
        for path, identity in other.depends.items():
            self._depend(path, identity)

    def check(self) -> None:
        """Raise FileChanged when anything read under this lease may be a mixture."""
        for file in self.files.values():
            if file.changed():
                raise FileChanged(file.place.name)

    def go_on(self) -> None:
        """Raise Released when the request is over; from any thread."""
        if self.released:
            raise Released

    @property
    def settled(self) -> bool:
        """Whether an answer may be kept: each later change is certain to show."""
        lasting = self.lasting
        for file in self.files.values():
            lasting &= file.settled and not file.live
        return lasting

    def release(self) -> None:
        """Give the files back; harmless when repeated; from any thread."""
        # First, so that a thread that outlived its request holds nothing it opens from now on.
        self.released = True
        now = time.monotonic()
        for file in list(self.files.values()):
            file.used = now
            file.holders.discard(self)
        self.pool.discard((*self.files.values(), *self.objects))
        self.objects.clear()


class FilePool:
    """The open files of one service, at most `max_open` of them.

    Args:
        sandbox: decides which files may be opened.
        max_open: files open at once; the least recently used idle ones make room.
        idle_seconds: how long a file that no request holds stays open.
        chunk_cache_bytes: decoded chunks, a quarter of it for those that HDF5 itself caches.
        max_chunk_bytes: of a decoded chunk or an element that is read at all.

    Attributes:
        files: the open ones, the least recently used first.
        chunks: those decoded past libhdf5.
        datasets: the open ones, by file and path.
        by_name: files by the names by which clients asked for them.

    """

    def __init__(
        self,
        sandbox: Sandbox,
        *,
        max_open: int,
        idle_seconds: float,
        chunk_cache_bytes: int,
        max_chunk_bytes: int,
    ) -> None:
        self.sandbox = sandbox
        self.stat_guard = sandbox.make_guard()
        self.max_chunk_bytes = max_chunk_bytes
        self.max_open = max_open
        self.idle_seconds = idle_seconds
        self.files: OrderedDict[Key, OpenFile] = OrderedDict()
        self.by_name: dict[str, OpenFile] = {}
        self._discarded: dict[int, object] = {}
        by_libhdf5 = chunk_cache_bytes // 4
        self.chunks = ChunkCache(chunk_cache_bytes - by_libhdf5)
        self._chunk_cache_per_dataset = min(_CHUNK_CACHE_PER_DATASET, by_libhdf5)
        self.datasets: BytesCache[tuple[OpenFile, bytes], object] = BytesCache(
            _DATASETS_BYTES + by_libhdf5
        )
        self._access = h5p.create(h5p.FILE_ACCESS)
        # Beamlines write while others read, and network file systems refuse locks.
        self._access.set_file_locking(False, True)
        accept_unused_bits(self._access)
        self._access.set_cache(0, 8191, self._chunk_cache_per_dataset, 0.75)
        self._live_access = reading_live(self._access)

    def __len__(self) -> int:
        return len(self.files)

    @measured("open")
    def acquire(self, place: Place, identity: Identity | None) -> OpenFile:
        """Return the open file of `place`, which has that identity now."""
        self._discarded.clear()
        file = None
        if identity is not None:
            file = self.files.get((place.asked, identity.device, identity.inode))
            if file is not None and not (self._usable(file, identity) or file.renew(identity)):
                file = None
        if file is None:
            self.close_idle()
            try:
                file = self.open_file(place)
            except DescriptorsExhausted:
                self.close_unheld()
                file = self.open_file(place)
            self.files[file.key] = file
        self.files.move_to_end(file.key)
        file.used = time.monotonic()
        return file

    def find_known(self, name: str) -> OpenFile | None:
        """Return the file that was opened by this name before, if it is unchanged.

        What the name leads to now is the inode that was found inside the directory then, so
        nothing is left to be resolved.
        """
        if may_wait():
            self._discarded.clear()
        file = self.by_name.get(name)
        if file is None:
            return None
        identity = self.stat_guard.find_identity(file.place.asked)
        if identity is None or not self._usable(file, identity):
            return None
        self.files.move_to_end(file.key)
        file.used = time.monotonic()
        return file

    def at_hand(self, name: str, path: bytes, lease: Lease) -> object | None:
        """Return an open dataset of an open and unchanged file, held by `lease`.

        For the event loop: nothing is opened, closed or put in another order, so that the
        library lane may be at work at the same time.

        Raises:
            NeedsThread: the file system is slow.
        """
        file = self.by_name.get(name)
        if file is None or file.live or not file.settled or file.revoked:
            return None
        dataset = self.datasets.peek((file, path))
        if dataset is None:
            return None
        if self.stat_guard.find_identity(file.place.asked) != file.identity:
            return None
        lease.hold(file)
        return dataset

    def discard(self, objects: Iterable[object]) -> None:
        """Let go of HDF5 objects at the next visit to the library lane; from any thread.

        h5py takes HDF5's lock to let go of the last reference to one: the event loop would
        wait for whatever is being read. Each is kept once, however often it is let go of: on a
        busy day of small reads no call may use that lane.
        """
        for each in objects:
            self._discarded[id(each)] = each

    def close_idle(self) -> None:
        """Close the files that no request has held for `idle_seconds`."""
        self._discarded.clear()
        horizon = time.monotonic() - self.idle_seconds
        for key, file in list(self.files.items()):
            if file.revoked or (not file.holders and file.used < horizon):
                self.close_file(key)

    def close_unheld(self) -> None:
        """Close what no request holds, since the process may open nothing more."""
        self._discarded.clear()
        for key, file in list(self.files.items()):
            if not file.holders:
                self.close_file(key)

    def close(self) -> None:
        """Close everything, held or not."""
        self._discarded.clear()
        for key in list(self.files):
            self.close_file(key)

    def keep_dataset(
        self, file: OpenFile, path: bytes, dataset: object, *, chunk_cache: bool, index_bytes: int
    ) -> None:
        """Keep a dataset of `file` open; the least recently used ones make room.

        chunk_cache: whether libhdf5 will keep decoded chunks of it.
        index_bytes: what its index may take.
        """
        size = _DATASET_BYTES + index_bytes
        if chunk_cache:
            size += self._chunk_cache_per_dataset
        file.datasets.add(path)
        self.datasets.put((file, path), dataset, size)

    def _usable(self, file: OpenFile, identity: Identity) -> bool:
        # Between two requests, what cannot be trusted is opened anew, see `Handle.can_serve`.
        lasting = file.settled and not file.live
        return file.shows(identity) and (lasting or file.handle.is_held)

    def open_file(self, place: Place) -> OpenFile:
        """Open a file, which takes the place of an idle one where the pool is full.

        Raises:
            FileMissing, FileForbidden, FileUnreadable, FileChanged, Overloaded
        """
        descriptor = self.sandbox.open(place)
        try:
            identity = identify(descriptor)
            inode = identity.device, identity.inode
            key = (place.asked, *inode)
            # The file's own former handle goes in any case.
            if key in self.files:
                self.close_file(key)
            while len(self.files) >= self.max_open:
                idle = [file for file in self.files.values() if not file.holders]
                if not idle:
                    raise Overloaded(f"{self.max_open} files are open and in use")
                self.close_file(min(idle, key=lambda file: file.used).key)
            with handles_lock:
                handle = _handles.get(inode)
                if handle is not None and not handle.can_serve(identity):
                    handle.close()
                    handle = None
                if handle is None:
                    handle = self.open_handle(place, identity, duplicate(descriptor))
                    _handles[inode] = handle
                file = OpenFile(
                    place=place,
                    handle=handle,
                    key=key,
                    identity=identity,
                    settled=handle.settled and (handle.live or handle.identity == identity),
                    descriptor=handle.descriptor,
                    base=handle.base,
                    live=handle.live,
                    metadata=handle.metadata,
                )
                handle.files.add(file)
        finally:
            close_descriptor(descriptor)
        if not file.live and identify(file.descriptor) != identity:
            file.close()
            raise FileChanged(place.name)
        return file

    def open_handle(self, place: Place, identity: Identity, descriptor: Descriptor) -> Handle:
        """Open an inode, which owns `descriptor` from now on.

        By libhdf5 only if its superblock is not plain, as that of a live file.
        """
        stored: FileBytes | None = None
        root: ObjectHeader | None = None
        opened: list[h5f.FileID] = []
        live = False
        try:
            base = signature_offset(descriptor, identity.size)
            if base is not None:
                with contextlib.suppress(NotPlain):
                    stored = bytes_of_file(descriptor, base, identity.size, is_live=False)
                    # A file without a root group is no file: libhdf5 is to say so.
                    root = read_header(stored, stored.root)
            if base is None or root is None or root.kind != "group":
                stored = None
                file_id, live = self._open_id(place, descriptor)
                opened.append(file_id)
                base = file_id.get_create_plist().get_userblock()
                with contextlib.suppress(NotPlain):
                    stored = bytes_of_file(descriptor, base, identity.size, is_live=live)
        except BaseException:
            close_descriptor(descriptor)
            raise
        wait = 0.0 if live else identity.settles_in(time.time_ns())
        if wait > 0:
            close_descriptor(descriptor)
            for file_id in opened:
                close_id(file_id)
            raise Unsettled(place.name, wait)

        def open_by_library(descriptor: Descriptor) -> h5f.FileID:
            return opened.pop() if opened else self._open_id(place, descriptor)[0]

        handle = Handle(
            name=place.name,
            identity=identity,
            descriptor=descriptor,
            base=base,
            live=live,
            settled=wait == 0.0,
            metadata=stored,
            open_by_library=open_by_library,
            headers={} if root is None or stored is None else {stored.root: root},
        )
        handle.close_descriptor = weakref.finalize(handle, close_descriptor, descriptor)
        try:
            if opened:
                handle.library()
        except BaseException:
            handle.close()
            raise
        return handle

    def _open_id(self, place: Place, descriptor: Descriptor) -> tuple[h5f.FileID, bool]:
        if not isinstance(descriptor, int):
            return self._open_remote_id(place, descriptor), False
        name = os.fsencode(f"/proc/self/fd/{descriptor}" if _BY_DESCRIPTOR else place.real)
        try:
            check_before_opening(descriptor, os.fstat(descriptor).st_size)
            return h5f.open(name, h5f.ACC_RDONLY, self._access), False
        except EndlessStructure as error:
            raise FileUnreadable(place.name, str(error)) from None
        except (OSError, RuntimeError, ValueError) as error:
            reason = error
        if is_exhaustion(reason):
            raise DescriptorsExhausted from reason
        # Not any file: with SWMR access libhdf5 opens one that is cut off as well.
        if self._live_access is not None and seems_written(descriptor):
            with contextlib.suppress(OSError, RuntimeError, ValueError):
                mode = h5f.ACC_RDONLY | h5f.ACC_SWMR_READ
                return h5f.open(name, mode, self._live_access), True
        if is_being_written(descriptor):
            raise FileBeingWritten(place.name) from reason
        if was_left_open(descriptor):
            raise FileUnreadable(place.name, _LEFT_OPEN) from reason
        raise FileUnreadable(place.name, libhdf5_reason(reason)) from reason

    def _open_remote_id(self, place: Place, remote: RemoteFile) -> h5f.FileID:
        try:
            check_before_opening(remote, remote.identity.size)
            return remote.open_by_library(self._access)
        except EndlessStructure as error:
            raise FileUnreadable(place.name, str(error)) from None
        except (OSError, RuntimeError, ValueError) as error:
            # No lock and no lease tells of a writer: what is there is all that there will be.
            reason = _LEFT_OPEN if was_left_open(remote) else libhdf5_reason(error)
            raise FileUnreadable(place.name, reason) from error

    def close_file(self, key: Key) -> None:
        """Close an open file, and forget what was kept of it."""
        file = self.files.pop(key)
        for path in file.datasets:
            self.datasets.drop((file, path))
        self.by_name = {name: each for name, each in self.by_name.items() if each is not file}
        file.close()
        self.chunks.forget(file)
