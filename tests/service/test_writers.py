"""Files that change while they are read: an answer is wholly old, wholly new, or an error."""

import functools
import itertools
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import h5py
import httpx
import numpy as np
import pytest

from asgihive.asgi.gate import BrokenAnswerFilter, shorten_broken_answers
from asgihive.concurrency import Portions
from asgihive.errors import FileChanged
from asgihive.hdf5.datasets import Dataset
from asgihive.hdf5.directory import WholeFile
from asgihive.hdf5.open_file import Unsettled
from asgihive.hdf5.pool import FilePool
from asgihive.service import H5App, store
from asgihive.settings import H5Settings
from tests.service import servers, versions
from tests.service.bounds import bounded
from tests.service.versions import REQUESTS, ask, versions_of

ASKERS = 100
ERRORS = {404, 422, 503}

STREAMED = ("bin chunked", "bin contiguous")
MODIFIED = ("stats contiguous", "json", "bin one block", "bin contiguous")

BLOCK_BYTES = 2 * versions.ROW  # five blocks of an answer

# Longer than the clock's tick, a writer that pauses leaves a file whose mixture no reader can
# see. In seconds.
PAUSE = 0.015


@functools.cache
def content(version: int, padding: int = 0) -> bytes:
    return versions.content(version, padding)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    root.mkdir()
    file = root / "x.h5"
    file.write_bytes(content(1))
    return file


@pytest.fixture
def app(file: Path) -> H5App:
    return bounded(file.parent, read_ahead_bytes=BLOCK_BYTES)


@pytest.fixture(scope="module")
def writer() -> Iterator[versions.Writer]:
    with versions.writer() as writer:
        yield writer


# A hundred askers and a writer in a process of its own


class Askers:
    """Ask everything again and again, and judge the answers."""

    def __init__(self, app: H5App, requests: tuple[str, ...]) -> None:
        self.app = app
        self.requests = requests
        self.outcomes: Counter[str] = Counter()
        self.mixtures: list[tuple[str, float, float, set[int]]] = []
        self.stopping = False

    async def __call__(self, number: int) -> None:
        for request in itertools.islice(itertools.cycle(self.requests), number, None):
            if self.stopping:
                return
            await self._ask(request)

    async def _ask(self, request: str) -> None:
        path, query = REQUESTS[request]
        begin = anyio.current_time()
        try:
            answer = await ask(self.app, path, **query)
        except FileChanged:
            self.outcomes["aborted"] += 1
            return
        self.outcomes[str(answer.status)] += 1
        assert answer.complete
        if answer.status != 200:
            assert answer.status in ERRORS, answer.body
            assert isinstance(answer.message, str)
            return
        seen = versions.seen(request.partition(" ")[0], answer.body)
        if len(seen) != 1:
            self.mixtures.append((request, begin, anyio.current_time(), seen))


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize(
    ("action", "padding"),
    [
        *((change, 0) for change in versions.CHANGES),
        ("overwrite", 1000),
        ("write", 0),
        ("modify", 0),
    ],
)
async def test_a_hundred_askers_and_one_writer(
    app: H5App, file: Path, writer: versions.Writer, action: str, padding: int
) -> None:
    askers = Askers(app, MODIFIED if action == "modify" else tuple(REQUESTS))
    paused: list[tuple[float, float]] = []
    requests = itertools.cycle(askers.requests)
    with anyio.fail_after(4 * servers.PATIENCE):
        async with anyio.create_task_group() as tasks:
            for number in range(ASKERS):
                tasks.start_soon(askers, number)
            for version in range(2, 8):
                begin = anyio.current_time()
                took = await anyio.to_thread.run_sync(
                    writer, action, file, version, padding * version
                )
                if took > PAUSE:
                    paused.append((begin, anyio.current_time()))
                for request in itertools.islice(requests, 2):
                    assert await versions_of(app, request) == {version}, request
            askers.stopping = True
    unexcused = [
        (request, seen)
        for request, begin, end, seen in askers.mixtures
        if not any(begin < last and end > first for first, last in paused)
    ]
    assert not unexcused, (askers.outcomes, paused)
    assert askers.outcomes["200"] > ASKERS
    assert not any(file.holders for file in app.store.pool.files.values())


# Changes at the very point


def disturbed(
    wrapped: Callable[..., Any], happen: Callable[[], None], *, before: int = 0, after: int = 0
) -> Callable[..., Any]:
    """`wrapped`, and `happen` right before or after its call of that number."""
    calls = itertools.count(1)

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        number = next(calls)
        if number == before:
            happen()
        try:
            result = wrapped(*arguments, **options)
        except Unsettled:  # on a quick machine the file was written just now: it is tried again
            calls = itertools.count(number)
            raise
        if number == after:
            happen()
        return result

    return call


@dataclass(frozen=True)
class Change:
    """A way in which the file becomes version 2; `old_stays` for a request that has it open."""

    happen: Callable[[], None]
    old_stays: bool


@pytest.fixture(params=[*((name, 0) for name in versions.CHANGES), ("overwrite", 5000)])
def change(request: pytest.FixtureRequest, file: Path) -> Change:
    name, padding = request.param
    happen = functools.partial(versions.CHANGES[name], file, content(2, padding))
    return Change(happen, old_stays=name in {"replace", "delete"})


ONE_BLOCK = ("json", "bin one block")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("point", "request_name"),
    [
        *(((FilePool, "open_file"), name) for name in REQUESTS),
        *(((Dataset, "read_unchecked"), name) for name in (*ONE_BLOCK, *STREAMED)),
    ],
)
@pytest.mark.slow_on_trio
async def test_a_change_after_opening_and_after_reading(
    app: H5App,
    change: Change,
    monkeypatch: pytest.MonkeyPatch,
    point: tuple[type, str],
    request_name: str,
) -> None:
    monkeypatch.setattr(*point, disturbed(getattr(*point), change.happen, after=1))
    assert await versions_of(app, request_name) == {1 if change.old_stays else 2}
    assert await versions_of(app, request_name) == {2}


@pytest.fixture
def between_blocks(change: Change, monkeypatch: pytest.MonkeyPatch) -> Change:
    """A change before the second block is read."""
    monkeypatch.setattr(Dataset, "read", disturbed(Dataset.read, change.happen, before=2))
    return change


@pytest.mark.anyio
@pytest.mark.parametrize("request_name", STREAMED)
@pytest.mark.slow_on_trio
async def test_a_change_between_two_blocks(
    app: H5App, between_blocks: Change, request_name: str
) -> None:
    if between_blocks.old_stays:
        assert await versions_of(app, request_name) == {1}
    else:
        with pytest.raises(FileChanged):
            await versions_of(app, request_name)
    assert await versions_of(app, request_name) == {2}
    assert not any(file.holders for file in app.store.pool.files.values())


@pytest.mark.parametrize("format_", ["bin", "json"])
@pytest.mark.parametrize("server", servers.SERVERS)
def test_a_server_does_not_end_such_an_answer_as_if_it_were_whole(
    app: H5App, file: Path, monkeypatch: pytest.MonkeyPatch, server: str, format_: str
) -> None:
    """Content-Length is not reached, or the last chunk is missing (RFC 9112, section 8)."""
    happen = functools.partial(versions.overwrite, file, content(2))
    monkeypatch.setattr(Dataset, "read", disturbed(Dataset.read, happen, before=2))
    wanted = {"file": "x.h5", "path": "chunked", "format": format_}
    with servers.serving(app, server) as url, servers.client(url) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            client.get("/data", params=wanted)
        answer = client.get("/data", params=wanted)
        assert versions.seen(format_, answer.content) == {2}


def moded(file: Path) -> None:
    file.chmod(0o640)


def owned(file: Path) -> None:
    os.chown(file, os.getuid(), os.getgid())


def linked(file: Path) -> None:
    file.with_name("hard.h5").hardlink_to(file)


def renamed(file: Path) -> None:
    file.rename(file.with_name("renamed.h5"))


@pytest.mark.anyio
@pytest.mark.parametrize("name", [moded, owned, linked, renamed])
@pytest.mark.parametrize("request_name", STREAMED)
async def test_names_owners_and_modes_break_no_answer(
    app: H5App,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: Callable[[Path], None],
    request_name: str,
) -> None:
    happen = functools.partial(name, file)
    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "read", disturbed(Dataset.read, happen, before=2))
        assert await versions_of(app, request_name) == {1}
    if name is not renamed:
        assert await versions_of(app, request_name) == {1}


@pytest.mark.parametrize("name", [moded, owned, linked, renamed])
@pytest.mark.parametrize("server", ["uvicorn-h11", "hypercorn-trio"])
def test_nor_the_download_of_a_file(
    app: H5App,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    server: str,
    name: Callable[[Path], None],
) -> None:
    """Also while others ask for the same file."""
    with h5py.File(file, "a") as more:
        more["more"] = np.zeros(3 << 20, "u1")
    whole = file.read_bytes()
    monkeypatch.setattr(
        WholeFile,
        "read",
        disturbed(WholeFile.read, functools.partial(name, file), before=2),
    )
    with servers.serving(app, server) as url, servers.client(url) as client:
        assert client.get("/file", params={"file": "x.h5"}).content == whole


@pytest.mark.parametrize("server", servers.SERVERS)
def test_an_answer_that_is_broken_off_is_one_line_in_the_log(
    app: H5App,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    server: str,
) -> None:
    happen = functools.partial(versions.overwrite, file, content(2))
    monkeypatch.setattr(Dataset, "read", disturbed(Dataset.read, happen, before=2))
    wanted = {"file": "x.h5", "path": "chunked", "format": "bin"}
    hypercorn_log = logging.getLogger("hypercorn.error")
    with servers.serving(app, server) as url, servers.client(url) as client:
        # Hypercorn keeps its records from the root logger.
        hypercorn_log.addHandler(caplog.handler)
        try:
            with caplog.at_level(logging.WARNING), pytest.raises(httpx.RemoteProtocolError):
                client.get("/data", params=wanted)
        finally:
            hypercorn_log.removeHandler(caplog.handler)
    records = {id(each): each for each in caplog.records}.values()
    (said,) = (each for each in records if each.levelno >= logging.WARNING)
    assert said.levelno == logging.WARNING
    assert said.exc_info is None
    assert "broken off: The file changed while it was read, ask again: x.h5" in said.getMessage()
    assert "\n" not in said.getMessage()


def test_faults_of_the_application_keep_their_traceback(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("uvicorn.error")
    shorten_broken_answers()
    shorten_broken_answers()
    assert sum(isinstance(each, BrokenAnswerFilter) for each in log.filters) == 1
    for error, is_short in (
        (KeyError("a bug"), False),
        (FileChanged("x.h5"), True),
        (ExceptionGroup("one", [FileChanged("x.h5")]), True),
        (ExceptionGroup("two", [FileChanged("x.h5"), KeyError("a bug")]), False),
    ):
        caplog.clear()
        log.error("Exception in ASGI application", exc_info=error)
        (record,) = caplog.records
        assert (record.exc_info is None) == is_short
        assert (record.levelno == logging.WARNING) == is_short
    caplog.clear()
    with caplog.at_level(logging.ERROR, "uvicorn.error"):
        log.error("Exception in ASGI application", exc_info=FileChanged("x.h5"))
    assert not caplog.records


@pytest.mark.anyio
@pytest.mark.parametrize("request_name", ["stats chunked", "stats contiguous"])
@pytest.mark.slow_on_trio
async def test_a_change_between_two_blocks_of_statistics(
    app: H5App, between_blocks: Change, request_name: str
) -> None:
    path, query = REQUESTS[request_name]
    answer = await ask(app, path, **query)
    if answer.status == 503:
        assert not between_blocks.old_stays
        assert "retry-after" in answer.headers
    else:
        assert len(versions.seen("stats", answer.body)) == 1
    assert await versions_of(app, request_name) == {2}


@pytest.mark.anyio
@pytest.mark.parametrize("request_name", ["meta", "attr", "paths"])
@pytest.mark.slow_on_trio
async def test_a_change_before_an_answer_is_kept(
    app: H5App, change: Change, monkeypatch: pytest.MonkeyPatch, request_name: str
) -> None:
    checked = store.check_portions

    def then_changed(*arguments: Any) -> Portions[Any]:
        made = yield from checked(*arguments)
        monkeypatch.undo()
        change.happen()
        return made

    monkeypatch.setattr(store, "check_portions", then_changed)
    assert await versions_of(app, request_name) == {1}
    assert await versions_of(app, request_name) == {2}


@pytest.mark.anyio
async def test_a_file_that_does_not_stop_changing(
    app: H5App, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = itertools.cycle([content(1), content(2)])
    read = Dataset.read_unchecked

    def disturbed(self: Dataset, *arguments: Any, **options: Any) -> Any:
        values = read(self, *arguments, **options)
        versions.overwrite(file, next(contents))
        return values

    monkeypatch.setattr(Dataset, "read_unchecked", disturbed)
    answer = await ask(app, "/data", path="small")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert "changed while it was read" in answer.message


@pytest.mark.anyio
@pytest.mark.parametrize("request_name", REQUESTS)
@pytest.mark.slow_on_trio
async def test_every_change_shows_at_once(app: H5App, file: Path, request_name: str) -> None:
    changes = itertools.product(range(2), versions.CHANGES.values())
    for version, (_, happen) in zip(itertools.cycle([2, 3]), changes, strict=False):
        happen(file, content(version))
        assert await versions_of(app, request_name) == {version}
    versions.remove(file)
    path, query = REQUESTS[request_name]
    assert (await ask(app, path, **query)).status == 404
    versions.overwrite(file, b"something else")
    assert (await ask(app, path, **query)).status == 422


# Answers that are made of several files


def _linking(root: Path) -> None:
    with h5py.File(root / "links.h5", "w") as out:
        out["link"] = h5py.ExternalLink("x.h5", "/small")
        layout = h5py.VirtualLayout((3, 1000), "<i4")
        for number in range(3):
            layout[number] = h5py.VirtualSource("x.h5", "small", (1000,))
        out.create_virtual_dataset("virtual", layout, fillvalue=-1)


async def _linked(app: H5App) -> tuple[Any, ...]:
    """What links and virtual sources that lead to `x.h5` show."""
    meta = json.loads((await ask(app, "/meta", file="links.h5")).body)
    kinds = {each["name"]: each["kind"] for each in meta["children"]}
    one = json.loads((await ask(app, "/meta", file="links.h5", path="link")).body)
    assert one["kind"] == kinds["link"]
    target = await ask(app, "/data", file="links.h5", path="link")
    mapped = await ask(app, "/data", file="links.h5", path="virtual")
    shown = set(json.loads(target.body)) if target.status == 200 else target.status
    if mapped.status != 200:
        return kinds["link"], shown, mapped.status
    values = np.array(json.loads(mapped.body))
    assert values.shape == (3, 1000)
    found = set(np.unique(values).tolist())
    assert mapped.headers.get("missing-sources") == ("1 of 1; first=x.h5" if -1 in found else None)
    return kinds["link"], shown, found


@pytest.mark.anyio
async def test_targets_that_appear_change_and_disappear(app: H5App, file: Path) -> None:
    _linking(file.parent)
    for version, happen in enumerate(versions.CHANGES.values(), 2):
        happen(file, content(version))
        for _ in range(2):
            assert await _linked(app) == ("dataset", {version}, {version})
        versions.remove(file)
        for _ in range(2):
            assert await _linked(app) == ("external_link", 404, {-1})
        versions.replace(file, b"something else")
        for _ in range(2):
            assert await _linked(app) == ("external_link", 404, 404)


@pytest.mark.anyio
async def test_a_target_that_appears_after_it_was_missed(
    app: H5App, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that did not find it must not be kept as one that knew it."""
    _linking(file.parent)
    await ask(app, "/paths", file="links.h5")  # so that only the target is still to be opened
    versions.remove(file)
    acquire = FilePool.acquire

    def missed(self: FilePool, *given: Any) -> Any:
        try:
            return acquire(self, *given)
        finally:
            if not file.exists():
                versions.replace(file, content(2))

    monkeypatch.setattr(FilePool, "acquire", missed)
    wanted = {"file": "links.h5", "path": "link"}
    assert json.loads((await ask(app, "/meta", **wanted)).body)["kind"] == "external_link"
    assert json.loads((await ask(app, "/meta", **wanted)).body)["kind"] == "dataset"


@pytest.mark.anyio
async def test_a_source_that_changes_between_two_rows(
    app: H5App, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _linking(file.parent)
    happen = functools.partial(versions.overwrite, file, content(2))
    # The first read is that of the virtual dataset itself.
    monkeypatch.setattr(Dataset, "read", disturbed(Dataset.read, happen, before=3))
    assert await _linked(app) == ("dataset", {1}, {2})


# What cannot be kept


@pytest.mark.anyio
async def test_changes_show_without_a_cache(file: Path) -> None:
    app = await anyio.to_thread.run_sync(
        H5App, file.parent, H5Settings(answer_cache_bytes=0, chunk_cache_bytes=0)
    )
    for version in (2, 3):
        versions.overwrite(file, content(version))
        for request in REQUESTS:
            assert await versions_of(app, request) == {version}
