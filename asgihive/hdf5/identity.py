"""The identity of a file: what tells one content from the next without reading it."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Self, TypeVar

from anyio.lowlevel import current_token

from asgihive.errors import NeedsThread

Content = tuple[int, int, int, int]
"""What tells one content of a file from the next: device, inode, size, mtime in nanoseconds."""

# Longest time for which two changes may leave one timestamp. Linux stamps files from a
# clock that ticks at 100 to 1,000 Hz; file systems without sub-second stamps (FAT, old
# network file systems) tick in whole seconds, FAT in two.
_FINE_TICK_NS = 20_000_000
_COARSE_TICK_NS = 2_000_000_000

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
        """The same without the change time, which moves with names and permissions, too."""
        return self.device, self.inode, self.size, self.mtime_ns

    def has_content_of(self, other: "Identity | None") -> bool:
        """Return whether the content is that of `other`, as far as size and mtime tell.

        The change time moves as well when a file is renamed, gets another name, owner or
        mode; such a change breaks nothing that is being read. It is part of the identity all the
        same, since a writer may put the modification time back, but not the change time: what is
        kept for later is kept by the whole identity.
        """
        return other is not None and self.content == other.content

    def differs(self, status: os.stat_result) -> bool:
        """Return whether the content of an open file is not that of this identity any more.

        Args:
            status: what `fstat` says now.
        """
        return (status.st_size, status.st_mtime_ns) != (self.size, self.mtime_ns)

    def settles_in(self, now_ns: int) -> float:
        """Seconds until a further change is certain to change the identity; 0 when it is now.

        Until then a writer may change the file within the tick of the clock that stamped
        it, and nothing would show (git's index calls such an entry racily clean). Only the
        change time counts: unlike the modification time, no program can set it.
        Negative when the stamp lies further in the future than a tick: another machine's
        clock, from which nothing can be concluded.
        """
        coarse = self.ctime_ns % 1_000_000_000 == 0 and self.mtime_ns % 1_000_000_000 == 0
        tick = _COARSE_TICK_NS if coarse else _FINE_TICK_NS
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
        if self._is_slow and _is_on_loop():
            raise NeedsThread
        began = perf_counter()
        try:
            return question(argument)
        finally:
            is_quick = perf_counter() - began <= SLOW_STAT_SECONDS
            if self._is_slow:
                self._quick = self._quick + 1 if is_quick else 0
                self._is_slow = self._quick < QUICK_AGAIN
            elif not is_quick and _is_on_loop():
                self._is_slow, self._quick = True, 0


def _is_on_loop() -> bool:
    """Return whether the calling thread runs an event loop."""
    try:
        current_token()
    except RuntimeError:
        return False
    return True
