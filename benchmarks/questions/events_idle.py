"""Many who listen to one file that does not change, and then does."""

import os
import selectors
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import cast

import h5py
import numpy as np

from benchmarks.client import BenchmarkError, make_request
from benchmarks.data import DataFolder
from benchmarks.question import Figure, Target, Turn
from benchmarks.servers import SUBJECT, Launch, Server, on_uvicorn

LISTENERS = 1_000
IDLE_SECONDS = 30
"""Of a turn: two heartbeats for each listener."""

_FILE = "listened/0.h5"
_LONGEST_SECONDS = 30
_CPU, _TOLD = "CPU, nothing changes", "all told of a change"


class EventsIdle:
    """Clients that are connected; what the server uses is its process's own processor time."""

    name = "events_idle"
    asks = f"{LISTENERS:,} clients listen to one file by `/events`, for {IDLE_SECONDS} s a turn"
    figures = (
        Figure(name=_CPU, unit="% of a core", better="lower", target=Target(below=2)),
        Figure(name=_TOLD, unit="s", better="lower"),
    )
    servers: Mapping[str, Launch] = {SUBJECT: on_uvicorn(SUBJECT)}
    environment: Mapping[str, str] = {}
    heavy = True

    def prepare(self, data: DataFolder) -> None:
        data.require("listened", _write_file)
        self._file = data.root / _FILE

    def verify(self, servers: Sequence[Server]) -> None:
        """Do nothing: each measurement waits until all clients were told of the change."""

    def measure(
        self,
        server: Server,
        turn: Turn,  # noqa: ARG002  # as long as heartbeats need it
    ) -> Mapping[str, float]:
        with _listening(server) as clients:
            _wait_for(clients, b"\r\n\r\n", server)
            began, used = time.perf_counter(), _read_cpu_seconds(server)
            time.sleep(IDLE_SECONDS)
            share = (_read_cpu_seconds(server) - used) / (time.perf_counter() - began) * 100
            _drain(clients)
            began = time.perf_counter()
            os.utime(self._file)
            _wait_for(clients, b"event: changed", server)
            return {_CPU: share, _TOLD: time.perf_counter() - began}


@contextmanager
def _listening(server: Server) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        clients = []
        for _ in range(LISTENERS):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            client.sendall(make_request(f"/events?file={_FILE}&path=/values"))
            client.setblocking(False)
            clients.append(client)
        yield clients


def _wait_for(clients: Sequence[socket.socket], word: bytes, server: Server) -> None:
    """Read until each client has got a word.

    Raises:
        BenchmarkError: one has not within 30 s, or is not answered with 200.
    """
    end = time.monotonic() + _LONGEST_SECONDS
    with selectors.DefaultSelector() as waiting:
        for client in clients:
            waiting.register(client, selectors.EVENT_READ, bytearray())
        while waiting.get_map():
            for key, _ in waiting.select(1):
                client, received = cast("socket.socket", key.fileobj), key.data
                part = client.recv(1 << 16)
                received += part
                if not part or received.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5")):
                    raise BenchmarkError(f"{server.name}: {bytes(received[:200])!r}")
                if word in received:
                    waiting.unregister(client)
            if time.monotonic() > end:
                raise BenchmarkError(f"{server.name}: {len(waiting.get_map())} got no {word!r}")


def _drain(clients: Sequence[socket.socket]) -> None:
    for client in clients:
        try:
            while client.recv(1 << 16):
                pass
        except BlockingIOError:
            continue


def _read_cpu_seconds(server: Server) -> float:
    """Return the processor time of a process, in user and kernel mode (proc_pid_stat(5))."""
    fields = Path(f"/proc/{server.process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _write_file(folder: Path, random: np.random.Generator) -> None:
    with h5py.File(folder / "0.h5", "w") as file:
        file["values"] = random.integers(1 << 16, size=(16, 16), dtype=np.uint16)


QUESTION = EventsIdle()
