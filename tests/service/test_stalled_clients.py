"""Clients that take nothing of what they asked for: what they hold is others' again, in time."""

import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import h5py
import numpy as np
import pytest

from asgihive.asgi.responses import ClientStalled, Passage
from asgihive.service import H5App
from asgihive.settings import H5Settings
from tests.asgi.exchange import http, run
from tests.service import servers
from tests.service.bounds import bounded

pytestmark = pytest.mark.anyio

LARGE = 24 << 20  # bytes, more than the buffers of two sockets hold
TARGETS = ["/data?file=large.h5&path=x&format=bin", "/file?file=large.h5"]
SMALL = "/data?file=small.h5&path=x"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for name, values in (("large", np.zeros(LARGE, "u1")), ("small", np.arange(3))):
        with h5py.File(root / f"{name}.h5", "w") as file:
            file["x"] = values
    return root


def impatient(root: Path, **constants: float) -> H5App:
    settings = H5Settings(max_open_files=1, send_timeout_seconds=0.05)
    return bounded(root, settings, **constants)


@pytest.mark.parametrize("target", TARGETS)
async def test_the_file_of_a_stalled_client_is_let_go_of(root: Path, target: str) -> None:
    app = impatient(root)
    exchange = http(target)

    async def send(message: Any) -> None:
        await exchange.send(message)
        if message["type"] == "http.response.body":
            await anyio.sleep_forever()

    with anyio.fail_after(servers.PATIENCE):
        await app(exchange.scope, exchange.receive, send)
        assert exchange.status == 200
        assert 0 < len(exchange.body) < LARGE
        assert (await run(app, http(target))).status == 200
        small = await run(app, http(SMALL))
    assert (small.status, small.json) == (200, [0, 1, 2])


async def test_who_takes_each_block_in_time_gets_all_however_many(root: Path) -> None:
    app = impatient(root, read_ahead_bytes=1 << 20)
    exchange = http(TARGETS[0])
    blocks = 0

    async def send(message: Any) -> None:
        nonlocal blocks
        await anyio.lowlevel.checkpoint()
        await exchange.send(message)
        blocks += message["type"] == "http.response.body"

    with anyio.fail_after(servers.PATIENCE):
        await app(exchange.scope, exchange.receive, send)
    assert blocks >= LARGE >> 20
    assert exchange.body == bytes(LARGE)


async def test_little_is_sent_however_long_it_takes() -> None:
    """Nothing is held for it, and the wait costs as much as the answer."""
    done = anyio.Event()

    async def send(_: Any) -> None:
        await done.wait()

    async with anyio.create_task_group() as tasks:
        sending = Passage(send, 0.0).send
        tasks.start_soon(sending, {"type": "http.response.start", "status": 200, "headers": []})
        tasks.start_soon(sending, {"type": "http.response.body", "body": b"x" * 1000})
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(ClientStalled):
            await sending({"type": "http.response.body", "body": b"", "more_body": True})
        done.set()


# Hypercorn on trio shields what it sends from being cancelled.
@pytest.mark.parametrize("server", [*servers.UVICORN, "hypercorn-asyncio"])
@pytest.mark.parametrize("target", TARGETS)
def test_over_a_socket(root: Path, server: str, target: str) -> None:
    with servers.serving(impatient(root), server) as url, servers.client(url) as other:
        address = urlsplit(url)
        assert address.hostname is not None
        assert address.port is not None
        with socket.create_connection((address.hostname, address.port)) as stalled:
            stalled.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert stalled.recv(12) == b"HTTP/1.1 200"
            # Now the only file that may be open is in use, for a while.
            end = time.monotonic() + servers.PATIENCE
            while (answer := other.get(SMALL)).status_code == 503:
                assert time.monotonic() < end
            assert answer.json() == [0, 1, 2]
