"""A page of a directory: what it holds, and which of that are HDF5 files.

Everything here makes system calls, so it runs in a lane.
"""

import heapq
import os
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from asgihive.errors import FileChanged, FileError, FileMissing, FileUnreadable
from asgihive.hdf5.identity import Identity
from asgihive.hdf5.open_file import Unsettled
from asgihive.hdf5.pool import Released
from asgihive.hdf5.sandbox import (
    Place,
    Sandbox,
    normalised,
    open_beside,
    open_directory,
    open_regular,
    translated,
)
from asgihive.hdf5.swmr import signature_offset


class Kind(StrEnum):
    """What an entry is."""

    DIRECTORY = "directory"
    HDF5 = "hdf5"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Entry:
    """What can be asked for: a directory or a regular file.

    name: as the operating system has it; what is not UTF-8 is in surrogates (PEP 383).
    file: its path, relative to the served directory, likewise.
    size: in bytes; None of a directory.
    modified_ns: since 1970.
    """

    name: str
    file: str
    kind: Kind
    size: int | None
    modified_ns: int


@dataclass(frozen=True, slots=True)
class Page:
    """Entries in the order of the bytes of their names.

    next: after which name the next page begins; None when there is none.
    """

    entries: tuple[Entry, ...]
    next: bytes | None


def list_directory(sandbox: Sandbox, name: str, after: bytes, limit: int) -> Page:
    """Of the directory `name`, the first `limit` entries behind the name `after`.

    What comes and goes between two pages makes no other entry appear twice or not at all.
    Memory is that of a page, however many there are. Left out are names that begin with a
    dot, symbolic links that lead nowhere or out of the sandbox, and what is neither a
    directory nor a regular file, which is never opened. A page may therefore have fewer than
    `limit` entries, and still a next one.

    Raises:
        FileMissing: it is not there, not inside, or no directory.
        FileForbidden, FileUnreadable
    """
    place = sandbox.directory(name)
    try:
        descriptor = open_directory(place)
    except FileMissing:
        raise FileMissing(name, _not_a_directory(place)) from None
    try:
        with translated(name):
            behind = (each for each in _names(descriptor) if os.fsencode(each) > after)
            names = heapq.nsmallest(limit + 1, behind, key=os.fsencode)
        listed = names[:limit]
        listing = _Listing(sandbox, normalised(name), descriptor)
        entries = tuple(entry for each in listed if (entry := listing.entry(each)) is not None)
    finally:
        os.close(descriptor)
    return Page(entries, os.fsencode(listed[-1]) if len(names) > limit else None)


def has_signature(descriptor: int, size: int) -> bool:
    """Whether a file begins as HDF5 does, user block or not."""
    return signature_offset(descriptor, size) is not None


def _not_a_directory(place: Place) -> str:
    return "it is no directory" if os.path.isfile(place.real) else ""


def _names(descriptor: int) -> Iterator[str]:
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


@dataclass(frozen=True, slots=True)
class _Listing:
    """A directory that is being listed; `prefix` is its normalised name."""

    sandbox: Sandbox
    prefix: str
    descriptor: int

    def entry(self, name: str) -> Entry | None:
        """The entry, None where there is nothing to be asked for."""
        file = f"{self.prefix}/{name}" if self.prefix else name
        try:
            status = os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
            target = None
            if stat.S_ISLNK(status.st_mode):
                target = self.sandbox.place(file)
                status = os.stat(target.real, follow_symlinks=False)
        except (OSError, FileMissing):
            return None
        if stat.S_ISDIR(status.st_mode):
            return Entry(name, file, Kind.DIRECTORY, None, status.st_mtime_ns)
        if not stat.S_ISREG(status.st_mode):
            return None
        kind = Kind.HDF5 if self._is_hdf5(name, target) else Kind.FILE
        return Entry(name, file, kind, status.st_size, status.st_mtime_ns)

    def _is_hdf5(self, name: str, target: Place | None) -> bool:
        """Of a regular file; what cannot be read is not."""
        try:
            if target is not None:
                opened = open_regular(target)
            else:
                opened = open_beside(self.descriptor, name)
        except FileError:
            return False
        try:
            return has_signature(opened, os.fstat(opened).st_size)
        except OSError:
            return False
        finally:
            os.close(opened)


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
        # The request, and the threads that may outlive it: who leaves last closes the file.
        self._users = 1
        self._lock = threading.Lock()

    def open(self, sandbox: Sandbox) -> None:
        """Open it; in a lane.

        Raises:
            FileUnreadable: it is not HDF5.
            FileMissing, FileForbidden
            Unsettled: it changed just now.
        """
        self._enter()
        try:
            self._open(sandbox.place(self.name))
        finally:
            self.close()

    def _open(self, place: Place) -> None:
        self._descriptor = open_regular(place)
        self.is_direct = place.asked == place.real
        with translated(self.name):
            status = os.fstat(self._descriptor)
            is_hdf5 = has_signature(self._descriptor, status.st_size)
        if not is_hdf5:
            raise FileUnreadable(self.name, "it has no signature of HDF5")
        self.identity = Identity.of(status)
        wait = self.identity.settles_in(time.time_ns())
        if wait > 0:
            raise Unsettled(self.name, wait)
        self.settled = wait == 0

    def read(self, start: int, length: int) -> bytes:
        """Bytes of the content that `identity` stands for; in a lane.

        Raises:
            FileChanged: they may be of another content, or are there no more.
            FileUnreadable: the storage fails.
        """
        self._enter()
        try:
            with translated(self.name):
                data = os.pread(self._descriptor, length, start)
                while len(data) < length and (
                    more := os.pread(self._descriptor, length - len(data), start + len(data))
                ):
                    data += more
                # Last: what is written after this is in no byte that was read.
                differs = self.identity.differs(os.fstat(self._descriptor))
        finally:
            self.close()
        if differs or len(data) < length:
            raise FileChanged(self.name)
        return data

    def _enter(self) -> None:
        with self._lock:
            if not self._users:
                raise Released
            self._users += 1

    def close(self) -> None:
        """The request is over, and so is the file when no thread reads it; from any thread."""
        with self._lock:
            self._users -= 1
            is_last = not self._users
        if is_last and self._descriptor >= 0:
            os.close(self._descriptor)
