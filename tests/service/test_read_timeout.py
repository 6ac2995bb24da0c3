"""`read_timeout_seconds`: what has sent nothing by then is 504, on every route, and ends."""

import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import h5py
import numpy as np
import pytest
import trio
import trio.testing

from asgihive.errors import ReadTimeout
from asgihive.hdf5.datasets import Dataset
from asgihive.hdf5.directory import Listing, WholeFile
from asgihive.hdf5.file_bytes import allow_waiting
from asgihive.service import H5App
from asgihive.service.routes import TimedRoute
from asgihive.settings import H5Settings
from tests.asgi.exchange import Exchange, http, run
from tests.gates import Gate
from tests.service import servers
from tests.service.asking import ask, held
from tests.service.bounds import bounded

SHORT = 0.3
LONG = 60.0
VALUES = np.arange(300_000, dtype="<i8")

# Of each route, with the function in a thread that is held up.
LIBRARY_ROUTES = [
    "/meta?file=x.h5",
    "/attr?file=x.h5",
    "/paths?file=x.h5",
    "/data?file=x.h5&path=values",
    "/data?file=x.h5&path=values&max_points=10",
    "/stats?file=x.h5&path=values",
    "/histogram?file=x.h5&path=values",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    with h5py.File(root / "x.h5", "w") as file:
        file.attrs["a"] = 1
        file.create_dataset("values", data=VALUES, chunks=(100_000,), compression="gzip")
    with h5py.File(root / "other.h5", "w") as file:
        file["small"] = 5
    return root


def refused(answer: Exchange, seconds: float = SHORT) -> None:
    assert answer.status == 504, answer.body[:300]
    assert f"{seconds:g}" in answer.message


@pytest.mark.anyio
@pytest.mark.parametrize("url", LIBRARY_ROUTES)
async def test_whoever_waits_for_the_library(root: Path, gate: Gate, url: str) -> None:
    app = H5App(root, H5Settings(read_timeout_seconds=SHORT))
    with anyio.fail_after(servers.PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app.store.lanes.library.run, gate)
            await gate.begun()
            refused(await run(app, http(url)))
            assert app.store.lanes.library.waiting() == 0
            gate.open()
    assert held(app) == 0


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("url", "owner", "name"),
    [
        ("/files", Listing, "add"),
        ("/file?file=x.h5", WholeFile, "open"),
        ("/file?file=x.h5", WholeFile, "read"),
        *((url, Dataset, "read") for url in LIBRARY_ROUTES[3:]),
    ],
)
async def test_what_is_held_up_in_a_thread(  # noqa: PLR0917  # fixtures, and what it is about
    root: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch, url: str, owner: Any, name: str
) -> None:
    app = H5App(root, H5Settings(read_timeout_seconds=SHORT, decode_lanes=1))
    function = getattr(owner, name)
    threads: list[threading.Thread] = []

    def slow(*arguments: Any, **options: Any) -> Any:
        allow_waiting()
        threads.append(threading.current_thread())
        gate()
        return function(*arguments, **options)

    with monkeypatch.context() as patch, anyio.fail_after(servers.PATIENCE):
        patch.setattr(owner, name, slow)
        while not threads:  # on a busy machine its time may be over before
            refused(await run(app, http(url)))
    gate.open()
    for lane in (app.store.lanes.library, app.store.lanes.decode):
        await lane.run(int, patient=True)
    assert held(app) == 0
    assert (await run(app, http(url))).status == 200


@pytest.mark.anyio
async def test_a_request_of_a_batch_has_its_own_time(root: Path, gate: Gate) -> None:
    app = H5App(root, H5Settings(read_timeout_seconds=SHORT))
    await ask(app, "/data", path="values", selection="0")  # which needs no library from now on
    body = (
        b'[{"route":"meta","params":{"file":"other.h5"}},'
        b'{"route":"data","params":{"file":"x.h5","path":"values","selection":"7"}}]'
    )
    json = [(b"content-type", b"application/json")]
    with anyio.fail_after(servers.PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app.store.lanes.library.run, gate)
            await gate.begun()
            answer = await run(app, http("/batch", "POST", body=body, headers=json))
            gate.open()
    assert answer.status == 200
    assert [each["status"] for each in answer.json] == [504, 200]
    assert answer.json[1]["body"] == 7


@pytest.mark.anyio
async def test_nothing_is_sent_of_an_answer_that_is_too_late_by_a_moment() -> None:
    """The time ends while the application works without a break, and then it begins."""
    exchange = http("/")

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        with anyio.CancelScope(shield=True):
            await (
                anyio.lowlevel.checkpoint()
            )  # the end of its time is noticed here, and not told yet
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"late"})

    with pytest.raises(ReadTimeout):
        await TimedRoute(slow, 0.0)(exchange.scope, exchange.receive, exchange.send)
    assert not exchange.sent


# By a clock that goes only when it is told to


Story = Callable[[trio.testing.MockClock], Awaitable[None]]


def tell(story: Story) -> None:
    clock = trio.testing.MockClock()
    trio.run(story, clock, clock=clock)  # older versions of anyio.run do not hand the clock on


class Blocks:
    """Holds up each block that is read until the test lets it through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gates = [Gate() for _ in range(10)]
        self._next = iter(self.gates)
        self.read = 0
        read = Dataset.read

        def slow(dataset: Dataset, *arguments: Any, **options: Any) -> Any:
            next(self._next)()
            self.read += 1
            return read(dataset, *arguments, **options)

        monkeypatch.setattr(Dataset, "read", slow)


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Blocks]:
    blocks = Blocks(monkeypatch)
    yield blocks
    for each in blocks.gates:
        each.open()


@pytest.mark.parametrize("route", ["/stats", "/histogram"])
def test_all_blocks_of_a_reduction_count(root: Path, blocks: Blocks, route: str) -> None:
    async def story(clock: trio.testing.MockClock) -> None:
        app = bounded(root, H5Settings(decode_lanes=1), read_ahead_bytes=1 << 16)
        answer = http(f"{route}?file=x.h5&path=values")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, app, answer)
            for gate in blocks.gates[:2]:
                await gate.begun()
                clock.jump(LONG * 0.4)
                await anyio.wait_all_tasks_blocked()
                assert not answer.sent
                gate.open()
            await blocks.gates[2].begun()
            clock.jump(LONG * 0.4)
        refused(answer, LONG)
        assert held(app) == 0

    tell(story)


def test_waiting_for_whoever_makes_the_same_answer_counts(root: Path, gate: Gate) -> None:
    async def story(clock: trio.testing.MockClock) -> None:
        app = H5App(root)
        first, second = (http("/meta?file=x.h5") for _ in range(2))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app.store.lanes.library.run, gate)
            await gate.begun()
            tasks.start_soon(run, app, first)
            await anyio.wait_all_tasks_blocked()
            clock.jump(LONG * 0.4)
            tasks.start_soon(run, app, second)
            await anyio.wait_all_tasks_blocked()
            clock.jump(LONG * 0.7)
            await anyio.wait_all_tasks_blocked()
            refused(first, LONG)
            assert not second.sent
            clock.jump(LONG * 0.4)
            await anyio.wait_all_tasks_blocked()
            refused(second, LONG)
            gate.open()
        assert held(app) == 0

    tell(story)


def test_what_has_begun_goes_on_for_as_long_as_its_client_takes(root: Path) -> None:
    async def story(clock: trio.testing.MockClock) -> None:
        app = bounded(root, H5Settings(send_timeout_seconds=10 * LONG), read_ahead_bytes=1 << 16)
        answer = http("/data?file=x.h5&path=values&format=bin")

        async def send(message: Any) -> None:
            await answer.send(message)
            clock.jump(LONG * 0.9)
            await anyio.lowlevel.checkpoint()

        await app(answer.scope, answer.receive, send)
        assert len(answer.sent) > 2
        assert answer.complete
        assert answer.body == VALUES.tobytes()

    tell(story)
