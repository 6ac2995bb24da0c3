"""What tests of a service put in the place of its components, and what tools see of it."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import APIRouter
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from asgihive.asgi import Router
from asgihive.hive import (
    Component,
    ComponentError,
    CornerstoneHooks,
    EndpointHooks,
    Hive,
    HiveConfig,
    HiveRunning,
    ModuleHooks,
    RouteRecord,
    format_routes,
)
from tests.asgi.exchange import http, run
from tests.hive.services import RecordingHive, client, config, write

pytestmark = pytest.mark.anyio

SHOW = """
from asgihive.asgi import Router
from starlette.requests import Request

router = Router()

@router.get("/{name}", tags=["more"])
async def show(request: Request, name: str):
    return request.app.state.cornerstones["cornerstones.db"][name]

@router.websocket("/live")
async def live(websocket):
    await websocket.close()
"""


@pytest.fixture
def hive(tmp_path: Path) -> RecordingHive:
    files = {"cornerstones/db.py": "raise RuntimeError('no database here')"}
    write(tmp_path, {**files, "endpoints/show.py": SHOW})
    return RecordingHive(config(api_prefix="/api"), base=tmp_path)


class FakeHooks(CornerstoneHooks):
    """In the place of the database's."""

    def pre_endpoint_setup(self) -> None:
        self.calls = ["set up"]
        self.app_state["url"] = "fake"


FAKES: dict[str, Any] = {
    "class": FakeHooks,
    "object": FakeHooks(),
    "state": {"url": "fake"},
    "module": SimpleNamespace(CornerstoneHooksImpl=FakeHooks),
    "component": Component(
        kind="cornerstone", container="any", name="thing", state={"url": "fake"}
    ),
}


@pytest.mark.parametrize("kind", FAKES)
async def test_a_fake_stands_in(hive: RecordingHive, kind: str) -> None:
    with hive.override("cornerstones.db", FAKES[kind]):
        async with hive.running():
            assert (await run(hive, http("/api/endpoints/show/url"))).body == b"fake"
    if kind == "object":
        assert FAKES["object"].calls == ["set up"]
    with pytest.raises(ComponentError, match="no database here"):
        async with hive.running():
            pytest.fail("the real one is back")


async def test_endpoints_have_fakes_too(hive: RecordingHive) -> None:
    class Hooks(EndpointHooks):
        def setup(self) -> None:
            self.app_state["is_up"] = True

    router = Router()
    router.get("/hello")(lambda: "hello")
    with hive.override("cornerstones.db", {}), hive.override("endpoints.show", router):
        async with hive.running():
            assert (await run(hive, http("/api/endpoints/show/hello"))).body == b"hello"
        with hive.override("endpoints.show", Hooks):
            async with hive.running():
                assert hive.state.endpoints["endpoints.show"]["is_up"]
                assert (await run(hive, http("/api/endpoints/show/hello"))).status == 404


async def test_functions_are_overridden_before_the_start_and_after(tmp_path: Path) -> None:
    text = """
    from typing import Annotated
    from asgihive import Depends, Router

    router = Router()

    def find_user():
        return "ada"

    @router.get("/")
    def show(user: Annotated[str, Depends(find_user)]) -> str:
        return user
    """
    write(tmp_path, {"endpoints/show.py": text, "cornerstones/__init__.py": ""})
    hive = RecordingHive(config(), base=tmp_path)
    hive.graph()
    find_user = _find_function("show", "find_user")
    hive.router.overrides[find_user] = lambda: "bee"
    for user in (b"bee", b"ada"):
        async with hive.running():
            assert (await run(hive, http("/endpoints/show/"))).body == user
            hive.router.overrides[find_user] = lambda: "cleo"
            assert (await run(hive, http("/endpoints/show/"))).body == b"cleo"
            del hive.router.overrides[find_user]
            assert (await run(hive, http("/endpoints/show/"))).body == b"ada"


def _find_function(module: str, name: str) -> Any:
    modules = [each for key, each in sys.modules.items() if key.endswith(f".{module}")]
    return getattr(modules[-1], name)


async def test_a_hive_that_needs_no_lifespan_is_overridden_at_once() -> None:
    real, fake = Router(), Router()
    real.get("/")(lambda: "real")
    fake.get("/")(lambda: "fake")
    component = Component(
        kind="endpoint", container="e", name="x", router=real, needs_lifespan=False
    )
    hive = Hive(HiveConfig(cornerstone_package_path=()), endpoints=[component], entry_points=False)
    with hive.override("e.x", fake):
        assert (await run(hive, http("/e/x/"))).body == b"fake"
        async with hive.running():
            assert (await run(hive, http("/e/x/"))).body == b"fake"
    assert (await run(hive, http("/e/x/"))).body == b"real"
    overridden = hive.override("e.x", fake)
    overridden.__enter__()
    async with hive.running():
        overridden.__exit__(None, None, None)
        assert (await run(hive, http("/e/x/"))).body == b"fake"
    assert (await run(hive, http("/e/x/"))).body == b"real"


@pytest.mark.parametrize("name", ["lifespan", "request"])
def test_a_component_in_code_has_context_managers(name: str) -> None:
    async def generate(context: object) -> AsyncIterator[None]:
        yield

    async def wait(context: object) -> None: ...

    functions: tuple[Any, ...] = (generate, wait)
    for function in functions:
        modules = (ModuleHooks(**{name: function}),)
        with pytest.raises(ComponentError, match="decorate it by @asynccontextmanager"):
            Component(kind="cornerstone", container="c", name="x", modules=modules)


async def test_an_endpoint_has_any_application_as_its_fake(hive: RecordingHive) -> None:
    api = APIRouter()
    api.get("/hello")(lambda: "from FastAPI")
    starlette = Starlette(routes=[Route("/hello", lambda _: PlainTextResponse("from Starlette"))])
    for fake, body in ((api, b'"from FastAPI"'), (starlette, b"from Starlette")):
        with hive.override("cornerstones.db", {}), hive.override("endpoints.show", fake):
            async with hive.running():
                assert (await run(hive, http("/api/endpoints/show/hello"))).body == body


async def test_what_cannot_be_overridden(hive: RecordingHive) -> None:
    with (
        pytest.raises(ComponentError, match=r"did you mean cornerstones\.db\?.*endpoints\.show"),
        hive.override("cornerstones.bd", {}),
    ):
        pytest.fail("there is none")
    for fake in (3, EndpointHooks, Router()):
        with (
            pytest.raises(ComponentError, match="a subclass or an object of CornerstoneHooks"),
            hive.override("cornerstones.db", fake),
        ):
            pytest.fail("it cannot be used")
    with hive.override("cornerstones.db", {}):
        async with hive.running():
            with (
                pytest.raises(HiveRunning, match="cannot override"),
                hive.override("cornerstones.db", {}),
            ):
                pytest.fail("too late")


async def test_routes(hive: RecordingHive, tmp_path: Path) -> None:
    file = str(tmp_path / "endpoints/show.py")
    tag = "endpoints.show"
    url = "/api/endpoints/show"
    with hive.override("cornerstones.db", {}):
        at_rest = hive.route_records()
        async with hive.running():
            assert hive.route_records() == at_rest
    assert at_rest == (
        RouteRecord(("GET",), f"{url}/{{name}}", f"{tag}, more", "show", file, 6),
        RouteRecord(("WEBSOCKET",), f"{url}/live", tag, "live", file, 10),
    )
    assert format_routes(at_rest).splitlines() == [
        f"GET        {url}/{{name}}  {tag}, more  show  {file}:6",
        f"WEBSOCKET  {url}/live    {tag}        live  {file}:10",
    ]
    assert format_routes(()) == ""


async def test_the_documentation_has_the_tags_and_can_be_switched_off(tmp_path: Path) -> None:
    write(tmp_path, {"endpoints/show.py": SHOW, "cornerstones/__init__.py": ""})
    for docs in (True, False):
        hive = Hive(
            config(), base=tmp_path, entry_points=False, title="Mine", version="7", docs=docs
        )
        async with hive.running(), client(hive) as asks:
            answer = await asks.get("/openapi.json")
            assert answer.status_code == (200 if docs else 404)
            assert (await asks.get("/docs")).status_code == (200 if docs else 404)
            if docs:
                document = answer.json()
                assert document["info"] == {"title": "Mine", "version": "7"}
                (path,) = document["paths"]
                tags = document["paths"][path]["get"]["tags"]
                assert (path, tags) == ("/endpoints/show/{name}", ["endpoints.show", "more"])


@pytest.mark.slow_on_trio
async def test_two_hundred_endpoints_start(tmp_path: Path) -> None:
    text = """
from asgihive.asgi import Router
from asgihive.hive import EndpointHooks

router = Router()

@router.get("/{number:int}")
async def show(number: int, limit: int = 10) -> dict[str, int]:
    return {"number": number}

class EndpointHooksImpl(EndpointHooks):
    def setup(self):
        self.app_state["ready"] = True
"""
    write(tmp_path, {f"endpoints/e{number:03}/__init__.py": text for number in range(200)})
    write(tmp_path, {"cornerstones/__init__.py": ""})
    hive = RecordingHive(config(), base=tmp_path)
    async with hive.running():
        for number in (0, 199):
            assert (await run(hive, http(f"/endpoints/e{number:03}/7"))).body == b'{"number":7}'
