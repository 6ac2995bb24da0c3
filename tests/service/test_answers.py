"""Where files are looked at: on the event loop while that is quick, else in threads."""

import os
import threading
from pathlib import Path
from typing import Any

import h5py
import httpx
import numpy as np
import pytest

from asgihive import H5App, H5Settings
from asgihive.concurrency import run_in_worker
from asgihive.errors import NeedsThread
from asgihive.hdf5 import sandbox
from asgihive.hdf5.sandbox import StatGuard
from asgihive.service.requests import Version
from asgihive.service.store import Answer, AnswerCache
from tests.zoo.client import client

pytestmark = pytest.mark.anyio

SLOW_SECONDS = 0.03
VALUES = np.arange(100, dtype="<i4")
FRAMES = np.arange(2 * 250 * 250, dtype="<i4").reshape(2, 250, 250)

# Each way to an answer that looks at a file without a thread.
KEPT = {
    "document": "/meta?file=x.h5",
    "attributes": "/attr?file=x.h5&path=/data",
    "bytes in the file": "/data?file=x.h5&path=/data&format=bin",
    "bytes of a chunk": "/data?file=x.h5&path=/frames&format=bin&selection=1",
    "values at hand": "/data?file=x.h5&path=/data&selection=:{}",
    "values of a chunk at hand": "/data?file=x.h5&path=/frames&selection=1,:{}",
    "statistics": "/stats?file=x.h5&path=/data&selection=:{}",
}


class Clock:
    """Counts the questions about files on the thread of the event loop, and says what they take."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.took = 0.0
        self.asked = 0
        self._now = 0.0
        self._loop = threading.get_ident()
        for name in ("stat", "fstat"):
            monkeypatch.setattr(os, name, self._counted(getattr(os, name)))
        monkeypatch.setattr(sandbox, "perf_counter", lambda: self._now)

    def _counted(self, function: Any) -> Any:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.asked += threading.get_ident() == self._loop
            self._now += self.took
            return function(*arguments, **options)

        return counted


@pytest.fixture
def app(tmp_path: Path) -> H5App:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["data"] = VALUES
        file["data"].attrs["units"] = "counts"
        file.create_dataset("frames", data=FRAMES, chunks=(1, 250, 250), compression="gzip")
    # Older than the clock's tick: a change would show.
    os.utime(tmp_path / "x.h5", (1, 1))
    return H5App(tmp_path)


async def ask(http: httpx.AsyncClient, number: int) -> list[bytes]:
    """Ask for each answer, for one that changes also by a condition; some are new each time."""
    bodies = []
    for url in KEPT.values():
        answer = await http.get(url.format(number))
        assert answer.status_code == 200, answer.text
        bodies.append(answer.content)
    tag = (await http.get(KEPT["document"])).headers["etag"]
    assert (await http.get(KEPT["document"], headers={"if-none-match": tag})).status_code == 304
    return bodies


async def test_no_place_asks_a_slow_file_system_on_the_event_loop(
    app: H5App, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with client(app) as http:
        clock = Clock(monkeypatch)
        first = [await ask(http, 3) for _ in range(3)]
        clock.asked = 0
        assert await ask(http, 3) == first[0]
        if hasattr(os, "RWF_NOWAIT"):
            assert clock.asked >= len(KEPT)  # here, while it is quick
        clock.took, clock.asked = SLOW_SECONDS, 0
        assert await ask(http, 3) == first[0]
        assert clock.asked == 1  # which told
        clock.asked = 0
        for number in range(4, 8):
            await ask(http, number)
        assert clock.asked == 0


async def test_a_file_system_that_is_quick_again_is_trusted_again(
    app: H5App, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with client(app) as http:
        clock = Clock(monkeypatch)
        await ask(http, 3)
        clock.took = SLOW_SECONDS
        await http.get(KEPT["document"])
        clock.asked, clock.took = 0, 0.0
        for _ in range(sandbox.QUICK_AGAIN):
            await http.get(KEPT["document"])
        assert clock.asked == 0
        await http.get(KEPT["document"])
        assert clock.asked == 1


@pytest.mark.parametrize("path", ["", "absent"])
async def test_a_slow_answer_in_a_thread_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """A thread waits for other threads, too."""
    clock = Clock(monkeypatch)
    guard = StatGuard()
    clock.took = SLOW_SECONDS
    await run_in_worker(guard.find_identity, str(tmp_path / path))
    assert clock.asked == 0
    assert (guard.find_identity(str(tmp_path / path)) is None) == bool(path)
    with pytest.raises(NeedsThread):
        guard.find_identity(str(tmp_path / path))


@pytest.mark.slow_on_trio
async def test_the_bound_of_the_cache_is_one(app: H5App, tmp_path: Path) -> None:
    most = 50_000
    app = H5App(tmp_path, H5Settings(answer_cache_bytes=most))
    async with client(app) as http:
        for number in range(1, 100):
            await http.get(KEPT["values at hand"].format(number))
            await http.get(f"{KEPT['bytes in the file']}&selection=:{number}")
            await http.get(f"/meta?file=x.h5&path={'/' * number}")
            assert 0 < app.store.answers.bytes <= most


async def test_nothing_is_kept_where_that_is_switched_off(app: H5App, tmp_path: Path) -> None:
    app = H5App(tmp_path, H5Settings(answer_cache_bytes=0))
    async with client(app) as http:
        first, second = await ask(http, 3), await ask(http, 3)
    assert first == second
    assert app.store.answers.bytes == 0


async def test_what_has_no_version_is_not_kept(app: H5App) -> None:
    cache: AnswerCache = app.store.answers
    cache.keep(("key",), Answer(Version()))
    assert await cache.find(("key",)) is None
