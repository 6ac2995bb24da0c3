"""Errors by convention: `statuses` and `answer(context, error)` of cornerstones and endpoints."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount

from asgihive.asgi import Depends, HTTPException, Router
from asgihive.hive import (
    Component,
    ComponentError,
    CornerstoneHooks,
    Hive,
    HiveConfig,
    HookDenied,
    ModuleHooks,
)
from tests.asgi.exchange import http, run, websocket
from tests.hive.services import client, config, write

pytestmark = pytest.mark.anyio

NONE = HiveConfig(cornerstone_package_path=())


class Missing(Exception): ...


class NoteMissing(Missing): ...


def raising(error: Exception) -> Router:
    router = Router()

    def depend() -> None:
        raise error

    @router.get("/handler")
    async def handle() -> None:
        raise error

    @router.get("/thread")
    def in_thread() -> None:
        raise error

    @router.get("/dependency", dependencies=[Depends(depend)])
    async def guarded() -> None: ...

    below = Router()
    below.add("/", _raise(error))
    router.mount("/mounted", below)
    router.mount("/starlette", Starlette(routes=[Mount("/", _raise(error))]))
    return router


def _raise(error: Exception) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    return app


def make_hive(error: Exception, cornerstone: Any = None, endpoint: Any = None) -> Hive:
    """A hive of two endpoints that raise `error`; only `x` has the endpoint's rules."""
    components = [
        Component(kind="endpoint", container="e", name=name, router=raising(error), modules=modules)
        for name, modules in (("x", (endpoint or ModuleHooks(),)), ("y", ()))
    ]
    shared = Component(
        kind="cornerstone", container="c", name="n", modules=(cornerstone or ModuleHooks(),)
    )
    return Hive(NONE, cornerstones=[shared], endpoints=components, entry_points=False, docs=False)


async def statuses_of(hive: Hive, *paths: str) -> list[int]:
    async with hive.running():
        return [(await run(hive, http(path))).status for path in paths]


class Passing(CornerstoneHooks):
    """Hooks after a request, which see the error and what was answered."""

    async def post_endpoint_call(self) -> None:
        assert self.error is not None
        assert self.status in {400, 404, 410, 500}


@pytest.mark.parametrize("hooks", [(), (Passing,)])
@pytest.mark.parametrize("where", ["handler", "thread", "dependency", "mounted/"])
async def test_statuses_of_an_endpoint_come_before_those_of_a_cornerstone(
    where: str, hooks: tuple[Any, ...]
) -> None:
    """Though the cornerstone's class is nearer; of a table the nearest class counts."""
    cornerstone = ModuleHooks(hooks=hooks, statuses={NoteMissing: 410, Missing: 411})
    endpoint = ModuleHooks(statuses={Exception: 418, Missing: 404})
    hive = make_hive(NoteMissing("note 7"), cornerstone, endpoint)
    assert await statuses_of(hive, f"/e/x/{where}", f"/e/y/{where}") == [404, 410]


async def test_a_status_has_the_exceptions_text_as_its_message() -> None:
    hive = make_hive(NoteMissing("note 7"), ModuleHooks(statuses={Missing: 404}))
    async with hive.running():
        answer = await run(hive, http("/e/x/handler"))
    assert (answer.status, answer.json) == (404, {"message": "note 7"})


def answering(name: str, *kinds: type[Exception], is_async: bool = True) -> Callable[..., Any]:
    """Return a function that answers exceptions of these classes by its name."""

    async def answer(context: Any, error: Exception) -> Any:
        return PlainTextResponse(name, 400) if isinstance(error, kinds) else None

    def answer_in_thread(context: Any, error: Exception) -> Any:
        return PlainTextResponse(name, 400) if isinstance(error, kinds) else None

    return answer if is_async else answer_in_thread


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("hooks", [(), (Passing,)])
async def test_functions_answer(is_async: bool, hooks: tuple[Any, ...]) -> None:
    async def body(error: Exception, path: str) -> str:
        cornerstone = ModuleHooks(
            hooks=hooks, answer=answering("cornerstone", Missing, KeyError, is_async=is_async)
        )
        endpoint = ModuleHooks(
            answer=answering("endpoint", NoteMissing, is_async=is_async), statuses={KeyError: 404}
        )
        hive = make_hive(error, cornerstone, endpoint)
        async with hive.running():
            answer = await run(hive, http(path))
        return f"{answer.status} {answer.body.decode()}"

    assert await body(NoteMissing(), "/e/x/handler") == "400 endpoint"
    assert await body(Missing(), "/e/x/handler") == "400 cornerstone"
    assert await body(NoteMissing(), "/e/y/handler") == "400 cornerstone"
    assert await body(KeyError("k"), "/e/x/handler") == '404 {"message":"\'k\'"}'
    assert await body(KeyError("k"), "/e/y/dependency") == "400 cornerstone"
    assert await body(ExceptionGroup("", [Missing()]), "/e/y/handler") == "400 cornerstone"
    assert await body(ValueError(), "/e/x/handler") == '500 {"message":"Internal server error"}'


async def test_errors_of_the_framework_too(caplog: pytest.LogCaptureFixture) -> None:
    """Those that `HTTPException` says, 404 and 405 of the router, 422, 500, and those of hooks."""
    seen: list[Any] = []

    def problem(context: Any, error: Exception) -> Any:
        assert context.error is error
        assert context.request.url.path == context.request.scope["path"]
        assert context.cornerstone.key == "c.n"
        assert context.request_state is context.request.state.cornerstones["c.n"]
        seen.append(context.route and context.route.path)
        status = getattr(error, "status", getattr(error, "status_code", 500))
        return JSONResponse({"title": str(error)}, status, media_type="application/problem+json")

    class Guard(CornerstoneHooks):
        async def pre_endpoint_call(self) -> None:
            if "guard" in self.request.query_params:
                raise HTTPException(401, "Who are you?")

    hive = make_hive(StarletteHTTPException(409, "Taken"), ModuleHooks(answer=problem))
    guarded = make_hive(HTTPException(403, "No"), ModuleHooks(answer=problem, hooks=(Guard,)))
    broken = make_hive(ZeroDivisionError("secret"), ModuleHooks(answer=problem))
    expected = [
        (hive, "/e/x/handler", "GET", 409, "/e/x/handler"),
        (hive, "/nowhere", "GET", 404, None),
        (hive, "/e/x/handler", "POST", 405, None),
        (guarded, "/e/x/handler", "GET", 403, "/e/x/handler"),
        (guarded, "/e/x/handler?guard", "GET", 401, None),
        (guarded, "/nowhere", "GET", 404, None),
        (broken, "/e/x/handler", "GET", 500, "/e/x/handler"),
    ]
    for each, path, method, status, route in expected:
        async with each.running():
            answer = await run(each, http(path, method))
            assert answer.status == status
            assert answer.headers["content-type"] == "application/problem+json"
            assert seen.pop() == route
    (record,) = caplog.records  # what only a programmer can mend is logged all the same
    assert "ZeroDivisionError" in str(record.exc_info)


async def test_what_before_answer_raises_is_answered_likewise() -> None:
    async def before_answer(context: Any) -> None:
        raise NoteMissing("not unique")

    module = ModuleHooks(before_answer=before_answer, statuses={Missing: 409})
    cornerstone = Component(kind="cornerstone", container="c", name="n", modules=(module,))
    router = Router()
    router.add("/", PlainTextResponse("stored"))
    endpoint = Component(kind="endpoint", container="e", name="x", router=router)
    hive = Hive(NONE, cornerstones=[cornerstone], endpoints=[endpoint], entry_points=False)
    async with hive.running():
        answer = await run(hive, http("/e/x/"))
    assert (answer.status, answer.json) == (409, {"message": "not unique"})


async def test_the_context_of_an_endpoint() -> None:
    def answer(context: Any, error: Exception) -> Any:
        assert context.endpoint.key == "e.x"
        assert context.app_state["__endpoint__"].key == "e.x"
        with pytest.raises(HookDenied, match="`request_state` is not there"):
            _ = context.request_state
        return PlainTextResponse("seen", 400)

    hive = make_hive(Missing(), None, ModuleHooks(answer=answer))
    async with hive.running():
        assert (await run(hive, http("/e/x/handler"))).body == b"seen"


@pytest.mark.parametrize(("result", "message"), [(3, "a response or None"), (None, "")])
async def test_a_function_that_fails(
    result: Any, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(context: Any, error: Exception) -> Any:
        if result is None:
            raise HTTPException(402, "Pay")
        return result

    hive = make_hive(Missing(), ModuleHooks(answer=answer))
    assert await statuses_of(hive, "/e/x/handler") == [500 if message else 402]
    assert message in "".join(str(each.exc_info) for each in caplog.records)


async def test_websockets() -> None:
    def refuse(context: Any, error: Exception) -> Any:
        return PlainTextResponse("refused", 403)

    router = Router()
    router.add_websocket("/", _raise(Missing()))
    endpoint = Component(kind="endpoint", container="e", name="x", router=router)
    cornerstone = Component(
        kind="cornerstone", container="c", name="n", modules=(ModuleHooks(answer=refuse),)
    )
    hive = Hive(NONE, cornerstones=[cornerstone], endpoints=[endpoint], entry_points=False)
    async with hive.running():
        denied = await run(hive, websocket("/e/x/", extensions=["websocket.http.response"]))
        assert (denied.types[0], denied.status) == ("websocket.http.response.start", 403)
        assert (await run(hive, websocket("/e/x/"))).types == ["websocket.close"]


CORNERSTONE = """
class Missing(Exception):
    pass

statuses = {Missing: 404}
"""
ROUTER = """
from starlette.responses import PlainTextResponse
from asgihive import Router
from ...cornerstones.db import Missing

router = Router()

@router.get("/{number}")
async def answer(number: int):  # a handler of that name is no function of errors
    raise ZeroDivisionError if number == 0 else Missing(f"note {number}")
"""
PACKAGE = """
from starlette.responses import PlainTextResponse

async def answer(context, error):
    if isinstance(error, ZeroDivisionError):
        return PlainTextResponse(f"{context.endpoint.name} cannot", 400)
"""


async def test_modules_say_so(tmp_path: Path) -> None:
    files = {
        "cornerstones/db.py": CORNERSTONE,
        "endpoints/notes/router.py": ROUTER,
        "endpoints/notes/__init__.py": PACKAGE,
    }
    hive = Hive(config(), base=write(tmp_path, files), entry_points=False, docs=False)
    async with hive.running(), client(hive) as asks:
        one, two = [await asks.get(f"/endpoints/notes/{each}") for each in (0, 7)]
    assert (one.status_code, one.text) == (400, "notes cannot")
    assert (two.status_code, two.json()) == (404, {"message": "note 7"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("statuses = {404: KeyError}", "statuses has 404: <class 'KeyError'>"),
        ("statuses = {KeyError: 200}", "from 400 to 599"),
        ("statuses = [KeyError]", "statuses has"),
        ("def answer(context): pass", "answer cannot be called"),
        ("def answer(error, more, third): pass", "answer cannot be called"),
    ],
)
async def test_what_cannot_be_used_is_refused(tmp_path: Path, text: str, words: str) -> None:
    hive = Hive(
        config(cornerstone_package_path=()),
        base=write(tmp_path, {"endpoints/notes.py": text}),
        entry_points=False,
    )
    with pytest.raises(ComponentError, match=words):
        async with hive.running():
            pass


async def test_a_hive_that_has_stopped_asks_no_component() -> None:
    def answer(context: Any, error: Exception) -> PlainTextResponse:
        return PlainTextResponse(str(error), 418)

    module = ModuleHooks(answer=answer)
    cornerstone = Component(kind="cornerstone", container="c", name="x", modules=(module,))
    hive = Hive(NONE, cornerstones=[cornerstone], entry_points=False)
    both = [(b"content-length", b"0"), (b"transfer-encoding", b"chunked")]
    async with hive.running():
        assert (await run(hive, http("/no", headers=both))).status == 418
    assert (await run(hive, http("/no", headers=both))).status == 400
    assert (await run(hive, http("/"))).status == 503
