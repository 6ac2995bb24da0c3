"""`/events`: what happens to a file while clients listen."""

import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import h5py
import numpy as np
import pytest
from anyio.streams.memory import MemoryObjectReceiveStream

from asgihive.hdf5.sandbox import FINE_TICK_NS, Identity, Sandbox
from asgihive.service import H5App
from asgihive.service.gate import PERMISSION, RequestedEntity
from asgihive.settings import H5Settings
from asgihive.viewer import events, watching
from asgihive.viewer.watching import WatchedFile, WatchEnded
from tests.asgi.exchange import Exchange, http, run
from tests.gates import WAIT_SECONDS, until
from tests.service import servers, versions

pytestmark = pytest.mark.anyio

QUICK = H5Settings(poll_seconds=0.05)
URL = "/events?file=x.h5&path=/rows"


class Listener:
    """A client of an event stream: what it was sent, a text for each message."""

    def __init__(self, exchange: Exchange, received: MemoryObjectReceiveStream[str]) -> None:
        self.exchange = exchange
        self._received = received
        self._rest = ""

    async def next_block(self) -> dict[str, str]:
        """Return the fields of what comes next up to an empty line; comments are `:`."""
        with anyio.fail_after(WAIT_SECONDS):
            while "\n\n" not in self._rest:
                self._rest += await self._received.receive()
        block, self._rest = self._rest.split("\n\n", 1)
        fields = (each.partition(":") for each in block.split("\n"))
        return {name: value.strip() for name, _, value in fields}

    async def next_event(self) -> tuple[str, Any]:
        block = await self.next_block()
        return block["event"], json.loads(block["data"])


@asynccontextmanager
async def listening(app: H5App, url: str = URL, **scope: Any) -> AsyncIterator[Listener]:
    exchange = http(url, **scope)
    told, received = anyio.create_memory_object_stream[str](1000)

    async def send(message: Any) -> None:
        await exchange.send(message)
        if message["type"] == "http.response.body" and message["body"]:
            told.send_nowait(message["body"].decode())

    with told, received:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app, exchange.scope, exchange.receive, send)
            listener = Listener(exchange, received)
            assert (await listener.next_block())["retry"] == str(events.RETRY_MS)
            yield listener
            exchange.gone.set()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    root.mkdir()
    write(root / "x.h5", 3)
    return root / "x.h5"


@pytest.fixture
def app(file: Path) -> H5App:
    return H5App(file.parent, QUICK)


def write(path: Path, rows: int) -> None:
    """Put another file in the place of one, at once."""
    beside = path.with_suffix(".new")
    with h5py.File(beside, "w") as file:
        file["rows"] = np.zeros((rows, 4))
        file["other"] = np.zeros(rows)
    beside.rename(path)


async def test_a_file_that_changes_grows_goes_and_comes_back(app: H5App, file: Path) -> None:
    async with listening(app) as listener:
        headers = listener.exchange.headers
        assert headers["content-type"] == "text/event-stream"
        assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-store", "no")
        assert "content-length" not in headers
        write(file, 3)
        kind, told = await listener.next_event()
        assert (kind, told["file"]) == ("changed", "x.h5")
        seen = {told["version"]}
        write(file, 5)
        kind, told = await listener.next_event()
        assert (kind, told["version"] in seen) == ("changed", False)
        assert await listener.next_event() == ("grown", {"path": "/rows", "shape": [5, 4]})
        file.unlink()  # noqa: ASYNC240  # of a moment, in a test
        assert await listener.next_event() == ("gone", {"file": "x.h5"})
        write(file, 2)
        assert (await listener.next_event())[0] == "changed"
        write(file, 6)
        assert (await listener.next_event())[0] == "changed"
        assert await listener.next_event() == ("grown", {"path": "/rows", "shape": [6, 4]})


async def test_all_who_listen_share_one_poll(
    app: H5App, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    polls = asked = 0
    identify, ask_shape = Sandbox.identify, events.Events._ask_shape

    def count_poll(sandbox: Sandbox, name: str) -> Identity | None:
        nonlocal polls
        polls += 1
        return identify(sandbox, name)

    async def count_question(route: events.Events, name: str, path: str) -> Any:
        nonlocal asked
        asked += 1
        return await ask_shape(route, name, path)

    monkeypatch.setattr(Sandbox, "identify", count_poll)
    monkeypatch.setattr(events.Events, "_ask_shape", count_question)
    async with anyio.create_task_group() as tasks:
        heard = list[tuple[str, Any]]()
        ready, is_ready = 0, anyio.Event()

        async def listen() -> None:
            nonlocal ready
            async with listening(app) as listener:
                ready += 1
                if ready == 100:
                    is_ready.set()
                heard.extend([await listener.next_event(), await listener.next_event()])

        for _ in range(100):
            tasks.start_soon(listen)
        await is_ready.wait()
        assert asked in {1, 2}  # once more where the file was written just before
        polls = asked = 0
        write(file, 9)
    assert heard.count(("grown", {"path": "/rows", "shape": [9, 4]})) == 100
    assert asked in {1, 2}
    assert polls < 100  # some more may have been made while those who polled left


async def test_another_one_polls_when_the_first_leaves(app: H5App, file: Path) -> None:
    async with listening(app) as other:
        async with listening(app) as second:
            write(file, 4)
            assert (await second.next_event())[0] == "changed"
        assert [(await other.next_event())[0] for _ in "12"] == ["changed", "grown"]
        write(file, 5)
        assert [(await other.next_event())[0] for _ in "12"] == ["changed", "grown"]


async def test_the_first_may_leave_as_well(app: H5App, file: Path) -> None:
    exits = anyio.Event()
    async with anyio.create_task_group() as tasks:

        async def leave_early() -> None:
            async with listening(app):
                is_there.set()
                await exits.wait()
            has_left.set()

        is_there, has_left = anyio.Event(), anyio.Event()
        tasks.start_soon(leave_early)
        await is_there.wait()
        async with listening(app) as listener:
            exits.set()
            await has_left.wait()
            write(file, 8)
            assert (await listener.next_event())[0] == "changed"
            assert await listener.next_event() == ("grown", {"path": "/rows", "shape": [8, 4]})


async def test_who_comes_back_is_told_what_was_missed(app: H5App, file: Path) -> None:
    async with listening(app) as listener:
        write(file, 4)
        version = (await listener.next_block())["id"]
    headers = [(b"last-event-id", version.encode())]
    async with listening(app, headers=headers) as listener:
        write(file, 5)
        assert (await listener.next_event())[0] == "changed"
    async with listening(app, headers=headers) as listener:
        assert (await listener.next_event())[0] == "changed"
        assert await listener.next_event() == ("grown", {"path": "/rows", "shape": [5, 4]})


@pytest.mark.slow_on_trio
async def test_a_quiet_stream_has_a_heartbeat(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_SECONDS", 0.03)
    app = H5App(file.parent, H5Settings(poll_seconds=0.05, read_timeout_seconds=1.0))
    async with listening(app) as listener:
        for _ in range(60):
            assert await listener.next_block() == {"": ""}
        write(file, 4)  # which a poll sees, though heartbeats come more often
        seen: dict[str, str] = {}
        while not seen.get("event"):
            seen = await listener.next_block()
        assert seen["event"] == "changed"


async def test_no_more_listen_than_may(file: Path) -> None:
    app = H5App(file.parent, H5Settings(poll_seconds=0.05, max_listeners=1))
    async with listening(app):
        answer = await run(app, http(URL))
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert "1 clients listen" in answer.message
    assert (await run(app, http(URL, "HEAD"))).status == 200
    off = H5App(file.parent, H5Settings(max_listeners=0))
    assert (await run(off, http(URL))).status == 404


@pytest.mark.parametrize(
    ("url", "status", "reason"),
    [
        ("/events", 422, "file"),
        ("/events?file=no.h5", 404, "File not found"),
        ("/events?file=../x.h5", 404, "File not found"),
        ("/events?file=x.h5&path=/no", 404, "not a valid path"),
        ("/events?file=x.txt", 422, "HDF5"),
        ("/events?file=x.h5&paht=/rows", 422, "path"),
    ],
)
@pytest.mark.slow_on_trio
async def test_what_cannot_be_listened_to(
    app: H5App, file: Path, url: str, status: int, reason: str
) -> None:
    file.with_name("x.txt").write_text("no HDF5")
    answer = await run(app, http(url))
    assert (answer.status, reason in answer.message) == (status, True), answer.message


async def test_a_permission_is_asked(app: H5App) -> None:
    asked = list[RequestedEntity]()

    def refuse(entity: RequestedEntity) -> bool:
        asked.append(entity)
        return False

    answer = await run(app, http(URL, state={PERMISSION: refuse}))
    assert answer.status == 403
    assert asked == [RequestedEntity("events", "x.h5", "/rows")]


async def test_a_group_has_no_shape(app: H5App, file: Path) -> None:
    async with listening(app, "/events?file=x.h5") as listener:
        write(file, 7)
        assert (await listener.next_event())[0] == "changed"
        write(file, 8)
        assert (await listener.next_event())[0] == "changed"


@pytest.fixture
def sandbox(file: Path) -> Sandbox:
    return Sandbox(file.parent, follow_symlinks=False)


@pytest.fixture
def identity(file: Path) -> Identity:
    return Identity.of(file.stat())


@pytest.mark.parametrize("is_early", [True, False])
async def test_growth_in_the_tick_of_the_clock_in_which_the_shape_was_read(
    sandbox: Sandbox, identity: Identity, monkeypatch: pytest.MonkeyPatch, is_early: bool
) -> None:
    now_ns = identity.ctime_ns + (FINE_TICK_NS // 2 if is_early else FINE_TICK_NS)
    monkeypatch.setattr(watching, "time_ns", lambda: now_ns)
    # The tests of files run without waiting for the clock.
    monkeypatch.setattr("asgihive.hdf5.sandbox.FINE_TICK_NS", FINE_TICK_NS)
    shapes, asked = [(3,), (4,)], 0

    async def ask_shape(_file: str, _path: str) -> tuple[int, ...]:
        nonlocal asked, now_ns
        asked += 1
        shape = shapes[min(asked, len(shapes)) - 1]
        if is_early:
            now_ns += FINE_TICK_NS // 2
        return shape

    polls = 0

    def is_stopping() -> bool:
        nonlocal polls
        polls += 1
        return polls == 5

    watched = WatchedFile("x.h5", sandbox, ask_shape, 0.001, is_stopping)
    with watched.listening("/rows"), anyio.fail_after(WAIT_SECONDS):
        sight = await watched.look("/rows")
        assert watched.get_shape("/rows") == (3,)
        if is_early:
            later = await watched.wait(sight)
            assert (later.version, watched.get_shape("/rows")) == (sight.version, (4,))
            sight = later
        # What is certain is not asked for again.
        with pytest.raises(WatchEnded):
            await watched.wait(sight)
    assert asked == (2 if is_early else 1)


@pytest.fixture(scope="module")
def writer() -> Iterator[versions.Writer]:
    with versions.writer() as writer:
        yield writer


@pytest.mark.parametrize("isolation", ["none", pytest.param("process", marks=pytest.mark.slow)])
async def test_fifty_frames_are_seen_as_they_are_written(
    file: Path, writer: versions.Writer, isolation: Any
) -> None:
    settings = H5Settings(poll_seconds=0.05, isolation=isolation, decode_lanes=1)
    app = H5App(file.parent, settings)
    await anyio.to_thread.run_sync(writer, "begin", file)
    async with app.running(), listening(app) as listener, anyio.create_task_group() as tasks:

        async def append() -> None:
            for _ in range(50):
                await anyio.to_thread.run_sync(writer, "append", file, 1)

        tasks.start_soon(append)
        lengths = [0]
        while lengths[-1] < 50:
            kind, told = await listener.next_event()
            if kind == "grown":
                assert told["path"] == "/rows"
                lengths.append(told["shape"][0])
        assert lengths == sorted(set(lengths))
        assert lengths[-1] == 50
    await anyio.to_thread.run_sync(writer, "end", file)


# Over a socket


@pytest.mark.slow
@pytest.mark.parametrize("server", servers.SERVERS)
def test_a_server_ends_streams_when_it_stops(file: Path, server: str) -> None:
    app = H5App(file.parent, QUICK)
    with (
        servers.serving(app, server) as url,
        servers.client(url) as client,
        client.stream("GET", URL) as answer,
    ):
        lines = answer.iter_lines()
        assert next(lines) == f"retry: {events.RETRY_MS}"
        write(file, 4)
        assert "event: changed" in lines
        assert "event: grown" in lines


def test_uvicorn_says_when_it_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    class Server:
        should_exit = False

        def handle_exit(self, *_: object) -> None:
            self.should_exit = True

    server = Server()
    monkeypatch.setattr(signal, "getsignal", lambda _: server.handle_exit)
    assert not events.is_server_stopping()
    server.handle_exit()
    assert events.is_server_stopping()


async def test_streams_end_when_the_server_stops(
    app: H5App, monkeypatch: pytest.MonkeyPatch
) -> None:
    with anyio.fail_after(WAIT_SECONDS):
        async with anyio.create_task_group() as tasks:
            exchange = http(URL)
            is_stopping = False
            monkeypatch.setattr(events, "is_server_stopping", lambda: is_stopping)
            tasks.start_soon(app, exchange.scope, exchange.receive, exchange.send)
            await until(lambda: len(exchange.sent) > 1)
            is_stopping = True
    assert exchange.complete
