"""A bound of time that is set at the first wait: as if the work were awaited itself."""

import math
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from asgihive.hive.requests import bound_once_it_waits

pytestmark = pytest.mark.anyio


class _Asks:
    """Awaiting it asks the loop for something, and gives what the loop sends."""

    def __init__(self, question: str) -> None:
        self._question = question

    def __await__(self) -> Generator[str, str, str]:
        return (yield self._question)


async def test_what_does_not_wait_has_no_deadline() -> None:
    done = []

    async def work() -> None:
        done.append(True)

    with anyio.CancelScope(shield=True) as scope:
        await bound_once_it_waits(work(), scope, 1)
    assert done
    assert scope.deadline == math.inf


async def test_the_deadline_counts_from_the_first_wait() -> None:
    async def work() -> None:
        await anyio.lowlevel.checkpoint()
        deadlines.append(scope.deadline)
        await anyio.lowlevel.checkpoint()
        deadlines.append(scope.deadline)

    deadlines: list[float] = []
    before = anyio.current_time()
    with anyio.CancelScope(shield=True) as scope:
        await bound_once_it_waits(work(), scope, 60)
    first, second = deadlines
    assert before + 60 <= first == second <= anyio.current_time() + 60


@pytest.mark.parametrize("around", [lambda: anyio.fail_after(60), anyio.create_task_group])
async def test_work_may_wait_inside_of_scopes_of_its_own(around: Callable[[], Any]) -> None:
    """The deadline passes while they are open: they are closed in order."""
    seen: list[str] = []

    async def work() -> None:
        try:
            with anyio.CancelScope():
                if isinstance(opened := around(), anyio.abc.TaskGroup):
                    async with opened:
                        await anyio.sleep_forever()
                with opened:
                    await anyio.sleep_forever()
        finally:
            seen.append("closed")

    with anyio.CancelScope(shield=True) as scope:
        await bound_once_it_waits(work(), scope, 0.01)
    assert scope.cancelled_caught
    assert seen == ["closed"]


async def test_an_error_of_the_work_is_raised() -> None:
    async def work(wait: Callable[[], Awaitable[None]] | None) -> None:
        if wait is not None:
            await wait()
        raise ZeroDivisionError

    for wait in (None, anyio.lowlevel.checkpoint):
        with anyio.CancelScope(shield=True) as scope, pytest.raises(ZeroDivisionError):
            await bound_once_it_waits(work(wait), scope, 60)


async def test_what_the_loop_sends_and_throws_reaches_the_work() -> None:
    heard: list[object] = []

    async def work() -> None:
        heard.append(await _Asks("one"))
        try:
            await _Asks("two")
        except KeyError as error:
            heard.append(error)
        heard.append(await _Asks("three"))

    error = KeyError("thrown")
    # What the loop sees is a generator, though it is typed as an awaitable.
    driven: Any = bound_once_it_waits(work(), anyio.CancelScope(), 60)
    assert driven.send(None) == "one"
    assert driven.send("1") == "two"
    assert driven.throw(error) == "three"
    with pytest.raises(StopIteration):
        driven.send("3")
    assert heard == ["1", error, "3"]


async def test_work_that_is_given_up_is_closed() -> None:
    seen: list[str] = []

    async def work() -> None:
        try:
            await _Asks("one")
        finally:
            seen.append("closed")

    driven: Any = bound_once_it_waits(work(), anyio.CancelScope(), 60)
    driven.send(None)
    driven.close()
    assert seen == ["closed"]
