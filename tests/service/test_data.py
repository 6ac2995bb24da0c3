"""`/data` that takes longer than `read_timeout_seconds`: before its first byte and after it."""

from pathlib import Path
from typing import Any

import anyio
import h5py
import numpy as np
import pytest

from asgihive.service import H5App
from asgihive.settings import H5Settings
from tests.asgi.exchange import http, run
from tests.gates import Gate
from tests.service import servers
from tests.service.asking import ask, held
from tests.service.bounds import bounded

pytestmark = pytest.mark.anyio

VALUES = np.arange(500_000, dtype="<i8")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    with h5py.File(root / "x.h5", "w") as file:
        file.create_dataset("chunked", data=VALUES, chunks=(50_000,))
    with h5py.File(root / "other.h5", "w") as file:
        file["small"] = 5
    return root


async def test_a_client_may_take_longer_than_the_time_for_the_first_byte(
    root: Path, gate: Gate
) -> None:
    app = bounded(root, H5Settings(read_timeout_seconds=0.2), read_ahead_bytes=1 << 16)
    slow = http("/data?file=x.h5&path=chunked&format=bin")
    begun, go_on = anyio.Event(), anyio.Event()

    async def send(message: Any) -> None:
        await slow.send(message)
        if len(slow.sent) == 2:
            begun.set()
            await go_on.wait()

    with anyio.fail_after(servers.PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app, slow.scope, slow.receive, send)
            await begun.wait()
            async with anyio.create_task_group() as others:
                others.start_soon(app.store.lanes.library.run, gate)
                await gate.begun()
                # By then, the time is over for what began before.
                assert (await ask(app, "/meta", file="other.h5")).status == 504
                gate.open()
            go_on.set()
    assert slow.complete
    assert slow.body == VALUES.tobytes()
    assert held(app) == 0


async def test_waiting_for_a_turn_counts(root: Path, gate: Gate) -> None:
    app = H5App(root, H5Settings(read_timeout_seconds=0.2))
    answers = [http(f"/data?file=x.h5&path=chunked&selection={number}") for number in range(3)]
    with anyio.fail_after(servers.PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app.store.lanes.library.run, gate)
            await gate.begun()
            async with anyio.create_task_group() as waiting:
                for each in answers:
                    waiting.start_soon(run, app, each)
            assert [each.status for each in answers] == [504] * 3
            assert app.store.lanes.library.waiting() == 0
            gate.open()
    assert held(app) == 0
    assert (await ask(app, "/data", path="chunked", selection="7")).json == 7
