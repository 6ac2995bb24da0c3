"""Where a hive runs: under servers, in other applications, around them, and not at all."""

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from anyio.from_thread import start_blocking_portal
from fastapi import FastAPI
from granian.constants import Interfaces
from granian.server.embed import Server
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from asgihive.asgi import Router
from asgihive.hive import (
    Component,
    CornerstoneHooks,
    Hive,
    HiveConfig,
    HiveError,
    HiveMiddleware,
    HiveRunning,
    ModuleHooks,
    compose_lifespans,
)
from tests.asgi.exchange import http, run, websocket
from tests.hive.services import RecordingHive, client, config, write
from tests.service import servers

NONE = HiveConfig(cornerstone_package_path=())

DB = """
from asgihive.hive import CornerstoneHooks

class CornerstoneHooksImpl(CornerstoneHooks):
    def pre_endpoint_setup(self):
        self.app.note("up")
        self.app_state["life"] = "alive"

    async def post_endpoint_teardown(self):
        self.app.note("down")

    async def pre_endpoint_call(self):
        self.request_state["session"] = "open"

    def post_endpoint_call(self):
        self.app.note(f"done {self.status}")
"""
SHOW = """
from asgihive.asgi import Router
from starlette.requests import Request
from starlette.responses import StreamingResponse

router = Router()

def states(request):
    life = request.app.state.cornerstones["cornerstones.db"]["life"]
    return [life, request.state.cornerstones["cornerstones.db"]["session"]]

@router.get("/states")
async def show(request: Request):
    return states(request)

@router.get("/stream")
async def stream(request: Request):
    async def blocks():
        for word in states(request):
            yield word.encode()

    return StreamingResponse(blocks())
"""


@pytest.fixture
def hive(tmp_path: Path) -> RecordingHive:
    write(tmp_path, {"cornerstones/db.py": DB, "endpoints/show.py": SHOW})
    return RecordingHive(config(), base=tmp_path)


def check(asks: httpx.Client, prefix: str = "") -> None:
    assert asks.get(f"{prefix}/endpoints/show/states").json() == ["alive", "open"]
    assert asks.get(f"{prefix}/endpoints/show/stream").content == b"aliveopen"
    assert asks.get(f"{prefix}/endpoints/nowhere").status_code == 404


CALLS = ["up", "done 200", "done 200", "done 404", "down"]


def in_order(calls: list[str]) -> list[str]:
    """Sorted where requests may overlap: a hook runs after the last byte, clients go on then."""
    done = iter(sorted(each for each in calls if each.startswith("done")))
    return [next(done) if each.startswith("done") else each for each in calls]


@contextmanager
def granian(app: Any) -> Iterator[str]:
    """As `servers.serving`: in a thread of this process, on a free port; has been asked once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    async def build() -> Any:
        return Server(app, port=port, interface=Interfaces.ASGI, log_enabled=False)

    with start_blocking_portal() as portal:
        server = portal.call(build)
        served = portal.start_task_soon(server.serve)
        url = f"http://127.0.0.1:{port}"
        try:
            with httpx.Client(transport=httpx.HTTPTransport(retries=8), trust_env=False) as patient:
                assert patient.get(url).status_code == 404
            yield url
        finally:
            portal.call(server.stop)  # in its own thread: an event of its loop
            served.result(servers.PATIENCE)


@pytest.mark.parametrize("server", servers.SERVERS)
def test_by_itself(hive: RecordingHive, server: str) -> None:
    with servers.serving(hive, server) as url, servers.client(url) as asks:
        check(asks)
    assert in_order(hive.taken()) == CALLS


def test_by_itself_under_granian(hive: RecordingHive) -> None:
    with granian(hive) as url, servers.client(url) as asks:
        check(asks)
    # The fixture asks once for what is not there, to know that it serves.
    assert in_order(hive.taken()) == ["up", "done 200", "done 200", "done 404", "done 404", "down"]


def _fastapi(hive: Hive, lifespan: Any) -> FastAPI:
    app = FastAPI(lifespan=lifespan)
    app.mount("/api", hive)
    return app


EMBEDDINGS: dict[str, Callable[[Hive, Any], Any]] = {
    "starlette": lambda hive, lifespan: Starlette(
        routes=[Mount("/api", app=hive)], lifespan=lifespan
    ),
    "fastapi": _fastapi,
}


@pytest.mark.parametrize("server", ["uvicorn-httptools", "hypercorn-trio"])
@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_mounted(hive: RecordingHive, embedding: str, server: str) -> None:
    app = EMBEDDINGS[embedding](hive, hive.lifespan)
    with servers.serving(app, server) as url, servers.client(url) as asks:
        check(asks, "/api")
    assert in_order(hive.taken()) == CALLS


def test_mounted_in_a_hive_and_composed_with_another_lifespan(
    hive: RecordingHive, tmp_path: Path
) -> None:
    """A hive is an endpoint of another: it starts and stops with it, and sees itself as app."""
    inner = Component(kind="endpoint", container="in", name="ner", router=hive)
    outer = Hive(NONE, endpoints=[inner], entry_points=False, docs=False)

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:
        hive.note("before")
        yield {"word": "composed"}
        hive.note("after")

    async def word(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.state.word)

    app = Starlette(
        routes=[Route("/word", word), Mount("/api", app=outer)],
        lifespan=compose_lifespans(lifespan, outer.lifespan),
    )
    with servers.serving(app, "uvicorn-h11") as url, servers.client(url) as asks:
        check(asks, "/api/in/ner")
        assert asks.get("/word").text == "composed"
    assert in_order(hive.taken()) == ["before", *CALLS, "after"]


def test_an_application_of_another_framework_is_an_endpoint() -> None:
    """Its lifespan runs with the endpoint's, and its requests see what that yields."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:
        yield {"word": "from its lifespan"}

    app = FastAPI(lifespan=lifespan)

    @app.get("/word")
    async def word(request: Request) -> str:
        return str(request.state.word)

    endpoint = Component(kind="endpoint", container="e", name="other", router=app)
    hive = Hive(NONE, endpoints=[endpoint], entry_points=False)
    with servers.serving(hive, "uvicorn-h11") as url, servers.client(url) as asks:
        assert asks.get("/e/other/word").json() == "from its lifespan"
    (record,) = [each for each in hive.route_records() if each.url == "/e/other/word"]
    assert record.methods == ("GET",)
    assert record.handler.endswith("word")


def _own_routes() -> list[Route]:
    async def own(request: Request) -> PlainTextResponse:
        life = request.app.state.cornerstones["cornerstones.db"]["life"]
        session = request.state.cornerstones["cornerstones.db"]["session"]
        assert isinstance(request.app, Starlette)
        return PlainTextResponse(f"{life} {session}")

    async def failing(request: Request) -> PlainTextResponse:
        raise ZeroDivisionError

    return [Route("/own", own), Route("/failing", failing)]


@pytest.mark.anyio
@pytest.mark.parametrize("inside", [True, False])
async def test_a_middleware_gives_hooks_and_states_to_other_routes(
    hive: RecordingHive, inside: bool
) -> None:
    middleware = [Middleware(HiveMiddleware, hive=hive)] if inside else []
    starlette = Starlette(routes=_own_routes(), middleware=middleware, lifespan=hive.lifespan)
    app = starlette if inside else HiveMiddleware(starlette, hive)
    async with client(app) as asks:
        assert "never started" in (await asks.get("/own")).json()["message"]
        for _ in range(2):
            async with hive.running():
                assert (await asks.get("/own")).text == "alive open"
                failed = await asks.get("/failing")
                assert (failed.status_code, failed.text) == (500, "Internal Server Error")
                status = "None" if inside else "500"
            assert in_order(hive.taken()) == ["up", "done 200", f"done {status}", "down"]


@pytest.mark.anyio
async def test_two_hives_around_one_application(hive: RecordingHive) -> None:
    second = Hive(NONE, entry_points=False)
    starlette = Starlette(routes=_own_routes())
    one, two = HiveMiddleware(starlette, hive), HiveMiddleware(starlette, second)
    async with hive.running(), second.running():
        assert (await run(one, http("/own"))).status == 200
        for _ in range(2):  # at each request, not only at the first one
            with pytest.raises(HiveError, match="another hive"):
                await run(two, http("/own"))


# Without being started


@pytest.mark.anyio
async def test_a_hive_that_does_not_run_says_what_to_do(hive: RecordingHive) -> None:
    for words in ("was never started", "is stopped"):
        answer = await run(hive, http("/endpoints/show/states"))
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert words in answer.message
        for way in ("--lifespan on", "lifespan=hive.lifespan", "async with hive.running()"):
            assert way in answer.message
        assert (await run(hive, websocket())).types == ["websocket.close"]
        async with hive.running():
            assert (await run(hive, http("/endpoints/show/states"))).status == 200


@pytest.mark.anyio
async def test_a_hive_is_started_once(hive: RecordingHive) -> None:
    async with hive.running():
        with pytest.raises(HiveRunning, match="is running and cannot be started"):
            async with hive.running():
                pytest.fail("it runs twice")
        assert (await run(hive, http("/endpoints/show/states"))).status == 200


def test_a_hive_starts_again_on_another_event_loop(hive: RecordingHive) -> None:
    async def once() -> None:
        async with hive.running():
            assert (await run(hive, http("/endpoints/show/states"))).status == 200

    for backend in ("asyncio", "trio", "asyncio"):
        anyio.run(once, backend=backend)
    assert in_order(hive.taken()) == ["up", "done 200", "down"] * 3


class Counting(CornerstoneHooks):
    """Request hooks that need no set-up."""

    def pre_endpoint_call(self) -> None:
        self.app_state["calls"] = self.app_state.get("calls", 0) + 1


@pytest.mark.anyio
async def test_components_that_need_no_lifespan_answer_without() -> None:
    seen = []

    @asynccontextmanager
    async def lifespan(context: Any) -> AsyncIterator[None]:
        seen.append("up")
        yield
        seen.append("down")

    router = Router()

    @router.get("/")
    async def fail() -> None:
        raise LookupError("nothing there")

    part = ModuleHooks(hooks=(Counting,), lifespan=lifespan)
    cornerstone = Component(
        kind="cornerstone", container="c", name="n", modules=(part,), needs_lifespan=False
    )
    endpoint = Component(
        kind="endpoint",
        container="e",
        name="n",
        router=router,
        statuses={LookupError: 404},
        needs_lifespan=False,
    )
    hive = Hive(NONE, cornerstones=[cornerstone], endpoints=[endpoint], entry_points=False)
    for _ in range(2):
        answer = await run(hive, http("/e/n/"))
        assert (answer.status, answer.message) == (404, "nothing there")
        async with hive.running():
            assert (await run(hive, http("/e/n/"))).status == 404
    assert seen == ["up", "down"] * 2
    assert hive.state.cornerstones["c.n"]["calls"] == 2


@pytest.mark.anyio
async def test_a_lifespan_may_hold_a_task_group_open() -> None:
    beats = []
    beaten = anyio.Event()

    @asynccontextmanager
    async def lifespan(context: Any) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(beat)
            yield
            tasks.cancel_scope.cancel()

    async def beat() -> None:
        beats.append(1)
        beaten.set()
        await anyio.sleep_forever()

    part = ModuleHooks(lifespan=lifespan)
    cornerstone = Component(kind="cornerstone", container="c", name="n", modules=(part,))
    hive = Hive(NONE, cornerstones=[cornerstone], entry_points=False)
    with anyio.fail_after(servers.PATIENCE):
        async with hive.running():
            await beaten.wait()
    assert beats == [1]


@pytest.mark.anyio
async def test_a_task_that_fails_ends_the_life(hive: RecordingHive) -> None:
    @asynccontextmanager
    async def lifespan(context: Any) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fail)
            yield

    all_run = anyio.Event()

    async def fail() -> None:
        await all_run.wait()
        raise ZeroDivisionError

    cornerstone = Component(
        kind="cornerstone", container="c", name="n", modules=(ModuleHooks(lifespan=lifespan),)
    )
    endpoint = Component(kind="endpoint", container="e", name="n", router=hive)
    outer = Hive(NONE, cornerstones=[cornerstone], endpoints=[endpoint], entry_points=False)

    async def live() -> None:
        async with outer.running():
            all_run.set()
            await anyio.sleep_forever()

    with anyio.fail_after(servers.PATIENCE), pytest.raises(ExceptionGroup) as raised:
        await live()
    assert raised.value.subgroup(lambda error: "ZeroDivisionError" in repr(error.__cause__))
    assert in_order(hive.taken()) == ["up", "down"]
