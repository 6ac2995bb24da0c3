"""What a worker of a cluster runs: it reads the same files, in a sandbox and lanes of its own."""

import threading
from functools import cache, partial
from typing import Any, TypeVar

import anyio

from asgihive.concurrency import Portions, RequestContext, Timings, request_context
from asgihive.errors import FileChanged
from asgihive.hdf5.columns import Columns, find_columns
from asgihive.hdf5.datasets import Dataset
from asgihive.hdf5.opening import open_dataset
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.reader import Held
from asgihive.service.cluster_tasks import (
    VERSIONS,
    ClusterTask,
    SharedDirectory,
    TaskResult,
    VersionsDiffer,
    describe_contents,
    merge_results,
)
from asgihive.service.store import Store
from asgihive.settings import H5Settings
from asgihive.tasks import LoopThread

T = TypeVar("T")

# Tasks read each chunk once: only those at the ends of blocks are of use again.
_CHUNK_CACHE_BYTES = 32 << 20

_making = threading.Lock()


def compute_task(task: ClusterTask[T]) -> TaskResult[T]:
    """Return what is asked of the blocks of a task; the function that a cluster runs.

    Raises:
        VersionsDiffer: this worker has other versions than the service.
        FileChanged: a file has another content here than the service has seen.
        FileNotFoundError, NotADirectoryError: the directory is not there.
        FileMissing: and whatever reading raises.
    """
    if task.versions != VERSIONS:
        raise VersionsDiffer(task.versions, VERSIONS)
    with _making:
        reader = _make_reader(task.directory, _count_threads())
    return reader.compute(task)


def _count_threads() -> int:
    """Return how many tasks this worker runs at once."""
    try:
        from distributed import get_worker  # noqa: PLC0415  # there is one in workers alone

        return max(1, int(get_worker().state.nthreads))
    except (ImportError, ValueError):  # no worker runs this
        return 1


class _WorkerReader:
    """A store for all tasks of one directory, with an event loop of its own."""

    def __init__(self, directory: SharedDirectory, threads: int) -> None:
        settings = H5Settings(
            decode_lanes=threads,
            follow_symlinks=directory.follow_symlinks,
            max_chunk_bytes=directory.max_chunk_bytes,
            read_timeout_seconds=directory.read_timeout_seconds,
            chunk_cache_bytes=_CHUNK_CACHE_BYTES,
            answer_cache_bytes=0,
        )
        self._store = Store(directory.root, settings)
        self._thread = LoopThread("asgihive tasks")
        self._thread.begin(self._keep_running())

    def compute(self, task: ClusterTask[Any]) -> TaskResult[Any]:
        return self._thread.begin(self._compute(task)).result()

    async def _keep_running(self) -> None:
        async with self._store.running():
            await anyio.sleep_forever()

    async def _compute(self, task: ClusterTask[Any]) -> TaskResult[Any]:
        def prepare(lease: Lease) -> Portions[tuple[Dataset, Columns]]:
            dataset = yield from open_dataset(lease, lease.open_asked(task.file), task.path)
            lease.objects.append(dataset)
            columns = find_columns(
                task.fields, dataset.dtype, dataset.item_shape, dataset.description
            )
            return dataset, columns

        store = self._store
        timings: Timings = {}
        request_context.set(RequestContext(timings=timings))
        results: list[Any] = []
        (dataset, columns), lease = await store.read(partial(store.in_portions, work=prepare))
        try:
            self._check_contents(task, lease)
            work = task.reduction.prepare(columns)
            held = Held(dataset, lease, keep=False)
            async with store.reader.read_blocks(held, iter(task.blocks), work) as parts:
                async for part in parts:
                    merge_results(task.reduction, results, part)
            await store.lanes.decode.run(lease.check, patient=True)
            # Reading has opened the sources of a virtual dataset, too.
            self._check_contents(task, lease)
        finally:
            lease.release()
        return TaskResult(results, timings)

    def _check_contents(self, task: ClusterTask[Any], lease: Lease) -> None:
        for path, identity in describe_contents(self._store.sandbox.root, lease).items():
            if task.contents.get(path, ()) != identity:
                raise FileChanged(task.file)


@cache
def _make_reader(directory: SharedDirectory, threads: int) -> _WorkerReader:
    return _WorkerReader(directory, threads)
