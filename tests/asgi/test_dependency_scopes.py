"""Dependencies that are closed when the handler has returned: what they raise is the answer."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import anyio
import pytest
from starlette.background import BackgroundTasks
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.websockets import WebSocket

from asgihive.asgi import Depends, Gate, HTTPException, Router
from asgihive.asgi.signatures import HandlerError
from tests.asgi.exchange import answer, http, run, websocket

pytestmark = pytest.mark.anyio

Log = list[str]


def _transaction(log: Log, name: str, error: Exception | None = None) -> Callable[..., Any]:
    async def transaction() -> AsyncIterator[str]:
        log.append(f"begin {name}")
        try:
            yield name
        except BaseException as raised:
            log.append(f"{name} rolls back after {type(raised).__name__}")
            raise
        log.append(f"commit {name}")
        if error is not None:
            raise error

    return transaction


def _sync_transaction(log: Log, name: str, error: Exception | None = None) -> Callable[..., Any]:
    def transaction() -> Iterator[str]:
        log.append(f"begin {name}")
        yield name
        log.append(f"commit {name}")
        if error is not None:
            raise error

    return transaction


async def _run(router: Router, log: Log, path: str = "/") -> Any:
    exchange = http(path)

    async def send(message: Any) -> None:
        log.append(f"send {message.get('status', bytes(message.get('body', b'')).decode())}")
        await exchange.send(message)

    await Gate(router)(exchange.scope, exchange.receive, send)
    return exchange


@pytest.mark.parametrize("make", [_transaction, _sync_transaction])
async def test_they_close_before_the_answer_and_the_others_after_it(make: Any) -> None:
    log = Log()
    early, late = make(log, "early"), _transaction(log, "late")
    router = Router()

    @router.get("/", status=201)
    async def handler(
        tasks: BackgroundTasks,
        a: Annotated[str, Depends(late)],
        b: Annotated[str, Depends(early, scope="function")],
    ) -> list[str]:
        tasks.add_task(log.append, "background")
        log.append("handler")
        return [a, b]

    got = await _run(router, log)
    assert (got.status, got.json) == (201, ["late", "early"])
    assert log == [
        "begin late",
        "begin early",
        "handler",
        "commit early",
        "send 201",
        'send ["late","early"]',
        "background",
        "commit late",
    ]


@pytest.mark.parametrize("make", [_transaction, _sync_transaction])
@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (OSError("disk full"), 500, "Internal server error"),
        (HTTPException(409, "There is one already"), 409, "There is one already"),
    ],
)
async def test_what_a_commit_raises_is_the_answer(
    make: Any, error: Exception, status: int, message: str
) -> None:
    log = Log()
    outer = _transaction(log, "outer")
    router = Router(dependencies=[outer])

    @router.get("/", status=201)
    async def handler(a: str = Depends(make(log, "a", error), scope="function")) -> str:
        return "stored"

    got = await _run(router, log)
    assert (got.status, got.message) == (status, message)
    assert "send 201" not in log
    assert f"outer rolls back after {type(error).__name__}" in log


async def test_what_the_handler_raises_is_seen_by_both() -> None:
    log = Log()
    early, late = _transaction(log, "early"), _transaction(log, "late")
    router = Router()

    @router.get("/")
    async def handler(
        a: str = Depends(late), b: str = Depends(early, scope="function"), limit: int = 0
    ) -> str:
        raise HTTPException(404, "Nothing")

    assert (await answer(router, "/")).status == 404
    assert log[2:] == [
        "early rolls back after HTTPException",
        "late rolls back after HTTPException",
    ]
    log.clear()
    assert (await answer(router, "/?limit=a")).status == 422
    assert "early rolls back after HTTPException" in log
    assert "commit early" not in log


async def test_a_result_that_does_not_fit_is_not_committed() -> None:
    log = Log()
    router = Router()

    @router.get("/typed")
    async def typed(a: str = Depends(_transaction(log, "a"), scope="function")) -> int:
        return a  # type: ignore[return-value]

    @router.get("/untyped")
    async def untyped(a: str = Depends(_transaction(log, "a"), scope="function")) -> Any:
        return {a: 1j}

    for path in ("/typed", "/untyped"):
        assert (await answer(router, path)).status == 500
    assert log == ["begin a", "a rolls back after TypeError"] * 2


async def test_streams_are_closed_when_the_commit_fails() -> None:
    log = Log()
    failing = _transaction(log, "a", HTTPException(409, "No"))
    router = Router()

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            log.append("closed")

    @router.get("/untyped")
    async def untyped(a: str = Depends(failing, scope="function")) -> Any:
        return items()

    @router.get("/typed")
    async def typed(a: str = Depends(failing, scope="function")) -> AsyncIterator[str]:
        yield a

    @router.get("/response")
    async def response(a: str = Depends(failing, scope="function")) -> StreamingResponse:
        return StreamingResponse(iter(["a"]))

    for path in ("/untyped", "/typed", "/response"):
        assert (await answer(router, path)).status == 409
    assert log == ["begin a", "commit a", "closed", *["begin a", "commit a"] * 2]


async def test_a_commit_that_hangs_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgihive.asgi.cleanups.MAX_CLEANUP_SECONDS", 0.05)

    async def hanging() -> AsyncIterator[None]:
        yield
        await anyio.sleep_forever()

    router = Router()

    @router.get("/", dependencies=[Depends(hanging, scope="function")])
    async def handler() -> str:
        return "stored"

    assert (await answer(router, "/")).status == 500


async def test_commits_are_shielded_from_cancellation() -> None:
    log = Log()
    begun = anyio.Event()

    async def slow() -> AsyncIterator[None]:
        yield
        begun.set()
        await anyio.lowlevel.checkpoint()
        log.append("committed")

    router = Router()

    @router.get("/", dependencies=[Depends(slow, scope="function")])
    async def handler() -> str:
        return ""

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, router, http("/"))
        await begun.wait()
        tasks.cancel_scope.cancel()
    assert log == ["committed"]


async def test_websockets_and_overrides() -> None:
    log = Log()
    router = Router()
    real = _transaction(log, "real")

    @router.websocket("/ws")
    async def socket(websocket: WebSocket, a: str = Depends(real, scope="function")) -> None:
        await websocket.accept()
        log.append("accepted")

    @router.get("/")
    async def handler(request: Request, a: str = Depends(real, scope="function")) -> str:
        return a

    await run(router, websocket("/ws"))
    assert log == ["begin real", "accepted", "commit real"]
    router.overrides[real] = _transaction(log, "fake", HTTPException(409, "No"))
    assert (await answer(router, "/")).status == 409


def test_what_outlives_the_function_does_not_hold_what_it_closes() -> None:
    log = Log()
    early = _transaction(log, "early")

    async def plain(a: str = Depends(early, scope="function")) -> str:
        return a

    async def late(a: str = Depends(early, scope="function")) -> AsyncIterator[str]:
        yield a

    async def late_through_another(a: str = Depends(plain)) -> AsyncIterator[str]:
        yield a

    def sync_late(a: str = Depends(plain)) -> Iterator[str]:
        yield a

    async def alike(a: str = Depends(plain)) -> AsyncIterator[str]:
        yield a

    for each in (late, late_through_another, sync_late):
        with pytest.raises(HandlerError, match=r'transaction has the scope "function" and is clos'):
            Router().get("/", dependencies=[each])(lambda: None)
    for fits in (plain, Depends(alike, scope="function")):
        Router().get("/", dependencies=[fits])(lambda: None)
    with pytest.raises(HandlerError, match='scopes "request" and "function" here'):
        Router(dependencies=[early]).get("/", dependencies=[plain])(lambda: None)
    with pytest.raises(HandlerError, match="an application answers by itself"):
        Router(dependencies=[Depends(early, scope="function")]).mount("/x", Router())
    with pytest.raises(TypeError, match="'request' and 'function' are accepted"):
        Depends(early, scope="handler")  # type: ignore[arg-type]
