"""What an outer application's own routing does with a mounted router, hive or `H5App`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from asgihive import H5App, Hive, HiveConfig, Router

pytestmark = pytest.mark.anyio

MOUNTED: dict[str, Callable[[Path], Any]] = {
    "router": lambda _: Router(),
    "hive": lambda _: Hive(HiveConfig(cornerstone_package_path=())),
    "h5app": H5App,
}


@pytest.mark.parametrize("kind", MOUNTED)
@pytest.mark.parametrize("framework", ["starlette", "fastapi"])
async def test_url_for_finds_its_own_routes(tmp_path: Path, framework: str, kind: str) -> None:
    async def home(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(request.url_for("home")))

    inner = MOUNTED[kind](tmp_path)
    app: Starlette
    if framework == "starlette":
        app = Starlette(routes=[Mount("/inner", app=inner), Route("/home", home, name="home")])
    else:
        app = FastAPI()
        app.mount("/inner", inner)
        app.add_route("/home", home, name="home")
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        assert (await client.get("/home")).text == "http://x/home"
