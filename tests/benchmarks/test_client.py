"""The generator in Python and the probe, against servers that misbehave."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from benchmarks import load
from benchmarks.client import BenchmarkError, Connection, ConnectionEndedError, make_request
from benchmarks.load import AsyncioLoad
from benchmarks.probe import CLIENTS, probing

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextmanager
def serving(serve: Callable[[int, socket.socket], None]) -> Iterator[int]:
    """The port of a server that gives each connection, with its number, to a thread."""
    threads: list[threading.Thread] = []
    connections: list[socket.socket] = []

    def accept(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # it was shut down
                return
            connections.append(connection)
            arguments = (len(threads), connection)
            threads.append(threading.Thread(target=serve, args=arguments))
            threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=accept, args=(listener,))
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for connection in connections:
                connection.close()
            for thread in threads:
                thread.join()


def answer_always(connection: socket.socket) -> None:
    # A client may leave without waiting, and the server closes what is still read.
    with contextlib.suppress(OSError):
        while connection.recv(1 << 16):
            connection.sendall(ANSWER)


def test_probe_opens_connections_again_that_the_server_closed() -> None:
    served = threading.Semaphore(0)

    def serve(number: int, connection: socket.socket) -> None:
        if number in range(1, CLIENTS):  # all but one of the first connections of the clients
            connection.recv(1 << 16)
            connection.close()
            return
        # A client that has only connected may end before it asks, and has no latency then.
        if connection.recv(1 << 16):
            served.release()
            with contextlib.suppress(OSError):
                connection.sendall(ANSWER)
        answer_always(connection)

    with serving(serve) as port, probing(port) as probe:
        for _ in range(1 + CLIENTS):  # the one at the start, too
            assert served.acquire(timeout=30)
        latencies = probe.finish()
    assert len(latencies) >= CLIENTS
    assert all(latency > 0 for latency in latencies)


def test_a_connection_that_ends_early_is_told_from_a_wrong_status() -> None:
    def serve(number: int, connection: socket.socket) -> None:
        connection.recv(1 << 16)
        if number:
            connection.sendall(ANSWER.replace(b"200", b"500"))
        connection.close()

    with serving(serve) as port:
        with (
            Connection(port, 10) as connection,
            pytest.raises(ConnectionEndedError, match=r"^GET /a: the connection ended"),
        ):
            connection.stream("/a")
        with (
            Connection(port, 10) as connection,
            pytest.raises(BenchmarkError, match=r"^GET /b: status 500$") as caught,
        ):
            connection.stream("/b")
        assert not isinstance(caught.value, ConnectionEndedError)


def test_a_load_without_any_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "LONGEST_SECONDS", 1)

    def read_only(_: int, connection: socket.socket) -> None:
        while connection.recv(1 << 16):
            pass

    with serving(read_only) as port, pytest.raises(BenchmarkError, match="nothing was answered"):
        AsyncioLoad().requests_per_second(port, [make_request("/")], 1, 0)


@pytest.mark.parametrize("connections", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_load_has_as_many_connections_as_asked_for(connections: int) -> None:
    seen = []

    def serve(number: int, connection: socket.socket) -> None:
        seen.append(number)
        answer_always(connection)

    with serving(serve) as port:
        rate = AsyncioLoad().requests_per_second(port, [make_request("/")], 1, 0, connections)
    assert rate > 0
    assert len(seen) == connections
