"""The hooks around requests whose clients leave, under real servers."""

import asyncio
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Annotated
from urllib.parse import urlsplit

import anyio
import anyio.lowlevel
import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.websockets import WebSocket

from asgihive.asgi import Body, Router
from asgihive.hive import Component, CornerstoneHooks, Hive, HiveConfig, ModuleHooks
from tests.asgi.exchange import http
from tests.service import servers

BLOCK = b"x" * (1 << 16)
CONFIG = HiveConfig(
    cornerstone_package_path=(),
    hide_endpoint_container_in_api=True,
    hide_endpoint_in_api=True,
)


class Service:
    """A hive of two cornerstones that notes its calls, and lets the test wait for the last."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.has_begun = threading.Event()
        self.is_over = threading.Event()
        first = _cornerstone("first", _first_hooks(self))
        second = _cornerstone("second", _second_hooks(self))
        endpoint = Component(kind="endpoint", container="e", name="x", router=_router(self))
        self.hive = Hive(
            CONFIG, cornerstones=[first, second], endpoints=[endpoint], entry_points=False
        )

    def await_end(self) -> list[str]:
        """Every call, when the last hook after the request has run."""
        assert self.is_over.wait(servers.PATIENCE)
        return self.calls


def _cornerstone(name: str, hooks: type[CornerstoneHooks]) -> Component:
    module = ModuleHooks(hooks=(hooks,), websockets=True)
    return Component(kind="cornerstone", container="c", name=name, modules=(module,))


def _first_hooks(service: Service) -> type[CornerstoneHooks]:
    class First(CornerstoneHooks):
        """On the event loop."""

        async def pre_endpoint_call(self) -> None:
            service.calls.append("first pre")

        async def post_endpoint_call(self) -> None:
            for _ in range(5):  # cancelled here, if it were not shielded
                await anyio.lowlevel.checkpoint()
            service.calls.append(f"first post {self.status} {type(self.error).__name__}")
            service.is_over.set()

    return First


def _second_hooks(service: Service) -> type[CornerstoneHooks]:
    class Second(CornerstoneHooks):
        """In worker threads."""

        def pre_endpoint_call(self) -> None:
            service.calls.append("second pre")

        def post_endpoint_call(self) -> None:
            service.calls.append(f"second post {self.status} {type(self.error).__name__}")

    return Second


def _router(service: Service) -> Router:
    router = Router()

    async def blocks() -> AsyncIterator[bytes]:
        try:
            yield BLOCK
            await anyio.sleep_forever()
        finally:
            service.calls.append("stream closed")

    @router.get("/stream")
    async def stream() -> AsyncIterator[bytes]:
        return blocks()

    @router.get("/starlette")
    async def starlette_stream(request: Request) -> StreamingResponse:
        return StreamingResponse(blocks())

    @router.get("/waiting")
    async def wait(request: Request) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        service.calls.append("is told")
        raise ClientDisconnect

    @router.get("/forever")
    async def forever() -> None:
        service.calls.append("begun")
        service.has_begun.set()
        await anyio.sleep_forever()

    @router.post("/body")
    async def body(content: Annotated[bytes, Body()]) -> str:
        return "never"

    @router.websocket("/echo")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await websocket.send_text(await websocket.receive_text())

    return router


BEFORE = ["first pre", "second pre"]

# From Python 3.12.1 on hypercorn waits on asyncio without end (pgjones/hypercorn#308).
CANCELLING_SERVERS = [
    each for each in servers.SERVERS if each != "hypercorn-asyncio" or sys.version_info < (3, 12, 1)
]


@contextmanager
def connected(url: str, request: str, *headers: str) -> Iterator[socket.socket]:
    """A client that has sent a request and leaves at the end of the context."""
    address = urlsplit(url)
    with socket.create_connection((str(address.hostname), address.port or 0)) as client:
        client.settimeout(servers.PATIENCE)
        lines = (f"{request} HTTP/1.1", f"Host: {address.netloc}", *headers, "", "")
        client.sendall("\r\n".join(lines).encode())
        yield client


def received(client: socket.socket, until: bytes) -> bytes:
    """Everything up to some bytes of the answer, and perhaps beyond."""
    found = b""
    while until not in found:
        block = client.recv(1 << 16)
        assert block, f"the server closed the connection after {found!r}"
        found += block
    return found


@pytest.fixture
def service() -> Service:
    return Service()


def after(seen: str) -> list[str]:
    """Return the hooks after the request; each has seen the same status and error."""
    return [f"second post {seen}", f"first post {seen}"]


@pytest.mark.parametrize("path", ["/stream", "/starlette"])
@pytest.mark.parametrize("server", servers.SERVERS)
def test_a_client_that_leaves_in_the_middle_of_a_stream(
    service: Service, server: str, path: str
) -> None:
    with servers.serving(service.hive, server) as url:
        with connected(url, f"GET {path}") as client:
            assert b" 200 " in received(client, BLOCK[:100])
        calls = service.await_end()
    assert calls == [*BEFORE, "stream closed", *after("200 NoneType")]


@pytest.mark.parametrize("server", servers.SERVERS)
def test_a_client_that_leaves_before_the_answer(service: Service, server: str) -> None:
    with servers.serving(service.hive, server) as url:
        with connected(url, "GET /waiting"):
            pass
        calls = service.await_end()
    assert calls == [*BEFORE, "is told", *after("None ClientDisconnect")]


@pytest.mark.parametrize("server", servers.SERVERS)
def test_a_client_that_leaves_in_the_middle_of_its_body(service: Service, server: str) -> None:
    with servers.serving(service.hive, server) as url:
        with connected(url, "POST /body", "Content-Length: 10") as client:
            client.sendall(b"short")
        calls = service.await_end()
    assert calls == [*BEFORE, *after("None ClientDisconnect")]


@pytest.mark.parametrize("server", servers.SERVERS)
def test_a_websocket_that_its_client_leaves(service: Service, server: str) -> None:
    handshake = (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",  # of RFC 6455 §1.3
    )
    with servers.serving(service.hive, server) as url:
        with connected(url, "GET /echo", *handshake) as client:
            assert b" 101 " in received(client, b"\r\n\r\n")
            # RFC 6455 §5.2: a final text frame of five bytes, masked by zeros.
            client.sendall(b"\x81\x85\0\0\0\0hello")
            received(client, b"hello")
        calls = service.await_end()
    assert calls == [*BEFORE, *after("101 WebSocketDisconnect")]


@pytest.mark.parametrize("server", CANCELLING_SERVERS)
def test_a_request_that_its_server_cancels(service: Service, server: str) -> None:
    """At shutdown, since the client is patient and the handler never ends."""
    with servers.serving(service.hive, server) as url:
        address = urlsplit(url)
        client = socket.create_connection((str(address.hostname), address.port or 0))
        client.sendall(b"GET /forever HTTP/1.1\r\nHost: test\r\n\r\n")
        assert service.has_begun.wait(servers.PATIENCE)
    with client:
        calls = service.await_end()
    error = "Cancelled" if server.endswith("trio") else "CancelledError"
    assert calls == [*BEFORE, "begun", *after(f"None {error}")]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_a_task_that_is_cancelled_once_more_during_its_hooks(anyio_backend: str) -> None:
    """As `asyncio.run` does at the end: no shield keeps that off, and the hooks left still run."""
    done: list[str] = []
    waiting = asyncio.Event()

    class First(CornerstoneHooks):
        async def post_endpoint_call(self) -> None:
            await anyio.lowlevel.checkpoint()
            done.append("first")

    class Second(CornerstoneHooks):
        async def post_endpoint_call(self) -> None:
            waiting.set()
            await anyio.sleep_forever()

    cornerstones = [
        Component(
            kind="cornerstone", container="c", name=name, modules=(ModuleHooks(hooks=(hooks,)),)
        )
        for name, hooks in (("a", First), ("b", Second))
    ]
    hive = Hive(
        HiveConfig(cornerstone_package_path=()),
        cornerstones=cornerstones,
        entry_points=False,
        docs=False,
    )
    begun = asyncio.Event()

    @hive.router.get("/")
    async def forever() -> None:
        begun.set()
        await anyio.sleep_forever()

    exchange = http("/")
    async with hive.running():
        request = asyncio.create_task(hive(exchange.scope, exchange.receive, exchange.send))
        await begun.wait()
        request.cancel()
        await waiting.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
    assert done == ["first"]
