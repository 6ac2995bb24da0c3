"""The client of a dask cluster that computes on large datasets.

It knows asyncio alone, and lives in a thread of its own; `distributed` is imported there, when the
first large dataset is asked for.
"""

import asyncio
import logging
import time
from contextlib import suppress
from typing import Any, TypeVar, cast

from asgihive.concurrency import run_in_worker
from asgihive.errors import ExtraMissing, ReaderCrashed
from asgihive.service.cluster_tasks import ClusterTask, SharedDirectory, TaskResult
from asgihive.settings import H5Settings
from asgihive.tasks import LoopThread

T = TypeVar("T")

CONNECT_SECONDS = 5.0
"""How long a scheduler may take to answer."""

ALONE_SECONDS = 15.0
"""How long a task waits while no worker is known: one that crashed is there again by then."""

# How often it is asked whether there is a worker, while a task takes long.
_LOOK_SECONDS = 2.0

_CLOSE_SECONDS = 1.0

_IS_LOST = "the connection is lost"
_HAS_NONE = "it has no workers"
_IS_SILENT = "it does not answer"

# Failures of tasks that are told apart in the log while a connection lasts.
_MAX_WARNINGS = 100

_SCHEMES = {"dask": "tcp", "dask+tls": "tls"}

_logger = logging.getLogger(__name__)


class TaskFailed(Exception):  # no error: the same is computed here
    """A task was not computed by the cluster."""


class Cluster:
    """The client of a scheduler, which is asked for again some time after it was away.

    Args:
        settings: `compute` is given.
        root: the served directory.
    """

    def __init__(self, settings: H5Settings, root: str) -> None:
        self.over_bytes = settings.compute_over_bytes
        self.root = root
        self.directory = SharedDirectory(
            settings.compute_root or root,
            settings.follow_symlinks,
            settings.max_chunk_bytes,
            settings.read_timeout_seconds,
        )
        scheme, _, self._host = (settings.compute or "").partition("://")
        self._address = f"{_SCHEMES[scheme]}://{self._host}"
        self._retry_seconds = settings.compute_retry_seconds
        self._thread: LoopThread | None = None
        # The rest belongs to that thread.
        self._client: Any = None
        self._connecting: asyncio.Task[None] | None = None
        self._has_tried = False
        self._retry_at = 0.0
        self._is_away = False
        self._warned: set[str] = set()

    async def count_threads(self) -> int:
        """Return how many tasks the workers run at once; 0 while the cluster is away.

        Only the first call waits until the client is connected, or for `CONNECT_SECONDS`. Later
        ones let it try again, and do without meanwhile.
        """
        thread = await self._get_thread()
        return await thread.run(self._count_threads())

    async def compute(self, task: ClusterTask[T]) -> TaskResult[T]:
        """Return what a worker computes; the task is cancelled with the calling one.

        Raises:
            TaskFailed: the cluster is away, or a worker could not do it.
            ReaderCrashed: several workers ended while they did.
        """
        thread = await self._get_thread()
        return cast("TaskResult[T]", await thread.run(self._compute(task)))

    async def close(self) -> None:
        """End the connection; a later call makes another."""
        thread, self._thread = self._thread, None
        if thread is not None:
            await thread.run(self._end())
            await run_in_worker(thread.close)

    async def _get_thread(self) -> LoopThread:
        if self._thread is None:
            thread = await run_in_worker(LoopThread, "asgihive dask client")
            await self._take(thread)
        return self._thread or await self._get_thread()

    async def _take(self, thread: LoopThread) -> None:
        if self._thread is None:
            self._thread, self._connecting = thread, None
            self._has_tried, self._retry_at = False, 0.0
        else:  # another request was faster
            await run_in_worker(thread.close)

    async def _count_threads(self) -> int:
        if self._client is None:
            if time.monotonic() < self._retry_at:
                return 0
            if self._connecting is None or self._connecting.done():
                self._connecting = asyncio.create_task(self._connect())
            if self._has_tried:
                return 0
            await asyncio.shield(self._connecting)
        return await self._find_threads()

    async def _find_threads(self) -> int:
        client = self._client
        if client is None:
            return 0
        threads = await _ask_threads(client)
        if client.status != "running":
            await self._leave(_IS_LOST)
        elif not threads:
            await self._leave(_HAS_NONE if threads is not None else _IS_SILENT)
        return threads or 0

    async def _connect(self) -> None:
        try:
            import distributed  # noqa: PLC0415  # takes half a second, and an extra
        except ImportError:
            await self._leave(str(ExtraMissing("A cluster", "distributed", "dask")))
            self._has_tried = True
            return
        client = distributed.Client(
            self._address, asynchronous=True, set_as_default=False, timeout=CONNECT_SECONDS
        )
        try:
            await client
        except Exception as error:  # noqa: BLE001  # whatever is wrong there, it is done here
            await _close_client(client)
            await self._leave(str(error) or type(error).__name__)
        except BaseException:
            await _close_client(client)
            raise
        else:
            self._client = client
            if await self._find_threads() and self._is_away:
                self._is_away = False
                self._warned.clear()
                _logger.warning("The cluster at %s is there again", self._host)
        finally:
            self._has_tried = True

    async def _leave(self, reason: str) -> None:
        """Compute here for a while; say so once until the cluster is there again."""
        self._retry_at = time.monotonic() + self._retry_seconds
        if not self._is_away:
            _logger.warning(
                "The cluster at %s is away, and this process computes alone: %s; it is asked for "
                "again after %g s",
                *(self._host, reason, self._retry_seconds),
            )
        self._is_away = True
        await self._drop_client()

    async def _drop_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await _close_client(client)

    async def _end(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting})
        await self._drop_client()

    async def _compute(self, task: ClusterTask[Any]) -> TaskResult[Any]:
        from distributed import KilledWorker  # noqa: PLC0415  # there is a client, so it is there

        from asgihive.service.cluster_worker import compute_task  # noqa: PLC0415  # it imports Store

        client = self._client
        if client is None:
            raise TaskFailed
        future = client.submit(compute_task, task, pure=False)
        try:
            return cast("TaskResult[Any]", await self._wait(client, future))
        except asyncio.CancelledError:
            await asyncio.shield(asyncio.ensure_future(future.cancel()))
            raise
        except KilledWorker:
            reason = f"{task.path}: it crashed the workers of a cluster that read it"
            raise ReaderCrashed(task.file, reason) from None
        except TaskFailed:
            raise
        except Exception as error:
            if client.status != "running":
                await self._leave(_IS_LOST)
            else:
                self._warn_of_task(f"{type(error).__name__}: {error}")
            raise TaskFailed from error

    async def _wait(self, client: Any, future: Any) -> object:
        """Return the result of a task, unless there is no one who would compute it."""
        result = asyncio.ensure_future(future.result())
        alone_since: float | None = None
        try:
            while True:
                done, _ = await asyncio.wait({result}, timeout=_LOOK_SECONDS)
                if done:
                    return result.result()
                threads = await _ask_threads(client)
                if client.status != "running":
                    reason = _IS_LOST
                elif threads:
                    alone_since = None
                    continue
                else:
                    reason = _HAS_NONE if threads is not None else _IS_SILENT
                    alone_since = alone_since or time.monotonic()
                    if time.monotonic() - alone_since < ALONE_SECONDS:
                        continue
                await self._leave(reason)
                raise TaskFailed
        finally:
            result.cancel()

    def _warn_of_task(self, reason: str) -> None:
        if reason not in self._warned and len(self._warned) < _MAX_WARNINGS:
            self._warned.add(reason)
            _logger.warning(
                "A worker of the cluster at %s has not computed, and this process does: %r",
                *(self._host, reason),
            )


async def _ask_threads(client: Any) -> int | None:
    """Return how many tasks the workers run at once; None where the scheduler does not answer."""
    with suppress(Exception):  # of dask, many of a connection that is lost
        threads = await asyncio.wait_for(client.nthreads(), CONNECT_SECONDS)
        return sum(map(int, threads.values()))
    return None


async def _close_client(client: Any) -> None:
    with suppress(Exception):  # of dask, which says goodbye to a scheduler that is gone
        await client.close(timeout=_CLOSE_SECONDS)
