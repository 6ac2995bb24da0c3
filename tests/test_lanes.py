"""Worker threads: exclusiveness, bounds, and what cancellation leaves behind."""

import contextvars
import threading

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from asgihive.concurrency import Lane, Lanes, run_in_worker
from asgihive.errors import NeedsThread, Overloaded
from tests.gates import WAIT_SECONDS, Gate


@pytest.mark.anyio
async def test_returns_what_the_function_returns_from_another_thread() -> None:
    lane = Lane("test", 1, 10)
    assert await lane.run(threading.get_ident) != threading.get_ident()


@pytest.mark.anyio
async def test_raises_what_the_function_raises_and_gives_the_token_back() -> None:
    lane = Lane("test", 1, 10)

    def fail() -> None:
        raise KeyError("inside")

    for _ in range(3):
        with pytest.raises(KeyError, match="inside"):
            await lane.run(fail)
    assert await lane.run(lambda: 1) == 1


@pytest.mark.anyio
@pytest.mark.parametrize("threads", [1, 3])
async def test_never_runs_more_calls_at_once_than_it_has_threads(threads: int) -> None:
    lane = Lane("test", threads, 100)
    lock = threading.Lock()
    full = threading.Barrier(threads)
    running, most = 0, 0

    def call() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        full.wait(WAIT_SECONDS)  # passes only when all the threads of the lane are inside
        with lock:
            running -= 1

    with anyio.fail_after(WAIT_SECONDS):
        async with anyio.create_task_group() as group:
            for _ in range(threads * 20):
                group.start_soon(lane.run, call)
    assert most == threads


@pytest.mark.anyio
async def test_the_library_lane_has_one_thread_and_the_decode_lane_as_many_as_asked() -> None:
    lanes = Lanes(decode_lanes=3, max_waiting=7)
    assert (lanes.library.threads, lanes.decode.threads) == (1, 3)
    assert lanes.library.max_waiting == lanes.decode.max_waiting == 7


@pytest.mark.anyio
async def test_one_call_more_than_may_wait_is_refused(gate: Gate) -> None:
    lane = Lane("HDF5", 1, 2)
    async with anyio.create_task_group() as group:
        group.start_soon(lane.run, gate)
        await gate.begun()
        for _ in range(2):
            group.start_soon(lane.run, threading.get_ident)
        await anyio.wait_all_tasks_blocked()
        assert lane.waiting() == 2
        with pytest.raises(Overloaded, match="2 requests wait for the HDF5 threads"):
            await lane.run(threading.get_ident)
        gate.open()
    assert lane.waiting() == 0
    assert await lane.run(lambda: 1) == 1


@pytest.mark.anyio
async def test_cancellation_frees_the_caller_and_the_thread_keeps_the_token(gate: Gate) -> None:
    lane = Lane("test", 1, 10)
    seen: list[bool] = []
    with anyio.fail_after(WAIT_SECONDS):
        async with anyio.create_task_group() as callers:
            callers.start_soon(lane.run, gate)
            await gate.begun()
            callers.cancel_scope.cancel()
        assert not gate.ended.is_set()  # free, while the thread is still stuck

        async with anyio.create_task_group() as callers:
            callers.start_soon(lane.run, lambda: seen.append(gate.ended.is_set()))
            await anyio.wait_all_tasks_blocked()
            assert lane.waiting() == 1
            gate.open()
    assert seen == [True]


@pytest.mark.anyio
async def test_cancellation_while_waiting_takes_no_token(gate: Gate) -> None:
    lane = Lane("test", 1, 10)
    never = Gate()
    async with anyio.create_task_group() as group:
        group.start_soon(lane.run, gate)
        await gate.begun()
        async with anyio.create_task_group() as callers:
            callers.start_soon(lane.run, never)
            await anyio.wait_all_tasks_blocked()
            callers.cancel_scope.cancel()
        assert lane.waiting() == 0
        gate.open()
    assert not never.has_begun
    assert await lane.run(lambda: 1) == 1


@pytest.mark.anyio
async def test_cancellation_before_the_thread_begins_gives_the_token_back() -> None:
    lane = Lane("test", 1, 10)
    with anyio.fail_after(WAIT_SECONDS):
        # The scope is cancelled at each of the first points where the caller gives way:
        # while it takes the token, after that, while the thread is asked for, and so on.
        for rounds in range(8):
            async with anyio.create_task_group() as callers:
                callers.start_soon(lane.run, threading.get_ident)
                for _ in range(rounds):
                    await anyio.lowlevel.checkpoint()
                callers.cancel_scope.cancel()
            assert await lane.run(lambda: 1) == 1


@pytest.mark.anyio
async def test_a_stuck_thread_of_one_lane_does_not_hold_up_another(gate: Gate) -> None:
    stuck, other = Lane("same name", 1, 10), Lane("same name", 1, 10)
    with anyio.fail_after(WAIT_SECONDS):
        async with anyio.create_task_group() as group:
            group.start_soon(stuck.run, gate)
            await gate.begun()
            assert await other.run(lambda: 1) == 1
            gate.open()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_one_lane_serves_event_loops_one_after_another(backend: str) -> None:
    lane = Lane("test", 1, 10)

    async def use() -> int:
        return await lane.run(lambda: 1)

    assert [anyio.run(use, backend=backend) for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_thread_may_outlive_its_event_loop(backend: str, gate: Gate) -> None:
    lane = Lane("test", 1, 10)

    async def leave_a_thread_behind() -> None:
        async with anyio.create_task_group() as callers:
            callers.start_soon(lane.run, gate)
            await gate.begun()
            callers.cancel_scope.cancel()

    async def use() -> int:
        return await lane.run(lambda: 1)

    anyio.run(leave_a_thread_behind, backend=backend)
    assert not gate.ended.is_set()
    assert anyio.run(use, backend=backend) == 1  # the next loop has a token of its own
    gate.open()
    assert gate.ended.wait(WAIT_SECONDS)


@pytest.mark.anyio
async def test_general_workers_see_context_variables() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("seen")

    def function(suffix: str) -> tuple[str, int]:
        return variable.get() + suffix, threading.get_ident()

    value, thread = await run_in_worker(function, " there")
    assert value == "seen there"
    assert thread != threading.get_ident()


@pytest.mark.anyio
async def test_a_cancelled_call_of_a_general_worker_is_waited_for(gate: Gate) -> None:
    ended_first = None

    async def call() -> None:
        nonlocal ended_first
        try:
            await run_in_worker(gate)
            await anyio.lowlevel.checkpoint()
        finally:
            ended_first = gate.ended.is_set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await gate.begun()
        tasks.cancel_scope.cancel()
        gate.open()
    assert ended_first is True


@pytest.mark.anyio
async def test_inline_runs_on_the_event_loop_and_gives_the_token_back() -> None:
    lane = Lane("test", 1, 10)
    busy: list[int] = []

    def work() -> int:
        busy.append(lane.busy())
        return threading.get_ident()

    assert [lane.try_inline(work) for _ in range(2)] == [threading.get_ident()] * 2
    assert busy == [1, 1]
    assert lane.busy() == 0


@pytest.mark.anyio
@pytest.mark.parametrize("error", [NeedsThread(), KeyError("inside")])
async def test_inline_raises_what_the_function_raises(error: Exception) -> None:
    lane = Lane("test", 1, 10)

    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        lane.try_inline(fail)
    assert lane.busy() == 0


@pytest.mark.anyio
async def test_inline_needs_a_thread_where_the_lane_is_taken(gate: Gate) -> None:
    lane = Lane("test", 1, 10)
    with anyio.fail_after(WAIT_SECONDS):
        async with anyio.create_task_group() as callers:
            callers.start_soon(lane.run, gate)
            await gate.begun()
            with pytest.raises(NeedsThread):
                lane.try_inline(int)
            callers.cancel_scope.cancel()
        # The thread is still inside, and so has the lane.
        with pytest.raises(NeedsThread):
            lane.try_inline(int)
        gate.open()
        assert await lane.run(lambda: 1) == 1
    assert lane.try_inline(lambda: 2) == 2


@pytest.mark.anyio
async def test_a_call_that_came_while_another_ran_inline_is_served_after_it() -> None:
    lane = Lane("test", 1, 10)
    seen: list[int] = []
    async with anyio.create_task_group() as tasks:

        def work() -> None:
            tasks.start_soon(lane.run, lambda: seen.append(lane.threads))

        lane.try_inline(work)
    assert seen == [1]


@pytest.mark.anyio
async def test_calls_that_wait_in_threads_begin_without_the_event_loop(gate: Gate) -> None:
    lane, others = Lane("test", 1, 10, ahead=1), Gate()
    with anyio.fail_after(WAIT_SECONDS):
        async with anyio.create_task_group() as group:
            group.start_soon(lane.run, gate)
            await gate.begun()
            group.start_soon(lane.run, others)
            await anyio.wait_all_tasks_blocked()  # trio starts tasks in any order
            group.start_soon(lane.run, threading.get_ident)
            await anyio.wait_all_tasks_blocked()
            assert (lane.busy(), lane.waiting()) == (1, 2)
            assert not others.has_begun
            gate.open()
            # The event loop does nothing meanwhile.
            assert others.begins(WAIT_SECONDS)
            others.open()
    assert (lane.busy(), lane.waiting()) == (0, 0)


@pytest.mark.anyio
async def test_cancelled_while_it_waits_in_a_thread_it_does_not_begin(gate: Gate) -> None:
    lane, never = Lane("test", 1, 10, ahead=1), Gate()
    with anyio.fail_after(WAIT_SECONDS):
        async with anyio.create_task_group() as group:
            group.start_soon(lane.run, gate)
            await gate.begun()
            async with anyio.create_task_group() as callers:
                callers.start_soon(lane.run, never)
                await anyio.wait_all_tasks_blocked()
                callers.cancel_scope.cancel()
            assert lane.waiting() == 0
            gate.open()
        assert await lane.run(lambda: 1) == 1
    assert not never.has_begun
