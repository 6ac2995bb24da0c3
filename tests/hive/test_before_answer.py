"""`before_answer`: after the endpoint, and before the first byte of its response leaves."""

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from starlette.websockets import WebSocket

from asgihive.asgi import Depends, HTTPException, Router, StreamedResponse, closing
from asgihive.hive import (
    Component,
    ComponentError,
    CornerstoneHooks,
    Hive,
    HiveConfig,
    HiveMiddleware,
    HookDenied,
    ModuleHooks,
)
from tests.asgi.exchange import Exchange, http, run, websocket
from tests.hive.services import client, config, write

pytestmark = pytest.mark.anyio

CONFIG = HiveConfig(
    cornerstone_package_path=(),
    hide_endpoint_container_in_api=True,
    hide_endpoint_in_api=True,
)


class CommitFailed(Exception):
    """The database refuses."""


class Recorder:
    """Two cornerstones whose steps are noted; one of them may fail."""

    def __init__(self, failing: str = "") -> None:
        self.calls: list[str] = []
        self.failing = failing
        self.error: Exception = CommitFailed()

    def module(self, name: str) -> ModuleHooks:
        @asynccontextmanager
        async def request(context: Any) -> AsyncIterator[None]:
            try:
                yield
            except Exception as error:
                self.calls.append(f"{name} rolls back {type(error).__name__}")
                raise
            else:
                self.calls.append(f"{name} ends")

        async def before_answer(context: Any) -> None:
            self.calls.append(f"{name} commits")
            if name == self.failing:
                raise self.error

        return ModuleHooks(request=request, before_answer=before_answer)

    def hive(self, router: Router) -> Hive:
        cornerstones = [
            Component(kind="cornerstone", container="c", name=name, modules=(self.module(name),))
            for name in ("a", "b")
        ]
        endpoint = Component(kind="endpoint", container="e", name="x", router=router)
        return Hive(
            CONFIG, cornerstones=cornerstones, endpoints=[endpoint], entry_points=False, docs=False
        )


class NotingExchange(Exchange):
    """Notes among the calls when the first byte leaves."""

    calls: list[str]

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.calls.append(f"sent {message['status']}")
        await super().send(message)


async def ask(recorder: Recorder, router: Router, path: str = "/") -> NotingExchange:
    hive = recorder.hive(router)
    plain = http(path)
    exchange = NotingExchange(plain.scope, incoming=plain.incoming)
    exchange.calls = recorder.calls
    async with hive.running():
        await run(hive, exchange)
    return exchange


async def _catch(scope: Any, receive: Any, send: Any) -> None:
    """Answer errors itself, as frameworks do."""
    try:
        await PlainTextResponse("stored")(scope, receive, send)
    except Exception:  # noqa: BLE001  # as said
        await PlainTextResponse("inner error", 500)(scope, receive, send)


async def _swallow(scope: Any, receive: Any, send: Any) -> None:
    """Take every error for that of a client who has gone."""
    with suppress(Exception):
        await PlainTextResponse("stored")(scope, receive, send)


def make_router(recorder: Recorder) -> Router:
    calls = recorder.calls
    router = Router()

    async def resource() -> AsyncIterator[None]:
        try:
            yield
        except Exception as error:
            calls.append(f"dependency sees {type(error).__name__}")
            raise

    async def blocks() -> AsyncIterator[bytes]:
        try:
            calls.append("stream begins")
            yield b"x"
        finally:
            calls.append("stream closes")

    @router.get("/")
    async def stored(_: Annotated[None, Depends(resource)]) -> dict[str, bool]:
        return {"stored": True}

    @router.get("/stream")
    async def stream() -> StreamedResponse:
        return StreamedResponse(body_chunks=closing(blocks()))

    @router.get("/starlette")
    async def starlette(request: Request) -> StreamingResponse:
        return StreamingResponse(blocks(), background=BackgroundTask(calls.append, "background"))

    router.add("/catching", _catch)
    router.add("/swallowing", _swallow)

    @router.get("/error")
    async def fail() -> None:
        raise HTTPException(400, "No")

    @router.websocket("/socket")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    return router


async def test_it_runs_in_reverse_before_the_first_byte() -> None:
    recorder = Recorder()
    answer = await ask(recorder, make_router(recorder))
    assert answer.json == {"stored": True}
    assert recorder.calls == ["b commits", "a commits", "sent 200", "b ends", "a ends"]


@pytest.mark.parametrize("failing", ["a", "b"])
async def test_what_it_raises_is_the_answer(failing: str) -> None:
    recorder = Recorder(failing)
    answer = await ask(recorder, make_router(recorder))
    assert (answer.status, answer.json) == (500, {"message": "Internal server error"})
    ends = [f"{name} rolls back CommitFailed" for name in ("b", "a")]
    commits = ["b commits", "a commits"] if failing == "a" else ["b commits"]
    assert recorder.calls == [*commits, "dependency sees CommitFailed", "sent 500", *ends]


@pytest.mark.parametrize("path", ["/stream", "/starlette", "/catching", "/swallowing"])
@pytest.mark.parametrize("make", [partial(HTTPException, 409, "Taken"), OSError, CommitFailed])
async def test_the_response_is_dropped_and_its_stream_closed(
    path: str, make: Callable[[], Exception]
) -> None:
    recorder = Recorder("b")
    error = recorder.error = make()
    answer = await ask(recorder, make_router(recorder), path)
    status = 409 if isinstance(error, HTTPException) else 500
    assert answer.status == status
    assert answer.types == ["http.response.start", "http.response.body"]
    assert "stored" not in answer.body.decode()
    streamed = ["stream begins"] if path == "/stream" else []
    closed = ["stream closes"] if path == "/stream" else []
    ends = [f"{name} rolls back {type(error).__name__}" for name in ("b", "a")]
    sent = f"sent {status}"
    assert recorder.calls == [*streamed, "b commits", *closed, sent, *ends]


async def test_a_stream_begins_after_it() -> None:
    recorder = Recorder()
    answer = await ask(recorder, make_router(recorder), "/starlette")
    assert answer.body == b"x"
    assert recorder.calls == [
        *("b commits", "a commits", "sent 200", "stream begins", "stream closes", "background"),
        *("b ends", "a ends"),
    ]


async def test_it_does_not_run_where_an_exception_is_answered() -> None:
    recorder = Recorder()
    answer = await ask(recorder, make_router(recorder), "/error")
    assert answer.status == 400
    ends = [f"{name} rolls back HTTPException" for name in ("b", "a")]
    assert recorder.calls == ["sent 400", *ends]


async def test_it_does_not_run_for_websockets() -> None:
    recorder = Recorder()
    hive = recorder.hive(make_router(recorder))
    async with hive.running():
        answer = await run(hive, websocket("/socket"))
    assert answer.types == ["websocket.accept", "websocket.close"]
    assert recorder.calls == []


async def test_it_changes_status_headers_and_cookies() -> None:
    class InLoop(CornerstoneHooks):
        async def before_answer(self) -> None:
            assert self.error is None
            assert self.route is not None
            self.response.status = 201
            self.response.headers["x-route"] = self.route.path
            self.response.headers.append("vary", "origin")
            self.thread = threading.get_ident()

        async def post_endpoint_call(self) -> None:
            self.app_state["seen"] = (self.status, self.thread)
            with pytest.raises(HookDenied, match="while the response has not left"):
                _ = self.response

    class InWorker(CornerstoneHooks):
        def before_answer(self) -> None:
            self.response.set_cookie("session", "1", httponly=True)
            del self.response.headers["vary"]
            self.request_state["thread"] = threading.get_ident()
            assert threading.current_thread() is not threading.main_thread()

    cornerstones = [
        Component(
            kind="cornerstone", container="c", name=name, modules=(ModuleHooks(hooks=(hooks,)),)
        )
        for name, hooks in (("a", InLoop), ("b", InWorker))
    ]
    router = Router()
    kept = PlainTextResponse("x", headers={"vary": "accept"})
    router.add("/", kept)
    endpoint = Component(kind="endpoint", container="e", name="x", router=router)
    hive = Hive(CONFIG, cornerstones=cornerstones, endpoints=[endpoint], entry_points=False)
    async with hive.running(), client(hive) as asks:
        for _ in range(2):  # the response, which is sent twice, stays as it is
            answer = await asks.get("/")
            assert (answer.status_code, answer.text) == (201, "x")
            assert (answer.headers["x-route"], answer.headers["vary"]) == ("/", "origin")
            assert answer.headers["set-cookie"].startswith("session=1; HttpOnly")
        assert hive.state.cornerstones["c.a"]["seen"] == (201, threading.get_ident())


async def test_of_a_hook_that_answers_itself_those_before_it_run() -> None:
    calls: list[str] = []

    def hooks(name: str, answers: bool) -> type[CornerstoneHooks]:
        class Hooks(CornerstoneHooks):
            async def pre_endpoint_call(self) -> Any:
                return PlainTextResponse("from the hook") if answers else None

            async def before_answer(self) -> None:
                calls.append(name)

        return Hooks

    cornerstones = [
        Component(
            kind="cornerstone",
            container="c",
            name=name,
            modules=(ModuleHooks(hooks=(hooks(name, name == "b"),)),),
        )
        for name in ("a", "b", "c")
    ]
    hive = Hive(CONFIG, cornerstones=cornerstones, entry_points=False)
    async with hive.running():
        assert (await run(hive, http())).body == b"from the hook"
    assert calls == ["b", "a"]


@pytest.mark.parametrize("fails", [False, True])
async def test_around_another_application(fails: bool) -> None:
    recorder = Recorder("a" if fails else "")

    async def show(request: Request) -> PlainTextResponse:
        return PlainTextResponse("stored")

    hive = recorder.hive(Router())
    middleware = [Middleware(HiveMiddleware, hive=hive)]
    app = Starlette(routes=[Route("/", show)], middleware=middleware, lifespan=hive.lifespan)
    async with hive.running(), client(app) as asks:
        answer = await asks.get("/")
    assert answer.text == ('{"message":"Internal server error"}' if fails else "stored")
    assert recorder.calls[:2] == ["b commits", "a commits"]


MODULE = """
def before_answer(context):
    context.response.headers["x-from"] = "the module"
"""


async def test_a_module_has_one(tmp_path: Path) -> None:
    write(tmp_path, {"cornerstones/a.py": MODULE})
    hive = Hive(config(endpoint_package_paths=()), base=tmp_path, entry_points=False, docs=False)
    async with hive.running():
        assert (await run(hive, http())).headers["x-from"] == "the module"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("before_answer = 1", "before_answer is 1"),
        ("def before_answer(): pass", "before_answer cannot be called"),
        ("def before_answer(context): yield", "before_answer is a generator"),
    ],
)
async def test_what_cannot_be_called_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    write(tmp_path, {"cornerstones/a.py": text})
    hive = Hive(config(endpoint_package_paths=()), base=tmp_path, entry_points=False)
    with pytest.raises(ComponentError, match=problem):
        async with hive.running():
            pass
