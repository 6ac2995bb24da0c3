"""What all requests share: open files and lanes over one directory, and the cache of answers.

Answers are served from the event loop while their files are unchanged.
"""

import contextlib
import logging
import os
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from time import thread_time
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio
import numpy as np

from asgihive.asgi import BufferedResponse
from asgihive.concurrency import Lane, Lanes, Portions
from asgihive.errors import (
    DescriptorsExhausted,
    FileChanged,
    FileMissing,
    FileUnreadable,
    NeedsStore,
    NeedsThread,
    RootUnreadable,
)
from asgihive.hdf5.buffers import (
    find_bytes,
    keep_freed_buffers,
    read_cached_bytes,
    trim_freed_memory,
)
from asgihive.hdf5.cache import BytesCache
from asgihive.hdf5.chunks import KeptChunk
from asgihive.hdf5.directory import Listing, ListingRequest
from asgihive.hdf5.file_bytes import leaving_for_stores, without_waiting
from asgihive.hdf5.open_file import OpenFile, Retries, Unsettled
from asgihive.hdf5.pool import FilePool, Lease
from asgihive.hdf5.reader import Reader
from asgihive.hdf5.sandbox import Sandbox, fit_open_files
from asgihive.hdf5.virtual_sources import SourcesFound
from asgihive.object_stores.locations import is_url
from asgihive.padding import has_padding, zero_padding
from asgihive.service.cluster import Cluster
from asgihive.service.requests import (
    ReadRequest,
    SourceFiles,
    Version,
    Wanted,
    answer_preconditions,
    make_seed,
    make_version,
)
from asgihive.settings import H5Settings
from asgihive.tasks import InFlight

if TYPE_CHECKING:
    from asgihive.object_stores.sandbox import ObjectSandbox

T = TypeVar("T")

READ_AHEAD_BYTES = 32 << 20
"""Blocks in flight for one answer."""

MAX_DOCUMENT_BYTES = 256 << 20
"""Metadata or attributes in one answer: they are made in memory as a whole."""

MAX_WAITING_REQUESTS = 1000
"""Requests that wait for a thread; further ones are answered 503."""

TRIM_MEMORY_SECONDS = 60.0
"""How often freed memory is given back to the system."""

_logger = logging.getLogger(__name__)

INLINE_SECONDS = 1e-3
"""What an answer may take on the event loop: ten times what a change of threads costs."""

# How often work in the library lane is begun again after an object store was asked outside of it:
# `/paths` of a file whose metadata lie all over it would else begin again hundreds of times.
_MOST_QUESTIONS = 16

# Files of an answer that the event loop looks at, or makes an entity-tag of.
_MOST_FILES_ON_LOOP = 256

# What an entry takes beside bodies, names and keys: records, a file's identity, a header.
_FILE_BYTES = 200
_RESPONSE_BYTES = 1024

# What is kept of Zarr chunks that were never written, many of which are the same.
_FILLS_BYTES = 4 << 20

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
        self.kept: BytesCache[Key, Answer] = BytesCache(max_bytes)
        self._flights: dict[Key, anyio.Event] = {}
        self._pool = pool
        self._lane = lane

    @property
    def bytes(self) -> int:
        """What is kept, with the overhead of keeping it."""
        return self.kept.bytes

    def find_response(self, key: Key, wanted: Wanted) -> BufferedResponse | None:
        """Return the response that an answer in memory gives a request, without a thread.

        None where there is no such answer, and where it takes a thread to know.

        Raises:
            HTTPException: 412.
        """
        answer = self.kept.get(key)
        if answer is None:
            return None
        try:
            if not self._is_unchanged(answer, most=_MOST_FILES_ON_LOOP):
                self.kept.drop(key)
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
        answer = self.kept.get(key)
        if answer is not None:
            try:
                is_unchanged = self._is_unchanged(answer, most=_MOST_FILES_ON_LOOP)
            except NeedsThread:
                is_unchanged = await self._lane.run(partial(self._is_unchanged, answer))
            if not is_unchanged:
                self.kept.drop(key)
                answer = None
        self.hits += answer is not None
        self.misses += answer is None
        return answer

    async def find_or_make(self, key: Key, make: Callable[[], Awaitable[Answer]]) -> Answer:
        """Return the answer of `make`, which keeps it, if it may.

        However many requests ask at once, it is made once; what cannot be kept, by each of them.
        """
        if not self.kept.max_bytes:
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
        kept = self.kept.peek(key)
        is_known = kept is not None and kept.version.validators == answer.version.validators
        # A response that was sent before is worth more than the version alone.
        if not answer.responses and is_known:
            return
        size = len(repr(key))
        for response in answer.responses.values():
            size += _RESPONSE_BYTES + len(response.body)
        if answer.place is not None:
            size += _RESPONSE_BYTES + len(answer.place.head)
        for path in answer.version.source_files:
            size += _FILE_BYTES + len(path)
        self.kept.put(key, answer, size)

    def keep_response(
        self, key: Key, answer: Answer, coding: str | None, response: BufferedResponse
    ) -> None:
        """Keep the response that an answer was given in a content coding, if it is kept itself."""
        kept = self.kept.peek(key)
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


class Store:
    """Everything that requests share.

    Args:
        root: the served directory, or the URL of a prefix in an object store.
        settings: bounds and policies.

    Raises:
        FileNotFoundError, NotADirectoryError: `root` is not there, or no directory.
    """

    def __init__(self, root: str | os.PathLike[str], settings: H5Settings) -> None:
        keep_freed_buffers()
        self.settings = settings
        self._root_problem: str | None = None
        self._is_remote = is_url(root)
        self._is_noted_by_health = False
        self.sandbox = _make_sandbox(root, settings)
        self.pool = FilePool(
            self.sandbox,
            max_open=fit_open_files(settings.max_open_files),
            idle_seconds=settings.idle_file_seconds,
            chunk_cache_bytes=settings.chunk_cache_bytes,
            max_chunk_bytes=settings.max_chunk_bytes,
        )
        self.lanes = Lanes(settings.decode_lanes, MAX_WAITING_REQUESTS)
        self.reader = Reader(
            self.lanes,
            READ_AHEAD_BYTES,
            InFlight(settings.max_in_flight_bytes),
            settings.read_timeout_seconds,
        )
        self.answers = AnswerCache(settings.answer_cache_bytes, self.pool, self.lanes.decode)
        self.zarr_chunks = AnswerCache(settings.zarr_cache_bytes, self.pool, self.lanes.decode)
        self.zarr_fills: BytesCache[Key, bytes] = BytesCache(_FILLS_BYTES)
        self.cluster = None
        if settings.compute is not None:
            self.cluster = Cluster(settings, self.sandbox.root)
        self._seed = make_seed(settings)

    async def read(self, work: Callable[[Lease], Awaitable[T]]) -> tuple[T, Lease]:
        """Return what `work` returns under a fresh lease, and the lease.

        The caller must release the lease. Nothing is returned that may be a mixture of two
        contents of a file: `work` runs again, a few times, when a file changed under it.

        Raises:
            FileChanged: the file does not stop changing.
            RootUnreadable: there is no such file, as its directory is gone.
            Overloaded: and whatever `work` raises.
        """
        retries, has_closed_files = Retries(), False
        while True:
            lease = Lease(self.pool)
            try:
                result = await work(lease)
            except (FileMissing, FileUnreadable):
                lease.release()
                await self.check_root()
                raise
            except (Unsettled, FileChanged) as error:
                lease.release()
                await anyio.sleep(retries.find_pause(error))
            except DescriptorsExhausted:
                lease.release()
                if has_closed_files:
                    raise
                await self.close_unheld_files()
                retries, has_closed_files = Retries(), True
            except BaseException:
                lease.release()
                raise
            else:
                if self._root_problem is not None and not self._is_noted_by_health:
                    self.note_root(None)
                return result, lease

    def make_listing(self, asked: ListingRequest) -> Listing:
        """Return what lists a directory of the service."""
        if not is_url(self.sandbox.root):
            return Listing(self.sandbox, asked)
        from asgihive.object_stores.listing import ObjectListing  # noqa: PLC0415  # as the sandbox

        return ObjectListing(cast("ObjectSandbox", self.sandbox), asked)

    async def check_root(self) -> None:
        """Ask, after a file was not found, whether that is because its directory is gone.

        Raises:
            RootUnreadable: it is.
            Overloaded: as the decode lanes do.
        """
        problem = await self.lanes.decode.run(self.sandbox.root_problem)
        if problem is not None:
            self.note_root(problem)
            raise RootUnreadable(problem)

    def note_root(self, problem: str | None, *, by_health: bool = False) -> None:
        """Log once that the served directory cannot be read, and once that it can be again.

        Args:
            problem: why it cannot be read, None if it can.
            by_health: whether `/health` has found so, which also lists the directory. Where it
                was what found a problem, it is what finds that there is none any more.
        """
        if problem is not None and self._root_problem is None:
            self._is_noted_by_health = by_health
            _logger.error("The served directory %s cannot be read: %s", self.sandbox.root, problem)
        elif problem is None and self._root_problem is not None:
            # So that who was told of the one is told of the other, at any level.
            _logger.error("The served directory %s can be read again", self.sandbox.root)
        self._root_problem = problem

    async def close_unheld_files(self) -> None:
        """Close the files that no request holds, since the process may open nothing more."""
        await self.lanes.library.run(self.pool.close_unheld)

    async def in_portions(self, lease: Lease, work: Callable[[Lease], Portions[T]]) -> T:
        """Return what `work` returns, run in portions in the library lane, shared with others.

        On the event loop, where that takes no longer than a change of threads: what `work` reads
        is in memory then, and needs no libhdf5. It may begin there, and begin again in the lane.

        Raises:
            FileChanged: what went wrong, or right, may have done so because of that.
            Overloaded: and whatever `work` raises.
        """
        with contextlib.suppress(NeedsThread):
            return self.lanes.library.try_inline(partial(_run_inline, work, lease))
        leaves, asked = self._is_remote, set[Hashable]()
        while True:
            make = _leave_for_stores if leaves else check_portions
            # Held by the lease alone: where the request ends between two portions, the HDF5 objects
            # in them end in the lane.
            lease.objects.append(make(work, lease))
            portions = cast("Portions[T]", lease.objects[-1])
            try:
                return await self.lanes.library.run_in_portions(portions)
            except NeedsStore as needed:
                question, ask = needed.question, needed.ask
            # What has to be asked a second time is not kept, and is waited for in the lane.
            leaves = question not in asked and len(asked) < _MOST_QUESTIONS
            if leaves:
                asked.add(question)
                await ask()

    async def make_version(
        self,
        request: ReadRequest,
        lease: Lease,
        sources: SourcesFound | None = None,
        *,
        is_large: bool | None = None,
    ) -> Version:
        """Return the version of the answer to a request, as `versions.make_version` does."""
        make = partial(
            make_version, self._seed, request.canonical, lease, sources, is_large=is_large
        )
        if len(lease.depends) <= _MOST_FILES_ON_LOOP:
            return make()
        return await self.lanes.decode.run(make, patient=True)

    async def run_in_decode_lane(self, work: Callable[[], bytes]) -> bytes:
        """Return what `work`, for an answer that is made already, returns in a decode lane."""
        return await self.lanes.decode.run(work, patient=True)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Close idle files and give freed memory back from time to time; at the end, close all."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._close_idle_files)
            tasks.start_soon(self._trim_memory)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    await self.lanes.library.run(self.pool.close, patient=True)
                    if self.cluster is not None:
                        await self.cluster.close()

    async def _close_idle_files(self) -> None:
        while True:
            await anyio.sleep(max(1.0, self.settings.idle_file_seconds / 2))
            if len(self.pool):
                await self.lanes.library.run(self.pool.close_idle, patient=True)

    async def _trim_memory(self) -> None:
        """Give freed memory back: small blocks that live on keep large ones around them."""
        while True:
            await anyio.sleep(TRIM_MEMORY_SECONDS)
            await anyio.to_thread.run_sync(trim_freed_memory)


def _make_sandbox(root: str | os.PathLike[str], settings: H5Settings) -> Sandbox:
    if not is_url(root):
        return Sandbox(root, follow_symlinks=settings.follow_symlinks)
    if settings.isolation == "process":
        raise ValueError('isolation="process" reads directories alone, not object stores')
    from asgihive.object_stores.sandbox import ObjectSandbox  # noqa: PLC0415  # it imports obstore

    return ObjectSandbox(os.fspath(root), settings)


def check_store(url: str, settings: H5Settings) -> None:
    """Make sure that an object store could be served, as far as that is known without asking it.

    Raises:
        ValueError, ExtraMissing: it cannot.
    """
    _make_sandbox(url, settings)


def _run_inline(work: Callable[[Lease], Portions[T]], lease: Lease) -> T:
    """Raise NeedsThread where `work` would wait, or take longer than `INLINE_SECONDS`."""
    portions, ends = check_portions(work, lease), thread_time() + INLINE_SECONDS
    with without_waiting():
        while True:
            try:
                next(portions)
            except StopIteration as finished:
                result: T = finished.value
                return result
            if thread_time() > ends:
                raise NeedsThread


def _leave_for_stores(work: Callable[[Lease], Portions[T]], lease: Lease) -> Portions[T]:
    """Do as `check_portions`; raise NeedsStore where `work` would wait for an object store."""
    portions = check_portions(work, lease)
    while True:
        with leaving_for_stores():
            try:
                next(portions)
            except StopIteration as finished:
                result: T = finished.value
                return result
        yield


def check_portions(work: Callable[[Lease], Portions[T]], lease: Lease) -> Portions[T]:
    try:
        result = yield from work(lease)
    except (Unsettled, FileChanged):
        raise
    except Exception:
        # Whatever went wrong with a file that changed meanwhile went wrong because of that.
        lease.check()
        raise
    lease.check()
    return result
