"""From an untrusted file name to a file descriptor inside the served directory, and its identity.

The identity of a file tells one content from the next without reading it.
"""

import contextlib
import errno
import logging
import os
import re
import resource
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from time import perf_counter
from typing import TYPE_CHECKING, Self, TypeVar

from anyio.lowlevel import current_token

from asgihive.errors import (
    DescriptorsExhausted,
    FileForbidden,
    FileMissing,
    FileOutside,
    FileUnreadable,
    NeedsThread,
)

if TYPE_CHECKING:
    from asgihive.hdf5.remote import Descriptor

Content = tuple[int, int, int, int]
"""What tells one content of a file from the next: device, inode, size, mtime in nanoseconds."""

FINE_TICK_NS = 20_000_000
"""Longest time for which two changes may leave one timestamp.

Linux stamps files from a clock that ticks at 100 to 1,000 Hz.
"""

# File systems without sub-second stamps (FAT, old network file systems) tick in whole seconds,
# FAT in two.
_COARSE_TICK_NS = 2_000_000_000

_VERSION_BYTES = 16

SLOW_STAT_SECONDS = 0.005
"""A `stat` that takes this long tells of a sick file system."""

QUICK_AGAIN = 32
"""So often in a row it must have been quick again: a busy machine is slow now and then."""

A = TypeVar("A")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Identity:
    """Device, inode, size in bytes, and times of the last change in nanoseconds."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        return cls(
            status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        )

    @property
    def content(self) -> Content:
        """The identity without the change time, which moves with names and permissions, too."""
        return self.device, self.inode, self.size, self.mtime_ns

    @property
    def shared(self) -> tuple[int, ...]:
        """The identity without the device, for versions that clients are told.

        Machines that share a network file system number its devices as they like.
        """
        return self.inode, self.size, self.mtime_ns, self.ctime_ns

    @property
    def version(self) -> str:
        """What tells clients one content from the next, in hexadecimal digits."""
        return blake2b(repr(self.shared).encode(), digest_size=_VERSION_BYTES).hexdigest()

    def has_content_of(self, other: "Identity | None") -> bool:
        """Return whether the content is that of `other`, as far as size and mtime tell.

        The change time moves as well when a file is renamed, gets another name, owner or
        mode; such a change breaks nothing that is being read. It is part of the identity all the
        same, since a writer may put the modification time back, but not the change time: what is
        kept for later is kept by the whole identity.
        """
        return other is not None and self.content == other.content

    def settles_in(self, now_ns: int) -> float:
        """Return in how many seconds a further change is certain to change the identity; 0 = now.

        Until then a writer may change the file within the tick of the clock that stamped
        it, and nothing would show (git's index calls such an entry racily clean). Only the
        change time counts: unlike the modification time, no program can set it.
        Negative when the stamp lies further in the future than a tick: another machine's
        clock, from which nothing can be concluded.
        """
        coarse = self.ctime_ns % 1_000_000_000 == 0 and self.mtime_ns % 1_000_000_000 == 0
        tick = _COARSE_TICK_NS if coarse else FINE_TICK_NS
        age = now_ns - self.ctime_ns
        if age < -tick:
            return -1.0
        return max(0, tick - age) / 1e9


class StatGuard:
    """Asks the file system whether files are unchanged: on the event loop, while it is quick.

    A `stat` takes 1 to 2 µs, where a thread costs 70; but of a network file system that is sick it
    takes milliseconds, and stalls every request. Once a question has taken over 5 ms, none is
    asked on the event loop until 32 in a row were quick in threads. For all threads.
    """

    def __init__(self) -> None:
        self._is_slow = False
        self._quick = 0

    def find_identity(self, path: str) -> Identity | None:
        """Return the identity of what `path` leads to now, None when there is nothing.

        Raises:
            NeedsThread: see `ask`.
        """
        try:
            return Identity.of(self.ask(os.stat, path))
        except OSError:
            return None

    def ask(self, question: Callable[[A], T], argument: A) -> T:
        """Return what `question`, which makes a system call, says of `argument`.

        Raises:
            NeedsThread: on the event loop, while the file system is slow.
        """
        if self._is_slow and is_on_loop():
            raise NeedsThread
        began = perf_counter()
        try:
            return question(argument)
        finally:
            is_quick = perf_counter() - began <= SLOW_STAT_SECONDS
            if self._is_slow:
                self._quick = self._quick + 1 if is_quick else 0
                self._is_slow = self._quick < QUICK_AGAIN
            elif not is_quick and is_on_loop():
                self._is_slow, self._quick = True, 0


def is_on_loop() -> bool:
    """Return whether the calling thread runs an event loop."""
    try:
        current_token()
    except RuntimeError:
        return False
    return True


_logger = logging.getLogger(__name__)

_MISSING = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.ENXIO,  # a socket, or a device without a driver
    errno.ENODEV,
}


@dataclass(frozen=True, slots=True)
class Place:
    """A file that may be opened.

    name: as the client knows it, relative to the served directory.
    asked: absolute path before symbolic links are resolved; where relative link targets start.
    real: absolute path without symbolic links; the only one that is ever opened.
    """

    name: str
    asked: str
    real: str


class Sandbox:
    """The served directory, and the rule of what counts as inside it.

    Args:
        root: the directory; resolved once, here.
        follow_symlinks: whether a symbolic link inside the directory may lead out of it.
            Links that lead to another place inside always work.

    Raises:
        FileNotFoundError: there is no such directory.
        NotADirectoryError: `root` is something else.
    """

    def __init__(self, root: str | os.PathLike[str], *, follow_symlinks: bool = False) -> None:
        self.root = os.path.realpath(root, strict=True)
        self._prefix = self.root.rstrip("/") + "/"
        self.follow_symlinks = follow_symlinks
        self._is_mount_point = os.path.ismount(self.root)
        self._has_told_of_link = False
        if not os.path.isdir(self.root):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(root))

    def make_guard(self) -> StatGuard:
        """Return what asks whether files of this directory are unchanged."""
        return StatGuard()

    def open(self, place: Place) -> "Descriptor":
        """Open a regular file, as `open_place`; in a lane."""
        return open_place(place)

    def identify(self, name: str) -> Identity | None:
        """Return the identity of the client's file `name`, None where there is none; in a lane."""
        try:
            status = os.stat(self.place(name).real)
        except (FileMissing, OSError):
            return None
        return Identity.of(status) if stat.S_ISREG(status.st_mode) else None

    def read_root(self) -> None:
        """Read a name of the directory, which mounts it where that is done on demand.

        Raises:
            OSError
        """
        with os.scandir(self.root) as entries:
            next(entries, None)

    def root_problem(self) -> str | None:
        """Return why the directory itself is not there now, None if it is; makes system calls.

        Where a file system was mounted at it, that must still be so: below lies another
        directory, which is mostly empty.
        """
        try:
            os.stat(self.root)
        except OSError as error:
            return os.strerror(error.errno or errno.EIO)
        if self._is_mount_point and not os.path.ismount(self.root):
            return "its file system is not mounted any more"
        return None

    def place(self, file: str) -> Place:
        """Return where the client's `file` lies.

        Raises:
            FileMissing: it leaves the directory, or its name can be no file's name.
        """
        name = normalised(file)
        if not name or file.endswith("/"):
            raise FileMissing(file)
        return self._inside(file, os.path.join(self.root, name))

    def find_leading_file(
        self, parts: Sequence[str], suffix: str, guard: StatGuard
    ) -> tuple[str, int, Identity] | None:
        """Return the file that the first of some names lead to, as a path is walked.

        The file itself may lie outside of the directory: `place` tells. Nothing is opened.

        Args:
            parts: names without slashes; those that are empty or `.` mean nothing.
            suffix: may follow the name of a file that does not end in it.
            guard: asks the file system, once for each name.

        Returns:
            Its name as the client knows it, how many parts lead there, and its identity; None
            where no file is on the way.

        Raises:
            NeedsThread: see `StatGuard.ask`.
            FileForbidden: a directory may not be searched.
            FileUnreadable: the file system fails.
        """
        name = ""
        for count, part in enumerate(parts, 1):
            if part in {"", "."}:
                continue
            name = f"{name}/{part}" if name else part
            status = self._find_status(name, guard)
            bare = name.removesuffix(suffix)
            if status is None and bare != name and not bare.endswith("/") and bare:
                name, status = bare, self._find_status(bare, guard)
                if status is not None and stat.S_ISDIR(status.st_mode):
                    return None
            if status is None:
                return None
            if stat.S_ISREG(status.st_mode):
                return name, count, Identity.of(status)
            if not stat.S_ISDIR(status.st_mode):
                return None
        return None

    def _find_status(self, name: str, guard: StatGuard) -> os.stat_result | None:
        with contextlib.suppress(FileMissing, ValueError), translated(name):
            return guard.ask(os.stat, os.path.join(self.root, name))
        return None

    def directory(self, name: str) -> Place:
        """Return where the directory lies that the client calls `name`; `""` is the served one.

        Raises:
            FileMissing: it leaves the served directory, or it can be no file's name.
        """
        relative = normalised(name)
        if not relative:
            return Place(name, self.root, self.root)
        return self._inside(name, os.path.join(self.root, relative))

    def linked(self, origin: Place, target: str) -> list[Place]:
        """Return where a file name stored in the HDF5 file `origin` may lead, best candidate first.

        As in libhdf5, a relative name starts at the directory of the file that holds it (as
        it was asked for, then as it really lies), and an absolute one that leads nowhere is
        looked for beside that file. Unlike there, never at the current directory, and only
        candidates inside the served directory are returned.
        """
        places = []
        for path in _candidates(origin, target):
            with contextlib.suppress(FileMissing):
                places.append(self._inside(os.path.relpath(path, self.root), path))
        return places

    def leads_outside(self, origin: Place, target: str) -> bool:
        """Return whether `linked` left out a candidate, as not inside the served directory."""
        return len(self.linked(origin, target)) < len(_candidates(origin, target))

    def _inside(self, name: str, path: str) -> Place:
        try:
            real = os.path.realpath(path)
        except (OSError, ValueError):
            raise FileMissing(name) from None
        lexically_inside = os.path.normpath(path).startswith(self._prefix)
        if real.startswith(self._prefix) or (self.follow_symlinks and lexically_inside):
            return Place(name, path if lexically_inside else real, real)
        if lexically_inside:
            self._tell_of_link(path)
        raise FileOutside(name)

    def _tell_of_link(self, path: str) -> None:
        """Log once that a symbolic link leads out: for clients the file is only missing."""
        if not self._has_told_of_link:
            self._has_told_of_link = True
            _logger.warning(
                "A symbolic link leads %s out of %s, and is refused, as all others that do: "
                "--follow-symlinks (the setting follow_symlinks) lets links lead out",
                ascii(path),
                self.root,
            )


def _candidates(origin: Place, target: str) -> list[str]:
    """Return where libhdf5 would look for `target`, but for the current directory."""
    if not target or "\0" in target:
        return []
    candidates = [
        os.path.join(os.path.dirname(base), name)
        for name in dict.fromkeys((target, os.path.basename(target)))
        for base in dict.fromkeys((origin.asked, origin.real))
        if name == target or target.startswith("/")
    ]
    return list(dict.fromkeys(os.path.normpath(each) for each in candidates))


def normalised(name: str) -> str:
    """Return the client's name of a file without `.`, `..` and needless slashes; pure.

    A name that begins with a slash is relative to the served directory too, as h5grove has it.
    `..` takes back the name before it, as in RFC 3986 section 5.2.4; behind a symbolic link
    that may be followed it would lead to the neighbours of the link's target. The served
    directory itself is `""`.

    Raises:
        FileMissing: it leaves the served directory, or it can be no file's name.
    """
    if "\0" in name:
        raise FileMissing(name)
    kept: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if not kept:
                raise FileMissing(name)
            kept.pop()
        elif part not in {"", "."}:
            kept.append(part)
    return "/".join(kept)


@contextlib.contextmanager
def translated(name: str) -> Iterator[None]:
    """Turn an operating system's error into the one of `asgihive.errors`."""
    try:
        yield
    except PermissionError:
        raise FileForbidden(name) from None
    except OSError as error:
        if error.errno in _MISSING:
            raise FileMissing(name) from None
        if is_exhaustion(error):
            raise DescriptorsExhausted from error
        raise FileUnreadable(name, os.strerror(error.errno or 0)) from error


def open_place(place: Place, *, is_directory: bool = False) -> int:
    """Return a read-only descriptor of a regular file, or of a directory, to list it.

    Each component of the real path is opened beneath the one before without following
    symbolic links, so that a link put there after `place` was made leads nowhere. Never
    waits: a FIFO or a device is opened non-blocking and refused.

    Raises:
        FileMissing, FileForbidden, FileUnreadable
    """
    *directories, last = place.real.strip("/").split("/")
    flags = _FLAGS | (os.O_DIRECTORY if is_directory else 0)
    with translated(place.name):
        current = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for directory in directories:
                beneath = os.open(directory, _FLAGS | os.O_DIRECTORY | _SEARCH_ONLY, dir_fd=current)
                os.close(current)
                current = beneath
            descriptor = os.open(last or ".", flags, dir_fd=current)
        finally:
            os.close(current)
    return descriptor if is_directory else _checked_regular(descriptor, place.name)


def open_beside(directory: int, name: str) -> int:
    """Open a regular file by its name in a directory that is open, as `open_place`."""
    with translated(name):
        descriptor = os.open(name, _FLAGS, dir_fd=directory)
    return _checked_regular(descriptor, name)


def _checked_regular(descriptor: int, name: str) -> int:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileMissing(name)
    return descriptor


_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY

# A directory that may be traversed but not listed can be opened only this way (Linux).
_SEARCH_ONLY = getattr(os, "O_PATH", 0)


# Descriptors: how many the process may have, and what it means that none is left.

# For connections, the log, the libraries and whatever else an application opens.
_RESERVED_DESCRIPTORS = 256

_DESCRIPTORS_PER_FILE = 3

_EXHAUSTED = {errno.EMFILE, errno.ENFILE}

# How libhdf5 says it through h5py, which has no `errno` in its exceptions.
_ERRNO = re.compile(r"errno = (\d+)")


def is_exhaustion(error: BaseException) -> bool:
    """Return whether the process, or the system, could open no further file."""
    if isinstance(error, OSError) and error.errno in _EXHAUSTED:
        return True
    found = _ERRNO.search(str(error))
    return found is not None and int(found[1]) in _EXHAUSTED


def fit_open_files(wanted: int) -> int:
    """Return how many files may be open at once: `wanted`, or as many as the process may have.

    The soft limit of descriptors is raised as far as is needed and the hard one lets it. Each
    file that is open has one, libhdf5 may have a second one, and it may be sent as a whole at the
    same time, by a third one.
    """
    needed = _DESCRIPTORS_PER_FILE * wanted + _RESERVED_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (OSError, ValueError):  # macOS has a further limit for the whole system
        most = soft
    if most >= needed:
        return wanted
    left = most - min(_RESERVED_DESCRIPTORS, most // 2)
    fitting = min(wanted, max(1, left // _DESCRIPTORS_PER_FILE))
    _logger.warning(
        "max_open_files is %d instead of %d: the process may have %d file descriptors "
        "(`ulimit -n`), and %d are needed",
        *(fitting, wanted, most, needed),
    )
    return fitting
