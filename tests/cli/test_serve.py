"""`asgihive serve`: servers in processes of their own."""

import errno
import os
import signal
import socket
from ipaddress import ip_address
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from uvicorn import Config
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from asgihive.cli import server as serving
from asgihive.cli.options import ServerOptions
from asgihive.cli.server import is_loopback, list_urls, listen
from tests.cli.processes import PATIENCE, complaint, running, taken_port


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
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


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
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


@pytest.mark.slow
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
    supervising().init_processes()
    assert seen == [signal.SIG_IGN]
    assert signal.getsignal(signal.SIGINT) is before


def _end_when_asked(connection: Connection) -> None:
    connection.recv()
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_ends_instead_of_answering_is_seen_to_at_once() -> None:
    """Not when the time for an answer is over: no worker serves meanwhile."""
    worker = Process(Config("none", log_config=None), [])
    worker.process = get_context("spawn").Process(target=_end_when_asked, args=(worker.child_conn,))
    worker.start()
    supervising(worker).close_worker_ends()
    began = monotonic()
    assert not worker.ping(PATIENCE)
    assert monotonic() - began < PATIENCE / 2
    worker.join()


def test_a_worker_that_ends_for_the_same_signal_is_not_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A terminal tells all of them; the signal comes while the supervisor looks at the worker."""
    worker = Process(Config("none", log_config=None), [])
    worker.process = get_context("spawn").Process(target=int)
    worker.start()
    supervisor = supervising(worker)
    supervisor.config, supervisor.signal_queue = worker.config, []
    supervisor.should_exit = serving.StopEvent(supervisor.signal_queue)

    def end_for_a_signal(timeout: float) -> bool:
        supervisor.signal_queue.append(signal.SIGINT)
        worker.process.join(timeout)
        return False

    monkeypatch.setattr(worker, "is_alive", end_for_a_signal)
    supervisor.keep_subprocess_alive()
    assert supervisor.processes == [worker]


def supervising(*workers: Process) -> "serving.WorkerSupervisor":
    """What watches workers, without the signal handlers of a process of its own."""
    supervisor = serving.WorkerSupervisor.__new__(serving.WorkerSupervisor)
    supervisor.processes = list(workers)
    return supervisor


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_the_url_of_one_address_is_that(host: str) -> None:
    with listen(host, 0) as listener:
        shown = f"[{host}]" if ":" in host else host
        port = listener.getsockname()[1]
        assert list_urls(ServerOptions(host=host), listener) == [f"http://{shown}:{port}"]
        assert is_loopback(listener)


@pytest.mark.parametrize(("host", "loopback"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]")])
def test_who_listens_everywhere_is_shown_as_others_reach_it(host: str, loopback: str) -> None:
    with listen(host, 0) as listener:
        assert not is_loopback(listener)
        *others, here = list_urls(ServerOptions(host=host), listener)
        assert here == f"http://{loopback}:{listener.getsockname()[1]}"
        for url in others:
            parts = urlsplit(url)
            assert parts.hostname
            assert not ip_address(parts.hostname).is_unspecified
            assert not ip_address(parts.hostname).is_loopback
            with socket.create_connection((parts.hostname, parts.port or 0), PATIENCE):
                listener.accept()[0].close()


def test_a_machine_without_a_network_is_shown_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    with listen("0.0.0.0", 0) as listener, monkeypatch.context() as patch:
        patch.setattr(socket, "socket", type("Unreachable", (socket.socket,), {"connect": refuse}))
        port = listener.getsockname()[1]
        assert list_urls(ServerOptions(host="0.0.0.0"), listener) == [f"http://127.0.0.1:{port}"]


SERVING_OTHERS = ("--host", "0.0.0.0", "--port", "0")


def test_whoever_serves_others_without_a_token_is_warned(directory: Path) -> None:
    with running("serve", str(directory), *SERVING_OTHERS) as server:
        assert httpx.get(server.url, timeout=PATIENCE).text == "ok"
        assert "0.0.0.0" not in server.lines[0]
        code, said = server.stop()
    assert code == 0
    assert said.count("\n") == 1
    assert f"may read every file of {directory}: set ASGIHIVE_TOKEN" in said


@pytest.mark.slow
def test_whoever_serves_others_with_a_token_is_not(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASGIHIVE_TOKEN", "open-sesame")
    with running("serve", str(directory), *SERVING_OTHERS) as server:
        assert httpx.get(server.url, timeout=PATIENCE).text == "ok"
        assert server.stop() == (0, "")


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
