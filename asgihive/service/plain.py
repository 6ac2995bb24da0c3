"""Plain bytes at hand, asked for again: from the event loop, without planning anything anew.

What such an answer costs is not its bytes but parsing, planning and describing, which are the
same each time as long as the file is.
"""

import time
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.types import Scope

from asgihive.asgi import BufferedResponse
from asgihive.hdf5.buffers import find_bytes, read_cached_bytes
from asgihive.hdf5.cache import BytesCache
from asgihive.hdf5.chunks import KeptChunk
from asgihive.hdf5.identity import identity_on_loop
from asgihive.hdf5.open_file import OpenFile
from asgihive.hdf5.pool import FilePool
from asgihive.padding import has_padding, zero_padding

# With these, the answer is not the same each time (RFC 9110, sections 13.1 and 14.2).
_CHANGING = frozenset(
    (
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"if-unmodified-since",
        b"range",
    )
)

# What an entry takes beside its key: headers, records.
_ENTRY_BYTES = 2048

# All of a query string and of `Accept` that have a say in an answer.
PlainKey = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class PlainSource:
    """Of what a body is made: `head`, and values that are bytes of `file`, or a chunk of it.

    values: a run of bytes (offset, number) as they lie there, or a whole chunk.
    dtype: of the values, whose padding is not sent as it lies there.
    """

    head: bytes
    file: OpenFile
    values: tuple[int, int] | KeptChunk
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class _Plain:
    """An answer that is made of a `PlainSource`.

    response: as it was sent, without its body.
    file: weakly, since whoever lets go of one last waits for HDF5.
    """

    response: BufferedResponse
    head: bytes
    file: weakref.ref[OpenFile]
    values: tuple[int, int] | KeptChunk
    dtype: np.dtype[Any]


class PlainAnswers:
    """Answers of few contiguous bytes, or of one chunk that is kept, by request.

    They are here for as long as their files stay open.

    For the event loop. `max_bytes` bounds what is remembered of them, which is not their values;
    0 remembers nothing.
    """

    def __init__(self, pool: FilePool, max_bytes: int) -> None:
        self._pool = pool
        self._kept: BytesCache[PlainKey, _Plain] = BytesCache(max_bytes)

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, key: PlainKey, scope: Scope) -> BufferedResponse | None:
        """The answer, if its file is unchanged, and its bytes are in memory."""
        kept = self._kept.get(key)
        if kept is None or any(name in _CHANGING for name, _ in scope["headers"]):
            return None
        file = kept.file()
        if file is None or identity_on_loop(file.place.asked) != file.identity:
            self._kept.drop(key)
            return None
        # So that nobody closes it as idle, and its descriptor is not another file's.
        file.holders.add(self)
        try:
            values = self._values(file, kept)
            if values is None or file.changed():
                return None
        finally:
            file.used = time.monotonic()
            file.holders.discard(self)
            if file.revoked:
                self._pool.discard([file])
        return kept.response.with_body(kept.head + values if kept.head else values)

    def keep(self, key: PlainKey, response: BufferedResponse, source: PlainSource) -> None:
        """Remember an answer, if its file is to last."""
        file = source.file
        if file.settled and not file.live:
            short = response.with_body(b"")
            kept = _Plain(short, source.head, weakref.ref(file), source.values, source.dtype)
            self._kept.put(key, kept, _ENTRY_BYTES + len(source.head) + sum(map(len, key)))

    def _values(self, file: OpenFile, kept: _Plain) -> bytes | None:
        if isinstance(kept.values, KeptChunk):
            # Its padding is zero already.
            chunk = self._pool.chunks.find_kept((file, *kept.values))
            return None if chunk is None else find_bytes(chunk)
        offset, size = kept.values
        stored = read_cached_bytes(file.descriptor, size, offset)
        if stored is None or not has_padding(kept.dtype):
            return stored
        return zero_padding(np.frombuffer(stored, kept.dtype)).tobytes()
