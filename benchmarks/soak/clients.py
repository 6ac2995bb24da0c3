"""A client: keeps a connection, asks one thing after the other, and tells what broke."""

import gzip
import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson

from benchmarks.soak.files import Folder

# A worker that is killed takes connections with it that were made a moment before.
_KILL_SECONDS = 0.5

# What a client waits for at most.
TIMEOUT_SECONDS = 60.0

# What a broken connection looks like.
BROKEN = (http.client.HTTPException, OSError)


class Wrong(Exception):
    """An answer that must not be."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, and between which times it was waited for."""

    status: int
    headers: dict[str, str]
    body: bytes
    began: float
    ended: float

    @property
    def json(self) -> Any:
        """Return the body; compressed as it may be."""
        body = gzip.decompress(self.body) if "content-encoding" in self.headers else self.body
        return orjson.loads(body)

    @property
    def message(self) -> str:
        """Return that of an error. Raises Wrong: it is none of the contract."""
        try:
            return str(orjson.loads(self.body)["message"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise Wrong(f"{self.status} without a message: {self.body[:200]!r}") from None


@dataclass(slots=True)
class Tally:
    """What became of all requests of one kind."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Record:
    """What all clients saw, and when workers were killed."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    received_bytes: int = 0
    kills: list[float] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: str, outcome: str, seconds: float, size: int = 0) -> None:
        """Count one request of a kind."""
        with self._lock:
            tally = self.tallies.setdefault(kind, Tally())
            tally.outcomes[outcome] += 1
            tally.seconds.append(seconds)
            self.received_bytes += size

    def blame(self, kind: str, text: str) -> None:
        """Note that an answer was wrong."""
        with self._lock:
            self.wrong.append(f"{kind}: {text}")

    def killed(self, began: float, ended: float) -> bool:
        """Return whether a worker was killed in a time."""
        return any(began - _KILL_SECONDS <= each <= ended + _KILL_SECONDS for each in self.kills)


class Client:
    """One connection at a time to a port of 127.0.0.1."""

    def __init__(self, port: int, folder: Folder, record: Record, seed: int) -> None:
        self.port = port
        self.folder = folder
        self.record = record
        self.chance = random.Random(seed)
        self.tags: dict[str, tuple[str, int]] = {}
        """By target, the last entity-tag and the version that it came with."""
        self._connection: http.client.HTTPConnection | None = None
        self._connected = 0.0

    def ask(
        self,
        target: str,
        headers: dict[str, str] | None = None,
        *,
        method: str = "GET",
        body: bytes | None = None,
    ) -> Answer:
        """Return the answer. Raises one of BROKEN."""
        began = time.monotonic()
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self.port, TIMEOUT_SECONDS)
            self._connected = began
        try:
            self._connection.request(method, target, body, headers or {})
            response = self._connection.getresponse()
            received = response.read()
        except BaseException:
            self.close()
            raise
        given = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, given, received, began, time.monotonic())

    def close(self) -> None:
        """End the connection; the next request makes another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def was_killed(self, ended: float) -> bool:
        """Return whether the worker at the other end may have been killed."""
        return self.record.killed(self._connected, ended)

    def leave_in_the_middle(self, target: str, most_bytes: int, pause: float) -> None:
        """Ask, take a part of the answer, slowly or not, and be gone."""
        address = ("127.0.0.1", self.port)
        with socket.create_connection(address, TIMEOUT_SECONDS) as connection:
            connection.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            taken = 0
            while taken < most_bytes:
                piece = connection.recv(1 << 16)
                if not piece:
                    break
                taken += len(piece)
                time.sleep(pause)
            if self.chance.random() < 0.5:
                # Not even a goodbye: the next packet is answered by a reset (socket(7)).
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
