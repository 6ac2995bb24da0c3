"""Files that are written under HDF5's single-writer-multiple-reader protocol (SWMR)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import h5py
import numpy as np
import pytest

from asgihive.service import H5App
from tests.asgi.exchange import http
from tests.service import servers, versions
from tests.service.bounds import bounded
from tests.service.versions import REQUESTS, ask, versions_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def file(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    root.mkdir()
    return root / "x.h5"


@pytest.fixture
def app(file: Path) -> H5App:
    return bounded(file.parent, read_ahead_bytes=2 * versions.ROW)


@pytest.fixture(scope="module")
def writer() -> Iterator[versions.Writer]:
    with versions.writer() as writer:
        yield writer


async def _rows(app: H5App, count: int, **query: str) -> None:
    answer = await ask(app, "/data", **{"path": "rows", "format": "bin", **query})
    assert answer.status == 200, answer.body
    assert answer.body == np.repeat(np.arange(count, dtype="u1"), versions.ROW).tobytes()


async def test_a_live_file_shows_what_was_appended(
    app: H5App, file: Path, writer: versions.Writer
) -> None:
    await anyio.to_thread.run_sync(writer, "begin", file)
    for count in range(3, 10, 3):
        await anyio.to_thread.run_sync(writer, "append", file, 3)
        meta = json.loads((await ask(app, "/meta", path="rows")).body)
        assert meta["shape"] == [count, versions.ROW]
        await _rows(app, count)
    await anyio.to_thread.run_sync(writer, "end", file)
    await _rows(app, 9)
    await anyio.to_thread.run_sync(writer, "write", file, 2)
    assert await versions_of(app, "meta") == {2}


async def test_a_virtual_dataset_over_a_live_file(
    app: H5App, file: Path, writer: versions.Writer
) -> None:
    live = file.with_name("live.h5")
    await anyio.to_thread.run_sync(writer, "begin", live)
    await anyio.to_thread.run_sync(writer, "append", live, 3)
    layout = h5py.VirtualLayout((3, versions.ROW), "u1")
    for number in range(3):
        layout[number] = h5py.VirtualSource("live.h5", "rows", (3, versions.ROW))[number]
    with h5py.File(file.with_name("virtual.h5"), "w") as out:
        out.create_virtual_dataset("rows", layout)
    try:
        await _rows(app, 3, file="virtual.h5")
    finally:
        await anyio.to_thread.run_sync(writer, "end", live)


class Stalled:
    """A client that has taken the beginning of an answer and stops there."""

    def __init__(self) -> None:
        self.exchange = http("/data", query_string=b"file=x.h5&path=rows&format=bin")
        self.reached = anyio.Event()
        self.go_on = anyio.Event()

    async def __call__(self, app: H5App) -> None:
        await app(self.exchange.scope, self.exchange.receive, self._send)

    async def _send(self, message: Any) -> None:
        await self.exchange.send(message)
        if len(self.exchange.sent) == 2:
            self.reached.set()
            await self.go_on.wait()


async def test_what_is_appended_shows_while_a_client_stalls(
    app: H5App, file: Path, writer: versions.Writer
) -> None:
    await anyio.to_thread.run_sync(writer, "begin", file)
    await anyio.to_thread.run_sync(writer, "append", file, 9)
    stalled = Stalled()
    with anyio.fail_after(servers.PATIENCE):
        async with anyio.create_task_group() as clients:
            clients.start_soon(stalled, app)
            await stalled.reached.wait()
            await anyio.to_thread.run_sync(writer, "append", file, 3)
            for _ in range(2):
                meta = json.loads((await ask(app, "/meta")).body)
                assert [each["shape"] for each in meta["children"]] == [[12, versions.ROW]]
                await _rows(app, 12)
            stalled.go_on.set()
    assert stalled.exchange.body == np.repeat(np.arange(9, dtype="u1"), versions.ROW).tobytes()
    await anyio.to_thread.run_sync(writer, "end", file)


@pytest.mark.parametrize("action", ["replace", "write"])
@pytest.mark.slow_on_trio
async def test_a_stalled_client_keeps_no_old_live_file(
    app: H5App, file: Path, writer: versions.Writer, action: str
) -> None:
    await anyio.to_thread.run_sync(writer, "begin", file)
    await anyio.to_thread.run_sync(writer, "append", file, 9)
    stalled = Stalled()
    with anyio.fail_after(servers.PATIENCE):
        async with anyio.create_task_group() as clients:
            clients.start_soon(stalled, app)
            await stalled.reached.wait()
            if action == "write":
                await anyio.to_thread.run_sync(writer, "end", file)
            await anyio.to_thread.run_sync(writer, action, file, 2)
            for request in REQUESTS:
                assert await versions_of(app, request) == {2}
            clients.cancel_scope.cancel()
    if action == "replace":
        await anyio.to_thread.run_sync(writer, "end", file)
