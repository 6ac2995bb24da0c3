"""`/file`: the bytes of an HDF5 file, whole or in part, of one content and of no other."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import h5py
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asgihive.errors import FileChanged
from asgihive.hdf5 import directory
from asgihive.service import H5App, files
from tests.asgi.exchange import Exchange, http, run
from tests.efforts import at_most
from tests.service import servers, versions
from tests.zoo.client import client

pytestmark = pytest.mark.anyio

BLOCK_BYTES = 1 << 16  # ten of them are a file


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    (root / "x.h5").write_bytes(versions.content(1))
    os.utime(root / "x.h5", (0, 1_700_000_000))  # one of this second has no Last-Modified yet
    return root


@pytest.fixture
def app(served: Path) -> Iterator[H5App]:
    app = H5App(served)
    yield app
    assert not servers.descriptors_below(served)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK_BYTES", BLOCK_BYTES)


@pytest.fixture
def whole(served: Path) -> bytes:
    return (served / "x.h5").read_bytes()


async def get(app: H5App, method: str = "GET", file: str = "x.h5", **headers: str) -> Any:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client(app) as asker:
        return await asker.request(method, "/file", params={"file": file}, headers=given)


# The whole file


async def test_the_whole_file(app: H5App, whole: bytes) -> None:
    answer = await get(app)
    assert answer.status_code == 200
    assert answer.content == whole
    assert answer.headers["content-length"] == str(len(whole))
    assert answer.headers["content-type"] == "application/x-hdf5"
    assert answer.headers["content-disposition"] == 'attachment; filename="x.h5"'
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["etag"].startswith('"')


async def test_head_has_the_same_headers_and_ignores_ranges(app: H5App) -> None:
    by_get, by_head = await get(app), await get(app, "HEAD")
    with_range = await get(app, "HEAD", range="bytes=0-9")
    for each in (by_head, with_range):
        assert (each.status_code, each.content) == (200, b"")
        assert {**each.headers, "server-timing": ""} == {**by_get.headers, "server-timing": ""}


async def test_methods_that_write_are_refused(app: H5App) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer = await get(app, method)
        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET, HEAD"


async def test_only_hdf5_files(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not for everyone")
    (tmp_path / "empty.h5").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    with h5py.File(tmp_path / "block.h5", "w", userblock_size=1024) as file:
        file["x"] = 1
    app = H5App(tmp_path)
    for name in ("notes.txt", "empty.h5"):
        answer = await get(app, file=name)
        assert answer.status_code == 422
        assert "not a readable HDF5 file" in answer.json()["message"]
    for name in ("folder", ".", "no.h5", "block.h5/x"):
        answer = await get(app, file=name)
        assert answer.status_code == 404
        assert "File not found" in answer.json()["message"]
    assert (await get(app, file="")).status_code == 422
    assert (await get(app, file="block.h5")).content == (tmp_path / "block.h5").read_bytes()
    assert not servers.descriptors_below(tmp_path)


@pytest.mark.parametrize(
    ("name", "disposition"),
    [
        (b"a\r\nset-cookie: x.h5", 'attachment; filename="a__set-cookie: x.h5"'),
        (b'a"b\\c.h5', "attachment; filename=\"a_b_c.h5\"; filename*=UTF-8''a%22b_c.h5"),
        ("ä€.h5".encode(), "attachment; filename=\"__.h5\"; filename*=UTF-8''%C3%A4%E2%82%AC.h5"),
        (b"\xff.h5", "attachment; filename=\"_.h5\"; filename*=UTF-8''%EF%BF%BD.h5"),
        (b"%41;x=1.h5", "attachment; filename=\"_41;x=1.h5\"; filename*=UTF-8''%2541%3Bx%3D1.h5"),
    ],
)
@pytest.mark.slow_on_trio
async def test_names_that_are_no_headers(
    tmp_path: Path, whole: bytes, name: bytes, disposition: str
) -> None:
    (tmp_path / os.fsdecode(name)).write_bytes(whole)
    with servers.serving(H5App(tmp_path), "uvicorn-h11") as url, servers.client(url) as asker:
        answer = asker.get("/file?file=" + "".join(f"%{byte:02x}" for byte in name))
    assert answer.status_code == 200
    assert answer.headers["content-disposition"] == disposition
    assert "set-cookie" not in answer.headers
    assert answer.content == whole


# Parts of it


@given(first=st.integers(0, 700_000), last=st.none() | st.integers(0, 800_000))
@settings(max_examples=at_most(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.slow_on_trio
async def test_any_range_is_that_part_of_the_file(
    app: H5App, whole: bytes, first: int, last: int | None
) -> None:
    first %= len(whole)
    if last is not None:
        last = max(first, last)
    answer = await get(app, range=f"bytes={first}-{'' if last is None else last}")
    _check_part(answer, whole, first, whole[first:] if last is None else whole[first : last + 1])
    if first:
        answer = await get(app, range=f"bytes=-{first}")
        _check_part(answer, whole, len(whole) - first, whole[-first:])


def _check_part(answer: httpx.Response, whole: bytes, start: int, part: bytes) -> None:
    assert answer.status_code == 206
    assert answer.content == part
    end = start + len(part) - 1
    assert answer.headers["content-range"] == f"bytes {start}-{end}/{len(whole)}"
    assert answer.headers["content-length"] == str(len(part))


async def test_only_the_blocks_of_a_range_are_read(
    app: H5App, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    pread = os.pread

    def noted(descriptor: int, length: int, offset: int) -> bytes:
        read.append(length)
        return pread(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", noted)
    assert (await get(app, range="bytes=-700")).content == whole[-700:]
    assert read == [8, 700]  # the signature, and what was asked for


async def test_ranges_that_do_not_count(app: H5App, whole: bytes) -> None:
    for value in ("bytes=0-1,5-6", "bytes=5-2", "lines=0-1", "bytes=a-b", "bytes", ""):
        answer = await get(app, range=value)
        assert (answer.status_code, answer.content) == (200, whole), value


async def test_a_range_beyond_the_end(app: H5App, whole: bytes) -> None:
    answer = await get(app, range=f"bytes={len(whole)}-")
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(whole)}"
    assert "Range" in answer.json()["message"]


async def test_conditions(app: H5App, whole: bytes) -> None:
    etag = (await get(app)).headers["etag"]
    known = await get(app, if_none_match=f'"other", W/{etag}')
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", etag)
    assert (await get(app, if_none_match='"other"')).content == whole
    assert (await get(app, if_match='"other"')).status_code == 412
    assert (await get(app, if_match=etag)).status_code == 200
    for condition, status in ((etag, 206), (f"W/{etag}", 200), ('"other"', 200), ("junk", 200)):
        answer = await get(app, if_range=condition, range="bytes=0-4")
        assert answer.status_code == status, condition


async def test_what_a_date_tells(tmp_path: Path, whole: bytes) -> None:
    file = tmp_path / "x.h5"
    file.write_bytes(whole)
    os.utime(file, (0, 1_700_000_000))
    (tmp_path / "link.h5").symlink_to("x.h5")
    app = H5App(tmp_path)
    date = (await get(app)).headers["last-modified"]
    assert date == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert (await get(app, if_modified_since=date)).status_code == 304
    assert (await get(app, if_range=date, range="bytes=1-")).status_code == 206
    # Where a symbolic link leads next may be older.
    linked = await get(app, file="link.h5")
    assert "last-modified" not in linked.headers
    assert (await get(app, file="link.h5", if_none_match=linked.headers["etag"])).status_code == 304


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_resumes_a_download_that_broke_off(app: H5App, whole: bytes, tmp_path: Path) -> None:
    part = tmp_path / "part.h5"
    part.write_bytes(whole[:100_000])
    with servers.serving(app, "uvicorn-httptools") as url:
        command = ["curl", "-sS", "--fail", "-C", "-", "-o", str(part), f"{url}/file?file=x.h5"]
        subprocess.run(command, check=True, timeout=servers.PATIENCE)
    assert part.read_bytes() == whole


# Files that change


@pytest.fixture
def changing(tmp_path: Path) -> Path:
    file = tmp_path / "changing" / "x.h5"
    file.parent.mkdir()
    file.write_bytes(versions.content(1))
    return file


class Sending:
    """Asks for a file, and lets something happen once a number of blocks is sent."""

    def __init__(self, blocks: int, happen: Callable[[], object]) -> None:
        self.exchange = http("/file?file=x.h5")
        self._left = blocks + 1
        self._happen = happen

    async def send(self, message: Any) -> None:
        await self.exchange.send(message)
        self._left -= 1
        if not self._left:
            await anyio.to_thread.run_sync(self._happen)

    async def ask(self, root: Path) -> Exchange:
        with anyio.fail_after(servers.PATIENCE):
            await H5App(root)(self.exchange.scope, self.exchange.receive, self.send)
        return self.exchange


@pytest.mark.parametrize("name", ["overwrite", "truncate"])
@pytest.mark.parametrize("blocks", [1, 2, 6])
@pytest.mark.slow_on_trio
async def test_a_change_in_place_aborts(changing: Path, name: str, blocks: int) -> None:
    old, new = versions.content(1), versions.content(2)
    sending = Sending(blocks, lambda: versions.CHANGES[name](changing, new))
    with pytest.raises(FileChanged):
        await sending.ask(changing.parent)
    assert old.startswith(sending.exchange.body)
    assert not sending.exchange.complete
    assert not servers.descriptors_below(changing.parent)
    assert (await get(H5App(changing.parent))).content == new


@pytest.mark.parametrize("name", ["replace", "delete"])
async def test_a_file_that_is_replaced_is_sent_to_its_end(changing: Path, name: str) -> None:
    new = versions.content(2)
    sending = Sending(1, lambda: versions.CHANGES[name](changing, new))
    answer = await sending.ask(changing.parent)
    assert answer.body == versions.content(1)
    assert answer.complete
    assert (await get(H5App(changing.parent))).content == new


@pytest.mark.parametrize("name", versions.CHANGES)
async def test_a_change_before_the_first_byte(
    changing: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = directory.WholeFile.read

    def changed_first(self: directory.WholeFile, start: int, length: int) -> bytes:
        if start == 0:
            versions.CHANGES[name](changing, versions.content(2))
        return read(self, start, length)

    monkeypatch.setattr(directory.WholeFile, "read", changed_first)
    answer = await run(H5App(changing.parent), http("/file?file=x.h5"))
    if name in {"replace", "delete"}:
        assert answer.body == versions.content(1)
    else:
        assert answer.status == 503
        assert answer.headers["retry-after"] == "1"
        assert "changed" in answer.message


async def test_every_content_has_its_own_tag(changing: Path) -> None:
    app = H5App(changing.parent)
    tags = set()
    for version in range(1, 5):
        versions.overwrite(changing, versions.content(version))
        tags.add((await get(app)).headers["etag"])
    assert len(tags) == 4


async def test_a_time_in_the_future_proves_nothing(
    changing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a machine whose clock is behind the file server's: bytes, but no validators."""
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now - 3600 * 10**9)
    answer = await get(H5App(changing.parent), if_range='"x"', range="bytes=0-1")
    assert answer.status_code == 200
    assert answer.content == versions.content(1)
    assert not {"etag", "last-modified"} & {*answer.headers}
