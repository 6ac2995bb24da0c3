"""The cache of answers, which are served from the event loop while their files are unchanged."""

import time
import weakref
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import anyio
import numpy as np

from asgihive.asgi import BufferedResponse
from asgihive.concurrency import Lane
from asgihive.errors import NeedsThread
from asgihive.hdf5.buffers import find_bytes, has_padding, read_cached_bytes, zero_padding
from asgihive.hdf5.cache import BytesCache
from asgihive.hdf5.chunks import KeptChunk
from asgihive.hdf5.open_file import OpenFile
from asgihive.hdf5.pool import FilePool
from asgihive.service.requests import Wanted
from asgihive.service.versions import SourceFiles, Version, answer_preconditions

# Beyond that, the event loop has no time for them.
_MOST_STATS_ON_LOOP = 256

# What an entry takes beside bodies, names and keys: records, a file's identity, a header.
_FILE_BYTES = 200
_RESPONSE_BYTES = 1024

Key = tuple[object, ...]
"""What is asked for, in one form, and all else that has a say in the answer."""


@dataclass(frozen=True, slots=True)
class BytesPlace:
    """Where the bytes of a body lie: behind a head, in a file or in a decoded chunk.

    Such an answer costs parsing, planning and describing, not its bytes.
    """

    head: bytes
    file: "weakref.ref[OpenFile]"
    """Weakly: the last reference to a file waits for HDF5 when it goes."""
    values: tuple[int, int] | KeptChunk
    """A run of bytes (offset, number) as they lie in the file, or a whole chunk."""
    dtype: np.dtype[Any]
    """Of the values, whose padding is not sent as it lies there."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is kept of an answer: its version, and all of it or nothing."""

    version: Version
    responses: Mapping[str | None, BufferedResponse] = field(default_factory=dict)
    """The responses by content coding; None = as it is. Without the body, if it has a `place`."""
    place: BytesPlace | None = None

    def measure(self) -> int:
        """Return about how many bytes of memory it takes."""
        size = 0
        for response in self.responses.values():
            size += _RESPONSE_BYTES + len(response.body)
        if self.place is not None:
            size += _RESPONSE_BYTES + len(self.place.head)
        for path in self.version.source_files:
            size += _FILE_BYTES + len(path)
        return size


class AnswerCache:
    """Answers by what is asked for. For the event loop.

    Args:
        max_bytes: kept in all; 0 keeps nothing.
        pool: of the files that answers are made of.
        lane: where files are looked at when the file system is slow.
    """

    def __init__(self, max_bytes: int, pool: FilePool, lane: Lane) -> None:
        self.hits = 0
        """How often an answer was kept, and its files unchanged."""
        self.misses = 0
        """How often not."""
        self._kept: BytesCache[Key, Answer] = BytesCache(max_bytes)
        self._flights: dict[Key, anyio.Event] = {}
        self._pool = pool
        self._lane = lane

    @property
    def bytes(self) -> int:
        """What is kept, with the overhead of keeping it."""
        return self._kept.bytes

    def find_response(self, key: Key, wanted: Wanted) -> BufferedResponse | None:
        """Return the response that an answer in memory gives a request, without a thread.

        None where there is no such answer, and where it takes a thread to know.

        Raises:
            HTTPException: 412.
        """
        answer = self._kept.get(key)
        if answer is None:
            return None
        try:
            if not self._is_unchanged(answer, most=_MOST_STATS_ON_LOOP):
                self._kept.drop(key)
                return None
            response = None
            if wanted.is_conditional:
                response = answer_preconditions(wanted, answer.version)
            if response is None:
                coding = wanted.coding if answer.version.is_large else None
                response = answer.responses.get(None if coding is None else coding.name)
                if response is not None and answer.place is not None:
                    body = None
                    if not wanted.has_range:
                        body = _read_place(self._pool, answer.version, answer.place)
                    response = None if body is None else response.with_body(body)
        except NeedsThread:
            return None
        self.hits += response is not None
        return response

    async def find(self, key: Key) -> Answer | None:
        """Return the answer, if it is kept and no file of it has changed.

        The event loop asks with a `stat` for each file, unless they are many or the file system
        is slow.
        """
        answer = self._kept.get(key)
        if answer is not None:
            try:
                is_unchanged = self._is_unchanged(answer, most=_MOST_STATS_ON_LOOP)
            except NeedsThread:
                is_unchanged = await self._lane.run(partial(self._is_unchanged, answer))
            if not is_unchanged:
                self._kept.drop(key)
                answer = None
        self.hits += answer is not None
        self.misses += answer is None
        return answer

    async def find_or_make(self, key: Key, make: Callable[[], Awaitable[Answer]]) -> Answer:
        """Return the answer of `make`, which keeps it, if it may.

        However many requests ask at once, it is made once; what cannot be kept, by each of them.
        """
        if not self._kept.max_bytes:
            return await make()
        landed = self._flights.get(key)
        if landed is not None:
            await landed.wait()
            return await self.find(key) or await make()
        landed = self._flights[key] = anyio.Event()
        try:
            return await make()
        finally:
            del self._flights[key]
            landed.set()

    def keep(self, key: Key, answer: Answer) -> None:
        """Keep an answer, if it can be told from the next version of it."""
        if answer.version.validators.etag is None:
            return
        kept = self._kept.peek(key)
        is_known = kept is not None and kept.version.validators == answer.version.validators
        # A response that was sent before is worth more than the version alone.
        if answer.responses or not is_known:
            self._kept.put(key, answer, answer.measure() + len(repr(key)))

    def keep_response(
        self, key: Key, answer: Answer, coding: str | None, response: BufferedResponse
    ) -> None:
        """Keep the response that an answer was given in a content coding, if it is kept itself."""
        kept = self._kept.peek(key)
        if kept is not None and kept.version is answer.version:
            self.keep(key, replace(kept, responses={**kept.responses, coding: response}))

    def _is_unchanged(self, answer: Answer, most: int | None = None) -> bool:
        """Return whether all files of an answer are what they were.

        Raises:
            NeedsThread: the file system is slow, or there are more than `most` files.
        """
        files: SourceFiles = answer.version.source_files
        if most is not None and len(files) > most:
            raise NeedsThread
        find_identity = self._pool.stat_guard.find_identity
        for path, identity in files.items():  # noqa: SIM110  # on the way of each kept answer
            if find_identity(path) != identity:
                return False
        return True


def _read_place(pool: FilePool, version: Version, place: BytesPlace) -> bytes | None:
    """Return the body at a place, if its bytes are in memory.

    Raises:
        NeedsThread: the file system is slow.
    """
    file = place.file()
    if file is None or version.source_files.get(file.place.asked) != file.identity:
        return None
    # So that it is not closed as idle, and its descriptor is not another file's.
    holder = object()
    file.holders.add(holder)
    try:
        if isinstance(place.values, KeptChunk):
            # Its padding is zero already.
            chunk = pool.chunks.find_kept((file, *place.values))
            values = None if chunk is None else find_bytes(chunk)
        else:
            offset, size = place.values
            values = read_cached_bytes(file.descriptor, size, offset)
            if values is not None and len(values) < size:
                values = None
            if values is not None and has_padding(place.dtype):
                values = zero_padding(np.frombuffer(values, place.dtype)).tobytes()
        if values is None or pool.stat_guard.ask(OpenFile.changed, file):
            return None
    finally:
        file.used = time.monotonic()
        file.holders.discard(holder)
        if file.revoked:
            pool.discard([file])
    return place.head + values if place.head else values
