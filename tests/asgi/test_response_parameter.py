"""A parameter of the class Response: headers, cookies and status beside a result."""

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.websockets import WebSocket

from asgihive.asgi import BufferedResponse, Depends, HTTPException, Router
from asgihive.asgi.signatures import HandlerError
from tests.asgi.exchange import answer
from tests.asgi.test_signature import _handler

pytestmark = pytest.mark.anyio


def _decorate(response: Response) -> None:
    response.headers["x-own"] = "1"
    response.headers["content-type"] = "application/own"
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    response.status_code = 202


@pytest.mark.parametrize(
    "result", [{"a": 1}, "text", b"bytes", [1], np.arange(3), iter(["a"]), None]
)
async def test_headers_cookies_and_status_go_with_every_result(result: Any) -> None:
    router = Router()

    @router.get("/", status=201)
    async def handler(response: Response) -> Any:
        assert response.status_code == 201
        _decorate(response)
        return result

    got = await answer(router, "/")
    names = [name for name, _ in got.sent[0]["headers"]]
    assert got.status == 202
    assert (names.count(b"set-cookie"), names.count(b"content-type")) == (2, 1)
    assert names.count(b"content-length") <= 1
    assert (got.headers["x-own"], got.headers["content-type"]) == ("1", "application/own")


async def test_headers_go_with_responses_too_and_their_status_stays() -> None:
    router = Router()

    @router.get("/other")
    async def other(response: Response) -> JSONResponse:
        _decorate(response)
        return JSONResponse({"a": 1}, 418)

    @router.get("/same")
    async def same(response: Response) -> Response:
        _decorate(response)
        return response

    got = await answer(router, "/other")
    assert (got.status, got.headers["x-own"], got.json) == (418, "1", {"a": 1})
    got = await answer(router, "/same")
    assert (got.status, got.headers["x-own"], got.body) == (202, "1", b"")
    assert [name for name, _ in got.sent[0]["headers"]].count(b"set-cookie") == 2


async def test_dependencies_share_it_with_the_handler() -> None:
    router = Router()

    async def early(response: Response) -> AsyncIterator[None]:
        response.headers["x-first"] = "1"
        yield
        response.headers["x-committed"] = "yes"

    @router.get("/", dependencies=[Depends(early, scope="function")])
    def handler(response: Response, fail: bool = False) -> dict[str, int]:
        response.headers["x-second"] = "2"
        if fail:
            raise HTTPException(404, "No")
        return {}

    got = await answer(router, "/")
    assert [got.headers[f"x-{each}"] for each in ("first", "second", "committed")] == [
        "1",
        "2",
        "yes",
    ]
    assert "x-second" not in (await answer(router, "/?fail=1")).headers
    guarded = Router(dependencies=[early_only])
    guarded.mount("/app", BufferedResponse(b"app"))
    assert (await answer(guarded, "/app/x")).headers["x-first"] == "1"


async def early_only(response: Response) -> None:
    response.headers["x-first"] = "1"


async def test_statuses_without_a_body() -> None:
    router = Router()

    @router.get("/{status:int}")
    async def handler(status: int, response: Response) -> dict[str, int]:
        response.status_code = status
        return {"a": 1}

    @router.get("/nothing", status=204)
    async def nothing(response: Response) -> None:
        response.headers["x-own"] = "1"

    got = await answer(router, "/nothing")
    assert (got.status, got.body, got.headers) == (204, b"", {"x-own": "1"})
    got = await answer(router, "/204")
    assert (got.status, got.body, got.headers) == (204, b"", {})
    assert (await answer(router, "/201")).json == {"a": 1}
    assert (await answer(router, "/200")).headers["content-length"] == "7"


def test_no_other_class_and_no_websocket() -> None:
    async def socket(websocket: WebSocket, response: Response) -> None: ...

    with pytest.raises(HandlerError, match="a websocket has no Response"):
        Router().websocket("/")(socket)
    for kind in (JSONResponse, PlainTextResponse):
        with pytest.raises(HandlerError, match=f"no request gives a {kind.__name__}"):
            Router().get("/")(_handler(kind))
    with pytest.raises(HandlerError, match="is never used"):
        Router().get("/")(_handler(Response, Response()))
