"""Caches bounded in bytes, least recently used first out; and the one of decoded chunks."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from asgihive.hdf5.buffers import Bytes, find_bytes
from asgihive.hdf5.open_file import OpenFile

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# What an entry costs beside its value: key, links, bookkeeping.
ENTRY_OVERHEAD_BYTES = 512


class BytesCache(Generic[K, V]):
    """Values by key, at most `max_bytes` in all; 0 keeps nothing. For one thread at a time."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[K]:
        return iter(self._entries)

    def get(self, key: K) -> V | None:
        """Return the value, now the most recently used; None when it is not there."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def peek(self, key: K) -> V | None:
        """Return the value as `get`, but without using it; from any thread."""
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def put(self, key: K, value: V, size: int) -> None:
        """Keep `value` of `size` bytes, unless it alone is larger than the cache."""
        if key in self._entries:
            self.drop(key)
        size += ENTRY_OVERHEAD_BYTES
        if size > self.max_bytes:
            return
        self._entries[key] = (value, size)
        self.bytes += size
        while self.bytes > self.max_bytes:
            _, (_, freed) = self._entries.popitem(last=False)
            self.bytes -= freed

    def drop(self, key: K) -> None:
        """Forget the value; harmless when it is not there."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes -= entry[1]


ChunkKey = tuple[OpenFile, int, int]
"""A chunk by its open file, the address of its dataset there, and its number in the dataset."""


@dataclass(slots=True, eq=False)
class _Decoding:
    """A chunk that a thread decodes, for which others wait."""

    done: threading.Event = field(default_factory=threading.Event)
    chunk: Bytes | None = None
    """None until it is decoded; afterwards when it was never written, or failed."""


class ChunkCache:
    """Decoded chunks, at most `max_bytes` in all; 0 keeps nothing. For all threads.

    A closed file has none here, so that its entries are never the last to hold it.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.hits = 0
        """Chunks that were here, or being decoded by another thread."""
        self.misses = 0
        """Chunks that were decoded for the request that asked."""
        self._lock = threading.Lock()
        self._chunks: BytesCache[ChunkKey, Bytes] = BytesCache(max_bytes)
        self._decoding: dict[ChunkKey, _Decoding] = {}

    def __len__(self) -> int:
        return len(self._chunks)

    @property
    def bytes(self) -> int:
        """The bytes of all chunks, with the overhead of keeping them."""
        return self._chunks.bytes

    def get_or_decode(
        self, key: ChunkKey, decode: Callable[[], Bytes | None], *, keep: bool
    ) -> Bytes | None:
        """Return the chunk, which must not be written to; None when it was never written.

        A thread that asks while another one decodes it waits for that, even when nothing is kept.
        The chunk is not kept when its file was closed meanwhile.

        Args:
            key: of the chunk.
            decode: called in this thread when no other has the chunk; what it raises, it raises
                for this caller alone.
            keep: whether the chunk is likely to be asked for again.
        """
        with self._lock:
            kept = self._chunks.get(key)
            if kept is not None:
                self.hits += 1
                return kept
            other = self._decoding.get(key)
            if other is None:
                self.misses += 1
                mine = self._decoding[key] = _Decoding()
            else:
                self.hits += 1
        if other is not None:
            other.done.wait()
            # What another thread failed to decode says more when it fails here.
            return decode() if other.chunk is None else other.chunk
        try:
            chunk = decode()
            # A chunk as large as the cache is not kept.
            is_kept = keep and chunk is not None and chunk.nbytes < self.max_bytes
            if chunk is not None and is_kept and find_bytes(chunk) is None:
                # Servers take a bytes object without a copy, each time.
                chunk = np.frombuffer(bytes(chunk), np.uint8)
            mine.chunk = chunk
            return chunk
        finally:
            with self._lock:
                del self._decoding[key]
                if keep and mine.chunk is not None and not key[0].revoked:
                    self._chunks.put(key, mine.chunk, mine.chunk.nbytes)
            mine.done.set()

    def find_kept(self, key: ChunkKey) -> Bytes | None:
        """Return the chunk if it is kept; for the event loop, which waits for no other thread."""
        if not self._lock.acquire(blocking=False):
            return self._chunks.peek(key)
        try:
            kept = self._chunks.get(key)
            if kept is not None:
                self.hits += 1
            return kept
        finally:
            self._lock.release()

    def forget(self, file: OpenFile) -> None:
        """Drop all chunks of `file`, which was closed."""
        with self._lock:
            for key in [each for each in self._chunks if each[0] is file]:
                self._chunks.drop(key)
