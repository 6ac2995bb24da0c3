"""The router as an ASGI application, alone and among applications of other frameworks."""

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, WebSocketRoute
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from asgihive.asgi import BufferedResponse, Router
from tests.asgi.exchange import Exchange, http, run, websocket

pytestmark = pytest.mark.anyio


async def show(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer what the application was told."""
    told = f"{scope['method']} {scope['root_path']}|{scope['path']} {scope.get('path_params')}"
    await BufferedResponse(told.encode())(scope, receive, send)


async def endpoint(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{request.url.path} {request.path_params}")


async def test_parameters_arrive_converted() -> None:
    router = Router()

    @router.get("/scans/{number:int}/{name}")
    async def scan(request: Request) -> PlainTextResponse:
        return PlainTextResponse(repr(request.path_params))

    answer = await run(router, http("/scans/7/a b"))
    assert answer.body == b"{'number': 7, 'name': 'a b'}"


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete"])
async def test_each_decorator_registers_its_method_and_returns_the_function(method: str) -> None:
    router = Router()
    assert getattr(router, method)("/x")(endpoint) is endpoint
    assert (await run(router, http("/x", method.upper()))).status == 200
    (route,) = router.registered
    assert (route.methods, route.name) == (frozenset({method.upper()}), "endpoint")


async def test_unknown_paths_are_404_as_json() -> None:
    answer = await run(Router(), http("/no\udcffwhere"))
    assert answer.status == 404
    assert answer.headers["content-type"] == "application/json"
    assert answer.message == "No such route: /no?where"


@pytest.mark.parametrize("method", ["PUT", "OPTIONS", "websocket", "*"])
async def test_unknown_methods_are_405_with_allow(method: str) -> None:
    router = Router()
    router.add("/x", show, methods=("POST",))
    router.add("/x", show)
    answer = await run(router, http("/x", method))
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, POST")
    assert method in answer.message


async def test_options_and_any_method_can_be_registered() -> None:
    router = Router()
    router.add("/x", show, methods=("options",))
    router.add("/any", show, methods=("*",))
    assert (await run(router, http("/x", "OPTIONS"))).status == 200
    assert (await run(router, http("/any", "PROPFIND"))).body.startswith(b"PROPFIND")


async def test_head_is_get_without_the_body() -> None:
    router = Router()
    router.add("/x", PlainTextResponse("some text"))

    @router.get("/stream")
    async def stream(request: Request) -> StreamingResponse:
        async def blocks() -> Any:
            yield request.method.encode()
            yield b"more"

        return StreamingResponse(blocks())

    answer = await run(router, http("/x", "HEAD"))
    assert (answer.status, answer.headers["content-length"]) == (200, "9")
    assert (answer.body, answer.complete) == (b"", True)
    streamed = await run(router, http("/stream", "HEAD"))
    assert streamed.types == ["http.response.start", "http.response.body"]
    assert (streamed.body, streamed.complete) == (b"", True)


async def test_head_drops_files_that_the_server_would_send() -> None:
    async def file(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.pathsend", "path": "/etc/passwd"})

    router = Router()
    router.add("/x", file)
    answer = await run(router, http("/x", "HEAD"))
    assert answer.types == ["http.response.start", "http.response.body"]
    assert answer.complete


async def test_a_head_route_of_its_own_wins() -> None:
    router = Router()
    router.add("/x", BufferedResponse(b"get"))
    router.add("/x", BufferedResponse(b"", 204), methods=("HEAD",))
    assert (await run(router, http("/x", "HEAD"))).status == 204
    assert (await run(router, http("/x"))).body == b"get"


@pytest.mark.parametrize("path", ["/meta", "/items/{id:int}", "/"])
async def test_the_trailing_slash_is_exact_unless_optional(path: str) -> None:
    exact, optional = Router(), Router(optional_trailing_slash=True)
    for router in (exact, optional):
        router.add(path, show)
    bare = path.replace("{id:int}", "7")
    slashed = bare.rstrip("/") + "/"
    assert (await run(exact, http(bare))).status == 200
    assert (await run(exact, http(slashed))).status == (200 if path == "/" else 404)
    assert (await run(optional, http(bare))).status == 200
    assert (await run(optional, http(slashed))).status == 200
    assert (await run(optional, http(slashed + "/"))).status == 404


async def test_an_optional_slash_registered_twice_is_an_error() -> None:
    router = Router(optional_trailing_slash=True)
    router.add("/x/", show)
    assert (await run(router, http("/x"))).status == 200
    with pytest.raises(ValueError, match=r"GET /x \(show\) answers the same .* GET /x/ \(show\)"):
        router.add("/x", show)


async def test_duplicates_name_both() -> None:
    router = Router()
    router.add("/x/{a}", show, name="first")
    router.add("/x/{a}", show, methods=("POST",))
    with pytest.raises(
        ValueError,
        match=r"^GET,PUT /x/\{b\} \(again\) answers the same requests as GET /x/\{a\} \(first\)$",
    ):
        router.add("/x/{b}", show, methods=("PUT", "GET"), name="again")
    router.mount("/m", show)
    with pytest.raises(ValueError, match=r"mount /m \(two\) answers .* mount /m \(show\)"):
        router.mount("/m/", show, name="two")
    assert len(router.registered) == 3


@pytest.mark.parametrize("methods", [(), "GET"])
async def test_methods_are_a_collection(methods: Any) -> None:
    with pytest.raises(ValueError, match="methods"):
        Router().add("/x", show, methods=methods)


async def test_routes_are_listed() -> None:
    router = Router()
    get = router.add("/x/{n:int}", show)
    mount = router.mount("/h5", Router(), name="files")
    socket = router.add_websocket("/ws", show)
    assert router.registered == (get, mount, socket)
    assert [str(each) for each in router.registered] == [
        "GET /x/{n:int} (show)",
        "mount /h5 (files)",
        "websocket /ws (show)",
    ]
    assert [(each.name, each.convertor) for each in get.parameters] == [("n", "int")]


@pytest.mark.parametrize("path", ["/api/x/7", "/x/7"])
async def test_root_path_may_be_part_of_the_path_or_not(path: str) -> None:
    router = Router()
    router.add("/x/{n:int}", show)
    answer = await run(router, http(path, root_path="/api"))
    assert answer.body == f"GET /api|{path} {{'n': 7}}".encode()


async def test_the_root_itself_needs_no_slash() -> None:
    router = Router()
    router.add("/", show)
    assert (await run(router, http("/api", root_path="/api"))).status == 200
    assert (await run(router, http("/apis", root_path="/api"))).status == 404


@pytest.mark.parametrize(
    ("path", "root_path", "told"),
    [
        ("/h5/meta", "", "/h5|/h5/meta"),
        ("/h5/", "", "/h5|/h5/"),
        ("/h5", "", "/h5|/h5/"),
        ("/api/h5/meta", "/api", "/api/h5|/api/h5/meta"),
        ("/h5/meta", "/api", "/api/h5|/api/h5/meta"),  # a server that strips root_path
        ("/h5/h5/", "", "/h5|/h5/h5/"),
    ],
)
async def test_mounts_move_the_prefix_to_root_path(path: str, root_path: str, told: str) -> None:
    router = Router()
    router.mount("/h5", show)
    scope = http(path, root_path=root_path).scope
    before = dict(scope)
    answer = await run(router, Exchange(scope))
    assert answer.body == f"GET {told} {{}}".encode()
    assert {key: scope[key] for key in before} == before
    assert (scope["route"].path, scope["endpoint"], scope["path_params"]) == ("/h5", show, {})


async def test_mounts_match_whole_segments_and_give_way_to_routes() -> None:
    router = Router()
    router.mount("", BufferedResponse(b"rest"))
    router.mount("/h5", BufferedResponse(b"outer"))
    router.mount("/h5/deep/", BufferedResponse(b"inner"))
    router.add("/h5/route", BufferedResponse(b"route"))
    for path, body in {
        "/": b"rest",
        "/h5x": b"rest",
        "/h5": b"outer",
        "/h5/x": b"outer",
        "/h5/deeper": b"outer",
        "/h5/deep": b"inner",
        "/h5/deep/x": b"inner",
        "/h5/route": b"route",
    }.items():
        assert (await run(router, http(path))).body == body, path
    assert (await run(router, http("/h5/route", "POST"))).body == b"outer"


async def test_mount_prefixes_may_have_parameters() -> None:
    inner, outer = Router(), Router()
    inner.add("/{n:int}", show)
    outer.mount("/{proposal}/data", inner)
    answer = await run(outer, http("/p1/data/7"))
    assert answer.body == b"GET /p1/data|/p1/data/7 {'proposal': 'p1', 'n': 7}"
    with pytest.raises(ValueError, match="path parameter"):
        outer.mount("/{rest:path}", inner)


@pytest.mark.parametrize("root_path", ["", "/api"])
@pytest.mark.parametrize("kept", [True, False])
async def test_starlette_inside_a_router(root_path: str, kept: bool) -> None:
    inner = Starlette(
        routes=[
            StarletteRoute("/", endpoint),
            Mount("/deep", routes=[StarletteRoute("/{x:int}", endpoint, name="deep")]),
        ]
    )
    router = Router()
    router.mount("/in", inner)
    start = root_path if kept else ""
    for path, body in {
        "/in": "/in/ {}",
        "/in/": "/in/ {}",
        "/in/deep/3": "/in/deep/3 {'x': 3}",
    }.items():
        answer = await run(router, http(start + path, root_path=root_path))
        assert answer.body.decode() == root_path + body


def _starlette(inner: ASGIApp) -> ASGIApp:
    return Starlette(routes=[Mount("/in", app=inner)])


def _fastapi(inner: ASGIApp) -> ASGIApp:
    app = FastAPI()
    app.mount("/in", inner)
    return app


def _router(inner: ASGIApp) -> ASGIApp:
    outer = Router()
    outer.mount("/in", inner)
    return outer


@pytest.mark.parametrize("outer", [_starlette, _fastapi, _router])
@pytest.mark.parametrize("root_path", ["", "/api"])
async def test_a_router_inside_other_applications(outer: Any, root_path: str) -> None:
    inner = Router()
    inner.add("/", show)
    inner.add("/x/{n:int}", show)
    app = outer(inner)
    for path, status in {"/in/": 200, "/in/x/7": 200, "/in/x/y": 404, "/x/7": 404}.items():
        answer = await run(app, http(root_path + path, root_path=root_path))
        assert answer.status == status, path
    answer = await run(app, http(root_path + "/in/x/7", root_path=root_path))
    assert answer.body == f"GET {root_path}/in|{root_path}/in/x/7 {{'n': 7}}".encode()


async def _greet(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(f"{websocket.path_params}")
    await websocket.close()


async def test_websockets_are_routed() -> None:
    inner, outer = Router(), Router()
    assert inner.websocket("/ws/{n:int}")(_greet) is _greet
    inner.add("/ws/{n:int}", show)
    outer.mount("/in", inner)
    for app, path in ((inner, "/ws/3"), (outer, "/in/ws/3")):
        answer = await run(app, websocket(path))
        assert answer.types == ["websocket.accept", "websocket.send", "websocket.close"]
        assert answer.sent[1]["text"] == "{'n': 3}"
        assert (await run(app, http(path))).status == 200


async def test_starlette_websockets_inside_a_router() -> None:
    router = Router()
    router.mount("/in", Starlette(routes=[WebSocketRoute("/ws/{n:int}", _greet)]))
    assert (await run(router, websocket("/in/ws/3"))).types[0] == "websocket.accept"


async def test_unmatched_websockets_are_closed_before_accept() -> None:
    router = Router()
    router.add("/http", show)
    answer = await run(router, websocket("/http"))
    assert answer.types == ["websocket.close"]
    denied = await run(router, websocket("/http", ["websocket.http.response"]))
    assert denied.types == ["websocket.http.response.start", "websocket.http.response.body"]
    assert (denied.status, denied.message) == (404, "No such route: /http")


async def test_lifespan_alone_is_completed() -> None:
    lifespan = Exchange({"type": "lifespan"})
    lifespan.incoming = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    await run(Router(), lifespan)
    assert lifespan.types == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_the_scope_of_the_caller_tells_the_route() -> None:
    router = Router()
    route = router.add("/{n:int}", show)
    exchange = http("/7", path_params={"outer": 1})
    before = dict(exchange.scope)
    assert (await run(router, exchange)).body.endswith(b"{'outer': 1, 'n': 7}")
    found = {"route": route, "endpoint": show, "path_params": {"outer": 1, "n": 7}}
    assert exchange.scope == {**before, **found, "router": router}


async def test_an_endpoint_may_return_any_asgi_application() -> None:
    router = Router()

    @router.route("/x", methods=("GET", "PURGE"))
    async def any_response(request: Request) -> ASGIApp:
        async def respond(scope: Scope, receive: Receive, send: Send) -> None:
            start: Message = {"type": "http.response.start", "status": 202, "headers": []}
            await send(start)
            await send({"type": "http.response.body"})

        return respond

    assert (await run(router, http("/x", "PURGE"))).status == 202
    assert router.registered[0].app.__wrapped__ is any_response  # type: ignore[attr-defined]
