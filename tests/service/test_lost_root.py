"""A served directory that is gone, or its mount: 503 with the reason, and two lines of log."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import h5py
import httpx
import pytest

from asgihive.service import H5App, operations
from asgihive.settings import H5Settings

pytestmark = pytest.mark.anyio

GONE = "The served directory cannot be read: No such file or directory"
UNMOUNTED = "The served directory cannot be read: its file system is not mounted any more"
TARGETS = ["/files", "/files?dir=sub", "/file?file=x.h5", "/meta?file=x.h5", "/paths?file=x.h5"]
TARGETS += [f"/{each}?file=x.h5&path=/values" for each in ("data", "stats", "attr")]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "root")
    return tmp_path / "root"


def write(root: Path) -> None:
    (root / "sub").mkdir(parents=True)
    with h5py.File(root / "x.h5", "w") as file:
        file["values"] = [3, 1, 4]


@pytest.fixture
def always_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "KEPT_SECONDS", 0.0)


@pytest.fixture
def unmount(root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Says whether a file system is mounted at the root: only root can mount one."""
    mounted = {str(root.resolve())}
    monkeypatch.setattr(os.path, "ismount", lambda path: str(path) in mounted)

    def set_mounted(is_mounted: bool) -> None:
        mounted.clear()
        if is_mounted:
            mounted.add(str(root.resolve()))

    return set_mounted


def client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


async def test_every_route_says_so(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with client(H5App(root, H5Settings(idle_file_seconds=0))) as http:
        assert (await http.get("/files")).status_code == 200
        shutil.rmtree(root)
        for target in TARGETS:
            answer = await http.get(target)
            assert (answer.status_code, answer.json()["message"]) == (503, GONE), target
            assert answer.headers["retry-after"] == "1"
        (lost,) = told(caplog)
        assert str(root) in lost
        assert "No such file or directory" in lost
        write(root)
        for target in TARGETS[2:5]:
            assert (await http.get(target)).status_code == 200
        assert told(caplog)[1:] == [f"The served directory {root} can be read again"]
        shutil.rmtree(root)
        assert (await http.get("/files")).status_code == 503
        assert len(told(caplog)) == 3


async def test_in_a_batch_too(root: Path) -> None:
    async with client(H5App(root)) as http:
        shutil.rmtree(root)
        asked = [{"route": "meta", "params": {"file": "x.h5"}}]
        (answer,) = (await http.post("/batch", json=asked)).json()
        assert (answer["status"], answer["body"]["message"]) == (503, GONE)


async def test_a_missing_file_of_a_directory_that_is_there_is_missing(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with client(H5App(root)) as http:
        for target in ("/meta?file=none.h5", "/file?file=none.h5", "/files?dir=none"):
            assert (await http.get(target)).status_code == 404
        (root / "text.h5").write_text("not HDF5")
        assert (await http.get("/meta?file=text.h5")).status_code == 422
    assert told(caplog) == []


@pytest.mark.usefixtures("always_looking")
async def test_health_and_routes_tell_the_log_once_together(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with client(H5App(root)) as http:
        shutil.rmtree(root)
        for target in ("/health", "/files", "/health", "/meta?file=x.h5"):
            assert (await http.get(target)).json()["message"] == GONE
        assert len(told(caplog)) == 1
        write(root)
        for _ in range(2):
            assert (await http.get("/health")).status_code == 200
        assert len(told(caplog)) == 2


@pytest.mark.usefixtures("always_looking")
async def test_a_lost_mount_leaves_another_directory(
    root: Path, unmount: Callable[[bool], None]
) -> None:
    async with client(H5App(root)) as http:
        assert (await http.get("/health")).status_code == 200
        shutil.rmtree(root)
        await anyio.Path(root).mkdir()
        unmount(False)
        for target in ("/health", *TARGETS):
            answer = await http.get(target)
            assert (answer.status_code, answer.json()["message"]) == (503, UNMOUNTED), target
        unmount(True)
        shutil.rmtree(root)
        write(root)
        for target in ("/health", *TARGETS):
            assert (await http.get(target)).status_code == 200


@pytest.mark.usefixtures("always_looking")
async def test_a_directory_that_cannot_be_listed_still_has_files(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path) == str(root.resolve()):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # the tests may run as root
    async with client(H5App(root)) as http:
        for _ in range(3):
            assert (await http.get("/health")).status_code == 503
            assert (await http.get("/meta?file=x.h5")).status_code == 200
            assert (await http.get("/meta?file=none.h5")).status_code == 404
    assert len(told(caplog)) == 1


@pytest.mark.slow_on_trio
async def test_reader_processes_say_so(root: Path) -> None:
    app = H5App(root, H5Settings(isolation="process", decode_lanes=1))
    async with app.running(), client(app) as http:
        assert (await http.get("/meta?file=x.h5")).status_code == 200
        shutil.rmtree(root)
        for target in ("/files", "/meta?file=y.h5"):
            answer = await http.get(target)
            assert (answer.status_code, answer.json()["message"]) == (503, GONE)


async def test_a_link_that_leads_out_is_told_of_once(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outside = root.parent / "outside.h5"
    shutil.copy(root / "x.h5", outside)
    (root / "a.h5").symlink_to(outside)
    (root / "b.h5").symlink_to(outside)
    (root / "inside.h5").symlink_to(root / "x.h5")
    async with client(H5App(root)) as http:
        assert (await http.get("/meta?file=inside.h5")).status_code == 200
        assert told(caplog) == []
        for target in ("/files", "/meta?file=a.h5", "/meta?file=b.h5"):
            await http.get(target)
        (line,) = told(caplog)
        assert "--follow-symlinks" in line
        assert str(root / "a.h5") in line
    async with client(H5App(root, H5Settings(follow_symlinks=True))) as http:
        assert (await http.get("/meta?file=a.h5")).status_code == 200
    assert len(told(caplog)) == 1
