"""The hooks around requests are around websockets only where a component asks for it."""

import logging
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from asgihive.asgi import Router
from asgihive.hive import (
    Component,
    ComponentError,
    CornerstoneHooks,
    Hive,
    HiveConfig,
    HiveMiddleware,
    ModuleHooks,
)
from tests.asgi.exchange import http, run, websocket
from tests.hive.services import config, write

pytestmark = pytest.mark.anyio


def make_router() -> Router:
    router = Router()

    @router.websocket("/")
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    @router.get("/")
    async def hello() -> str:
        return "hello"

    return router


def make_hive(modules: tuple[ModuleHooks, ...]) -> Hive:
    cornerstone = Component(kind="cornerstone", container="c", name="n", modules=modules)
    endpoint = Component(kind="endpoint", container="e", name="x", router=make_router())
    none = HiveConfig(cornerstone_package_path=())
    return Hive(
        none, cornerstones=[cornerstone], endpoints=[endpoint], entry_points=False, docs=False
    )


@pytest.mark.parametrize(
    ("of_module", "of_class", "runs"),
    [
        (None, None, False),
        (True, None, True),
        (False, None, False),
        (None, True, True),
        (False, True, True),
        (True, False, False),
    ],
)
async def test_hooks_are_asked_for(
    of_module: bool | None, of_class: bool | None, runs: bool, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []

    class Hooks(CornerstoneHooks):
        websockets = of_class

        async def pre_endpoint_call(self) -> None:
            calls.append(self.request.method)  # type: ignore[attr-defined]  # a request's, if it is one

        async def post_endpoint_call(self) -> None:
            calls.append(str(self.status))

    hive = make_hive((ModuleHooks(hooks=(Hooks,), websockets=of_module),))
    async with hive.running():
        answer = await run(hive, websocket("/e/x/"))
        assert answer.types == ["websocket.accept", "websocket.close"]
        assert calls == (["GET", "101"] if runs else [])
        await run(hive, http("/e/x/"))
        assert calls[-2:] == ["GET", "200"]
    warnings = [each.message for each in caplog.records if each.levelno == logging.WARNING]
    says_nothing = of_module is None and of_class is None
    assert len(warnings) == says_nothing
    if warnings:
        assert (
            "hooks of c.n do not run for websockets (/e/x/): say `websockets = True`" in warnings[0]
        )


async def test_a_middleware_without_hooks_for_websockets_lets_them_pass() -> None:
    class Hooks(CornerstoneHooks):
        async def pre_endpoint_call(self) -> None:
            raise ZeroDivisionError

    async def fail(websocket: WebSocket) -> None:
        raise LookupError

    hive = make_hive((ModuleHooks(hooks=(Hooks,)),))
    app = Starlette(routes=[WebSocketRoute("/", fail)])
    async with hive.running():
        with pytest.raises(LookupError):
            await run(HiveMiddleware(app, hive), websocket())


SAYS = """
from contextlib import asynccontextmanager

websockets = {value}

@asynccontextmanager
async def request(context):
    context.app.calls.append(context.request.method)
    yield
"""


@pytest.mark.parametrize("value", [True, False])
async def test_a_module_says_so(tmp_path: Path, value: bool) -> None:
    write(tmp_path, {"cornerstones/a.py": SAYS.format(value=value)})
    hive: Any = Hive(
        config(endpoint_package_paths=()), base=tmp_path, entry_points=False, docs=False
    )
    hive.calls = []
    hive.router.include_router(make_router())
    async with hive.running():
        await run(hive, websocket())
    assert hive.calls == (["GET"] if value else [])


async def test_nonsense_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"cornerstones/a.py": "websockets = 1"})
    hive = Hive(config(endpoint_package_paths=()), base=tmp_path, entry_points=False)
    with pytest.raises(ComponentError, match="websockets is 1: True or False is accepted"):
        async with hive.running():
            pass
