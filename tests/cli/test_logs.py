"""What a server writes while it serves: requests on stdout, the rest on stderr."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import httpx
import pytest

from asgihive import __version__
from asgihive.cli.server import describe_exit
from tests.cli.processes import PATIENCE, complaint, running, taken_port

QUERY = "data?file=x.h5&path=/values&format=json"


def test_requests_as_text(directory: Path) -> None:
    options = ("--port", "0", "--access-log", "text", "--prefix", "/h5")
    with running("serve", str(directory), *options) as server:
        httpx.get(server.url + QUERY)
        line = server.read_until("GET").string
        assert '127.0.0.1 "GET /h5/data?file=x.h5&path=/values&format=json HTTP/1.1" 200 11' in line
        assert "queue=" in line
        httpx.get(server.url.removesuffix("h5/") + "elsewhere")
        assert "GET /elsewhere" in server.read_until("GET").string
        assert server.stop() == (0, "")


def test_requests_as_json_and_the_rest_too(directory: Path) -> None:
    options = ("--port", "0", "--access-log", "json", "--log-level", "info")
    with running("serve", str(directory), *options) as server:
        httpx.get(server.url + QUERY)
        first = json.loads(server.lines[0])
        assert first["directory"] == str(directory)
        assert first["address"] == server.url
        assert first["version"] == __version__
        assert (first["level"], first["logger"]) == ("info", "asgihive.cli")
        entry = json.loads(server.read_until("{").string)
        assert (entry["path"], entry["status"], entry["bytes"]) == ("/data", 200, 11)
        assert entry["timings_ms"]["queue"] > 0
        code, said = server.stop()
        assert code == 0
        messages = [json.loads(line)["message"] for line in said.splitlines()]
        assert any("Finished server process" in each for each in messages)


def test_a_token_is_in_no_log(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASGIHIVE_TOKEN", "open-sesame")
    options = ("--port", "0", "--access-log", "text", "--log-level", "debug")
    with running("serve", str(directory), *options) as server:
        assert httpx.get(server.url + QUERY).status_code == 401
        for spelling in ("token", "%74oken"):
            asked = f"{server.url}{QUERY}&{spelling}=open-sesame"
            assert httpx.get(asked).json() == [0, 1, 2, 3, 4]
        server.read_until("%74oken=")
        code, said = server.stop()
    assert code == 0
    assert "open-sesame" not in "".join(server.lines) + said


@pytest.mark.slow
def test_nor_where_its_parameter_is_misspelt(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASGIHIVE_TOKEN", "open-sesame")
    options = ("--port", "0", "--access-log", "text", "--log-level", "debug", "--prefix", "/h5")
    with running("serve", str(directory), *options) as server:
        for written in ("&TOKEN=open-sesame", ";token=open-sesame", "&token%3Dopen%2Dsesame"):
            assert httpx.get(f"{server.url}{QUERY}{written}").status_code == 401
        assert httpx.get(f"{server.url}meta;token=open-sesame").status_code == 401
        assert "GET /h5/meta;token=*** HTTP" in server.read_until("meta;").string
        code, said = server.stop()
    assert code == 0
    logged = "".join(server.lines) + said
    assert "sesame" not in logged
    assert all(each in logged for each in ("&TOKEN=*** ", ";token=*** ", "&token%3D*** "))


@pytest.mark.parametrize(
    "options", [(), pytest.param(("--access-log", "json"), marks=pytest.mark.slow)]
)
def test_a_misspelt_variable_is_warned_of(
    directory: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.setenv("ASGIHIVE_TOKN", "open-sesame")
    with running("serve", str(directory), "--port", "0", *options) as server:
        assert httpx.get(server.url).text == "ok"
        code, said = server.stop()
    assert code == 0
    assert said.count("\n") == 1
    told = json.loads(said)["message"] if options else said
    message = "The environment variable 'ASGIHIVE_TOKN' is no setting, and ignored"
    assert told.rstrip().endswith(f"{message} (did you mean ASGIHIVE_TOKEN?)")
    assert "warning" in said.lower()


def test_everything_in_json_even_what_goes_wrong_before_it_serves(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with taken_port() as port:
        options = ["--port", str(port), "--access-log", "json"]
        line = complaint(capsys, ["serve", str(directory), *options])
    assert json.loads(line)["level"] == "error"
    assert f"port {port} of 127.0.0.1 is taken" in json.loads(line)["message"]


def test_everything_in_json_even_of_python_itself(directory: Path) -> None:
    """A warning, and what ends the main thread and another one."""
    script = """
        import sys, threading, warnings
        from asgihive.cli import logs
        import logging.config
        logging.config.dictConfig(logs.make_log_config("warning", "json"))
        logs.log_warnings_and_crashes()
        warnings.warn("mind the gap")
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()
        raise SystemError("the end")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    warned, thread, end = map(json.loads, done.stderr.splitlines())
    assert "mind the gap" in warned["message"]
    assert "ZeroDivisionError" in thread["exception"]
    assert "SystemError: the end" in end["exception"]
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.slow
def test_a_demo_in_json(tmp_path: Path) -> None:
    with running("demo", "--port", "0", "--access-log", "json") as server:
        assert json.loads(server.lines[0])["address"] == server.url
        assert server.stop() == (0, "")
        assert len(server.lines) == 1


@pytest.mark.slow
def test_a_worker_that_crashes_is_warned_of(directory: Path) -> None:
    options = ("--port", "0", "--workers", "2", "--access-log", "json")
    with running("serve", str(directory), *options) as server:
        assert httpx.get(server.url, timeout=PATIENCE).text == "ok"
        lost = server.workers()[0]
        os.kill(lost, signal.SIGKILL)
        while lost in server.workers() or len(server.workers()) < 2:
            time.sleep(0.05)
        # The other one, or the new one once it has started.
        assert httpx.get(server.url, timeout=PATIENCE).text == "ok"
        code, said = server.stop()
    assert code == 0
    (told,) = map(json.loads, said.splitlines())
    assert told["level"] == "warning"
    assert f"Worker process {lost} has ended (SIGKILL: " in told["message"]


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "exit code 0"), (3, "exit code 3"), (-11, "SIGSEGV"), (-9, "SIGKILL: the system sends")],
)
def test_how_a_worker_has_ended(code: int, words: str) -> None:
    assert describe_exit(code).startswith(words)
    assert describe_exit(-40) == "signal 40"


@pytest.mark.slow
def test_silence(directory: Path) -> None:
    with running("serve", str(directory), "--port", "0") as server:
        assert httpx.get(server.url).text == "ok"
        assert server.stop() == (0, "")
        assert len(server.lines) == 1


@pytest.mark.slow
def test_whichever_worker_is_asked_tells_what_all_have_done(directory: Path) -> None:
    asked = 24
    with running("serve", str(directory), "--port", "0", "--workers", "3") as server:
        for _ in range(asked):
            # A new connection each, for any of the workers.
            assert httpx.get(server.url + QUERY, timeout=PATIENCE).status_code == 200
        for _ in range(6):
            lines = httpx.get(server.url + "metrics", timeout=PATIENCE).text.splitlines()
            (counted,) = [
                each
                for each in lines
                if each.startswith("asgihive_requests_total{") and 'route="/data"' in each
            ]
            assert float(counted.split()[-1]) == asked
        assert server.stop() == (0, "")
