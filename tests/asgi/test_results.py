"""What handlers return, and the answer that it becomes."""

import datetime as dt
import enum
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.from_thread
import msgpack
import msgpack_numpy
import msgspec
import numpy as np
import pydantic
import pytest
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse

from asgihive.asgi import Router
from tests.asgi.exchange import Exchange, answer, http, run
from tests.zoo.arrow_tables import IS_INSTALLED, is_same_table, read_table

pytestmark = pytest.mark.anyio

JSON = "application/json"
MSGPACK = "application/msgpack"


class Point(msgspec.Struct):
    x: int
    y: float | None = None


@dataclass
class Data:
    at: dt.date


class Model(pydantic.BaseModel):
    at: dt.date


class Colour(enum.StrEnum):
    RED = "red"


def _returning(value: Any, **options: Any) -> Router:
    router = Router()

    @router.get("/", **options)
    async def handler() -> Any:
        return value

    return router


async def _ask(value: Any, accept: str = "", **options: Any) -> Exchange:
    headers = [(b"accept", accept.encode())] if accept else []
    return await answer(_returning(value, **options), "/", headers=headers)


@pytest.mark.parametrize(
    ("value", "body", "media_type"),
    [
        ("ä", "ä".encode(), "text/plain; charset=utf-8"),
        (b"\0\1", b"\0\1", "application/octet-stream"),
        (bytearray(b"ab"), b"ab", "application/octet-stream"),
        (5, b"5", JSON),
        (float("nan"), b"null", JSON),
        ([1, "a", None], b'[1,"a",null]', JSON),
        ({"a": Point(1)}, b'{"a":{"x":1,"y":null}}', JSON),
        (Point(1, 2.5), b'{"x":1,"y":2.5}', JSON),
        (Data(dt.date(2024, 1, 2)), b'{"at":"2024-01-02"}', JSON),
        (Model(at=dt.date(2024, 1, 2)), b'{"at":"2024-01-02"}', JSON),
        ([Model(at=dt.date(2024, 1, 2))], b'[{"at":"2024-01-02"}]', JSON),
        (Colour.RED, b'"red"', JSON),
        (False, b"false", JSON),
        (np.arange(4).reshape(2, 2), b"[[0,1],[2,3]]", JSON),
        (np.float64(1.5), b"1.5", JSON),
        (np.array(7), b"7", JSON),
        (
            {"mean": np.float32(0.5), "all": np.array([1, 2])},
            b'{"mean":0.5,"all":[1,2]}',
            JSON,
        ),
    ],
)
async def test_values_become_answers(value: Any, body: bytes, media_type: str) -> None:
    got = await _ask(value)
    assert (got.status, got.body, got.headers["content-type"]) == (200, body, media_type)
    assert got.headers["content-length"] == str(len(body))
    created = await _ask(value, status=201)
    assert (created.status, created.body) == (201, body)


async def test_nothing_is_204() -> None:
    got = await _ask(None)
    assert (got.status, got.body, got.headers) == (204, b"", {})
    accepted = await _ask(None, status=202)
    assert (accepted.status, accepted.headers) == (202, {"content-length": "0"})
    dropped = await _ask("text", status=204)
    assert (dropped.status, dropped.body, dropped.headers) == (204, b"", {})


async def test_responses_are_as_they_are_with_their_background() -> None:
    done = []
    task = BackgroundTask(lambda: done.append("done"))
    got = await _ask(JSONResponse({"a": 1}, 418, background=task), status=201)
    assert (got.status, got.json, done) == (418, {"a": 1}, ["done"])


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("*/*", JSON),
        ("application/msgpack", MSGPACK),
        ("application/vnd.msgpack", "application/vnd.msgpack"),
        ("application/msgpack;q=0.5, application/json", JSON),
        ("application/msgpack, application/json;q=0.5", MSGPACK),
        ("text/html", JSON),
    ],
)
async def test_accept_chooses_between_json_and_msgpack(accept: str, chosen: str) -> None:
    got = await _ask(Point(1), accept)
    assert got.headers["content-type"] == chosen
    assert got.headers["vary"] == "accept"
    decoder: Any = msgspec.json if chosen == JSON else msgspec.msgpack
    assert decoder.decode(got.body) == {"x": 1, "y": None}


async def test_a_media_type_of_the_decorator_is_final() -> None:
    got = await _ask({"type": "Point"}, MSGPACK, media_type="application/geo+json")
    assert (got.headers["content-type"], got.json) == ("application/geo+json", {"type": "Point"})
    assert (await _ask("a,b", media_type="text/csv")).headers["content-type"] == "text/csv"


async def test_arrays_come_in_the_format_that_accept_asks_for() -> None:
    array = np.arange(6, dtype="f4").reshape(2, 3)
    got = await _ask(array, "application/vnd.msgpack")
    assert np.array_equal(msgpack_numpy.unpackb(got.body), array)
    got = await _ask(array, "text/csv")
    assert got.headers["content-type"].startswith("text/csv")
    assert got.headers["content-disposition"] == 'attachment; filename="data.csv"'
    got = await _ask(array, "application/octet-stream")
    assert got.body == array.tobytes()
    got = await _ask(np.array(["a"], object), "application/octet-stream")  # does not fit
    assert got.headers["content-type"] == JSON
    if IS_INSTALLED:
        got = await _ask(array, "application/vnd.apache.arrow.stream")
        assert is_same_table(read_table(got.body), array, "data")
    inside = await _ask({"array": array}, MSGPACK)
    assert np.array_equal(msgpack_numpy.decode(msgpack.unpackb(inside.body)["array"]), array)


@pytest.mark.parametrize("accept", ["", "application/octet-stream", "application/vnd.msgpack"])
async def test_large_arrays_are_streamed_whole(accept: str) -> None:
    array = np.asfortranarray(np.arange(300_000, dtype="i4").reshape(3, 100_000))
    got = await _ask(array, accept)
    if accept.endswith("stream"):
        assert got.body == array.tobytes()
        assert got.headers["content-length"] == str(array.nbytes)
    elif accept:
        assert np.array_equal(msgpack_numpy.unpackb(got.body), array)
    else:
        assert got.json == array.tolist()
        assert len(got.sent) > 3


async def test_large_containers_are_encoded_in_a_thread() -> None:
    values = list(range(5000))
    assert (await _ask(values)).json == values


async def test_what_cannot_be_encoded_names_the_handler() -> None:
    router = _returning([1j])
    with pytest.raises(TypeError, match=r"handler \(.*test_results.py:\d+\) returned .* complex"):
        await run(router, http("/"))


async def test_sync_handlers_run_in_threads_and_may_return_awaitables() -> None:
    router = Router()

    @router.get("/plain")
    def plain(x: int) -> Point:
        return Point(x)

    async def inner() -> Point:
        return Point(5)

    @router.get("/wrapped")
    def wrapped() -> Any:
        return inner()

    assert (await answer(router, "/plain?x=4")).json == {"x": 4, "y": None}
    assert (await answer(router, "/wrapped")).json == {"x": 5, "y": None}


def _streams() -> Router:
    router = Router()

    @router.get("/text")
    async def text() -> AsyncIterator[str]:
        yield "a"
        yield "ä"

    @router.get("/bytes")
    def blocks() -> Iterator[bytes]:
        yield b"a"
        yield b"b"

    @router.get("/lines")
    async def lines() -> AsyncIterator[Point | str]:
        yield Point(1)
        yield "text"

    @router.get("/unannotated")
    async def unannotated(n: int = 1) -> Any:
        return (b"x" for _ in range(n))

    @router.get("/empty")
    def empty() -> Iterator[Point]:
        return iter(())

    @router.get("/own", media_type="text/event-stream", status=206)
    async def own() -> AsyncIterator[str]:
        yield "data: 1\n\n"

    return router


@pytest.mark.parametrize(
    ("path", "media_type", "body"),
    [
        ("/text", "text/plain; charset=utf-8", "aä".encode()),
        ("/bytes", "application/octet-stream", b"ab"),
        ("/lines", "application/x-ndjson", b'{"x":1,"y":null}\n"text"\n'),
        ("/unannotated", "application/octet-stream", b"x"),
        ("/unannotated?n=0", "application/x-ndjson", b""),
        ("/empty", "application/x-ndjson", b""),
    ],
)
async def test_iterators_stream(path: str, media_type: str, body: bytes) -> None:
    got = await answer(_streams(), path)
    assert (got.status, got.headers["content-type"], got.body) == (200, media_type, body)
    assert "content-length" not in got.headers
    head = await answer(_streams(), path, "HEAD")
    assert (head.status, head.headers, head.body) == (200, got.headers, b"")


async def test_streams_have_the_decorators_status_and_media_type() -> None:
    got = await answer(_streams(), "/own")
    assert (got.status, got.headers["content-type"]) == (206, "text/event-stream")


async def test_an_error_before_the_first_item_is_answered_and_later_ones_abort() -> None:
    router = Router()

    @router.get("/{n}")
    async def handler(n: int) -> Any:
        async def items() -> AsyncIterator[int]:
            for each in range(n):
                yield each
            raise LookupError("broken")

        return items()

    assert (await answer(router, "/0")).status == 500
    exchange = http("/2")
    with pytest.raises(LookupError):
        await run(router, exchange)
    assert exchange.body == b"0\n1\n"
    assert not exchange.complete


async def test_generators_are_closed_when_the_client_is_gone() -> None:
    closed = []
    router = Router()
    exchange = http("/")

    @router.get("/")
    def handler() -> Iterator[bytes]:
        try:
            yield b"first"
            anyio.from_thread.run_sync(exchange.gone.set)
            while True:
                yield b""
        finally:
            closed.append(True)

    with anyio.fail_after(10):
        await run(router, exchange)
    assert closed == [True]


async def test_a_generator_that_waits_for_its_first_item_is_closed_on_cancellation() -> None:
    closed = []
    router = Router()

    async def items() -> AsyncIterator[Any]:
        try:
            await anyio.sleep_forever()
            yield 1
        finally:
            closed.append(True)

    @router.get("/")
    async def handler() -> Any:
        return items()

    with anyio.move_on_after(0.01):
        await run(router, http("/"))
    assert closed == [True]


async def test_head_is_answered_without_a_body() -> None:
    for value in (Point(1), "text", np.arange(3)):
        whole = await _ask(value)
        head = await answer(_returning(value), "/", "HEAD")
        assert (head.status, head.headers, head.body) == (200, whole.headers, b"")
