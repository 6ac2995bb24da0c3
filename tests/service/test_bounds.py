"""Bounds of `H5Settings` that no single answer shows: threads, kept chunks, links."""

import threading
from pathlib import Path
from typing import Any

import anyio
import h5py
import numpy as np
import pytest

from asgihive.hdf5.links import MAX_LINK_HOPS
from asgihive.service import H5App
from asgihive.settings import H5Settings
from tests.asgi.exchange import http, run
from tests.service import servers
from tests.zoo.client import client

pytestmark = pytest.mark.anyio

CHUNK = 10_000  # bytes
CHUNKS = 60
HOPS = MAX_LINK_HOPS


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    with h5py.File(root / "x.h5", "w") as file:
        values = np.arange(CHUNK * CHUNKS).astype("u1")
        file.create_dataset("chunked", data=values, chunks=(CHUNK,), compression="gzip")
        file["link_0"] = 5
        for number in range(HOPS + 1):
            file[f"link_{number + 1}"] = h5py.SoftLink(f"/link_{number}")
    return root


@pytest.mark.parametrize("most", [0, 200_000])
@pytest.mark.slow_on_trio
async def test_decoded_chunks_in_memory(root: Path, most: int) -> None:
    app = H5App(root, H5Settings(chunk_cache_bytes=most))
    kept = app.store.pool.chunks
    held = 0
    async with client(app) as asker:
        for number in range(CHUNKS):
            query = {"file": "x.h5", "path": "chunked", "selection": str(number * CHUNK)}
            answer = await asker.get("/data", params=query)
            assert answer.json() == number * CHUNK % 256
            assert kept.bytes <= most
            held = max(held, len(kept))
    # The rest of it is for what libhdf5 keeps.
    assert held == 0 if most == 0 else 10 <= held < CHUNKS // 2


@pytest.mark.parametrize("threads", [pytest.param(1, marks=pytest.mark.slow), 3])
@pytest.mark.slow_on_trio
async def test_threads_that_decode(
    root: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    app = H5App(root, H5Settings(decode_lanes=threads, chunk_cache_bytes=0))
    target = "/data?file=x.h5&path=chunked&format=csv"  # decoding, and then encoding
    assert (await run(app, http(target))).status == 200
    lane, lock = app.store.lanes.decode, threading.Lock()
    running = most = 0
    original = lane.run

    async def counted(function: Any, *, patient: bool = False) -> Any:
        def count() -> Any:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            try:
                return function()
            finally:
                with lock:
                    running -= 1

        return await original(count, patient=patient)

    monkeypatch.setattr(lane, "run", counted)
    with anyio.fail_after(servers.PATIENCE):
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(run, app, http(target, client=("192.0.2.1", number)))
    assert 1 <= most <= threads


async def test_links_of_one_path(root: Path) -> None:
    app = H5App(root)
    async with client(app) as asker:
        query = {"file": "x.h5", "path": f"link_{HOPS}"}
        assert (await asker.get("/data", params=query)).json() == 5
        query["path"] = f"link_{HOPS + 1}"
        answer = await asker.get("/data", params=query)
    assert answer.status_code == 404
    assert "Cannot resolve" in answer.json()["message"]
