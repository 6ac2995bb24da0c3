"""The identity of a file: what tells one content from the next without reading it."""

import os
from dataclasses import dataclass
from typing import Self

Content = tuple[int, int, int, int]
"""What tells one content of a file from the next: device, inode, size, mtime in nanoseconds."""

# Longest time for which two changes may leave one timestamp. Linux stamps files from a
# clock that ticks at 100 to 1,000 Hz; file systems without sub-second stamps (FAT, old
# network file systems) tick in whole seconds, FAT in two.
_FINE_TICK_NS = 20_000_000
_COARSE_TICK_NS = 2_000_000_000


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


def identity_on_loop(path: str) -> Identity | None:
    """The identity of what `path` leads to now, None when there is nothing.

    The one system call that the event loop may make (see `asgihive.service.answers`): a
    `stat` takes 1 to 2 µs where a thread would cost 70.
    """
    try:
        return Identity.of(os.stat(path))
    except OSError:
        return None
