"""Running `asgihive` in processes of its own, and what a command says that fails."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from asgihive import cli

PATIENCE = 60.0  # seconds until a server that hangs is ended


class Server:
    """A running `asgihive`, its first lines read up to the first URL."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.lines: list[str] = []
        self.url = ""

    @property
    def pid(self) -> int:
        return self._process.pid

    def read_until(self, pattern: str) -> re.Match[str]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line)
            if match := re.search(pattern, line):
                return match
        pytest.fail(f"{self._process.stderr and self._process.stderr.read()}\n{self.lines}")

    def tell(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGINT) -> tuple[int, str]:
        """The exit code, and what was said on stderr."""
        self._process.send_signal(number)
        return self._end()

    def press_control_c(self) -> tuple[int, str]:
        """As `stop`, as a terminal does it: the worker processes are told as well."""
        os.killpg(self._process.pid, signal.SIGINT)
        return self._end()

    def wait(self) -> tuple[int, str]:
        """As `stop`, of a server that was told already."""
        return self._end()

    def workers(self) -> list[int]:
        """The process ids of its worker processes."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [int(each) for each in children if b"spawn_main" in _command_line(each)]

    def _end(self) -> tuple[int, str]:
        _, complaints = self._process.communicate(timeout=PATIENCE)
        return self._process.returncode, complaints


def _command_line(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return b""


@contextmanager
def running(
    *arguments: str,
    module: str = "asgihive",
    patience: float = PATIENCE,
    python: str = sys.executable,
) -> Iterator[Server]:
    """A server that `python -m module` runs, until the end of the context.

    The log of another module than asgihive, which is on stderr, is among its lines.

    Args:
        patience: seconds until it is ended that is still there.
        python: the program that runs it.
    """
    with subprocess.Popen(
        [python, "-m", module, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if module == "asgihive" else subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        # Worker processes end when the parent is asked to; a hung parent is killed.
        guards = (
            threading.Timer(patience, process.terminate),
            threading.Timer(patience + 10, process.kill),
        )
        for guard in guards:
            guard.start()
        try:
            server = Server(process)
            server.url = server.read_until(r"https?://[^\s'\"]+")[0]
            yield server
        finally:
            if process.poll() is None:
                process.terminate()
                process.communicate(timeout=PATIENCE)
            for guard in guards:
                guard.cancel()
                guard.join()


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def complaint(capsys: pytest.CaptureFixture[str], arguments: Sequence[str], code: int = 2) -> str:
    """The only line on stderr of a command that ends with that exit code."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    captured = capsys.readouterr()
    assert ended.value.code == code
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.endswith("\n")
    line: str = captured.err
    return line
