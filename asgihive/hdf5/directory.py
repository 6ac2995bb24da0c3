"""The entries of a directory, page by page, and the bytes of whole HDF5 files.

Everything here makes system calls, so it runs in a lane.
"""

import contextlib
import heapq
import itertools
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol
from unicodedata import normalize

from asgihive.errors import FileChanged, FileError, FileMissing, FileUnreadable
from asgihive.hdf5.file_bytes import encoded, read_bytes, signature_offset, text
from asgihive.hdf5.open_file import Unsettled
from asgihive.hdf5.pool import Released
from asgihive.hdf5.remote import Descriptor, close_descriptor, identify
from asgihive.hdf5.sandbox import (
    Identity,
    Place,
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


class SortKey(StrEnum):
    """What entries are sorted by; entries that are equal in it are sorted by name."""

    NAME = "name"
    MODIFIED = "modified"
    SIZE = "size"


Rank = tuple[int, bytes, bytes]
"""Where an entry stands among others: what it is sorted by, its name, the folder it lies in.

The number is 0 where entries are sorted by name. The folder is relative to the listed directory.
"""


@dataclass(frozen=True, slots=True)
class ListingRequest:
    """What is asked for of a directory, or of all directories below it.

    Attributes:
        directory: relative to the served directory.
        words: each is part of the names that are listed, in any case of letters.
        is_recursive: whether the directories below are listed as well.
        sort: what comes first.
        is_descending: whether the last comes first.
        after: the entries behind this one are listed; None = all.
        limit: so many entries at most.
    """

    directory: str
    limit: int
    words: tuple[str, ...] = ()
    is_recursive: bool = False
    sort: SortKey = SortKey.NAME
    is_descending: bool = False
    after: Rank | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Entries in the order that was asked for."""

    entries: tuple[Entry, ...]
    next: Rank | None
    """After which entry the next page begins; None when there is none."""
    is_complete: bool
    """Whether all that was to be searched was: False where a bound ended it."""


MAX_SEARCHED_ENTRIES = 200_000
"""Entries that are looked at for one page of a directory and all below it."""

MAX_SEARCH_SECONDS = 5.0
"""How long they are looked at."""

MAX_SEARCH_DEPTH = 32
"""Levels of directories that are looked at below the one that is listed."""

# Entries after which the time is looked at.
_TIMED_ENTRIES = 1000


class Listing:
    """The first entries of a directory, or of many, in some order.

    What comes and goes between two pages makes no other entry appear twice or not at all.
    Memory is that of a page, however many entries there are. Left out are names that begin with
    a dot, symbolic links that lead nowhere or out of the sandbox, and all but directories and
    regular files, which are never opened. A page that is sorted by name may therefore have fewer
    entries than `limit`, and still a next one.

    Args:
        sandbox: the served directory.
        request: what is asked for.
    """

    def __init__(self, sandbox: Sandbox, request: ListingRequest) -> None:
        self._sandbox = sandbox
        self._request = request
        self._top = normalised(request.directory)
        self._words = tuple(map(_fold, request.words))
        self._best: list[_Candidate] = []
        self._left = MAX_SEARCHED_ENTRIES
        self._deadline = time.monotonic() + MAX_SEARCH_SECONDS
        self._is_complete = True

    def add(self, directory: str) -> list[str]:
        """Take what a directory holds; in a lane.

        Args:
            directory: the one that is asked for, or one that an earlier call has returned.

        Returns:
            The directories in it that are to be searched as well. No symbolic link is among
            them, so that no directory is searched twice.

        Raises:
            FileMissing: it is not there, not inside, or no directory.
            FileForbidden, FileUnreadable
        """
        request, below = self._request, list[str]()
        if directory != request.directory and time.monotonic() > self._deadline:
            self._is_complete = False
            return below
        with self.open_directory(directory) as opened, translated(directory):
            found = self._find_candidates(opened, normalised(directory), below)
            first = heapq.nlargest if request.is_descending else heapq.nsmallest
            both = itertools.chain(self._best, found)
            self._best = first(request.limit + 1, both, key=lambda each: each.rank)
        return below

    def open_directory(self, name: str) -> AbstractContextManager["OpenDirectory"]:
        """Return a context in which a directory is open; raises as `add`."""
        return _open_local(self._sandbox, name)

    def make_page(self) -> Page:
        """Return the entries; in a lane."""
        listed = self._best[: self._request.limit]
        by_folder: dict[str, list[_Candidate]] = {}
        for each in listed:
            by_folder.setdefault(each.folder, []).append(each)
        entries: dict[Rank, Entry] = {}
        for folder, candidates in by_folder.items():
            # It may have gone meanwhile.
            with contextlib.suppress(FileError), self.open_directory(folder) as opened:
                for each in candidates:
                    entry = _find_entry(opened, each)
                    if entry is not None:
                        entries[each.rank] = entry
        has_next = len(self._best) > len(listed)
        return Page(
            tuple(entries[each.rank] for each in listed if each.rank in entries),
            listed[-1].rank if has_next else None,
            self._is_complete,
        )

    def _find_candidates(
        self, opened: "OpenDirectory", folder: str, below: list[str]
    ) -> Iterator["_Candidate"]:
        request = self._request
        relative = os.fsencode(folder[len(self._top) :].lstrip("/"))
        depth = relative.count(b"/") + 1 if relative else 0
        for name, is_directory in opened.scan_names():
            if request.is_recursive:
                if self._is_over():
                    return
                if is_directory and depth < MAX_SEARCH_DEPTH:
                    below.append(join_names(folder, name))
                elif is_directory:
                    self._is_complete = False
            if self._words and not self._has_words(name):
                continue
            value: int | None = 0
            if request.sort is not SortKey.NAME:
                value = self._measure(opened, name)
            if value is None:
                continue
            rank = (value, os.fsencode(name), relative)
            after = request.after
            if after is None or (rank < after if request.is_descending else rank > after):
                yield _Candidate(rank, folder, name)

    def _is_over(self) -> bool:
        """Count an entry; return whether a bound has ended the search."""
        self._left -= 1
        is_time_asked = self._left % _TIMED_ENTRIES == 0
        if self._left < 0 or (is_time_asked and time.monotonic() > self._deadline):
            self._left, self._is_complete = 0, False
        return self._left <= 0 and not self._is_complete

    def _has_words(self, name: str) -> bool:
        folded = _fold(text(encoded(name)))
        return all(each in folded for each in self._words)

    def _measure(self, opened: "OpenDirectory", name: str) -> int | None:
        """Return what an entry is sorted by; None where nothing can be asked for."""
        status = opened.find_status(name)
        if status is None:
            return None
        if self._request.sort is SortKey.MODIFIED:
            return status.modified_ns
        return -1 if status.size is None else status.size


def _find_entry(opened: "OpenDirectory", candidate: "_Candidate") -> Entry | None:
    """Return an entry, None where nothing can be asked for."""
    name = candidate.name
    status = opened.find_status(name)
    if status is None:
        return None
    kind = EntryKind.DIRECTORY
    if status.size is not None:
        kind = EntryKind.HDF5 if opened.is_hdf5(name, status) else EntryKind.FILE
    file = join_names(candidate.folder, name)
    return Entry(name, file, kind, status.size, status.modified_ns)


class EntryStatus(NamedTuple):
    """What is known of a directory or a regular file."""

    size: int | None
    """In bytes; None of a directory."""
    modified_ns: int
    """Since 1970."""
    target: Place | None = None
    """Where a symbolic link leads."""


class OpenDirectory(Protocol):
    """A directory that is listed."""

    def scan_names(self) -> Iterator[tuple[str, bool]]:
        """Yield the names that may be listed, and which are directories and no links to one."""

    def find_status(self, name: str) -> EntryStatus | None:
        """Return what is known of a name; None where nothing can be asked for."""

    def is_hdf5(self, name: str, status: EntryStatus) -> bool:
        """Return whether a regular file is HDF5; False also for what cannot be read."""


@contextlib.contextmanager
def _open_local(sandbox: Sandbox, name: str) -> Iterator[OpenDirectory]:
    place = sandbox.directory(name)
    try:
        descriptor = open_place(place, is_directory=True)
    except FileMissing:
        problem = "it is no directory" if os.path.isfile(place.real) else ""
        raise FileMissing(name, problem) from None
    try:
        yield _LocalDirectory(sandbox, name, descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class _LocalDirectory:
    """An open directory of a file system, see `OpenDirectory`."""

    sandbox: Sandbox
    folder: str
    descriptor: int

    def scan_names(self) -> Iterator[tuple[str, bool]]:
        with os.scandir(self.descriptor) as found:
            for each in found:
                if each.name.startswith("."):
                    continue
                # Mostly told by the directory itself, without asking for each file.
                is_directory = each.is_dir(follow_symlinks=False)
                if is_directory or each.is_symlink() or each.is_file(follow_symlinks=False):
                    yield each.name, is_directory

    def find_status(self, name: str) -> EntryStatus | None:
        target = None
        try:
            status = os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                target = self.sandbox.place(join_names(normalised(self.folder), name))
                status = os.stat(target.real, follow_symlinks=False)
        except (OSError, FileMissing):
            return None
        if stat.S_ISDIR(status.st_mode):
            return EntryStatus(None, status.st_mtime_ns, target)
        if stat.S_ISREG(status.st_mode):
            return EntryStatus(status.st_size, status.st_mtime_ns, target)
        return None

    def is_hdf5(self, name: str, status: EntryStatus) -> bool:
        with contextlib.suppress(FileError, OSError):
            target = status.target
            opened = open_beside(self.descriptor, name) if target is None else open_place(target)
            try:
                return has_signature(opened, os.fstat(opened).st_size)
            finally:
                os.close(opened)
        return False


@dataclass(frozen=True, slots=True)
class _Candidate:
    """What may become an entry of a page."""

    rank: Rank
    folder: str
    name: str


def join_names(folder: str, name: str) -> str:
    """Return the path of a name in a folder, which is `""` for the served directory."""
    return f"{folder}/{name}" if folder else name


def _fold(word: str) -> str:
    """Return a text without the case of its letters, and in one of its ways to be written.

    File systems of macOS have names in another normal form than keyboards.
    """
    return word.lower() if word.isascii() else normalize("NFC", word).casefold()


def has_signature(descriptor: Descriptor, size: int) -> bool:
    """Return whether a file begins as HDF5 does, user block or not."""
    return signature_offset(descriptor, size) is not None


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
        self._descriptor: Descriptor = -1
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
            self._descriptor = sandbox.open(place)
            self.is_direct = place.asked == place.real
            self.identity = identify(self._descriptor)
            if not has_signature(self._descriptor, self.identity.size):
                raise FileUnreadable(self.name, "it has no signature of HDF5")
        wait = self.identity.settles_in(time.time_ns())
        if wait > 0:
            raise Unsettled(self.name, wait)
        self.settled = wait == 0

    def holding(self, start: int, length: int) -> AbstractAsyncContextManager[None]:
        """Have bytes of a remote file in memory that `read` is about to read; raises as that."""
        if isinstance(self._descriptor, int):
            return contextlib.nullcontext()
        return self._descriptor.holding([(start, length)])

    def read(self, start: int, length: int) -> bytes:
        """Return bytes of the content that `identity` stands for; in a lane.

        Raises:
            FileChanged: they may be of another content, or are there no more.
            FileUnreadable: the storage fails.
        """
        with self._hold(), translated(self.name):
            data = read_bytes(self._descriptor, length, start)
            # Last: a later write is in no byte that was read.
            now = identify(self._descriptor)
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
        if is_last and self._descriptor != -1:
            close_descriptor(self._descriptor)
