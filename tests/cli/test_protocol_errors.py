"""What is no HTTP is refused in JSON, by uvicorn's own protocols with one method replaced."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from asgihive.cli.server import make_protocol
from tests.cli.processes import PATIENCE, running

PROTOCOLS: list[type[asyncio.Protocol]] = [HttpToolsProtocol, H11Protocol]
HOST = b"Host: localhost\r\n"
# What is sent, a word of the message, and the protocols that refuse it.
REFUSED: dict[str, tuple[bytes, str, list[type[asyncio.Protocol]]]] = {
    "not ASCII": ("GET /meta?file=é HTTP/1.1\r\n".encode() + HOST, "%C3%A9", PROTOCOLS),
    "a blank": (b"GET /meta?file=a b HTTP/1.1\r\n" + HOST, "", PROTOCOLS),
    "NUL": (b"GET /a\x00b HTTP/1.1\r\n" + HOST, "percent-encoded", PROTOCOLS),
    "no request line": (b"garbage\r\n" + HOST, "", PROTOCOLS),
    "no field": (b"GET / HTTP/1.1\r\n" + HOST + b"none\r\n", "header", PROTOCOLS),
    "two lengths": (
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n",
        "content-length",
        PROTOCOLS,
    ),
    "a long URL": (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n" + HOST, "long", [HttpToolsProtocol]),
    "no authority": (b"CONNECT : HTTP/1.1\r\n" + HOST, "url", [HttpToolsProtocol]),
    "no host": (b"GET / HTTP/1.1\r\n", "host", [H11Protocol]),
    "long fields": (b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000, "too long", [H11Protocol]),
    "an unknown version": (b"GET / HTTP/7.3\r\n" + HOST, "version", [HttpToolsProtocol]),
}


@contextmanager
def serving(protocol: type[asyncio.Protocol], app: Any) -> Iterator[int]:
    """The port of `app`, served through `protocol` until the end of the context."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            app, http=protocol, ws="none", lifespan="off", loop="asyncio", log_config=None
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive()


def answer(port: int, raw: bytes) -> bytes:
    """Everything that comes until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(raw)
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    received = b""
    try:
        while more := connection.recv(1 << 16):
            received += more
    except ConnectionResetError:  # what it has not read of a long request is lost, too
        pass
    return received


def parsed(received: bytes) -> tuple[int, Any, Any]:
    """Status, fields and JSON of a response."""
    head, _, body = received.partition(b"\r\n\r\n")
    line, _, fields = head.partition(b"\r\n")
    headers = BytesHeaderParser().parsebytes(fields)
    assert int(headers["content-length"]) == len(body)
    return int(line.split()[1]), headers, json.loads(body)


async def ok(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_refusals_are_json(protocol: type[asyncio.Protocol]) -> None:
    with serving(make_protocol(protocol), ok) as port:
        for raw, words, refusing in REFUSED.values():
            if protocol not in refusing:
                continue
            status, headers, document = parsed(answer(port, raw + b"\r\n"))
            assert 400 <= status < 500
            assert headers["content-type"] == "application/json"
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["connection"] == "close"
            assert headers["date"]
            assert document.keys() == {"message"}
            assert words in document["message"]
            # Nothing of what was sent comes back.
            assert "none" not in document["message"]


def test_headers_that_are_too_large_have_a_status_of_their_own() -> None:
    with serving(make_protocol(H11Protocol), ok) as port:
        assert parsed(answer(port, REFUSED["long fields"][0]))[0] == 431


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_refusal_becomes_part_of_a_response_that_has_begun(
    protocol: type[asyncio.Protocol],
) -> None:
    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    with (
        serving(make_protocol(protocol), endless) as port,
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection,
    ):
        head = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head)
        received = b""
        while b"begun" not in received:
            received += connection.recv(1 << 16)
        connection.sendall(b"no size\r\n\r\n")
        received += read_all(connection)
    assert received.count(b"HTTP/1.1") == 1


def without_the_hook() -> type[asyncio.Protocol]:
    class Renamed(asyncio.Protocol):
        pass

    return Renamed


def with_another_signature() -> type[asyncio.Protocol]:
    class Changed(HttpToolsProtocol):
        def send_400_response(self, msg: str, status: int = 400) -> None:
            super().send_400_response(msg)

    return Changed


@pytest.mark.parametrize("make", [without_the_hook, with_another_signature])
def test_another_uvicorn_is_left_as_it_is(make: Callable[[], type[asyncio.Protocol]]) -> None:
    protocol = make()
    assert make_protocol(protocol) is protocol


def test_and_answers_in_plain_text() -> None:
    with serving(make_protocol(with_another_signature()), ok) as port:
        received = answer(port, b"garbage\r\n\r\n")
        assert received.startswith(b"HTTP/1.1 400 ")
        assert received.endswith(b"Invalid HTTP request received.")
        well = b"GET / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
        assert answer(port, well).endswith(b"ok\r\n0\r\n\r\n")


def test_a_served_directory_answers_so(directory: Path) -> None:
    with running("serve", str(directory), "--port", "0") as server:
        port = int(server.url.rstrip("/").rpartition(":")[2])
        raw = "GET /meta?file=é.h5 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        status, _, document = parsed(answer(port, raw))
        assert status == 400
        assert "%C3%A9" in document["message"]
        # A handshake for a websocket is a request like any other.
        raw = b"GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\n"
        raw += b"Upgrade: websocket\r\n\r\n"
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
            connection.sendall(raw)
            received = b""
            while b'{"message":"No such route: /x"}' not in received:
                more = connection.recv(1 << 16)
                assert more
                received += more
        assert received.startswith(b"HTTP/1.1 404 ")
