"""Notes of who is in the lanes, in memory that outlives the process that wrote them.

Before them lies what the process has come to.
"""

import mmap
import os
import struct
import tempfile
import time
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Self, TypeVar

from asgihive.service.figures import Figures
from asgihive.service.isolation.bans import Bans
from asgihive.visits import Content

T = TypeVar("T")

_MOST_NAME_BYTES = 220

_FIGURES = struct.Struct(f"<{len(Figures._fields)}q")

# Of a slot: the request (0 = nobody is there), since when, and two files.
_HEAD = struct.Struct("<Qd")
_NUMBER = struct.Struct("<Q")
_FILE = struct.Struct(f"<QQQqH{_MOST_NAME_BYTES}s")
_ASKED = _HEAD.size
_INSIDE = _ASKED + _FILE.size
_SLOT_BYTES = _INSIDE + _FILE.size
_NO_FILE = bytes(_FILE.size)

_slot: ContextVar[int | None] = ContextVar("asgihive slot", default=None)


@dataclass(frozen=True, slots=True)
class Touched:
    """A content of a file; `name` is the client's, or relative to the served directory."""

    name: str
    content: Content


@dataclass(frozen=True, slots=True)
class Visit:
    """A call that is, or was, in a lane.

    request: for which it is made.
    since: when it began, by `time.monotonic`.
    asked: the first file that the request touched.
    inside: the last one that this call touched, or the request before it.
    """

    request: int
    since: float
    asked: Touched | None
    inside: Touched | None


class Board:
    """Shared memory with a slot for each call in a lane.

    One process writes it; another one reads it, at any time, and when the first has ended.
    """

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, 0)
        self._offsets = range(_FIGURES.size, len(self._memory), _SLOT_BYTES)
        self._free = deque(self._offsets)  # the one that was left last is taken first

    @classmethod
    def create(cls, slots: int) -> tuple[Self, int]:
        """A new board, and a descriptor for whoever shares it."""
        descriptor = _anonymous_file()
        os.ftruncate(descriptor, _FIGURES.size + slots * _SLOT_BYTES)
        return cls(descriptor), descriptor

    def enter(self, request: int, asked: bytes, inside: bytes) -> int | None:
        """Note a call; where, for `leave`. None when there is no room for another one."""
        try:
            slot = self._free.pop()
        except IndexError:
            return None
        memory = self._memory
        memory[slot + _ASKED : slot + _SLOT_BYTES] = asked + inside
        _HEAD.pack_into(memory, slot, request, time.monotonic())
        return slot

    def touch(self, slot: int, inside: bytes) -> None:
        """Note which file a call reads from now on."""
        self._memory[slot + _INSIDE : slot + _SLOT_BYTES] = inside

    def leave(self, slot: int) -> None:
        """Note that a call is over."""
        _NUMBER.pack_into(self._memory, slot, 0)
        self._free.append(slot)

    def visits(self) -> list[Visit]:
        """The calls that are noted now."""
        found = []
        for slot in self._offsets:
            request, since = _HEAD.unpack_from(self._memory, slot)
            if request:
                asked = _unpacked(self._memory, slot + _ASKED)
                found.append(Visit(request, since, asked, _unpacked(self._memory, slot + _INSIDE)))
        return found

    def tell(self, figures: Figures) -> None:
        """Note what the process has come to."""
        _FIGURES.pack_into(self._memory, 0, *figures)

    def figures(self) -> Figures:
        """What was told last; zeros before."""
        return Figures(*_FIGURES.unpack_from(self._memory, 0))

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()


class Visitor:
    """Notes on a board where one request is, and keeps it from what is banned."""

    def __init__(self, board: Board, bans: Bans, request: int) -> None:
        self._board = board
        self._bans = bans
        self._request = request
        self._asked = self._last = _NO_FILE

    def visit(self, work: Callable[[], T]) -> T:
        """Run `work` in the calling thread, noted."""
        slot = self._board.enter(self._request, self._asked, self._last)
        if slot is None:
            return work()
        token = _slot.set(slot)
        try:
            return work()
        finally:
            _slot.reset(token)
            self._board.leave(slot)

    def touch(self, name: str, content: Content) -> None:
        """Note a file. Raises ReaderCrashed when it is banned."""
        self._bans.check(name, content)
        self._last = _packed(name, content)
        if self._asked is _NO_FILE:
            self._asked = self._last
        slot = _slot.get()
        if slot is not None:
            self._board.touch(slot, self._last)


def _packed(name: str, content: Content) -> bytes:
    encoded = name.encode("utf-8", "surrogateescape")[:_MOST_NAME_BYTES]
    return _FILE.pack(*content, len(encoded), encoded)


def _unpacked(memory: mmap.mmap, offset: int) -> Touched | None:
    device, inode, size, mtime_ns, length, name = _FILE.unpack_from(memory, offset)
    if not length:
        return None
    return Touched(
        name[:length].decode("utf-8", "surrogateescape"), (device, inode, size, mtime_ns)
    )


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("asgihive-board")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
