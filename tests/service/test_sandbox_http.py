"""Nothing outside the served directory ever reaches a client, whatever a request or a file says."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.efforts import at_most
from tests.zoo.arrow_tables import ARROW
from tests.zoo.client import Asker, client
from tests.zoo.hostile import FILL, INSIDE, MARKER, Hostile, build

service = pytest.importorskip("asgihive.service")

pytestmark = pytest.mark.anyio

ROUTES = ("/meta", "/attr", "/data", "/stats", "/paths")
# Long enough for a loaded machine; what waits for a pipe waits for ever.
PATIENCE_SECONDS = 20


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    built = build(tmp_path_factory.mktemp("hostile"))
    yield built
    for fifo in built.fifos:
        # Frees a thread that a failed test has left waiting in `open`, and with it h5py's lock.
        os.close(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))


@pytest.fixture(scope="module")
def app(hostile: Hostile) -> Any:
    return service.H5App(hostile.root)


def assert_no_secret(answer: httpx.Response) -> None:
    """The marker is in no form in the answer: bytes, text, decimal numbers, statistics."""
    body = answer.content
    assert MARKER not in body, answer.url
    assert MARKER[:8] not in body, answer.url
    assert MARKER[-8:] not in body, answer.url
    media_type = answer.headers.get("content-type", "").split(";")[0]
    numbers: list[Any] = []
    if media_type == "application/json":
        document = json.loads(body)
        numbers = _numbers(document)
        if isinstance(document, dict) and "max" in document:
            assert document["max"] in {None, FILL, 0, int(INSIDE.max())}, answer.url
    if media_type == "text/csv":
        numbers = [float(cell) for line in body.split() for cell in line.split(b",")]
    as_bytes = bytes(int(each) for each in numbers if 0 <= each < 256)
    assert MARKER[-8:] not in as_bytes, answer.url


def _numbers(document: Any) -> list[float]:
    if isinstance(document, dict):
        document = list(document.values())
    if isinstance(document, list):
        return [number for each in document for number in _numbers(each)]
    return [document] if isinstance(document, int | float) else []


async def _all_answers(app: Any, file: str, path: str) -> list[httpx.Response]:
    requests: list[tuple[str, dict[str, str]]] = [(route, {}) for route in ROUTES]
    formats = ("bin", "npy", "csv", "tiff", "msgpack", *ARROW)
    requests += [("/data", {"format": each}) for each in formats]
    requests += [("/data", {"selection": "3:", "format": "bin"})]
    requests += [(route, {"resolve_links": "all"}) for route in ("/meta", "/paths")]
    requests += [(route, {"resolve_links": "none"}) for route in ("/meta", "/paths")]
    with anyio.fail_after(PATIENCE_SECONDS):
        asker = Asker(app)
        return [
            await asker.get(route, params={"file": file, "path": path, **more})
            for route, more in requests
        ]


@pytest.mark.slow_on_trio
async def test_what_files_point_to(app: Any, hostile: Hostile) -> None:
    for file, path in hostile.escapes:
        for answer in await _all_answers(app, file, path):
            assert_no_secret(answer)
            assert answer.status_code in {200, 403, 404, 422}, (answer.url, answer.text)


async def test_links_that_lead_out_cannot_be_followed(app: Any, hostile: Hostile) -> None:
    given = {"file": "hostile_links.h5", "path": "/escape/absolute_data"}
    async with client(app) as asker:
        link = await asker.get("/meta", params=given)
        followed = await asker.get("/meta", params={**given, "resolve_links": "all"})
        data = await asker.get("/data", params=given)
    assert link.json() == {
        "name": "absolute_data",
        "kind": "external_link",
        "target_file": str(hostile.outside / "secret.h5"),
        "target_path": "/data",
    }
    for answer in (followed, data):
        assert answer.status_code == 404
        assert "Cannot resolve" in answer.json()["message"]


async def test_whole_files_of_escapes(app: Any, hostile: Hostile) -> None:
    """Listing a group does not follow its members out either."""
    for file in sorted({file for file, _ in hostile.escapes}):
        for path in ("/", "/escape"):
            for answer in await _all_answers(app, file, path):
                assert_no_secret(answer)
        async with client(app) as asker:
            answer = await asker.get("/meta", params={"file": file})
        assert answer.status_code == 200, answer.text


async def test_targets_inside_are_served(app: Any, hostile: Hostile) -> None:
    async with client(app) as asker:
        for file, path in hostile.honest:
            answer = await asker.get("/data", params={"file": file, "path": path})
            assert answer.status_code == 200, (file, path, answer.text)
            expected = INSIDE[1:] if path.endswith("_part") else INSIDE
            assert answer.json() == expected.tolist(), (file, path)


NAMES_OUTSIDE = (
    "../outside/secret.h5",
    "./../outside/secret.h5",
    "sub/../../outside/secret.h5",
    "sub/../..//outside/secret.h5",
    "../root-neighbour/secret.h5",
    "..\\outside\\secret.h5",
    "/etc/passwd",
    "//etc/passwd",
    "/proc/self/environ",
    "/proc/self/mem",
    "/dev/zero",
    "/dev/stdin",
    "~/secret.h5",
    "file:///etc/passwd",
    "http://127.0.0.1/secret.h5",
    "s3://bucket/secret.h5",
    "inside.h5\0",
    "\0",
    "../outside/secret.h5\0inside.h5",
    "inside.h5\0/../../outside/secret.h5",
    "%2e%2e/outside/secret.h5",
    "..%2foutside%2fsecret.h5",
    "%252e%252e%252foutside/secret.h5",
    "..%c0%afoutside/secret.h5",
    "\uff0e\uff0e/outside/secret.h5",
    "directory/secret.h5",
    "directory",
    "directory/../secret.h5",
    "symlink.h5",
    "symlink_relative.h5",
    "symlink_twice.h5",
    "symlink_loop.h5",
    "symlink_dangling.h5",
    "symlink_pipe.h5",
    "pipe.h5",
    "pipe.h5/",
    "device.h5",
    ".",
    "..",
    "...",
    "/",
    "sub",
    "sub/",
    "inside.h5/../../outside/secret.h5",
    "\udcff",
    "x" * 300,
    "/".join(["d"] * 3000),
    "../" * 50 + "etc/passwd",
)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.slow_on_trio
async def test_names_that_lead_out(app: Any, hostile: Hostile, route: str) -> None:
    names = [*NAMES_OUTSIDE, str(hostile.outside / "secret.h5"), f"/{hostile.outside}/secret.h5"]
    async with client(app) as asker:
        for name in names:
            for encoded in {quote(name, safe="", errors="surrogateescape"), _every_byte(name)}:
                with anyio.fail_after(PATIENCE_SECONDS):
                    answer = await asker.get(f"{route}?file={encoded}")
                assert_no_secret(answer)
                assert answer.status_code in {404, 422}, (name, answer.status_code, answer.text)
                if answer.status_code == 404:
                    assert "File not found" in answer.json()["message"], name


def _every_byte(name: str) -> str:
    return "".join(f"%{byte:02x}" for byte in os.fsencode(name))


async def test_encoded_names_inside(app: Any) -> None:
    """Percent-encoding is undone once, and only what it then says counts."""
    async with client(app) as asker:
        for query in ("inside.h5", "%69nside.h5", "sub/../inside.h5", "./inside.h5"):
            answer = await asker.get(f"/data?file={query}&path=%2Fdata")
            assert answer.status_code in {200, 404}, query
            if ".." not in query and "./" not in query:
                assert answer.json() == INSIDE.tolist()


@pytest.mark.slow_on_trio
async def test_symbolic_links_may_be_allowed(hostile: Hostile) -> None:
    """`follow_symlinks` opens the way out by symbolic link, and no other way."""
    from asgihive import H5Settings  # noqa: PLC0415  # a public name that another room writes

    following = service.H5App(hostile.root, H5Settings(follow_symlinks=True))
    async with client(following) as asker:
        for name in ("symlink.h5", "symlink_relative.h5", "symlink_twice.h5"):
            answer = await asker.get("/data", params={"file": name, "path": "/data"})
            assert bytes(answer.json()) == MARKER, name
        answer = await asker.get("/data", params={"file": "directory/secret.h5", "path": "/data"})
        assert bytes(answer.json()) == MARKER
        for name in ("../outside/secret.h5", str(hostile.outside / "secret.h5"), "/etc/passwd"):
            answer = await asker.get("/meta", params={"file": name})
            assert answer.status_code == 404, name
            assert_no_secret(answer)
        for name in ("device.h5", "pipe.h5", "symlink_pipe.h5", "symlink_loop.h5", "directory"):
            with anyio.fail_after(PATIENCE_SECONDS):
                answer = await asker.get("/meta", params={"file": name})
            assert answer.status_code == 404, name
    # One of each three, since all were tried without the setting.
    for file, path in [each for each in hostile.escapes if "symlink" not in each[1]][::3]:
        for answer in await _all_answers(following, file, path):
            assert_no_secret(answer)


async def test_a_root_that_is_a_symbolic_link(hostile: Hostile) -> None:
    alias = hostile.root.with_name("alias")
    if not alias.is_symlink():
        alias.symlink_to(hostile.root)
    aliased = service.H5App(str(alias))
    async with client(aliased) as asker:
        answer = await asker.get("/data", params={"file": "inside.h5", "path": "/data"})
        assert answer.json() == INSIDE.tolist()
        answer = await asker.get("/meta", params={"file": "symlink.h5"})
        assert answer.status_code == 404


async def test_pipes_do_not_stop_the_service(app: Any, hostile: Hostile) -> None:
    """While many ask for pipes, in every way there is, others are served."""
    pipes = [
        {"file": "pipe.h5"},
        {"file": "symlink_pipe.h5"},
        {"file": "hostile_links.h5", "path": "/escape/pipe_data"},
        {"file": "hostile_virtual.h5", "path": "/pipe"},
        {"file": "hostile_storage.h5", "path": "/pipe"},
    ]
    served = []
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client(app) as asker, anyio.create_task_group() as tasks:
            for params in pipes * 3:
                tasks.start_soon(_get, asker, "/data", params)
            answer = await asker.get("/data", params={"file": "inside.h5", "path": "/data"})
            served.append(answer.json())
    assert served == [INSIDE.tolist()]


async def _get(asker: httpx.AsyncClient, route: str, params: dict[str, str]) -> None:
    assert_no_secret(await asker.get(route, params=params))


class OpenedPaths:
    """An audit hook that notes what Python opens while it is switched on."""

    def __init__(self) -> None:
        self.recording = False
        self.paths: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.recording and event == "open" and isinstance(arguments[0], str | bytes):
            self.paths.append(os.fsdecode(arguments[0]))

    def real_paths(self, root: Path) -> list[Path]:
        """What is there, symbolic links followed; relative names are opened beneath the root."""
        places = [(root / path).resolve() for path in self.paths if "\0" not in path]
        return [place for place in places if place.exists()]


@pytest.fixture(scope="session")
def opened() -> OpenedPaths:
    return OpenedPaths()  # an audit hook cannot be taken away again


_segments = st.sampled_from(
    ["..", ".", "", "outside", "root", "root-neighbour", "sub", "directory", "secret.h5",
     "secret.txt", "inside.h5", "symlink.h5", "inside.h5\0", "%2e%2e", "..\\", "~", "pipe.h5"]
)  # fmt: skip
_file_names = st.lists(_segments | st.text(max_size=3), min_size=1, max_size=8).map("/".join)


@given(prefix=st.sampled_from(["", "/", "//", "outside", "\0"]), name=_file_names)
@settings(
    max_examples=at_most(300),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@pytest.mark.slow_on_trio
async def test_no_name_opens_anything_outside(
    app: Any, hostile: Hostile, opened: OpenedPaths, prefix: str, name: str
) -> None:
    """Neither by what Python opens, nor, as libhdf5 opens unseen, by what is answered."""
    file = str(hostile.outside) + "/" + name if prefix == "outside" else prefix + name
    opened.paths.clear()
    opened.recording = True
    try:
        with anyio.fail_after(PATIENCE_SECONDS):
            async with client(app) as asker:
                answer = await asker.get("/paths", params={"file": file})
    finally:
        opened.recording = False
    assert_no_secret(answer)
    assert answer.status_code in {200, 404, 422}
    if answer.status_code == 200:
        assert "/group/data" in answer.json(), "only inside.h5 can be meant"
    assert not [path for path in opened.real_paths(hostile.root) if _is_secret(path, hostile)]


def _is_secret(path: Path, hostile: Hostile) -> bool:
    return path.is_relative_to(hostile.outside) or path.name.startswith("secret")
