"""`asgihive new`: what it writes works at once, and nothing is overwritten."""

import json
import os
import shlex
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgihive import __version__
from asgihive.cli import main
from asgihive.cli.new import make_files
from tests.cli.processes import PATIENCE, complaint, running
from tests.efforts import at_most

Write = Callable[..., Path]
Output = pytest.CaptureFixture[str]

PATHS = {
    "README.md",
    "cornerstones/notebook/__init__.py",
    "cornerstones/notebook/book.py",
    "endpoints/notes/__init__.py",
    "endpoints/notes/router.py",
    "main.py",
    "pyproject.toml",
    "requirements.txt",
    "tests/test_notes.py",
}


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def service(write: Write, capsys: Output) -> Path:
    """A new service, called `bees`."""
    root = write({})
    assert main(["new", "bees"]) == 0
    capsys.readouterr()
    return root / "bees"


def test_writes_the_files_and_says_what_is_next(write: Write, capsys: Output) -> None:
    root = write({})
    assert main(["new", "bees"]) == 0
    assert files_of(root / "bees") == PATHS
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"bees is in {root / 'bees'}. Try it:"
    assert lines[1] == "  cd bees"
    assert "  python -m pytest" in lines


def test_its_name_and_this_version_are_in_it(service: Path) -> None:
    assert 'title="bees"' in (service / "main.py").read_text()
    assert (service / "README.md").read_text().startswith("# bees\n")
    assert f"asgihive>={__version__}\n" in (service / "requirements.txt").read_text()


@pytest.mark.slow
def test_its_tests_pass_at_once(service: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error"],
        cwd=service,
        # What this run was told (coverage, workers) is not said to that of the service.
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


def test_a_server_serves_it_as_its_readme_says(service: Path) -> None:
    readme = (service / "README.md").read_text().splitlines()
    commands = [shlex.split(line) for line in readme if line.startswith("    curl")]
    write, read = commands
    arguments = ("main:app", "--port", "0", "--app-dir", str(service))
    with running(*arguments, module="uvicorn") as server:
        name, value = write[write.index("-H") + 1].split(": ")
        body = write[write.index("-d") + 1]
        url = server.url + httpx.URL(write[-1]).path
        assert httpx.post(url, content=body, headers={name: value}).status_code == 201
        answer = httpx.get(server.url + httpx.URL(read[-1]).path)
        assert answer.json() == [{"number": 1, **json.loads(body)}]
        assert httpx.get(f"{server.url}/docs").status_code == 200


def test_the_other_commands_show_it(
    service: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(service)
    assert main(["routes", "main:app"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    tag = "endpoints.notes"
    assert ["POST", "/api/notes", tag, "write_note"] in [row[:4] for row in rows]
    assert main(["graph", "main:app"]) == 0
    assert "1. cornerstones.notebook" in capsys.readouterr().out


@pytest.mark.parametrize("directory", ["deep/er", "with space", "."])
def test_into_a_directory(directory: str, write: Write, capsys: Output) -> None:
    root = write({})
    assert main(["new", "bees", "--directory", directory]) == 0
    assert files_of(root / directory) == PATHS
    steps = capsys.readouterr().out.splitlines()[1]
    assert steps.startswith(f"  cd {shlex.quote(directory)}") != (directory == ".")


def test_hidden_files_may_be_there_before(write: Write, capsys: Output) -> None:
    root = write({"bees/.git/config": "", "bees/.gitignore": "x"})
    assert main(["new", "bees"]) == 0
    assert files_of(root / "bees") == {*PATHS, ".git/config", ".gitignore"}


def test_nothing_is_overwritten(service: Path, capsys: Output) -> None:
    (service / "main.py").write_text("mine")
    line = complaint(capsys, ["new", "bees"])
    assert "bees is not empty: there is README.md, cornerstones, endpoints, …" in line
    assert (service / "main.py").read_text() == "mine"


def test_files_of_others_stay_alone(write: Write, capsys: Output) -> None:
    root = write({"bees/data.h5": ""})
    assert "there is data.h5; nothing was written" in complaint(capsys, ["new", "bees"])
    assert files_of(root) == {"bees/data.h5"}


def test_a_place_that_is_no_directory(write: Write, capsys: Output) -> None:
    root = write({"bees": "a file"})
    assert str(root / "bees") in complaint(capsys, ["new", "bees"])
    inside = complaint(capsys, ["new", "x", "--directory", os.path.join("bees", "x")])
    assert str(root / "bees") in inside
    assert files_of(root) == {"bees"}


@pytest.mark.parametrize(
    "name", ["", "9bees", "bees/x", "..", "-x", "bees-", "be es", 'be"es', "Bienenstöcke", "$x"]
)
def test_names_that_are_refused(name: str, write: Write, capsys: Output) -> None:
    root = write({})
    assert complaint(capsys, ["new", "--", name]).startswith("asgihive new: error: argument NAME")
    assert files_of(root) == set()


def test_a_long_name(write: Write, capsys: Output) -> None:
    write({})
    assert "at most 64 characters" in complaint(capsys, ["new", "b" * 65])


@settings(max_examples=at_most(25))  # each compiles all files
@given(st.from_regex(r"[A-Za-z]([A-Za-z0-9_-]{0,20}[A-Za-z0-9])?", fullmatch=True))
def test_whatever_the_name_the_files_can_be_read(name: str) -> None:
    for path, text in make_files(name).items():
        if path.endswith(".py"):
            compile(text, path, "exec")
        elif path.endswith(".toml"):
            tomllib.loads(text)
        assert "$" not in text


def test_no_tool_takes_the_template_for_modules() -> None:
    folder = resources.files("asgihive.cli") / "template"
    with resources.as_file(folder) as path:
        assert {each.removesuffix("-tpl") for each in files_of(path)} == PATHS
        assert all(each.endswith("-tpl") for each in files_of(path))


@pytest.mark.slow
@pytest.mark.parametrize(
    "tool",
    [
        ("ruff", "check", "--isolated", "--select", "E,F,I,UP,B,ANN,RUF,SIM"),
        ("ruff", "format", "--isolated", "--check"),
        ("mypy", "--strict", "--explicit-package-bases"),
    ],
)
def test_what_is_written_is_clean(tool: tuple[str, ...], service: Path) -> None:
    pytest.importorskip(tool[0], reason="the extra 'dev' has it")
    done = subprocess.run(
        [sys.executable, "-m", *tool, "."],
        cwd=service,
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_the_wheel_has_the_make_files(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, root],
        check=True,
        timeout=PATIENCE * 2,
    )
    (wheel,) = tmp_path.glob("asgihive-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"asgihive/cli/template/{path}-tpl" for path in PATHS} <= names
