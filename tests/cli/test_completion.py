"""Completion in real shells: what is typed on a terminal, and what the command is then run with."""

import fcntl
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from asgihive.cli import COMMANDS, main
from asgihive.cli.completion import SHELLS, make_script
from tests.cli.processes import complaint

_PATIENCE = 10.0  # seconds

# How each shell is begun without the user's files, and told what the test needs.
_ARGUMENTS = {
    "bash": ["--norc", "--noprofile", "-i"],
    "zsh": ["-f", "-i"],
    "fish": ["--no-config", "-i"],
}
_RUN = 'asgihive() { echo "run:${*}:end"; }; '
_PREPARATIONS = {
    "bash": _RUN + "bind 'set enable-bracketed-paste off'; source ./script",
    "zsh": _RUN + 'autoload -Uz compinit; compinit -D -u; eval "$(cat script)"',
    "fish": 'function asgihive; echo "run:$argv:end"; end; source ./script',
}

# What is typed, and what the shell adds to it.
_TYPED = (
    ("insp", "ect"),
    ("serve --access-log j", "son"),
    ("serve --max-open", "-files"),
    ("inspect sca", "n.h5"),
    ("serve fol", "der/"),
    ("completion z", "sh"),
)


class Shell:
    """An interactive shell on a terminal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.text = ""

    def write(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def read_until(self, pattern: str) -> re.Match[str]:
        """Read what the shell writes, and answer what it asks its terminal for."""
        ends = time.monotonic() + _PATIENCE
        while (match := re.search(pattern, self.text)) is None:
            readable, _, _ = select.select([self._descriptor], [], [], ends - time.monotonic())
            if not readable:
                pytest.fail(f"{pattern!r} is not in {self.text!r}")
            said = os.read(self._descriptor, 1 << 16).decode(errors="replace")
            if "\x1b[c" in said or "\x1b[0c" in said:  # fish asks which terminal this is
                self.write("\x1b[?62c")
            self.text += said
        self.text = self.text[match.end() :]
        return match


@contextmanager
def shell(name: str, folder: Path) -> Iterator[Shell]:
    own, others = pty.openpty()
    with subprocess.Popen(
        [str(shutil.which(name)), *_ARGUMENTS[name]],
        stdin=others,
        stdout=others,
        stderr=others,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "TERM": "dumb", "PS1": "$ "},
        start_new_session=True,
        # Job control wants a terminal of the session's own.
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  # no threads
    ) as process:
        os.close(others)
        try:
            yield Shell(own)
        finally:
            process.kill()
            process.wait(_PATIENCE)
            os.close(own)


@pytest.mark.parametrize("name", [pytest.param(each, marks=pytest.mark.slow) for each in SHELLS])
def test_in_a_real_shell(name: str, tmp_path: Path) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"this machine has no {name}")
    (tmp_path / "script").write_text(make_script(name))
    (tmp_path / "scan.h5").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.txt").touch()
    with shell(name, tmp_path) as typed:
        typed.write(f"{_PREPARATIONS[name]}; echo rea''dy\n")
        typed.read_until("ready")
        for keys, added in _TYPED:
            # A shell takes a tab for itself where more follows at once, as in what is pasted.
            typed.write(f"asgihive {keys}")
            typed.read_until(f"{keys.split()[-1]}")
            typed.write("\t")
            typed.read_until(added)
            typed.write("\n")
            # zsh takes the slash behind a directory away again.
            arguments = typed.read_until("run:(.*):end")[1].strip()
            assert arguments.rstrip("/") == (keys + added).rstrip("/")


@pytest.mark.parametrize("name", SHELLS)
def test_every_command_and_option(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", name]) == 0
    script = capsys.readouterr().out
    assert all(each in script for each in (*COMMANDS, "max-open-files", "access-log", "storage"))


@pytest.mark.skipif(shutil.which("bash") is None, reason="this machine has no bash")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["asgihive", "in"], {"inspect"}),
        (["asgihive", "serve", "--no-z"], {"--no-zarr", "--no-zarr-stored-chunks"}),
        (["asgihive", "serve", "--isolation", ""], {"none", "process"}),
    ],
)
def test_what_bash_offers(words: list[str], offered: set[str]) -> None:
    listed = " ".join(f"'{each}'" for each in words)
    script = f"""{make_script("bash")}
COMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}; _shtab_asgihive
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(
        ["bash", "--norc", "-c", script], check=True, capture_output=True, text=True, timeout=60
    )
    assert set(done.stdout.split()) == offered


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    line = complaint(capsys, ["completion", "tcsh"])
    assert "'bash', 'zsh', 'fish'" in line or "bash, zsh, fish" in line


def test_libraries_are_loaded_by_the_commands_that_need_them() -> None:
    script = "import sys, asgihive.cli as c; c.parse_arguments(['completion', 'bash']); "
    script += "print({'shtab', 'rich', 'h5py', 'numpy', 'uvicorn'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "set()\n"
