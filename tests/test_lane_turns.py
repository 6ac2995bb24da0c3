"""Who waits for a lane: turns by caller, who is refused, and what cancellation leaves behind."""

import threading

import anyio
import anyio.to_thread
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgihive.concurrency import Lane, RequestContext, Tokens, request_context
from asgihive.errors import Overloaded
from tests.gates import WAIT_SECONDS, Gate


class Calls:
    """Calls of one lane, by several callers; notes in which order they run."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.order: list[str] = []
        self.refused: list[str] = []

    async def call(self, name: str, *, patient: bool = False) -> None:
        """Made for the caller that the first letter names."""
        request_context.set(RequestContext(client=name[0]))
        try:
            await self.lane.run(lambda: self.order.append(name), patient=patient)
        except Overloaded:
            self.refused.append(name)

    async def all_at_once(self, names: str, gate: Gate, patient: str = "") -> None:
        """While the lane's only thread is busy; in the order of `names`."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.lane.run, gate)
            await gate.begun()
            for name in names.split():
                is_patient = name in patient.split()
                tasks.start_soon(lambda: self.call(name, patient=is_patient))  # noqa: B023  # runs now
                await anyio.wait_all_tasks_blocked()
            gate.open()


@pytest.mark.anyio
async def test_callers_take_turns_and_each_has_its_own_in_order(gate: Gate) -> None:
    calls = Calls(Lane("test", 1, 100))
    await calls.all_at_once("a1 a2 a3 a4 a5 b1 c1 c2", gate)
    assert calls.order == ["a1", "b1", "c1", "a2", "c2", "a3", "a4", "a5"]


@pytest.mark.anyio
async def test_one_call_passes_by_a_hundred_of_another_caller(gate: Gate) -> None:
    calls = Calls(Lane("test", 1, 1000))
    many = " ".join(f"a{number}" for number in range(100))
    await calls.all_at_once(f"{many} b", gate)
    assert calls.order.index("b") == 1


@pytest.mark.anyio
async def test_who_has_most_waiting_gives_up_its_youngest(gate: Gate) -> None:
    calls = Calls(Lane("test", 1, 4))
    await calls.all_at_once("a1 a2 a3 a4 a5 b1 b2 b3 c1", gate)
    # a5 is one too many; b1 and b2 push out a4 and a3; b3 would only turn the tables. Of two
    # that have equally many, who is next in turn gives up one for c1.
    assert sorted(calls.refused) == ["a2", "a3", "a4", "a5", "b3"]
    assert calls.order == ["a1", "b1", "c1", "b2"]


@pytest.mark.anyio
async def test_what_has_begun_is_never_pushed_out(gate: Gate) -> None:
    calls = Calls(Lane("test", 1, 2))
    await calls.all_at_once("a1 a2 a3 b1", gate, patient="a1 a2 a3")
    assert calls.refused == ["b1"]
    assert calls.order == ["a1", "a2", "a3"]


@pytest.mark.anyio
async def test_an_impatient_call_is_pushed_out_past_patient_ones(gate: Gate) -> None:
    calls = Calls(Lane("test", 1, 3))
    await calls.all_at_once("a1 a2 a3 b1", gate, patient="a3")
    assert calls.refused == ["a2"]
    assert calls.order == ["a1", "b1", "a3"]


@pytest.mark.anyio
async def test_patient_calls_alone_fill_a_lane_for_others(gate: Gate) -> None:
    calls = Calls(Lane("test", 1, 1))
    await calls.all_at_once("a1 a2 b1", gate, patient="a1 a2")
    assert calls.refused == ["b1"]


@pytest.mark.anyio
async def test_who_leaves_the_queue_is_passed_over(gate: Gate) -> None:
    calls = Calls(Lane("test", 1, 10))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(calls.lane.run, gate)
        await gate.begun()
        async with anyio.create_task_group() as leaving:
            leaving.start_soon(calls.call, "a1")
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(calls.call, "b1")
            leaving.start_soon(calls.call, "b2")
            tasks.start_soon(calls.call, "a2")
            await anyio.wait_all_tasks_blocked()
            assert calls.lane.waiting() == 4
            leaving.cancel_scope.cancel()
        assert calls.lane.waiting() == 2
        gate.open()
    assert sorted(calls.order) == ["a2", "b1"]
    assert calls.lane.waiting() == calls.lane.busy() == 0


@pytest.mark.anyio
async def test_busy_counts_threads_of_calls_that_were_given_up(gate: Gate) -> None:
    lane = Lane("test", 2, 10)
    assert lane.busy() == 0
    with anyio.fail_after(WAIT_SECONDS):
        async with anyio.create_task_group() as callers:
            callers.start_soon(lane.run, gate)
            await gate.begun()
            assert lane.busy() == 1
            callers.cancel_scope.cancel()
        assert lane.busy() == 1
        gate.open()
        assert await anyio.to_thread.run_sync(gate.ended.wait, WAIT_SECONDS)
        # Both tokens, one after the other: the second one is free once the thread gave it back.
        both = threading.Barrier(2)
        async with anyio.create_task_group() as callers:
            for _ in range(2):
                callers.start_soon(lane.run, lambda: both.wait(WAIT_SECONDS))
    assert lane.busy() == 0


@pytest.mark.anyio
async def test_cancelled_at_the_moment_of_its_turn_the_token_goes_on() -> None:
    tokens = Tokens(1, 10)
    served: list[str] = []

    async def wait(key: str) -> None:
        if await tokens.wait(key, is_patient=False):
            served.append(key)
            tokens.give()

    tokens.free -= 1
    with anyio.fail_after(WAIT_SECONDS):
        async with anyio.create_task_group() as others, anyio.create_task_group() as first:
            first.start_soon(wait, "a")
            await anyio.wait_all_tasks_blocked()
            others.start_soon(wait, "b")
            await anyio.wait_all_tasks_blocked()
            tokens.give()
            first.cancel_scope.cancel()
    assert served[-1] == "b"
    assert (tokens.free, tokens.waiting) == (1, 0)


@pytest.mark.anyio
async def test_cancelled_when_it_was_pushed_out_it_leaves_nothing() -> None:
    tokens = Tokens(1, 2)
    tokens.free -= 1
    async with anyio.create_task_group() as others:
        async with anyio.create_task_group() as pushed:
            for _ in range(2):
                pushed.start_soon(lambda: tokens.wait("a", is_patient=False))
            await anyio.wait_all_tasks_blocked()
            others.start_soon(lambda: tokens.wait("b", is_patient=False))
            pushed.cancel_scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert tokens.waiting == 1
        tokens.give()
    assert (tokens.free, tokens.waiting) == (0, 0)


@given(st.lists(st.sampled_from("abcd"), max_size=40), st.integers(1, 3))
def test_nobody_is_served_twice_while_another_waits(names: list[str], threads: int) -> None:
    """Between two turns of a caller, each other one that waits all the while has one."""
    order: list[str] = []

    async def wait_for_all() -> None:
        tokens = Tokens(threads, 100)
        tokens.free -= threads

        async def wait(name: str) -> None:
            assert await tokens.wait(name, is_patient=False)
            order.append(name)

        async with anyio.create_task_group() as tasks:
            for name in names:
                tasks.start_soon(wait, name)
            await anyio.wait_all_tasks_blocked()
            for _ in names:
                tokens.give()
                await anyio.wait_all_tasks_blocked()
            assert tokens.waiting == 0

    anyio.run(wait_for_all)
    assert sorted(order) == sorted(names)
    for turn, name in enumerate(order):
        rest = order[turn + 1 :]
        if name in rest:
            until_next = rest[: rest.index(name)]
            assert sorted(until_next) == sorted({*rest} - {name})
