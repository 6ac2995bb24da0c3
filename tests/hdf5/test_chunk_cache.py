"""Decoded chunks that are kept: as what, for how long, and for whom without waiting."""

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from asgihive.hdf5.buffers import Bytes, find_bytes
from asgihive.hdf5.cache import ENTRY_OVERHEAD_BYTES, ChunkCache, ChunkKey
from asgihive.hdf5.filters.contract import as_bytes

RAW = bytes(range(200))


@dataclass(eq=False)
class File:
    """What the cache knows of an open file."""

    revoked: bool = False


FILE = File()


def key(number: int, file: Any = FILE) -> ChunkKey:
    return (file, 0, number)


DECODED: dict[str, Bytes] = {
    "all of bytes": as_bytes(RAW),
    "a part of bytes": as_bytes(RAW + b"sum")[:-3],
    "an array": np.frombuffer(RAW, np.uint8).copy(),
    "a bytearray": as_bytes(bytearray(RAW)),
}


@pytest.mark.parametrize("name", DECODED)
def test_what_is_kept_can_be_sent_as_it_is(name: str) -> None:
    cache = ChunkCache(1 << 20)
    first = cache.get_or_decode(key(1), lambda: DECODED[name], keep=True)
    kept = cache.find_kept(key(1))
    assert kept is not None
    assert kept is first
    assert find_bytes(kept) == RAW
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = 1
    assert (cache.hits, cache.misses) == (1, 1)


def test_what_is_not_kept_is_not_at_hand() -> None:
    cache = ChunkCache(1 << 20)
    never_written = cache.get_or_decode(key(1), lambda: None, keep=True)
    assert never_written is None
    cache.get_or_decode(key(2), lambda: as_bytes(RAW), keep=False)
    closed = key(3, File(revoked=True))
    cache.get_or_decode(closed, lambda: as_bytes(RAW), keep=True)
    for each in (key(1), key(2), closed, key(4)):
        assert cache.find_kept(each) is None
    assert cache.hits == 0


def test_what_is_at_hand_was_used() -> None:
    cache = ChunkCache(2 * (len(RAW) + ENTRY_OVERHEAD_BYTES))
    for number in (1, 2):
        cache.get_or_decode(key(number), lambda: as_bytes(RAW), keep=True)
    assert cache.find_kept(key(1)) is not None
    cache.get_or_decode(key(3), lambda: as_bytes(RAW), keep=True)
    assert [cache.find_kept(key(number)) is not None for number in (1, 2, 3)] == [True, False, True]


def test_nobody_is_waited_for() -> None:
    """A thread that is in the cache does not hold up the event loop."""
    cache = ChunkCache(1 << 20)
    cache.get_or_decode(key(1), lambda: as_bytes(RAW), keep=True)
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with cache._lock:  # what a thread holds while it is in the cache, for an instant only
            inside.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    try:
        kept = cache.find_kept(key(1))
        assert kept is not None
        assert kept.tobytes() == RAW
        assert cache.find_kept(key(2)) is None
    finally:
        leave.set()
        thread.join()


def test_what_is_too_large_to_be_kept_is_not_copied_for_that() -> None:
    decoded = np.zeros(100, np.uint8)
    for cache in (ChunkCache(0), ChunkCache(100)):
        assert cache.get_or_decode(key(1), lambda: decoded, keep=True) is decoded
        assert cache.find_kept(key(1)) is None
