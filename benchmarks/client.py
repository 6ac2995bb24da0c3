"""A small HTTP/1.1 client over raw sockets, so that nothing but the server is measured."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httptools

Sink = Callable[[bytes], object]

RECEIVE_BYTES = 1 << 18


class BenchmarkError(Exception):
    """The run cannot go on, or what it measured would be worth nothing."""


def request_bytes(target: str, method: str = "GET", document: bytes = b"") -> bytes:
    """A request (RFC 9112) on a connection that is kept alive; `document` is a JSON body."""
    head = f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    if document:
        head += f"Content-Type: application/json\r\nContent-Length: {len(document)}\r\n"
    return f"{head}\r\n".encode() + document


class AnswerParser:
    """Parses one connection's answers.

    Args:
        sink: is given each piece of body as it arrives.
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

    def add(self, piece: bytes) -> None:
        self.size += len(piece)
        self.sink(piece)

    def finish(self, status: int) -> None:
        self.status = status


class Connection:
    """One blocking connection, kept alive between requests."""

    def __init__(self, port: int, timeout_seconds: float = 120) -> None:
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

    def status(self, request: bytes) -> int:
        """The status of the answer to a request, whatever it is.

        Raises:
            BenchmarkError: the connection ended before the answer.
        """
        return self._exchange(request, len).status

    def stream(self, target: str, sink: Sink = len) -> int:
        """Ask for `target`; the rest as `send`."""
        return self.send(request_bytes(target), sink)

    def answer(self, request: bytes) -> bytes:
        """The whole body of the answer to a request. Raises as `send` does."""
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
                raise BenchmarkError(text)
            parser.feed(received)
        return exchange


def _named(request: bytes) -> str:
    """Method and target."""
    return request.partition(b" HTTP/")[0].decode()
