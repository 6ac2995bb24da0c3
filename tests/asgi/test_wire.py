"""Typed handlers over real sockets: streams, clients that leave, and what ends after them."""

import socket
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Annotated
from urllib.parse import urlsplit

import anyio
import msgspec
import pytest

from asgihive.asgi import Depends, Gate, Header, Router
from tests.service.servers import PATIENCE, SERVERS, client, serving

MSGPACK = "application/msgpack"


class Note(msgspec.Struct):
    title: str
    size: int = 0


class Service:
    """A router that notes what happens, and lets the test wait for it."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.closed = threading.Event()
        self.go_on = threading.Event()
        router = Router()

        async def resource() -> AsyncIterator[str]:
            self.log.append("open")
            try:
                yield "resource"
            finally:
                self.log.append("close")
                self.closed.set()

        @router.post("/notes/{n}", status=201)
        async def create(n: int, note: Note, key: Annotated[str, Header()], q: int = 5) -> Note:
            return Note(f"{note.title} {key}", n + q)

        @router.get("/stream")
        def stream(resource: str = Depends(resource)) -> Iterator[str]:
            yield "first "
            assert self.go_on.wait(PATIENCE)
            self.log.append("streamed")
            yield resource

        @router.get("/endless")
        async def endless(resource: str = Depends(resource)) -> AsyncIterator[bytes]:
            try:
                yield b"begun"
                await anyio.sleep_forever()
            finally:
                self.log.append("stream closed")

        self.app = Gate(router)


@pytest.mark.parametrize("server", SERVERS)
def test_a_typed_handler_answers(server: str) -> None:
    with serving(Service().app, server) as url, client(url) as http:
        got = http.post("/notes/3?q=4", json={"title": "a"}, headers={"key": "k"})
        assert (got.status_code, got.json()) == (201, {"title": "a k", "size": 7})
        packed = http.post(
            "/notes/3",
            content=msgspec.msgpack.encode(Note("b")),
            headers={"key": "k", "content-type": MSGPACK, "accept": f"x/y, {MSGPACK}"},
        )
        assert msgspec.msgpack.decode(packed.content, type=Note) == Note("b k", 8)
        wrong = http.post("/notes/x", content=b"[" * (2 << 20), headers={"key": "k"})
        assert wrong.status_code == 413


@pytest.mark.parametrize("server", SERVERS)
def test_items_are_sent_when_they_come_and_cleanup_is_last(server: str) -> None:
    service = Service()
    with (
        serving(service.app, server) as url,
        client(url) as http,
        http.stream("GET", "/stream") as response,
    ):
        pieces = response.iter_text()
        assert next(pieces) == "first "
        assert service.log == ["open"]
        service.go_on.set()
        assert "".join(pieces) == "resource"
        assert service.closed.wait(PATIENCE)
    assert service.log == ["open", "streamed", "close"]


@pytest.mark.parametrize("server", SERVERS)
def test_a_client_that_leaves_ends_the_stream_and_its_dependencies(server: str) -> None:
    service = Service()
    with serving(service.app, server) as url:
        address = urlsplit(url)
        with socket.create_connection((str(address.hostname), address.port or 0)) as connection:
            connection.sendall(b"GET /endless HTTP/1.1\r\nhost: test\r\n\r\n")
            received = b""
            while b"begun" not in received:
                received += connection.recv(4096)
        assert service.closed.wait(PATIENCE)
    assert service.log == ["open", "stream closed", "close"]
