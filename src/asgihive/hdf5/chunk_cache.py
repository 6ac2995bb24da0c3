"""Decoded chunks that are kept for the next read of the same file."""

import threading

from asgihive.hdf5.cache import BytesCache
from asgihive.hdf5.decoders import Bytes
from asgihive.hdf5.open_file import OpenFile

# A chunk by its open file, the address of its dataset there, and its number in the dataset.
ChunkKey = tuple[OpenFile, int, int]


class ChunkCache:
    """Decoded chunks, at most `max_bytes` in all; 0 keeps nothing. For all threads.

    A closed file has none here, so that its entries are never the last to hold it.
    """

    def __init__(self, max_bytes: int) -> None:
        self._lock = threading.Lock()
        self._chunks: BytesCache[ChunkKey, Bytes] = BytesCache(max_bytes)

    def __len__(self) -> int:
        return len(self._chunks)

    @property
    def bytes(self) -> int:
        """What is kept, with the overhead of keeping it."""
        return self._chunks.bytes

    def get(self, key: ChunkKey) -> Bytes | None:
        """The decoded chunk, if it is there."""
        with self._lock:
            return self._chunks.get(key)

    def put(self, key: ChunkKey, chunk: Bytes) -> None:
        """Keep `chunk`, which must not be written to, unless its file was closed meanwhile."""
        with self._lock:
            if not key[0].revoked:
                self._chunks.put(key, chunk, chunk.nbytes)

    def forget(self, file: OpenFile) -> None:
        """Drop all chunks of `file`, which was closed."""
        with self._lock:
            for key in [each for each in self._chunks if each[0] is file]:
                self._chunks.drop(key)
