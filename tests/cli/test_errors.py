"""Errors in one line, help, versions."""

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import pytest

from asgihive import __version__, cli
from asgihive.cli import server
from asgihive.cli.options import read_options
from asgihive.service import operations
from asgihive.settings import H5Settings
from tests.cli.processes import PATIENCE, complaint


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serve"], "DIR"),
        (["serve", "missing"], "'missing': no such directory"),
        (["serve", "new\nline"], "no such directory"),
        (["serve", __file__], "is not a directory"),
        (["serve", ".", "--port", "65536"], "from 0 to 65535"),
        (["serve", ".", "--port", "-1"], "--port"),
        (["serve", ".", "--port", "http"], "'http'"),
        (["serve", ".", "--workers", "0"], "--workers"),
        (["serve", ".", "--host", "no.such.host.invalid"], "no.such.host.invalid"),
        (["serve", ".", "--host", "a..b"], "a..b"),
        (["serve", ".", "--host", "192.0.2.1", "--port", "0"], "not an address of this machine"),
        (["serve", ".", "--prefix", "h5"], "a path such as /h5"),
        (["serve", ".", "--prefix", "/h5?"], "a path such as /h5"),
        (["serve", ".", "--prefix", "/../h5"], "a path such as /h5"),
        (["serve", ".", "--prefix", "/a//b"], "a path such as /h5"),
        (["serve", ".", "--cors", "viewer.example.org"], "an origin such as"),
        (["serve", ".", "--cors", "https://viewer.example.org/"], "an origin such as"),
        (["serve", ".", "--cors", "https://["], "an origin such as"),
        (["serve", ".", "--chunk-cache-bytes", "much"], "a size such as"),
        (
            ["serve", ".", "--max-open-files", "0"],
            "--max-open-files: '0': a whole number from 1 to",
        ),
        (["serve", ".", "--max-open-files", "1.5"], "--max-open-files"),
        (["serve", ".", "--max-open", "5"], "--max-open"),
        (["demo", "--read-timeout-seconds", "0"], "'0': a number from 0.001"),
        (
            ["srve", "/tmp"],
            "there is no command 'srve' (did you mean serve?); there is: serve, demo",
        ),
        (["xyzzy"], "there is no command 'xyzzy'; there is: serve, demo"),
        (["."], "(did you mean asgihive serve .?)"),
        ([__file__], f"(did you mean asgihive inspect {__file__}?)"),
        (["--port", "80", "serve", "."], "--port follows a command: asgihive COMMAND --port"),
        (["serve", "--prot", "80", "."], "there is no option --prot (did you mean --port?)"),
        (["serve", ".", "--prot=80"], "there is no option --prot (did you mean --port?)"),
        (["serve", ".", "-q"], "there is no option -q (see"),
        (["serve", ".", "--xyzzy", "--acess-log", "json"], "--xyzzy, --acess-log (did you mean"),
        (["serve", ".", "more", "words"], "too many arguments: more words"),
        (["demo", "--hots", "::1"], "there is no option --hots (did you mean --host?)"),
        (["new", "a", "--direcotry", "b"], "(did you mean --directory?)"),
        (["routes", "main:app", "--jsn"], "there is no option --jsn (did you mean --json?)"),
        (["graph", "main:app", "--mermaids"], "(did you mean --mermaid?)"),
        (["serve", ".", "-p", "65536"], "-p/--port: '65536': a whole number from 0 to 65535"),
        (["serve", "missing", "-p", "http"], "-p/--port: 'http'"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in complaint(capsys, arguments)


def test_a_bad_environment_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ASGIHIVE_DECODE_LANES", "many")
    assert "ASGIHIVE_DECODE_LANES is 'many'" in complaint(capsys, ["serve", "."])


def test_an_unreadable_directory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "cannot be read: permission denied" in complaint(capsys, ["serve", "."])


def test_errors_of_the_real_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "asgihive", "serve", "/no/such/place"],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("asgihive serve: error: ")
    assert done.stderr.count("\n") == 1


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    shown = capsys.readouterr().out
    assert "asgihive serve /data" in shown
    assert "asgihive demo" in shown


def test_the_version_has_what_a_bug_report_needs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"asgihive {__version__}"
    shown = " ".join(lines)
    assert f"h5py {h5py.__version__}, HDF5 {h5py.version.hdf5_version}" in shown
    assert "Python {}.{}.{}".format(*sys.version_info[:3]) in shown


def test_the_port_has_a_short_name() -> None:
    parsed = cli.parse_arguments(["serve", ".", "-p", "8123"])
    assert read_options(parsed).server.port == 8123


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_help_asks_no_questions(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: asgihive {command} ")
    assert "?" not in shown


def test_a_demo_without_a_place_for_its_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "mkdtemp", refuse_directory)
    line = complaint(capsys, ["demo", "--port", "0"], 1)
    assert "the sample files cannot be written: [Errno 28] No space left on device" in line


def test_workers_without_a_place_to_share_their_numbers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "mkdtemp", refuse_directory)
    monkeypatch.delenv(operations.SHARED_DIRECTORY, raising=False)
    with server.sharing_metrics(H5Settings()):
        assert operations.SHARED_DIRECTORY not in os.environ
    assert "Each worker counts for itself in /metrics: [Errno 28]" in caplog.text


def refuse_directory(*_: object, **__: object) -> str:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("arguments", [["--help"], ["new", "notes"], ["routes", "main:app"]])
def test_what_needs_no_files_imports_no_h5py(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("from asgihive.asgi import Router\napp = Router()\n")
    code = """
import sys
from asgihive.cli import main
try:
    main(sys.argv[1:])
finally:
    assert not {"h5py", "numpy", "uvicorn"} & sys.modules.keys()
"""
    subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, cwd=tmp_path, timeout=PATIENCE
    )
