"""`docs/pictures.md`: its commands print what it says, its tables are those of the parameters."""

import re
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from asgihive.cli.demo_files import write_demo
from asgihive.service import H5App
from asgihive.service.parameters import PARAMETERS
from tests.asgi.exchange import http, run
from tests.docs.page import Page
from tests.docs.sessions import run_session

PICTURES = Page("docs/pictures.md", ("console", "html"))
IMAGES = Page("docs/pictures.md", ("console", "html"), "Images")
PLOTS = Page("docs/pictures.md", ("console", "html"), "Plots")


@pytest.mark.slow  # each of the four imports what makes pictures
def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_demo(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    (session,) = PICTURES.sessions()
    assert run_session(session, tmp_path) == session
    assert {"image.png", "log.webp", "scan.svg"} <= {each.name for each in tmp_path.iterdir()}


def show(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(f"{each:g}" for each in value)
    return "" if value is None else str(value)


@pytest.mark.parametrize(("page", "route"), [(IMAGES, "image"), (PLOTS, "plot")])
def test_the_parameters(page: Page, route: str) -> None:
    rows = page.table("| parameter | default | |")
    known = {each.name: each for each in PARAMETERS[route] if each.name != "file"}
    if route == "image":
        known.pop("path")
    assert [name for name, *_ in rows] == list(known)
    in_words = {"selection", "path", "max_points", "format"}
    for name, default, _ in rows:
        if name not in in_words:
            assert default == show(known[name].default)


@pytest.mark.anyio
async def test_the_addresses(tmp_path: Path) -> None:
    write_demo(tmp_path)
    app = H5App(tmp_path)
    (block,) = PICTURES.blocks("html")
    types = []
    for source in re.findall(r'src="([^"]+)"', block):
        address = urlsplit(unescape(source))
        answer = await run(app, http(f"{address.path}?{address.query}"))
        types.append(answer.headers["content-type"])
        assert answer.status == 200
    assert types == ["image/png", "image/svg+xml"]
