"""`/files`: what a directory holds, page by page, and what it does not show."""

import base64
import os
import socket
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import h5py
import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asgihive.hdf5.directory import Listing, ListingRequest
from asgihive.hdf5.sandbox import Sandbox
from asgihive.service import H5App
from asgihive.service.parameters import DEFAULT_LISTED_FILES, MAX_LISTED_FILES
from asgihive.settings import H5Settings
from tests.asgi.exchange import http, run
from tests.efforts import at_most
from tests.gates import Gate
from tests.zoo.client import client

pytestmark = pytest.mark.anyio

UNREADABLE = b"caf\xe9.h5"  # Latin-1, so not UTF-8
EPOCH = 1_700_000_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    (root / "2024" / "empty").mkdir(parents=True)
    (root / "elsewhere").mkdir()
    for name in ("b.h5", "2024/scan 1.nxs", ".hidden.h5"):
        write(root / name)
    with h5py.File(os.fsencode(root) + b"/" + UNREADABLE, "w") as file:
        file["values"] = 7
    (root / "a.txt").write_text("not HDF5")
    (root / "none.h5").write_bytes(b"")
    os.utime(root / "a.txt", ns=(0, EPOCH * 10**9 + 123_456_789))
    return root


def write(path: Path, **options: Any) -> None:
    with h5py.File(path, "w", **options) as file:
        file["values"] = np.arange(3)


async def listing(app: H5App, **query: Any) -> Any:
    async with client(app) as asker:
        answer = await asker.get("/files", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def refused(app: H5App, status: int, **query: Any) -> str:
    async with client(app) as asker:
        answer = await asker.get("/files", params=query)
    assert answer.status_code == status, answer.text
    return str(answer.json()["message"])


async def names(app: H5App, **query: Any) -> list[str]:
    return [each["name"] for each in (await listing(app, **query))["entries"]]


async def test_a_directory(root: Path) -> None:
    page = await listing(H5App(root))
    assert page.keys() == {"dir", "entries", "next", "complete"}
    assert (page["dir"], page["next"]) == ("", None)
    by_name = {each["name"]: each for each in page["entries"]}
    assert list(by_name) == ["2024", "a.txt", "b.h5", "caf\ufffd.h5", "elsewhere", "none.h5"]
    assert by_name["a.txt"] == {
        "name": "a.txt",
        "file": "a.txt",
        "encoded": "a.txt",
        "kind": "file",
        "size": 8,
        "modified": "2023-11-14T22:13:20.123456Z",
    }
    assert (by_name["b.h5"]["kind"], by_name["none.h5"]["kind"]) == ("hdf5", "file")
    assert by_name["b.h5"]["size"] == (root / "b.h5").stat().st_size
    assert (by_name["2024"]["kind"], by_name["2024"]["size"]) == ("directory", None)


async def test_a_directory_below(root: Path) -> None:
    app = H5App(root)
    for spelt in ("2024", "2024/", "./2024", "elsewhere/../2024", "2024//."):
        page = await listing(app, dir=spelt)
        assert [each["file"] for each in page["entries"]] == ["2024/empty", "2024/scan 1.nxs"]
        assert page["entries"][1]["encoded"] == "2024/scan%201.nxs"
    assert (await listing(app, dir="2024/empty"))["entries"] == []


async def test_other_formats(root: Path) -> None:
    app = H5App(root)
    async with client(app) as asker:
        asked = await asker.get("/files", headers={"accept": "application/vnd.msgpack"})
        named = await asker.get("/files/", params={"format": "msgpack"})
        head = await asker.head("/files")
        plain = await asker.get("/files")
    assert asked.content == named.content
    assert msgpack.unpackb(named.content) == plain.json()
    assert head.content == b""
    assert head.headers["content-length"] == plain.headers["content-length"]
    assert "csv" in await refused(app, 422, format="csv")


async def test_a_long_page_is_compressed(root: Path) -> None:
    for number in range(10):
        write(root / f"more {number}.h5")
    app = H5App(root, H5Settings(cache_control="no-store"))
    async with client(app) as asker:
        plain = await asker.get("/files", headers={"accept-encoding": "identity"})
        coded = await asker.get("/files", headers={"accept-encoding": "gzip"})
    assert plain.content == coded.content
    assert "content-encoding" not in plain.headers
    assert coded.headers["content-encoding"] == "gzip"
    assert int(coded.headers["content-length"]) < len(plain.content) / 2
    for each in (plain, coded):
        assert each.headers["vary"] == "accept, accept-encoding"
        assert each.headers["cache-control"] == "no-store"
        assert "etag" not in each.headers


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("if-match", '"x"'),
        ("if-match", "*"),
        ("if-none-match", "*"),
        ("if-none-match", '"x"'),
        ("if-modified-since", "Fri, 01 Jan 2100 00:00:00 GMT"),
        ("if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("range", "bytes=0-1"),
    ],
)
async def test_a_page_has_no_version_for_a_precondition(root: Path, name: str, value: str) -> None:
    async with client(H5App(root)) as asker:
        plain = await asker.get("/files")
        for method in ("GET", "HEAD"):
            asked = await asker.request(method, "/files", headers={name: value})
            assert asked.status_code == 200
            assert asked.headers["content-length"] == plain.headers["content-length"]


async def test_names_that_are_not_utf8_can_be_asked_for(root: Path) -> None:
    folder = os.fsencode(root) + b"/d\xff"
    os.mkdir(folder)
    with h5py.File(folder + b"/" + UNREADABLE, "w") as file:
        file["values"] = 7
    app = H5App(root)
    page = await listing(app)
    (directory,) = [each for each in page["entries"] if each["name"] == "d\ufffd"]
    async with client(app) as asker:
        below = (await asker.get(f"/files?dir={directory['encoded']}")).json()
        assert below["dir"] == "d\ufffd"
        (entry,) = below["entries"]
        assert entry["file"] == "d\ufffd/caf\ufffd.h5"
        assert entry["encoded"] == quote(b"d\xff/" + UNREADABLE)
        values = await asker.get(f"/data?path=values&file={entry['encoded']}")
        assert values.json() == 7


# What is not shown


async def test_links_that_lead_out_or_nowhere(root: Path, tmp_path: Path) -> None:
    write(tmp_path / "outside.h5")
    (tmp_path / "outside").mkdir()
    targets: dict[str, str | Path] = {
        "out.h5": tmp_path / "outside.h5",
        "out_directory": tmp_path / "outside",
        "out_twice.h5": "out.h5",
        "up": "..",
        "here": ".",
        "loop": "loop",
        "dangling.h5": "no.h5",
        "pipe_link": "pipe",
        "in.h5": "b.h5",
        "in_directory": "2024",
    }
    for name, target in targets.items():
        (root / name).symlink_to(target)
    os.mkfifo(root / "pipe")
    shown = {each["name"]: each for each in (await listing(H5App(root)))["entries"]}
    assert {each for each in shown if each.startswith(("in", "out", "up", "here"))} == {
        "in.h5",
        "in_directory",
    }
    assert not shown.keys() & {"loop", "dangling.h5", "pipe", "pipe_link"}
    assert shown["in.h5"]["kind"] == "hdf5"
    assert shown["in.h5"]["size"] == shown["b.h5"]["size"]
    assert shown["in_directory"]["kind"] == "directory"
    following = await listing(H5App(root, H5Settings(follow_symlinks=True)))
    out = {each["name"]: each["kind"] for each in following["entries"]}
    assert out["out.h5"] == out["out_twice.h5"] == "hdf5"
    assert out["out_directory"] == "directory"
    assert "pipe_link" not in out


async def test_what_is_no_file_is_never_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(root / "pipe.h5")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(root)  # the path of a socket is short
        server.bind("socket.h5")
        opened: list[object] = []
        real_open = os.open

        def noted(path: Any, *arguments: Any, **options: Any) -> int:
            opened.append(path)
            return real_open(path, *arguments, **options)

        monkeypatch.setattr(os, "open", noted)
        shown = await names(H5App(root))
    assert not {"pipe.h5", "socket.h5"} & {*shown, *opened}
    assert {"a.txt", "b.h5"} < {*opened}


@pytest.mark.parametrize("offset", [512, 1024, 4096, 1 << 20])
async def test_a_user_block_is_no_disguise(root: Path, offset: int) -> None:
    write(root / "block.h5", userblock_size=offset)
    (root / "shifted.h5").write_bytes(b" " + (root / "b.h5").read_bytes())
    kinds = {each["name"]: each["kind"] for each in (await listing(H5App(root)))["entries"]}
    assert (kinds["block.h5"], kinds["shifted.h5"]) == ("hdf5", "file")


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
async def test_what_may_not_be_read(root: Path) -> None:
    (root / "b.h5").chmod(0)
    (root / "elsewhere").chmod(0)
    app = H5App(root)
    kinds = {each["name"]: each["kind"] for each in (await listing(app))["entries"]}
    assert kinds["b.h5"] == "file"
    assert "Permission denied" in await refused(app, 403, dir="elsewhere")


async def test_no_such_directory(root: Path) -> None:
    app = H5App(root)
    for name in ("no", "..", "2024/../..", "/etc", "\0", "a.txt/x", "d" * 300):
        assert "File not found" in await refused(app, 404, dir=name)
    assert "no directory" in await refused(app, 404, dir="a.txt")


async def test_slashes_in_front_begin_at_the_root(root: Path) -> None:
    app = H5App(root)
    for slashed, name in (("/", ""), ("/2024", "2024")):
        found, expected = await listing(app, dir=slashed), await listing(app, dir=name)
        assert found["entries"] == expected["entries"]


async def test_a_time_that_no_calendar_has(root: Path) -> None:
    (root / "later").write_bytes(b"")
    try:
        os.utime(root / "later", ns=(0, 300_000_000_000 * 10**9))
    except OverflowError:  # pragma: no cover
        pytest.skip("this file system knows no such time")
    by_name = {each["name"]: each for each in (await listing(H5App(root)))["entries"]}
    year = (root / "later").stat().st_mtime_ns // (365 * 86400 * 10**9)
    assert (by_name["later"]["modified"] is None) == (year > 9999)


# Pages


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("crowd")
    for number in range(50):
        (root / f"{number}").write_bytes(b"")
    (root / "é").mkdir()
    (root / "Z").mkdir()
    (root / ".h").mkdir()
    (root / "31x").symlink_to("nowhere")
    return root


async def pages(app: H5App, limit: int) -> Iterator[list[str]]:
    found = []
    after = ""
    while True:
        page = await listing(app, limit=limit, after=after)
        found.append([each["name"] for each in page["entries"]])
        after = page["next"]
        if after is None:
            return iter(found)


@given(limit=st.integers(1, 60))
@settings(max_examples=at_most(15), suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.slow_on_trio
async def test_pages_of_any_size_hold_everything_once_in_order(crowd: Path, limit: int) -> None:
    expected = [*sorted(map(str, range(50))), "Z", "é"]
    found = list(await pages(H5App(crowd), limit))
    assert [name for page in found for name in page] == expected
    assert all(len(page) <= limit for page in found)


async def test_what_comes_and_goes_between_pages(root: Path) -> None:
    app = H5App(root)
    for name in "klmnop":
        (root / name).write_bytes(b"")
    first = await listing(app, limit=7)
    assert first["entries"][-1]["name"] == "l"
    (root / "l").unlink()  # where the next page begins
    (root / "a_new").write_bytes(b"")
    (root / "mm").write_bytes(b"")
    (root / "n").unlink()
    assert await names(app, limit=8, after=first["next"]) == ["m", "mm", "none.h5", "o", "p"]


@pytest.mark.slow_on_trio
async def test_how_long_a_page_is(tmp_path: Path) -> None:
    for number in range(MAX_LISTED_FILES + 1):
        (tmp_path / f"{number}.h5").touch()
    app = H5App(tmp_path)
    assert len(await names(app)) == len(await names(app, limit="")) == DEFAULT_LISTED_FILES
    assert len(await names(app, limit=2)) == 2
    assert len(await names(app, limit=MAX_LISTED_FILES)) == MAX_LISTED_FILES
    for limit in (str(MAX_LISTED_FILES + 1), "0", "-1", "x", "1.5", "9" * 30):
        message = await refused(app, 422, limit=limit)
        assert "limit" in message
        assert f"from 1 to {MAX_LISTED_FILES}" in message


@pytest.mark.parametrize("after", ["a", "=", "é", "a.b", "\0", "%"])
@pytest.mark.slow_on_trio
async def test_a_cursor_of_nobody(root: Path, after: str) -> None:
    assert "`next`" in await refused(H5App(root), 422, after=after)


async def test_any_name_can_be_a_cursor(root: Path) -> None:
    after = base64.urlsafe_b64encode(b"caf\xe9.h4").decode().rstrip("=")
    assert await names(H5App(root), after=after) == ["caf\ufffd.h5", "elsewhere", "none.h5"]


@pytest.mark.slow
def test_a_page_of_a_hundred_thousand_files_takes_the_memory_of_a_page(tmp_path: Path) -> None:
    files = 100_000
    for number in range(files):
        # Links to few files: quicker than as many files, and 65,000 is the most on ext4.
        if number % 50_000 == 0:
            original = tmp_path / f"{number:06}"
            original.write_bytes(b"")
        else:
            os.link(original, tmp_path / f"{number:06}")
    sandbox = Sandbox(tmp_path)
    tracemalloc.start()
    listing = Listing(sandbox, ListingRequest("", 100, after=(0, b"077", b"")))
    listing.add("")
    page = listing.make_page()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [each.name for each in page.entries] == [f"{77_000 + n:06}" for n in range(100)]
    assert page.next == (0, b"077099", b"")
    assert most < 1 << 20


# Bounds


async def test_a_directory_that_takes_too_long(root: Path) -> None:
    app = H5App(root, H5Settings(decode_lanes=1, read_timeout_seconds=0.05))
    gate = Gate()
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app.store.lanes.decode.run, gate)
            await gate.begun()
            answer = await run(app, http("/files"))
            assert answer.status == 504
            assert "0.05" in answer.message
            gate.open()
    finally:
        gate.open()
