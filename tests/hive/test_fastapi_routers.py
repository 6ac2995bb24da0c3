"""FastAPI's routers as endpoints: as they are, with the hive around them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import PlainTextResponse
from openapi_spec_validator import validate
from pydantic import BaseModel
from starlette.applications import Starlette

import asgihive
from asgihive import Router
from asgihive.errors import HiveError
from asgihive.hive import (
    Component,
    ComponentError,
    ConfigurationError,
    CornerstoneHooks,
    EndpointHooks,
    Hive,
    HiveConfig,
    ModuleHooks,
)
from asgihive.hive.provided import ProvidedReader
from tests.asgi.exchange import run, websocket
from tests.hive.services import client

pytestmark = pytest.mark.anyio


class Item(BaseModel):
    number: int


class Unknown(Exception):
    """An exception that a handler of the FastAPI application answers."""


async def find_user() -> str:
    return "ada"


def make_api_router(**options: Any) -> APIRouter:
    router = APIRouter(**options)

    @router.get("", response_model=Item)
    def first() -> dict[str, Any]:
        return {"number": 1, "secret": "not sent"}

    @router.get("/items/{number}", tags=["more"])
    async def show(
        number: int, request: Request, user: Annotated[str, Depends(find_user)]
    ) -> dict[str, Any]:
        return {
            "number": number,
            "user": user,
            "asked": request.state.cornerstones["c.auth"]["asked"],
            "app": request.app.state.cornerstones["c.auth"]["word"],
            "endpoint": request.app.state.endpoints["e.x"]["ready"],
            "params": request.path_params,
            "url": request.url_for("show", number="3").path,
        }

    @router.get("/fails/{kind}")
    def fail(kind: str) -> None:
        raise {
            "fastapi": HTTPException(418, "tea", {"x-kind": "pot"}),
            "asgihive": asgihive.HTTPException(409, "busy"),
            "known": Unknown("known"),
            "unexpected": ValueError("secret"),
        }[kind]

    @router.websocket("/live")
    async def live(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(websocket.state.cornerstones["c.auth"]["asked"])
        await websocket.close()

    return router


class Auth(CornerstoneHooks):
    websockets = True
    seen: list[Any] = []  # noqa: RUF012  # of all its objects

    def pre_endpoint_setup(self) -> None:
        self.app_state["word"] = "hello"

    async def pre_endpoint_call(self) -> None:
        self.request_state["asked"] = "by a hook"

    async def post_endpoint_call(self) -> None:
        route = self.request.scope.get("route")
        self.seen.append((self.status, type(self.error).__name__, route and route.path))


class Ready(EndpointHooks):
    def setup(self) -> None:
        self.app_state["ready"] = True


def make_hive(*routers: Any, config: dict[str, Any] | None = None, **options: Any) -> Hive:
    auth = Component(
        kind="cornerstone", container="c", name="auth", modules=(ModuleHooks(hooks=(Auth,)),)
    )
    endpoints = [
        Component(
            kind="endpoint",
            container="e",
            name=name,
            router=router,
            modules=(ModuleHooks(hooks=(Ready,)),),
        )
        for name, router in zip("xyz", routers, strict=False)
    ]
    fields = {"cornerstone_package_path": (), "api_prefix": "api", **(config or {})}
    return Hive(
        HiveConfig(**fields),
        cornerstones=[auth],
        endpoints=endpoints,
        entry_points=False,
        **options,
    )


@pytest.fixture(autouse=True)
def _nothing_was_seen() -> None:
    Auth.seen.clear()


@pytest.mark.parametrize("is_given", [False, True])
async def test_hooks_and_states_are_around_it_in_every_life(is_given: bool) -> None:
    hive = make_hive(make_api_router(), app=FastAPI() if is_given else None)
    for _ in range(2):
        async with hive.running(), client(hive) as asks:
            assert (await asks.get("/api/e/x")).json() == {"number": 1}
            answer = await asks.get("/api/e/x/items/7")
            assert answer.json() == {
                "number": 7,
                "user": "ada",
                "asked": "by a hook",
                "app": "hello",
                "endpoint": True,
                "params": {"number": "7"},
                "url": "/api/e/x/items/3",
            }
            live = await run(hive, websocket("/api/e/x/live"))
            assert live.sent[1]["text"] == "by a hook"
            assert Auth.seen[1] == (200, "NoneType", "/api/e/x/items/{number}")


async def test_fastapi_answers_what_it_handles_and_the_hive_the_rest() -> None:
    app = FastAPI()

    @app.exception_handler(Unknown)
    async def answer_unknown(request: Request, error: Unknown) -> PlainTextResponse:
        return PlainTextResponse(f"handled {error}", 410)

    hive = make_hive(make_api_router(), app=app)
    async with hive.running(), client(hive) as asks:
        expected: dict[str, tuple[int, str]] = {
            "fails/fastapi": (418, '{"detail":"tea"}'),
            "fails/known": (410, "handled known"),
            "fails/asgihive": (409, '{"message":"busy"}'),
            "fails/unexpected": (500, '{"message":"Internal server error"}'),
            "nothing": (404, '{"detail":"Not Found"}'),
        }
        for path, (status, body) in expected.items():
            answer = await asks.get(f"/api/e/x/{path}")
            assert (answer.status_code, answer.text) == (status, body)
        answer = await asks.get("/api/e/x/items/seven")
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"] == ["path", "number"]
        assert (await asks.post("/api/e/x")).status_code == 405
    template = "/api/e/x/fails/{kind}"
    assert Auth.seen[0] == (418, "NoneType", template)
    assert Auth.seen[2] == (409, "HTTPException", template)
    assert Auth.seen[3] == (500, "ValueError", template)
    assert Auth.seen[4] == (404, "NoneType", None)


@pytest.mark.parametrize("has_websocket", [False, True])
async def test_hooks_that_leave_out_its_websockets_are_warned_of(
    has_websocket: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Auth, "websockets", None)
    router = make_api_router()
    if not has_websocket:
        router = APIRouter()
        router.get("/")(find_user)
    async with make_hive(router).running():
        warned = [each.message for each in caplog.records if "do not run for" in each.message]
    assert len(warned) == has_websocket
    assert all("/api/e/x/live" in each for each in warned)


async def test_what_components_say_of_errors_counts_too() -> None:
    own = Component(
        kind="endpoint",
        container="e",
        name="x",
        router=make_api_router(),
        statuses={Unknown: 404},
    )
    other = Component(kind="endpoint", container="e", name="y", router=make_api_router())
    config = HiveConfig(cornerstone_package_path=())
    hive = Hive(config, endpoints=[own, other], entry_points=False)
    async with hive.running(), client(hive) as asks:
        answer = await asks.get("/e/x/fails/known")
        assert (answer.status_code, answer.json()) == (404, {"message": "known"})
        assert (await asks.get("/e/y/fails/known")).status_code == 500


async def test_dependency_overrides_of_fastapi_are_reached() -> None:
    for app in (None, FastAPI()):
        hive = make_hive(make_api_router(), app=app)
        hive.fastapi.dependency_overrides[find_user] = lambda: "bee"
        async with hive.running(), client(hive) as asks:
            assert (await asks.get("/api/e/x/items/7")).json()["user"] == "bee"
            hive.fastapi.dependency_overrides.clear()
            assert (await asks.get("/api/e/x/items/7")).json()["user"] == "ada"


async def test_an_application_that_is_given_keeps_what_it_has() -> None:
    """Its routes, its guards, its lifespan and those of routers; all of it for this life."""
    calls = []

    def note(name: str) -> Any:
        @asynccontextmanager
        async def lifespan(app: Any) -> AsyncIterator[dict[str, str]]:
            calls.append(f"{name} starts")
            yield {name: "yielded"}
            calls.append(f"{name} stops")

        return lifespan

    def guard(request: Request) -> None:
        if "token" not in request.headers:
            raise HTTPException(401, "Say who you are")

    app = FastAPI(lifespan=note("app"), dependencies=[Depends(guard)], title="Mine", version="9")

    @app.get("/own")
    def own(request: Request) -> str:
        return f"{request.state.app} {request.state.router}"

    before = [*app.router.routes]
    hive = make_hive(make_api_router(lifespan=note("router")), app=app)
    for _ in range(2):
        calls.clear()
        async with hive.running(), client(hive) as asks:
            assert sorted(calls) == ["app starts", "router starts"]
            assert (await asks.get("/own")).status_code == 401
            assert (await asks.get("/api/e/x")).status_code == 401
            token = {"token": "t"}
            assert (await asks.get("/own", headers=token)).json() == "yielded yielded"
            assert (await asks.get("/api/e/x", headers=token)).json() == {"number": 1}
            document = (await asks.get("/openapi.json")).json()
            assert document["info"] == {"title": "Mine", "version": "9"}
            assert "/own" in document["paths"]
        assert sorted(calls[2:]) == ["app stops", "router stops"]
        assert app.router.routes == before
        assert not hasattr(app.state, "cornerstones")


@pytest.mark.parametrize("is_given", [False, True])
async def test_the_document_and_the_routes_have_them_all(is_given: bool) -> None:
    plain = Router()

    @plain.get("/plain")
    def show(item: int) -> Item:
        return Item(number=item)

    config = {"hide_endpoint_in_tag": True}
    app = FastAPI() if is_given else None
    hive = make_hive(make_api_router(), plain, config=config, app=app)
    at_rest = hive.route_records()
    async with hive.running(), client(hive) as asks:
        assert hive.route_records() == at_rest
        document = (await asks.get("/openapi.json")).json()
    validate(document)
    paths = ["/api/e/x", "/api/e/x/items/{number}", "/api/e/x/fails/{kind}", "/api/e/y/plain"]
    assert sorted(document["paths"]) == sorted(paths)
    assert document["paths"]["/api/e/x/items/{number}"]["get"]["tags"] == ["e", "more"]
    assert {each["name"] for each in document["tags"]} == {"e", "more"}
    names = document["components"]["schemas"]
    assert {"Item", "HTTPValidationError", "asgihive.InvalidRequest"} <= names.keys()
    found = {(each.methods, each.url, each.tag) for each in at_rest}
    assert (("GET",), "/api/e/x/items/{number}", "e, more") in found
    assert (("WEBSOCKET",), "/api/e/x/live", "") in found
    (record,) = [each for each in at_rest if each.url == "/api/e/x"]
    assert record.file == __file__


async def test_hooks_include_routers_too() -> None:
    class Including(EndpointHooks):
        def setup(self) -> None:
            router = make_api_router()
            self.app.include_router(router, prefix="/v1/x", tags=["again"], deprecated=True)

    component = Component(
        kind="endpoint", container="e", name="x", modules=(ModuleHooks(hooks=(Ready, Including)),)
    )
    auth = Component(
        kind="cornerstone", container="c", name="auth", modules=(ModuleHooks(hooks=(Auth,)),)
    )
    config = HiveConfig(cornerstone_package_path=())
    hive = Hive(config, cornerstones=[auth], endpoints=[component], entry_points=False)
    hive.include_router(make_api_router(), "/always")
    for _ in range(2):
        async with hive.running(), client(hive) as asks:
            for prefix in ("/v1/x", "/always"):
                assert (await asks.get(f"{prefix}/items/7")).json()["number"] == 7
            assert (await asks.get("/v1")).json() == {"message": "No such route: /v1"}
            document = (await asks.get("/openapi.json")).json()
            assert document["paths"]["/v1/x"]["get"]["deprecated"]
    assert [each.url for each in hive.route_records() if "items" in each.url] == [
        "/always/items/{number}"
    ]


async def test_what_cannot_be_ends_the_start() -> None:
    wrong: Any = Starlette()
    with pytest.raises(ConfigurationError, match="a FastAPI application is accepted"):
        make_hive(app=wrong)
    hidden = {
        "api_prefix": "",
        "hide_endpoint_container_in_api": True,
        "hide_endpoint_in_api": True,
    }
    for _ in range(2):  # the application is as before then
        with pytest.raises(ComponentError, match="Prefix and path cannot be both empty"):
            async with make_hive(make_api_router(), config=hidden).running():
                pytest.fail("it cannot start")
    app = FastAPI()
    async with make_hive(make_api_router(), app=app).running():
        with pytest.raises(HiveError, match="that of a hive that runs"):
            async with make_hive(make_api_router(), app=app).running():
                pytest.fail("it cannot start")
    async with make_hive(make_api_router(), app=app).running():
        pass


class Session:
    """What a cornerstone provides, of a type that FastAPI knows nothing of."""


@asynccontextmanager
async def provide(context: Any) -> AsyncIterator[None]:
    context.provide(Item, Item(number=1))
    context.provide(Session, Session())
    yield


def _provided_to(router: APIRouter | Router, **options: Any) -> Hive:
    modules = (ModuleHooks(lifespan=provide),)
    database = Component(kind="cornerstone", container="c", name="db", modules=modules)
    endpoint = Component(kind="endpoint", container="e", name="x", router=router)
    none = HiveConfig(cornerstone_package_path=())
    return Hive(none, cornerstones=[database], endpoints=[endpoint], entry_points=False, **options)


@pytest.mark.parametrize("kind", [APIRouter, Router])
async def test_a_route_of_fastapi_asks_by_type(kind: type[Any]) -> None:
    router: Any = kind()

    def check(session: asgihive.FromHive[Session]) -> bool:
        return isinstance(session, Session)

    depends = Depends if kind is APIRouter else asgihive.Depends

    async def show(item: asgihive.FromHive[Item], checked: bool = depends(check)) -> list[Any]:
        return [item.number, checked]

    router.post("/")(show)
    hive = _provided_to(router)
    async with hive.running(), client(hive) as asks:
        # The client's own is not taken for it.
        assert (await asks.post("/e/x/", json={"number": 666})).json() == [1, True]


class Unprovided:
    """What no cornerstone provides."""


@pytest.mark.parametrize("where", ["router", "dependency", "guard", "application", "websocket"])
async def test_what_no_cornerstone_provides_to_fastapi_ends_the_start(where: str) -> None:
    def ask(missing: asgihive.FromHive[Unprovided]) -> None: ...
    def outer(found: Annotated[None, Depends(ask)]) -> None: ...

    router, app = APIRouter(), FastAPI()
    match where:
        case "router":
            router.get("/{missing_or_not}")(ask)
        case "dependency":
            router.get("/")(outer)
        case "guard":
            router.get("/", dependencies=[Depends(outer)])(lambda: None)
        case "application":
            app.get("/")(ask)
        case "websocket":
            router.websocket("/")(ask)
    hive = _provided_to(router, app=app)
    told = r"ask \(.*test_fastapi_routers.py:\d+\).*'missing' asks for Unprovided, which no corner"
    with pytest.raises(ComponentError, match=told):
        async with hive.running():
            pass
    app.dependency_overrides[ask] = Unprovided
    app.dependency_overrides[ProvidedReader(Unprovided)] = Unprovided
    async with _provided_to(router, app=app).running():
        """What tests replace is not asked for."""


async def test_what_is_provided_for_http_only_is_not_there_for_websockets_of_fastapi() -> None:
    @asynccontextmanager
    async def request(context: Any) -> AsyncIterator[None]:
        context.provide(Unprovided, Unprovided())
        yield

    def ask(websocket: WebSocket, missing: asgihive.FromHive[Unprovided]) -> None: ...

    router = APIRouter()
    router.websocket("/")(ask)
    module = ModuleHooks(request=request, provides=(Unprovided,))
    late = Component(kind="cornerstone", container="c", name="late", modules=(module,))
    endpoint = Component(kind="endpoint", container="e", name="x", router=router)
    none = HiveConfig(cornerstone_package_path=())
    hive = Hive(none, cornerstones=[late], endpoints=[endpoint], entry_points=False)
    with pytest.raises(ComponentError, match=r"c\.late provides for http only"):
        async with hive.running():
            pass


@pytest.mark.parametrize(
    "where", ["parameter", "default", "dependency", "application", "alias", "websocket"]
)
async def test_a_marker_of_asgihive_in_a_route_of_fastapi_ends_the_start(where: str) -> None:
    def guard(item: Annotated[Item, asgihive.Depends(find_user)]) -> None: ...
    def by_default(item: str = asgihive.Depends(find_user)) -> None: ...
    def outer(found: Annotated[None, Depends(guard)]) -> None: ...
    def alias(item: Annotated[Item, asgihive.Depends(ProvidedReader(Item))]) -> None: ...

    handlers = {"default": by_default, "dependency": outer, "alias": alias}
    router, app = APIRouter(), FastAPI()
    asked: Any = app if where == "application" else router
    add = asked.websocket if where == "websocket" else asked.post
    add("/")(handlers.get(where, guard))
    hive = _provided_to(router, app=app)
    told = "import fastapi before" if where == "alias" else "write fastapi.Depends"
    with pytest.raises(ComponentError, match=rf"'item': .*{told}"):
        async with hive.running():
            pass
