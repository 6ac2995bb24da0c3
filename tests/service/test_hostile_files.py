"""The sandbox again, by the routes of files: `/file`, `/files`, `/batch`."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import httpx
import msgpack
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from asgihive.service import H5App
from asgihive.settings import H5Settings
from tests.efforts import at_most
from tests.service.test_sandbox_http import (
    NAMES_OUTSIDE,
    PATIENCE_SECONDS,
    ROUTES,
    assert_no_secret,
)
from tests.zoo.client import client
from tests.zoo.hostile import MARKER, Hostile, build

pytestmark = pytest.mark.anyio

# What of `NAMES_OUTSIDE` names a directory that may be listed.
INSIDE = {".", "/", "sub", "sub/"}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    built = build(tmp_path_factory.mktemp("hostile"))
    yield built
    for fifo in built.fifos:
        # Frees a thread that a failed test has left waiting in `open`.
        os.close(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))


@pytest.fixture(scope="module")
def app(hostile: Hostile) -> H5App:
    return H5App(hostile.root)


def outside(hostile: Hostile) -> list[str]:
    return [*NAMES_OUTSIDE, str(hostile.outside / "secret.h5"), str(hostile.outside)]


async def ask(app: H5App, url: str, **options: Any) -> httpx.Response:
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client(app) as asker:
            answer = await asker.request(options.pop("method", "GET"), url, **options)
    assert_no_secret(answer)
    return answer


def spellings(name: str) -> set[str]:
    every_byte = "".join(f"%{byte:02x}" for byte in os.fsencode(name))
    return {quote(name, safe="", errors="surrogateescape"), every_byte}


@pytest.mark.slow_on_trio
async def test_no_file_outside_is_given(app: H5App, hostile: Hostile) -> None:
    for name in outside(hostile):
        for spelt in spellings(name):
            answer = await ask(app, f"/file?file={spelt}")
            assert answer.status_code == 404, name
            assert "File not found" in answer.json()["message"]


@pytest.mark.slow_on_trio
async def test_no_directory_outside_is_listed(app: H5App, hostile: Hostile) -> None:
    for name in outside(hostile):
        for spelt in spellings(name):
            answer = await ask(app, f"/files?dir={spelt}")
            if name in INSIDE:
                assert answer.status_code == 200, name
            else:
                assert answer.status_code == 404, name
                assert "File not found" in answer.json()["message"]


@pytest.mark.slow_on_trio
async def test_a_batch_gives_nothing_else(app: H5App, hostile: Hostile) -> None:
    names = [os.fsencode(each) for each in outside(hostile)]
    asked: list[dict[str, Any]] = [
        {"route": route, "params": {"file": name}}
        for name in names
        for route in (*(each.strip("/") for each in ROUTES), "file")
    ]
    asked += [{"route": f"../file?file={name.decode('latin-1')}"} for name in names]
    body = msgpack.packb(asked)
    headers = {"content-type": "application/msgpack"}
    answer = await ask(app, "/batch", method="POST", content=body, headers=headers)
    assert answer.status_code == 200
    members = msgpack.unpackb(answer.content)
    assert len(members) == len(asked)
    assert {each["status"] for each in members} == {404}


async def test_what_is_listed_can_be_asked_for_and_leads_nowhere_else(
    app: H5App, hostile: Hostile
) -> None:
    """Every entry of every directory that can be reached from the root."""
    directories, seen = [""], set[str]()
    while directories:
        directory = directories.pop()
        page = (await ask(app, f"/files?dir={directory}")).json()
        for entry in page["entries"]:
            seen.add(entry["file"])
            if entry["kind"] == "directory":
                directories.append(entry["encoded"])
                continue
            answer = await ask(app, f"/file?file={entry['encoded']}")
            assert answer.status_code == (200 if entry["kind"] == "hdf5" else 422)
            assert len(answer.content) == entry["size"] or entry["kind"] == "file"
    assert {"inside.h5", "symlink_inside.h5", "directory_inside/up.h5", "sub/up.h5"} < seen
    assert not {"symlink.h5", "directory", "pipe.h5", "device.h5", "symlink_loop.h5"} & seen


async def test_symbolic_links_may_be_allowed(hostile: Hostile) -> None:
    """`follow_symlinks` opens the way out by symbolic link, and no other way."""
    following = H5App(hostile.root, H5Settings(follow_symlinks=True))
    secret = (hostile.outside / "secret.h5").read_bytes()
    async with client(following) as asker:
        for name in ("symlink.h5", "symlink_twice.h5", "directory/secret.h5"):
            assert (await asker.get("/file", params={"file": name})).content == secret
        listed = (await asker.get("/files", params={"dir": "directory"})).json()["entries"]
        assert "secret.h5" in {each["name"] for each in listed}
    names = ("..", "../outside", str(hostile.outside), "/", "directory/..", "symlink_loop.h5")
    for name in names:
        answer = await ask(following, "/files", params={"dir": name})
        assert answer.status_code == (200 if name in {"/", "directory/.."} else 404), name
    for name in ("../outside/secret.h5", "pipe.h5", "device.h5", "symlink_pipe.h5"):
        assert (await ask(following, "/file", params={"file": name})).status_code == 404, name


async def test_a_link_that_is_swapped_in_is_not_followed(
    tmp_path: Path, hostile: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the check of a name and the opening of it, a directory becomes a way out."""
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "secret.h5").write_bytes((hostile.root / "inside.h5").read_bytes())
    app = H5App(root)
    real = os.path.realpath

    def swapping(path: Any, **options: Any) -> Any:
        found = real(path, **options)
        if not (root / "sub").is_symlink():
            (root / "sub").rename(root / "gone")
            (root / "sub").symlink_to(hostile.outside)
        return found

    for route, query in (("file", "file=sub/secret.h5"), ("files", "dir=sub")):
        with monkeypatch.context() as patch:
            patch.setattr(os.path, "realpath", swapping)
            answer = await ask(app, f"/{route}?{query}")
        assert answer.status_code == 404, route
        (root / "sub").unlink()
        (root / "gone").rename(root / "sub")


_segments = st.sampled_from(
    ["..", ".", "", "outside", "root", "sub", "directory", "directory_inside", "secret.h5",
     "inside.h5", "symlink.h5", "\0", "%2e%2e", "pipe.h5", "device.h5"]
)  # fmt: skip
_names = st.lists(_segments | st.text(max_size=3), min_size=1, max_size=6).map("/".join)


@given(prefix=st.sampled_from(["", "/", "outside", "\0"]), name=_names)
@example(prefix="", name="secret.h5/..")
@example(prefix="", name="directory_inside")
@settings(max_examples=at_most(150), suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.slow_on_trio
async def test_no_name_gives_anything_outside(
    app: H5App, hostile: Hostile, prefix: str, name: str
) -> None:
    name = f"{hostile.outside}/{name}" if prefix == "outside" else prefix + name
    given = await ask(app, "/file", params={"file": name})
    assert given.status_code in {200, 404, 422}
    if given.status_code == 200:
        inside = {each.read_bytes() for each in hostile.root.rglob("*.h5") if _is_own(each)}
        assert given.content in inside
    listed = await ask(app, "/files", params={"dir": name})
    assert listed.status_code in {200, 404}
    if listed.status_code == 200:
        # The answer repeats the name that was asked for, which may be of what lies outside.
        entries = {each["file"] for each in listed.json()["entries"]}
        assert entries <= _names_of_what_lies_inside(hostile)
    assert MARKER not in given.content + listed.content


def _is_own(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _names_of_what_lies_inside(hostile: Hostile) -> set[str]:
    """The relative names, by way of each link too, of what is in the root or below it."""
    root = hostile.root.resolve()
    found: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        inside = [each for each in (*folders, *files) if _lies_in(root, Path(folder, each))]
        found |= {str(Path(folder, each).relative_to(root)) for each in inside}
        folders[:] = [each for each in folders if each in inside]
    return found


def _lies_in(root: Path, path: Path) -> bool:
    try:
        return path.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):  # it leads nowhere, or in a circle
        return False
