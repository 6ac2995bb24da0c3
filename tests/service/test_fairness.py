"""One client with a hundred heavy requests, and another with a small one."""

from pathlib import Path
from typing import Any

import anyio
import h5py
import numpy as np
import pytest

from asgihive.service import H5App
from asgihive.settings import H5Settings
from tests.asgi.exchange import Exchange, http, run
from tests.gates import Gate
from tests.service import servers
from tests.service.bounds import bounded

pytestmark = pytest.mark.anyio

MANY = 100
BUSY, QUIET = "192.0.2.1", "2001:db8::2"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    with h5py.File(root / "x.h5", "w") as file:
        values = np.arange(100_000, dtype="<i4")
        file.create_dataset("chunked", data=values, chunks=(10_000,), compression="gzip")
        file["small"] = 5
    return root


class Clients:
    """Clients of one service; notes whose request is over in which order."""

    def __init__(self, app: H5App) -> None:
        self.app = app
        self.over: list[str] = []

    async def ask(self, host: str, url: str, port: int = 1, **scope: Any) -> Exchange:
        exchange = await run(self.app, http(url, client=(host, port), **scope))
        self.over.append(host)
        return exchange


# None of them is in memory, and each is the library lane's.
def heavy(number: int) -> str:
    return f"/attr?file=x.h5&path={'/' * (number + 1)}"


async def test_the_library_lane_is_shared_by_client(root: Path, gate: Gate) -> None:
    clients = Clients(H5App(root))
    with anyio.fail_after(servers.PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(clients.app.store.lanes.library.run, gate)
            await gate.begun()
            for number in range(MANY):
                # Each at a connection of its own: that is no advantage.
                tasks.start_soon(clients.ask, BUSY, heavy(number), number)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(clients.ask, QUIET, "/meta?file=x.h5&path=small")
            await anyio.wait_all_tasks_blocked()
            gate.open()
    assert len(clients.over) == MANY + 1
    assert clients.over.index(QUIET) <= 2


@pytest.mark.slow_on_trio
async def test_the_decode_lanes_are_shared_by_client(root: Path, gate: Gate) -> None:
    clients = Clients(H5App(root, H5Settings(decode_lanes=1, chunk_cache_bytes=0)))
    target = "/data?file=x.h5&path=chunked&format=bin"
    with anyio.fail_after(servers.PATIENCE):
        assert (await run(clients.app, http(target))).status == 200  # the dataset is open now
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(clients.app.store.lanes.decode.run, gate)
            await gate.begun()
            for number in range(MANY):
                tasks.start_soon(clients.ask, BUSY, target, number)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(clients.ask, QUIET, "/files")
            await anyio.wait_all_tasks_blocked()
            gate.open()
    assert len(clients.over) == MANY + 1
    # After the one that is ahead, the one whose turn it was, and one that was quicker in a thread.
    assert clients.over.index(QUIET) <= 3


async def test_a_client_that_fills_the_queue_is_the_one_refused(root: Path, gate: Gate) -> None:
    clients = Clients(bounded(root, max_waiting_requests=10))
    answers: list[Exchange] = []

    async def ask(host: str, url: str) -> None:
        answers.append(await clients.ask(host, url))

    with anyio.fail_after(servers.PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(clients.app.store.lanes.library.run, gate)
            await gate.begun()
            for number in range(MANY):
                tasks.start_soon(ask, BUSY, heavy(number))
            await anyio.wait_all_tasks_blocked()
            assert [each.status for each in answers] == [503] * (MANY - 10)
            tasks.start_soon(ask, QUIET, "/meta?file=x.h5")
            await anyio.wait_all_tasks_blocked()
            assert len(answers) == MANY - 9  # one more of the busy one's
            gate.open()
    by_host: dict[str, list[int]] = {BUSY: [], QUIET: []}
    for host, answer in zip(clients.over, answers, strict=True):
        by_host[host].append(answer.status)
    assert by_host[QUIET] == [200]
    assert sorted(by_host[BUSY]) == [200] * 9 + [503] * (MANY - 9)


async def test_a_batch_is_no_way_around(root: Path, gate: Gate) -> None:
    clients = Clients(H5App(root))
    asked = ",".join(
        f'{{"route":"attr","params":{{"file":"x.h5","path":"{"/" * n}"}}}}' for n in range(1, MANY)
    )
    with anyio.fail_after(servers.PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(clients.app.store.lanes.library.run, gate)
            await gate.begun()
            tasks.start_soon(lambda: clients.ask(BUSY, "/batch", method="POST", body=_list(asked)))
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(clients.ask, QUIET, "/meta?file=x.h5&path=small")
            await anyio.wait_all_tasks_blocked()
            gate.open()
    assert clients.over == [QUIET, BUSY]


def _list(members: str) -> bytes:
    return f"[{members}]".encode()


async def test_a_client_without_an_address(root: Path) -> None:
    """As at a Unix socket."""
    answer = await run(H5App(root), http("/meta?file=x.h5", client=None))
    assert answer.status == 200
