"""Errors in one line, help, versions."""

import os
import subprocess
import sys

import h5py
import pytest

from asgihive import __version__, cli
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
            "max_open_files is 0: a whole number of at least 1",
        ),
        (["serve", ".", "--max-open-files", "1.5"], "--max-open-files"),
        (["serve", ".", "--max-open", "5"], "--max-open"),
        (["demo", "--read-timeout-seconds", "0"], "read_timeout_seconds"),
        (["sevre"], "'sevre'"),
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
