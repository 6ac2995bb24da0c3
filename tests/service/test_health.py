"""`/health`: well, or 503 with the reason, soon."""

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest

from asgihive.service import H5App, operations
from asgihive.settings import H5Settings
from tests.service.bounds import bounded

pytestmark = pytest.mark.anyio


def client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def always_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "KEPT_SECONDS", 0.0)


async def test_well(root: Path) -> None:
    async with client(H5App(root)) as http:
        for path in ("/health", "/health/"):
            answer = await http.get(path)
            assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
            assert answer.headers["cache-control"] == "no-store"
        assert (await http.head("/health")).status_code == 200


@pytest.mark.usefixtures("always_looking")
async def test_the_directory_is_gone_and_comes_back(root: Path) -> None:
    async with client(H5App(root)) as http:
        shutil.rmtree(root)
        answer = await http.get("/health")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        message = answer.json()["message"]
        assert message == "The served directory cannot be read: No such file or directory"
        await anyio.Path(root).mkdir()
        assert (await http.get("/health")).status_code == 200


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[threading.Event]]:
    """A file system that hangs in `scandir` until its event is set; an event for each call."""
    calls: list[threading.Event] = []
    scandir = os.scandir

    def hang(path: Any) -> Any:
        calls.append(threading.Event())
        assert calls[-1].wait(30)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", hang)
    yield calls
    for each in calls:
        each.set()


@pytest.mark.usefixtures("always_looking")
async def test_a_file_system_that_hangs_holds_one_thread(
    root: Path, stuck: list[threading.Event]
) -> None:
    app = bounded(root, timeout_seconds=0.05)
    async with client(app) as http:
        for _ in range(3):
            answer = await http.get("/health")
            assert answer.status_code == 503
            assert "cannot be read: it does not answer in 0.05 s" in answer.json()["message"]
        assert len(stuck) == 1
        stuck[0].set()
        with anyio.fail_after(10):
            while len(stuck) == 1:
                await http.get("/health")
        stuck[1].set()


@pytest.mark.usefixtures("always_looking")
@pytest.mark.parametrize("name", ["library", "decode"])
async def test_a_lane_that_does_not_answer(root: Path, name: str) -> None:
    app = bounded(root, H5Settings(decode_lanes=1), timeout_seconds=0.05)
    lane = getattr(app.store.lanes, name)
    begun, release = threading.Event(), threading.Event()

    def hold_the_lane() -> None:
        begun.set()
        release.wait(30)

    async with client(app) as http, anyio.create_task_group() as tasks:
        tasks.start_soon(lane.run, hold_the_lane)
        # A lane is busy before its thread has begun, which that of the next call may overtake.
        while not begun.is_set():
            await anyio.lowlevel.checkpoint()
        answer = await http.get("/health")
        release.set()
    assert answer.status_code == 503
    assert f"The {lane.name} threads do not answer in 0.05 s" in answer.json()["message"]
    async with client(app) as http:
        assert (await http.get("/health")).status_code == 200


async def test_asked_often_it_looks_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[object] = []
    scandir = os.scandir

    def look(path: Any) -> Any:
        looks.append(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", look)
    async with client(H5App(root)) as http, anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(http.get, "/health")
    assert len(looks) == 1


async def test_who_asks_and_leaves_takes_nobody_along(
    root: Path, stuck: list[threading.Event]
) -> None:
    checking = operations.Health(H5App(root).store)
    answers: list[str | None] = []

    async def ask() -> None:
        answers.append(await checking.find_problem())

    async with anyio.create_task_group() as tasks, anyio.create_task_group() as leaving:
        leaving.start_soon(checking.find_problem)
        while not stuck:
            await anyio.lowlevel.checkpoint()
        tasks.start_soon(ask)
        leaving.cancel_scope.cancel()
        stuck[0].set()
    assert answers == [None]
    assert len(stuck) == 1
