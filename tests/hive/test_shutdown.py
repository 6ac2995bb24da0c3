"""Shutdown waits for requests in flight, then cancels them; teardown comes after their cleanups."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.lowlevel
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTasks
from starlette.responses import StreamingResponse
from starlette.routing import Mount
from starlette.websockets import WebSocket

from asgihive.asgi import Depends, Router
from asgihive.hive import (
    Component,
    CornerstoneHooks,
    Hive,
    HiveConfig,
    HiveMiddleware,
    ModuleHooks,
)
from tests.asgi.exchange import Exchange, http, run, websocket
from tests.hive.test_disconnect import CANCELLING_SERVERS
from tests.service import servers

CONFIG = HiveConfig(
    cornerstone_package_path=(),
    hide_endpoint_container_in_api=True,
    hide_endpoint_in_api=True,
)


class Service:
    """A hive whose requests go on until they are let go, and whose cleanups await."""

    def __init__(self, *, hooks: bool, **options: Any) -> None:
        self.calls: list[str] = []
        self.has_begun = threading.Event()
        self._hooks = hooks
        self._on_begin: Callable[[], None] = self.has_begun.set
        self.let_go: anyio.Event | None = None
        part = ModuleHooks(
            lifespan=self._lifespan,
            request=self._request if hooks else None,
            websockets=True,
        )
        cornerstone = Component(kind="cornerstone", container="c", name="n", modules=(part,))
        endpoint = Component(kind="endpoint", container="e", name="x", router=self._router())
        self.hive = Hive(
            CONFIG,
            cornerstones=[cornerstone],
            endpoints=[endpoint],
            entry_points=False,
            docs=False,
            **options,
        )

    @asynccontextmanager
    async def _lifespan(self, context: Any) -> AsyncIterator[None]:
        try:
            yield
        finally:
            self.calls.append("teardown")

    @asynccontextmanager
    async def _request(self, context: Any) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await _wait_a_little()
            self.calls.append("hook")

    async def _resource(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await _wait_a_little()
            self.calls.append("cleanup")

    def _router(self) -> Router:
        router = Router(dependencies=[Depends(self._resource)])

        async def wait() -> None:
            self._on_begin()
            if self.let_go is None:
                await anyio.sleep_forever()
            else:
                await self.let_go.wait()

        async def blocks() -> AsyncIterator[bytes]:
            yield b"x"
            await wait()

        @router.get("/wait")
        async def answer() -> str:
            await wait()
            return "done"

        @router.get("/stream")
        async def stream() -> StreamingResponse:
            return StreamingResponse(blocks())

        @router.get("/background")
        async def background(tasks: BackgroundTasks) -> str:
            tasks.add_task(wait)
            return "done"

        @router.websocket("/socket")
        async def talk(websocket: WebSocket) -> None:
            await websocket.accept()
            await wait()

        return router

    def expected(self) -> list[str]:
        return ["cleanup", *(["hook"] if self._hooks else []), "teardown"]


async def _wait_a_little() -> None:
    for _ in range(5):
        await anyio.lowlevel.checkpoint()


async def _leave_running(service: Service, exchange: Exchange, app: Any = None) -> Exchange:
    """Leave `hive.running()` while a request is being answered."""
    begun = anyio.Event()
    service._on_begin = begun.set  # the test's own
    async with anyio.create_task_group() as tasks, service.hive.running():
        tasks.start_soon(_ask, app or service.hive, exchange)
        await begun.wait()
        if service.let_go is not None:
            tasks.start_soon(_let_go_when_unavailable, service)
    return exchange


async def _ask(app: Any, exchange: Exchange) -> None:
    try:
        await run(app, exchange)
    except Exception as error:  # noqa: BLE001  # as a server, which breaks the response off
        exchange.sent.append({"type": "broken", "error": error})


async def _let_go_when_unavailable(service: Service) -> None:
    assert service.let_go is not None
    while (answer := await run(service.hive, http("/wait"))).status != 503:
        pytest.fail("it still answers")
    assert "stopping" in answer.message
    assert service.calls == []
    service.let_go.set()


@pytest.mark.anyio
@pytest.mark.parametrize("hooks", [True, False])
@pytest.mark.parametrize("path", ["/wait", "/stream", "/background"])
async def test_shutdown_waits_for_requests_and_refuses_new_ones(path: str, hooks: bool) -> None:
    service = Service(hooks=hooks, shutdown_seconds=servers.PATIENCE)
    service.let_go = anyio.Event()
    answer = await _leave_running(service, http(path))
    assert (answer.status, answer.complete) == (200, True)
    assert service.calls == service.expected()


@pytest.mark.anyio
@pytest.mark.parametrize("hooks", [True, False])
@pytest.mark.parametrize(
    ("exchange", "sent"),
    [
        (lambda: http("/wait"), ["http.response.start", "http.response.body"]),
        (lambda: http("/stream"), ["http.response.start", "http.response.body", "broken"]),
        (lambda: websocket("/socket"), ["websocket.accept", "websocket.close"]),
    ],
)
async def test_requests_that_never_end_are_cancelled_before_the_teardown(
    exchange: Callable[[], Exchange], sent: list[str], hooks: bool
) -> None:
    service = Service(hooks=hooks, shutdown_seconds=0.01)
    answer = await _leave_running(service, exchange())
    assert answer.types == sent
    if sent[-1] == "websocket.close":
        assert answer.sent[-1]["code"] == 1001
    elif sent[-1] != "broken":
        assert answer.status == 503
    assert service.calls == service.expected()


@pytest.mark.anyio
async def test_cancelling_what_runs_the_hive_cancels_its_requests_at_once() -> None:
    service = Service(hooks=True, shutdown_seconds=servers.PATIENCE)
    begun = anyio.Event()
    service._on_begin = begun.set  # the test's own

    async def live() -> None:
        with anyio.CancelScope() as scope:
            async with service.hive.running():
                tasks.start_soon(_ask, service.hive, http("/wait"))
                await begun.wait()
                scope.cancel()
                await anyio.sleep_forever()

    with anyio.fail_after(servers.PATIENCE / 2):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(live)
    assert service.calls == service.expected()


@pytest.mark.anyio
@pytest.mark.parametrize("around", [False, True])
async def test_it_is_stopped_by_an_outer_application(around: bool) -> None:
    service = Service(hooks=True, shutdown_seconds=0.01)
    outer = Starlette(routes=[Mount("/api", service.hive)])
    app = HiveMiddleware(outer, service.hive) if around else outer
    answer = await _leave_running(service, http("/api/wait"), app)
    assert answer.status == 503
    hooks = ["hook", "hook"] if around else ["hook"]
    assert service.calls == ["cleanup", *hooks, "teardown"]


@pytest.mark.anyio
async def test_a_hook_that_runs_already_is_not_cancelled() -> None:
    begun, stopping = anyio.Event(), anyio.Event()
    calls: list[str] = []

    @asynccontextmanager
    async def lifespan(context: Any) -> AsyncIterator[None]:
        yield
        calls.append("teardown")

    class Slow(CornerstoneHooks):
        async def post_endpoint_call(self) -> None:
            begun.set()
            await stopping.wait()
            await anyio.sleep(0.03)  # longer than shutdown waits
            calls.append("hook")

    module = ModuleHooks(hooks=(Slow,), lifespan=lifespan)
    cornerstone = Component(kind="cornerstone", container="c", name="n", modules=(module,))
    hive = Hive(CONFIG, cornerstones=[cornerstone], entry_points=False, shutdown_seconds=0.01)
    async with anyio.create_task_group() as tasks, hive.running():
        tasks.start_soon(run, hive, http("/nowhere"))
        await begun.wait()
        stopping.set()
    assert calls == ["hook", "teardown"]


@pytest.mark.anyio
async def test_a_request_that_does_not_end_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    service = Service(hooks=False, shutdown_seconds=0.01, post_hook_seconds=0.01)
    begun, over = anyio.Event(), anyio.Event()

    @service.hive.router.get("/stubborn")
    async def stubborn() -> None:
        begun.set()
        with anyio.CancelScope(shield=True):
            while not over.is_set():
                try:
                    await over.wait()
                except asyncio.CancelledError:
                    continue

    async with anyio.create_task_group() as tasks:
        async with service.hive.running():
            tasks.start_soon(_ask, service.hive, http("/stubborn"))
            await begun.wait()
        assert service.calls == ["teardown"]
        over.set()
    assert "1 requests were still at work" in caplog.text


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_a_server_that_cancels_the_task_too_sees_it_cancelled(anyio_backend: str) -> None:
    service = Service(hooks=True, shutdown_seconds=servers.PATIENCE)
    begun = asyncio.Event()
    service._on_begin = begun.set  # the test's own
    exchange = http("/wait")
    async with service.hive.running():
        request = asyncio.create_task(run(service.hive, exchange))
        await begun.wait()
        request.cancel()
    assert service.calls == service.expected()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert exchange.sent == []


@pytest.mark.slow
@pytest.mark.parametrize("hooks", [True, False])
@pytest.mark.parametrize("server", CANCELLING_SERVERS)
def test_cleanups_run_before_the_teardown_whatever_server_cancels(server: str, hooks: bool) -> None:
    service = Service(hooks=hooks, shutdown_seconds=0.05)
    with servers.serving(service.hive, server) as url:
        address = urlsplit(url)
        client = socket.create_connection((str(address.hostname), address.port or 0))
        client.sendall(b"GET /wait HTTP/1.1\r\nHost: test\r\n\r\n")
        assert service.has_begun.wait(servers.PATIENCE)
    client.close()
    assert service.calls == service.expected()
