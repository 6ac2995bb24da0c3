"""The rows of the migration page about responses do what FastAPI's arguments do."""

from collections.abc import AsyncIterator
from typing import Any

import fastapi
import msgspec
import pydantic
import pytest
from fastapi.responses import HTMLResponse, StreamingResponse

from asgihive.asgi import Router
from tests.asgi.exchange import Exchange, http, run
from tests.docs.page import MIGRATION

pytestmark = pytest.mark.anyio


class Out(pydantic.BaseModel):
    name: str
    nick: str | None = None


class Stored(Out):
    password: str


class OutStruct(msgspec.Struct, omit_defaults=True):
    name: str
    nick: str | None = None


STORED = Stored(name="ada", password="hash")


def test_the_page_has_these_rows() -> None:
    rows = {first for first, _ in MIGRATION.table("| fastapi-hive | asgihive |")}
    for argument in (
        "response_model=UserOut",
        "response_model=None",
        "response_model_exclude_unset, …_exclude_none",
        "response_class=HTMLResponse",
        "response_class=StreamingResponse",
        "status_code=201",
    ):
        assert argument in rows


async def _same(theirs: Any, arguments: dict[str, Any], ours: Any, **options: Any) -> Exchange:
    """Ask both, and find that status, media type and body are the same."""
    app, router = fastapi.FastAPI(), Router()
    app.get("/", **arguments)(theirs)
    router.get("/", **options)(ours)
    expected, got = await run(app, http()), await run(router, http())
    assert (got.status, got.body) == (expected.status, expected.body)
    media_types = [each.headers["content-type"].partition(";")[0] for each in (got, expected)]
    assert media_types[0] == media_types[1]
    return got


async def test_a_model_and_a_status() -> None:
    async def theirs() -> Any:
        return STORED

    async def ours() -> Out:
        return STORED

    got = await _same(theirs, {"response_model": Out, "status_code": 201}, ours, status=201)
    assert got.json == {"name": "ada", "nick": None}


async def test_many_models() -> None:
    async def theirs() -> Any:
        return {"a": [STORED]}

    async def ours() -> dict[str, list[Out]]:
        return {"a": [STORED]}

    await _same(theirs, {"response_model": dict[str, list[Out]]}, ours)


@pytest.mark.parametrize(
    "argument", ["response_model_exclude_unset", "response_model_exclude_none"]
)
async def test_what_is_excluded(argument: str) -> None:
    async def theirs() -> Any:
        return STORED

    async def ours() -> OutStruct:
        return STORED  # type: ignore[return-value]  # it has the attributes

    got = await _same(theirs, {"response_model": Out, argument: True}, ours)
    assert got.json == {"name": "ada"}


async def test_no_model() -> None:
    async def theirs() -> Any:
        return {"password": "shown"}

    async def unannotated():  # type: ignore[no-untyped-def]  # noqa: ANN202  # what is tested
        return {"password": "shown"}

    for ours in (theirs, unannotated):
        await _same(theirs, {"response_model": None}, ours)


async def test_classes_of_responses() -> None:
    async def theirs() -> str:
        return "<p>"

    async def ours() -> HTMLResponse:
        return HTMLResponse("<p>")

    await _same(theirs, {"response_class": HTMLResponse}, ours)
    await _same(theirs, {"response_class": HTMLResponse}, theirs, media_type="text/html")

    async def blocks() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    async def streamed() -> StreamingResponse:
        return StreamingResponse(blocks(), media_type="application/octet-stream")

    await _same(streamed, {"response_class": StreamingResponse}, blocks)
