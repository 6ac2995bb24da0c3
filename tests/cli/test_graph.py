"""`asgihive graph`: start order and requirements, for people and as Mermaid."""

from collections.abc import Callable
from pathlib import Path

import pytest

from asgihive.cli import main
from asgihive.hive import Hive, HiveConfig, format_mermaid
from tests.cli.processes import complaint
from tests.cli.services import GRAPH, SERVICE

Write = Callable[..., Path]
Output = pytest.CaptureFixture[str]

OUTER = {
    **SERVICE,
    "outer.py": """\
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.routing import Mount
        from asgihive.hive import Hive, HiveConfig, HiveMiddleware
        from main import app as hive

        around = Hive(HiveConfig(), entry_points=False)
        app = Starlette(
            routes=[Mount("/v1", hive)],
            middleware=[Middleware(HiveMiddleware, hive=around)],
        )
        """,
}


def shown(capsys: Output, *arguments: str) -> str:
    assert main(["graph", *arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    text: str = captured.out
    return text


def test_start_order_and_requirements(write: Write, capsys: Output) -> None:
    write(SERVICE)
    assert shown(capsys, "main:app") == GRAPH


def test_without_requirements_there_is_no_column_for_them(write: Write, capsys: Output) -> None:
    write({**SERVICE, "cornerstones/auth.py": "", "admin/usage.py": ""})
    lines = shown(capsys, "main:app").splitlines()
    assert lines[3] == "  1. cornerstones.auth  cornerstones/auth.py"
    assert lines[7] == "  3. endpoints.notes    endpoints/notes/__init__.py"


def test_mermaid(write: Write, capsys: Output) -> None:
    root = write(SERVICE)
    config = HiveConfig(
        cornerstone_package_path="./cornerstones", endpoint_package_paths=("./endpoints", "./admin")
    )
    text = shown(capsys, "main:app", "--mermaid")
    assert text.startswith("%% main:app\nflowchart ")
    hive = Hive(config, base=root, entry_points=False)
    assert text.splitlines()[1:] == format_mermaid(hive.graph()).splitlines()
    assert "-->" in text


def test_every_hive_of_an_application(write: Write, capsys: Output) -> None:
    write(OUTER)
    headline = "outer:app, Hive at /"
    inner = GRAPH.replace("main:app", f"{headline}v1")
    assert shown(capsys, "outer:app") == f"{headline}: no components\n\n{inner}"
    mermaid = shown(capsys, "outer:app", "--mermaid")
    assert [line for line in mermaid.splitlines() if line.startswith("%%")] == [
        f"%% {headline}",
        f"%% {headline}v1",
    ]


def test_an_application_without_a_hive(write: Write, capsys: Output) -> None:
    write(
        {
            "plain.py": """\
                from asgihive.asgi import Router
                from starlette.applications import Starlette
                from starlette.routing import Mount
                app = Starlette(routes=[Mount("/x", Router())])
                """
        }
    )
    line = complaint(capsys, ["graph", "plain:app"])
    assert "plain:app has no hive" in line
    assert "it is Starlette, Router" in line


def test_a_cycle_is_told_in_one_line(write: Write, capsys: Output) -> None:
    write({**SERVICE, "cornerstones/db/__init__.py": 'requires = ("auth",)'})
    line = complaint(capsys, ["graph", "main:app"])
    assert "cornerstones.auth → cornerstones.db → cornerstones.auth" in line
