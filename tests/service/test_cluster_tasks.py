"""Tasks of a cluster, without one: what workers compute, and what they refuse."""

import os
import pickle
from dataclasses import replace
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import anyio
import anyio.to_thread
import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asgihive import H5App, H5Settings
from asgihive.errors import FileChanged, FileMissing, FileOutside
from asgihive.hdf5.plan import Axis, Block
from asgihive.hdf5.reductions import StatisticsReduction
from asgihive.service import cluster_reading, cluster_tasks, data
from asgihive.service.cluster import Cluster
from asgihive.service.cluster_tasks import ClusterTask, SharedDirectory, TaskResult, VersionsDiffer
from asgihive.service.cluster_worker import compute_task
from tests.efforts import at_most
from tests.service.asking import ask

NUMBERS = st.sampled_from(
    ["?", "i1", "<u2", ">i4", "<i8", "<u8", "<f2", "<f4", ">f4", "<f8", ">f8"]
)
SIDES = {1: (60, 400), 2: (8, 20), 3: (4, 8)}
QUESTIONS: list[tuple[str, dict[str, str]]] = [
    ("/stats", {}),
    ("/histogram", {"bins": "7"}),
    ("/histogram", {"bins": "5", "range": "-1,3"}),
    ("/data", {"max_points": "3"}),
    ("/data", {"max_points": "4", "method": "min"}),
    ("/data", {"max_points": "3", "method": "minmax", "format": "bin"}),
]


class ShuffledCluster(Cluster):
    """A cluster of threads, whose tasks end in any order."""

    def __init__(self, app: H5App, seed: int) -> None:
        super().__init__(H5Settings(compute="dask://none:1", compute_over_bytes=1), root_of(app))
        self.asked = 0
        self._random = Random(seed)
        self._waiting: list[anyio.Event] = []

    async def count_threads(self) -> int:
        return 3

    async def compute(self, task: ClusterTask[Any]) -> TaskResult[Any]:
        self.asked += 1
        sent = pickle.loads(pickle.dumps(task))
        result = await anyio.to_thread.run_sync(compute_task, sent)
        for _ in range(self._random.randrange(3)):
            await anyio.lowlevel.checkpoint()
        computed: TaskResult[Any] = pickle.loads(pickle.dumps(result))
        return computed


def root_of(app: H5App) -> str:
    return str(app.store.sandbox.root)


@pytest.fixture
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut what tests are made of into as many parts as large datasets."""
    monkeypatch.setattr(data, "_BLOCK_BYTES", 64)
    monkeypatch.setattr(cluster_tasks, "TASK_BYTES", 150)
    monkeypatch.setattr(cluster_reading, "_LEAST_BIN_BYTES", 1)


numbers = count()


@st.composite
def datasets(draw: st.DrawFn) -> tuple[np.ndarray[Any, Any], tuple[int, ...] | None]:
    # Enough elements that the order in which blocks are merged shows in the last bits.
    dimensions = draw(st.integers(1, 3))
    shape = draw(st.tuples(*[st.integers(*SIDES[dimensions])] * dimensions))
    dtype = np.dtype(draw(NUMBERS))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    if dtype.kind == "f":
        scale = draw(st.sampled_from([1.0, 1e-3, 1e4]))
        with np.errstate(over="ignore"):
            values = (random.normal(3.0, 1.0, shape) * scale).astype(dtype)
        odd = draw(st.lists(st.sampled_from([np.nan, np.inf, -np.inf, -0.0, 0.0]), max_size=6))
        for value in odd:
            values.flat[random.integers(values.size)] = value
        if dtype.itemsize == 8 and draw(st.booleans()):
            values.flat[0] = 1e300
    else:
        values = np.frombuffer(random.bytes(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(
            shape
        )
        if dtype.kind == "b":
            values = values.view(np.uint8) % 2 == 1
    chunks = draw(st.none() | st.tuples(*(st.integers(1, n) for n in shape)))
    return values, chunks


@pytest.mark.usefixtures("small_tasks")
@given(
    stored=datasets(),
    backend=st.sampled_from(["asyncio", "trio"]),
    seed=st.integers(0, 9),
)
@settings(max_examples=at_most(20), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_answer_is_the_same_to_the_last_bit(
    root: Path,
    stored: tuple[np.ndarray[Any, Any], tuple[int, ...] | None],
    backend: str,
    seed: int,
) -> None:
    values, chunks = stored
    name = f"{next(numbers)}.h5"
    with h5py.File(root / name, "w") as file:
        file.create_dataset("x", data=values, chunks=chunks)
    here = H5App(root, H5Settings(answer_cache_bytes=0))
    there = H5App(root, H5Settings(answer_cache_bytes=0))
    there.store.cluster = cluster = ShuffledCluster(there, seed)

    async def compare() -> None:
        for route, parameters in QUESTIONS:
            query = {**parameters, "file": name, "path": "x"}
            expected, asked = await ask(here, route, **query), cluster.asked
            answer = await ask(there, route, **query)
            assert (answer.status, answer.body) == (200, expected.body), (route, parameters)
            assert cluster.asked > asked or values.nbytes <= 1 or route == "/data"

    anyio.run(compare, backend=backend)
    os.unlink(root / name)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    with h5py.File(root / "x.h5", "w") as file:
        file["x"] = np.arange(10.0)
    (root / "inside").mkdir()
    (root / "inside" / "link.h5").symlink_to(root / "x.h5")
    return root


@pytest.fixture
def task(root: Path) -> ClusterTask[Any]:
    """A task that a worker computes."""
    status = os.stat(root / "x.h5")
    identity = status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    return ClusterTask(
        directory=SharedDirectory(str(root), False, 1 << 20, 60.0),
        file="x.h5",
        contents={"/x.h5": identity},
        path="/x",
        fields=(),
        reduction=StatisticsReduction(),
        blocks=(Block(0, (Axis(0, 1, 5),), (5,), 5), Block(5, (Axis(5, 1, 5),), (5,), 5)),
    )


def test_results_are_those_of_blocks_in_order(task: ClusterTask[Any]) -> None:
    results = compute_task(task).results
    assert [each.mean for [each] in results] == [2.0, 7.0]


def test_a_file_outside_of_the_directory_is_refused(task: ClusterTask[Any]) -> None:
    narrow = replace(task.directory, root=task.directory.root + "/inside")
    for name, error in (("../x.h5", FileMissing), ("link.h5", FileOutside)):
        with pytest.raises(error):
            compute_task(replace(task, directory=narrow, file=name))


def test_another_content_is_refused(task: ClusterTask[Any]) -> None:
    (inode, *rest) = task.contents["/x.h5"] or ()
    contents: list[dict[str, tuple[int, ...] | None]] = [
        {"/x.h5": (inode + 1, *rest)},
        {"/x.h5": None},
        {},
    ]
    for each in contents:
        with pytest.raises(FileChanged):
            compute_task(replace(task, contents=each))


def test_other_versions_are_refused(task: ClusterTask[Any]) -> None:
    with pytest.raises(VersionsDiffer) as refused:
        compute_task(replace(task, versions=("0", "0.1", "3.0")))
    told = str(pickle.loads(pickle.dumps(refused.value)))
    assert told.endswith("; the service has asgihive 0, NumPy 0.1 and Python 3.0")


def test_a_directory_that_is_not_there(task: ClusterTask[Any]) -> None:
    gone = replace(task.directory, root=task.directory.root + "/gone")
    with pytest.raises(FileNotFoundError):
        compute_task(replace(task, directory=gone))
