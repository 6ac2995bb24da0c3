"""Drives an ASGI application by hand: what it is given, and every message it sends."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import anyio
import orjson
from starlette.types import ASGIApp, Message, Scope

from asgihive.asgi import Gate, Router


@dataclass
class Exchange:
    """One connection: the messages sent so far, and the state of the client."""

    scope: Scope
    sent: list[Message] = field(default_factory=list)
    incoming: list[Message] = field(default_factory=list)
    gone: anyio.Event = field(default_factory=anyio.Event)

    async def receive(self) -> Message:
        if self.incoming:
            return self.incoming.pop(0)
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await anyio.lowlevel.checkpoint()
        self.sent.append(message)

    @property
    def types(self) -> list[str]:
        return [each["type"] for each in self.sent]

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode("latin-1") for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(bytes(each.get("body", b"")) for each in self.sent[1:])

    @property
    def complete(self) -> bool:
        return len(self.sent) > 1 and not self.sent[-1].get("more_body", False)

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def message(self) -> str:
        return str(orjson.loads(self.body)["message"])


def http(path: str = "/", method: str = "GET", *, body: bytes = b"", **scope: Any) -> Exchange:
    """An exchange over an http scope; the request's body comes in one message.

    What follows a question mark in the path is its query.
    """
    path, _, query = path.partition("?")
    return Exchange(
        {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "root_path": "",
            "query_string": query.encode(),
            "headers": [],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            **scope,
        },
        incoming=[{"type": "http.request", "body": body, "more_body": False}],
    )


def websocket(path: str = "/", extensions: Iterable[str] = (), **scope: Any) -> Exchange:
    """An exchange over a websocket scope that waits for its handshake."""
    return Exchange(
        {
            "type": "websocket",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": path,
            "root_path": "",
            "query_string": b"",
            "headers": [],
            "subprotocols": [],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "extensions": {name: {} for name in extensions},
            **scope,
        },
        incoming=[{"type": "websocket.connect"}],
    )


async def run(app: ASGIApp, exchange: Exchange) -> Exchange:
    """Let `app` answer, and return the exchange."""
    await app(exchange.scope, exchange.receive, exchange.send)
    return exchange


async def answer(router: Router, path: str, method: str = "GET", **scope: Any) -> Exchange:
    """What a router answers behind an error boundary."""
    return await run(Gate(router), http(path, method, **scope))
