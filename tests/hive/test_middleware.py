"""Middleware around a hive: in which order, around what, and until when it can be added."""

from typing import Any

import pytest
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.websockets import WebSocket

from asgihive.asgi import HTTPException, Router
from asgihive.hive import (
    Component,
    ConfigurationError,
    CornerstoneHooks,
    Hive,
    HiveConfig,
    HiveRunning,
    ModuleHooks,
)
from tests.asgi.exchange import http, run, websocket
from tests.hive.services import client

pytestmark = pytest.mark.anyio


class Noting:
    """A middleware as Starlette has them, that notes who is asked and what is answered."""

    def __init__(self, app: Any, name: str, calls: list[str]) -> None:
        self.app, self.name, self.calls = app, name, calls

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls.append(f"{self.name} {scope['type']}")

        async def note(message: Any) -> None:
            if "status" in message:
                self.calls.append(f"{self.name} {message['status']}")
            await send(message)

        await self.app(scope, receive, note)


class Asking(CornerstoneHooks):
    websockets = True

    async def pre_endpoint_call(self) -> None:
        self.app_state["calls"].append("hook")


def make_router() -> Router:
    router = Router()

    @router.get("/")
    async def hello() -> str:
        return "hello"

    @router.get("/refused")
    async def refuse() -> str:
        raise HTTPException(409, "no")

    @router.get("/broken")
    async def fail() -> str:
        raise RuntimeError("broken")

    @router.websocket("/live")
    async def live(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    return router


def make_hive(calls: list[str], *hooks: Any, **options: Any) -> Hive:
    cornerstone = Component(
        kind="cornerstone",
        container="c",
        name="a",
        state={"calls": calls},
        modules=(ModuleHooks(hooks=hooks),),
    )
    endpoint = Component(kind="endpoint", container="e", name="x", router=make_router())
    return Hive(
        HiveConfig(cornerstone_package_path=()),
        cornerstones=[cornerstone],
        endpoints=[endpoint],
        entry_points=False,
        docs=False,
        **options,
    )


@pytest.mark.parametrize("with_hooks", [False, True])
async def test_it_is_around_hooks_and_routes_outermost_first(with_hooks: bool) -> None:
    calls: list[str] = []
    hooks = (Asking,) if with_hooks else ()
    middleware = [Middleware(Noting, each, calls) for each in ("first", "second")]
    hive = make_hive(calls, *hooks, middleware=middleware)
    hive.add_middleware(Noting, "added", calls=calls)
    inside = ["hook"] if with_hooks else []
    names = ["added", "first", "second"]
    async with hive.running():
        for path, status in (("", 200), ("refused", 409), ("broken", 500), ("nothing", 404)):
            calls.clear()
            assert (await run(hive, http(f"/e/x/{path}"))).status == status
            asked = [f"{each} http" for each in names]
            answered = [f"{each} {status}" for each in reversed(names)]
            assert calls == [*asked, *inside, *answered]
        calls.clear()
        assert (await run(hive, websocket("/e/x/live"))).types[0] == "websocket.accept"
        assert calls == [*(f"{each} websocket" for each in names), *inside]


async def test_a_hook_of_start_up_adds_it_for_one_life() -> None:
    calls: list[str] = []

    class Adding(CornerstoneHooks):
        def pre_endpoint_setup(self) -> None:
            if not calls:
                self.app.add_middleware(Noting, "added", calls)

    hive = make_hive(calls, Adding, middleware=[Middleware(Noting, "first", calls)])
    async with hive.running():
        await run(hive, http("/e/x/"))
        assert calls == ["added http", "first http", "first 200", "added 200"]
        with pytest.raises(HiveRunning, match="a hook of start-up, or code before it, can add"):
            hive.add_middleware(Noting, "late", calls)
    async with hive.running():
        calls.clear()
        await run(hive, http("/e/x/"))
        assert calls == ["first http", "first 200"]


async def test_cross_origin_headers_are_on_errors_too() -> None:
    middleware = [Middleware(CORSMiddleware, allow_origins=["https://lab.test"])]
    hive = make_hive([], middleware=middleware)
    async with hive.running(), client(hive) as asks:
        for path, status in (("/e/x/refused", 409), ("/e/x/broken", 500), ("/nothing", 404)):
            answer = await asks.get(path, headers={"origin": "https://lab.test"})
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == "https://lab.test"


async def test_a_hive_that_needs_no_lifespan_has_it_at_once() -> None:
    calls: list[str] = []
    component = Component(
        kind="endpoint", container="e", name="x", router=make_router(), needs_lifespan=False
    )
    config = HiveConfig(cornerstone_package_path=())
    hive = Hive(config, endpoints=[component], entry_points=False, docs=False)
    hive.add_middleware(Noting, "added", calls)
    await run(hive, http("/e/x/"))
    assert calls == ["added http", "added 200"]


async def test_what_is_no_middleware_ends_the_start() -> None:
    wrong: Any = Noting
    with pytest.raises(ConfigurationError, match=r"Middleware\(…\) of starlette.middleware"):
        make_hive([], middleware=[wrong])
    hive = make_hive([], middleware=[Middleware(wrong, "without the list")])
    with pytest.raises(ConfigurationError, match=r"middleware .*Noting.* failed with TypeError"):
        async with hive.running():
            pytest.fail("it cannot start")


class Replacing:
    """A middleware that makes another status of what passes it, as caches and proxies do."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def replace(message: Any) -> None:
            replaced = {"status": 299} if "status" in message else {}
            await send({**message, **replaced})

        await self.app(scope, receive, replace)


@pytest.mark.parametrize("with_middleware", [False, True])
async def test_hooks_see_the_status_that_the_endpoint_sent(with_middleware: bool) -> None:
    seen: list[int | None] = []

    class Looking(CornerstoneHooks):
        websockets = True

        async def post_endpoint_call(self) -> None:
            seen.append(self.status)

    middleware = [Middleware(Replacing)] if with_middleware else []
    hive = make_hive([], Looking, middleware=middleware)
    async with hive.running():
        for path, status in (("", 200), ("refused", 409), ("broken", 500), ("nothing", 404)):
            answer = await run(hive, http(f"/e/x/{path}"))
            assert answer.status == (299 if with_middleware else status)
        await run(hive, websocket("/e/x/live"))
        await run(hive, websocket("/e/x/nothing"))
    assert seen == [200, 409, 500, 404, 101, 403]
