"""A value for each event loop."""

import anyio
import pytest

from asgihive.concurrency import LoopLocal


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_one_for_each_loop_and_variable(backend: str) -> None:
    first: LoopLocal[list[int]] = LoopLocal()
    second: LoopLocal[list[int]] = LoopLocal()

    async def ask() -> list[int]:
        found = first.get(list)
        found.append(1)
        assert first.get(list) is found == [1]
        assert second.get(list) == []
        return found

    assert anyio.run(ask, backend=backend) is not anyio.run(ask, backend=backend)
