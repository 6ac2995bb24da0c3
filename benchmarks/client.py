"""A small HTTP/1.1 client over raw sockets, so that nothing but the server is measured."""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httptools

Sink = Callable[[bytes], object]

RECEIVE_BYTES = 1 << 18


class BenchmarkError(Exception):
    """The run cannot go on, or what it measured would be worth nothing."""


class ConnectionEndedError(BenchmarkError):
    """The server closed the connection before its answer was there."""


_NO_HEADERS: Mapping[str, str] = {}


def make_request(
    target: str, method: str = "GET", body: bytes = b"", headers: Mapping[str, str] = _NO_HEADERS
) -> bytes:
    """Return a request (RFC 9112) on a connection that is kept alive; a body is JSON by default."""
    fields = {"Host": "127.0.0.1"}
    if body:
        fields |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    lines = [f"{name}: {value}\r\n" for name, value in {**fields, **headers}.items()]
    return f"{method} {target} HTTP/1.1\r\n{''.join(lines)}\r\n".encode() + body


class AnswerParser:
    """Parses one connection's answers.

    Args:
        sink: is given each body chunk as it arrives.
        on_answer: is called with the status at the end of each answer.
    """

    def __init__(self, sink: Sink, on_answer: Callable[[int], object]) -> None:
        self.on_body = sink
        self._on_answer = on_answer
        self._parser = httptools.HttpResponseParser(self)
        self.feed = self._parser.feed_data

    def on_message_complete(self) -> None:
        self._on_answer(self._parser.get_status_code())


@dataclass(slots=True)
class _Exchange:
    """What becomes known of one answer while it arrives."""

    sink: Sink
    size: int = 0
    status: int = 0

    def add(self, received: bytes) -> None:
        self.size += len(received)
        self.sink(received)

    def finish(self, status: int) -> None:
        self.status = status


class Connection:
    """One blocking connection, kept alive between requests."""

    def __init__(self, port: int, timeout_seconds: float) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def send(self, request: bytes, sink: Sink = len) -> int:
        """Send a request, hand the answer's body to `sink` as it arrives, return its size.

        Raises:
            BenchmarkError: the status is not 200, or the connection ended before the answer.
        """
        exchange = self._exchange(request, sink)
        if exchange.status != 200:
            raise BenchmarkError(f"{_named(request)}: status {exchange.status}")
        return exchange.size

    def exchange(self, request: bytes) -> tuple[int, bytes]:
        """Return status and body of the answer to a request, of any status.

        Raises:
            BenchmarkError: the connection ended before the answer.
        """
        body = bytearray()
        return self._exchange(request, body.extend).status, bytes(body)

    def stream(self, target: str, sink: Sink = len) -> int:
        """Ask for `target`; the rest as `send`."""
        return self.send(make_request(target), sink)

    def answer(self, request: bytes) -> bytes:
        """Return the whole body of the answer to a request. Raises as `send` does."""
        body = bytearray()
        self.send(request, body.extend)
        return bytes(body)

    def _exchange(self, request: bytes, sink: Sink) -> "_Exchange":
        exchange = _Exchange(sink)
        parser = AnswerParser(exchange.add, exchange.finish)
        self._socket.sendall(request)
        while not exchange.status:
            received = self._socket.recv(RECEIVE_BYTES)
            if not received:
                text = f"{_named(request)}: the connection ended before the answer did"
                raise ConnectionEndedError(text)
            parser.feed(received)
        return exchange


def _named(request: bytes) -> str:
    """Return its method and target."""
    return request.partition(b" HTTP/")[0].decode()
