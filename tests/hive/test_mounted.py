"""Applications inside of a hive, of whatever kind, start and stop with it."""

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.routing import Router as StarletteRouter

from asgihive.asgi import Router
from asgihive.errors import HookFailed
from asgihive.hive import Component, CornerstoneHooks, Hive, HiveConfig, ModuleHooks
from tests.asgi.exchange import http, run

pytestmark = pytest.mark.anyio

App = Callable[[Any, Any, Any], Awaitable[None]]
CALLS: list[str] = []


@pytest.fixture(autouse=True)
def _calls_are_new() -> None:
    CALLS.clear()


@asynccontextmanager
async def noting(app: object) -> AsyncIterator[dict[str, str]]:
    CALLS.append("start")
    yield {"said": "hello"}
    CALLS.append("stop")


async def say(request: Request) -> PlainTextResponse:
    return PlainTextResponse(getattr(request.state, "said", "nothing"))


def wrap(app: App) -> App:
    """Put a middleware around, which hides the application's attributes."""

    async def around(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)

    return around


ROUTES = [Route("/", say)]


class TakesNothing:
    """As Litestar, whose `lifespan` has no argument: the protocol starts it."""

    def __init__(self, app: App | None = None) -> None:
        self._app = app or Starlette(routes=ROUTES, lifespan=noting)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        CALLS.append("the hive cannot know what this is")
        yield

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)


WITH_LIFESPAN: dict[str, Callable[[], App]] = {
    "starlette": lambda: Starlette(routes=ROUTES, lifespan=noting),
    "a router of starlette": lambda: StarletteRouter(routes=ROUTES, lifespan=noting),
    "behind a middleware": lambda: wrap(Starlette(routes=ROUTES, lifespan=noting)),
    "a lifespan without arguments": TakesNothing,
}


async def asserts(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http", "no lifespan here"
    await PlainTextResponse("nothing")(scope, receive, send)


async def reads_first(scope: Any, receive: Any, send: Any) -> None:
    while (await receive())["type"] != "http.request":
        pass
    await PlainTextResponse("nothing")(scope, receive, send)


async def looks_into_messages(scope: Any, receive: Any, send: Any) -> None:
    assert (await receive())["body"] is not None
    await PlainTextResponse("nothing")(scope, receive, send)


async def returns(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await PlainTextResponse("nothing")(scope, receive, send)


WITHOUT_LIFESPAN: dict[str, App] = {
    "asserts": asserts,
    "answers": PlainTextResponse("nothing"),
    "reads first": reads_first,
    "looks into messages": looks_into_messages,
    "returns": returns,
}


def make_hive(*endpoints: Any, **options: Any) -> Hive:
    """A hive whose endpoints have these routers, and note when they stop."""

    @asynccontextmanager
    async def lifespan(context: Any) -> AsyncIterator[None]:
        CALLS.append(f"{context.endpoint.name} starts")
        yield
        CALLS.append(f"{context.endpoint.name} stops")

    components = [
        Component(
            kind="endpoint",
            container="e",
            name=f"x{number}",
            router=router,
            modules=(ModuleHooks(lifespan=lifespan),),
        )
        for number, router in enumerate(endpoints)
    ]
    config = HiveConfig(cornerstone_package_path=())
    return Hive(config, endpoints=components, entry_points=False, docs=False, **options)


@pytest.mark.parametrize("kind", WITH_LIFESPAN)
async def test_an_endpoint_may_be_any_application_with_a_lifespan(kind: str) -> None:
    hive = make_hive(WITH_LIFESPAN[kind](), Router())
    for _ in range(2):
        CALLS.clear()
        async with hive.running():
            assert CALLS == ["x0 starts", "start", "x1 starts"]
            assert (await run(hive, http("/e/x0/"))).body == b"hello"
        assert CALLS[3:] == ["x1 stops", "stop", "x0 stops"]


@pytest.mark.parametrize("kind", WITHOUT_LIFESPAN)
async def test_an_endpoint_may_be_an_application_without_one(kind: str) -> None:
    hive = make_hive(WITHOUT_LIFESPAN[kind])
    async with hive.running():
        assert (await run(hive, http("/e/x0/"))).body == b"nothing"
    assert CALLS == ["x0 starts", "x0 stops"]


def make_failing(phase: str, *, raises: bool, at: str) -> App:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        for each in ("startup", "shutdown"):
            await receive()
            if each == phase:
                if at == "said":
                    message = {"type": f"lifespan.{each}.failed", "message": "no such host"}
                    await send(message)
                if raises:
                    raise ConnectionError("no such host")
                return
            await send({"type": f"lifespan.{each}.complete"})

    return failing


@pytest.mark.parametrize(
    ("phase", "raises", "at"),
    [
        ("startup", True, "said"),
        ("startup", False, "said"),
        ("shutdown", True, "said"),
        ("shutdown", False, "said"),
        ("shutdown", True, "only raised"),
    ],
)
async def test_its_failure_is_that_of_the_endpoint(phase: str, raises: bool, at: str) -> None:
    hive = make_hive(Router(), make_failing(phase, raises=raises, at=at))
    with pytest.raises((HookFailed, ExceptionGroup)) as raised:
        async with hive.running():
            assert phase == "shutdown"
    error: Any = raised.value
    while isinstance(error, ExceptionGroup):
        (error,) = error.exceptions
    assert str(error).startswith("e.x1 (")
    cause = "ConnectionError" if raises else "LifespanFailed"
    assert str(error).endswith(f"failed with {cause}: no such host")
    assert CALLS == ["x0 starts", "x1 starts", "x1 stops", "x0 stops"]


@pytest.mark.parametrize("kind", WITH_LIFESPAN)
async def test_what_is_mounted_starts_with_the_hive(kind: str) -> None:
    app = WITH_LIFESPAN[kind]()
    hive = make_hive(Router())
    hive.mount("/one", app)
    hive.mount("/two", app)
    for _ in range(2):
        CALLS.clear()
        async with hive.running():
            assert CALLS == ["x0 starts", "start"]
            for path in ("/one/", "/two/"):
                assert (await run(hive, http(path))).body == b"hello"
        assert CALLS[2:] == ["stop", "x0 stops"]


async def test_hives_and_what_routers_mount_start_too() -> None:
    inner = make_hive(Router())
    router = Router()
    router.mount("/inner", inner)
    router.mount("/plain", Starlette(routes=ROUTES, lifespan=noting))
    hive = make_hive(router)
    hive.mount("/other", make_hive(PlainTextResponse("other")))
    async with hive.running():
        assert CALLS == ["x0 starts", "x0 starts", "x0 starts", "start"]
        assert (await run(hive, http("/e/x0/plain/"))).body == b"hello"
        assert (await run(hive, http("/other/e/x0/"))).body == b"other"
        assert (await run(hive, http("/e/x0/inner/"))).status == 404
    assert (await run(inner, http("/"))).status == 503
    assert CALLS[4:] == ["stop", "x0 stops", "x0 stops", "x0 stops"]


async def test_a_hive_that_runs_already_is_left_alone() -> None:
    inner = make_hive(PlainTextResponse("inner"))
    hive = make_hive(Router())
    hive.mount("/inner", inner)
    async with inner.running():
        async with hive.running():
            assert (await run(hive, http("/inner/e/x0/"))).body == b"inner"
        seen = [inner.is_running]
    assert [*seen, inner.is_running] == [True, False]
    assert CALLS == ["x0 starts", "x0 starts", "x0 stops", "x0 stops"]


@pytest.mark.parametrize("step", ["pre_endpoint_setup", "post_endpoint_setup"])
async def test_what_hooks_mount_starts_too(step: str) -> None:
    async def mount(self: Any) -> None:
        self.app.mount("/late", Starlette(routes=ROUTES, lifespan=noting))

    hooks: Any = type("Mounting", (CornerstoneHooks,), {step: mount})
    cornerstone = Component(
        kind="cornerstone", container="c", name="a", modules=(ModuleHooks(hooks=(hooks,)),)
    )
    hive = make_hive(cornerstones=[cornerstone])
    for _ in range(2):
        CALLS.clear()
        async with hive.running():
            assert (await run(hive, http("/late/"))).body == b"hello"
        assert CALLS == ["start", "stop"]


async def test_a_mounted_application_that_fails_is_named() -> None:
    hive = make_hive(Router())
    hive.mount("/x", make_failing("startup", raises=False, at="said"))
    with pytest.raises(HookFailed, match=r"the application at /x \(.*test_mounted") as raised:
        async with hive.running():
            pytest.fail("it cannot start")
    assert str(raised.value).endswith("lifespan failed with LifespanFailed: no such host")
    assert CALLS == ["x0 starts", "x0 stops"]


@pytest.mark.parametrize("phase", ["startup", "shutdown"])
async def test_it_may_wait_for_further_events_in_vain(phase: str) -> None:
    """As Quart does, which goes on after it has said that it failed."""

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        while True:
            kind = (await receive())["type"]
            end = "failed" if kind.endswith(phase) else "complete"
            await send({"type": f"{kind}.{end}", "message": "no such host"})

    hive = make_hive(waits)
    with anyio.fail_after(3), pytest.raises((HookFailed, ExceptionGroup)) as raised:
        async with hive.running():
            assert phase == "shutdown"
    error: Any = raised.value
    while isinstance(error, ExceptionGroup):
        (error,) = error.exceptions
    assert str(error).endswith("failed with LifespanFailed: no such host")


async def test_it_may_have_a_task_group_and_is_waited_for() -> None:
    """As a Quart-like application, whose last words come after it has answered."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        scope["state"]["said"] = "by the protocol"
        try:
            for each in ("startup", "shutdown"):
                await receive()
                CALLS.append(each)
                await send({"type": f"lifespan.{each}.complete"})
        finally:
            CALLS.append("closed")

    answers = Starlette(routes=ROUTES)

    async def both(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        await (app if scope["type"] == "lifespan" else answers)(scope, receive, send)

    hive = make_hive(both)
    async with hive.running():
        assert (await run(hive, http("/e/x0/"))).body == b"by the protocol"
    assert CALLS == ["x0 starts", "startup", "shutdown", "closed", "x0 stops"]
