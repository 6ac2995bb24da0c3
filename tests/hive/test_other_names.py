"""What is said to those who write what FastAPI has, or what would silently do nothing."""

import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import asgihive
from asgihive.asgi import Depends, Gate, HTTPException, Router
from asgihive.asgi.errors import answer_error
from asgihive.hive import ComponentError, ConfigurationError, Hive, HiveConfig, HookFailed
from tests.asgi.exchange import http, run
from tests.hive.services import client, config, write

pytestmark = pytest.mark.anyio

NONE = HiveConfig(cornerstone_package_path=())
MANAGER = "from contextlib import asynccontextmanager\n"


def build(root: Path, files: dict[str, str]) -> Hive:
    write(root, {"cornerstones/__init__.py": "", "endpoints/__init__.py": "", **files})
    return Hive(config(), base=root, entry_points=False)


@pytest.mark.parametrize("name", ["get", "on_event", "exception_handler", "dependency_overrides"])
def test_names_of_fastapis_application(name: str) -> None:
    with pytest.raises(AttributeError, match=f"A Hive has no '{name}'; write "):
        getattr(Hive(NONE), name)
    with pytest.raises(AttributeError, match=r"A Hive has no 'nothing'$"):
        getattr(Hive(NONE), "nothing")  # noqa: B009  # mypy knows that it is not there


def test_arguments_of_fastapis_application() -> None:
    make: Any = Hive
    with pytest.raises(TypeError, match=r"for lifespan write `lifespan\(context\)`"):
        make(NONE, lifespan=print)
    with pytest.raises(TypeError, match=r"Hive\(HiveConfig\(api_prefix=…\)\)"):
        make(api_prefix="/api")
    with pytest.raises(TypeError, match=r"Hive\(nothing=…\) is not accepted$"):
        make(nothing=1)


def test_names_of_fastapi_that_are_elsewhere() -> None:
    with pytest.raises(ImportError, match=r"write starlette.requests.Request"):
        from asgihive import Request  # noqa: F401, PLC0415
    with pytest.raises(AttributeError, match=r"has no attribute 'nothing'$"):
        _ = asgihive.nothing


def test_arguments_of_fastapis_router_and_exception() -> None:
    make: Any = Router
    with pytest.raises(TypeError, match=r"for prefix write include_router\(router, prefix\)"):
        make(prefix="/v1")
    raised: Any = HTTPException
    with pytest.raises(TypeError, match="for status_code write status; for detail write message"):
        raised(status_code=404, detail="none")
    assert (str(HTTPException(404)), str(HTTPException(599))) == ("Not Found", "Status 599")


class Missing(HTTPException):
    """Has arguments of its own, which may have these names."""

    def __init__(self, *, detail: str) -> None:
        super().__init__(404, detail)


def test_a_subclass_names_its_arguments_as_it_likes() -> None:
    assert str(Missing(detail="gone")) == "gone"


async def test_a_structured_detail_stays_structured() -> None:
    fastapi = pytest.importorskip("fastapi")
    router = Router()

    @router.get("/")
    async def fail() -> None:
        raise fastapi.HTTPException(404, {"code": 7})

    answer = await run(Gate(router), http("/"))
    assert json.loads(answer.body) == {"message": "Not Found", "detail": {"code": 7}}


def test_a_decorated_generator_is_no_dependency() -> None:
    @asynccontextmanager
    async def session() -> Any:
        yield 1

    with pytest.raises(TypeError, match="session is a context manager; leave the decorator out"):
        Depends(session)


@pytest.mark.parametrize(("there", "asked"), [("/x/", "/x"), ("/x", "/x/")])
async def test_only_the_trailing_slash_is_wrong(there: str, asked: str) -> None:
    router = Router()

    @router.get(there)
    async def show() -> int:
        return 1

    answer = await run(router, http(asked))
    assert answer.status == 404
    assert "trailing slash)" in answer.message


@pytest.mark.parametrize(
    "define", ["\nasync def request(context):\n    yield", "def before_answer(context): ..."]
)
async def test_hooks_around_requests_in_an_endpoint_would_guard_nothing(
    define: str, tmp_path: Path
) -> None:
    hive = build(tmp_path, {"endpoints/notes.py": define})
    with pytest.raises(ComponentError, match=r"\(context\) is only looked for in cornerstones"):
        hive.graph()


async def test_a_handler_of_an_endpoint_may_be_called_request(tmp_path: Path) -> None:
    text = """
        from asgihive import Router
        router = Router()
        @router.get("/")
        async def request(number: int):
            yield str(number)
        """
    hive = build(tmp_path, {"endpoints/notes.py": text})
    async with hive.running(), client(hive) as asks:
        assert (await asks.get("/endpoints/notes/?number=7")).text.strip() == "7"


async def test_an_answer_as_fastapi_has_it_ends_the_start(tmp_path: Path) -> None:
    hive = build(tmp_path, {"cornerstones/errors.py": "def answer(request, exc): ..."})
    with pytest.raises(ComponentError, match=r"answer\(request, exc\) is not asked"):
        hive.graph()


def test_a_folder_cornerstones_is_not_overlooked(tmp_path: Path) -> None:
    write(tmp_path, {"cornerstones/auth.py": "", "endpoints/notes.py": ""})
    only = HiveConfig(endpoint_package_paths="./endpoints")
    with pytest.raises(ConfigurationError, match=r"write cornerstone_package_path='./corn"):
        Hive(only, base=tmp_path)
    Hive(HiveConfig(), base=tmp_path, entry_points=False)  # around another hive
    without = HiveConfig(cornerstone_package_path=(), endpoint_package_paths="./endpoints")
    assert [each.key for each in Hive(without, base=tmp_path, entry_points=False).graph()] == [
        "endpoints.notes"
    ]


PROVIDER = f"""{MANAGER}
class Database: ...
class Session: ...
provides = (Session,)
@asynccontextmanager
async def lifespan(context):
    context.provide(Database, Database())
    yield
@asynccontextmanager
async def request(context):
    context.provide(Session, Session())
    yield
"""


async def test_a_lifespan_that_asks_too_early_is_told_of_requires(tmp_path: Path) -> None:
    asking = f"""{MANAGER}
from cornerstones.database import Database
@asynccontextmanager
async def lifespan(context):
    context.ask(Database)
    yield
"""
    files = {"cornerstones/auth.py": asking, "cornerstones/database.py": PROVIDER}
    with pytest.raises(HookFailed) as raised:
        async with build(tmp_path, files).running():
            pass
    said = str(raised.value)
    assert "lifespan failed with NotProvided: No cornerstone provides Database before" in said
    assert "name what provides it in `requires` of cornerstones.auth" in said


async def test_a_request_hook_that_asks_too_early_is_told_of_requires(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asking = f"""{MANAGER}
from cornerstones.database import Session
@asynccontextmanager
async def request(context):
    context.ask(Session)
    yield
"""
    hive = build(tmp_path, {"cornerstones/auth.py": asking, "cornerstones/database.py": PROVIDER})
    async with hive.running(), client(hive) as asks:
        assert (await asks.get("/")).status_code == 500
    said = str(caplog.records[0].exc_info)
    assert "name 'cornerstones.database' in `requires` of cornerstones.auth" in said


async def test_a_request_hook_that_does_not_reach_its_yield_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = (
        "\nasync def request(context):\n    if context.request.url.path == '/': return\n    yield"
    )
    hive = build(tmp_path, {"cornerstones/auth.py": text})
    async with hive.running(), client(hive) as asks:
        assert (await asks.get("/")).status_code == 500
    said = str(caplog.records[0].exc_info)
    assert "cornerstones.auth: request(context) ended before its yield" in said


async def test_the_place_of_a_wrong_path_is_the_users(tmp_path: Path) -> None:
    text = "from asgihive import Router\nrouter = Router()\n@router.get('x')\ndef x(): ...\n"
    hive = build(tmp_path, {"endpoints/notes.py": text})
    with pytest.raises(ComponentError, match=r"failed at \S+notes.py:3 with ValueError"):
        hive.graph()


@pytest.mark.parametrize("kind", ["asgihive import Router", "fastapi import APIRouter"])
async def test_a_router_of_another_name_would_not_be_mounted(kind: str, tmp_path: Path) -> None:
    if "fastapi" in kind:
        pytest.importorskip("fastapi")
    routes = f"from {kind} as Kind\napi = Kind()\n"
    with pytest.raises(ComponentError, match="api is a router, and what is mounted is called"):
        build(tmp_path / "one", {"endpoints/notes.py": routes}).graph()
    hooked = (
        f"{routes}async def lifespan(context):\n    context.app.include_router(api)\n    yield\n"
    )
    build(tmp_path / "other", {"endpoints/notes.py": hooked}).graph()


async def test_a_response_that_a_request_hook_yields_is_the_answer(tmp_path: Path) -> None:
    refusing = """
        from starlette.responses import PlainTextResponse
        ended = []
        async def request(context):
            yield PlainTextResponse("no entry", 403)
            ended.append(context.status)
        """
    endpoint = """
        from asgihive import Router
        router = Router()
        @router.get("/")
        async def show():
            return "secret"
        """
    hive = build(tmp_path, {"cornerstones/auth.py": refusing, "endpoints/notes.py": endpoint})
    async with hive.running(), client(hive) as asks:
        answer = await asks.get("/endpoints/notes/")
    assert (answer.status_code, answer.text) == (403, "no entry")


async def test_an_exception_without_text_has_the_name_of_its_status() -> None:
    answered = answer_error(ValueError(), {ValueError: 404})
    assert json.loads(answered.body) == {"message": "Not Found"}
