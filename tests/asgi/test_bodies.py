"""Bodies: JSON and MessagePack by Content-Type, into structures of every kind, bounded."""

from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import anyio
import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect

from asgihive.asgi import Body, Form, Gate, Router
from tests.asgi.exchange import Exchange, answer, http, run

pytestmark = pytest.mark.anyio


class Inner(msgspec.Struct):
    name: str


class Note(msgspec.Struct):
    title: Annotated[str, msgspec.Meta(min_length=1)]
    items: list[Inner] = []


@dataclass
class Data:
    title: str


class Typed(TypedDict):
    title: str


@attrs.define
class Attrs:
    title: str


class Model(pydantic.BaseModel):
    title: str
    count: int = 0


def _echo(annotation: Any, **options: Any) -> Router:
    router = Router()

    async def show(body: Any) -> str:
        return repr(body)

    show.__annotations__["body"] = annotation
    router.post("/", **options)(show)
    return router


def _typed(content_type: str) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", content_type.encode())]


KINDS = [
    (Note, Note("a")),
    (Data, Data("a")),
    (Typed, {"title": "a"}),
    (Attrs, Attrs("a")),
    (dict, {"title": "a"}),
    (dict[str, Any], {"title": "a"}),
    (Model, Model(title="a")),
    (Annotated[Any, Body()], {"title": "a"}),
    (Note | None, Note("a")),
]


@pytest.mark.parametrize(("annotation", "value"), KINDS)
async def test_json_and_msgpack_become_structures(annotation: Any, value: Any) -> None:
    router = _echo(annotation)
    plain = {"title": "a"}
    for content_type, body in {
        "application/json": msgspec.json.encode(plain),
        "application/json; charset=utf-8": msgspec.json.encode(plain),
        "application/ld+json": msgspec.json.encode(plain),
        "application/msgpack": msgspec.msgpack.encode(plain),
        "application/vnd.msgpack": msgspec.msgpack.encode(plain),
        "Application/X-MsgPack": msgspec.msgpack.encode(plain),
    }.items():
        got = await answer(router, "/", "POST", body=body, headers=_typed(content_type))
        assert (got.status, got.body.decode()) == (200, repr(value)), content_type
    assert (await answer(router, "/", "POST", body=msgspec.json.encode(plain))).status == 200


async def test_lists_of_structures_and_marked_scalars() -> None:
    got = await answer(_echo(list[Note]), "/", "POST", body=b'[{"title": "a"}]')
    assert got.body.decode() == repr([Note("a")])
    got = await answer(_echo(list[Model]), "/", "POST", body=b'[{"title": "a"}]')
    assert got.body.decode() == repr([Model(title="a")])
    got = await answer(_echo(Annotated[list[int], Body()]), "/", "POST", body=b"[1, 2]")
    assert got.body == b"[1, 2]"
    raw = _echo(Annotated[bytes, Body()])
    got = await answer(raw, "/", "POST", body=b"\xff\0", headers=_typed("image/tiff"))
    assert got.body.decode() == repr(b"\xff\0")


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "x"])
async def test_other_content_types_are_415(content_type: str) -> None:
    got = await answer(_echo(Note), "/", "POST", body=b"a=1", headers=_typed(content_type))
    assert got.status == 415
    assert got.headers["accept"] == "application/json, application/msgpack"
    assert content_type in got.message
    assert "application/msgpack" in got.message


@pytest.mark.parametrize(
    ("annotation", "body", "where", "message"),
    [
        (Note, b"{", ["body"], "Input data was truncated"),
        (Note, b"\xff", ["body"], "JSON is malformed: invalid character (byte 0)"),
        (Note, b'{"title": ""}', ["body", "title"], "Expected `str` of length >= 1"),
        (Note, b"{}", ["body"], "Object missing required field `title`"),
        (
            Note,
            b'{"title": "a", "items": [{"name": "x"}, {"name": 5}]}',
            ["body", "items", 1, "name"],
            "Expected `str`, got `int`",
        ),
        (dict[str, int], b'{"a": "x"}', ["body", "..."], "Expected `int`, got `str`"),
        (Model, b'{"title": 5}', ["body", "title"], "Input should be a valid string"),
        (
            Note,
            b"",
            ["body"],
            "it is missing; application/json and application/msgpack are accepted",
        ),
        (dict, b'{"a":' * 100_000, ["body"], "it is nested too deeply"),
        (Note, b'{"title": "\xff"}', ["body"], "it has text that is not UTF-8"),
    ],
)
async def test_wrong_bodies_are_422_and_say_where(
    annotation: Any, body: bytes, where: list[Any], message: str
) -> None:
    got = await answer(_echo(annotation, max_body_bytes=1 << 20), "/", "POST", body=body)
    assert got.status == 422
    assert got.json["errors"] == [{"where": where, "message": message}]
    assert got.message.startswith("The body is wrong")


async def test_all_of_what_pydantic_finds_is_reported() -> None:
    got = await answer(_echo(Model), "/", "POST", body=b'{"count": "x"}')
    assert [each["where"] for each in got.json["errors"]] == [["body", "title"], ["body", "count"]]
    assert "'title'" in got.message


@given(st.binary(max_size=60))
def test_no_body_makes_a_server_error(body: bytes) -> None:
    for annotation in (Note, Model, dict[str, Any]):
        for content_type in ("application/json", "application/msgpack"):
            exchange = anyio.run(_post, annotation, body, content_type)
            assert exchange.status in {200, 422}


async def _post(annotation: Any, body: bytes, content_type: str) -> Exchange:
    return await answer(_echo(annotation), "/", "POST", body=body, headers=_typed(content_type))


async def test_a_default_makes_the_body_optional() -> None:
    router = Router()

    @router.post("/")
    async def handler(note: Note | None = None) -> str:
        return repr(note)

    assert (await answer(router, "/", "POST")).body == b"None"
    assert (await answer(router, "/", "POST", body=b'{"title": "a"}')).body != b"None"


async def test_long_bodies_are_413_announced_or_not() -> None:
    router = _echo(dict, max_body_bytes=10)
    fits = await answer(router, "/", "POST", body=b'{"a": 123}')
    assert fits.status == 200
    announced = http("/", "POST", headers=[(b"content-length", b"11")])
    announced.incoming = []
    chunked = http("/", "POST")
    chunked.incoming = [
        {"type": "http.request", "body": b"123456", "more_body": True},
        {"type": "http.request", "body": b"78901", "more_body": True},
    ]
    for exchange in (announced, chunked):
        await run(Gate(router), exchange)
        assert exchange.status == 413
        assert "10 bytes" in exchange.message
        assert exchange.incoming == []


async def test_the_limit_of_the_router_is_the_default() -> None:
    inner, outer = Router(max_body_bytes=2), Router()

    @inner.post("/a")
    async def handler(body: dict[str, int]) -> None: ...

    @inner.post("/b", max_body_bytes=100)
    async def longer(body: dict[str, int]) -> None: ...

    outer.include_router(inner)
    for router in (inner, outer):
        assert (await answer(router, "/a", "POST", body=b'{"a": 1}')).status == 413
        assert (await answer(router, "/b", "POST", body=b'{"a": 1}')).status == 204


async def test_bodies_come_in_pieces_and_large_ones_are_decoded_elsewhere() -> None:
    exchange = http("/", "POST")
    body = msgspec.json.encode({"k": "v" * 200_000})
    exchange.incoming = [
        {"type": "http.request", "body": body[:70_000], "more_body": True},
        {"type": "http.request", "body": body[70_000:], "more_body": False},
    ]
    router = Router()

    @router.post("/")
    async def handler(body: dict[str, str]) -> int:
        return len(body["k"])

    assert (await run(router, exchange)).json == 200_000


async def test_a_client_that_goes_while_it_sends_is_no_error() -> None:
    exchange = http("/", "POST")
    exchange.incoming = [{"type": "http.request", "body": b"{", "more_body": True}]
    exchange.gone.set()
    with pytest.raises(ClientDisconnect):
        await run(_echo(Note), exchange)
    assert exchange.sent == []


async def test_a_length_that_is_no_number_says_nothing() -> None:
    router = Router()

    @router.post("/")
    async def store(body: Annotated[bytes, Body()], size: int = 1) -> int:
        return len(body) * size

    @router.post("/form")
    async def take(name: Annotated[str, Form()]) -> str:
        return name

    length = (b"content-length", "²".encode("latin-1"))
    form = (b"content-type", b"application/x-www-form-urlencoded")
    got = await run(Gate(router), http("/", "POST", body=b"abc", headers=[length]))
    assert (got.status, got.json) == (200, 3)
    got = await run(Gate(router), http("/form", "POST", body=b"name=a", headers=[length, form]))
    assert (got.status, got.body) == (200, b"a")
