"""`compute`: what a dask cluster computes, and what is done without it."""

import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import h5py
import numpy as np
import pytest

from asgihive import H5App, H5Settings
from asgihive.service import cluster, cluster_tasks
from asgihive.service.cluster_worker import _WorkerReader
from tests.asgi.exchange import http, run
from tests.gates import Gate, until
from tests.service.asking import ask, held

distributed = pytest.importorskip("distributed")
pytestmark = [
    pytest.mark.anyio,
    # As it says of a machine that is busy.
    pytest.mark.filterwarnings("ignore:Creating scratch directories"),
]

QUESTIONS: list[tuple[str, dict[str, str]]] = [
    ("/stats", {"path": "x"}),
    ("/stats", {"path": "table", "fields": "a,b"}),
    ("/stats", {"path": "virtual"}),
    ("/stats", {"path": "away"}),
    ("/histogram", {"path": "x", "bins": "10"}),
    ("/data", {"path": "x", "max_points": "9", "format": "npy"}),
    ("/data", {"path": "x", "shape": "2,3", "method": "minmax"}),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    random = np.random.default_rng(5)
    with h5py.File(root / "x.h5", "w") as file:
        values = random.normal(1.0, 3.0, (64, 1024)).astype("f4")
        values[3, 7:20] = np.nan
        file.create_dataset("x", data=values, chunks=(4, 1024), compression="gzip")
        table = np.zeros(20_000, [("a", "<f8"), ("b", "<i4"), ("c", "S3")])
        table["a"], table["b"] = random.normal(size=20_000), np.arange(20_000)
        file.create_dataset("table", data=table, chunks=(1000,))
        layout = h5py.VirtualLayout((64, 1024), "f4")
        layout[:32] = h5py.VirtualSource("y.h5", "y", (32, 1024))
        file.create_virtual_dataset("virtual", layout, fillvalue=7)
        file["away"] = h5py.ExternalLink("y.h5", "/y")
        broken = file.create_dataset("broken", (64, 1024), "f4", chunks=(4, 1024), compression=1)
        broken[:] = values
        for row in range(32, 64, 4):
            broken.id.write_direct_chunk((row, 0), b"no deflate")
    with h5py.File(root / "y.h5", "w") as file:
        file["y"] = values[:32]
    return root


@pytest.fixture(scope="module")
def running() -> Iterator[Any]:
    """A cluster of two workers in this process."""
    with distributed.LocalCluster(
        processes=False,
        protocol="tcp",
        n_workers=2,
        threads_per_worker=1,
        dashboard_address=":0",
        host="127.0.0.1",
    ) as running:
        yield running


@pytest.fixture
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_tasks, "TASK_BYTES", 1 << 14)
    monkeypatch.setattr("asgihive.service.data._BLOCK_BYTES", 1 << 13)


def make_app(root: Path, address: str, **given: Any) -> H5App:
    settings: dict[str, Any] = {"compute_over_bytes": 1 << 12, "answer_cache_bytes": 0, **given}
    return H5App(root, H5Settings(compute=address.replace("tcp:", "dask:"), **settings))


@pytest.fixture
async def app(root: Path, running: Any, small_tasks: None) -> AsyncIterator[H5App]:
    app = make_app(root, running.scheduler_address)
    async with app.running():
        yield app


Told = Callable[[], list[str]]


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Told:
    """Return what the service warns of, and the client of dask in it."""
    caplog.set_level(logging.WARNING)

    def tell() -> list[str]:
        return [
            each.getMessage()
            for each in caplog.get_records("call")
            if each.levelno >= logging.WARNING
            and each.name.startswith(("asgihive", "distributed.client", "distributed.comm"))
        ]

    return tell


@pytest.mark.parametrize(("route", "query"), QUESTIONS)
async def test_the_answer_is_the_same(
    app: H5App, root: Path, route: str, query: dict[str, str], warned: Told
) -> None:
    answer = await ask(app, route, **query)
    expected = await ask(H5App(root), route, **query)
    assert (answer.status, answer.body) == (200, expected.body)
    assert "cluster;dur=" in answer.headers["server-timing"]
    assert answer.headers.get("missing-sources") == expected.headers.get("missing-sources")
    assert "cluster;dur=" not in expected.headers["server-timing"]
    assert warned() == []


async def test_what_is_little_is_computed_here(app: H5App) -> None:
    answer = await ask(app, "/stats", path="x", selection="0")
    assert answer.status == 200
    assert "cluster" not in answer.headers["server-timing"]


async def test_what_cannot_be_read_is_the_same_error(app: H5App, root: Path) -> None:
    answer = await ask(app, "/stats", path="broken")
    expected = await ask(H5App(root), "/stats", path="broken")
    assert (answer.status, answer.json) == (expected.status, expected.json)
    assert answer.status == 500
    assert held(app) == 0


async def test_a_client_that_leaves(
    app: H5App, running: Any, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = _WorkerReader.compute

    def compute_late(self: _WorkerReader, task: Any) -> Any:
        gate()
        return compute(self, task)

    monkeypatch.setattr(_WorkerReader, "compute", compute_late)
    exchange = http("/stats", query_string=b"file=x.h5&path=x")
    with anyio.fail_after(30):
        async with anyio.create_task_group() as clients:
            clients.start_soon(run, app, exchange)
            await gate.begun()
            await until(lambda: len(running.scheduler.tasks) > 2)
            exchange.gone.set()
        # Though the workers are still at it.
        await until(lambda: not running.scheduler.tasks)
        assert held(app) == 0
        gate.open()
        monkeypatch.undo()


def take_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


async def test_a_scheduler_that_is_away(
    root: Path, small_tasks: None, monkeypatch: pytest.MonkeyPatch, warned: Told
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.2)
    app = make_app(root, f"dask://127.0.0.1:{take_port()}", compute_retry_seconds=0.001)
    async with app.running():
        for _ in range(3):  # the later ones ask for it again
            answer = await ask(app, "/stats", path="x")
            assert answer.body == (await ask(H5App(root), "/stats", path="x")).body
            assert "cluster" not in answer.headers["server-timing"]
    [warning] = warned()
    assert "is away, and this process computes alone" in warning


async def test_a_scheduler_that_comes_later(
    root: Path, small_tasks: None, monkeypatch: pytest.MonkeyPatch, warned: Told
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.2)
    port = take_port()
    app = make_app(root, f"dask://127.0.0.1:{port}", compute_retry_seconds=0.001)
    async with app.running():
        assert (await ask(app, "/stats", path="x")).status == 200
        monkeypatch.setattr(cluster, "CONNECT_SECONDS", 20.0)

        def start() -> Any:
            return distributed.LocalCluster(
                processes=False,
                protocol="tcp",
                n_workers=1,
                dashboard_address=":0",
                host="127.0.0.1",
                scheduler_port=port,
            )

        late = await anyio.to_thread.run_sync(start)
        try:
            with anyio.fail_after(30):
                while True:
                    answer = await ask(app, "/stats", path="x")
                    if "cluster" in answer.headers["server-timing"]:
                        break
        finally:
            await anyio.to_thread.run_sync(late.close)
    assert "is there again" in warned()[1]


async def test_workers_that_see_other_files(
    root: Path, tmp_path: Path, running: Any, small_tasks: None, warned: Told
) -> None:
    app = make_app(root, running.scheduler_address, compute_root=str(tmp_path))
    async with app.running():
        for _ in range(2):
            answer = await ask(app, "/stats", path="x")
            assert answer.body == (await ask(H5App(root), "/stats", path="x")).body
    [warning] = warned()
    assert warning.startswith("A worker of the cluster at 127.0.0.1:")
    assert "FileMissing" in warning
