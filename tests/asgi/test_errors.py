"""The boundary: which exception gives which answer, and what it leaves alone."""

import logging
from typing import Any

import pytest
from fastapi import HTTPException as FastAPIHTTPException
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.exceptions import WebSocketException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from asgihive.asgi import (
    BufferedResponse,
    Gate,
    HTTPException,
    Router,
    StreamedResponse,
    answer_error,
    closing,
)
from tests.asgi.exchange import Exchange, http, run, websocket

pytestmark = pytest.mark.anyio


class Missing(Exception): ...


class NearlyMissing(Missing): ...


class Busy(Exception): ...


STATUSES: dict[type[Exception], int] = {Missing: 404, Busy: 503, LookupError: 422}


def boundary(error: Exception, before: tuple[dict[str, Any], ...] = ()) -> Gate:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in before:
            await send(message)
        raise error

    return Gate(app, STATUSES)


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (HTTPException(409, "Taken"), 409, "Taken"),
        (StarletteHTTPException(418), 418, "I'm a Teapot"),
        (FastAPIHTTPException(409, {"a": 1}), 409, "Conflict"),
        (Missing("gone"), 404, "gone"),
        (NearlyMissing("nearly"), 404, "nearly"),
        (KeyError("key"), 422, "'key'"),
        (Busy("\udcff"), 503, "?"),
        (ExceptionGroup("tasks", [ExceptionGroup("more", [Missing("one")])]), 404, "one"),
    ],
)
async def test_known_errors(
    error: Exception, status: int, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await run(boundary(error), http())
    assert (answer.status, answer.message) == (status, message)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.headers.get("retry-after") == ("1" if status == 503 else None)
    assert not caplog.records


@pytest.mark.parametrize(
    "error", [ValueError("secret"), ExceptionGroup("two", [Missing("a"), ValueError("secret")])]
)
async def test_unknown_errors_are_logged_and_tell_nothing(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        answer = await run(boundary(error), http("/a\nb"))
    assert (answer.status, answer.body) == (500, b'{"message":"Internal server error"}')
    (record,) = caplog.records
    assert record.exc_info
    assert record.exc_info[1] is error
    assert record.getMessage() == r"Unexpected error at '/a\nb'"


async def test_the_nearest_class_wins() -> None:
    app = boundary(NearlyMissing("x"))
    app.statuses = {**STATUSES, NearlyMissing: 410}
    assert (await run(app, http())).status == 410


async def test_headers_of_the_exception_win() -> None:
    answer = await run(boundary(HTTPException(503, "x", {"Retry-After": "9"})), http())
    assert answer.headers["retry-after"] == "9"


async def test_head_errors_have_no_body() -> None:
    answer = await run(boundary(Missing("gone")), http(method="HEAD"))
    assert (answer.status, answer.body, answer.headers["content-length"]) == (404, b"", "18")


async def test_a_late_error_is_raised_again() -> None:
    error, exchange = Missing("late"), http()
    start = {"type": "http.response.start", "status": 200, "headers": []}
    with pytest.raises(Missing) as raised:
        await run(boundary(error, (start,)), exchange)
    assert raised.value is error
    assert exchange.types == ["http.response.start"]


async def test_messages_before_the_start_do_not_begin_the_response() -> None:
    hint = {"type": "http.response.early_hint", "links": []}
    exchange = await run(boundary(Missing("x"), (hint,)), http())
    assert exchange.types[:2] == ["http.response.early_hint", "http.response.start"]


async def test_streams_are_answered_before_and_aborted_after_the_first_block() -> None:
    async def blocks(count: int) -> Any:
        for _ in range(count):
            yield b"x"
        raise Missing("block")

    assert (
        await run(Gate(StreamedResponse(body_chunks=closing(blocks(0))), STATUSES), http())
    ).status == 404
    exchange = http()
    with pytest.raises(Missing):
        await run(Gate(StreamedResponse(body_chunks=closing(blocks(1))), STATUSES), exchange)
    assert exchange.types == ["http.response.start", "http.response.body"]


@pytest.mark.parametrize("error", [ClientDisconnect(), WebSocketDisconnect()])
async def test_a_client_that_left_needs_no_answer(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await run(boundary(error), http())).sent == []
    assert not caplog.records


async def test_router_and_boundary_say_the_same() -> None:
    router = Router()
    router.add("/x", BufferedResponse(b""))
    for path, method in (("/y", "GET"), ("/x", "PUT")):
        bare = await run(router, http(path, method))
        assert (await run(Gate(router), http(path, method))).sent == bare.sent


@pytest.mark.parametrize(
    ("error", "code", "status"), [(Missing("gone"), 1008, 404), (ValueError("secret"), 1011, 500)]
)
async def test_websockets_before_accept_are_rejected(
    error: Exception, code: int, status: int
) -> None:
    closed = await run(boundary(error), websocket())
    assert (closed.types, closed.sent[0]["code"]) == (["websocket.close"], code)
    denied = await run(boundary(error), websocket(extensions=["websocket.http.response"]))
    assert denied.types == ["websocket.http.response.start", "websocket.http.response.body"]
    assert (denied.status, "secret" in denied.message) == (status, False)


@pytest.mark.parametrize("sent", [(), ({"type": "websocket.accept"},)])
async def test_starlettes_exception_closes_a_websocket(sent: tuple[Any, ...]) -> None:
    """Before the handshake a server makes a 403 of it."""
    for reason in (None, "no such room"):
        error = WebSocketException(4001, reason)
        answer = await run(boundary(error, sent), websocket())
        close = {"type": "websocket.close", "code": 4001, "reason": reason or ""}
        assert answer.sent == [*sent, close]
    assert (await run(boundary(error), http())).status == 500


async def test_open_websockets_are_closed() -> None:
    accept = {"type": "websocket.accept"}
    answer = await run(boundary(ValueError("secret"), (accept,)), websocket())
    assert answer.sent[1:] == [
        {"type": "websocket.close", "code": 1011, "reason": "Internal server error"}
    ]
    answer = await run(boundary(Missing("\u20ac" * 100), (accept,)), websocket())
    assert (answer.sent[1]["code"], answer.sent[1]["reason"]) == (1008, "\u20ac" * 41)


@pytest.mark.parametrize("last", ["websocket.close", "websocket.http.response.start"])
async def test_closed_websockets_are_left_alone(last: str) -> None:
    exchange = websocket()
    with pytest.raises(Missing):
        await run(boundary(Missing("x"), ({"type": last},)), exchange)
    assert exchange.types == [last]


async def test_lifespan_errors_pass() -> None:
    with pytest.raises(Missing):
        await run(boundary(Missing("x")), Exchange({"type": "lifespan"}))


def test_http_exceptions_carry_their_data() -> None:
    error = HTTPException(409, "Taken", {"a": "b"})
    assert (str(error), error.status, error.headers) == ("Taken", 409, {"a": "b"})


async def test_details_are_further_members_of_the_answer() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise HTTPException(422, "Wrong", details={"errors": [{"where": ["query", "x"]}]})

    answer = await run(Gate(app), http())
    assert answer.json == {"message": "Wrong", "errors": [{"where": ["query", "x"]}]}


def test_the_response_to_an_error_is_a_pure_function_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = HTTPException(404, "Gone \udcff", {"X-Y": "z"}, {"more": ["\udcff"]})
    response = answer_error(error)
    assert response == answer_error(error)
    assert (response.status, response.body) == (404, b'{"message":"Gone ?","more":["?"]}')
    assert response.headers == {"content-type": "application/json", "X-Y": "z"}
    assert answer_error(Missing("gone"), STATUSES).status == 404
    assert answer_error(Missing("gone")).body == b'{"message":"Internal server error"}'
    assert not caplog.records
