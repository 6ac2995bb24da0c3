"""Answers in a content coding over whole exchanges, read by other decoders than wrote them."""

import gzip
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import anyio
import h5py
import httpx
import numpy as np
import pytest
import zstandard

from asgihive.asgi import Coding
from asgihive.concurrency import Lane
from asgihive.encoders.json import Json
from asgihive.service import H5App, answering, data, reductions
from asgihive.settings import H5Settings
from tests.asgi.exchange import Exchange, http
from tests.service import versions
from tests.service.asking import ask, held
from tests.service.bounds import bounded
from tests.service.servers import PATIENCE, serving
from tests.zoo.arrow_tables import ARROW

pytestmark = pytest.mark.anyio

LARGE = 150_000  # elements, more than are encoded in one piece of text


def build(file: Path) -> None:
    random = np.random.default_rng(3)
    with h5py.File(file, "w") as out:
        for number in range(20):
            out[f"group/{number}"] = number
        out["large"] = random.normal(size=LARGE)
        out["values"] = random.normal(size=(30, 20))
        out["few"] = [1, 2, 3]
        out.attrs["text"] = "long " * 1000
        out["words"] = ["word " * 1000] * 2


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("compression")
    build(root / "x.h5")
    return root


@pytest.fixture
def app(root: Path) -> Iterator[H5App]:
    app = H5App(root)
    yield app
    app.store.pool.close()


REQUESTS: dict[str, tuple[str, dict[str, str]]] = {
    "meta": ("/meta", {"path": "/group"}),
    "meta as msgpack": ("/meta", {"path": "/group", "format": "msgpack"}),
    "attr": ("/attr", {}),
    "histogram": ("/histogram", {"path": "large", "bins": "1000"}),
    "json": ("/data", {"path": "values"}),
    "text": ("/data", {"path": "words"}),
    "csv": ("/data", {"path": "values", "format": "csv"}),
    "msgpack": ("/data", {"path": "values", "format": "msgpack"}),
    "streamed json": ("/data", {"path": "large"}),
    "streamed csv": ("/data", {"path": "large", "format": "csv"}),
    "large msgpack": ("/data", {"path": "large", "format": "msgpack"}),
    "streamed view": ("/data", {"path": "large", "max_points": "100000"}),
}
ARRAYS = ("bin", "npy", "tiff", *ARROW)
each_coding = pytest.mark.parametrize("coding", ["gzip", "zstd"])


def accepting(coding: str) -> dict[str, str]:
    return {"accept-encoding": coding}


def decoded(answer: Exchange) -> bytes:
    coding = answer.headers.get("content-encoding")
    if coding == "gzip":
        return gzip.decompress(answer.body)
    if coding == "zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(answer.body)
    assert coding is None
    return answer.body


@each_coding
@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.slow_on_trio
async def test_text_and_documents_are_compressed(app: H5App, name: str, coding: str) -> None:
    route, query = REQUESTS[name]
    plain = await ask(app, route, **query)
    assert "content-encoding" not in plain.headers
    coded = await ask(app, route, accepting(coding), **query)
    assert coded.headers["content-encoding"] == coding
    assert decoded(coded) == plain.body
    assert len(coded.body) < len(plain.body)
    streamed = name.startswith("streamed")
    length = None if streamed else str(len(coded.body))
    assert coded.headers.get("content-length") == length
    # Another representation, and so another tag (RFC 9110 §8.8.3.3).
    assert coded.headers["etag"] == f'{plain.headers["etag"][:-1]}-{coding}"'
    assert "accept-encoding" in coded.headers["vary"].split(", ")
    for header in ("content-type", "content-disposition", "vary", "cache-control"):
        assert coded.headers.get(header) == plain.headers.get(header)
    head = await ask(app, route, accepting(coding), "HEAD", **query)
    assert head.body == b""
    for header in ("content-encoding", "content-length", "etag", "vary"):
        assert head.headers.get(header) == coded.headers.get(header)


@each_coding
@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.slow_on_trio
async def test_a_tag_of_either_form_is_304(app: H5App, name: str, coding: str) -> None:
    route, query = REQUESTS[name]
    plain = await ask(app, route, **query)
    coded = await ask(app, route, accepting(coding), **query)
    for seen in (plain, coded):
        for service in (app, H5App(app.store.sandbox.root)):
            fields = {**accepting(coding), "if-none-match": seen.headers["etag"]}
            again = await ask(service, route, fields, **query)
            assert (again.status, again.body) == (304, b"")
            assert again.headers["etag"] == seen.headers["etag"]
            assert "content-encoding" not in again.headers
    # Who cannot read the coded form does not have the answer.
    fields = {"if-none-match": coded.headers["etag"]}
    assert (await ask(app, route, fields, **query)).status == 200


@pytest.mark.parametrize("form", ARRAYS)
async def test_arrays_keep_their_length(app: H5App, form: str) -> None:
    answer = await ask(app, "/data", accepting("gzip"), path="values", format=form)
    assert "content-encoding" not in answer.headers
    assert answer.headers["content-length"] == str(len(answer.body))
    assert "vary" not in answer.headers


@each_coding
@pytest.mark.parametrize("form", ARRAYS)
@pytest.mark.parametrize("most", [1 << 16, 32 << 20])
@pytest.mark.slow_on_trio
async def test_arrays_are_compressed_by_setting(
    root: Path, form: str, coding: str, most: int
) -> None:
    app = bounded(root, H5Settings(compress_arrays=True), read_ahead_bytes=most)
    query = {"path": "values" if form == "tiff" else "large", "format": form}
    plain = await ask(app, "/data", **query)
    coded = await ask(app, "/data", accepting(coding), **query)
    assert coded.headers["content-encoding"] == coding
    assert decoded(coded) == plain.body
    assert coded.headers["vary"] == plain.headers["vary"] == "accept-encoding"
    # A range of coded bytes cannot be told before they are there.
    assert "accept-ranges" not in coded.headers
    fields = {**accepting(coding), "range": "bytes=0-9"}
    assert (await ask(app, "/data", fields, **query)).status == 200
    if form in {"bin", "npy"}:
        part = await ask(app, "/data", {"range": "bytes=0-9"}, **query)
        assert (part.status, part.body) == (206, plain.body[:10])
    app.store.pool.close()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"accept-encoding": ""},
        {"accept-encoding": "identity"},
        {"accept-encoding": "br, deflate"},
        {"accept-encoding": "gzip;q=0"},
        {"accept-encoding": "gzip", "cache-control": "no-transform"},
    ],
)
async def test_who_gets_it_as_it_is(app: H5App, fields: dict[str, str]) -> None:
    for name in ("meta", "json", "streamed json"):
        route, query = REQUESTS[name]
        assert "content-encoding" not in (await ask(app, route, fields, **query)).headers


async def test_the_service_may_forbid_it(root: Path) -> None:
    app = H5App(root, H5Settings(cache_control="no-cache, no-transform"))
    assert "content-encoding" not in (await ask(app, "/attr", accepting("gzip"))).headers


async def test_what_is_small_is_sent_as_it_is(app: H5App) -> None:
    for route, query in (("/data", {"path": "few"}), ("/stats", {"path": "large"})):
        answer = await ask(app, route, accepting("gzip"), **query)
        assert "content-encoding" not in answer.headers
        assert "accept-encoding" in answer.headers["vary"]


@pytest.mark.parametrize("route", ["/attr", "/data"])
async def test_how_small_is_a_bound(
    root: Path, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    size = len((await ask(H5App(root), route, path="words")).body)
    for most, coded in ((size - 1, True), (size, False)):
        for module in (data, answering, reductions):
            monkeypatch.setattr(module, "COMPRESS_OVER_BYTES", most)
        app = H5App(root)
        answer = await ask(app, route, accepting("gzip"), path="words")
        assert ("content-encoding" in answer.headers) is coded
        app.store.pool.close()


async def test_errors_are_sent_as_they_are(app: H5App) -> None:
    answer = await ask(app, "/meta", accepting("gzip"), path="no" * 1000)
    assert answer.status == 404
    assert "content-encoding" not in answer.headers
    assert "not a valid path" in answer.message


@pytest.fixture
def compressed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the bodies that were compressed in one go."""
    sizes: list[int] = []
    compress = Coding.compress

    def noting(coding: Coding, body: bytes) -> bytes:
        sizes.append(len(body))
        return compress(coding, body)

    monkeypatch.setattr(Coding, "compress", noting)
    return sizes


async def test_a_kept_document_is_compressed_once(app: H5App, compressed: list[int]) -> None:
    first = await ask(app, "/attr", accepting("gzip"))
    for _ in range(5):
        assert (await ask(app, "/attr", accepting("gzip"))).body == first.body
    assert len(compressed) == 1
    zstd = await ask(app, "/attr", accepting("zstd, gzip"))
    assert zstd.headers["content-encoding"] == "zstd"
    assert (await ask(app, "/attr", accepting("gzip"))).body == first.body
    assert (await ask(app, "/attr")).body == decoded(first)
    assert len(compressed) == 2


async def test_a_changed_document_is_compressed_anew(tmp_path: Path, compressed: list[int]) -> None:
    build(tmp_path / "x.h5")
    app = H5App(tmp_path)
    tag = (await ask(app, "/attr", accepting("gzip"))).headers["etag"]
    versions.replace(tmp_path / "x.h5", (tmp_path / "x.h5").read_bytes())
    again = await ask(app, "/attr", {**accepting("gzip"), "if-none-match": tag})
    assert (again.status, len(compressed)) == (200, 2)
    assert again.headers["etag"] != tag


async def test_compressed_documents_count_as_kept(app: H5App) -> None:
    kept = app.store.answers.kept
    plain = await ask(app, "/attr")
    before = kept.bytes
    assert len(plain.body) <= before < 2 * len(plain.body)
    coded = await ask(app, "/attr", accepting("gzip"))
    # With what a response takes beside its body.
    assert len(coded.body) <= kept.bytes - before <= len(coded.body) + 2000
    assert len(kept) == 1


async def test_large_bodies_are_compressed_in_lanes(
    app: H5App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether they are sent at once or as a stream."""
    in_lanes: list[str] = []
    run = Lane.run

    async def noting(lane: Lane, function: Callable[[], Any], **options: Any) -> Any:
        name = getattr(getattr(function, "func", function), "__name__", "")
        in_lanes.append(name)
        return await run(lane, function, **options)

    monkeypatch.setattr(Lane, "run", noting)
    await ask(app, "/data", accepting("gzip"), path="large", selection=":10000")
    assert in_lanes.count("compress") == 1
    in_lanes.clear()
    await ask(app, "/data", accepting("gzip"), path="large")
    assert in_lanes.count("compress") >= 3


async def test_a_client_that_leaves_ends_the_compression(app: H5App) -> None:
    exchange = http("/data?file=x.h5&path=large", headers=[(b"accept-encoding", b"gzip")])

    async def send_once(message: Any) -> None:
        await exchange.send(message)
        if message["type"] == "http.response.body":
            exchange.gone.set()
            await anyio.sleep_forever()

    with anyio.fail_after(PATIENCE):
        await app(exchange.scope, exchange.receive, send_once)
    assert exchange.headers["content-encoding"] == "gzip"
    assert exchange.types == ["http.response.start", "http.response.body"]
    assert held(app) == 0


async def test_a_stream_that_fails_is_not_ended(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = bounded(root, read_ahead_bytes=1 << 16)
    block = Json.block

    def failing(self: Any, values: Any, array: Any, first: int) -> Any:
        if first:
            raise ConnectionResetError
        return block(self, values, array, first)

    monkeypatch.setattr(Json, "block", failing)
    exchange = http("/data?file=x.h5&path=large", headers=[(b"accept-encoding", b"gzip")])
    with pytest.raises(ConnectionResetError):
        await app(exchange.scope, exchange.receive, exchange.send)
    assert not exchange.complete
    with pytest.raises(EOFError):
        gzip.decompress(exchange.body)
    assert held(app) == 0


@pytest.mark.parametrize("server", ["uvicorn-h11", "hypercorn-trio"])
def test_over_a_socket(app: H5App, server: str) -> None:
    with serving(app, server) as url, httpx.Client(base_url=url, trust_env=False) as asks:
        for name in ("meta", "streamed json", "streamed csv"):
            route, query = REQUESTS[name]
            params = {"file": "x.h5", **query}
            plain = asks.get(route, params=params, headers=accepting("identity"))
            coded = asks.get(route, params=params, headers=accepting("gzip"))
            assert coded.headers["content-encoding"] == "gzip"
            assert coded.content == plain.content


def test_curl_reads_it(app: H5App) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    with serving(app, "uvicorn-httptools") as url, httpx.Client(trust_env=False) as asks:
        target = f"{url}/data?{urlencode({'file': 'x.h5', 'path': 'large', 'format': 'csv'})}"
        command = [curl, "-sS", "--fail", "--compressed", "--noproxy", "*", target]
        done = subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
        assert done.stdout == asks.get(target, headers=accepting("identity")).content
