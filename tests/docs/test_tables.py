"""The page about tables: its commands are run, and its clients read from a real server."""

import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.cli.processes import PATIENCE, running
from tests.docs.page import Page
from tests.docs.sessions import run_session

TABLES = Page("docs/tables.md", ("python", "console"))
CURL, CLIENTS = TABLES.sessions()
PACKAGES = {
    "with_pandas.py": ("pyarrow", "pandas"),
    "with_polars.py": ("pyarrow", "polars"),
    "with_duckdb.py": ("pyarrow", "duckdb"),
    "in_batches.py": ("pyarrow",),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    TABLES.write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_commands_print_what_the_page_says(folder: Path) -> None:
    assert run_session(CURL, folder) == CURL


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKAGES)
def test_clients_print_what_the_page_says(folder: Path, name: str) -> None:
    missing = [each for each in PACKAGES[name] if find_spec(each) is None]
    if missing:
        pytest.skip(f"{missing} not installed: pip install 'asgihive[test-clients]'")
    (command,) = [each for each in CLIENTS if shlex.split(each.line)[1] == name]
    subprocess.run([sys.executable, "make_data.py"], check=True, timeout=PATIENCE)
    options = ("--port", "0", "--app-dir", str(folder))
    with running("service:app", *options, module="uvicorn") as server:
        code = (folder / name).read_text().replace("http://127.0.0.1:8000", server.url)
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
    assert done.stdout == command.output


def test_every_client_is_tried() -> None:
    assert {shlex.split(each.line)[1] for each in CLIENTS} == PACKAGES.keys()
