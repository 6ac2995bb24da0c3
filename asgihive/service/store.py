"""The shared facility of the service: open files, lanes and caches over one directory."""

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from time import thread_time
from typing import TypeVar, cast

import anyio

from asgihive.concurrency import InFlight, Lanes, Portions
from asgihive.errors import (
    DescriptorsExhausted,
    FileChanged,
    FileMissing,
    FileUnreadable,
    NeedsThread,
    RootUnreadable,
)
from asgihive.hdf5.buffers import keep_freed_buffers, trim_freed_memory
from asgihive.hdf5.file_bytes import without_waiting
from asgihive.hdf5.open_file import Retries, Unsettled
from asgihive.hdf5.pool import FilePool, Lease
from asgihive.hdf5.reader import Reader
from asgihive.hdf5.sandbox import Sandbox, fit_open_files
from asgihive.hdf5.virtual_sources import SourcesFound
from asgihive.service.answers import AnswerCache
from asgihive.service.requests import ReadRequest
from asgihive.service.versions import Version, make_seed, make_version
from asgihive.settings import H5Settings

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

# Files whose identities are made an entity-tag of on the event loop.
_MOST_FILES_ON_LOOP = 256

INLINE_SECONDS = 1e-3
"""What an answer may take on the event loop: ten times what a change of threads costs."""


class Store:
    """Everything that requests share.

    Args:
        root: the served directory.
        settings: bounds and policies.

    Raises:
        FileNotFoundError, NotADirectoryError: `root` is not there, or no directory.
    """

    def __init__(self, root: str | os.PathLike[str], settings: H5Settings) -> None:
        keep_freed_buffers()
        self.settings = settings
        self._root_problem: str | None = None
        self._is_noted_by_health = False
        self.sandbox = Sandbox(root, follow_symlinks=settings.follow_symlinks)
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
        try:
            return await self._read_again_if_changed(work)
        except DescriptorsExhausted:
            await self.close_unheld_files()
            return await self._read_again_if_changed(work)

    async def _read_again_if_changed(
        self, work: Callable[[Lease], Awaitable[T]]
    ) -> tuple[T, Lease]:
        retries = Retries()
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
            except BaseException:
                lease.release()
                raise
            else:
                if self._root_problem is not None and not self._is_noted_by_health:
                    self.note_root(None)
                return result, lease

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
        # Held by the lease alone: where the request ends between two portions, the HDF5 objects in
        # them end in the lane.
        lease.objects.append(_checked_portions(work, lease))
        return await self.lanes.library.run_in_portions(cast("Portions[T]", lease.objects[-1]))

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


def _run_inline(work: Callable[[Lease], Portions[T]], lease: Lease) -> T:
    """Raise NeedsThread where `work` would wait, or take longer than `INLINE_SECONDS`."""
    portions, ends = _checked_portions(work, lease), thread_time() + INLINE_SECONDS
    with without_waiting():
        while True:
            try:
                next(portions)
            except StopIteration as finished:
                result: T = finished.value
                return result
            if thread_time() > ends:
                raise NeedsThread


def _checked_portions(work: Callable[[Lease], Portions[T]], lease: Lease) -> Portions[T]:
    with _check_unchanged(lease):
        return (yield from work(lease))


@contextmanager
def _check_unchanged(lease: Lease) -> Iterator[None]:
    try:
        yield
    except (Unsettled, FileChanged):
        raise
    except Exception:
        # Whatever went wrong with a file that changed meanwhile went wrong because of that.
        lease.check()
        raise
    lease.check()
