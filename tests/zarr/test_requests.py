"""What HTTP has around a store: forms of answers, the gate, versions of a file."""

import os
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
import zstandard

from asgihive.asgi import Router
from asgihive.hdf5 import sandbox
from asgihive.service import H5App
from asgihive.settings import H5Settings
from asgihive.zarr.chunks import answer_chunk
from tests.asgi.exchange import Exchange, http, run
from tests.service import servers
from tests.zarr.serving import VALUES, ask, make_root, write
from tests.zoo.client import client

pytestmark = pytest.mark.anyio

LINE = np.arange(10.0).tobytes()
LINE_URL, IMAGE_URL = "/zarr/x.h5/line/c/0", "/zarr/x.h5/entry/image/c/0/0"


# Forms of an answer


async def test_a_chunk(app: H5App) -> None:
    got = await ask(app, LINE_URL)
    assert (got.status, got.body) == (200, LINE)
    assert got.headers["content-type"] == "application/octet-stream"
    assert got.headers["content-length"] == str(len(LINE))
    assert got.headers["cache-control"] == "no-cache"
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["server-timing"]
    head = await ask(app, LINE_URL, "HEAD")
    assert (head.status, head.body, head.headers["etag"]) == (200, b"", got.headers["etag"])
    assert head.headers["content-length"] == str(len(LINE))


@pytest.mark.parametrize("url", [LINE_URL, IMAGE_URL])
async def test_chunks_have_no_content_coding(app: H5App, url: str) -> None:
    """They have codecs of their own, which a client undoes itself."""
    plain = await ask(app, url)
    for coding in ("gzip", "zstd", "*"):
        got = await ask(app, url, accept_encoding=coding)
        assert "content-encoding" not in got.headers
        assert (got.body, got.headers["etag"]) == (plain.body, plain.headers["etag"])


async def test_metadata_are_compressed(app: H5App) -> None:
    url = "/zarr/x.h5/zarr.json"
    plain = await ask(app, url)
    assert plain.headers["vary"] == "accept-encoding"
    decoders: dict[str, Callable[[bytes], bytes]] = {
        "gzip": lambda body: zlib.decompress(body, 31),
        "zstd": lambda body: zstandard.ZstdDecompressor().decompressobj().decompress(body),
    }
    for coding, decode in decoders.items():
        for _ in range(2):
            got = await ask(app, url, accept_encoding=coding)
            assert got.headers["content-encoding"] == coding
            assert len(got.body) < len(plain.body)
            assert decode(got.body) == plain.body
            assert got.headers["etag"] != plain.headers["etag"]


@pytest.mark.parametrize("url", [LINE_URL, IMAGE_URL, "/zarr/x.h5/zarr.json"])
async def test_preconditions(app: H5App, url: str) -> None:
    tag = (await ask(app, url)).headers["etag"]
    assert tag.startswith('"')
    for method in ("GET", "HEAD"):
        unchanged = await ask(app, url, method, if_none_match=tag)
        assert (unchanged.status, unchanged.body) == (304, b"")
        assert unchanged.headers["etag"] == tag
        assert (await ask(app, url, method, if_none_match='"other"')).status == 200
        assert (await ask(app, url, method, if_match='"other"')).status == 412
        assert (await ask(app, url, method, if_match=tag)).status == 200


@pytest.mark.parametrize("cache_bytes", [0, 64 << 20])
@pytest.mark.parametrize("url", [LINE_URL, IMAGE_URL])
async def test_ranges_of_chunks(root: Path, url: str, cache_bytes: int) -> None:
    app = H5App(root, H5Settings(zarr_cache_bytes=cache_bytes, answer_cache_bytes=0))
    first = await ask(app, url, range="bytes=0-7")
    whole = await ask(app, url)
    size = len(whole.body)
    assert whole.headers["accept-ranges"] == "bytes"
    assert (first.status, first.body) == (206, whole.body[:8])
    for _ in range(2):
        for text, start, stop in [
            ("0-0", 0, 1),
            (f"10-{size + 9}", 10, size),
            ("-5", size - 5, size),
            (f"{size - 1}-", size - 1, size),
        ]:
            got = await ask(app, url, range=f"bytes={text}")
            assert (got.status, got.body) == (206, whole.body[start:stop])
            assert got.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
            assert got.headers["content-length"] == str(stop - start)
            assert got.headers["etag"] == whole.headers["etag"]
        beyond = await ask(app, url, range=f"bytes={size}-")
        assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{size}")
        assert (await ask(app, url, range="bytes=0-1", if_range='"other"')).body == whole.body
        tag = whole.headers["etag"]
        assert (await ask(app, url, range="bytes=0-1", if_range=tag)).status == 206
        assert (await ask(app, url, range="bytes=0-1", if_none_match=tag)).status == 304


async def test_what_is_asked_again_is_in_memory(root: Path) -> None:
    app = H5App(root)
    for url in (IMAGE_URL, "/zarr/x.h5/zarr.json"):
        first = await ask(app, url)
        answers = app.store.zarr_chunks if url == IMAGE_URL else app.store.answers
        hits = answers.hits
        second = await ask(app, url)
        assert (second.body, second.status) == (first.body, 200)
        assert answers.hits == hits + 1


async def test_cache_control_is_the_setting(root: Path) -> None:
    app = H5App(root, H5Settings(cache_control="public, max-age=60"))
    for url in (LINE_URL, "/zarr/x.h5/zarr.json"):
        assert (await ask(app, url)).headers["cache-control"] == "public, max-age=60"


# Names in URLs


@pytest.mark.parametrize(
    "url",
    [
        "x.h5",
        "x.h5.zarr",
        "./x.h5",
        "/x.h5",
        "two words ä.nc",
        "two words ä.nc.zarr",
        "dir.h5/below/y.h5",
        "dir.h5/below/y.h5.zarr",
        "dir.h5//below/./y.h5",
        "z.nc.zarr",
        "z.nc.zarr.zarr",
        "x.h5/",
    ],
)
async def test_the_file_in_the_url(app: H5App, url: str) -> None:
    assert (await ask(app, f"/zarr/{url}/line/c/0")).body == LINE
    document = (await ask(app, f"/zarr/{url}/zarr.json")).json
    assert document["node_type"] == "group"
    assert "line" in document["consolidated_metadata"]["metadata"]


async def test_names_that_are_not_utf_8(root: Path) -> None:
    name = os.fsdecode(b"\xff\xe9.h5")
    write(root / name)
    app = H5App(root)
    for rest, status in (("/line/c/0", 200), ("/zarr.json", 200), ("/no/c/0", 410)):
        path = f"/zarr/\ufffd\ufffd.h5{rest}"
        raw = f"/zarr/%FF%E9.h5{rest}".encode()
        assert (await run(app, http(path, raw_path=raw))).status == status
        assert (await run(app, http(path))).status in {404, 410}
    (root / name).unlink()


@pytest.mark.parametrize("prefix", ["/h5", "/outer/zarr"])
async def test_below_a_prefix(app: H5App, prefix: str) -> None:
    outer = Router()
    outer.mount(prefix, app)
    for rest, status in (
        ("line/c/0", 200),
        ("no/c/0", 410),
        ("no/zarr.json", 404),
        (".zgroup", 404),
    ):
        url = f"/zarr/x.h5/{rest}"
        assert (await ask(outer, prefix + url)).status == status
        # A server that has the prefix in `root_path` alone, or in `path` as well.
        for path in (url, prefix + url):
            assert (await ask(app, path, root_path=prefix)).status == status


@pytest.fixture(scope="module", params=servers.SERVERS)
def url(root: Path, request: pytest.FixtureRequest) -> Any:
    with servers.serving(H5App(root), request.param) as url:
        yield url


def test_real_servers(url: str) -> None:
    with servers.client(url) as asker:
        for name in ("x.h5", "two%20words%20%C3%A4.nc", "dir.h5/below/y.h5", "z.nc.zarr"):
            got = asker.get(f"/zarr/{name}/line/c/0")
            assert (got.status_code, got.content) == (200, LINE)
            head = asker.head(f"/zarr/{name}/line/c/0")
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-length"] == str(len(LINE))
            assert asker.get(f"/zarr/{name}/.zgroup").status_code == 404
            assert asker.get(f"/zarr/{name}/line/c/1").status_code == 422
            assert asker.get(f"/zarr/{name}/nothing/c/0").status_code == 410
            document = asker.get(f"/zarr/{name}/zarr.json").json()
            assert document["consolidated_metadata"]["metadata"]["line"]["shape"] == [10]
        for method in ("PROPFIND", "PUT"):
            assert asker.request(method, "/zarr/x.h5/").status_code == 405


# The gate


async def test_a_token_is_needed(root: Path) -> None:
    app = H5App(root, H5Settings(token="secret"))
    for url in (LINE_URL, "/zarr/x.h5/zarr.json", "/zarr/x.h5/.zgroup", "/zarr/x.h5/"):
        assert (await ask(app, url)).status == 401
        allowed = await ask(app, url, authorization="Bearer secret")
        assert allowed.status in {200, 404, 422}
        assert (await ask(app, f"{url}?token=secret")).status == allowed.status


async def test_another_origin(root: Path) -> None:
    app = H5App(root, H5Settings(cors_origins=("https://viewer.example.org",)))
    origin = {"origin": "https://viewer.example.org"}
    for url in (LINE_URL, "/zarr/x.h5/zarr.json", "/zarr/x.h5/.zgroup", "/zarr/x.h5/no/c/0"):
        got = await ask(app, url, **origin)
        assert got.headers["access-control-allow-origin"] == "https://viewer.example.org"
        exposed = got.headers["access-control-expose-headers"]
        assert {"etag", "content-length", "content-range"} <= set(exposed.split(", "))
        preflight = await ask(
            app,
            url,
            "OPTIONS",
            access_control_request_method="HEAD",
            access_control_request_headers="range, if-none-match, authorization",
            **origin,
        )
        assert preflight.status == 200
        assert "HEAD" in preflight.headers["access-control-allow-methods"]
        allowed = preflight.headers["access-control-allow-headers"]
        assert "range" in allowed
        assert "authorization" in allowed


async def test_other_hosts(root: Path) -> None:
    app = H5App(root, H5Settings(allowed_hosts=("data.example.org",)))
    assert (await ask(app, LINE_URL, host="data.example.org")).status == 200
    for key in ("line/c/0", "zarr.json", ".zgroup"):
        assert (await ask(app, f"/zarr/x.h5/{key}", host="evil.example.org")).status == 403


async def test_it_counts_as_one_route(root: Path) -> None:
    pytest.importorskip("prometheus_client")
    app = H5App(root)
    for key in ("line/c/0", "zarr.json", ".zgroup", "no/c/0"):
        await ask(app, f"/zarr/x.h5/{key}")
    text = (await ask(app, "/metrics")).body.decode()
    for status, count in ((200, 2), (404, 1), (410, 1)):
        assert f'asgihive_requests_total{{route="/zarr",status="{status}"}} {count}.0' in text
    assert "x.h5" not in text


async def test_in_a_batch(app: H5App) -> None:
    routes = ["zarr/x.h5/line/zarr.json", "zarr/x.h5/no/c/0", "zarr/x.h5/no/zarr.json"]
    async with client(app) as asker:
        answer = await asker.post("/batch", json=[{"route": each} for each in routes])
    first, *others = answer.json()
    assert (first["status"], first["body"]["shape"]) == (200, [10])
    assert [each["status"] for each in others] == [410, 404]


# Versions of a file


def find_version(document: Any) -> str:
    version = document["attributes"]["_asgihive_version"]
    assert isinstance(version, str)
    return version


def pin(version: str, key: str) -> tuple[str, str]:
    """The two URLs of a key of a version."""
    return f"/zarr/x.h5/@{version}/{key}", f"/zarr/x.h5/{key}?v={version}"


async def test_a_version_is_told_by_the_root(app: H5App) -> None:
    document = (await ask(app, "/zarr/x.h5/zarr.json")).json
    version = find_version(document)
    assert (
        "_asgihive_version" not in (await ask(app, "/zarr/x.h5/entry/zarr.json")).json["attributes"]
    )
    for key, status in {
        "line/c/0": 200,
        "zarr.json": 200,
        "no/c/0": 410,
        "no/zarr.json": 404,
    }.items():
        plain = await ask(app, f"/zarr/x.h5/{key}")
        for url in (*pin(version, key), f"/zarr/x.h5.zarr/@{version}/{key}"):
            got = await ask(app, url)
            assert (got.status, got.body) == (status, plain.body), url
            assert got.headers.get("etag") == plain.headers.get("etag")


@pytest.mark.parametrize("version", ["0" * 32, "x", "@", "\udcff", "0" * 5000])
async def test_a_version_that_never_was(app: H5App, version: str) -> None:
    for key in ("line/c/0", "zarr.json", "no/c/0", "no/zarr.json", "line/c/7"):
        got = await ask(app, f"/zarr/x.h5/{key}?v={version}".replace("\udcff", "%FF"))
        assert got.status == 410
        assert got.headers["cache-control"] == "no-store"
    # But what is asked for to look for other formats is not there, as ever.
    assert (await ask(app, f"/zarr/x.h5/.zgroup?v={'0' * 32}")).status == 404
    assert (await ask(app, f"/zarr/no.h5/zarr.json?v={'0' * 32}")).status == 404


@pytest.mark.parametrize("is_in_place", [False, True])
async def test_a_file_that_is_written_again_between_two_chunks(
    tmp_path: Path, is_in_place: bool
) -> None:
    """A client that goes by a version gets an error, and never a mixture."""
    root = make_root(tmp_path / "served")
    app = H5App(root)
    document = (await ask(app, "/zarr/x.h5/zarr.json")).json
    version = find_version(document)
    keys = [f"entry/image/c/{number}/0" for number in range(2)]
    before = [(await ask(app, pin(version, each)[0])).body for each in keys]
    plain = await ask(app, f"/zarr/x.h5/{keys[0]}")
    assert before[0] == plain.body
    write(root / "new.h5", -VALUES)
    if is_in_place:
        (root / "x.h5").write_bytes((root / "new.h5").read_bytes())
    else:
        (root / "new.h5").rename(root / "x.h5")
    for key in (*keys, "zarr.json", "entry/image/zarr.json", "line/c/0", "no/c/0"):
        for url in pin(version, key):
            got = await ask(app, url)
            assert got.status == 410, url
            assert "written again" in got.message or "no/" in key
    now = find_version((await ask(app, "/zarr/x.h5/zarr.json")).json)
    assert now != version
    after = [(await ask(app, pin(now, each)[0])).body for each in keys]
    assert not set(after) & set(before)
    changed = await ask(app, f"/zarr/x.h5/{keys[0]}", if_none_match=plain.headers["etag"])
    assert (changed.status, changed.body) == (200, after[0])


async def test_a_file_that_is_written_while_a_chunk_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read of the next version is not taken for this one."""
    root = make_root(tmp_path / "served")
    app = H5App(root)
    version = find_version((await ask(app, "/zarr/x.h5/zarr.json")).json)

    def rewrite() -> None:
        write(root / "new.h5", -VALUES)
        (root / "new.h5").rename(root / "x.h5")

    async def write_first(*args: Any) -> Any:
        await anyio.to_thread.run_sync(rewrite)
        return await answer_chunk(*args)

    monkeypatch.setattr("asgihive.zarr.routes.answer_chunk", write_first)
    got: Exchange = await ask(app, pin(version, "entry/image/c/0/0")[0])
    assert got.status == 410
    assert (await ask(app, IMAGE_URL)).status == 200


async def test_where_the_file_system_is_slow(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No question is asked on the event loop then, and all answers are the same."""
    app = H5App(root)
    version = find_version((await ask(app, "/zarr/x.h5/zarr.json")).json)
    keys = ("zarr.json", "line/c/0", "entry/image/c/0/0", "no/c/0", "no/zarr.json", "line/c/7")
    urls = [*(f"/zarr/x.h5/{key}" for key in keys), *pin(version, "line/c/0")]
    urls += ["/zarr/no.h5/zarr.json", "/zarr/no.h5/line/c/0", *pin("0" * 32, "line/c/0")]
    quick = [await ask(app, each) for each in urls]
    # Every question takes too long from now on.
    monkeypatch.setattr(sandbox, "SLOW_STAT_SECONDS", -1.0)
    asked_on_loop: list[str] = []
    stat = os.stat

    def note(path: Any, *given: Any, **named: Any) -> os.stat_result:
        if threading.current_thread() is here:
            asked_on_loop.append(path)
        return stat(path, *given, **named)

    here = threading.current_thread()
    await ask(app, urls[0])
    monkeypatch.setattr(os, "stat", note)
    slow = [await ask(app, each) for each in urls]
    monkeypatch.undo()
    assert not asked_on_loop
    assert [(each.status, each.body) for each in slow] == [
        (each.status, each.body) for each in quick
    ]
