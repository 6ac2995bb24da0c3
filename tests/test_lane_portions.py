"""Work in portions: who has the lane in between, and what cancellation leaves behind."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest

from asgihive import concurrency
from asgihive.concurrency import Lane, Portions, RequestContext, request_context, run_at_once
from asgihive.errors import Overloaded
from tests.gates import WAIT_SECONDS, Gate

pytestmark = pytest.mark.anyio


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each portion end with its first step."""
    monkeypatch.setattr(concurrency, "PORTION_SECONDS", 0.0)


def work(*steps: Callable[[], object]) -> Portions[str]:
    for step in steps:
        step()
        yield
    return "done"


async def test_returns_what_the_work_returns_from_another_thread() -> None:
    lane = Lane("test", 1, 10)
    threads: list[int] = []
    steps = [lambda: threads.append(threading.get_ident())] * 3
    assert await lane.run_in_portions(work(*steps)) == "done"
    assert len(threads) == 3
    assert threading.get_ident() not in threads


async def test_raises_what_the_work_raises_and_gives_the_token_back() -> None:
    lane = Lane("test", 1, 10)

    def fail() -> None:
        raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        await lane.run_in_portions(work(int, fail, int))
    assert lane.busy() == lane.waiting() == 0


async def test_it_is_in_one_thread_where_no_other_call_waits(
    short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = Lane("test", 1, 10)
    run_sync, visits = anyio.to_thread.run_sync, 0

    async def count(*arguments: Any, **options: Any) -> Any:
        nonlocal visits
        visits += 1
        return await run_sync(*arguments, **options)

    monkeypatch.setattr(anyio.to_thread, "run_sync", count)
    assert await lane.run_in_portions(work(*[int] * 1000)) == "done"
    assert visits == 1


async def test_others_have_their_turns_in_between(gate: Gate, short: None) -> None:
    lane = Lane("test", 1, 10)
    order: list[str] = []

    async def others(name: str) -> None:
        request_context.set(RequestContext(client=name))
        await lane.run(lambda: order.append(name))

    steps: list[Callable[[], object]] = [gate, *(partial(order.append, each) for each in "1234")]
    with anyio.fail_after(WAIT_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lane.run_in_portions, work(*steps))
            await gate.begun()
            for name in ("a", "a", "b"):
                tasks.start_soon(others, name)
                await anyio.wait_all_tasks_blocked()
            gate.open()
    # Those who waited before it have theirs first.
    assert order == ["a", "b", "a", "1", "2", "3", "4"]
    assert lane.busy() == lane.waiting() == 0


async def test_two_long_ones_take_turns(gate: Gate, short: None) -> None:
    lane = Lane("test", 1, 10)
    order: list[str] = []

    async def long(name: str) -> None:
        request_context.set(RequestContext(client=name))
        await lane.run_in_portions(work(*[lambda: order.append(name)] * 3))

    with anyio.fail_after(WAIT_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lane.run, gate)
            await gate.begun()
            for name in "ab":
                tasks.start_soon(long, name)
                await anyio.wait_all_tasks_blocked()
            gate.open()
    assert order == ["a", "b", "a", "b", "a", "b"]


async def test_a_portion_lasts_as_long_as_it_may(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(concurrency, "PORTION_SECONDS", WAIT_SECONDS * 1000)
    lane = Lane("test", 1, 10)
    order: list[str] = []
    steps: list[Callable[[], object]] = [gate, *[lambda: order.append("work")] * 3]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lane.run_in_portions, work(*steps))
        await gate.begun()
        tasks.start_soon(lane.run, lambda: order.append("other"))
        await anyio.wait_all_tasks_blocked()
        gate.open()
    assert order == ["work", "work", "work", "other"]


async def test_cancelled_while_it_runs_it_ends_in_the_lane_at_the_next_step(gate: Gate) -> None:
    lane = Lane("test", 1, 10)
    ended_in: list[int] = []
    steps: list[int] = []

    def long() -> Portions[None]:
        try:
            gate()
            yield
            steps.append(1)
            yield
        finally:
            ended_in.append(threading.get_ident())

    with anyio.fail_after(WAIT_SECONDS):
        async with anyio.create_task_group() as callers:
            callers.start_soon(lane.run_in_portions, long())
            await gate.begun()
            callers.cancel_scope.cancel()
        assert lane.busy() == 1
        gate.open()
        await lane.run(int)  # once the token was given back
    assert steps == []
    assert len(ended_in) == 1
    assert threading.get_ident() not in ended_in
    assert lane.busy() == lane.waiting() == 0


async def test_cancelled_while_it_waits_for_its_turn_it_is_left_to_its_owner(
    gate: Gate, short: None
) -> None:
    lane = Lane("test", 1, 10)
    first, never = Gate(), Gate()
    long = work(first, never)
    async with anyio.create_task_group() as tasks:
        async with anyio.create_task_group() as callers:
            callers.start_soon(lane.run_in_portions, long)
            await first.begun()
            tasks.start_soon(lane.run, gate)
            await anyio.wait_all_tasks_blocked()
            first.open()
            await gate.begun()
            callers.cancel_scope.cancel()
        assert lane.waiting() == 0
        gate.open()
    assert long.gi_frame is not None  # type: ignore[attr-defined]
    assert not never.has_begun
    assert lane.busy() == 0
    long.close()


async def test_what_has_begun_is_not_refused(gate: Gate, short: None) -> None:
    lane = Lane("test", 1, 1)
    first = Gate()
    results: list[str] = []

    async def long() -> None:
        results.append(await lane.run_in_portions(work(first, int)))

    with anyio.fail_after(WAIT_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(long)
            await first.begun()
            tasks.start_soon(lane.run, gate)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(Overloaded):
                await lane.run_in_portions(work(int))
            first.open()
            await gate.begun()
            await anyio.wait_all_tasks_blocked()
            assert lane.waiting() == 1
            gate.open()
    assert results == ["done"]


async def test_at_once_it_is_a_call() -> None:
    steps: list[int] = []
    assert run_at_once(work(*[lambda: steps.append(1)] * 3)) == "done"
    assert len(steps) == 3
