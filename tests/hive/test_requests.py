"""The hooks around a request: contexts, bodies, answers of their own, time, disconnects."""

import contextvars
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import anyio
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse

from asgihive.asgi import Router
from asgihive.hive import Component, CornerstoneHooks, Hive, HiveConfig, ModuleHooks
from tests.asgi.exchange import Exchange, http, run, websocket

pytestmark = pytest.mark.anyio

CONFIG = HiveConfig(
    cornerstone_package_path=(),
    hide_endpoint_container_in_api=True,
    hide_endpoint_in_api=True,
)
user: contextvars.ContextVar[str] = contextvars.ContextVar("user")
other: contextvars.ContextVar[str] = contextvars.ContextVar("other")


def build(router: Router, *hooks: Any, request: Any = None, **options: Any) -> Hive:
    """A hive of one endpoint, and a cornerstone for each of the hooks."""
    cornerstones = [
        Component(
            kind="cornerstone",
            container="c",
            name=f"n{number}",
            modules=(ModuleHooks(hooks=(each,), websockets=True),),
        )
        for number, each in enumerate(hooks)
    ]
    if request is not None:
        part = ModuleHooks(request=request)
        last = Component(kind="cornerstone", container="c", name="last", modules=(part,))
        cornerstones.append(last)
    endpoint = Component(kind="endpoint", container="e", name="x", router=router)
    return Hive(
        CONFIG, cornerstones=cornerstones, endpoints=[endpoint], entry_points=False, **options
    )


def plain_router(text: str = "x") -> Router:
    router = Router()
    router.add("/", PlainTextResponse(text))
    return router


async def test_context_variables_reach_the_endpoint_and_what_follows() -> None:
    seen = []

    class InLoop(CornerstoneHooks):
        async def pre_endpoint_call(self) -> None:
            user.set("ada")

        async def post_endpoint_call(self) -> None:
            seen.append((user.get(), other.get()))

    class InWorker(CornerstoneHooks):
        def pre_endpoint_call(self) -> None:
            assert threading.current_thread() is not threading.main_thread()
            other.set(user.get() + "'s")

        def post_endpoint_call(self) -> None:
            seen.append((user.get(), other.get()))

    router = Router()

    @router.get("/")
    async def show() -> str:
        return f"{user.get()} {other.get()}"

    hive = build(router, InLoop, InWorker)
    async with hive.running():
        assert (await run(hive, http())).body == b"ada ada's"
    assert seen == [("ada", "ada's")] * 2


async def test_a_hooks_class_may_refuse_assignments_and_have_hooks_that_are_no_methods() -> None:
    seen: list[str] = []

    class Frozen(CornerstoneHooks):
        def __setattr__(self, name: str, value: object) -> None:
            raise AssertionError(name)

        async def pre_endpoint_call(self) -> None:
            seen.append(self.request.url.path)

        @staticmethod
        async def post_endpoint_call() -> None:
            seen.append("static")

    class OfItsClass(CornerstoneHooks):
        @classmethod
        async def pre_endpoint_call(cls) -> None:
            seen.append(cls.__name__)

    hive = build(plain_router(), Frozen, OfItsClass)
    async with hive.running():
        assert (await run(hive, http())).status == 200
    assert seen == ["/", "OfItsClass", "static"]


@pytest.mark.slow_on_trio
async def test_a_thousand_requests_at_once_keep_their_states_apart() -> None:
    class Marking(CornerstoneHooks):
        async def pre_endpoint_call(self) -> None:
            self.number = self.request.query_params["number"]
            user.set(self.number)
            self.request_state["number"] = self.number

        async def post_endpoint_call(self) -> None:
            assert self.number == self.request_state["number"] == user.get()
            self.app_state.setdefault("done", []).append(self.number)

    waiting = 0
    everyone = anyio.Event()
    router = Router()

    @router.get("/")
    async def show(request: Request, number: str) -> str:
        nonlocal waiting
        waiting += 1
        if waiting == 1000:
            everyone.set()
        await everyone.wait()
        assert user.get() == number
        return str(request.state.cornerstones["c.n0"]["number"])

    hive = build(router, Marking)
    answers: dict[int, Exchange] = {}

    async def ask(number: int) -> None:
        answers[number] = await run(hive, http(query_string=f"number={number}".encode()))

    async with hive.running():
        async with anyio.create_task_group() as tasks:
            for number in range(1000):
                tasks.start_soon(ask, number)
        done = hive.state.cornerstones["c.n0"]["done"]
    assert {number: int(each.body) for number, each in answers.items()} == {
        number: number for number in range(1000)
    }
    assert sorted(map(int, done)) == list(range(1000))


@pytest.mark.parametrize("reads", ["body", "stream", "nothing"])
async def test_a_body_that_a_hook_reads_is_there_for_the_endpoint(reads: str) -> None:
    class Reading(CornerstoneHooks):
        async def pre_endpoint_call(self) -> None:
            assert isinstance(self.request, Request)
            if reads == "body":
                assert await self.request.body() == b"first second"
            elif reads == "stream":
                async with aclosing(self.request.stream()) as blocks:
                    assert await anext(blocks) == b"first "

    router = Router()

    @router.post("/")
    async def echo(request: Request) -> bytes:
        return await request.body()

    hive = build(router, Reading)
    exchange = http(method="POST")
    exchange.incoming = [
        {"type": "http.request", "body": b"first ", "more_body": True},
        {"type": "http.request", "body": b"second", "more_body": False},
    ]
    async with hive.running():
        assert (await run(hive, exchange)).body == b"first second"


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_hook_returns_a_response(is_async: bool) -> None:
    class Noting(CornerstoneHooks):
        def post_endpoint_call(self) -> None:
            self.app_state["status"] = self.status

    class InWorker(Noting):
        def pre_endpoint_call(self) -> Any:
            return PlainTextResponse("from the hook", 203)

    class InLoop(Noting):
        async def pre_endpoint_call(self) -> Any:
            return PlainTextResponse("from the hook", 203)

    hive = build(plain_router(), InLoop if is_async else InWorker)
    async with hive.running():
        answer = await run(hive, http())
        assert (answer.status, answer.body) == (203, b"from the hook")
        assert hive.state.cornerstones["c.n0"]["status"] == 203
        assert (await run(hive, websocket())).types == ["websocket.close"]
        refused = await run(hive, websocket(extensions=["websocket.http.response"]))
        assert refused.types == ["websocket.http.response.start", "websocket.http.response.body"]
        assert hive.state.cornerstones["c.n0"]["status"] == 203


async def test_a_hook_returns_nonsense(caplog: pytest.LogCaptureFixture) -> None:
    class Wrong(CornerstoneHooks):
        async def pre_endpoint_call(self) -> Any:
            return 3

    hive = build(plain_router(), Wrong)
    async with hive.running():
        assert (await run(hive, http())).status == 500
    assert "a response or None is accepted" in str(caplog.records[0].exc_info)


async def test_an_error_after_the_response_began() -> None:
    errors = []

    class Noting(CornerstoneHooks):
        def post_endpoint_call(self) -> None:
            errors.append((type(self.error), self.status))

    router = Router()

    @router.get("/")
    async def stream(request: Request) -> StreamingResponse:
        async def blocks() -> AsyncIterator[bytes]:
            yield b"x"
            raise ZeroDivisionError

        return StreamingResponse(blocks())

    hive = build(router, Noting)
    exchange = http()
    async with hive.running():
        with pytest.raises((ZeroDivisionError, ExceptionGroup)):
            await run(hive, exchange)
    assert not exchange.complete
    ((kind, status),) = errors
    assert kind in {ZeroDivisionError, ExceptionGroup}
    assert status == 200


@pytest.mark.parametrize("fails", [False, True])
async def test_a_request_manager_gets_what_the_endpoint_raised(fails: bool) -> None:
    seen: list[Any] = []

    async def request(context: Any) -> AsyncIterator[None]:
        try:
            yield
        except ZeroDivisionError:
            seen.append("rolled back")
            raise
        else:
            seen.append("committed")
        finally:
            seen.append(context.status)

    router = Router()

    @router.get("/")
    async def divide() -> float:
        return 1 / (0 if fails else 1)

    hive = build(router, request=asynccontextmanager(request))
    async with hive.running():
        await run(hive, http())
    assert seen == (["rolled back", 500] if fails else ["committed", 200])


@pytest.mark.parametrize("is_async", [False, True])
async def test_hooks_after_a_request_are_bounded_in_time(
    is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    done = []
    free = threading.Event()

    class First(CornerstoneHooks):
        async def post_endpoint_call(self) -> None:
            done.append("first")

    class InLoop(CornerstoneHooks):
        async def post_endpoint_call(self) -> None:
            await anyio.sleep_forever()

    class InWorker(CornerstoneHooks):
        def post_endpoint_call(self) -> None:
            free.wait()

    hanging = InLoop if is_async else InWorker
    hive = build(plain_router(), First, hanging, post_hook_seconds=0.05)
    async with hive.running():
        with anyio.fail_after(20):
            assert (await run(hive, http())).status == 200
        free.set()
    assert done == ["first"]
    assert "c.n1 was cancelled" in caplog.records[0].message


async def test_what_a_hook_awaits_after_a_disconnect_is_shielded() -> None:
    done = []
    begun = anyio.Event()

    class Slow(CornerstoneHooks):
        async def post_endpoint_call(self) -> None:
            await anyio.sleep(0.01)
            done.append(self.error is not None)

    router = Router()

    @router.get("/")
    async def wait() -> None:
        begun.set()
        await anyio.sleep_forever()

    hive = build(router, Slow)
    async with hive.running():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, hive, http())
            await begun.wait()
            tasks.cancel_scope.cancel()
        assert done == [True]


async def test_one_class_mixes_def_and_async_def() -> None:
    class Mixed(CornerstoneHooks):
        def pre_endpoint_call(self) -> None:
            self.thread = threading.get_ident()

        async def post_endpoint_call(self) -> None:
            self.app_state["threads"] = {self.thread, threading.get_ident()}

    hive = build(plain_router(), Mixed)
    async with hive.running():
        await run(hive, http())
        threads: Sequence[int] = hive.state.cornerstones["c.n0"]["threads"]
    assert len(threads) == 2
    assert threading.get_ident() in threads


async def test_a_hook_that_exits_does_not_keep_others_from_running() -> None:
    ran = []

    class First(CornerstoneHooks):
        async def post_endpoint_call(self) -> None:
            ran.append("first")

    class Exiting(CornerstoneHooks):
        async def post_endpoint_call(self) -> None:
            raise SystemExit(3)

    hive = build(plain_router(), First, Exiting)
    async with hive.running():
        with pytest.raises(SystemExit):
            await run(hive, http())
    assert ran == ["first"]
