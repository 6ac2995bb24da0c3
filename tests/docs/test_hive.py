"""The page about the hive, and what the README says of it: run, and compared with the code."""

import ast
import tomllib
from dataclasses import fields
from pathlib import Path

import h5py
import pytest

from asgihive.asgi.routes import Options
from asgihive.hive import Hive, HiveConfig
from asgihive.settings import describe_settings
from tests.docs.page import HIVE, MIGRATION, README, Command, Page
from tests.docs.sessions import run_session
from tests.hive.services import config, write
from tests.hive.test_visibility import TABLE

# Of each page, in the fast tests: each command starts a process.
FEW = 3
SESSIONS = [
    pytest.param(
        page, session, id=f"{page.name}-{number}", marks=pytest.mark.slow if number >= FEW else ()
    )
    for page in (README, HIVE)
    for number, session in enumerate(page.sessions())
]


@pytest.mark.parametrize(("page", "session"), SESSIONS)
def test_commands_print_what_the_page_says(
    page: Page, session: list[Command], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.write_files(tmp_path)
    if page is not README:  # whose first command makes its own
        (tmp_path / "data").mkdir()
        with h5py.File(tmp_path / "data" / "scan.h5", "w") as file:
            file["counts"] = [3, 1, 4]
    monkeypatch.chdir(tmp_path)
    assert run_session(session, tmp_path) == session


@pytest.mark.parametrize("page", [README, HIVE], ids=lambda page: page.name)
def test_every_file_is_part_of_a_session(page: Page) -> None:
    lines = " ".join(command.line for session in page.sessions() for command in session)
    for name in page.code():
        in_package = "cornerstones/" in name or "endpoints/" in name
        assert in_package or name in lines or f"{name.removesuffix('.py')}:" in lines


def test_the_fields_of_the_configuration() -> None:
    rows = HIVE.table("| field | default | effect |")
    stated = {name: ast.literal_eval(default) for name, default, _ in rows}
    assert stated == {name: each.default for name, each in describe_settings(HiveConfig).items()}


def test_urls_and_tags() -> None:
    rows = HIVE.table("| fields | URL | tag |")
    assert len(rows) == 5
    for given, url, tag in rows:
        name, _, value = given.partition("=")
        configuration = HiveConfig(**({name: ast.literal_eval(value)} if name else {}))
        assert configuration.make_prefix("endpoints", "notes") + "/{number}" == url
        assert configuration.make_tag("endpoints", "notes") == tag


def test_what_each_hook_sees() -> None:
    header = (
        "| hook | `app`, `app_state` | `cornerstone` | `endpoint` | `request`, `request_state` "
        "| `error`, `route` | `status` | `response` |"
    )
    columns = [each.strip().split(", ") for each in header.replace("`", "").split("|")[2:-1]]
    stated = {
        hook: {name for names, cell in zip(columns, cells, strict=True) if cell for name in names}
        for hook, *cells in MIGRATION.table(header)
    }
    assert stated == {hook: seen for hook, seen in TABLE.items() if " " not in hook}


def test_the_options_of_a_decorator() -> None:
    sentence = HIVE.text.partition("The decorator's options: ")[2].partition(".")[0]
    for each in fields(Options):
        assert f"`{each.name}`" in sentence
    assert Options().max_body_bytes == 1 << 20


def test_the_entry_points_add_a_component(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = HIVE.blocks("toml")
    groups = tomllib.loads(text)["project"]["entry-points"]
    lines = [
        f"[{group}]\n{name} = {value}" for group in groups for name, value in groups[group].items()
    ]
    write(
        tmp_path,
        {
            "observatory_extras/__init__.py": "",
            "observatory_extras/status.py": "",
            "extras-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: extras\nVersion: 1",
            "extras-1.dist-info/entry_points.txt": "\n".join(lines),
        },
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    none = config(cornerstone_package_path=(), endpoint_package_paths=())
    assert [node.key for node in Hive(none).graph()] == ["endpoints.status"]
    assert Hive(none, entry_points=False).graph() == ()
