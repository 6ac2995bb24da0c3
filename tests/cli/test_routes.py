"""`asgihive routes`: what is listed of each kind of application, and what is said besides."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from asgihive.cli import main
from tests.cli.services import ROUTES, SERVICE

Write = Callable[..., Path]
Output = pytest.CaptureFixture[str]


def listed(capsys: Output, *arguments: str) -> str:
    """What is said; the search path is as before afterwards."""
    before = list(sys.path)
    assert main(["routes", *arguments]) == 0
    assert sys.path == before
    captured = capsys.readouterr()
    assert captured.err == ""
    shown: str = captured.out
    return shown


@pytest.mark.parametrize(
    "arguments",
    [
        ("main:app",),
        ("main",),
        ("main.py",),
        (f".{os.sep}main.py:app",),
        ("main:create", "--factory"),
        ("main.py:create", "--factory"),
    ],
)
def test_a_hive(arguments: tuple[str, ...], write: Write, capsys: Output) -> None:
    write(SERVICE)
    assert listed(capsys, *arguments) == ROUTES


def test_from_another_directory(
    write: Write, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write({"elsewhere/x.txt": "", **SERVICE})
    monkeypatch.chdir(root / "elsewhere")
    shown = listed(capsys, "main:app", "--app-dir", "..")
    assert shown == listed(capsys, str(root / "main.py"))
    files = [line.split()[-1] for line in shown.splitlines()]
    assert files[0] == f"{root / 'endpoints/notes/router.py'}:6"


def test_a_file_in_a_package_is_imported_from_above_it(write: Write, capsys: Output) -> None:
    write(
        {
            "src/shop/__init__.py": "",
            "src/shop/web/__init__.py": "from ..routes import router",
            "src/shop/routes.py": """\
                from asgihive.asgi import Router
                router = Router()
                @router.get("/shelf")
                def shelf() -> None: ...
                """,
            "src/shop/web/main.py": "from . import router as app",
        }
    )
    expected = "GET  /shelf    shelf  src/shop/routes.py:3\n\nRouter at / is not a hive\n"
    for app in ("src/shop/web/main.py", "src/shop/web/__init__.py:router"):
        assert listed(capsys, app) == expected
    assert listed(capsys, "shop.web.main:app", "--app-dir", "src") == expected
    assert listed(capsys, "shop.web:main.app", "--app-dir", "src") == expected


def test_for_programs(write: Write, capsys: Output) -> None:
    root = write(SERVICE)
    records = json.loads(listed(capsys, "main:app", "--json"))
    assert len(records) == 4
    assert records[1] == {
        "methods": ["DELETE"],
        "url": "/api/endpoints/notes/{number}",
        "tag": "endpoints.notes",
        "handler": "remove",
        "file": str(root / "endpoints/notes/router.py"),
        "line": 10,
        "application": "Hive",
        "hive": True,
    }


def test_what_modules_print_is_kept_out(write: Write, capsys: Output) -> None:
    write({"loud.py": "from asgihive.asgi import Router\nprint('Hello')\napp = Router()\n"})
    assert main(["routes", "loud:app", "--json"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("[]\n", "Hello\n")


def test_the_hdf5_service(write: Write, capsys: Output) -> None:
    write({"service.py": 'from asgihive import H5App\napp = H5App(".")\n'})
    urls = [line.split()[1] for line in listed(capsys, "service").splitlines() if "/" in line[:8]]
    assert {"/", "/meta", "/attr", "/data", "/stats", "/paths"} <= set(urls)


def test_an_application_that_mounts_hives(write: Write, capsys: Output) -> None:
    write(
        {
            **SERVICE,
            "outer.py": """\
                from starlette.applications import Starlette
                from starlette.middleware.cors import CORSMiddleware
                from starlette.routing import Host, Mount, Route, WebSocketRoute
                from starlette.staticfiles import StaticFiles
                from main import create

                async def home(request): ...
                async def chat(websocket): ...
                async def bare(scope, receive, send): ...

                inner = [Route("/", home, methods=["POST"]), Mount("/v2", create())]
                starlette = Starlette(
                    routes=[
                        Route("/", home),
                        WebSocketRoute("/chat", chat),
                        Mount("/static", StaticFiles(directory=".")),
                        Mount("/bare", bare),
                        Mount("/v1", CORSMiddleware(create())),
                        Mount("/nested", routes=inner),
                        Host("api.example.org", create()),
                    ]
                )
                app = CORSMiddleware(starlette)
                """,
        }
    )
    shown = listed(capsys, "outer:app")
    table, notes = shown.split("\n\n")
    rows = [line.split() for line in table.splitlines()]
    assert [row[:4] for row in rows if len(row) < 5] == [
        ["GET,HEAD", "/", "home", "outer.py:7"],
        ["WEBSOCKET", "/chat", "chat", "outer.py:8"],
        ["*", "/static", "StaticFiles"],
        ["*", "/bare", "bare"],
        ["POST", "/nested/", "home", "outer.py:7"],
    ]
    urls = [row[1] for row in rows if len(row) == 5]
    hive = [row.split()[1] for row in ROUTES.splitlines()]
    prefixes = ("/v1", "/nested/v2", "//api.example.org")
    assert urls == [prefix + each for prefix in prefixes for each in hive]
    assert notes.splitlines() == [
        "Starlette at / is not a hive",
        "Hive at /v1 is a hive",
        "Router at /nested is not a hive",
        "Hive at /nested/v2 is a hive",
        "Hive at //api.example.org is a hive",
    ]


def test_fastapi(write: Write, capsys: Output) -> None:
    write(
        {
            **SERVICE,
            "outer.py": """\
                from fastapi import APIRouter, FastAPI
                from main import create

                app = FastAPI(openapi_url=None)

                @app.get("/own", tags=["own", "routes"])
                def own() -> None: ...

                included = APIRouter(prefix="/included")

                @included.get("/x")
                def x() -> None: ...

                app.include_router(included)
                app.mount("/v1", create())
                """,
        }
    )
    table, notes = listed(capsys, "outer:app").split("\n\n")
    assert table.splitlines()[0].split() == ["GET", "/own", "own,", "routes", "own", "outer.py:6"]
    assert table.splitlines()[-1].split()[1] == "/v1/api/admin/usage"
    first, second = notes.splitlines()
    assert first.startswith("FastAPI at / is not a hive")
    # Newer versions keep the routes of included routers, older ones copy them.
    assert ("/included/x" in table) != ("are not listed" in first)
    assert second == "Hive at /v1 is a hive"


@pytest.mark.parametrize(
    "outer",
    [
        "Starlette(routes=own, middleware=[Middleware(HiveMiddleware, hive=hive)])",
        "HiveMiddleware(Starlette(routes=own), hive)",
    ],
)
def test_the_routes_of_a_hive_around_are_not_there(
    outer: str, write: Write, capsys: Output
) -> None:
    write(
        {
            **SERVICE,
            "outer.py": f"""\
                from starlette.applications import Starlette
                from starlette.middleware import Middleware
                from starlette.routing import Route
                from asgihive.hive import HiveMiddleware
                from main import app as hive

                async def home(request): ...

                own = [Route("/", home, methods=["POST"])]
                app = {outer}
                """,
        }
    )
    assert listed(capsys, "outer:app") == (
        "POST  /    home  outer.py:7\n\n"
        "Hive at / is around the rest: its hooks run, its routes are not served\n"
        "Starlette at / is not a hive\n"
    )


def test_routes_that_hooks_mount_are_mentioned(write: Write, capsys: Output) -> None:
    main_file = SERVICE["main.py"].replace('api_prefix="/api"', "router_mount_automated=False")
    write({**SERVICE, "main.py": main_file})
    assert listed(capsys, "main:app") == (
        "main:app has no routes\n\n"
        "Hive at / leaves mounting to its hooks: they add routes when it starts\n"
    )
