"""`include_router`: one table, prefixes with parameters, tags and guards from outside in."""

from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from asgihive.asgi import BufferedResponse, Router
from tests.asgi.exchange import answer, run, websocket

pytestmark = pytest.mark.anyio


async def one(note: int, proposal: str = "none") -> list[Any]:
    return [note, proposal]


async def where(request: Request) -> str:
    return f"{request.scope['root_path']}|{request.scope['path']}"


async def show(scope: Scope, receive: Receive, send: Send) -> None:
    told = f"{scope['root_path']}|{scope['path']} {scope['path_params']}"
    await BufferedResponse(told.encode())(scope, receive, send)


def _notes() -> Router:
    router = Router(tags=("notes",))
    router.get("")(where)
    router.get("/{note}", tags=("one", "notes"), summary="A note", include_in_schema=False)(one)
    router.add("/bare", show, methods=("PUT",), name="bare")
    router.mount("/files", show, name="files")

    @router.websocket("/ws/{n}")
    async def socket(websocket: WebSocket, n: int) -> None:
        await websocket.accept()
        await websocket.close()

    return router


async def test_routes_answer_below_the_prefix_and_root_path_stays() -> None:
    outer = Router()
    included = outer.include_router(_notes(), "/api/notes")
    assert outer.registered == included
    assert [str(each) for each in included] == [
        "GET /api/notes (where)",
        "GET /api/notes/{note} (one)",
        "PUT /api/notes/bare (bare)",
        "mount /api/notes/files (files)",
        "websocket /api/notes/ws/{n} (socket)",
    ]
    assert (await answer(outer, "/api/notes")).body == b"|/api/notes"
    assert (await answer(outer, "/api/notes/")).status == 404
    assert (await answer(outer, "/api/notes/5")).json == [5, "none"]
    assert (await answer(outer, "/api/notes/bare", "PUT")).body == b"|/api/notes/bare {}"
    mounted = await answer(outer, "/api/notes/files/x")
    assert mounted.body == b"/api/notes/files|/api/notes/files/x {}"
    assert (await answer(outer, "/5")).status == 404
    assert (await run(outer, websocket("/api/notes/ws/3"))).types[0] == "websocket.accept"


async def test_an_empty_path_is_the_root_of_a_router_that_stands_alone() -> None:
    assert (await answer(_notes(), "/")).body == b"|/"
    outer = Router()
    outer.include_router(_notes())
    assert (await answer(outer, "/")).body == b"|/"


async def test_a_prefix_may_have_parameters_that_handlers_take() -> None:
    outer, outermost = Router(), Router()
    outer.include_router(_notes(), "/{proposal}/notes/")
    outermost.include_router(outer, "/v1")
    assert (await answer(outer, "/p7/notes/5")).json == [5, "p7"]
    assert (await answer(outermost, "/v1/p7/notes/5?proposal=x")).json == [5, "p7"]
    assert (await answer(_notes(), "/5?proposal=x")).json == [5, "x"]


async def test_records_carry_what_the_decorators_said_from_outside_in() -> None:
    outer = Router(tags=("all",), optional_trailing_slash=True)
    routes = outer.include_router(_notes(), "/api", tags=("api",))
    assert [each.options.tags for each in routes] == [
        ("all", "api", "notes"),
        ("all", "api", "notes", "one"),
        *[("all", "api", "notes")] * 3,
    ]
    assert [each.handler for each in routes[:3]] == [where, one, None]
    assert [(each.options.summary, each.options.include_in_schema) for each in routes[:2]] == [
        (None, True),
        ("A note", False),
    ]
    assert (await answer(outer, "/api/5/")).json == [5, "none"]


async def test_guards_are_called_from_outside_in() -> None:
    calls = list[str]()

    def guard(name: str) -> Any:
        async def call() -> None:
            calls.append(name)

        return call

    inner, outer = Router(dependencies=[guard("inner")]), Router(dependencies=[guard("outer")])
    inner.get("/x", dependencies=[guard("route")])(where)
    outer.include_router(inner, dependencies=[guard("included")])
    assert (await answer(outer, "/x")).status == 200
    assert calls == ["outer", "included", "inner", "route"]


async def test_what_is_registered_later_is_not_included() -> None:
    inner, outer = _notes(), Router()
    outer.include_router(inner, "/api")
    inner.post("/later")(where)
    assert (await answer(outer, "/api/later", "POST")).status == 405


def test_mistakes_are_refused() -> None:
    router = Router()
    with pytest.raises(ValueError, match="cannot include itself"):
        router.include_router(router)
    with pytest.raises(ValueError, match="leading slash"):
        router.include_router(_notes(), "api")
    router.include_router(_notes(), "/api")
    with pytest.raises(ValueError, match=r"GET /api \(where\) answers the same requests as"):
        router.include_router(_notes(), "/api")


async def test_a_router_with_optional_trailing_slashes_keeps_them_wherever_it_is() -> None:
    inner = Router(optional_trailing_slash=True)
    inner.get("/notes")(where)
    middle, outer = Router(), Router()
    middle.include_router(inner)
    middle.get("/exact")(where)
    outer.include_router(middle, "/api")
    assert (await answer(outer, "/api/notes")).status == 200
    assert (await answer(outer, "/api/notes/")).status == 200
    assert (await answer(outer, "/api/exact/")).status == 404
