"""`/files`: what is sorted, searched, and found in the directories below."""

import os
import stat
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asgihive.hdf5 import directory as directories
from asgihive.service import H5App
from asgihive.service.gate import PERMISSION, RequestedEntity
from asgihive.settings import H5Settings
from tests.asgi.exchange import http, run
from tests.efforts import at_most
from tests.zoo.client import client

pytestmark = pytest.mark.anyio

EPOCH = 1_700_000_000
SIZES = (0, 3, 3, 11, 3, 0, 7)
FOLDERS = ("", "2023", "2023/march", "2024", "Über")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with equal sizes and times, and with names in more than one folder."""
    root = tmp_path_factory.mktemp("tree")
    for place, folder in enumerate(FOLDERS):
        (root / folder).mkdir(exist_ok=True)
        for number, size in enumerate(SIZES):
            path = root / folder / f"scan_{number}.{'nxs' if number % 2 else 'H5'}"
            path.write_bytes(b"x" * size)
            os.utime(path, (EPOCH, EPOCH + (number + place) % 3))
        os.utime(root / folder, (EPOCH, EPOCH))
    (root / os.fsdecode(b"caf\xe9 scan")).write_bytes(b"")
    (root / ".hidden").mkdir()
    (root / ".hidden" / "scan_9").touch()
    (root / "2024" / "back").symlink_to("../2024")  # a cycle
    (root / "2023" / "nowhere").symlink_to("no")
    (root / "2023" / "out").symlink_to("/etc")
    return root


def list_all(root: Path, *, is_recursive: bool) -> list[tuple[str, os.stat_result]]:
    """Return all that may be listed: paths, and what they lead to."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [each for each in folders if not each.startswith(".")]
        for name in [*folders, *files]:
            path = os.path.join(folder, name)
            if os.path.exists(path) and os.path.realpath(path).startswith(os.fspath(root)):
                found.append((os.path.relpath(path, root), os.stat(path)))
        if not is_recursive:
            break
        folders[:] = [each for each in folders if not os.path.islink(os.path.join(folder, each))]
    return found


def sort_by(key: str, found: tuple[str, os.stat_result]) -> Any:
    path, status = found
    folder, _, name = path.rpartition("/")
    value = 0
    if key == "modified":
        value = status.st_mtime_ns
    elif key == "size":
        value = -1 if stat.S_ISDIR(status.st_mode) else status.st_size
    return value, os.fsencode(name), os.fsencode(folder)


async def ask(app: H5App, status: int = 200, **query: Any) -> Any:
    async with client(app) as asker:
        answer = await asker.get("/files", params=query)
    assert answer.status_code == status, answer.text
    return answer.json()


async def read_pages(app: H5App, **query: Any) -> list[str]:
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        page = await ask(app, after=after, **query)
        assert page["complete"] is True
        assert len(page["entries"]) <= query.get("limit", 200)
        found += [each["file"] for each in page["entries"]]
        after = page["next"]
    return found


def show(path: str) -> str:
    return os.fsencode(path).decode(errors="replace")


@given(
    limit=st.integers(1, 60),
    key=st.sampled_from(["name", "modified", "size"]),
    order=st.sampled_from(["ascending", "descending"]),
    is_recursive=st.booleans(),
)
@settings(max_examples=at_most(20), suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.slow_on_trio
async def test_pages_hold_everything_once_in_order(
    root: Path, limit: int, key: str, order: str, *, is_recursive: bool
) -> None:
    everything = list_all(root, is_recursive=is_recursive)
    everything.sort(key=lambda each: sort_by(key, each), reverse=order == "descending")
    recursive = str(is_recursive).lower()
    found = await read_pages(H5App(root), limit=limit, sort=key, order=order, recursive=recursive)
    assert found == [show(path) for path, _ in everything]


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ("scan_3", ["scan_3.nxs"]),
        ("SCAN h5 4", ["scan_4.H5"]),
        ("über", ["Über"]),
        (unicodedata.normalize("NFD", "ÜBER"), ["Über"]),
        ("CAF\ufffd", ["caf\ufffd scan"]),
        ("2023", ["2023"]),
        ("scan_9", []),
        ("*", []),
    ],
)
@pytest.mark.slow_on_trio
async def test_every_word_is_part_of_a_name(root: Path, search: str, expected: list[str]) -> None:
    page = await ask(H5App(root), search=search)
    assert [each["name"] for each in page["entries"]] == expected


async def test_a_search_below_a_directory(root: Path) -> None:
    page = await ask(H5App(root), search="SCAN_3", recursive="true", dir="2023")
    assert [each["file"] for each in page["entries"]] == [
        "2023/scan_3.nxs",
        "2023/march/scan_3.nxs",
    ]
    assert [each["name"] for each in page["entries"]] == ["scan_3.nxs"] * 2
    linked = await ask(H5App(root), search="back", recursive="true")
    assert [(each["file"], each["kind"]) for each in linked["entries"]] == [
        ("2024/back", "directory")
    ]


@pytest.mark.parametrize("key", ["modified", "size"])
async def test_what_comes_and_goes_between_pages(tmp_path: Path, key: str) -> None:
    for number, name in enumerate("fedcba"):
        (tmp_path / name).write_bytes(b"x" * number)
        os.utime(tmp_path / name, (EPOCH, EPOCH + number))
    app = H5App(tmp_path)
    first = await ask(app, sort=key, limit=3)
    assert [each["name"] for each in first["entries"]] == ["f", "e", "d"]
    (tmp_path / "d").unlink()  # where the next page begins
    (tmp_path / "b").unlink()
    (tmp_path / "later").write_bytes(b"x" * 9)
    rest = await ask(app, sort=key, limit=3, after=first["next"])
    assert [each["name"] for each in rest["entries"]] == ["c", "a", "later"]
    assert rest["next"] is None


async def test_a_cursor_of_another_order(root: Path) -> None:
    app = H5App(root)
    of_size = (await ask(app, sort="size", limit=2))["next"]
    of_name = (await ask(app, limit=2))["next"]
    for key, after in (("name", of_size), ("modified", of_size), ("size", of_name)):
        message = (await ask(app, 422, sort=key, after=after))["message"]
        assert f"sorted by {key} as well" in message
    for name, wrong in (("sort", "date"), ("order", "down"), ("recursive", "maybe")):
        assert name in (await ask(app, 422, **{name: wrong}))["message"]


@pytest.mark.parametrize(
    ("bound", "value"),
    [("MAX_SEARCHED_ENTRIES", 5), ("MAX_SEARCH_SECONDS", -1.0), ("MAX_SEARCH_DEPTH", 1)],
)
@pytest.mark.slow_on_trio
async def test_a_search_that_a_bound_ends(
    root: Path, monkeypatch: pytest.MonkeyPatch, bound: str, value: float
) -> None:
    monkeypatch.setattr(directories, bound, value)
    page = await ask(H5App(root), recursive="true")
    assert page["complete"] is False
    everything = list_all(root, is_recursive=True)
    assert len(page["entries"]) < len(everything)
    assert (await ask(H5App(root)))["complete"] is True


async def _search(app: H5App) -> list[str]:
    asked = list[str]()

    async def permit(target: RequestedEntity) -> bool:
        assert target.route == "files"
        asked.append(target.file)
        return target.file != "2023"

    asking = http("/files?recursive=true&search=scan_3", state={PERMISSION: permit})
    answer = await run(app, asking)
    assert answer.status == 200
    assert sorted(asked) == ["", "2023", "2024", "Über"]
    return [each["file"] for each in answer.json["entries"]]


async def test_no_directory_is_searched_that_may_not_be_listed(root: Path) -> None:
    expected = ["scan_3.nxs", "2024/scan_3.nxs", "Über/scan_3.nxs"]
    assert await _search(H5App(root)) == expected


@pytest.mark.slow
async def test_readers_in_processes_search_no_more(root: Path) -> None:
    app = H5App(root, H5Settings(isolation="process", decode_lanes=1))
    async with app.running():
        expected = ["scan_3.nxs", "2024/scan_3.nxs", "Über/scan_3.nxs"]
        assert await _search(app) == expected
