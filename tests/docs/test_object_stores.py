"""The page about object stores: its code and commands are tried, its tables compared."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from asgihive.cli import options
from asgihive.cli.console import Parser
from asgihive.cli.serve import add_serve
from asgihive.object_stores.listing_file import parse_listing
from asgihive.object_stores.locations import SCHEMES
from asgihive.service.store import check_store
from asgihive.settings import H5Settings, describe_settings
from tests.docs.page import Page

PAGE = Page("docs/object-stores.md", ("python", "console", "json"))


def list_commands() -> list[str]:
    """The commands that serve."""
    lines = [line for block in PAGE.blocks("console") for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if "asgihive serve" in line]


@pytest.mark.parametrize("line", list_commands())
def test_the_commands_can_serve(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore")
    words = shlex.split(line)
    while "=" in words[0]:
        monkeypatch.setenv(*words.pop(0).split("=", 1))
    assert words[:2] == ["asgihive", "serve"]
    parser = Parser(prog="asgihive serve")
    add_serve(parser)
    given = parser.parse_args(words[2:])
    given.directory = options.parse_directory(given.directory)
    read = options.read_options(given)
    assert read.directory is not None
    check_store(read.directory, read.settings)


def test_the_code_makes_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    [code] = PAGE.code().values()
    names: dict[str, object] = {}
    exec(code, names)  # the page's own
    assert names["app"] is not None
    assert os.environ["AWS_REGION"] == "eu-central-1"


def test_the_list_of_a_web_server(tmp_path: Path) -> None:
    [example] = PAGE.blocks("json")
    assert parse_listing(example.encode(), "list")[""][0] == ["scans"]
    [line] = [
        line for block in PAGE.blocks("console") for line in block.splitlines() if "find" in line
    ]
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "x y.h5").write_bytes(b"1234")
    command = line.removeprefix("$ ").replace("/srv/www/folder", shlex.quote(str(tmp_path)))
    subprocess.run(["sh", "-c", command], check=True)
    written = (tmp_path / H5Settings().store_listing_file).read_bytes()
    folders = parse_listing(written, H5Settings().store_listing_file)
    assert [(each["path"], each["size"]) for each in folders["scans"][1]] == [("scans/x y.h5", 4)]
    assert folders[""] == (["scans"], [])


def test_the_settings() -> None:
    settings = describe_settings(H5Settings)
    rows = PAGE.table("| setting | default | |")
    assert [name for name, _, _ in rows] == [each for each in settings if each.startswith("store_")]
    for name, default, _ in rows:
        assert settings[name].read(default) == settings[name].default


def test_the_schemes() -> None:
    stated = {url.partition("://")[0] for url, _ in PAGE.table("| URL | is |")}
    assert stated == set(SCHEMES) - {"http"}
