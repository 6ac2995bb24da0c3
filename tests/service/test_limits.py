"""The bounds of `H5Settings`: what is refused, with which status, and what goes on working."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import anyio
import anyio.lowlevel
import anyio.to_thread
import h5py
import numpy as np
import pytest

from asgihive.errors import ReadTimeout
from asgihive.hdf5.datasets import Dataset
from asgihive.hdf5.file_bytes import allow_waiting
from asgihive.hdf5.pool import FilePool
from asgihive.service import H5App, store
from asgihive.service.store import MAX_WAITING_REQUESTS
from asgihive.settings import H5Settings
from tests.asgi.exchange import Exchange, http, run
from tests.gates import Gate
from tests.service import servers
from tests.service.bounds import bounded

FILES = 8
VALUES = np.arange(100_000, dtype="<i4")
BLOCK_BYTES = 1 << 16  # seven blocks of an answer

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for number in range(FILES):
        with h5py.File(root / f"{number}.h5", "w") as file:
            file["values"] = VALUES
            file.create_dataset("chunked", data=VALUES, chunks=(1000,))
            file["next"] = h5py.ExternalLink(f"{number + 1}.h5", "/values")
            file.attrs["text"] = "x" * 2000
    with h5py.File(root / "virtual.h5", "w") as file:
        layout = h5py.VirtualLayout((FILES, VALUES.size), "<i4")
        for number in range(FILES):
            layout[number] = h5py.VirtualSource(f"{number}.h5", "values", VALUES.shape)
        file.create_virtual_dataset("values", layout)
    return root


@pytest.fixture
def service(root: Path, request: pytest.FixtureRequest) -> Iterator[H5App]:
    """With the settings of `@limited(…)`."""
    given = dict(getattr(request, "param", {}))
    waiting = given.pop("max_waiting_requests", MAX_WAITING_REQUESTS)
    settings = H5Settings(**given)
    service = bounded(root, settings, read_ahead_bytes=BLOCK_BYTES, max_waiting_requests=waiting)
    yield service
    service.store.pool.close()  # other tests count what is open


def limited(**settings: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("service", [settings], indirect=True, ids=[""])


async def ask(service: H5App, route: str, file: str = "0.h5", /, **query: str) -> Exchange:
    exchange = http(route, query_string=urlencode({"file": file, **query}).encode())
    with anyio.fail_after(servers.PATIENCE):
        return await run(service, exchange)


def refused(answer: Exchange, status: int) -> str:
    """The message of an error."""
    assert answer.status == status, answer.body[:300]
    assert ("retry-after" in answer.headers) == (status == 503)
    return answer.message


class Made:
    """How often the library lane was asked for an answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times = 0
        self.before: Callable[[], object] = int
        checked = store.check_portions

        def noted(*arguments: Any) -> Any:
            allow_waiting()
            self.times += 1
            self.before()
            return (yield from checked(*arguments))

        monkeypatch.setattr(store, "check_portions", noted)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    return Made(monkeypatch)


# Size


@limited(max_response_bytes=40_000)
async def test_an_answer_over_the_limit(service: H5App) -> None:
    for format_ in ("bin", "json", "npy", "csv"):
        message = refused(await ask(service, "/data", path="values", format=format_), 413)
        assert "400000" in message
        assert "40000" in message
        assert "selection" in message
    for count, status in ((10_000, 200), (10_001, 413)):
        wanted = {"path": "values", "format": "bin", "selection": f":{count}"}
        assert (await ask(service, "/data", **wanted)).status == status
    # The selection is what counts, not the dataset; statistics are small whatever they are of.
    assert (await ask(service, "/stats", path="values")).status == 200


@limited(max_response_bytes=2000)
async def test_a_document_over_the_limit(service: H5App) -> None:
    assert "2000" in refused(await ask(service, "/attr"), 413)
    assert (await ask(service, "/meta", path="values")).status == 200


# Waiting


@limited(max_waiting_requests=2)
async def test_more_requests_than_may_wait(service: H5App, gate: Gate) -> None:
    assert (await ask(service, "/meta")).status == 200
    waiting = [http("/meta", query_string=b"file=%d.h5" % number) for number in (1, 2)]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.store.lanes.library.run, gate)
        await gate.begun()
        for each in waiting:
            tasks.start_soon(run, service, each)
        await anyio.wait_all_tasks_blocked()
        for path in ("/meta", "/attr", "/paths", "/data", "/stats"):
            message = refused(await ask(service, path, "3.h5", path="/values"), 503)
            assert "busy" in message
        # What is in memory needs no thread.
        assert (await ask(service, "/meta")).status == 200
        assert (await run(service, http("/"))).body == b"ok"
        gate.open()
    assert [each.status for each in waiting] == [200, 200]
    assert (await ask(service, "/meta", "3.h5")).status == 200


@limited(max_waiting_requests=1)
async def test_an_answer_that_has_begun_is_not_refused(service: H5App, gate: Gate) -> None:
    streamed = http("/data", query_string=b"file=0.h5&path=chunked&format=bin")
    waiting = http("/meta", query_string=b"file=1.h5")
    begun, go_on = anyio.Event(), anyio.Event()

    async def send(message: Any) -> None:
        await streamed.send(message)
        if len(streamed.sent) == 2:
            begun.set()
            await go_on.wait()

    with anyio.fail_after(servers.PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(service, streamed.scope, streamed.receive, send)
            await begun.wait()
            tasks.start_soon(service.store.lanes.library.run, gate)
            await gate.begun()
            tasks.start_soon(run, service, waiting)
            await anyio.wait_all_tasks_blocked()
            go_on.set()
            await anyio.wait_all_tasks_blocked()
            gate.open()
    assert streamed.body == VALUES.tobytes()
    assert waiting.status == 200


# Time


@limited(read_timeout_seconds=0.05)
@pytest.mark.parametrize("path", ["/meta", "/attr", "/paths", "/data", "/stats"])
async def test_a_read_that_waits_too_long(service: H5App, gate: Gate, path: str) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.store.lanes.library.run, gate)
        await gate.begun()
        assert "0.05" in refused(await ask(service, path), 504)
        gate.open()


@contextmanager
def held_up(monkeypatch: pytest.MonkeyPatch, gate: Gate, turn: int) -> Iterator[None]:
    """Let the `turn`-th block of a dataset pass the gate."""
    read = Dataset.read
    reads = 0

    def slow(self: Dataset, *arguments: Any, **options: Any) -> Any:
        nonlocal reads
        reads += 1
        if reads == turn:
            gate()
        return read(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "read", slow)
        yield


@limited(read_timeout_seconds=0.2)
@pytest.mark.parametrize("block", [1, 2])
@pytest.mark.parametrize("path", ["values", "chunked"])
async def test_statistics_that_take_too_long(
    service: H5App, monkeypatch: pytest.MonkeyPatch, gate: Gate, path: str, block: int
) -> None:
    with held_up(monkeypatch, gate, block):
        assert "0.2" in refused(await ask(service, "/stats", path=path), 504)
    await _usable_again(service, gate)


@limited(read_timeout_seconds=0.2)
async def test_a_first_block_that_takes_too_long(
    service: H5App, monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    with held_up(monkeypatch, gate, 1):
        assert "0.2" in refused(await ask(service, "/data", path="chunked"), 504)
    await _usable_again(service, gate)


@limited(read_timeout_seconds=1.0)
@pytest.mark.parametrize("path", ["values", "chunked"])
async def test_a_later_block_that_takes_too_long(
    service: H5App, monkeypatch: pytest.MonkeyPatch, gate: Gate, path: str
) -> None:
    with held_up(monkeypatch, gate, 2), pytest.raises(ReadTimeout):
        await ask(service, "/data", path=path, format="bin")
    await _usable_again(service, gate)


async def _usable_again(service: H5App, gate: Gate) -> None:
    assert not any(file.holders for file in service.store.pool.files.values())
    gate.open()
    for lane in (service.store.lanes.library, service.store.lanes.decode):
        await lane.run(int, patient=True)
    for path in ("values", "chunked"):
        answer = await ask(service, "/data", path=path, format="bin")
        assert answer.body == VALUES.tobytes()
    assert not any(file.holders for file in service.store.pool.files.values())


# Open files


@pytest.fixture
def most_open(monkeypatch: pytest.MonkeyPatch, root: Path) -> Callable[[], int]:
    """How many files of the directory were open at once, at most, so far."""
    most = 0
    opened = FilePool.open_file

    def noted(self: FilePool, place: Any) -> Any:
        nonlocal most
        file = opened(self, place)
        most = max(most, len(set(servers.descriptors_below(root))))
        return file

    monkeypatch.setattr(FilePool, "open_file", noted)
    return lambda: most


@limited(max_open_files=3)
@pytest.mark.slow_on_trio
async def test_never_more_open_files_than_allowed(
    service: H5App, most_open: Callable[[], int]
) -> None:
    async def ask_about(number: int) -> None:
        for path in ("/meta", "/data", "/stats"):
            wanted = {"path": "values", "selection": ":3"} if path != "/meta" else {}
            answer = await ask(service, path, f"{number % FILES}.h5", **wanted)
            assert answer.status in {200, 503}
            statuses.append(answer.status)

    statuses: list[int] = []
    async with anyio.create_task_group() as tasks:
        for number in range(10 * FILES):
            tasks.start_soon(ask_about, number)
    assert 200 in statuses
    assert most_open() == len(service.store.pool) == 3
    answer = await ask(service, "/data", "virtual.h5", path="values", format="bin")
    assert answer.body == VALUES.tobytes() * FILES
    assert most_open() == 3


@limited(max_open_files=2)
async def test_all_files_that_may_be_open_are_in_use(service: H5App) -> None:
    begun = [anyio.Event(), anyio.Event()]
    go_on = anyio.Event()
    streamed = [
        http("/data", query_string=b"file=%d.h5&path=chunked&format=bin" % number)
        for number in range(2)
    ]

    async def stall(number: int) -> None:
        async def send(message: Any) -> None:
            await streamed[number].send(message)
            if len(streamed[number].sent) == 2:
                begun[number].set()
                await go_on.wait()

        await service(streamed[number].scope, streamed[number].receive, send)

    with anyio.fail_after(servers.PATIENCE):
        async with anyio.create_task_group() as tasks:
            for number in range(2):
                tasks.start_soon(stall, number)
                await begun[number].wait()
            message = refused(await ask(service, "/meta", "2.h5"), 503)
            assert "2 files are open" in message
            # Neither a broken link nor a fill value: it is not the file's fault.
            refused(await ask(service, "/meta", "1.h5"), 503)
            assert (await ask(service, "/meta", "0.h5", path="next")).status == 200
            assert (await ask(service, "/data", "1.h5", path="values")).status == 200
            go_on.set()
    assert [each.body for each in streamed] == [VALUES.tobytes()] * 2
    assert (await ask(service, "/meta", "2.h5", path="/values")).status == 200


@limited(max_open_files=1)
async def test_a_link_that_needs_one_file_more(service: H5App) -> None:
    refused(await ask(service, "/data", path="next"), 503)
    refused(await ask(service, "/data", "virtual.h5", path="values"), 503)
    assert (await ask(service, "/data", path="values")).status == 200


# Answers in memory


async def test_an_answer_is_made_once(service: H5App, made: Made) -> None:
    first = await ask(service, "/meta")
    for _ in range(3):
        assert (await ask(service, "/meta")).body == first.body
    assert made.times == 1


@limited(answer_cache_bytes=0)
async def test_no_answer_is_kept(service: H5App, made: Made) -> None:
    for _ in range(3):
        assert (await ask(service, "/meta")).status == 200
    assert made.times == 3


@limited(answer_cache_bytes=20_000)
async def test_answers_in_memory_are_bounded(service: H5App, made: Made) -> None:
    kept = service.store.answers.kept
    for number in range(3 * FILES):
        # Leading slashes mean nothing to the path, and each makes another request of it.
        path = "/" * (1 + number // FILES)
        assert (await ask(service, "/attr", f"{number % FILES}.h5", path=path)).status == 200
        assert 0 < kept.bytes <= 20_000
    assert made.times == 3 * FILES
    await ask(service, "/attr", f"{FILES - 1}.h5", path="///")
    assert made.times == 3 * FILES  # the last one is still there
    await ask(service, "/attr", "0.h5", path="/")
    assert made.times == 3 * FILES + 1  # the first one is not


async def _many(service: H5App, gate: Gate, **query: str) -> list[Exchange]:
    """Fifty who ask the same at the same time, while the library lane is held up."""
    answers: list[Exchange] = []

    async def one() -> None:
        answers.append(await ask(service, "/meta", **query))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.store.lanes.library.run, gate)
        await gate.begun()
        for _ in range(50):
            tasks.start_soon(one)
        await anyio.wait_all_tasks_blocked()
        gate.open()
    return answers


async def test_many_who_ask_the_same_at_once(service: H5App, made: Made, gate: Gate) -> None:
    answers = await _many(service, gate)
    assert [each.status for each in answers] == [200] * 50
    assert len({each.body for each in answers}) == 1
    assert made.times == 1


async def test_many_who_ask_for_what_is_not_there(service: H5App, made: Made, gate: Gate) -> None:
    answers = await _many(service, gate, path="nothing")
    assert [each.status for each in answers] == [404] * 50


async def test_the_one_who_makes_the_answer_goes_away(
    service: H5App, made: Made, gate: Gate
) -> None:
    """The others are not left waiting."""

    def stick_once() -> None:
        made.before = int
        gate()

    made.before = stick_once
    others = [http("/meta", query_string=b"file=0.h5") for _ in range(10)]
    with anyio.fail_after(servers.PATIENCE):
        async with anyio.create_task_group() as tasks:
            async with anyio.create_task_group() as first:
                first.start_soon(ask, service, "/meta")
                await gate.begun()
                for each in others:
                    tasks.start_soon(run, service, each)
                await anyio.wait_all_tasks_blocked()
                first.cancel_scope.cancel()
            gate.open()
    assert [each.status for each in others] == [200] * 10
