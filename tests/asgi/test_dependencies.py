"""Dependencies: their order, what is shared, who cleans up when, and what replaces them."""

import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import anyio
import pytest
from starlette.background import BackgroundTasks
from starlette.requests import Request

from asgihive.asgi import Depends, HTTPException, Router
from tests.asgi.exchange import answer, http, run

pytestmark = pytest.mark.anyio

Log = list[str]


def _resource(log: Log, name: str) -> Callable[[], AsyncIterator[str]]:
    async def resource() -> AsyncIterator[str]:
        log.append(f"open {name}")
        try:
            yield name
        except BaseException as error:
            log.append(f"{name} sees {type(error).__name__}")
            raise
        finally:
            await anyio.lowlevel.checkpoint()
            log.append(f"close {name}")

    return resource


def _sync_resource(log: Log, name: str, needs: Callable[[], Any]) -> Callable[..., Iterator[str]]:
    def resource(needed: str = Depends(needs)) -> Iterator[str]:
        log.append(f"open {name}")
        try:
            yield f"{name} of {needed}"
        except ValueError:
            log.append(f"{name} sees ValueError")
            raise
        finally:
            log.append(f"close {name}")

    return resource


async def test_values_of_every_kind_of_function() -> None:
    router = Router()
    loop_thread = threading.get_ident()

    async def on_loop(limit: int) -> int:
        assert threading.get_ident() == loop_thread
        return limit

    def in_thread(request: Request, size: int = 2) -> tuple[str, int]:
        assert threading.get_ident() != loop_thread
        return request.method, size

    class Page:
        def __init__(self, page: int = 1, limit: int = Depends(on_loop)) -> None:
            self.start = (page - 1) * limit

    class Callables:
        async def __call__(self, x: int) -> int:
            return x + 1

    @router.get("/")
    async def handler(
        page: Annotated[Page, Depends(Page)],
        pair: Annotated[tuple[str, int], Depends(in_thread)],
        *,
        one: int = Depends(Callables()),
        wrapped: int = Depends(lambda: 5),
    ) -> list[Any]:
        return [page.start, pair, one, wrapped]

    assert (await answer(router, "/?limit=10&page=3&x=1")).json == [20, ["GET", 2], 2, 5]
    got = await answer(router, "/?limit=a&x=b")
    assert [each["where"] for each in got.json["errors"]] == [["query", "limit"], ["query", "x"]]


async def test_each_is_called_once_per_request_in_the_order_of_need() -> None:
    log = Log()

    def make(name: str, *needs: Callable[[], Any]) -> Callable[..., Any]:
        if not needs:

            async def leaf() -> str:
                log.append(name)
                return name

            return leaf

        async def node(a: str = Depends(needs[0]), b: str = Depends(needs[-1])) -> str:
            log.append(name)
            return f"{name}({a},{b})"

        return node

    base = make("base")
    left, right = make("left", base), make("right", base)
    router = Router(dependencies=[make("outer guard")])

    @router.get("/", dependencies=[Depends(right), make("own guard")])
    async def handler(x: str = Depends(left), y: str = Depends(right)) -> str:
        return f"{x} {y}"

    got = await answer(router, "/")
    assert got.body == b"left(base,base) right(base,base)"
    assert log == ["outer guard", "base", "right", "own guard", "left"]


async def test_generators_clean_up_in_reverse_after_the_last_byte_and_the_background() -> None:
    log = Log()
    first = _resource(log, "first")
    second = _sync_resource(log, "second", first)
    router = Router()

    @router.get("/")
    async def handler(
        tasks: BackgroundTasks, a: str = Depends(first), b: str = Depends(second)
    ) -> AsyncIterator[str]:
        tasks.add_task(log.append, "background")
        yield a
        log.append("streaming")
        yield f" {b}"

    exchange = http("/")

    async def send(message: Any) -> None:
        log.append(f"send {bytes(message.get('body', b'')).decode()!r}")
        await exchange.send(message)

    await router(exchange.scope, exchange.receive, send)
    assert log == [
        "open first",
        "open second",
        "send ''",
        "send 'first'",
        "streaming",
        "send ' second of first'",
        "send ''",
        "background",
        "close second",
        "close first",
    ]


async def test_generators_see_the_error_and_may_replace_it_but_not_swallow_it() -> None:
    log = Log()
    first = _resource(log, "first")
    second = _sync_resource(log, "second", first)

    async def swallowing(before: str = Depends(second)) -> AsyncIterator[None]:
        try:
            yield
        except ValueError:
            log.append("swallowed")

    async def replacing() -> AsyncIterator[None]:
        try:
            yield
        except ValueError as error:
            raise HTTPException(409, "Replaced") from error

    router = Router()

    @router.get("/swallow")
    async def swallow(x: None = Depends(swallowing)) -> None:
        raise ValueError("from the handler")

    @router.get("/replace")
    async def replace(outer: str = Depends(first), x: None = Depends(replacing)) -> None:
        raise ValueError("from the handler")

    with pytest.raises(ValueError, match="from the handler"):
        await run(router, http("/swallow"))
    assert log == [
        "open first",
        "open second",
        "swallowed",
        "second sees ValueError",
        "close second",
        "first sees ValueError",
        "close first",
    ]
    log.clear()
    got = await answer(router, "/replace")
    assert (got.status, got.message) == (409, "Replaced")
    assert log == ["open first", "first sees HTTPException", "close first"]


async def test_what_was_opened_is_closed_when_a_later_one_fails() -> None:
    log = Log()
    first = _resource(log, "first")

    async def failing(a: str = Depends(first)) -> None:
        raise HTTPException(401, "No entry")

    router = Router()

    @router.get("/")
    async def handler(limit: int, x: None = Depends(failing)) -> None:
        log.append("handler")

    got = await answer(router, "/?limit=wrong")
    assert (got.status, got.message) == (401, "No entry")  # guards come before what they guard
    assert log == ["open first", "first sees HTTPException", "close first"]


async def test_all_cleanups_are_tried_when_some_fail() -> None:
    log = Log()
    outer = _resource(log, "outer")

    async def failing(a: str = Depends(outer)) -> AsyncIterator[None]:
        yield
        raise KeyError("cleanup")

    router = Router()

    @router.get("/")
    async def handler(x: None = Depends(failing)) -> str:
        return "sent"

    exchange = http("/")
    with pytest.raises(KeyError, match="cleanup"):
        await run(router, exchange)
    assert exchange.body == b"sent"
    assert log == ["open outer", "outer sees KeyError", "close outer"]


async def test_cleanups_are_shielded_from_cancellation() -> None:
    log = Log()
    router = Router()
    begun = anyio.Event()

    @router.get("/")
    async def handler(a: str = Depends(_resource(log, "first"))) -> None:
        begun.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, router, http("/"))
        await begun.wait()
        tasks.cancel_scope.cancel()
    assert [each for each in log if "sees" not in each] == ["open first", "close first"]
    assert log[1] in {"first sees CancelledError", "first sees Cancelled"}


async def test_a_cleanup_that_hangs_is_cancelled_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log()
    monkeypatch.setattr("asgihive.asgi.cleanups.MAX_CLEANUP_SECONDS", 0.2)

    async def hanging(a: str = Depends(_resource(log, "outer"))) -> AsyncIterator[None]:
        yield
        await anyio.sleep_forever()

    router = Router()

    @router.get("/")
    async def handler(x: None = Depends(hanging)) -> str:
        return "sent"

    assert (await run(router, http("/"))).body == b"sent"
    assert log == ["open outer", "close outer"]


async def test_a_client_that_leaves_a_stream_ends_it_and_cleans_up() -> None:
    log = Log()
    router = Router()
    exchange = http("/")

    @router.get("/")
    async def handler(a: str = Depends(_resource(log, "first"))) -> AsyncIterator[str]:
        try:
            yield "begun"
            exchange.gone.set()
            await anyio.sleep_forever()
        finally:
            log.append("stream closed")

    with anyio.fail_after(10):
        await run(router, exchange)
    assert exchange.body == b"begun"
    assert not exchange.complete
    assert log == ["open first", "stream closed", "close first"]


async def test_context_variables_reach_handlers_on_the_loop_and_in_threads() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    async def setting() -> AsyncIterator[None]:
        token = variable.set("set")
        yield
        variable.reset(token)

    router = Router(dependencies=[setting])

    @router.get("/loop")
    async def on_loop() -> str:
        return variable.get()

    @router.get("/thread")
    def in_thread() -> str:
        return variable.get()

    for path in ("/loop", "/thread"):
        assert (await answer(router, path)).body == b"set"
        assert variable.get() == "unset"


async def test_context_variables_that_a_thread_sets_are_kept() -> None:
    """Of functions, and of generators, which may reset what they have set."""
    plain: contextvars.ContextVar[str] = contextvars.ContextVar("plain", default="unset")
    yielded: contextvars.ContextVar[str] = contextvars.ContextVar("yielded", default="unset")
    seen = []

    def set_plain() -> None:
        plain.set("set")

    def set_around() -> Iterator[None]:
        token = yielded.set("set")
        yield
        seen.append((plain.get(), yielded.get()))
        yielded.reset(token)

    router = Router(dependencies=[set_around, set_plain])

    @router.get("/loop")
    async def on_loop() -> str:
        yielded.set("set again")
        return f"{plain.get()} {yielded.get()}"

    @router.get("/thread")
    def in_thread() -> str:
        yielded.set("set again")
        return f"{plain.get()} {yielded.get()}"

    for path in ("/loop", "/thread"):
        plain.set("unset")
        yielded.set("before")
        assert (await answer(router, path)).body == b"set set again"
        assert (plain.get(), yielded.get()) == ("set", "before")
    assert seen == [("set", "set again")] * 2


async def test_a_thousand_requests_keep_their_dependencies_apart() -> None:
    waiting = 0
    all_here = anyio.Event()
    opened: set[int] = set()

    async def resource(n: int) -> AsyncIterator[list[int]]:
        nonlocal waiting
        mine = [n]
        opened.add(n)
        waiting += 1
        if waiting == 1000:
            all_here.set()
        await all_here.wait()
        yield mine
        assert mine == [n, n, n]
        opened.remove(n)

    async def middle(n: int, values: list[int] = Depends(resource)) -> list[int]:
        await anyio.lowlevel.checkpoint()
        values.append(n)
        return values

    router = Router()

    @router.get("/{n}")
    async def handler(
        n: int, a: list[int] = Depends(middle), b: list[int] = Depends(resource)
    ) -> list[int]:
        assert a is b
        await anyio.lowlevel.checkpoint()
        a.append(n)
        return a

    async def ask(n: int) -> None:
        assert (await run(router, http(f"/{n}"))).json == [n, n, n]

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for n in range(1000):
                tasks.start_soon(ask, n)
    assert opened == set()
