"""The order of all hooks, compared whole."""

from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.websockets import WebSocket

from asgihive.asgi import HTTPException, Router
from asgihive.hive import HookFailed
from tests.asgi.exchange import Exchange, http, run, websocket
from tests.hive.services import Failure, RecordingHive, config, recording_service

pytestmark = pytest.mark.anyio

STARTUP = """
external pre_endpoint_setup
external async_pre_endpoint_setup
b.sync.pre_endpoint_setup
b.async.pre_endpoint_setup
b.lifespan.enter
a.sync.pre_endpoint_setup
a.async.pre_endpoint_setup
a.lifespan.enter
x.db.sync.setup
x.db.async.setup
x.db.lifespan.enter
x.router.sync.setup
x.router.async.setup
x.router.lifespan.enter
x.service.sync.setup
x.service.async.setup
x.service.lifespan.enter
x.sync.setup
x.async.setup
x.lifespan.enter
y.sync.setup
y.async.setup
y.lifespan.enter
external post_endpoint_setup
external async_post_endpoint_setup
b.sync.post_endpoint_setup
b.async.post_endpoint_setup
a.sync.post_endpoint_setup
a.async.post_endpoint_setup
""".strip().splitlines()

SHUTDOWN = """
external async_pre_endpoint_teardown
external pre_endpoint_teardown
a.async.pre_endpoint_teardown
a.sync.pre_endpoint_teardown
b.async.pre_endpoint_teardown
b.sync.pre_endpoint_teardown
y.lifespan.exit
y.async.teardown
y.sync.teardown
x.lifespan.exit
x.async.teardown
x.sync.teardown
x.service.lifespan.exit
x.service.async.teardown
x.service.sync.teardown
x.router.lifespan.exit
x.router.async.teardown
x.router.sync.teardown
x.db.lifespan.exit
x.db.async.teardown
x.db.sync.teardown
external async_post_endpoint_teardown
external post_endpoint_teardown
a.lifespan.exit
a.async.post_endpoint_teardown
a.sync.post_endpoint_teardown
b.lifespan.exit
b.async.post_endpoint_teardown
b.sync.post_endpoint_teardown
""".strip().splitlines()

BEFORE = [
    "b.sync.pre_endpoint_call",
    "b.async.pre_endpoint_call",
    "b.request.enter",
    "a.sync.pre_endpoint_call",
    "a.async.pre_endpoint_call",
    "a.request.enter",
]
AFTER = [
    "a.request.exit",
    "a.async.post_endpoint_call",
    "a.sync.post_endpoint_call",
    "b.request.exit",
    "b.async.post_endpoint_call",
    "b.sync.post_endpoint_call",
]


def teardown_after(failed: str) -> list[str]:
    """The shutdown of those whose first step came before the one that failed."""
    began = {_owner(call) for call in STARTUP[: STARTUP.index(failed)]}
    return [call for call in SHUTDOWN if _owner(call) in began]


def _owner(call: str) -> str:
    if call.startswith("external"):
        return "external async" if "async_" in call else "external sync"
    return call.rpartition(".")[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each hive imports it anew; Python compiles it once."""
    return recording_service(tmp_path_factory.mktemp("recording"))


@pytest.fixture
def hive(folder: Path) -> RecordingHive:
    noting: dict[str, Any] = {}

    def external(name: str) -> Any:
        def note() -> None:
            found.note(f"external {name}")

        async def async_note() -> None:
            found.note(f"external {name}")

        return async_note if name.startswith("async_") else note

    for step in ("pre_endpoint_setup", "post_endpoint_setup"):
        for name in (step, step.replace("setup", "teardown")):
            noting |= {each: external(each) for each in (name, f"async_{name}")}
    found = RecordingHive(config(**noting), base=folder)
    found.include_router(_routes(found))
    return found


def _routes(hive: RecordingHive) -> Router:
    router = Router()

    @router.get("/plain")
    async def plain(request: Request) -> PlainTextResponse:
        hive.note("endpoint")
        return PlainTextResponse("x", background=BackgroundTask(hive.note, "background"))

    @router.get("/stream")
    async def stream(request: Request) -> StreamingResponse:
        async def blocks() -> Any:
            for number in range(3):
                hive.note(f"block {number}")
                yield b"x"

        return StreamingResponse(blocks())

    @router.get("/refused")
    async def refused(request: Request) -> PlainTextResponse:
        raise HTTPException(418, "short and stout")

    @router.get("/waiting")
    async def waiting(request: Request) -> PlainTextResponse:
        hive.note("endpoint")
        await anyio.sleep_forever()
        return PlainTextResponse("never")

    @router.websocket("/echo")
    async def echo(connection: WebSocket) -> None:
        await connection.accept()
        hive.note(await connection.receive_text())
        await connection.close()

    return router


async def test_start_and_stop(hive: RecordingHive) -> None:
    for _ in range(2):
        async with hive.running():
            assert hive.taken() == STARTUP
        assert hive.taken() == SHUTDOWN


async def test_one_request(hive: RecordingHive) -> None:
    async with hive.running():
        hive.taken()
        assert (await run(hive, http("/plain"))).status == 200
        assert hive.taken() == [*BEFORE, "endpoint", "background", *AFTER]


async def test_a_failing_request(hive: RecordingHive) -> None:
    async with hive.running():
        hive.failing["endpoint"] = Failure()
        for path, status, calls in (
            ("/plain", 500, ["endpoint"]),
            ("/refused", 418, []),
            ("/nowhere", 404, []),
        ):
            hive.taken()
            assert (await run(hive, http(path))).status == status
            assert hive.taken() == [*BEFORE, *calls, *AFTER]


@pytest.mark.parametrize("failing", BEFORE)
@pytest.mark.parametrize("status", [401, 500])
@pytest.mark.slow_on_trio
async def test_a_hook_before_the_endpoint_answers(
    hive: RecordingHive, failing: str, status: int
) -> None:
    """The endpoint is skipped; what came to its end before gets its hook afterwards."""
    error = HTTPException(401, "no token") if status == 401 else Failure()
    hive.failing[failing] = error
    async with hive.running():
        hive.taken()
        assert (await run(hive, http("/plain"))).status == status
        began = BEFORE[: BEFORE.index(failing)]
        owners = {each.rpartition(".")[0] for each in began}
        after = [each for each in AFTER if each.rpartition(".")[0] in owners]
        assert hive.taken() == [*began, failing, *after]


@pytest.mark.parametrize("failing", AFTER)
async def test_a_failing_hook_after_the_endpoint_keeps_nothing_from_running(
    hive: RecordingHive, failing: str, caplog: pytest.LogCaptureFixture
) -> None:
    hive.failing[failing] = Failure()
    async with hive.running():
        hive.taken()
        assert (await run(hive, http("/plain"))).status == 200
        assert hive.taken() == [*BEFORE, "endpoint", "background", *AFTER]
    (record,) = caplog.records
    assert f"cornerstones.{failing[0]}" in record.message


async def test_a_streamed_response(hive: RecordingHive) -> None:
    class NotingExchange(Exchange):
        async def send(self, message: Any) -> None:
            hive.note(f"{message['type']} {message.get('more_body')}")
            await super().send(message)

    async with hive.running():
        hive.taken()
        await run(hive, NotingExchange(http("/stream").scope))
        body = "http.response.body"
        parts = [each for number in range(3) for each in (f"block {number}", f"{body} True")]
        sent = ["http.response.start None", *parts, f"{body} False"]
        assert hive.taken() == [*BEFORE, *sent, *AFTER]


async def test_a_websocket(hive: RecordingHive) -> None:
    async with hive.running():
        hive.taken()
        exchange = websocket("/echo")
        exchange.incoming.append({"type": "websocket.receive", "text": "hello"})
        assert (await run(hive, exchange)).types == ["websocket.accept", "websocket.close"]
        assert hive.taken() == [*BEFORE, "hello", *AFTER]


async def test_a_refused_websocket(hive: RecordingHive) -> None:
    hive.failing["a.sync.pre_endpoint_call"] = HTTPException(401, "no token")
    async with hive.running():
        hive.taken()
        assert (await run(hive, websocket("/echo"))).types == ["websocket.close"]
        assert hive.taken() == [*BEFORE[:4], *AFTER[3:]]


async def test_a_cancelled_request(hive: RecordingHive) -> None:
    """As servers end the request of a client that is gone."""
    async with hive.running():
        hive.taken()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, hive, http("/waiting"))
            while "endpoint" not in hive.calls:
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        assert hive.taken() == [*BEFORE, "endpoint", *AFTER]


@pytest.mark.parametrize("failing", STARTUP)
@pytest.mark.slow_on_trio
async def test_a_failing_set_up(hive: RecordingHive, failing: str) -> None:
    hive.failing[failing] = error = Failure("no such host")
    with pytest.raises(HookFailed, match="no such host") as raised:
        async with hive.running():
            pytest.fail("it runs")
    assert raised.value.__cause__ is error
    owner = "HiveConfig" if failing.startswith("external") else f"s.{failing.partition('.')[0]} "
    assert owner in str(raised.value)
    until = STARTUP[: STARTUP.index(failing) + 1]
    assert hive.taken() == [*until, *teardown_after(failing)]
    assert (await run(hive, http("/plain"))).status == 503


@pytest.mark.parametrize("failing", SHUTDOWN)
@pytest.mark.slow_on_trio
async def test_a_failing_teardown(
    hive: RecordingHive, failing: str, caplog: pytest.LogCaptureFixture
) -> None:
    hive.failing[failing] = error = Failure("still busy")
    with pytest.raises(ExceptionGroup) as raised:
        async with hive.running():
            hive.taken()
    assert hive.taken() == SHUTDOWN
    (failed,) = raised.value.exceptions
    assert failed.__cause__ is error
    (record,) = caplog.records
    assert "still busy" in record.message


async def test_all_that_fails_is_raised_together(hive: RecordingHive) -> None:
    hive.failing = {call: Failure(call) for call in SHUTDOWN}
    with pytest.raises(ExceptionGroup) as raised:
        async with hive.running():
            hive.taken()
    assert hive.taken() == SHUTDOWN
    assert [str(each.__cause__) for each in raised.value.exceptions] == SHUTDOWN


async def test_a_failing_teardown_after_a_failing_set_up(hive: RecordingHive) -> None:
    hive.failing = {"y.async.setup": Failure("first"), "x.sync.teardown": Failure("second")}
    with pytest.raises(HookFailed, match="first") as raised:
        async with hive.running():
            pytest.fail("it runs")
    (note,) = raised.value.__notes__
    assert "endpoints.x" in note
    assert "second" in note


async def test_a_cancelled_life_is_torn_down(hive: RecordingHive) -> None:
    with anyio.CancelScope() as scope:
        async with hive.running():
            hive.taken()
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert hive.taken() == SHUTDOWN


async def test_a_failing_body_is_torn_down(hive: RecordingHive) -> None:

    async def live() -> None:
        async with hive.running():
            hive.taken()
            raise Failure

    with pytest.raises(Failure):
        await live()
    assert hive.taken() == SHUTDOWN
