"""Clients that go away, stall, or are cancelled: reading stops, and nothing stays held."""

import gc
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import anyio
import anyio.lowlevel
import anyio.to_thread
import h5py
import numpy as np
import pytest
from h5py._objects import phil

from asgihive.hdf5.datasets import Dataset
from asgihive.hdf5.pool import Lease
from asgihive.service import H5App
from tests.asgi.exchange import Exchange, http
from tests.service import servers
from tests.zoo.client import client as in_process

BLOCKS = 32  # of 4 MiB: the memory of one answer, and far more than sockets hold
CLIENTS = 4
BUSY = 20.0  # seconds, which only a failure takes

BIN = {"file": "x.h5", "path": "large", "format": "bin"}
JSON = {"file": "x.h5", "path": "large", "format": "json"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    with h5py.File(root / "x.h5", "w") as file:
        shape, chunks = (BLOCKS, 2048, 2048), (1, 2048, 2048)
        options = {"compression": "gzip", "compression_opts": 1}
        large = file.create_dataset("large", shape, "u1", chunks=chunks, **options)
        for number in range(BLOCKS):
            large[number] = number
        file["small"] = np.arange(5)
    with h5py.File(root / "links.h5", "w") as file:
        file["link"] = h5py.ExternalLink("x.h5", "/large")
        layout = h5py.VirtualLayout(shape, "u1")
        layout[:] = h5py.VirtualSource("x.h5", "large", shape)
        file.create_virtual_dataset("virtual", layout)
    return root


@pytest.fixture
def app(root: Path) -> H5App:
    return H5App(root)


@dataclass
class Watch:
    """What the service does behind the answers."""

    reads: int = 0
    released: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    before_read: Callable[[], object] = int

    def await_release(self) -> int:
        """The number of reads so far, when the next lease has been given back."""
        assert self.released.acquire(timeout=servers.PATIENCE)
        return self.reads


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    watch = Watch()
    read, release = Dataset.read, Lease.release

    def noted_read(self: Dataset, lease: Lease, *arguments: Any, **options: Any) -> Any:
        watch.before_read()
        lease.go_on()
        watch.reads += 1
        return read(self, lease, *arguments, **options)

    def noted_release(self: Lease) -> None:
        release(self)
        watch.released.release()

    monkeypatch.setattr(Dataset, "read", noted_read)
    monkeypatch.setattr(Lease, "release", noted_release)
    return watch


def holders(app: H5App) -> int:
    """How many requests hold a file."""
    return sum(len(file.holders) for file in app.store.pool.files.values())


@contextmanager
def asking(url: str, query: dict[str, str]) -> Iterator[socket.socket]:
    """A client that has sent a request for values and takes as little as it can."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        client.settimeout(servers.PATIENCE)
        address = urlsplit(url)
        client.connect((address.hostname, address.port))
        target = f"/data?{urlencode(query)}"
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode())
        yield client


@pytest.mark.parametrize("query", [BIN, JSON], ids=["bin", "json"])
@pytest.mark.parametrize("server", servers.SERVERS)
def test_a_client_that_closes_its_connection(
    app: H5App, watch: Watch, server: str, query: dict[str, str]
) -> None:
    with servers.serving(app, server) as url:
        with asking(url, query) as client:
            taken = 0
            while taken < 100_000:
                received = client.recv(1 << 14)
                assert received
                taken += len(received)
            assert holders(app) == 1
        reads = watch.await_release()
        assert holders(app) == 0
        with servers.client(url) as other:
            small = {"file": "x.h5", "path": "small", "selection": ":3"}
            assert other.get("/data", params=small).json() == [0, 1, 2]
        # What other lanes had begun when the lease was given back, and the small one.
        assert watch.reads <= reads + app.store.lanes.decode.threads + 1
        assert reads < BLOCKS / 2


@pytest.mark.parametrize("server", servers.SERVERS)
def test_clients_that_stall_hold_nobody_up(app: H5App, watch: Watch, server: str) -> None:
    def ask(number: int) -> None:
        if number:
            with asking(url, BIN) as client:
                assert client.recv(1) == b"H"  # of HTTP/1.1: the answer has begun
                ask(number - 1)
            return
        with servers.client(url) as other:
            for path, answer in (("small", list(range(5))), ("large", BLOCKS - 1)):
                selection = ":" if path == "small" else "-1,0,0"
                wanted = {"file": "x.h5", "path": path, "selection": selection}
                assert other.get("/data", params=wanted).json() == answer
            assert other.get("/meta", params={"file": "x.h5"}).status_code == 200
        assert holders(app) == CLIENTS

    with servers.serving(app, server) as url:
        ask(CLIENTS)
        while holders(app):
            watch.await_release()
    assert watch.reads < CLIENTS * BLOCKS / 2


# Driven by hand


def _exchange(query: dict[str, str]) -> Exchange:
    return http("/data", query_string=urlencode(query).encode())


async def _settled(app: H5App) -> None:
    """Return when nothing is being read any more."""
    await app.store.lanes.library.run(int, patient=True)
    decode = app.store.lanes.decode
    all_free = threading.Barrier(decode.threads)
    async with anyio.create_task_group() as tasks:
        for _ in range(decode.threads):
            tasks.start_soon(partial(decode.run, all_free.wait, patient=True))


@pytest.mark.anyio
@pytest.mark.parametrize("query", [BIN, JSON], ids=["bin", "json"])
@pytest.mark.parametrize("messages", [0, 1, 2, 5])
@pytest.mark.slow_on_trio
async def test_send_that_raises(
    app: H5App, watch: Watch, query: dict[str, str], messages: int
) -> None:
    """As servers of ASGI 2.4 say that the client has stopped reading."""
    exchange = _exchange(query)

    async def send(message: Any) -> None:
        if len(exchange.sent) == messages:
            raise BrokenPipeError
        await exchange.send(message)

    with anyio.fail_after(servers.PATIENCE):
        await app(exchange.scope, exchange.receive, send)
        assert holders(app) == 0
        reads = watch.reads
        await _settled(app)
    assert len(exchange.sent) == messages
    # The first one, those that were sent, and those that were read ahead.
    ahead = app.store.lanes.decode.threads + 1
    assert reads <= 1 + messages + ahead
    assert watch.reads <= reads + ahead


@pytest.mark.anyio
async def test_a_disconnect_that_only_receive_tells_of(app: H5App, watch: Watch) -> None:
    exchange = _exchange(BIN)

    async def send(message: Any) -> None:
        await exchange.send(message)
        if len(exchange.sent) == 3:
            exchange.gone.set()

    with anyio.fail_after(servers.PATIENCE):
        await app(exchange.scope, exchange.receive, send)
        assert holders(app) == 0
        reads = watch.reads
        await _settled(app)
    assert watch.reads <= reads + app.store.lanes.decode.threads + 1 < BLOCKS / 2
    assert not exchange.complete


@pytest.mark.anyio
async def test_cancellation_while_the_client_stalls(app: H5App) -> None:
    exchange = _exchange(BIN)
    stalled = anyio.Event()

    async def send(message: Any) -> None:
        await exchange.send(message)
        if len(exchange.sent) == 3:
            stalled.set()
            await anyio.sleep_forever()

    with anyio.fail_after(servers.PATIENCE):
        async with anyio.create_task_group() as requests:
            requests.start_soon(app, exchange.scope, exchange.receive, send)
            await stalled.wait()
            assert holders(app) == 1
            requests.cancel_scope.cancel()
    assert holders(app) == 0


@pytest.mark.anyio
@pytest.mark.parametrize("block", [0, 2])
async def test_cancellation_while_a_block_is_read(app: H5App, watch: Watch, block: int) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def stick() -> None:
        if watch.reads >= block:
            begun.set()
            assert go_on.wait(servers.PATIENCE)

    watch.before_read = stick
    exchange = _exchange(BIN)
    with anyio.fail_after(servers.PATIENCE):
        try:
            async with anyio.create_task_group() as requests:
                requests.start_soon(app, exchange.scope, exchange.receive, exchange.send)
                assert await anyio.to_thread.run_sync(begun.wait, servers.PATIENCE)
                assert holders(app) == 1
                requests.cancel_scope.cancel()
            assert holders(app) == 0  # though the thread still reads
        finally:
            go_on.set()
        await _settled(app)
        assert holders(app) == 0
        async with in_process(app) as client:
            assert (await client.get("/meta", params={"file": "x.h5"})).status_code == 200
    # Nothing that had not begun by then.
    assert block <= watch.reads <= block + app.store.lanes.decode.threads


@pytest.mark.anyio
async def test_cancellation_at_any_checkpoint(app: H5App) -> None:
    with anyio.fail_after(servers.PATIENCE):
        for rounds in range(40):
            exchange = _exchange(BIN)
            async with anyio.create_task_group() as requests:
                requests.start_soon(app, exchange.scope, exchange.receive, exchange.send)
                for _ in range(rounds):
                    await anyio.lowlevel.checkpoint()
                requests.cancel_scope.cancel()
            await _settled(app)
            assert holders(app) == 0


# HDF5's lock


class Busy:
    """Somebody who reads for long, and so holds the lock that h5py has for all of HDF5."""

    def __init__(self) -> None:
        self._begun, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold)
        self._over_in_time = False

    def _hold(self) -> None:
        with phil:
            self._begun.set()
            self._over_in_time = self._over.wait(BUSY)

    async def begin(self) -> None:
        self._thread.start()
        assert await anyio.to_thread.run_sync(self._begun.wait, servers.PATIENCE)

    def end(self) -> bool:
        """Whether this came before the end of `BUSY` seconds."""
        self._over.set()
        self._thread.join()
        return self._over_in_time


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["link", "virtual"])
async def test_the_end_of_an_answer_does_not_wait_for_hdf5(app: H5App, path: str) -> None:
    """The event loop would stand still: a lock that is not free stops everybody."""
    exchange = _exchange({"file": "links.h5", "path": path, "format": "bin"})
    busy = Busy()

    async def send(message: Any) -> None:
        if len(exchange.sent) == 3:
            await busy.begin()
            raise BrokenPipeError
        await exchange.send(message)

    await app(exchange.scope, exchange.receive, send)
    assert busy.end()


@pytest.mark.anyio
@pytest.mark.slow_on_trio
async def test_an_error_does_not_wait_for_hdf5(app: H5App) -> None:
    exchange = _exchange({"file": "links.h5", "path": "link/nothing", "format": "bin"})
    busy = Busy()

    async def send(message: Any) -> None:
        if not exchange.sent:
            gc.collect()  # what other tests have left behind
            await busy.begin()
        await exchange.send(message)

    await app(exchange.scope, exchange.receive, send)
    gc.collect()  # as it comes at any time: an error and its frames may hold each other
    assert busy.end()
    assert exchange.status == 404
