"""A cache bounded in bytes, least recently used first out."""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

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
        """The value, now the most recently used; None when it is not there."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def peek(self, key: K) -> V | None:
        """As `get`, but not a use of it; from any thread."""
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def put(self, key: K, value: V, size: int) -> None:
        """Keep `value` of `size` bytes, unless it alone is larger than the cache."""
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
