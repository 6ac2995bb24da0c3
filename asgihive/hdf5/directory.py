"""The entries of a directory, page by page, and the bytes of whole HDF5 files.

Everything here makes system calls, so it runs in a lane.
"""

import contextlib
import heapq
import os
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from asgihive.errors import FileChanged, FileError, FileMissing, FileUnreadable
from asgihive.hdf5.file_bytes import read_bytes, signature_offset
from asgihive.hdf5.open_file import Unsettled
from asgihive.hdf5.pool import Released
from asgihive.hdf5.sandbox import (
    Identity,
    Sandbox,
    normalised,
    open_beside,
    open_place,
    translated,
)


class EntryKind(StrEnum):
    """The kinds of entries."""

    DIRECTORY = "directory"
    HDF5 = "hdf5"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Entry:
    """A directory or a regular file, which clients can ask for."""

    name: str
    """As the operating system has it; bytes that are not UTF-8 are surrogates (PEP 383)."""
    file: str
    """Its path, relative to the served directory, likewise."""
    kind: EntryKind
    size: int | None
    """In bytes; None of a directory."""
    modified_ns: int
    """Since 1970."""


@dataclass(frozen=True, slots=True)
class Page:
    """Entries in the order of the bytes of their names."""

    entries: tuple[Entry, ...]
    next: bytes | None
    """After which name the next page begins; None when there is none."""


def list_directory(sandbox: Sandbox, name: str, after: bytes, limit: int) -> Page:
    """Return the first `limit` entries behind the name `after` of the directory `name`.

    What comes and goes between two pages makes no other entry appear twice or not at all.
    Memory is that of a page, however many there are. Left out are names that begin with a
    dot, symbolic links that lead nowhere or out of the sandbox, and all but directories and
    regular files, which are never opened. A page may therefore have fewer than
    `limit` entries, and still a next one.

    Raises:
        FileMissing: it is not there, not inside, or no directory.
        FileForbidden, FileUnreadable
    """
    place = sandbox.directory(name)
    try:
        descriptor = open_place(place, is_directory=True)
    except FileMissing:
        problem = "it is no directory" if os.path.isfile(place.real) else ""
        raise FileMissing(name, problem) from None
    try:
        with translated(name):
            behind = (each for each in _scan_names(descriptor) if os.fsencode(each) > after)
            names = heapq.nsmallest(limit + 1, behind, key=os.fsencode)
        listed, prefix = names[:limit], normalised(name)
        found = (_find_entry(sandbox, descriptor, prefix, each) for each in listed)
        entries = tuple(entry for entry in found if entry is not None)
    finally:
        os.close(descriptor)
    return Page(entries, os.fsencode(listed[-1]) if len(names) > limit else None)


def has_signature(descriptor: int, size: int) -> bool:
    """Return whether a file begins as HDF5 does, user block or not."""
    return signature_offset(descriptor, size) is not None


def _scan_names(descriptor: int) -> Iterator[str]:
    with os.scandir(descriptor) as found:
        for each in found:
            if each.name.startswith("."):
                continue
            # Mostly told by the directory itself, without asking for each file.
            if (
                each.is_symlink()
                or each.is_file(follow_symlinks=False)
                or each.is_dir(follow_symlinks=False)
            ):
                yield each.name


def _find_entry(sandbox: Sandbox, descriptor: int, prefix: str, name: str) -> Entry | None:
    """Return an entry of the directory named `prefix`, None where nothing can be asked for."""
    file = f"{prefix}/{name}" if prefix else name
    try:
        status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        target = None
        if stat.S_ISLNK(status.st_mode):
            target = sandbox.place(file)
            status = os.stat(target.real, follow_symlinks=False)
    except (OSError, FileMissing):
        return None
    if stat.S_ISDIR(status.st_mode):
        return Entry(name, file, EntryKind.DIRECTORY, None, status.st_mtime_ns)
    if not stat.S_ISREG(status.st_mode):
        return None
    kind = EntryKind.FILE  # as also what cannot be read
    with contextlib.suppress(FileError, OSError):
        opened = open_beside(descriptor, name) if target is None else open_place(target)
        try:
            if has_signature(opened, os.fstat(opened).st_size):
                kind = EntryKind.HDF5
        finally:
            os.close(opened)
    return Entry(name, file, kind, status.st_size, status.st_mtime_ns)


class WholeFile:
    """One regular HDF5 file that is being sent, open from `open` to `close`.

    Attributes:
        name: as the client knows it.
        identity: of the content that is sent, and of no other.
        settled: whether each later change is certain to change the identity.
        is_direct: whether no symbolic link is passed through, which may lead elsewhere later.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.identity = Identity(0, 0, 0, 0, 0)
        self.settled = False
        self.is_direct = False
        self._descriptor = -1
        # The request, and the threads that may outlive it: the last one closes the file.
        self._users = 1
        self._lock = threading.Lock()

    def open(self, sandbox: Sandbox) -> None:
        """Open it; in a lane.

        Raises:
            FileUnreadable: it is not HDF5.
            FileMissing, FileForbidden
            Unsettled: it changed just now.
        """
        with self._hold(), translated(self.name):
            place = sandbox.place(self.name)
            self._descriptor = open_place(place)
            self.is_direct = place.asked == place.real
            status = os.fstat(self._descriptor)
            if not has_signature(self._descriptor, status.st_size):
                raise FileUnreadable(self.name, "it has no signature of HDF5")
        self.identity = Identity.of(status)
        wait = self.identity.settles_in(time.time_ns())
        if wait > 0:
            raise Unsettled(self.name, wait)
        self.settled = wait == 0

    def read(self, start: int, length: int) -> bytes:
        """Return bytes of the content that `identity` stands for; in a lane.

        Raises:
            FileChanged: they may be of another content, or are there no more.
            FileUnreadable: the storage fails.
        """
        with self._hold(), translated(self.name):
            data = read_bytes(self._descriptor, length, start)
            # Last: a later write is in no byte that was read.
            now = Identity.of(os.fstat(self._descriptor))
        if not now.has_content_of(self.identity) or len(data) < length:
            raise FileChanged(self.name)
        return data

    @contextlib.contextmanager
    def _hold(self) -> Iterator[None]:
        with self._lock:
            if not self._users:
                raise Released
            self._users += 1
        try:
            yield
        finally:
            self.close()

    def close(self) -> None:
        """End the request's use of the file, which is closed when no thread reads it.

        From any thread.
        """
        with self._lock:
            self._users -= 1
            is_last = not self._users
        if is_last and self._descriptor >= 0:
            os.close(self._descriptor)
