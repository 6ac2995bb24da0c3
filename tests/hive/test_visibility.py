"""What each hook may see: the table, cell by cell; and the states."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from asgihive.asgi import Router
from asgihive.hive import (
    Component,
    CornerstoneHooks,
    EndpointHooks,
    Hive,
    HiveConfig,
    HookDenied,
    Metadata,
    ModuleHooks,
)
from tests.asgi.exchange import http, run, websocket
from tests.hive.services import client

pytestmark = pytest.mark.anyio

NAMES = (
    "app",
    "app_state",
    "cornerstone",
    "endpoint",
    "request",
    "request_state",
    "error",
    "status",
    "route",
    "response",
)
CORNERSTONE = {"app", "app_state", "cornerstone"}
REQUEST = CORNERSTONE | {"request", "request_state"}
ENDPOINT = {"app", "app_state", "endpoint"}
TABLE: dict[str, set[str]] = {
    **{
        f"{when}_endpoint_{what}": CORNERSTONE
        for when in ("pre", "post")
        for what in ("setup", "teardown")
    },
    "pre_endpoint_call": REQUEST,
    "post_endpoint_call": REQUEST | {"error", "status", "route"},
    "before_answer": REQUEST | {"error", "route", "response"},
    "before_answer of a module": REQUEST | {"error", "route", "response"},
    "setup": ENDPOINT,
    "teardown": ENDPOINT,
    "lifespan of a cornerstone": CORNERSTONE,
    "lifespan of an endpoint": ENDPOINT,
    "request, before": REQUEST,
    "request, after": REQUEST | {"error", "status", "route"},
}
HIDDEN = HiveConfig(cornerstone_package_path=())


def look(hooks: Any) -> set[str]:
    """The names that can be read; those that cannot say so."""
    seen = set()
    for name in NAMES:
        try:
            getattr(hooks, name)
        except HookDenied as error:
            assert f"`{name}` is" in str(error)  # noqa: PT017  # one of many
        else:
            seen.add(name)
    return seen


def looking(base: type, steps: list[str], seen: dict[str, set[str]], is_async: bool) -> type:
    def method(step: str) -> Callable[[Any], Any]:
        def plain(self: Any) -> None:
            seen[step] = look(self)

        async def coroutine(self: Any) -> None:
            seen[step] = look(self)

        return coroutine if is_async else plain

    return type("Looking", (base,), {step: method(step) for step in steps})


@pytest.mark.parametrize("is_async", [False, True])
async def test_every_cell(is_async: bool) -> None:
    seen: dict[str, set[str]] = {}

    @asynccontextmanager
    async def lifespan(context: Any) -> AsyncIterator[None]:
        kind = "a cornerstone" if "cornerstone" in look(context) else "an endpoint"
        seen[f"lifespan of {kind}"] = look(context)
        yield

    @asynccontextmanager
    async def request(context: Any) -> AsyncIterator[None]:
        seen["request, before"] = look(context)
        yield
        seen["request, after"] = look(context)

    def before_answer(context: Any) -> None:
        seen["before_answer of a module"] = look(context)

    steps = [each for each in TABLE if "_endpoint_" in each or each == "before_answer"]
    of_cornerstone = looking(CornerstoneHooks, steps, seen, is_async)
    of_endpoint = looking(EndpointHooks, ["setup", "teardown"], seen, is_async)
    cornerstone = Component(
        kind="cornerstone",
        container="c",
        name="look",
        modules=(
            ModuleHooks(
                hooks=(of_cornerstone,),
                lifespan=lifespan,
                request=request,
                before_answer=before_answer,
            ),
        ),
    )
    endpoint = Component(
        kind="endpoint",
        container="e",
        name="look",
        modules=(ModuleHooks(hooks=(of_endpoint,), lifespan=lifespan),),
    )
    hive = Hive(HIDDEN, cornerstones=[cornerstone], endpoints=[endpoint], entry_points=False)
    async with hive.running():
        await run(hive, http("/nowhere"))
    assert seen == TABLE


@pytest.mark.parametrize("name", NAMES)
async def test_nothing_can_be_set_or_read_too_early(name: str) -> None:
    with pytest.raises(HookDenied, match="cannot be set"):
        setattr(CornerstoneHooks(), name, 1)
    with pytest.raises(HookDenied, match="not there yet"):
        getattr(EndpointHooks(), name)


class Keeping(CornerstoneHooks):
    """Keeps something at every step, some of it on itself."""

    def pre_endpoint_setup(self) -> None:
        self.token = object()
        self.app_state["life"] = self

    async def post_endpoint_teardown(self) -> None:
        assert self.app_state["life"] is self
        assert self.token is not None

    def pre_endpoint_call(self) -> None:
        self.own = self.request.url.path
        self.request_state["own"] = self

    async def post_endpoint_call(self) -> None:
        assert self.request_state["own"] is self
        assert self.own == self.request.url.path
        assert self is not self.app_state["life"]
        self.app_state.setdefault("done", []).append((self.error, self.status))


def keeping(router: Router) -> Hive:
    module = ModuleHooks(hooks=(Keeping,), websockets=True)
    cornerstone = Component(kind="cornerstone", container="c", name="keep", modules=(module,))
    endpoint = Component(kind="endpoint", container="e", name="show", router=router)
    return Hive(HIDDEN, cornerstones=[cornerstone], endpoints=[endpoint], entry_points=False)


async def test_states() -> None:
    router = Router()

    @router.get("/")
    async def show(request: Request) -> str:
        app, own = request.app.state, request.state
        assert request.app is hive
        assert isinstance(app.cornerstones["c.keep"]["__cornerstone__"], Metadata)
        assert app.endpoints["e.show"]["__endpoint__"].key == "e.show"
        assert own.cornerstones["c.keep"]["__cornerstone__"].name == "keep"
        assert list(own.cornerstones) == ["c.keep"]
        for states, key, there in (
            (app.cornerstones, "c.kep", "c.keep"),
            (app.endpoints, "c.keep", "e.show"),
            (own.cornerstones, "e.show", "c.keep"),
            (app.cornerstones["c.keep"], "lif", "life"),
            (own.cornerstones["c.keep"], "life", "own"),
        ):
            with pytest.raises(KeyError, match=f"no '{key}'; there is: .*{there}"):
                states[key]
        request.state.free = "as always"
        return str(own.cornerstones["c.keep"]["own"].own)

    hive = keeping(router)
    async with hive.running():
        for _ in range(2):
            answer = await run(hive, http("/e/show/"))
            assert (answer.status, answer.body) == (200, b"/e/show/")
        assert hive.state.cornerstones["c.keep"]["done"] == [(None, 200), (None, 200)]


async def test_error_and_status() -> None:
    router = Router()

    @router.get("/")
    async def fail(number: int) -> None:
        raise ZeroDivisionError

    hive = keeping(router)
    async with hive.running(), client(hive) as asks:
        for path, status, kind in (
            ("/e/show/?number=1", 500, ZeroDivisionError),
            ("/e/show/?number=x", 422, Exception),
            ("/nowhere", 404, type(None)),
        ):
            assert (await asks.get(path)).status_code == status
            error, noted = hive.state.cornerstones["c.keep"]["done"].pop()
            assert noted == status
            assert isinstance(error, kind)
        await run(hive, websocket("/nowhere"))
        assert hive.state.cornerstones["c.keep"]["done"] == [(None, 403)]


async def test_hooks_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="a cornerstone has no router"):
        Component(kind="cornerstone", container="c", name="x", router=Router())
    endpoint = Component(kind="endpoint", container="e", name="x")
    with pytest.raises(ValueError, match="kind cornerstone is accepted"):
        Hive(HIDDEN, cornerstones=[endpoint], base=tmp_path)
