"""Who takes files from `/file`: clients that stall or go away, and programs that read HDF5."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import h5py
import httpx
import numpy as np
import pytest

from asgihive.errors import ReadTimeout
from asgihive.hdf5 import directory
from asgihive.hdf5.directory import has_signature
from asgihive.hdf5.file_bytes import read_bytes
from asgihive.service import H5App, files
from asgihive.settings import H5Settings
from tests.asgi.exchange import http, run
from tests.cli import processes
from tests.gates import Gate
from tests.service import servers, versions

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    (root / "x.h5").write_bytes(versions.content(1))
    return root


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK_BYTES", 1 << 16)


@pytest.fixture
def app(served: Path) -> Iterator[H5App]:
    app = H5App(served)
    yield app
    assert not servers.descriptors_below(served)


@pytest.fixture
def whole(served: Path) -> bytes:
    return (served / "x.h5").read_bytes()


# Clients that stall or go away


def test_clients_that_stall_hold_no_lane(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "large.h5", "w") as file:
        file["x"] = np.zeros(24 << 20, "u1")  # more than the buffers of two sockets hold
        file["small"] = 5
    app = H5App(tmp_path, H5Settings(decode_lanes=1))

    def stall(url: str, number: int) -> None:
        if number:
            with httpx.stream("GET", f"{url}/file?file=large.h5", trust_env=False) as answer:
                assert answer.status_code == 200
                stall(url, number - 1)
            return
        with servers.client(url) as other:
            for _ in range(3):
                assert other.get("/data?file=large.h5&path=small").json() == 5
                assert other.get("/files").status_code == 200

    with servers.serving(app, "uvicorn-httptools") as url:
        stall(url, 3)


async def test_more_downloads_than_files_may_be_open(served: Path, whole: bytes) -> None:
    app = H5App(served, H5Settings(max_open_files=2))
    begun = [anyio.Event(), anyio.Event()]
    go_on = anyio.Event()
    exchanges = [http("/file?file=x.h5"), http("/file?file=x.h5")]

    async def stall(number: int) -> None:
        async def send(message: Any) -> None:
            await exchanges[number].send(message)
            begun[number].set()
            await go_on.wait()

        await app(exchanges[number].scope, exchanges[number].receive, send)

    with anyio.fail_after(servers.PATIENCE):
        async with anyio.create_task_group() as tasks:
            for number in range(2):
                tasks.start_soon(stall, number)
                await begun[number].wait()
            refused = await run(app, http("/file?file=x.h5"))
            assert refused.status == 503
            assert "2 files are being sent" in refused.message
            go_on.set()
    assert [each.body for each in exchanges] == [whole, whole]
    assert (await run(app, http("/file?file=x.h5"))).body == whole


@pytest.mark.parametrize("blocks", [0, 1, 3])
async def test_a_client_that_goes_away(app: H5App, blocks: int) -> None:
    exchange = http("/file?file=x.h5")

    async def send(message: Any) -> None:
        await exchange.send(message)
        if len(exchange.sent) > blocks:
            raise OSError

    await app(exchange.scope, exchange.receive, send)
    assert len(exchange.sent) == blocks + 1
    # That nothing is open any more, the fixture says.


@pytest.mark.parametrize("step", ["open", "read"])
async def test_cancelled_while_a_thread_is_stuck(
    app: H5App, served: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The thread closes what it opened, or was reading, when no request waits any more."""
    functions: dict[str, Callable[..., Any]] = {"open": has_signature, "read": read_bytes}
    function = functions[step]
    with monkeypatch.context() as patch, anyio.fail_after(servers.PATIENCE):
        stuck = _after(gate, function)
        patch.setattr(directory, function.__name__, stuck)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, app, http("/file?file=x.h5"))
            await gate.begun()
            tasks.cancel_scope.cancel()
        assert len(servers.descriptors_below(served)) == 1
        gate.open()
        for _ in range(app.store.lanes.decode.threads):
            await app.store.lanes.decode.run(int)
        while servers.descriptors_below(served):
            await anyio.lowlevel.checkpoint()


def _after(gate: Gate, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        gate()
        return function(*arguments)

    return call


async def test_a_block_that_takes_too_long(
    served: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = H5App(served, H5Settings(read_timeout_seconds=0.1))
    read = directory.WholeFile.read

    def slow(self: directory.WholeFile, start: int, length: int) -> bytes:
        if start:
            gate()
        return read(self, start, length)

    monkeypatch.setattr(directory.WholeFile, "read", slow)
    with pytest.raises(ReadTimeout):
        await run(app, http("/file?file=x.h5"))


# Programs that read HDF5 over HTTP


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[str]:
    """The URL of a file of some MB, chunked and not, as a process of its own serves it.

    h5py holds its lock while it waits for the remote bytes. A server in the same process would wait
    for that lock where its thread happens to collect an HDF5 object, and both for ever.
    """
    with h5py.File(tmp_path / "scan 1.h5", "w", userblock_size=512) as file:
        file["group/plain"] = np.arange(500_000)
        values = np.arange(500_000).reshape(500, 1000)
        file.create_dataset("chunked", data=values, chunks=(100, 100), compression="gzip")
        file.attrs["text"] = "é"
    with processes.running("serve", str(tmp_path), "--port", "0") as server:
        yield f"{server.url.rstrip('/')}/file?file=scan%201.h5"


def _read_remotely(file: h5py.File) -> None:
    assert file.attrs["text"] == "é"
    assert file["group/plain"][123_456] == 123_456
    assert file["chunked"][250, 990:].tolist() == list(range(250_990, 251_000))
    assert file["chunked"].shape == (500, 1000)


def test_h5py_through_fsspec(remote: str) -> None:
    fsspec = pytest.importorskip("fsspec")
    pytest.importorskip("aiohttp")
    filesystem = fsspec.filesystem("http", block_size=1 << 16)
    with filesystem.open(remote) as opened, h5py.File(opened) as file:
        _read_remotely(file)
        assert opened.size == filesystem.info(remote)["size"]
        # By ranges: a small part of it was fetched.
        assert opened.cache.total_requested_bytes < opened.size / 2


@pytest.mark.skipif("ros3" not in h5py.registered_drivers(), reason="this h5py has no ROS3 driver")
def test_h5py_through_ros3(remote: str) -> None:
    with h5py.File(remote, driver="ros3") as file:
        _read_remotely(file)
