"""What layers around and below a hive see of a request: its state, and the route that answers."""

import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, NoMatchFound, Route
from starlette.routing import Router as StarletteRouter
from starlette.websockets import WebSocket

from asgihive.asgi import Router
from asgihive.hive import Component, CornerstoneHooks, Hive, HiveConfig, HiveMiddleware, ModuleHooks
from tests.asgi.exchange import http, run, websocket
from tests.hive.services import client

pytestmark = pytest.mark.anyio

CONFIG = HiveConfig(
    cornerstone_package_path=(),
    hide_endpoint_container_in_api=True,
    hide_endpoint_in_api=True,
)
Seen = list[Any]

# Starlette 1.0 does not; what routes of another framework are then is not known.
needs_told_routes = pytest.mark.skipif(
    '"route"' not in inspect.getsource(StarletteRouter),
    reason="this Starlette does not tell which of its routes answers",
)


def make_hive(router: Any, seen: Seen | None = None, name: str = "n") -> Hive:
    """A hive of one endpoint, and one cornerstone that notes what it sees after each request."""

    class Hooks(CornerstoneHooks):
        async def pre_endpoint_call(self) -> None:
            self.request_state["of"] = name
            self.request.state.hook = f"hook of {name}"

        async def post_endpoint_call(self) -> None:
            if seen is not None:
                seen.append((name, self.route and (self.route.path, self.route.name)))
                assert self.request.state.cornerstones["c.db"] is self.request_state
                assert self.request_state["of"] == name
                assert self.request.app is self.app

    modules = (ModuleHooks(hooks=(Hooks,)),)
    cornerstone = Component(kind="cornerstone", container="c", name="db", modules=modules)
    endpoint = Component(kind="endpoint", container="e", name="x", router=router)
    return Hive(
        CONFIG, cornerstones=[cornerstone], endpoints=[endpoint], entry_points=False, docs=False
    )


def make_router() -> Router:
    router = Router()

    @router.get("/items/{number:int}")
    async def read(request: Request, number: int) -> dict[str, Any]:
        request.state.handler = "handler"
        return {
            "of": request.state.cornerstones["c.db"]["of"],
            "outer": getattr(request.state, "outer", None),
            "root_path": request.scope["root_path"],
        }

    @router.get("/url/{name}")
    async def url(request: Request, name: str) -> str:
        params = dict(request.query_params)
        return str(request.url_for(name, **params))

    @router.websocket("/talk/{room}")
    async def talk(websocket: WebSocket, room: str) -> None:
        await websocket.accept()
        await websocket.send_text(str(websocket.url_for("talk", room="a b")))
        await websocket.close()

    return router


class Observer:
    """A middleware that notes what its scope says after the request."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.scope: dict[str, Any] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        HTTPConnection(scope).state.outer = "outer"
        self.scope = scope
        await self.app(scope, receive, send)

    def found(self) -> tuple[Any, ...]:
        route = self.scope.get("route")
        if route is None:
            return (self.scope.get("endpoint"),)
        name = getattr(self.scope["endpoint"], "__name__", None)
        span = self.scope["root_path"].rstrip("/") + route.path_format  # as OpenTelemetry has it
        return route.path, route.name, name, span, self.scope["path_params"]


def _mounted_in_a_router(prefix: str, app: Any) -> Router:
    router = Router()
    router.mount(prefix, app, name="inner")
    return router


def _mounted_in_fastapi(prefix: str, app: Any) -> FastAPI:
    outer = FastAPI()
    outer.mount(prefix, app)
    return outer


AROUND: dict[str, Callable[[str, Any], Any]] = {
    "starlette": lambda prefix, app: Starlette(routes=[Mount(prefix, app)]),
    "fastapi": _mounted_in_fastapi,
    "router": _mounted_in_a_router,
    "hive": lambda prefix, app: make_hive(_mounted_in_a_router(prefix, app), name="outer"),
    "twice": lambda prefix, app: Starlette(
        routes=[Mount("/", make_hive(_mounted_in_a_router(prefix, app), name="outer"))]
    ),
}


def running(hive: Hive, app: Any) -> AbstractAsyncContextManager[None]:
    """Start a hive, or the one around it, which starts it."""
    mounts = [each.app for each in getattr(app, "routes", ()) if isinstance(each, Mount)]
    outer = next((each for each in (app, *mounts) if isinstance(each, Hive)), hive)
    return outer.running()


async def test_a_hive_alone_tells_its_route_and_shares_the_state() -> None:
    seen: Seen = []
    hive = make_hive(make_router(), seen)
    observer = Observer(hive)
    async with hive.running(), client(observer) as asks:
        answer = await asks.get("/items/7")
        assert answer.json() == {"of": "n", "outer": "outer", "root_path": ""}
        path = "/items/{number:int}"
        assert observer.found() == (path, "read", "read", "/items/{number}", {"number": 7})
        state = HTTPConnection(observer.scope).state
        assert (state.hook, state.handler) == ("hook of n", "handler")
        assert (await asks.get("/nowhere")).status_code == 404
        assert observer.found() == (None,)
        assert (await asks.post("/items/7")).status_code == 405
        assert observer.found() == (None,)
    assert seen == [("n", (path, "read")), ("n", None), ("n", None)]


@pytest.mark.parametrize("around", AROUND)
async def test_layers_around_see_the_route_below_their_mounts(around: str) -> None:
    seen: Seen = []
    hive = make_hive(make_router(), seen)
    app = AROUND[around]("/api", hive)
    observer = Observer(app)
    async with running(hive, app), client(observer) as asks:
        answer = await asks.get("/api/items/7")
        assert answer.json() == {"of": "n", "outer": "outer", "root_path": "/api"}
        path, span = "/api/items/{number:int}", "/api/items/{number}"
        assert observer.found() == (path, "read", "read", span, {"number": 7})
        state = HTTPConnection(observer.scope).state
        hook = "hook of n"
        assert (state.hook, state.handler) == (hook, "handler")
        assert (await asks.get("/api/nowhere")).status_code == 404
        if around in {"router", "hive"}:
            assert observer.found() == (None,)
    assert seen == [("n", (path, "read")), ("n", None)]


async def test_hooks_of_an_outer_hive_keep_their_states_and_see_the_inner_route() -> None:
    seen: Seen = []
    inner = make_hive(make_router(), seen, "inner")
    outer = make_hive(_mounted_in_a_router("/{tenant}", inner), seen, "outer")
    async with outer.running(), client(outer) as asks:
        assert (await asks.get("/mine/items/7")).json()["of"] == "inner"
        assert (await asks.get("/mine/nothing")).status_code == 404
    found = ("/{tenant}/items/{number:int}", "read")
    assert seen == [("inner", found), ("outer", found), ("inner", None), ("outer", None)]


async def test_the_parameters_of_mounts_around_are_in_the_template() -> None:
    seen: Seen = []
    hive = make_hive(make_router(), seen)
    app = Starlette(routes=[Mount("/{tenant}/api", hive)])
    async with hive.running(), client(app) as asks:
        assert (await asks.get("/mine/api/items/7")).status_code == 200
    assert seen == [("n", ("/{tenant}/api/items/{number:int}", "read"))]


@needs_told_routes
async def test_the_parameters_below_a_mount_are_not_in_its_prefix() -> None:
    async def show(request: Request) -> PlainTextResponse:
        return PlainTextResponse("x")

    seen: Seen = []
    below = Starlette(routes=[Route("/deep", show)])
    hive = make_hive(_mounted_in_a_router("/of/{tenant}", below), seen)
    app = Starlette(routes=[Mount("/api", hive)])
    async with hive.running(), client(app) as asks:
        assert (await asks.get("/api/of/api/deep")).status_code == 200
    assert seen == [("n", ("/api/of/{tenant}/deep", "show"))]


@needs_told_routes
async def test_the_route_of_a_mounted_application_of_another_framework() -> None:
    async def show(request: Request) -> PlainTextResponse:
        request.state.handler = "handler"
        return PlainTextResponse(request.state.cornerstones["c.db"]["of"])

    seen: Seen = []
    routes = [Route("/deep/{x}", show), Mount("/sub", routes=[Route("/{y}", show)])]
    hive = make_hive(_mounted_in_a_router("/other", Starlette(routes=routes)), seen)
    observer = Observer(hive)
    async with hive.running(), client(observer) as asks:
        assert (await asks.get("/other/deep/1")).text == "n"
        path = "/other/deep/{x}"
        assert observer.found() == (path, "show", "show", path, {"x": "1"})
        assert HTTPConnection(observer.scope).state.handler == "handler"
        await asks.get("/other/sub/2")
        path = "/other/sub/{y}"
        assert observer.found() == (path, "show", "show", path, {"y": "2"})
    assert [route for _, route in seen] == [("/other/deep/{x}", "show"), (path, "show")]


async def test_no_route_answers_where_a_hook_does() -> None:
    seen: list[Any] = []

    class Hooks(CornerstoneHooks):
        async def pre_endpoint_call(self) -> Any:
            return PlainTextResponse("from the hook")

        async def post_endpoint_call(self) -> None:
            seen.append(self.route)

    modules = (ModuleHooks(hooks=(Hooks,)),)
    cornerstone = Component(kind="cornerstone", container="c", name="db", modules=modules)
    hive = Hive(CONFIG, cornerstones=[cornerstone], entry_points=False)
    app = Starlette(routes=[Mount("/api", hive)])
    async with hive.running(), client(app) as asks:
        assert (await asks.get("/api/x")).text == "from the hook"
    assert seen == [None]


@needs_told_routes
async def test_before_answer_sees_the_route_of_another_framework() -> None:
    async def show(request: Request) -> PlainTextResponse:
        return PlainTextResponse("x")

    seen: list[str | None] = []

    def before_answer(context: Any) -> None:
        seen.append(context.route and context.route.path)

    router = APIRouter()
    router.add_api_route("/items/{number}", show, name="item")
    modules = (ModuleHooks(before_answer=before_answer),)
    cornerstone = Component(kind="cornerstone", container="c", name="db", modules=modules)
    mounted = _mounted_in_a_router("/other", Starlette(routes=[Route("/deep/{x}", show)]))
    endpoints = [
        Component(kind="endpoint", container="e", name=name, router=each)
        for name, each in (("x", mounted), ("y", router))
    ]
    none = HiveConfig(cornerstone_package_path=())
    hive = Hive(none, cornerstones=[cornerstone], endpoints=endpoints, entry_points=False)

    @hive.router.get("/url")
    async def url(request: Request) -> str:
        return str(request.url_for("item", number=3))

    async with hive.running(), client(hive) as asks:
        await asks.get("/e/x/other/deep/1")
        await asks.get("/e/y/items/1")
        await asks.get("/e/y/nothing")
        assert (await asks.get("/url")).text == "http://test/e/y/items/3"
    assert seen == ["/e/x/other/deep/{x}", "/e/y/items/{number}", None, "/url"]


@needs_told_routes
async def test_a_middleware_hive_sees_the_routes_that_it_is_around() -> None:
    async def show(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.state.cornerstones["c.db"]["of"])

    seen: Seen = []
    hive = make_hive(Router())

    class Hooks(CornerstoneHooks):
        async def pre_endpoint_call(self) -> None:
            self.request_state["of"] = "n"

        async def post_endpoint_call(self) -> None:
            assert self.route is not None
            seen.append((self.route.path, self.request.state.cornerstones["c.db"]["of"]))

    modules = (ModuleHooks(hooks=(Hooks,)),)
    cornerstone = Component(kind="cornerstone", container="c", name="db", modules=modules)
    around = Hive(CONFIG, cornerstones=[cornerstone], entry_points=False, docs=False)
    routes = [Mount("/a", routes=[Route("/{x}", show)]), Mount("/hive", hive)]
    app = Starlette(routes=routes, middleware=[Middleware(HiveMiddleware, hive=around)])
    async with hive.running(), around.running(), client(app) as asks:
        assert (await asks.get("/a/1")).text == "n"
    assert seen == [("/a/{x}", "n")]


async def test_a_middleware_of_starlette_shares_the_state() -> None:
    seen: Seen = []

    async def dispatch(request: Request, call_next: Any) -> Any:
        request.state.outer = "outer"
        response = await call_next(request)
        seen.append((request.state.handler, request.scope["route"].path, request.app))
        return response

    hive = make_hive(make_router())
    for app in (
        Starlette(routes=[Mount("/", hive)], middleware=[Middleware(BaseHTTPMiddleware, dispatch)]),
        BaseHTTPMiddleware(hive, dispatch),
    ):
        async with hive.running(), client(app) as asks:
            assert (await asks.get("/items/7")).json()["outer"] == "outer"
        inner = app if isinstance(app, Starlette) else hive
        assert seen.pop() == ("handler", "/items/{number:int}", inner)


async def test_requests_of_one_connection_may_share_the_state_of_the_server() -> None:
    """As Hypercorn has it: their cornerstones do not mix."""
    hive = make_hive(make_router())
    shared: dict[str, Any] = {"given": 1}
    async with hive.running():
        first = await run(hive, http("/items/1", state=shared))
        second = await run(hive, http("/items/2", state=shared))
    one, two = (each.scope["state"]["cornerstones"]["c.db"] for each in (first, second))
    assert one is not two
    assert second.scope["state"]["given"] == 1
    assert dict(second.scope["state"]).keys() == {"given", "cornerstones", "hook", "handler"}


# URLs by name


@pytest.mark.parametrize("root_path", ["", "/service"])
@pytest.mark.parametrize("around", ["alone", *AROUND])
async def test_url_for_finds_the_routes_of_the_hive(around: str, root_path: str) -> None:
    router = make_router()
    included = Router()
    included.add("/{day}/{rest:path}", PlainTextResponse("x"), name="included")
    router.include_router(included, "/more")
    files = Starlette(routes=[Route("/deep/{x}", PlainTextResponse("x"), name="deep")])
    router.mount("/files", files, name="files")
    below = Router()
    below.add("/leaf", PlainTextResponse("x"), name="leaf")
    router.mount("/below/{tenant}", below, name="below")
    hive = make_hive(router)
    app = hive if around == "alone" else AROUND[around]("/api", hive)
    prefix = root_path if around == "alone" else f"{root_path}/api"
    base = f"http://test{prefix}"
    asked = {
        "read?number=7": f"{base}/items/7",
        "included?day=a b&rest=c/d": f"{base}/more/a%20b/c/d",
        "files:deep?x=1": f"{base}/files/deep/1",
        "files?path=/y/z": f"{base}/files/y/z",
        "below:leaf?tenant=me": f"{base}/below/me/leaf",
        "talk?room=r": f"ws://test{prefix}/talk/r",
    }
    given: dict[str, Any] = {"root_path": root_path, "headers": [(b"host", b"test")]}
    async with running(hive, app):
        for question, url in asked.items():
            answer = await run(app, http(f"{prefix}/url/{question}", **given))
            assert answer.body.decode() == url
        talked = await run(app, websocket(f"{prefix}/talk/r", **given))
        assert talked.sent[1]["text"] == f"ws://test{prefix}/talk/a%20b"


async def test_url_for_in_hooks_and_of_what_is_around() -> None:
    urls: list[str] = []

    class Hooks(CornerstoneHooks):
        async def pre_endpoint_call(self) -> None:
            urls.append(str(self.request.url_for("read", number=1)))

    router = make_router()
    modules = (ModuleHooks(hooks=(Hooks,)),)
    cornerstone = Component(kind="cornerstone", container="c", name="db", modules=modules)
    endpoint = Component(kind="endpoint", container="e", name="x", router=router)
    hive = Hive(CONFIG, cornerstones=[cornerstone], endpoints=[endpoint], entry_points=False)
    home = Route("/home/{x}", PlainTextResponse("x"), name="home")
    app = StarletteRouter(routes=[home, Mount("/api", hive)])
    async with hive.running(), client(app) as asks:
        assert (await asks.get("/api/url/home?x=2")).text == "http://test/home/2"
    async with hive.running(), client(hive) as asks:
        assert (await asks.get("/url/read?number=3")).text == "http://test/items/3"
    assert urls == ["http://test/api/items/1", "http://test/items/1"]


@pytest.mark.parametrize("kind", ["hive", "router"])
async def test_url_for_of_an_application_around_finds_routes_below_its_mount(kind: str) -> None:
    async def home(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(request.url_for("api:read", number=7)))

    router = make_router()
    inner: Any = make_hive(router) if kind == "hive" else router
    app = Starlette(routes=[Route("/home", home), Mount("/api", inner, name="api")])
    async with client(app) as asks:
        if kind == "hive":
            async with inner.running():
                assert (await asks.get("/home")).text == "http://test/api/items/7"
                answer = await asks.get("/api/url/api:read?number=8")
                assert answer.text == "http://test/api/items/8"
        else:
            assert (await asks.get("/home")).text == "http://test/api/items/7"


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("nothing", {}),
        ("read", {}),
        ("read", {"number": "x"}),
        ("read", {"number": 1, "more": 2}),
        ("talk", {"room": "a/b"}),
        ("talk", {"room": ""}),
    ],
)
async def test_there_is_no_url(name: str, params: dict[str, Any]) -> None:
    with pytest.raises(NoMatchFound):
        make_router().url_path_for(name, **params)
