"""Kept answers: where their files are looked at."""

import time
from pathlib import Path
from typing import Any

import pytest

from asgihive.asgi import BufferedResponse, Validators
from asgihive.concurrency import Lane
from asgihive.hdf5.identity import Identity
from asgihive.service import answers
from asgihive.service.answers import Answer, AnswerCache

pytestmark = pytest.mark.anyio


async def test_a_slow_file_system_is_asked_in_a_lane_until_it_is_quick_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    took = 0.0
    in_lane = 0
    lane = Lane("test", 1, 10)
    run = lane.run

    def slow(path: str) -> Identity | None:
        clock[0] += took
        return None

    async def counting(self: Lane, *arguments: Any, **options: Any) -> Any:
        nonlocal in_lane
        in_lane += 1
        return await run(*arguments, **options)

    monkeypatch.setattr(answers, "identity_on_loop", slow)
    monkeypatch.setattr(Lane, "run", counting)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    cache = AnswerCache(1 << 20, lane)
    body = BufferedResponse(b"x")
    cache.keep(("key",), Answer(Validators(), {str(tmp_path): None}, is_large=False, body=body))

    async def find(times: int) -> int:
        """How many of them were looked for in the lane."""
        before = in_lane
        for _ in range(times):
            assert await cache.find(("key",)) is not None
        return in_lane - before

    assert await find(3) == 0
    took = 0.006
    assert await find(5) == 4  # the first one told
    took = 0.0001
    assert await find(100) == answers._QUICK_AGAIN
    took = 0.006
    assert await find(2) == 1
    took = 0.0001
    assert await find(answers._QUICK_AGAIN - 1) == answers._QUICK_AGAIN - 1
    took = 0.006
    assert await find(1) == 1
    took = 0.0001
    assert await find(100) == answers._QUICK_AGAIN
