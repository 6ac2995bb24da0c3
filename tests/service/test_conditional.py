"""Conditional requests over whole exchanges: what a client has already is not sent, nor read."""

import io
import math
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio.to_thread
import h5py
import numpy as np
import pytest

from asgihive.asgi.request_fields import format_http_date
from asgihive.concurrency import Lane
from asgihive.hdf5 import sandbox
from asgihive.service import H5App
from asgihive.settings import H5Settings
from tests.service import versions
from tests.service.asking import ask, held
from tests.service.bounds import bounded
from tests.zoo.arrow_tables import ARROW

pytestmark = pytest.mark.anyio

OLD = 1_000_000_000  # seconds since 1970
LARGE = 70_000  # elements, more than are encoded in one piece of text

FORMATS = ("json", "bin", "npy", "csv", "tiff", "msgpack", *ARROW)
REQUESTS: dict[str, tuple[str, dict[str, str]]] = {
    "meta": ("/meta", {}),
    "meta as msgpack": ("/meta", {"format": "msgpack"}),
    "attr": ("/attr", {}),
    "paths": ("/paths", {}),
    "stats": ("/stats", {"path": "values"}),
    "histogram": ("/histogram", {"path": "values", "bins": "7"}),
    **{each: ("/data", {"path": "values", "format": each}) for each in FORMATS},
    "an empty dataspace": ("/data", {"path": "empty"}),
    "nothing selected": ("/data", {"path": "values", "selection": "5:5", "format": "bin"}),
    "streamed": ("/data", {"path": "large", "format": "bin"}),
    "streamed text": ("/data", {"path": "large"}),
    "every other one": ("/data", {"path": "large", "max_points": "100", "method": "nearest"}),
    "means": ("/data", {"path": "large", "max_points": "100"}),
    "streamed means": ("/data", {"path": "large", "max_points": "69999", "format": "bin"}),
}
each_request = pytest.mark.parametrize("name", REQUESTS)


def write(file: Path, value: int = 1) -> None:
    """A file that says it was modified long ago; over what was there, as `cp` does it."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as out:
        out.attrs["value"] = value
        out["values"] = np.full((20, 30), value, "<i4")
        out.create_dataset("large", data=np.full(LARGE, value, "<i4"), chunks=(7000,))
        out["empty"] = h5py.Empty("<i4")
    versions.overwrite(file, buffer.getvalue())
    os.utime(file, (OLD, OLD))


def write_beside(file: Path, value: int) -> None:
    """The same content in another file of that name."""
    assert value
    versions.replace(file, file.read_bytes())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "x.h5")
    return tmp_path


@pytest.fixture
def app(root: Path) -> H5App:
    return bounded(root, read_ahead_bytes=1 << 16)


@pytest.fixture
def no_lanes(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From then on, nothing may be done but on the event loop, however slow the disk is."""
    monkeypatch.setattr(sandbox, "SLOW_STAT_SECONDS", math.inf)

    async def refuse(_lane: Lane, _function: Any, **_options: Any) -> Awaitable[Any]:
        raise AssertionError

    return lambda: monkeypatch.setattr(Lane, "run", refuse)


@each_request
@pytest.mark.slow_on_trio
async def test_a_tag_that_comes_back_is_304(
    app: H5App, name: str, no_lanes: Callable[[], None]
) -> None:
    route, query = REQUESTS[name]
    first = await ask(app, route, **query)
    assert first.status == 200, first.body[:300]
    assert re.fullmatch('"[0-9a-f]{32}"', first.headers["etag"])
    assert first.headers["cache-control"] == "no-cache"
    no_lanes()
    for tags in (first.headers["etag"], f'"x", W/{first.headers["etag"]}', "*"):
        again = await ask(app, route, {"if-none-match": tags}, **query)
        assert (again.status, again.body) == (304, b"")
        kept = ("etag", "last-modified", "cache-control", "vary", "x-content-type-options")
        expected = {each: first.headers[each] for each in kept if each in first.headers}
        sent = {each: value for each, value in again.headers.items() if each != "server-timing"}
        assert sent == expected


@each_request
@pytest.mark.slow_on_trio
async def test_a_tag_outlives_the_service(app: H5App, root: Path, name: str) -> None:
    route, query = REQUESTS[name]
    tag = (await ask(app, route, **query)).headers["etag"]
    other = H5App(root, H5Settings(answer_cache_bytes=0))
    for _ in range(2):
        assert (await ask(other, route, {"if-none-match": tag}, **query)).status == 304
        assert (await ask(other, route, {"if-none-match": '"x"'}, **query)).status == 200


@each_request
@pytest.mark.parametrize("change", [write, write_beside])
@pytest.mark.slow_on_trio
async def test_what_has_changed_is_sent(
    app: H5App, root: Path, name: str, change: Callable[[Path, int], None]
) -> None:
    """Also when size and modification time are what they were."""
    route, query = REQUESTS[name]
    first = await ask(app, route, **query)
    before = (root / "x.h5").stat()
    await anyio.to_thread.run_sync(change, root / "x.h5", 2)
    os.utime(root / "x.h5", (OLD, OLD))
    after = (root / "x.h5").stat()
    assert (after.st_size, after.st_mtime) == (before.st_size, before.st_mtime)
    again = await ask(app, route, {"if-none-match": first.headers["etag"]}, **query)
    assert again.status == 200
    assert again.headers["etag"] != first.headers["etag"]


async def test_every_answer_has_a_tag_of_its_own(app: H5App) -> None:
    tags = {(await ask(app, route, **query)).headers["etag"] for route, query in REQUESTS.values()}
    assert len(tags) == len(REQUESTS)
    selected = {"path": "values", "selection": "1"}
    tags |= {
        (await ask(app, "/data", **selected, **more)).headers["etag"]
        for more in ({}, {"dtype": "safe"}, {"flatten": "true"}, {"format": "csv"})
    }
    assert len(tags) == len(REQUESTS) + 4


async def test_spelling_makes_no_difference(app: H5App) -> None:
    first = await ask(app, "/data", path="values", selection="1,2:5", format="csv")
    turned = await ask(app, "/data", format="csv", selection="1, 2 : 5", path="values", x="y")
    assert turned.headers["etag"] == first.headers["etag"]
    accepted = await ask(app, "/data", {"accept": "text/csv"}, path="values", selection="1,2:5")
    assert accepted.headers["etag"] == first.headers["etag"]


async def test_a_tag_is_of_one_format(app: H5App) -> None:
    tag = (await ask(app, "/data", {"accept": "text/csv"}, path="values")).headers["etag"]
    fields = {"accept": "application/json", "if-none-match": tag}
    assert (await ask(app, "/data", fields, path="values")).status == 200
    tag = (await ask(app, "/meta")).headers["etag"]
    fields = {"accept": "application/vnd.msgpack", "if-none-match": tag}
    assert (await ask(app, "/meta", fields)).status == 200


@each_request
@pytest.mark.slow_on_trio
async def test_head_is_as_get(app: H5App, name: str) -> None:
    route, query = REQUESTS[name]
    got = await ask(app, route, **query)
    head = await ask(app, route, {}, "HEAD", **query)
    described = [
        {k: v for k, v in each.headers.items() if k != "server-timing"} for each in (got, head)
    ]
    assert described[0] == described[1]
    assert head.body == b""
    fields = {"if-none-match": got.headers["etag"]}
    assert (await ask(app, route, fields, "HEAD", **query)).status == 304


# Files that take part


async def test_the_target_of_a_link_takes_part(app: H5App, root: Path) -> None:
    with h5py.File(root / "outer.h5", "w") as file:
        file["link"] = h5py.ExternalLink("x.h5", "/values")
    for route in ("/meta", "/data", "/stats"):
        query = {"file": "outer.h5", "path": "/link"}
        tag = (await ask(app, route, **query)).headers["etag"]
        assert (await ask(app, route, {"if-none-match": tag}, **query)).status == 304
        await anyio.to_thread.run_sync(write, root / "x.h5", 3)
        assert (await ask(app, route, {"if-none-match": tag}, **query)).status == 200


@pytest.mark.parametrize("form", ["bin", "json"])
async def test_the_file_of_a_link_takes_part(app: H5App, root: Path, form: str) -> None:
    def link_to(value: int) -> None:
        write(root / f"{value}.h5", value)
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as out:
            out["link"] = h5py.ExternalLink(f"{value}.h5", "/values")
        versions.replace(root / "outer.h5", buffer.getvalue())

    query = {"file": "outer.h5", "path": "/link", "format": form, "selection": "0,:1"}
    bodies = {"bin": [b"\1\0\0\0", b"\2\0\0\0"], "json": [b"[1]", b"[2]"]}[form]
    tags = set()
    for value, body in enumerate(bodies, 1):
        await anyio.to_thread.run_sync(link_to, value)
        for _ in range(3):
            answer = await ask(app, "/data", **query)
            assert answer.body == body
            tags.add(answer.headers["etag"])
    assert len(tags) == 2


@pytest.mark.parametrize("form", ["bin", "json"])
@pytest.mark.parametrize("path", ["small", "large"])
@pytest.mark.slow_on_trio
async def test_the_sources_of_a_virtual_dataset_take_part(
    app: H5App, root: Path, path: str, form: str
) -> None:
    length = {"small": 10, "large": LARGE}[path]
    layout = h5py.VirtualLayout((2, length), "<i4")
    for number in range(2):
        layout[number] = h5py.VirtualSource(f"source{number}.h5", "large", (LARGE,))[:length]
    with h5py.File(root / "virtual.h5", "w") as file:
        file.create_virtual_dataset(path, layout)
    await anyio.to_thread.run_sync(write, root / "source0.h5")
    query = {"file": "virtual.h5", "path": path, "format": form}
    tags = []
    for number in (0, 1, 1):
        # The second one is missing at first.
        answer = await ask(app, "/data", **query)
        tags.append(answer.headers["etag"])
        assert "last-modified" not in answer.headers
        assert (await ask(app, "/data", {"if-none-match": tags[-1]}, **query)).status == 304
        await anyio.to_thread.run_sync(write, root / f"source{number}.h5", 2)
        assert (await ask(app, "/data", {"if-none-match": tags[-1]}, **query)).status == 200
    assert len(set(tags)) == 3


async def test_values_outside_of_hdf5_have_no_tag(app: H5App, root: Path) -> None:
    (root / "raw.bin").write_bytes(bytes(12))
    with h5py.File(root / "raw.h5", "w") as file:
        file.create_dataset("x", (3,), "<i4", external=[("raw.bin", 0, 12)])
    answer = await ask(app, "/data", file="raw.h5", path="x")
    assert (answer.status, answer.json) == (200, [0, 0, 0])
    assert "etag" not in answer.headers
    answer = await ask(app, "/data", {"if-none-match": '"x"'}, file="raw.h5", path="x")
    assert answer.status == 200


@pytest.mark.slow_on_trio
async def test_a_live_file_has_no_validators(app: H5App, root: Path) -> None:
    live = root / "live.h5"
    with versions.writer() as writer:
        await anyio.to_thread.run_sync(writer, "begin", live)
        await anyio.to_thread.run_sync(writer, "append", live, 3)
        for route, query in (
            ("/meta", {}),
            ("/data", {"path": "rows"}),
            ("/stats", {"path": "rows"}),
        ):
            answer = await ask(app, route, file="live.h5", **query)
            assert answer.status == 200, answer.body
            assert not {"etag", "last-modified"} & set(answer.headers)
            assert answer.headers["cache-control"] == "no-cache"
        await anyio.to_thread.run_sync(writer, "end", live)


# Dates


async def test_dates(app: H5App) -> None:
    first = await ask(app, "/data", path="values")
    assert first.headers["last-modified"] == format_http_date(OLD)
    for date, status in (
        (format_http_date(OLD), 304),
        (format_http_date(OLD - 1), 200),
        (format_http_date(OLD + 1), 200),  # it was put there only now
        (format_http_date(5_000_000_000), 304),
        ("long ago", 200),
    ):
        for app_ in (app, H5App(app.store.sandbox.root, app.settings)):
            answer = await ask(app_, "/data", {"if-modified-since": date}, path="values")
            assert answer.status == status, date
            assert answer.headers["etag"] == first.headers["etag"]
    fields = {"if-modified-since": format_http_date(OLD), "if-none-match": '"x"'}
    assert (await ask(app, "/data", fields, path="values")).status == 200


async def test_what_was_written_this_second_has_no_date(app: H5App, root: Path) -> None:
    with h5py.File(root / "new.h5", "w") as file:
        file["x"] = 1
    os.utime(root / "new.h5", (5_000_000_000, 5_000_000_000))
    answer = await ask(app, "/data", file="new.h5", path="x")
    assert "etag" in answer.headers
    assert "last-modified" not in answer.headers


async def test_what_a_symbolic_link_leads_to_has_no_date(app: H5App, root: Path) -> None:
    (root / "current.h5").symlink_to("x.h5")
    answer = await ask(app, "/meta", file="current.h5")
    assert "last-modified" not in answer.headers
    write(root / "other.h5")
    (root / "current.h5").unlink()
    (root / "current.h5").symlink_to("other.h5")
    fields = {"if-none-match": answer.headers["etag"]}
    assert (await ask(app, "/meta", fields, file="current.h5")).status == 200


# Other preconditions, other fields


@pytest.mark.parametrize("name", ["meta", "json", "streamed", "stats", "means"])
@pytest.mark.slow_on_trio
async def test_what_must_not_have_changed(app: H5App, name: str) -> None:
    route, query = REQUESTS[name]
    tag = (await ask(app, route, **query)).headers["etag"]
    for fields, status in (
        ({"if-match": tag}, 200),
        ({"if-match": "*"}, 200),
        ({"if-match": f"W/{tag}"}, 412),
        ({"if-match": '"x"'}, 412),
        ({"if-match": tag, "if-none-match": tag}, 304),
        ({"if-match": '"x"', "if-none-match": tag}, 412),
        ({"if-unmodified-since": format_http_date(OLD)}, 200),
        ({"if-unmodified-since": format_http_date(OLD - 1)}, 412),
    ):
        for app_ in (app, H5App(app.store.sandbox.root, app.settings)):
            answer = await ask(app_, route, fields, **query)
            assert answer.status == status, fields
            if status == 412:
                assert "another version" in answer.message


@pytest.mark.parametrize("value", ["no-cache", "private, max-age=60", ""])
async def test_cache_control_is_a_setting(root: Path, value: str) -> None:
    app = H5App(root, H5Settings(cache_control=value))
    for name in ("meta", "json", "stats", "streamed"):
        route, query = REQUESTS[name]
        answer = await ask(app, route, **query)
        assert answer.headers.get("cache-control", "") == value


@pytest.mark.parametrize(
    ("name", "more", "vary"),
    [
        ("meta", {}, "accept, accept-encoding"),
        ("meta as msgpack", {}, "accept-encoding"),
        ("stats", {}, "accept, accept-encoding"),
        ("csv", {}, "accept-encoding"),
        ("bin", {}, None),
        ("npy", {}, None),
        ("tiff", {}, None),
        ("streamed", {}, None),
        ("streamed text", {}, "accept, accept-encoding"),
        ("streamed text", {"format": ""}, "accept, accept-encoding"),
    ],
)
async def test_vary(app: H5App, name: str, more: dict[str, str], vary: str | None) -> None:
    route, query = REQUESTS[name]
    assert (await ask(app, route, **query, **more)).headers.get("vary") == vary


async def test_vary_with_origins(root: Path) -> None:
    app = H5App(root, H5Settings(cors_origins=("https://viewer.example.org",)))
    fields = {"origin": "https://viewer.example.org"}
    answer = await ask(app, "/meta", fields)
    assert answer.headers["vary"] == "accept, accept-encoding, Origin"
    assert "etag" in answer.headers["access-control-expose-headers"]
    fields["if-none-match"] = answer.headers["etag"]
    unchanged = await ask(app, "/meta", fields)
    assert unchanged.status == 304
    assert unchanged.headers["access-control-allow-origin"] == "https://viewer.example.org"


async def test_errors_have_no_validators(app: H5App) -> None:
    fields = {"if-none-match": "*", "range": "bytes=0-1"}
    for status, query in (
        (404, {"file": "nothing.h5"}),
        (404, {"path": "no"}),
        (422, {"file": ""}),
    ):
        answer = await ask(app, "/data", fields, **query)
        assert answer.status == status
        assert not {"etag", "last-modified"} & set(answer.headers)


@pytest.mark.parametrize("path", ["values", "large"])
@pytest.mark.parametrize("form", ["bin", "json"])
@pytest.mark.slow_on_trio
async def test_nobody_holds_a_file_afterwards(app: H5App, path: str, form: str) -> None:
    query = {"path": path, "format": form}
    tag = (await ask(app, "/data", **query)).headers["etag"]
    for fields in (
        {"if-none-match": tag},
        {"if-none-match": tag, "if-match": "*"},
        {"if-match": '"x"'},
        {"range": "bytes=5-6"},
        {"range": "bytes=999999999-"},
    ):
        for service in (app, H5App(app.store.sandbox.root, H5Settings(answer_cache_bytes=0))):
            answer = await ask(service, "/data", fields, **query)
            assert answer.status in {200, 206, 304, 412, 416}
            assert (answer.status == 200) == (form == "json" and "range" in fields)
            assert held(service) == 0
