"""What a reader process takes from the front, which alone can connect to it."""

from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from asgihive.context import measured, request_context
from asgihive.isolation.process import CLIENT, MEASURED, TIMINGS
from asgihive.isolation.reader import ReaderApp
from tests.asgi.exchange import http, run

pytestmark = pytest.mark.anyio


class Service:
    """Stands in for the service; notes which client asks."""

    def __init__(self) -> None:
        self.clients: list[Any] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.clients.append(scope["client"])
        with measured("read"):
            is_measured = request_context.get().timings is not None
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"01"[is_measured:][:1]})


async def test_clients_take_turns_by_the_address_that_the_front_says() -> None:
    service = Service()
    app = ReaderApp(service)  # type: ignore[arg-type]  # all that it needs of a service
    await run(app, http("/meta", headers=[(CLIENT, b"192.0.2.7")]))
    assert service.clients == [("192.0.2.7", 0)]


async def test_times_are_told_where_the_front_asks() -> None:
    app = ReaderApp(Service())  # type: ignore[arg-type]  # all that it needs of a service
    answer = await run(app, http("/meta"))
    assert (answer.body, TIMINGS.decode() in answer.headers) == (b"0", False)
    answer = await run(app, http("/meta", headers=[(MEASURED, b"1")]))
    assert answer.body == b"1"
    assert answer.headers[TIMINGS.decode()].startswith("read=0.")
