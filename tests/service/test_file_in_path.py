"""`/file/{path}`: the file of `/file?file={path}` under a URL of its own."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

import h5py
import msgpack
import numpy as np
import pytest

from asgihive.asgi import HTTPException, Router
from asgihive.service import H5App
from asgihive.service.gate import PERMISSION, RequestedEntity
from asgihive.settings import H5Settings
from tests.asgi.exchange import Exchange, http, run
from tests.cli import processes
from tests.service import servers
from tests.zoo.client import client

pytestmark = pytest.mark.anyio

VALUES = np.arange(200_000).reshape(500, 400)
NAMES = (
    "x.h5",
    "a/b/deep.nxs",
    "no_suffix",
    "two words.h5",
    "é€.h5",
    "100%.h5",
    "a?b&c=d#e;f+g.h5",
    "..h5",
    "...",
    ".hidden.h5",
    "file/file.h5",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("data") / "served"
    for number, name in enumerate(NAMES):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(root / name, "w") as file:
            file["number"] = number
            file.create_dataset("values", data=VALUES, chunks=(50, 400), compression="gzip")
    Path(os.fsdecode(os.fsencode(root) + b"/\xff\xe9.h5")).write_bytes((root / "x.h5").read_bytes())
    shutil.copy(root / "x.h5", root.parent / "outside.h5")
    (root / "notes.txt").write_text("not HDF5")
    return root


@pytest.fixture(scope="module")
def app(root: Path) -> H5App:
    return H5App(root)


def whole_file(root: Path, name: str | bytes) -> bytes:
    return Path(os.fsdecode(os.fsencode(root) + b"/" + os.fsencode(name))).read_bytes()


def asked(name: str | bytes, method: str = "GET", **headers: str) -> Exchange:
    """As a server makes it of a URL: decoded, and as it came."""
    raw, text = quote(name).encode(), os.fsencode(name).decode("utf-8", "replace")
    fields = [(key.encode(), value.encode()) for key, value in headers.items()]
    exchange = http("/", method, raw_path=b"/file/" + raw, headers=fields)
    exchange.scope["path"] = f"/file/{text}"
    return exchange


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_it_is_the_same_answer(app: H5App, root: Path, name: str, method: str) -> None:
    async with client(app) as asker:
        by_query = await asker.request(method, "/file", params={"file": name})
        by_path = await asker.request(method, f"/file/{quote(name)}")
    assert by_path.status_code == by_query.status_code == 200
    assert by_path.content == by_query.content
    assert by_path.content == ((root / name).read_bytes() if method == "GET" else b"")
    # The date is told once the file is old enough, which may come between the two.
    changing = {"server-timing", "last-modified"}
    found = {name: by_path.headers[name] for name in by_path.headers if name not in changing}
    expected = {name: by_query.headers[name] for name in by_query.headers if name not in changing}
    assert found == expected
    assert by_path.headers["etag"]


async def test_names_that_are_not_utf_8(app: H5App, root: Path) -> None:
    whole = (root / "x.h5").read_bytes()
    assert (await run(app, asked(b"\xff\xe9.h5"))).body == whole
    # Without the bytes nothing can be meant.
    assert (await run(app, http("/file/\ufffd\ufffd.h5"))).status == 404
    assert (await run(app, asked("\ufffd\ufffd.h5"))).status == 404


async def test_ranges_and_preconditions(app: H5App, root: Path) -> None:
    whole = (root / "x.h5").read_bytes()
    async with client(app) as asker:
        part = await asker.get("/file/x.h5", headers={"range": "bytes=100-199"})
        assert (part.status_code, part.content) == (206, whole[100:200])
        assert part.headers["content-range"] == f"bytes 100-199/{len(whole)}"
        tag = part.headers["etag"]
        unchanged = await asker.get("/file/x.h5", headers={"if-none-match": tag})
        assert unchanged.status_code == 304
        changed = await asker.get("/file/x.h5", headers={"if-match": '"other"'})
        assert changed.status_code == 412
        beyond = await asker.get("/file/x.h5", headers={"range": f"bytes={len(whole)}-"})
        assert beyond.status_code == 416


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("../outside.h5", 404),
        ("../served/x.h5", 404),
        ("a/../x.h5", 404),
        ("a/b/../../../outside.h5", 404),
        ("..", 404),
        ("a", 404),
        ("no.h5", 404),
        ("x.h5/", 404),
        ("x.h5/values", 404),
        ("a\0.h5", 404),
        ("/etc/passwd", 404),
        ("notes.txt", 422),
        ("", 422),
    ],
)
async def test_what_is_refused(app: H5App, path: str, status: int) -> None:
    got = await run(app, http(f"/file/{path}"))
    assert got.status == status
    assert ("File not found" in got.message) is (status == 404)


async def test_a_file_in_the_query_means_nothing(app: H5App) -> None:
    got = await run(app, http("/file/x.h5?file=no_suffix"))
    other = await run(app, http("/file?file=x.h5"))
    assert got.body == other.body


async def test_a_slash_too_many(app: H5App, root: Path) -> None:
    """As obstore has it behind a URL that ends in a slash."""
    assert (await run(app, http("/file//a/b/deep.nxs"))).body == whole_file(root, "a/b/deep.nxs")
    assert (await run(app, http("/file//etc/passwd"))).status == 404
    assert (await run(app, http("/file//"))).status == 422


async def test_methods(app: H5App) -> None:
    for method in ("POST", "PUT", "DELETE", "PROPFIND"):
        got = await run(app, http("/file/x.h5", method))
        assert (got.status, got.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("prefix", ["/h5", "/outer/file"])
async def test_below_a_prefix(app: H5App, root: Path, prefix: str) -> None:
    outer = Router()
    outer.mount(prefix, app)
    whole = (root / "a/b/deep.nxs").read_bytes()
    assert (await run(outer, http(f"{prefix}/file/a/b/deep.nxs"))).body == whole
    # A server that has the prefix in `root_path` alone, or in `path` as well.
    for path in ("/file/a/b/deep.nxs", f"{prefix}/file/a/b/deep.nxs"):
        assert (await run(app, http(path, root_path=prefix))).body == whole
    named = http(
        f"{prefix}/file/\ufffd\ufffd.h5",
        raw_path=f"{prefix}/file/%FF%E9.h5".encode(),
        root_path=prefix,
    )
    assert (await run(app, named)).status == 200


async def test_a_permission_sees_the_file(root: Path) -> None:
    app, seen = H5App(root), list[RequestedEntity | None]()

    def permission(target: RequestedEntity) -> bool:
        seen.append(target)
        if target.file.startswith("a/"):
            raise HTTPException(404, "No such thing")
        return target.file == "x.h5"

    state = {PERMISSION: permission}
    allowed = await run(app, http("/file/x.h5", state=state))
    assert (allowed.status, allowed.headers["cache-control"]) == (200, "private, no-cache")
    assert (await run(app, http("/file/no_suffix", state=state))).status == 403
    assert (await run(app, http("/file/a/b/deep.nxs", state=state))).status == 404
    # What a query says as well opens nothing.
    assert (await run(app, http("/file/no_suffix?file=x.h5", state=state))).status == 403
    assert (await run(app, http("/file/./no_suffix", state=state))).status == 403
    files = ["x.h5", "no_suffix", "a/b/deep.nxs", "no_suffix", "no_suffix"]
    assert seen == [RequestedEntity("file", each, "/") for each in files]


async def test_a_token_is_needed(root: Path) -> None:
    app = H5App(root, H5Settings(token="secret"))
    assert (await run(app, http("/file/x.h5"))).status == 401
    assert (await run(app, http("/file/x.h5?token=secret"))).status == 200


async def test_it_counts_as_one_route(root: Path) -> None:
    pytest.importorskip("prometheus_client")
    app = H5App(root)
    for name in ("x.h5", "no_suffix", "no.h5"):
        await run(app, http(f"/file/{name}"))
    text = (await run(app, http("/metrics"))).body.decode()
    assert 'asgihive_requests_total{route="/file",status="200"} 2.0' in text
    assert 'asgihive_requests_total{route="/file",status="404"} 1.0' in text
    assert "x.h5" not in text


async def test_in_a_batch(app: H5App, root: Path) -> None:
    async with client(app) as asker:
        asked_for = [{"route": "file/a/b/deep.nxs"}, {"route": "/file/../outside.h5"}]
        answer = await asker.post("/batch?format=msgpack", json=asked_for)
    first, second = msgpack.unpackb(answer.content)
    assert first == {"status": 200, "body": (root / "a/b/deep.nxs").read_bytes()}
    assert second["status"] == 404


async def test_listings_say_what_stands_in_the_url(app: H5App) -> None:
    async with client(app) as asker:
        for entry in (await asker.get("/files")).json()["entries"]:
            if entry["name"].endswith(".h5"):
                got = await asker.get(f"/file/{entry['encoded']}")
                assert got.status_code == 200, entry


@pytest.mark.slow
async def test_in_a_process_of_its_own(root: Path) -> None:
    app = H5App(root, H5Settings(isolation="process"))
    async with app.running():
        for name in (*NAMES, b"\xff\xe9.h5"):
            assert (await run(app, asked(name))).body == whole_file(root, name)
        assert (await run(app, http("/file/../outside.h5"))).status == 404
        part = await run(app, asked("x.h5", range="bytes=0-3"))
        assert (part.status, part.body) == (206, b"\x89HDF")


# Clients that have URLs only


@pytest.fixture(scope="module", params=servers.SERVERS)
def url(root: Path, request: pytest.FixtureRequest) -> Any:
    with servers.serving(H5App(root), request.param) as url:
        yield url


def test_real_servers(url: str, root: Path) -> None:
    with servers.client(url) as asker:
        for name in (*NAMES, b"\xff\xe9.h5"):
            got = asker.get(f"/file/{quote(name)}")
            assert got.content == whole_file(root, name), name


@pytest.fixture(scope="module")
def one_url(root: Path) -> Any:
    with servers.serving(H5App(root), "uvicorn-httptools") as url:
        yield url


def test_h5py_through_fsspec(root: Path) -> None:
    """Served by a process of its own, for the reason of `test_file_clients.remote`."""
    fsspec = pytest.importorskip("fsspec")
    pytest.importorskip("aiohttp")
    filesystem = fsspec.filesystem("http", block_size=1 << 16)
    with processes.running("serve", str(root), "--port", "0") as server:
        url = f"{server.url.rstrip('/')}/file/a/b/deep.nxs"
        with filesystem.open(url) as opened, h5py.File(opened) as file:
            assert np.array_equal(file["values"][100], VALUES[100])
            assert opened.size == filesystem.info(url)["size"]


def test_obstore(one_url: str, root: Path) -> None:
    """The store of VirtualiZarr, which joins names to a URL."""
    obstore = pytest.importorskip("obstore.store")
    given = {"client_options": {"allow_http": True}}
    stores = [obstore.HTTPStore.from_url(f"{one_url}/file{end}", **given) for end in ("", "/")]
    files = [("x.h5", stores[0]), ("a/b/deep.nxs", stores[1]), ("two words.h5", stores[0])]
    for name, store in files:
        whole = (root / name).read_bytes()
        assert store.head(name)["size"] == len(whole)
        assert bytes(store.get(name).bytes()) == whole
        assert bytes(store.get_range(name, start=10, end=50)) == whole[10:50]
        parts = store.get_ranges(name, starts=[0, 100], ends=[8, 110])
        assert [bytes(each) for each in parts] == [whole[:8], whole[100:110]]
    with pytest.raises(FileNotFoundError):
        stores[0].head("no.h5")


@pytest.mark.parametrize("program", ["wget", "curl"])
def test_programs_that_save_a_url(one_url: str, root: Path, tmp_path: Path, program: str) -> None:
    """Under the name at its end, and from where they were interrupted."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not there")
    whole = (root / "a/b/deep.nxs").read_bytes()
    (tmp_path / "deep.nxs").write_bytes(whole[:1000])
    options = {
        "wget": ["--quiet", "--no-proxy", "--continue"],
        "curl": ["--silent", "--show-error", "--noproxy", "*", "-C", "-", "-O"],
    }
    command = [program, *options[program], f"{one_url}/file/a/b/deep.nxs"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=servers.PATIENCE)
    assert [each.name for each in tmp_path.iterdir()] == ["deep.nxs"]
    assert (tmp_path / "deep.nxs").read_bytes() == whole
