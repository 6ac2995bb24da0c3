"""Answers at hand, asked for again: as before, from the event loop, until the file changes."""

import io
import math
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from asgihive import H5App, H5Settings
from asgihive.concurrency import Lane
from asgihive.hdf5 import sandbox
from tests.zoo.client import client

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="not Linux"),
]

VALUES = np.arange(100, dtype="<i4")
# Frames that are a chunk each, and too large to be copied where nothing may take long; the one
# that sticks out of the dataset is none.
FRAMES = np.arange(3 * 250 * 250, dtype="<i4").reshape(3, 250, 250)
BANDS = np.arange(70 * 1000, dtype="<i4").reshape(70, 1000)
QUERIES: dict[str, tuple[dict[str, str], Any]] = {
    "bin": ({"format": "bin"}, VALUES),
    "npy": ({"format": "npy"}, VALUES),
    "rows": ({"format": "bin", "selection": "10:20"}, VALUES[10:20]),
    "flat": ({"format": "npy", "flatten": "true", "selection": "3"}, VALUES[3]),
    "frame": ({"path": "frames", "format": "bin", "selection": "1"}, FRAMES[1].ravel()),
    "frame_npy": ({"path": "frames", "format": "npy", "selection": "1:2"}, FRAMES[1:2]),
    "frame_flat": (
        {"path": "frames", "format": "npy", "flatten": "true", "selection": "2"},
        FRAMES[2].ravel(),
    ),
    "frame_sum": ({"path": "summed", "format": "bin", "selection": "1"}, FRAMES[1].ravel()),
    "row_of_frame": ({"path": "frames", "format": "bin", "selection": "1,7"}, FRAMES[1, 7]),
    "band": ({"path": "bands", "format": "bin", "selection": "20:40"}, BANDS[20:40].ravel()),
    "row_of_edge": ({"path": "bands", "format": "npy", "selection": "65"}, BANDS[65]),
}


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is busy with tests, a `stat` may take long."""
    monkeypatch.setattr(sandbox, "SLOW_STAT_SECONDS", math.inf)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write(tmp_path / "x.h5", VALUES)
    return tmp_path / "x.h5"


def made(values: Any) -> bytes:
    """A file with these values, and frames that begin as they do."""
    content = io.BytesIO()
    with h5py.File(content, "w") as opened:
        opened["data"] = values
        frames = FRAMES.copy()
        frames[1, 0, :50] = values[:50]
        chunked: dict[str, Any] = {"compression": "gzip", "shuffle": True}
        opened.create_dataset("frames", data=frames, chunks=(1, 250, 250), **chunked)
        chunked["fletcher32"] = True
        opened.create_dataset("summed", data=frames, chunks=(1, 250, 250), **chunked)
        opened.create_dataset("bands", data=BANDS, chunks=(20, 1000), **chunked)
    return content.getvalue()


FRAMES[1, 0, :50] = VALUES[:50]


def write(path: Path, values: Any) -> None:
    """Over what is there, as another process does."""
    path.write_bytes(made(values))


@pytest.fixture
def app(file: Path) -> H5App:
    # Older than the clock's tick: a change will show.
    os.utime(file, (1, 1))
    return H5App(file.parent)


async def ask(app: H5App, name: str = "bin", method: str = "GET", **headers: str) -> Any:
    params = {"file": "x.h5", "path": "data", **QUERIES[name][0]}
    async with client(app) as asks:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return await asks.request(method, "/data", params=params, headers=named)


def values_of(name: str, content: bytes) -> Any:
    if QUERIES[name][0]["format"] == "npy":
        return np.load(io.BytesIO(content))
    return np.frombuffer(content, "<i4")


@pytest.mark.parametrize("name", QUERIES)
@pytest.mark.slow_on_trio
async def test_the_same_again_without_a_thread(
    app: H5App, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(lane: Lane, *_: Any, **__: Any) -> Any:
        raise AssertionError(lane.name)

    first, second = await ask(app, name), await ask(app, name)
    monkeypatch.setattr(Lane, "run", refuse)
    third, head = await ask(app, name), await ask(app, name, "HEAD")
    for answer in (first, second, third):
        assert answer.status_code == 200
        np.testing.assert_array_equal(values_of(name, answer.content), QUERIES[name][1])
    untimed = [
        {key: value for key, value in answer.headers.items() if key != "server-timing"}
        for answer in (first, second, third, head)
    ]
    assert untimed == [untimed[0]] * 4
    assert head.content == b""


async def test_conditions_and_ranges_are_seen_to(app: H5App) -> None:
    whole = [await ask(app) for _ in range(3)][-1]
    tag = whole.headers["etag"]
    assert (await ask(app, if_none_match=tag)).status_code == 304
    part = await ask(app, range="bytes=8-15")
    assert (part.status_code, part.content) == (206, VALUES[2:4].tobytes())
    assert (await ask(app, if_match='"other"')).status_code == 412


@pytest.mark.parametrize("change", ["rewrite", "replace", "remove"])
@pytest.mark.slow_on_trio
async def test_a_changed_chunk_is_read_anew(app: H5App, file: Path, change: str) -> None:
    for _ in range(3):
        assert (await ask(app, "frame")).content == FRAMES[1].tobytes()
    new = FRAMES[1].copy()
    new[0, :50] = VALUES[::-1][:50]
    if change == "remove":
        os.remove(file)
        assert (await ask(app, "frame")).status_code == 404
        return
    other = file.with_suffix(".new") if change == "replace" else file
    write(other, VALUES[::-1].copy())
    os.replace(other, file)
    for _ in range(3):
        assert (await ask(app, "frame")).content == new.tobytes()


async def test_a_chunk_that_is_kept_no_longer_is_decoded_again(app: H5App) -> None:
    chunks = app.store.pool.chunks
    for _ in range(3):
        await ask(app, "frame")
    assert chunks.misses == 1
    [file] = app.store.pool.files.values()
    chunks.forget(file)
    for _ in range(3):
        assert (await ask(app, "frame")).content == FRAMES[1].tobytes()
    assert chunks.misses == 2


async def test_chunks_that_are_never_kept(file: Path) -> None:
    os.utime(file, (1, 1))
    app = H5App(file.parent, H5Settings(chunk_cache_bytes=0))
    for _ in range(3):
        assert (await ask(app, "frame")).content == FRAMES[1].tobytes()


@pytest.mark.parametrize("change", ["rewrite", "replace", "grow", "remove"])
async def test_a_changed_file_is_read_anew(app: H5App, file: Path, change: str) -> None:
    for _ in range(3):
        assert (await ask(app)).content == VALUES.tobytes()
    new = VALUES[::-1].copy()
    if change == "remove":
        os.remove(file)
    elif change == "replace":
        write(file.with_suffix(".new"), new)
        os.replace(file.with_suffix(".new"), file)
    elif change == "grow":
        new = np.arange(200, dtype="<i4")
        write(file, new)
    else:
        write(file, new)
    answer = await ask(app)
    if change == "remove":
        assert answer.status_code == 404
    else:
        assert (answer.status_code, answer.content) == (200, new.tobytes())


async def test_a_closed_file_is_opened_again(app: H5App) -> None:
    for _ in range(3):
        await ask(app)
    await app.store.lanes.library.run(app.store.pool.close)
    for _ in range(2):
        assert (await ask(app)).content == VALUES.tobytes()


async def test_what_another_writes_over_while_it_is_read_is_not_sent(
    app: H5App, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        await ask(app)
    read = os.preadv
    new = VALUES[::-1].copy()
    content = made(new)

    def writing(*arguments: Any) -> Any:
        monkeypatch.undo()
        done = read(*arguments)
        os.pwrite(descriptor, content, 0)
        return done

    descriptor = os.open(file, os.O_WRONLY)
    try:
        monkeypatch.setattr(os, "preadv", writing)
        assert (await ask(app)).content == new.tobytes()
    finally:
        os.close(descriptor)


async def test_nothing_is_remembered_where_that_is_switched_off(file: Path) -> None:
    os.utime(file, (1, 1))
    app = H5App(file.parent, H5Settings(answer_cache_bytes=0))
    for _ in range(3):
        assert (await ask(app)).content == VALUES.tobytes()
    assert app.store.answers.bytes == 0
