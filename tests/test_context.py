"""Stages: what is counted to which, and by whom."""

import threading
from collections.abc import Iterator

import anyio
import pytest

from asgihive import concurrency as module
from asgihive.concurrency import (
    STAGES,
    Lane,
    RequestContext,
    Timings,
    add_time,
    get_spent,
    measured,
    request_context,
)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that goes when it is told to."""
    clock = [0.0]
    monkeypatch.setattr(module, "perf_counter", lambda: clock[0])
    return clock


@pytest.fixture
def mine() -> Iterator[Timings]:
    mine: Timings = {}
    token = request_context.set(RequestContext(timings=mine))
    yield mine
    request_context.reset(token)


def test_nothing_is_counted_where_nobody_asks(now: list[float]) -> None:
    assert request_context.get().timings is None
    with measured("read"):
        now[0] += 1
    assert request_context.get().timings is None


def test_times_of_a_stage_add_up(now: list[float], mine: Timings) -> None:
    @measured("decode")
    def decode(seconds: float) -> float:
        now[0] += seconds
        return seconds

    assert decode(1) + decode(2) == 3
    assert get_spent(mine) == {"decode": 3}


def test_what_is_measured_inside_counts_once(now: list[float], mine: Timings) -> None:
    with measured("decode"):
        now[0] += 1
        with measured("read"):
            now[0] += 2
            with measured("open"):
                now[0] += 4
        with measured("read"):
            now[0] += 8
        now[0] += 16
    assert get_spent(mine) == {"open": 4, "read": 10, "decode": 17}


def test_what_fails_took_time_as_well(now: list[float], mine: Timings) -> None:
    def fail() -> None:
        with measured("open"), measured("read"):
            now[0] += 1
            raise EOFError

    with pytest.raises(EOFError):
        fail()
    assert get_spent(mine) == {"read": 1}


def test_stages_are_in_order(mine: Timings) -> None:
    for stage in reversed(STAGES):
        add_time(mine, stage, 1)
    assert tuple(get_spent(mine)) == STAGES


def test_threads_count_together(mine: Timings) -> None:
    def work() -> None:
        for _ in range(1000):
            add_time(mine, "decode", 1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert get_spent(mine) == {"decode": 4000}


@pytest.mark.anyio
async def test_a_lane_counts_how_long_its_calls_wait() -> None:
    lane = Lane("test", 1, 10)
    first: Timings = {}
    second: Timings = {}
    running, proceed = threading.Event(), threading.Event()

    async def call(mine: Timings, work: threading.Event | None) -> None:
        request_context.set(RequestContext(timings=mine))

        def in_thread() -> None:
            assert request_context.get().timings is mine
            running.set()
            if work is not None:
                assert work.wait(10)

        await lane.run(in_thread)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call, first, proceed)
        await anyio.to_thread.run_sync(running.wait)
        tasks.start_soon(call, second, None)
        while not lane.waiting():
            await anyio.lowlevel.checkpoint()
        began = anyio.current_time()
        while anyio.current_time() < began + 0.02:
            await anyio.lowlevel.checkpoint()
        proceed.set()
    assert get_spent(second)["queue"] > 0.02
    assert get_spent(first)["queue"] < get_spent(second)["queue"]


@pytest.mark.anyio
async def test_requests_side_by_side_count_for_themselves() -> None:
    lane = Lane("test", 4, 100)
    counted: list[Timings] = []

    async def call(number: int) -> None:
        mine: Timings = {}
        request_context.set(RequestContext(timings=mine))
        await lane.run(lambda: [measured("read")(lambda: None)() for _ in range(number)])
        await lane.run(lambda: add_time(request_context.get().timings, "plan", number))  # type: ignore[arg-type]  # set
        counted.append(mine)

    async with anyio.create_task_group() as tasks:
        for number in range(1, 21):
            tasks.start_soon(call, number)
    assert sorted(get_spent(each)["plan"] for each in counted) == list(range(1, 21))
