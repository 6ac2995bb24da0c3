"""`Server-Timing` and the access log."""

import json
import logging
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import anyio
import h5py
import httpx
import numpy as np
import pytest
from starlette.types import Message

from asgihive.concurrency import STAGES
from asgihive.service import H5App
from asgihive.service.access_log import AccessEntry, JSONFormatter
from asgihive.service.gate import ServiceGate
from asgihive.settings import H5Settings

pytestmark = pytest.mark.anyio

LARGE_BYTES = 16 << 20


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    with h5py.File(root / "x.h5", "w") as file:
        file["values"] = np.arange(5)
        file["large"] = np.zeros(LARGE_BYTES, "u1")
        file.create_dataset("deep", data=np.zeros((64, 64)), chunks=(8, 8), compression="gzip")
    return root


def client(app: Any, **more: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, **more)
    headers = {"accept-encoding": "identity"}
    return httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers)


@pytest.fixture
def entries() -> Iterator[list[AccessEntry]]:
    """What is logged, in order; only where this is asked for is anything."""
    found: list[AccessEntry] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.__dict__["access"])
            assert record.getMessage() == str(found[-1])

    log, handler = logging.getLogger("asgihive.access"), Keeping()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield found
    log.setLevel(logging.NOTSET)
    log.removeHandler(handler)


def parts(answer: httpx.Response) -> dict[str, float]:
    """The metrics of the header (W3C Server Timing, section 4), in milliseconds."""
    found = {}
    for each in answer.headers["server-timing"].split(", "):
        match = re.fullmatch(r"([a-z]+);dur=(\d+\.\d{3})", each)
        assert match, each
        found[match[1]] = float(match[2])
    return found


URLS = (
    "/",
    "/meta?file=x.h5",
    "/attr?file=x.h5",
    "/data?file=x.h5&path=/deep",
    "/data?file=x.h5&path=/large&format=bin",
    "/stats?file=x.h5&path=/values",
    "/paths?file=x.h5",
)


@pytest.mark.parametrize("url", URLS)
async def test_every_answer_says_what_took_how_long(root: Path, url: str) -> None:
    async with client(H5App(root)) as http:
        for method in ("GET", "HEAD"):
            answer = await http.request(method, url)
            assert answer.status_code == 200
            spent = parts(answer)
            assert list(spent) == [each for each in (*STAGES, "total") if each in spent]
            assert "total" in spent
            assert spent.get("queue", 0.0) <= spent["total"]


async def test_the_first_answer_waited_for_a_thread_and_a_kept_one_did_not(root: Path) -> None:
    async with client(H5App(root)) as http:
        # A file that was written just now is waited for, and its answers are not kept at first.
        first = await http.get("/meta?file=x.h5")
        assert "queue" in parts(first)
        with anyio.fail_after(10):
            while "queue" in parts(await http.get("/meta?file=x.h5")):
                await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("url", ["/nothing", "/data?file=x.h5&path=/nothing", "/data?file=../x"])
async def test_errors_say_so_too(root: Path, url: str) -> None:
    async with client(H5App(root)) as http:
        answer = await http.get(url)
        assert answer.status_code == 404
        assert "total" in parts(answer)


async def test_the_header_is_off_by_a_setting(root: Path) -> None:
    app = H5App(root, H5Settings(server_timing=False, metrics=False, cors_origins=("*",)))
    async with client(app) as http:
        for url in URLS:
            answer = await http.get(url)
            assert "server-timing" not in answer.headers
            assert "timing-allow-origin" not in answer.headers


async def test_pages_that_may_ask_may_see_the_times(root: Path) -> None:
    origins = ("https://a.example", "https://b.example")
    async with client(H5App(root, H5Settings(cors_origins=origins))) as http:
        answer = await http.get("/", headers={"origin": origins[0]})
        assert answer.headers.get_list("timing-allow-origin") == list(origins)
    async with client(H5App(root)) as http:
        assert "timing-allow-origin" not in (await http.get("/")).headers


async def test_one_line_a_request(root: Path, entries: list[AccessEntry]) -> None:
    app = H5App(root)
    async with client(app, client=("192.0.2.7", 1234)) as http:
        sizes = [len((await http.get(url)).content) for url in URLS]
        await http.head("/data?file=x.h5&path=/large&format=bin")
        await http.post("/meta?file=x.h5")
    assert [each.sent_bytes for each in entries[: len(URLS)]] == sizes
    assert [f"{each.path}?{each.query}".rstrip("?") for each in entries[: len(URLS)]] == list(URLS)
    assert {each.client for each in entries} == {"192.0.2.7"}
    assert {each.status for each in entries[:-1]} == {200}
    assert (entries[-2].method, entries[-2].sent_bytes) == ("HEAD", 0)
    assert (entries[-1].method, entries[-1].status) == ("POST", 405)
    assert all(each.is_complete and each.seconds > 0 for each in entries)
    assert "queue" in entries[1].timings
    assert [each.route for each in entries] == [
        *(urlsplit(each).path for each in URLS),
        "/data",
        "",
    ]


async def test_the_text_of_a_line(entries: list[AccessEntry]) -> None:
    line = str(
        AccessEntry(
            *("::1", "GET", "/h5/data", "file=x.h5", "1.1", 200, 40, 0.0015),
            is_complete=True,
            timings={"queue": 0.0001, "read": 0.001},
        )
    )
    assert line == '::1 "GET /h5/data?file=x.h5 HTTP/1.1" 200 40 1.5ms queue=0.1ms read=1.0ms'
    assert not entries


@pytest.mark.parametrize(
    ("query", "logged"),
    [
        ("token=s3cret", "token=***"),
        ("file=x.h5&token=s3cret&path=/", "file=x.h5&token=***&path=/"),
        ("%74oken=s3cret&t%6Fken=s3cret", "%74oken=***&t%6Fken=***"),
        ("token=s3cret=s3cret", "token=***"),
        ("token", "token"),
        ("tokens=3&file=token", "tokens=3&file=token"),
        ("%zz=1&token=%73%33cret", "%zz=1&token=***"),
    ],
)
async def test_a_token_is_never_logged(
    root: Path, entries: list[AccessEntry], query: str, logged: str
) -> None:
    await exchange(H5App(root), query=query.encode())
    assert entries[0].query == logged
    assert "s3cret" not in str(entries[0])
    assert "s3cret" not in json.dumps(entries[0].to_fields())


TOKEN = "s3cr~et+/="
SPELT = (
    TOKEN,
    "s3cr~et%2B%2F%3D",
    "s3cr~et%2b%2f%3d",
    "%733cr%7eet+/=",
    "".join(f"%{each:02X}" for each in TOKEN.encode()),
    "s3cr~et%252B%25252f%3D",
)


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/meta", "TOKEN={}"),
        ("/meta", "file=x.h5;token={}"),
        ("/meta", "token%3D{}"),
        ("/meta", "toekn={}&file=x.h5"),
        ("/meta", "file=x.h5{}x"),
        ("/meta;token={}", "file=x.h5"),
        ("/{}/{}", "{}&{}"),
    ],
)
async def test_the_token_is_not_logged_in_a_place_of_its_own_either(
    root: Path, entries: list[AccessEntry], path: str, query: str
) -> None:
    service = H5App(root, H5Settings(token=TOKEN))
    for spelt, app in product(SPELT, (service, service.gate.make_outer(service))):
        raw = path.format(spelt, spelt)
        asked = {"path": unquote(raw), "raw_path": raw.encode()}
        await exchange(app, query=query.format(spelt, spelt).encode(), **asked)
        entry = entries.pop()
        assert (entry.status, entry.path, entry.query) == (
            401,
            path.format("***", "***"),
            query.format("***", "***"),
        )


async def test_what_is_like_the_token_is_logged(root: Path, entries: list[AccessEntry]) -> None:
    app = H5App(root, H5Settings(token="a.c"))
    await exchange(app, query=b"file=abc&path=%61bc&x=A.C&y=a%252c")
    assert entries[0].query == "file=abc&path=%61bc&x=A.C&y=a%252c"


HOSTILE: dict[str, Any] = {
    "path": '/\r\nFAKE "line"\\\x1b[31m\u2028é',
    "raw_path": None,
    "query_string": b'a=\r\n"b"\xff\x00 c',
    "method": "GE\nT",
}


async def test_no_request_writes_a_line_of_its_own(root: Path, entries: list[AccessEntry]) -> None:
    await exchange(H5App(root), **HOSTILE)
    (entry,) = entries
    record = logging.LogRecord("asgihive.access", logging.INFO, "", 0, "%s", (entry,), None)
    record.__dict__["access"] = entry
    for line in (str(entry), JSONFormatter().format(record)):
        assert line.isascii()
        assert line.isprintable()
    assert str(entry).count('"') == 2
    assert "%0D%0AFAKE" in entry.path


async def exchange(app: Any, query: bytes = b"", **more: Any) -> list[Message]:
    """What an application sends to a request as a server might hand it on."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "path": "/",
        "query_string": query,
        "headers": [],
        "client": None,
        **more,
    }
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


async def test_a_client_without_an_address(root: Path, entries: list[AccessEntry]) -> None:
    await exchange(H5App(root))
    assert entries[0].client == "-"


async def test_a_client_that_goes_away(root: Path, entries: list[AccessEntry]) -> None:
    app = H5App(root)
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/data",
        "query_string": b"file=x.h5&path=/large&format=bin",
        "headers": [],
    }

    async def receive() -> Message:
        await anyio.sleep_forever()
        raise AssertionError

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            raise OSError

    await app(scope, receive, send)
    (entry,) = entries
    assert (entry.status, entry.sent_bytes, entry.is_complete) == (200, 0, False)
    assert str(entry).endswith(" incomplete")


async def test_a_file_that_the_server_sends_by_its_path(entries: list[AccessEntry]) -> None:
    async def by_path(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"application/x-hdf5"), (b"content-length", b"4711")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.pathsend", "path": "/data/x.h5"})

    await exchange(ServiceGate(by_path, H5Settings()))
    assert (entries[0].sent_bytes, entries[0].is_complete) == (4711, True)


async def test_nothing_was_sent_at_all(root: Path, entries: list[AccessEntry]) -> None:
    app = H5App(root)

    async def gone() -> Message:
        return {"type": "http.disconnect"}

    async def send(_: Message) -> None:
        raise AssertionError

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/stats",
        "query_string": b"file=x.h5&path=/large",
        "headers": [],
    }
    await app(scope, gone, send)
    assert (entries[0].status, entries[0].is_complete) == (499, False)


async def test_an_outer_observer_does_it_once(root: Path, entries: list[AccessEntry]) -> None:
    service = H5App(root)
    async with client(service.gate.make_outer(service)) as http:
        answer = await http.get("/meta?file=x.h5")
    assert [each.route for each in entries] == ["/meta"]
    assert len(answer.headers.get_list("server-timing")) == 1


def test_lines_as_json() -> None:
    entry = AccessEntry(
        *("-", "GET", "/data", "file=x.h5", "1.1", 200, 40, 0.00151234),
        is_complete=True,
        timings={"queue": 0.0001},
        route="/data",
    )
    record = logging.LogRecord("asgihive.access", logging.INFO, "", 0, "%s", (entry,), None)
    record.__dict__["access"] = entry
    record.created = 0.5
    assert json.loads(JSONFormatter().format(record)) == {
        "time": "1970-01-01T00:00:00.500Z",
        "level": "info",
        "logger": "asgihive.access",
        "process": record.process,
        "client": "-",
        "method": "GET",
        "path": "/data",
        "query": "file=x.h5",
        "route": "/data",
        "http_version": "1.1",
        "status": 200,
        "bytes": 40,
        "duration_ms": 1.512,
        "complete": True,
        "timings_ms": {"queue": 0.1},
    }


def test_other_records_as_json() -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        _ = 1 / 0
    info = (raised.type, raised.value, raised.tb)
    record = logging.LogRecord("x", logging.ERROR, "", 0, "%s\n%s", ("a", "b"), info)
    line = JSONFormatter().format(record)
    assert "\n" not in line
    read = json.loads(line)
    assert (read["level"], read["message"]) == ("error", "a\nb")
    assert read["exception"].startswith("Traceback")


@pytest.mark.parametrize(
    ("url", "stages"),
    [
        ("/meta?file=x.h5", {"queue", "open", "encode"}),
        ("/data?file=x.h5&path=/values", {"queue", "open", "plan", "read", "encode"}),
        (
            "/data?file=x.h5&path=/deep&format=npy",
            {"queue", "open", "plan", "read", "decode", "encode"},
        ),
    ],
)
async def test_each_stage_is_measured_where_it_happens(
    root: Path, url: str, stages: set[str]
) -> None:
    async with client(H5App(root)) as http:
        spent = parts(await http.get(url))
    assert spent.keys() == stages | {"total"}
