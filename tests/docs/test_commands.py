"""The pages about commands and the first hour: their commands print what the pages say."""

from pathlib import Path

import pytest

from asgihive.cli import COMMANDS
from asgihive.cli.completion import SHELLS
from tests.docs.page import Page
from tests.docs.sessions import run_session

COMMANDS_PAGE = Page("docs/commands.md", ("python", "console"))
TUTORIAL = Page("docs/tutorial.md", ("python", "console", "text"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")
    return tmp_path


# Each command is a process, which takes a second to start.
@pytest.mark.slow
@pytest.mark.parametrize("page", [COMMANDS_PAGE, TUTORIAL], ids=["commands", "tutorial"])
def test_commands_print_what_the_page_says(page: Page, folder: Path) -> None:
    page.write_files(folder)
    for session in page.sessions():
        for done, said in zip(run_session(session, folder), session, strict=True):
            assert done.output.splitlines() == said.output.splitlines(), said.line


def test_every_command_is_on_the_page() -> None:
    rows = COMMANDS_PAGE.table("| command | does |")
    assert rows == [[name, text] for name, (text, _) in COMMANDS.items()]


def test_every_shell_is_on_the_page() -> None:
    assert [name for name, _ in COMMANDS_PAGE.table("| shell | how |")] == list(SHELLS)
