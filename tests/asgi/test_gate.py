"""What protects every hive: framing, and the time that a client may take."""

from typing import Any

import anyio
import pytest
from starlette.types import Receive, Scope, Send

from asgihive import Hive, Router
from asgihive.asgi.gate import Gate
from asgihive.asgi.responses import ClientStalled
from asgihive.hive import Component
from tests.asgi.exchange import http, run

pytestmark = pytest.mark.anyio

CHUNK = b"x" * (1 << 16)


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def make_hive(send_timeout_seconds: float = 60.0) -> Hive:
    router = Router()
    router.add("/large", answer)
    endpoint = Component(
        kind="endpoint", container="x", name="y", router=router, needs_lifespan=False
    )
    return Hive(endpoints=[endpoint], entry_points=False, send_timeout_seconds=send_timeout_seconds)


async def test_two_lengths_are_refused_by_every_hive() -> None:
    lengths = [(b"transfer-encoding", b"chunked"), (b"content-length", b"3")]
    for headers in (lengths, lengths[::-1]):
        exchange = await run(make_hive(), http("/x/y/large", headers=headers))
        assert exchange.status == 400
        assert exchange.headers["connection"] == "close"
        assert "exclude each other" in exchange.message
    for header in lengths:
        assert (await run(make_hive(), http("/x/y/large", headers=[header]))).status == 200


async def test_a_client_that_takes_nothing_is_dropped() -> None:
    exchange = http("/x/y/large")

    async def send(message: Any) -> None:
        if message.get("more_body"):
            await anyio.sleep_forever()
        await exchange.send(message)

    with pytest.raises(ClientStalled), anyio.fail_after(10):
        await make_hive(0.01)(exchange.scope, exchange.receive, send)


async def test_a_lifespan_passes() -> None:
    seen: list[Scope] = []

    async def note(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    exchange = http("/")
    exchange.scope["type"] = "lifespan"
    await Gate(note)(exchange.scope, exchange.receive, exchange.send)
    assert seen == [exchange.scope]
