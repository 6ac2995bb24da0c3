"""One content of an object, read as an open file is: by blocks that are kept, or by ranges."""

import io
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import anyio
from h5py import h5f, h5fd, h5p

from asgihive.errors import FileChanged, NeedsStore
from asgihive.hdf5.file_bytes import allow_waiting, leaves_for_stores, leaving_for_stores
from asgihive.hdf5.remote import ByteRun
from asgihive.hdf5.sandbox import Identity
from asgihive.object_stores.store import BLOCK_BYTES, ObjectContent, ObjectStore
from asgihive.tasks import run_all

# Runs with fewer bytes between them are asked for together, up to so many bytes at once: a request
# takes as long as the transfer of some hundred kilobytes.
_GAP_BYTES = 1 << 17
_TOGETHER_BYTES = 8 << 20

# Blocks that are asked for at once, which lie apart: most children of a group are in few of them.
_MOST_EXPECTED = 16

# The second request for such a file takes all the rest of it.
_LITTLE_FILE_BYTES = 8 << 20


@dataclass(slots=True, eq=False)
class _HeldRange:
    """Bytes that are in memory, or on their way, for all who want them."""

    users: int = 0
    done: anyio.Event = field(default_factory=anyio.Event)
    body: bytes | None = None
    """None until they are there; afterwards, if they could not be read."""


class ObjectFile:
    """One content of an object; see `asgihive.hdf5.remote.RemoteFile`.

    Args:
        store: that has it.
        content: the one that is read, and no other.
        tell_change: called when the object turns out to have another content.
    """

    def __init__(
        self, store: ObjectStore, content: ObjectContent, tell_change: Callable[[], None]
    ) -> None:
        self._store = store
        self._content = content
        self._tell_change = tell_change
        self._is_changed = False
        self._lock = threading.Lock()
        self._held: dict[ByteRun, _HeldRange] = {}
        """By start and stop."""

    @property
    def identity(self) -> Identity:
        """Of the content."""
        return self._content.identity

    def has_changed(self) -> bool:
        """Return whether the object is known to have another content now; asks nothing."""
        return self._is_changed

    def _note_change(self) -> None:
        self._is_changed = True
        self._tell_change()

    # In any thread.

    def find_bytes(self, size: int, offset: int) -> bytes | None:
        """Return bytes if they are in memory, else None; fewer where it ends."""
        stop = min(offset + size, self.identity.size)
        if stop <= offset:
            return b""
        for (first, last), held in list(self._held.items()):
            if first <= offset and stop <= last and held.body is not None:
                return held.body[offset - first : stop - first]
        if stop - offset > BLOCK_BYTES:
            return None
        return self._join_blocks(offset, stop)

    def _join_blocks(self, offset: int, stop: int) -> bytes | None:
        first, last = offset // BLOCK_BYTES, (stop - 1) // BLOCK_BYTES
        with self._store.blocks_lock:
            blocks = [
                self._store.blocks.get((self.identity.inode, number))
                for number in range(first, last + 1)
            ]
        if None in blocks:
            return None
        base = first * BLOCK_BYTES
        return b"".join(filter(None, blocks))[offset - base : stop - base]

    def read(self, size: int, offset: int) -> bytes:
        """Return bytes, fewer where it ends; waits for the store. See `RemoteFile.read`."""
        allow_waiting()
        found = self.find_bytes(size, offset)
        if found is not None:
            return found
        stop = min(offset + size, self.identity.size)
        if stop - offset > BLOCK_BYTES:
            return self._fetch(offset, stop)
        if leaves_for_stores():
            base, until = self._find_blocks(offset, stop)
            raise NeedsStore((self.identity, base), partial(self._keep_soon, base, until))
        # One thread at a time: the next one mostly wants the same block.
        with self._lock:
            found = self._join_blocks(offset, stop)
            if found is not None:
                return found
            base, until = self._find_blocks(offset, stop)
            body = self._fetch(base, until)
            self._keep_blocks(base, body)
            return body[offset - base : min(offset + size, until) - base]

    def expect(self, offsets: Sequence[int]) -> None:
        """Raise NeedsStore if several blocks are not in memory. See `RemoteFile.expect`."""
        numbers = {each // BLOCK_BYTES for each in offsets if 0 <= each < self.identity.size}
        with self._store.blocks_lock:
            missing = sorted(
                {
                    self._find_blocks(number * BLOCK_BYTES, number * BLOCK_BYTES + 1)
                    for number in numbers
                    if self._store.blocks.peek((self.identity.inode, number)) is None
                }
            )[:_MOST_EXPECTED]
        if len(missing) > 1:
            asks = [partial(self._keep_soon, *each) for each in missing]
            raise NeedsStore((self.identity, *missing), partial(run_all, asks))

    def _find_blocks(self, offset: int, stop: int) -> ByteRun:
        """Return from where to where blocks are asked for that have some bytes."""
        base = offset // BLOCK_BYTES * BLOCK_BYTES
        if self.identity.size <= _LITTLE_FILE_BYTES:
            return (BLOCK_BYTES if base else 0), self.identity.size
        return base, min(-(-stop // BLOCK_BYTES) * BLOCK_BYTES, self.identity.size)

    def _keep_blocks(self, base: int, body: bytes) -> None:
        for start in range(0, len(body), BLOCK_BYTES):
            block = body[start : start + BLOCK_BYTES]
            self._store.keep_block(self._content, (base + start) // BLOCK_BYTES, block)

    def _fetch(self, start: int, stop: int) -> bytes:
        try:
            return self._store.fetch(self._content, start, stop)
        except FileChanged:
            self._note_change()
            raise

    def open_by_library(self, access: h5p.PropFAID) -> h5f.FileID:
        """Open it by libhdf5, which reads it by blocks; in the library lane."""
        own = access.copy()
        own.set_fileobj_driver(h5fd.fileobj_driver, _SeekableObject(self))
        return h5f.open(b"object", h5f.ACC_RDONLY, fapl=own)

    # On the event loop.

    async def _keep_soon(self, base: int, until: int) -> None:
        """Ask for blocks, and keep them."""

        async def fetch() -> None:
            try:
                body = await self._store.fetch_soon(self._content, base, until)
            except FileChanged:
                self._note_change()
                raise
            self._keep_blocks(base, body)

        await self._store.ask_once((self.identity.inode, base), fetch)

    def holding(self, runs: Sequence[ByteRun]) -> AbstractAsyncContextManager[None]:
        """Have runs of bytes (offset, number) in memory. See `RemoteFile.holding`."""
        return self._holding(runs)

    @asynccontextmanager
    async def _holding(self, runs: Sequence[ByteRun]) -> AsyncIterator[None]:
        missing = [each for each in runs if self.find_bytes(each[1], each[0]) is None]
        ranges = join_runs(missing, self.identity.size)
        taken: list[tuple[ByteRun, _HeldRange]] = []
        try:
            await run_all([partial(self._hold, each, taken) for each in ranges])
            yield
        finally:
            for place, held in taken:
                self._release(place, held)

    async def _hold(self, place: ByteRun, taken: list[tuple[ByteRun, _HeldRange]]) -> None:
        while True:
            held = self._held.get(place)
            if held is None:
                held = self._held[place] = _HeldRange(users=1)
                taken.append((place, held))
                try:
                    held.body = await self._store.fetch_soon(self._content, *place)
                except FileChanged:
                    self._note_change()
                    raise
                finally:
                    held.done.set()
                    if held.body is None and self._held.get(place) is held:
                        del self._held[place]
                return
            # However many ask for it at once, it is asked for once.
            held.users += 1
            taken.append((place, held))
            await held.done.wait()
            if held.body is not None:
                return

    def _release(self, place: ByteRun, held: _HeldRange) -> None:
        held.users -= 1
        if not held.users and self._held.get(place) is held:
            del self._held[place]


def join_runs(runs: Sequence[ByteRun], size: int) -> list[ByteRun]:
    """Return the ranges (start, stop) to ask for, of runs (offset, number); pure.

    Args:
        runs: in any order; what is of them behind the end is left out.
        size: of the whole object in bytes.
    """
    ranges: list[ByteRun] = []
    for offset, number in sorted(runs):
        stop = min(offset + number, size)
        if stop <= offset:
            continue
        if ranges:
            first, last = ranges[-1]
            if stop <= last:
                continue
            if offset - last <= _GAP_BYTES and stop - first <= _TOGETHER_BYTES:
                ranges[-1] = (first, stop)
                continue
        ranges.append((offset, stop))
    return ranges


class _SeekableObject(io.RawIOBase):
    """What libhdf5 reads by h5py's driver for Python's files."""

    def __init__(self, file: ObjectFile) -> None:
        self._file = file
        self._position = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.identity.size}
        self._position = base[whence] + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # of bytes alone
        with leaving_for_stores(False):  # libhdf5 takes what this raises for damage
            body = self._file.read(len(buffer), self._position)
        buffer[: len(body)] = body
        self._position += len(body)
        return len(body)
