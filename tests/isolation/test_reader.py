"""What a reader process takes from the front, which alone can connect to it, and gives it."""

import logging
import socket
from types import SimpleNamespace
from typing import Any

import h11
import pytest
from starlette.types import Receive, Scope, Send

from asgihive.errors import Overloaded
from asgihive.isolation.front import Front
from asgihive.isolation.reader import ReaderServer
from asgihive.service import H5App
from asgihive.settings import H5Settings
from tests.asgi.exchange import http, run
from tests.isolation.isolated import ask, limited

pytestmark = pytest.mark.anyio

FORGED = [(b"x-forwarded-for", b"192.0.2.1"), (b"x-forwarded-proto", b"https")]


class Service:
    """Stands in for the service of a reader process; notes which client asks."""

    store = None
    settings = H5Settings()

    def __init__(self) -> None:
        self.clients: list[Any] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.clients.append((scope["client"], scope["scheme"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})


class Asked:
    """Stands in for the reader processes, the one that serves, and a connection to it."""

    timeout_seconds = 1.0
    records: tuple[()] = ()

    def __init__(self) -> None:
        self.active = self
        self.socket = SimpleNamespace(close=bool)
        self.waiting: dict[Any, None] = {}
        self.abandoned: list[Any] = []
        self.headers: list[tuple[bytes, bytes]] = []

    def connect(self) -> "Asked":
        return self

    async def send(self, request: h11.Request) -> None:
        self.headers = list(request.headers)
        raise Overloaded("it is a stand-in")


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7", "testclient"])
async def test_clients_take_turns_by_the_address_that_the_front_says(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # uvicorn silences this logger for the whole process; it speaks again after the test.
    monkeypatch.setattr(logging.getLogger("uvicorn.access"), "propagate", True)
    asked, service = Asked(), Service()
    request = http("/meta", headers=FORGED)
    request.scope["client"] = (address, 4711)
    with pytest.raises(Overloaded):
        await run(Front(asked), request)  # type: ignore[arg-type]  # all that it needs of them
    control, other = socket.socketpair()
    with control, other:
        server = ReaderServer(service, control)  # type: ignore[arg-type]  # as above
        server.config.load()
        handed_on = http("/meta", headers=asked.headers)
        await run(server.config.loaded_app, handed_on)
    assert service.clients == [((address, 0), "http")]


@limited(server_timing=False)
async def test_times_are_told_to_the_front_only(app: H5App) -> None:
    answer = await ask(app, "/meta")
    assert answer.status == 200
    assert "server-timing" not in answer.headers
