"""Typed handlers over real sockets: streams, clients that leave, and what ends after them."""

import socket
import threading
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Annotated
from urllib.parse import urlsplit

import anyio
import msgspec
import pytest
from starlette.responses import Response

from asgihive.asgi import Depends, Form, Gate, Header, HTTPException, Router, UploadFile
from tests.service.servers import PATIENCE, SERVERS, client, serving

MSGPACK = "application/msgpack"


class Note(msgspec.Struct):
    title: str
    size: int = 0


def _add_writers(router: Router) -> None:
    """Let a router store names and take files."""

    async def transaction() -> AsyncIterator[list[str]]:
        stored: list[str] = []
        yield stored
        if "twice" in stored:
            raise HTTPException(409, "It is there already")

    @router.post("/store/{name}", status=201)
    async def store(
        name: str, stored: Annotated[list[str], Depends(transaction, scope="function")]
    ) -> dict[str, str]:
        stored.append(name)
        return {"stored": name}

    @router.post("/upload", max_form_bytes=4 << 20)
    async def upload(
        title: Annotated[str, Form()], files: list[UploadFile], response: Response
    ) -> list[int]:
        response.headers["x-title"] = title
        digests = []
        for file in files:
            digest = 0
            while block := await file.read(1 << 16):
                digest = zlib.crc32(block, digest)
            digests.append(digest)
        return digests


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

        _add_writers(router)
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
def test_a_commit_that_fails_is_the_answer(server: str) -> None:
    with serving(Service().app, server) as url, client(url) as http:
        assert http.post("/store/once").status_code == 201
        refused = http.post("/store/twice")
        assert (refused.status_code, refused.json()["message"]) == (409, "It is there already")


@pytest.mark.parametrize("server", SERVERS)
def test_files_are_uploaded_within_their_bounds(server: str) -> None:
    small, large = b"small", bytes(range(256)) * 8192  # the second one goes to disk
    parts = [("files", ("a", small)), ("files", ("b", large))]
    with serving(Service().app, server) as url, client(url) as http:
        got = http.post("/upload", data={"title": "two"}, files=parts)
        assert got.json() == [zlib.crc32(small), zlib.crc32(large)]
        assert got.headers["x-title"] == "two"
        too_many = http.post("/upload", data={"title": "a"}, files=[*parts, parts[1], parts[1]])
        assert too_many.status_code == 413
        # A server may close the connection of a request that it has not read to its end.
        with client(url) as another:
            assert another.post("/store/once").status_code == 201


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
