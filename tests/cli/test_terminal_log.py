"""The line a request that a server writes where it is looked at: on a terminal, and only there."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from asgihive.cli.logs import make_log_config
from tests.cli.processes import PATIENCE, running

_CODES = re.compile(r"\x1b\[[0-9;]*m")
_COLUMNS = 100


class Terminal:
    """A server whose stdout is a terminal of 100 columns."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self.process = process
        self.text = ""
        self._descriptor = descriptor

    def read_until(self, pattern: str) -> re.Match[str]:
        while True:
            if match := re.search(pattern, self.text):
                return match
            readable, _, _ = select.select([self._descriptor], [], [], PATIENCE)
            if not readable:
                pytest.fail(self.text)
            try:
                self.text += os.read(self._descriptor, 1 << 16).decode()
            except OSError:  # nobody has its other end any more
                pytest.fail(self.text)


@contextmanager
def terminal(*arguments: str, environment: Mapping[str, str]) -> Iterator[Terminal]:
    own, others = pty.openpty()
    fcntl.ioctl(others, termios.TIOCSWINSZ, struct.pack("HHHH", 24, _COLUMNS, 0, 0))
    variables = {**os.environ, "TERM": "xterm-256color", **environment}
    for name in ("NO_COLOR", "COLUMNS"):
        if name not in environment:
            variables.pop(name, None)
    with subprocess.Popen(
        [sys.executable, "-m", "asgihive", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=others,
        stderr=subprocess.DEVNULL,
        env=variables,
        start_new_session=True,
    ) as process:
        os.close(others)
        try:
            yield Terminal(process, own)
        finally:
            process.terminate()
            process.wait(PATIENCE)
            os.close(own)


def test_a_terminal_gets_a_line_a_request(directory: Path) -> None:
    environment = {"ASGIHIVE_TOKEN": "open-sesame"}
    with terminal("serve", str(directory), "--port", "0", environment=environment) as server:
        url = server.read_until(r"http://\S+/")[0]
        query = "data?file=x.h5&path=/values"
        assert httpx.get(f"{url}{query}&token=open-sesame").status_code == 200
        line = server.read_until(r"[^\n]*GET /data[^\n]*\n")[0]
        assert "\x1b[32m200\x1b[0m" in line.replace(" 200", "200")
        plain = _CODES.sub("", line).rstrip("\r\n")
        shape = r"\d\d:\d\d:\d\d 200 +[\d.]+ ms +11 B 127\.0\.0\.1 GET /data\?file=x\.h5&path="
        assert re.match(shape, plain)
        assert plain.endswith("&token=***")
        # What is hostile, and what is too long for a line.
        evil = "\x1b]0;owned\x07\r\n\u202e"
        httpx.get(f"{url}meta", params={"file": evil + "x" * 500}, auth=("x", "y"))
        line = server.read_until(r"[^\n]*GET /meta[^\n]*\n")[0]
        plain = _CODES.sub("", line).rstrip("\r\n")
        assert " 401 " in plain
        assert "%1B" in plain
        assert plain.endswith("…")
        assert len(plain) == _COLUMNS
        assert "sesame" not in server.text
        shown = _CODES.sub("", server.text).replace("\r\n", "\n").splitlines()
        assert all(each.isprintable() for each in shown)


@pytest.mark.slow
def test_without_colours_where_they_are_not_wanted(directory: Path) -> None:
    with terminal("serve", str(directory), "--port", "0", environment={"NO_COLOR": "1"}) as server:
        assert httpx.get(server.read_until(r"http://\S+/")[0]).text == "ok"
        server.read_until(r"200 [^\n]* GET /\r\n")
        assert "\x1b" not in server.text


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_off_on_a_terminal(directory: Path, workers: str) -> None:
    options = ("--port", "0", "--access-log", "off", "--workers", workers)
    with terminal("serve", str(directory), *options, environment={}) as server:
        url = server.read_until(r"http://\S+/")[0]
        assert httpx.get(url, timeout=PATIENCE).text == "ok"
        server.process.terminate()
        server.process.wait(PATIENCE)
        assert server.text.count("\n") <= 1


@pytest.mark.slow
def test_workers_write_to_the_terminal_too(directory: Path) -> None:
    options = ("--port", "0", "--workers", "2")
    with terminal("serve", str(directory), *options, environment={}) as server:
        url = server.read_until(r"http://\S+/")[0]
        assert httpx.get(url, timeout=PATIENCE).text == "ok"
        server.read_until(r"200[^\n]*GET /[^\n]*\n")


@pytest.mark.slow
def test_no_line_where_stdout_is_no_terminal(directory: Path) -> None:
    with running("serve", str(directory), "--port", "0") as server:
        assert httpx.get(server.url).text == "ok"
        assert server.stop() == (0, "")
        assert len(server.lines) == 1


def test_it_costs_nothing_where_it_is_off(no_terminal: None) -> None:
    """The gate asks the level, and makes no entry of a request."""
    for choice in ("auto", "off"):
        level = make_log_config("warning", choice)["loggers"]["asgihive.access"]["level"]
        assert level > 50, choice
