"""Ranges of `bin` and `npy` answers: any of any selection is the slice of the whole body."""

import itertools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import anyio
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgihive.asgi.request_fields import format_http_date
from asgihive.hdf5.filters.pipeline import Pipeline
from asgihive.service import H5App
from tests.efforts import at_most
from tests.hdf5.strategies import selections
from tests.service.asking import ask
from tests.service.bounds import bounded
from tests.service.servers import PATIENCE, client, serving

pytestmark = pytest.mark.anyio

SHAPE = (7, 11, 13)
LONG = (64, 100, 50)
DATASETS = ("contiguous", "chunked", "compact", "virtual", "vectors", "scalar", "flags", "words")


def build(root: Path) -> None:
    random = np.random.default_rng(5)
    values = random.integers(-1000, 1000, SHAPE).astype(">i4")
    with h5py.File(root / "x.h5", "w") as file:
        file["contiguous"] = values
        file.create_dataset("chunked", data=values, chunks=(2, 3, 5), compression="gzip")
        compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        compact.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple(SHAPE)
        kind = h5py.h5t.py_create(values.dtype)
        h5py.h5d.create(file.id, b"compact", kind, space, compact).write(
            h5py.h5s.ALL, h5py.h5s.ALL, values
        )
        layout = h5py.VirtualLayout(SHAPE, ">i4")
        for number in range(SHAPE[0]):
            layout[number] = h5py.VirtualSource(".", "chunked", SHAPE)[number]
        file.create_virtual_dataset("virtual", layout)
        vectors = np.dtype((np.float16, (3,)))
        file.create_dataset("vectors", SHAPE[:2], vectors)[...] = values[..., :3]
        file["scalar"] = np.float64(2.5)
        file["flags"] = values > 0
        file["words"] = np.array([b"ab", b"cde", b""])
        file["empty"] = h5py.Empty("<f8")
        long = np.arange(np.prod(LONG), dtype="<u2").reshape(LONG)
        file.create_dataset("long", data=long, chunks=(1, 100, 50), compression=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ranges")
    build(root)
    return root


@pytest.fixture(scope="module")
def app(root: Path) -> Iterator[H5App]:
    """With blocks of a few rows, so that most answers are streamed."""
    app = bounded(root, read_ahead_bytes=1 << 16)
    yield app
    app.store.pool.close()


def of(wanted: str) -> dict[str, str]:
    return {"range": f"bytes={wanted}"}


@st.composite
def requests(draw: st.DrawFn) -> dict[str, str]:
    path = draw(st.sampled_from(DATASETS))
    shape = {"vectors": SHAPE[:2], "scalar": (), "words": (3,)}.get(path, SHAPE)
    request = {"path": path, "selection": draw(selections(shape))}
    request["format"] = draw(st.sampled_from(["bin", "npy"] if path != "words" else ["bin"]))
    if path != "words":
        request["dtype"] = draw(st.sampled_from(["origin", "safe"]))
        request["flatten"] = draw(st.sampled_from(["true", "false"]))
    return request


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=at_most(50))
@given(request=requests(), data=st.data())
@pytest.mark.slow_on_trio
def test_any_range_is_the_slice(
    app: H5App, backend: str, request: dict[str, str], data: st.DataObject
) -> None:
    async def both() -> None:
        whole = await ask(app, "/data", **request)
        assert whole.status == 200, whole.body
        assert whole.headers["accept-ranges"] == "bytes"
        size = len(whole.body)
        first, last = (data.draw(st.integers(0, size + 3)) for _ in range(2))
        wanted = data.draw(st.sampled_from([f"{first}-{last}", f"{first}-", f"-{last}"]))
        part = await ask(app, "/data", of(wanted), **request)
        if wanted.startswith("-"):
            start, stop = size - min(last, size), size
        else:
            start, stop = first, size if wanted.endswith("-") else min(last + 1, size)
        if not wanted.startswith("-") and not wanted.endswith("-") and last < first:
            assert (part.status, part.body) == (200, whole.body)
        elif wanted.startswith("-") and not size and last:
            assert (part.status, part.body) == (200, b"")
        elif start >= size:
            assert part.status == 416
            assert part.headers["content-range"] == f"bytes */{size}"
        else:
            assert part.status == 206, part.body
            assert part.body == whole.body[start:stop]
            assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
            assert part.headers["content-length"] == str(stop - start)
            same = ("etag", "content-type", "content-disposition", "cache-control")
            for name in same:
                assert part.headers.get(name) == whole.headers.get(name)

    anyio.run(both, backend=backend)


@pytest.mark.parametrize("form", ["bin", "npy"])
async def test_long_ranges_are_streamed(app: H5App, form: str) -> None:
    query = {"path": "long", "format": form}
    whole = (await ask(app, "/data", **query)).body
    for start, stop in itertools.combinations((0, 1, 127, 128, 9_999, 400_001, len(whole)), 2):
        part = await ask(app, "/data", of(f"{start}-{stop - 1}"), **query)
        assert (part.status, part.body == whole[start:stop]) == (206, True)


@pytest.mark.parametrize(
    ("start", "stop", "chunks"),
    [(0, 128, 0), (128, 129, 1), (128, 10_128, 1), (10_127, 10_129, 2), (30_128, 60_128, 3)],
)
async def test_only_the_chunks_of_the_range_are_decoded(
    root: Path, monkeypatch: pytest.MonkeyPatch, start: int, stop: int, chunks: int
) -> None:
    app = H5App(root)
    decoded = 0
    decode = Pipeline.decode

    def counting(*arguments: Any) -> Any:
        nonlocal decoded
        decoded += 1
        return decode(*arguments)

    monkeypatch.setattr(Pipeline, "decode", counting)
    part = await ask(app, "/data", of(f"{start}-{stop - 1}"), path="long", format="npy")
    assert (part.status, len(part.body)) == (206, stop - start)
    assert decoded == chunks
    app.store.pool.close()


async def test_a_range_of_a_view_that_is_a_selection(app: H5App) -> None:
    query = {"path": "chunked", "format": "bin", "max_points": "100", "method": "nearest"}
    whole = await ask(app, "/data", **query)
    part = await ask(app, "/data", of("5-20"), **query)
    assert (part.status, part.body) == (206, whole.body[5:21])
    assert part.headers["x-asgihive-method"] == "nearest"


@pytest.mark.parametrize(
    "query",
    [
        {"path": "contiguous"},
        {"path": "contiguous", "selection": "0", "format": "csv"},
        {"path": "contiguous", "format": "tiff"},
        {"path": "contiguous", "format": "msgpack"},
        {"path": "contiguous", "format": "bin", "max_points": "10"},
    ],
)
async def test_what_has_no_ranges_is_sent_whole(app: H5App, query: dict[str, str]) -> None:
    answer = await ask(app, "/data", of("0-1"), **query)
    assert answer.status == 200
    assert "accept-ranges" not in answer.headers
    assert answer.body == (await ask(app, "/data", **query)).body


async def test_several_ranges_are_answered_by_the_whole(app: H5App) -> None:
    query = {"path": "contiguous", "format": "bin"}
    whole = (await ask(app, "/data", **query)).body
    for wanted in ("0-1,5-6", "2-1", "x"):
        answer = await ask(app, "/data", of(wanted), **query)
        assert (answer.status, answer.body) == (200, whole)


async def test_a_range_means_nothing_to_head(app: H5App) -> None:
    head = await ask(app, "/data", of("0-1"), "HEAD", path="contiguous", format="bin")
    assert (head.status, head.headers["content-length"]) == (200, str(7 * 11 * 13 * 4))
    assert head.headers["accept-ranges"] == "bytes"


async def test_what_cannot_be_satisfied_says_so_in_json(app: H5App) -> None:
    for path, size in (("contiguous", 4004), ("empty", 0)):
        answer = await ask(app, "/data", of(f"{size}-"), path=path, format="bin")
        assert answer.status == 416
        assert answer.headers["content-range"] == f"bytes */{size}"
        assert "no byte of the answer lies in it" in answer.message


async def test_if_range(root: Path) -> None:
    query = {"path": "contiguous", "format": "bin"}
    app = H5App(root)
    whole = await ask(app, "/data", **query)
    tag, modified = whole.headers["etag"], whole.headers.get("last-modified")
    for condition, status in (
        (tag, 206),
        (f"W/{tag}", 200),
        ('"other"', 200),
        (modified or tag, 206),
        (format_http_date(1_000_000_000), 200),
    ):
        answer = await ask(app, "/data", {**of("4-7"), "if-range": condition}, **query)
        assert answer.status == status, condition
        assert answer.body == (whole.body[4:8] if status == 206 else whole.body)
    # What the client has is not sent, and what was to be the same is checked first.
    fields = {**of("99999-"), "if-none-match": tag}
    assert (await ask(app, "/data", fields, **query)).status == 304
    assert (await ask(app, "/data", {**of("99999-"), "if-match": '"x"'}, **query)).status == 412
    app.store.pool.close()


def test_a_download_that_broke_off_goes_on(app: H5App, tmp_path: Path) -> None:
    """As `curl -C -` resumes it, over a socket."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    saved = tmp_path / "long.npy"
    with serving(app, "uvicorn-httptools") as url, client(url) as asks:
        query = urlencode({"file": "x.h5", "path": "long", "format": "npy"})
        whole = asks.get(f"/data?{query}").content
        for had in (1, 100, 128, 129, 300_000, len(whole) - 1):
            saved.write_bytes(whole[:had])
            options = ["-sS", "--fail", "-C", "-", "-o", str(saved), "--noproxy", "*"]
            subprocess.run([curl, *options, f"{url}/data?{query}"], check=True, timeout=PATIENCE)
            assert saved.read_bytes() == whole


def test_a_client_resumes_what_it_lost(app: H5App) -> None:
    """The connection is cut in the middle; the rest comes with `Range` and `If-Range`."""
    params = {"file": "x.h5", "path": "long", "format": "bin"}
    with serving(app, "uvicorn-h11") as url, client(url) as asks:
        whole = asks.get("/data", params=params).content
        with asks.stream("GET", "/data", params=params) as broken:
            got = next(broken.iter_raw(1000))
            tag = broken.headers["etag"]
        fields = {"range": f"bytes={len(got)}-", "if-range": tag}
        rest = asks.get("/data", params=params, headers=fields)
        assert rest.status_code == 206
        assert got + rest.content == whole
