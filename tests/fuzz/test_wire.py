"""What is asked over the wire is judged as what is asked in this process."""

from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from asgihive.errors import DamagedData
from tests.asgi.exchange import Exchange, http
from tests.fuzz.judging import complaint
from tests.fuzz.wire import Wire
from tests.service import servers

pytestmark = pytest.mark.anyio

HEADERS = [(b"Content-Type", b"application/json")]


class Answers:
    """An application that answers with its messages, and then with what it fails of."""

    def __init__(self, *messages: Any, error: Exception | None = None) -> None:
        self.asked: list[tuple[str, bytes]] = []
        self._messages = messages
        self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        self.asked.append((f"{scope['method']} {scope['path']}", scope["query_string"]))
        self.asked.append(("body", (await receive())["body"]))
        for each in self._messages:
            await send(each)
        if self._error is not None:
            raise self._error


def start(status: int) -> Any:
    return {"type": "http.response.start", "status": status, "headers": HEADERS}


def body(content: bytes, *, more: bool = False) -> Any:
    return {"type": "http.response.body", "body": content, "more_body": more}


async def judged(app: Answers, exchanges: list[Exchange]) -> tuple[list[str | None], int]:
    """What is wrong with each answer of a server, and how many connections they took."""
    found = []
    with servers.serving(app, "uvicorn-h11") as url:
        wire = Wire(url, servers.PATIENCE)
        async with wire.running():
            for each in exchanges:
                error = None
                try:
                    await wire(each.scope, each.receive, each.send)
                except Exception as raised:  # noqa: BLE001  # whatever it is, it is judged
                    error = raised
                found.append(complaint(each, "json", error))
    return found, len(wire.connections)


async def test_answers_are_passed_on_over_one_connection() -> None:
    app = Answers(start(200), body(b"[1", more=True), body(b"]"))
    exchanges = [http("/meta?file=%ff%0a"), http("/batch", "POST", body=b"[]")]
    assert await judged(app, exchanges) == ([None, None], 1)
    assert [each.body for each in exchanges] == [b"[1]", b"[1]"]
    assert app.asked == [
        *(("GET /meta", b"file=%ff%0a"), ("body", b"")),
        *(("POST /batch", b""), ("body", b"[]")),
    ]


async def test_only_an_answer_that_has_begun_may_break_off() -> None:
    error = DamagedData("x.h5", "/x", "it is damaged")
    broken = Answers(start(200), body(b"[1", more=True), error=error)
    assert await judged(broken, [http("/meta"), http("/meta")]) == ([None, None], 2)
    [found], _ = await judged(Answers(error=error), [http("/meta")])
    assert found is not None
    assert "an error is text/plain" in found
