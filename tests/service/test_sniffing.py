"""Every response says `nosniff`, once: values, errors, 304, preflights, pages, isolation."""

from pathlib import Path
from typing import Any

import h5py
import httpx
import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from asgihive.asgi import Router
from asgihive.cli.server import build_app
from asgihive.service import H5App
from asgihive.settings import H5Settings
from tests.asgi.exchange import http

pytestmark = pytest.mark.anyio

ORIGIN = "https://viewer.example"
VALUES = "/data?file=x.h5&path=/values"
ASKED = [
    ("GET", "/", {}, 200),
    ("HEAD", "/", {}, 200),
    ("GET", "/meta?file=x.h5", {}, 200),
    ("GET", VALUES, {}, 200),
    ("HEAD", VALUES, {}, 200),
    ("GET", VALUES + "&format=npy", {"range": "bytes=0-3"}, 206),
    ("GET", VALUES + "&format=npy", {"range": "bytes=9999999-"}, 416),
    ("GET", VALUES + "&selection=99", {}, 422),
    ("GET", "/meta?file=none.h5", {}, 404),
    ("GET", "/nothing", {}, 404),
    ("DELETE", "/data", {}, 405),
    ("GET", "/files", {}, 200),
    ("GET", "/file?file=x.h5", {}, 200),
    ("GET", "/health", {}, 200),
    ("GET", "/metrics", {}, 200),
    ("GET", "/openapi.json", {}, 200),
    ("GET", "/docs", {}, 200),
    ("POST", "/batch", {}, 422),
    ("OPTIONS", "/data", {"origin": ORIGIN, "access-control-request-method": "GET"}, 200),
    ("OPTIONS", "/data", {"origin": "null", "access-control-request-method": "GET"}, 400),
    ("GET", "/", {"content-length": "1", "transfer-encoding": "chunked"}, 400),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["values"] = np.arange(5)
    return tmp_path


def client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


def nosniff(answer: httpx.Response) -> bool:
    return answer.headers.get_list("x-content-type-options") == ["nosniff"]


async def test_every_response(root: Path) -> None:
    async with client(H5App(root, H5Settings(cors_origins=(ORIGIN,)))) as asking:
        for method, target, headers, status in ASKED:
            answer = await asking.request(method, target, headers=headers)
            assert answer.status_code == status, target
            assert nosniff(answer), (method, target)
        again = {"if-none-match": (await asking.get(VALUES)).headers["etag"]}
        answer = await asking.get(VALUES, headers=again)
        assert (answer.status_code, nosniff(answer)) == (304, True)


async def test_refusals_for_want_of_a_token(root: Path) -> None:
    async with client(H5App(root, H5Settings(token="open-sesame"))) as asking:
        answer = await asking.get(VALUES)
        assert (answer.status_code, nosniff(answer)) == (401, True)


async def test_below_a_prefix_and_beside_it(root: Path) -> None:
    async with client(build_app(str(root), H5Settings(), "/h5")) as asking:
        for target, status in (("/h5" + VALUES, 200), ("/h5", 200), ("/elsewhere", 404)):
            answer = await asking.get(target)
            assert (answer.status_code, nosniff(answer)) == (status, True), target


@pytest.mark.parametrize("outer", [Starlette, Router])
async def test_mounted(root: Path, outer: type[Any]) -> None:
    h5 = H5App(root)
    app = Starlette(routes=[Mount("/h5", app=h5)]) if outer is Starlette else Router()
    if isinstance(app, Router):
        app.mount("/h5", h5)
    async with client(app) as asking:
        assert nosniff(await asking.get("/h5" + VALUES))
        assert nosniff(await asking.get("/h5/nothing"))


@pytest.mark.slow
async def test_a_response_from_a_reader_process_says_it_once(root: Path) -> None:
    app = H5App(root, H5Settings(isolation="process", decode_lanes=1))
    async with app.running(), client(app) as asking:
        for target in (VALUES, "/meta?file=none.h5", "/files", "/health"):
            assert nosniff(await asking.get(target)), target


async def test_the_denial_of_a_websocket(root: Path) -> None:
    scope = {**http("/nothing").scope, "type": "websocket", "subprotocols": []}
    scope["extensions"] = {"websocket.http.response": {}}
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await H5App(root)(scope, receive, send)
    assert sent[0]["type"] == "websocket.http.response.start"
    assert (b"x-content-type-options", b"nosniff") in sent[0]["headers"]
