"""What is saved around a request, and that nothing is lost by it."""

import gc
import logging
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from asgihive.asgi import HTTPException, Router
from asgihive.hive import CornerstoneHooks, HiveMiddleware
from asgihive.hive.hooks import has_no_await
from asgihive.hive.requests import POST_CALL
from tests.asgi.exchange import http, run
from tests.hive.test_requests import build

pytestmark = pytest.mark.anyio

Post = Callable[[Any], Awaitable[object]]


async def _nothing(hooks: Any) -> None:
    hooks.done = [each for each in range(3)]  # noqa: C416  # a comprehension is what it shows


async def _inner(hooks: Any) -> None:
    async def inner() -> None:
        await anyio.lowlevel.checkpoint()

    hooks.inner = inner


async def _awaits(hooks: Any) -> None:
    if hooks.done:
        await anyio.lowlevel.checkpoint()


async def _opens(hooks: Any) -> None:
    async with hooks.lock:
        pass


async def _iterates(hooks: Any) -> None:
    async for _ in hooks.found:
        pass


async def _comprehends(hooks: Any) -> None:
    hooks.found = [each async for each in hooks.found]


def _returns_a_coroutine(hooks: Any) -> Awaitable[None]:
    return anyio.lowlevel.checkpoint()


async def _several_checkpoints() -> None:
    for _ in range(5):  # cancelled here, if it were not shielded
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("post", "expected"),
    [
        (_nothing, True),
        (_inner, True),
        (_awaits, False),
        (_opens, False),
        (_iterates, False),
        (_comprehends, False),
        (_returns_a_coroutine, False),
    ],
)
async def test_which_hooks_can_wait(post: Post, expected: bool) -> None:
    hooks = type("Own", (CornerstoneHooks,), {POST_CALL: post})
    assert has_no_await(hooks, POST_CALL) is expected


@pytest.mark.parametrize("order", ["waiting first", "waiting last", "waiting between"])
async def test_hooks_that_wait_beside_those_that_never_do(order: str) -> None:
    """After a cancellation each runs to its end, and the ones that wait are shielded."""
    done: list[str] = []
    begun = anyio.Event()

    def hooks(name: str, *, waiting: bool) -> type[CornerstoneHooks]:
        class Waiting(CornerstoneHooks):
            async def post_endpoint_call(self) -> None:
                await _several_checkpoints()
                done.append(name)

        class Immediate(CornerstoneHooks):
            async def post_endpoint_call(self) -> None:
                done.append(name)

        return Waiting if waiting else Immediate

    where = {"waiting first": 0, "waiting between": 1, "waiting last": 2}[order]
    classes = [hooks(str(number), waiting=number == where) for number in range(3)]
    router = Router()

    @router.get("/")
    async def wait() -> None:
        begun.set()
        await anyio.sleep_forever()

    hive = build(router, *classes)
    async with hive.running(), anyio.create_task_group() as tasks:
        tasks.start_soon(run, hive, http())
        await begun.wait()
        tasks.cancel_scope.cancel()
    assert done == ["2", "1", "0"]


async def test_an_object_may_wait_where_its_class_does_not() -> None:
    done: list[bool] = []
    begun = anyio.Event()

    class Immediate(CornerstoneHooks):
        async def post_endpoint_call(self) -> None:
            raise AssertionError

    async def waiting() -> None:
        await _several_checkpoints()
        done.append(True)

    fake = Immediate()
    fake.__dict__[POST_CALL] = waiting
    router = Router()

    @router.get("/")
    async def wait() -> None:
        begun.set()
        await anyio.sleep_forever()

    hive = build(router, fake)
    async with hive.running(), anyio.create_task_group() as tasks:
        tasks.start_soon(run, hive, http())
        await begun.wait()
        tasks.cancel_scope.cancel()
    assert done == [True]


class Unanswered(Exception):
    """What an endpoint raises."""


@pytest.mark.parametrize("ends", ["well", "refused", "failed", "at its commit", "around"])
async def test_a_request_leaves_no_work_for_the_garbage_collector(
    ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The records of pytest keep exceptions.
    monkeypatch.setattr(logging.getLogger("asgihive.asgi.errors"), "disabled", True)
    objects: list[weakref.ref[Any]] = []

    class Noting(CornerstoneHooks):
        async def pre_endpoint_call(self) -> None:
            objects.extend((weakref.ref(self), weakref.ref(self.request)))

        async def before_answer(self) -> None:
            if ends == "at its commit":
                raise HTTPException(409, "no")

        async def post_endpoint_call(self) -> None:
            assert (self.error is None) == (ends == "well")

    @asynccontextmanager
    async def request(context: Any) -> AsyncIterator[None]:
        yield

    router = Router()

    @router.get("/")
    async def answer() -> dict[str, str]:
        if ends == "refused":
            raise HTTPException(409, "no")
        if ends in {"failed", "around"}:
            raise Unanswered
        return {}

    hive = build(router, Noting, request=request)
    app = HiveMiddleware(router, hive) if ends == "around" else hive
    async with hive.running():
        gc.disable()
        try:
            with suppress(Unanswered):
                await run(app, http())
            assert [each() for each in objects] == [None, None]
        finally:
            gc.enable()
