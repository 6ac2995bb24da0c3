"""The command line: options, errors in one line, and servers in processes of their own."""

import argparse
import dataclasses
import errno
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.supervisors import Multiprocess

from asgihive import __version__, cli
from asgihive.settings import ENVIRONMENT_PREFIX, H5Settings

PATIENCE = 60.0  # seconds until a server that hangs is ended
FIELDS = {each.name: each for each in dataclasses.fields(H5Settings)}


@pytest.fixture(autouse=True)
def no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(ENVIRONMENT_PREFIX)]:
        monkeypatch.delenv(name)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    directory.mkdir()
    with h5py.File(directory / "x.h5", "w") as file:
        file["values"] = np.arange(5)
    return directory


# Servers in processes of their own


class Server:
    """A running `asgihive`, its first lines read up to the first URL."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.lines: list[str] = []
        self.url = ""

    def read_until(self, pattern: str) -> re.Match[str]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line)
            if match := re.search(pattern, line):
                return match
        pytest.fail(f"{self._process.stderr and self._process.stderr.read()}\n{self.lines}")

    def stop(self, number: signal.Signals = signal.SIGINT) -> tuple[int, str]:
        """The exit code, and what was said on stderr."""
        self._process.send_signal(number)
        return self._end()

    def press_control_c(self) -> tuple[int, str]:
        """As `stop`, as a terminal does it: the worker processes are told as well."""
        os.killpg(self._process.pid, signal.SIGINT)
        return self._end()

    def _end(self) -> tuple[int, str]:
        _, complaints = self._process.communicate(timeout=PATIENCE)
        return self._process.returncode, complaints


@contextmanager
def running(*arguments: str) -> Iterator[Server]:
    with subprocess.Popen(
        [sys.executable, "-m", "asgihive", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        # Worker processes end when the parent is asked to; a hung parent is killed.
        guards = (
            threading.Timer(PATIENCE, process.terminate),
            threading.Timer(PATIENCE + 10, process.kill),
        )
        for guard in guards:
            guard.start()
        try:
            server = Server(process)
            server.url = server.read_until(r"http://[^\s']+")[0]
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serves_a_directory_until_it_is_asked_to_stop(
    directory: Path, number: signal.Signals
) -> None:
    with running("serve", str(directory), "--port", "0") as server:
        assert len(server.lines) == 1
        assert str(directory) in server.lines[0]
        answer = httpx.get(server.url + "data", params={"file": "x.h5", "path": "/values"})
        assert answer.json() == [0, 1, 2, 3, 4]
        assert server.stop(number) == (0, "")


def test_serves_below_a_prefix_with_the_lifespan_and_errors_of_the_service(
    directory: Path,
) -> None:
    with running("serve", str(directory), "--port", "0", "--prefix", "/h5/") as server:
        assert server.url.endswith("/h5/")
        parameters = {"file": "x.h5", "path": "/"}
        assert httpx.get(server.url + "meta", params=parameters).json()["kind"] == "group"
        assert httpx.get(server.url.removesuffix("/")).text == "ok"
        outside = httpx.get(server.url.removesuffix("h5/") + "meta", params=parameters)
        assert outside.status_code == 404
        assert outside.json()["message"]
        assert server.stop() == (0, "")


def test_settings_of_the_command_line_reach_the_service(directory: Path) -> None:
    origin = "https://viewer.example.org"
    with running(
        "serve", str(directory), "--port", "0", "--cors", origin, "--max-response-bytes", "16"
    ) as server:
        parameters = {"file": "x.h5", "path": "/values"}
        answer = httpx.get(server.url + "data", params=parameters, headers={"Origin": origin})
        assert answer.status_code == 413
        assert answer.headers["Access-Control-Allow-Origin"] == origin


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_several_workers_share_the_socket_and_the_settings(
    directory: Path, number: signal.Signals
) -> None:
    with running(
        "serve", str(directory), "--port", "0", "--workers", "2", "--max-response-bytes", "16"
    ) as server:
        parameters = {"file": "x.h5", "path": "/values"}
        # Connections wait in the backlog of the socket until the workers have started.
        for _ in range(8):
            answer = httpx.get(server.url + "data", params=parameters, timeout=PATIENCE)
            assert answer.status_code == 413
        assert server.stop(number) == (0, "")


def test_control_c_in_a_terminal_ends_all_workers_quietly(directory: Path) -> None:
    with running("serve", str(directory), "--port", "0", "--workers", "2") as server:
        assert httpx.get(server.url, timeout=PATIENCE).text == "ok"
        assert server.press_control_c() == (0, "")


def test_workers_start_deaf_to_control_c(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []
    monkeypatch.setattr(
        Multiprocess,
        "init_processes",
        lambda self: seen.append(signal.getsignal(signal.SIGINT)),
    )
    cli._Supervisor.__new__(cli._Supervisor).init_processes()
    assert seen == [signal.SIG_IGN]
    assert signal.getsignal(signal.SIGINT) is before


def test_the_access_log_is_there_on_demand(directory: Path) -> None:
    with running("serve", str(directory), "--port", "0", "--access-log") as server:
        httpx.get(server.url)
        assert '"GET / HTTP/1.1" 200' in server.read_until("GET").string


# The demo


@pytest.fixture(scope="module")
def demo() -> Iterator[Server]:
    with running("demo", "--port", "0") as server:
        server.read_until("external link")
        server.read_until("curl")
        yield server


def test_the_first_url_of_the_demo_works_in_a_browser(demo: Server) -> None:
    answer = httpx.get(demo.url)
    assert answer.status_code == 200
    assert answer.json()["kind"] == "group"


def test_every_url_to_open_answers(demo: Server) -> None:
    urls = [line.strip() for line in demo.lines if line.startswith("  http")]
    assert len(urls) >= 3
    for url in urls:
        assert httpx.get(url).raise_for_status().json()


def curl_lines(server: Server) -> list[list[str]]:
    return [shlex.split(line) for line in server.lines if line.lstrip().startswith("curl ")]


def test_the_commands_to_paste_cover_what_the_service_does(demo: Server) -> None:
    urls = " ".join(words[-1] for words in curl_lines(demo))
    for part in (
        "/meta",
        "/attr",
        "selection=",
        "format=npy",
        "format=csv",
        "/stats",
        "/paths",
        "links/external",
    ):
        assert part in urls


def test_every_command_to_paste_works(demo: Server, tmp_path: Path) -> None:
    for words in curl_lines(demo):
        if shutil.which("curl"):
            done = subprocess.run(
                [words[0], "--fail", *words[1:]],
                cwd=tmp_path,
                check=False,
                capture_output=True,
                timeout=PATIENCE,
            )
            assert (done.returncode, done.stderr) == (0, b""), words
        else:
            answer = httpx.get(words[-1]).raise_for_status()
            if "-o" in words:
                (tmp_path / words[words.index("-o") + 1]).write_bytes(answer.content)
    image = np.load(tmp_path / "image.npy")
    assert (image.ndim, image.dtype) == (2, np.uint16)
    assert np.loadtxt(tmp_path / "scan.csv", delimiter=",").size > 100


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_demo_removes_its_files_at_the_end(number: signal.Signals) -> None:
    with running("demo", "--port", "0", "--prefix", "/h5") as server:
        directory = Path(re.findall(r"Sample files are in (\S+),", "".join(server.lines))[0])
        assert (directory / "demo.nxs").exists()
        assert httpx.get(server.url).status_code == 200
        assert server.stop(number) == (0, "")
        assert not directory.exists()


def test_the_demo_takes_a_free_port_when_the_one_asked_for_is_taken() -> None:
    with taken_port() as port, running("demo", "--port", str(port)) as server:
        assert f"Port {port} is taken" in server.lines[0]
        assert httpx.get(server.url).status_code == 200


# Options


def parsed(*arguments: str) -> H5Settings:
    return cli._settings(cli._parser().parse_args(["serve", ".", *arguments]))


SAMPLES: dict[object, tuple[str, object]] = {
    int: ("65537", 65537),
    float: ("2.5", 2.5),
    tuple[str, ...]: ("https://a.example", ("https://a.example",)),
}


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_is_an_option(name: str) -> None:
    option = "--cors" if name == "cors_origins" else "--" + name.replace("_", "-")
    if FIELDS[name].type is bool:
        assert getattr(parsed(option), name) is True
        assert getattr(parsed(option.replace("--", "--no-", 1)), name) is False
    else:
        text, value = SAMPLES[FIELDS[name].type]
        assert getattr(parsed(option, text), name) == value


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_help_shows_every_setting_with_its_purpose_and_default(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for each in FIELDS.values():
        assert f"{each.metadata['purpose']} (default: " in shown
    assert "(default: 256MiB)" in shown
    assert ENVIRONMENT_PREFIX in shown


def test_settings_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parsed() == H5Settings()
    monkeypatch.setenv("ASGIHIVE_MAX_OPEN_FILES", "7")
    monkeypatch.setenv("ASGIHIVE_FOLLOW_SYMLINKS", "yes")
    assert (parsed().max_open_files, parsed().follow_symlinks) == (7, True)
    given = parsed("--max-open-files", "9", "--no-follow-symlinks")
    assert (given.max_open_files, given.follow_symlinks) == (9, False)


def test_cors_origins_add_up() -> None:
    given = parsed("--cors", "https://a.example", "--cors", "http://localhost:5173")
    assert given.cors_origins == ("https://a.example", "http://localhost:5173")
    assert parsed("--cors", "*").cors_origins == ("*",)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1048576", 2**20),
        ("512B", 512),
        ("32M", 32 * 2**20),
        ("256MiB", 256 * 2**20),
        ("256mib", 256 * 2**20),
        ("2 GiB", 2 * 2**30),
        ("1T", 2**40),
        ("5KB", 5000),
        ("5MB", 5_000_000),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert cli._size(text) == size


@pytest.mark.parametrize(
    "text", ["", "M", "-1", "1.5G", "1X", "1iB", "1e6", "\N{ARABIC-INDIC DIGIT ONE}"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="a size such as"):
        cli._size(text)


@given(st.integers(0, 2**60))
def test_a_size_reads_back_as_it_is_shown(size: int) -> None:
    assert cli._size(cli._size_text(size)) == size


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:{}"),
        ("localhost", "http://localhost:{}"),
        ("0.0.0.0", "http://127.0.0.1:{}"),
        ("::", "http://[::1]:{}"),
        ("::1", "http://[::1]:{}"),
    ],
)
def test_the_url_shown_can_be_opened_on_this_machine(host: str, url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        options = argparse.Namespace(host=host, prefix="")
        assert cli._url(options, listener) == url.format(listener.getsockname()[1])


# Errors, help, versions


def complaint(capsys: pytest.CaptureFixture[str], arguments: Sequence[str]) -> str:
    """The only line on stderr of a command that ends with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    captured = capsys.readouterr()
    assert ended.value.code == 2
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.endswith("\n")
    line: str = captured.err
    return line


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


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_taken_port_is_told_before_anything_starts(
    workers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with taken_port() as port:
        arguments = ["serve", ".", "--port", str(port), "--workers", workers]
        assert f"port {port} of 127.0.0.1 is taken" in complaint(capsys, arguments)


def test_a_privileged_port(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any, **__: Any) -> socket.socket:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket, "create_server", refuse)  # the tests may run as root
    assert "port 80 needs privileges" in complaint(capsys, ["serve", ".", "--port", "80"])


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
