"""Decoded chunks that are kept for the next read of the same file, each decoded by one thread."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from asgihive.hdf5.buffers import all_of_bytes
from asgihive.hdf5.cache import BytesCache
from asgihive.hdf5.decoders import Bytes, as_bytes
from asgihive.hdf5.open_file import OpenFile

# A chunk by its open file, the address of its dataset there, and its number in the dataset.
ChunkKey = tuple[OpenFile, int, int]


@dataclass(slots=True, eq=False)
class _Flight:
    """A chunk that a thread is decoding; None afterwards when it was never written, or failed."""

    landed: threading.Event = field(default_factory=threading.Event)
    chunk: Bytes | None = None


class ChunkCache:
    """Decoded chunks, at most `max_bytes` in all; 0 keeps nothing. For all threads.

    A closed file has none here, so that its entries are never the last to hold it.

    Attributes:
        hits: chunks that were here, or being decoded by another thread.
        misses: chunks that were decoded for who asked.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.hits = 0
        self.misses = 0
        self._lock = threading.Lock()
        self._chunks: BytesCache[ChunkKey, Bytes] = BytesCache(max_bytes)
        self._flights: dict[ChunkKey, _Flight] = {}

    def __len__(self) -> int:
        return len(self._chunks)

    @property
    def bytes(self) -> int:
        """What is kept, with the overhead of keeping it."""
        return self._chunks.bytes

    def chunk(
        self, key: ChunkKey, decode: Callable[[], Bytes | None], *, keep: bool
    ) -> Bytes | None:
        """The chunk, which must not be written to; None when it was never written.

        Whoever asks while another thread decodes it waits for that, even when nothing is
        kept. It is not kept when its file was closed meanwhile.

        Args:
            decode: called in this thread when nobody has the chunk; what it raises, it raises
                for this caller alone.
            keep: whether the chunk is likely to be asked for again.
        """
        with self._lock:
            kept = self._chunks.get(key)
            if kept is not None:
                self.hits += 1
                return kept
            flight = self._flights.get(key)
            if flight is None:
                self.misses += 1
                mine = self._flights[key] = _Flight()
            else:
                self.hits += 1
        if flight is not None:
            flight.landed.wait()
            # What another thread failed to decode says more when it fails here.
            return decode() if flight.chunk is None else flight.chunk
        try:
            chunk = decode()
            # Not for nothing: what is as large as the cache is not kept.
            if keep and chunk is not None and chunk.nbytes < self.max_bytes:
                chunk = _sendable(chunk)
            mine.chunk = chunk
            return chunk
        finally:
            with self._lock:
                del self._flights[key]
                if keep and mine.chunk is not None and not key[0].revoked:
                    self._chunks.put(key, mine.chunk, mine.chunk.nbytes)
            mine.landed.set()

    def at_hand(self, key: ChunkKey) -> Bytes | None:
        """The chunk if it is kept; for the event loop, which waits for no other thread."""
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


def _sendable(chunk: Bytes) -> Bytes:
    """The same as a bytes object shows it: what servers take, each time without a copy."""
    return as_bytes(bytes(chunk)) if all_of_bytes(chunk) is None else chunk
