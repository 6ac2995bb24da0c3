"""Servers that are told to stop, crash or are replaced, over real sockets."""

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import h5py
import httpx
import numpy as np
import pytest

from asgihive.cli.console import replacing_handlers
from tests.cli.processes import PATIENCE, Server, running

LARGE_BYTES = 48 << 20  # more than the buffers of two sockets hold
LARGE = "data?file=large.h5&path=/large&format=bin"


@pytest.fixture
def large(directory: Path) -> Path:
    with h5py.File(directory / "large.h5", "w") as file:
        file["large"] = np.arange(LARGE_BYTES // 8)
    return directory


def until(condition: Callable[[], bool]) -> None:
    """Ask again and again, which each time takes a server's time or a little of this one's."""
    end = monotonic() + PATIENCE
    while not condition():
        assert monotonic() < end


def refuses(server: Server) -> bool:
    url = httpx.URL(server.url)
    try:
        with socket.create_connection((url.host, url.port or 0), timeout=PATIENCE):
            return False
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # it was waiting to be accepted when the socket was closed
        return False


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_server_that_stops_finishes_what_it_sends_and_accepts_nobody(
    large: Path, workers: str
) -> None:
    options = ("--port", "0", "--workers", workers, "--graceful-seconds", "60")
    with (
        running("serve", str(large), *options) as server,
        httpx.Client(trust_env=False, timeout=PATIENCE) as client,
        client.stream("GET", server.url + LARGE) as answer,
    ):
        blocks = answer.iter_bytes()
        body = [next(blocks)]
        server.tell(signal.SIGTERM)
        until(lambda: refuses(server))
        body += blocks
        received = np.frombuffer(b"".join(body), "<i8")
        assert np.array_equal(received, np.arange(LARGE_BYTES // 8))
        assert server.wait() == (0, "")


def test_it_waits_no_longer_than_it_is_told_to(large: Path) -> None:
    options = ("--port", "0", "--graceful-seconds", "0")
    with (
        running("serve", str(large), *options) as server,
        httpx.Client(trust_env=False, timeout=PATIENCE) as client,
        client.stream("GET", server.url + LARGE) as answer,
    ):
        blocks = answer.iter_bytes()
        next(blocks)
        code, said = server.stop(signal.SIGTERM)
        assert code == 0
        assert "timeout graceful shutdown exceeded" in said
        with pytest.raises(httpx.RemoteProtocolError):
            list(blocks)


def is_answered(server: Server) -> bool:
    return httpx.get(server.url + "health", timeout=PATIENCE, trust_env=False).status_code == 200


@pytest.mark.slow
def test_a_worker_that_crashes_is_replaced_and_the_port_stays(directory: Path) -> None:
    with running("serve", str(directory), "--port", "0", "--workers", "2") as server:
        assert is_answered(server)
        first, second = server.workers()
        os.kill(first, signal.SIGKILL)
        until(lambda: len(set(server.workers()) - {first, second}) == 1)
        replaced = server.workers()
        assert second in replaced
        # Also the new one answers, alone, once the other one is gone.
        os.kill(second, signal.SIGKILL)
        assert is_answered(server)
        code, said = server.stop()
    assert code == 0
    assert [line.split()[2] for line in said.splitlines()] == ["WARNING"] * 2, said
    assert f"{first} has ended (SIGKILL" in said
    assert f"{second} has ended (SIGKILL" in said


@pytest.mark.slow
def test_a_hangup_replaces_the_workers_while_they_answer(directory: Path) -> None:
    with running("serve", str(directory), "--port", "0", "--workers", "2") as server:
        assert is_answered(server)
        before = set(server.workers())
        server.tell(signal.SIGHUP)

        def are_replaced() -> bool:
            assert is_answered(server)
            now = set(server.workers())
            return len(now) == 2 and not now & before

        until(are_replaced)
        assert server.stop() == (0, "")


@pytest.mark.slow
def test_workers_end_with_a_supervisor_that_is_killed(directory: Path) -> None:
    with running("serve", str(directory), "--port", "0", "--workers", "2") as server:
        assert is_answered(server)
        server.tell(signal.SIGKILL)
        # The workers hold the ends of its pipes until they have ended.
        code, _ = server.wait()
        assert code == -signal.SIGKILL
        assert refuses(server)


def test_signals_are_handled_in_another_way_for_a_while() -> None:
    stops: list[int] = []
    handlers = {signal.SIGINT: lambda number, _: stops.append(number)}
    # What a shell starts in the background ignores SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with replacing_handlers(signal.default_int_handler, handlers):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        assert stops == [signal.SIGINT] * 2
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM]
)
def test_one_that_is_told_to_stop_at_once_stops_in_order(number: signal.Signals) -> None:
    """Its first line comes before uvicorn listens to signals."""
    with running("demo", "--port", "0", "--access-log", "json") as server:
        assert server.stop(number) == (0, "")
