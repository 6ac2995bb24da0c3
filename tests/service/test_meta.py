"""`/meta` that takes long: others are answered meanwhile, and it ends once no client waits."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import h5py
import pytest

from asgihive import concurrency
from asgihive.concurrency import Portions
from asgihive.hdf5 import sandbox
from asgihive.hdf5.entities import Describer
from asgihive.service import H5App
from tests.asgi.exchange import http, run
from tests.gates import Gate
from tests.service import servers
from tests.service.asking import ask, held

pytestmark = pytest.mark.anyio

CHILDREN = 50


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    with h5py.File(root / "x.h5", "w") as file:
        for number in range(CHILDREN):
            file[f"{number:03}"] = number
    with h5py.File(root / "other.h5", "w") as file:
        file["small"] = 5
    return root


class Children:
    """Holds up the descriptions of the tenth child and of ten further ones; counts all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tenth, *self.further = self.gates = [Gate() for _ in range(11)]
        self.described = 0
        describe = Describer.describe_child

        def noted(self_: Describer, *arguments: Any) -> Portions[dict[str, Any]]:
            self.described += 1
            if 0 <= self.described - 10 < len(self.gates):
                self.gates[self.described - 10]()
            return describe(self_, *arguments)

        monkeypatch.setattr(Describer, "describe_child", noted)


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Iterator[Children]:
    monkeypatch.setattr(concurrency, "PORTION_SECONDS", 0.0)
    # Else who asks for a file that was just written waits for the clock, and not for a lane.
    monkeypatch.setattr(sandbox, "FINE_TICK_NS", 0)
    children = Children(monkeypatch)
    yield children
    for gate in children.gates:
        gate.open()  # a failed test must not leave a thread behind


@pytest.mark.parametrize(
    "url",
    [
        "/meta?file=other.h5&path=small",
        "/attr?file=other.h5",
        "/paths?file=other.h5",
        "/data?file=other.h5&path=small",
        "/stats?file=other.h5&path=small",
    ],
)
async def test_others_are_answered_while_a_wide_group_is_described(
    root: Path, children: Children, url: str
) -> None:
    app = H5App(root)
    wide, other = http("/meta?file=x.h5"), http(url, client=("192.0.2.7", 1))
    with anyio.fail_after(servers.PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, app, wide)
            await children.tenth.begun()
            tasks.start_soon(run, app, other)
            await anyio.wait_all_tasks_blocked()
            assert not other.sent
            for gate, following in itertools.pairwise(children.gates):
                # Whatever else the other needs of the lane, it waits for now.
                await anyio.wait_all_tasks_blocked()
                gate.open()
                await following.begun()
            await anyio.wait_all_tasks_blocked()
            assert other.status == 200
            assert not wide.sent
            following.open()
    names = [each["name"] for each in wide.json["children"]]
    assert names == [f"{number:03}" for number in range(CHILDREN)]
    assert held(app) == 0


async def test_a_description_that_nobody_waits_for_ends_at_the_next_child(
    root: Path, children: Children
) -> None:
    app = H5App(root)
    with anyio.fail_after(servers.PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, app, "/meta")
            await children.tenth.begun()
            tasks.cancel_scope.cancel()
        children.tenth.open()
        await app.store.lanes.library.run(int)
    assert children.described == 10
    assert held(app) == 0


async def test_a_description_that_nobody_waits_for_ends_between_two_portions(
    root: Path, children: Children
) -> None:
    app = H5App(root)
    busy = Gate()
    try:
        with anyio.fail_after(servers.PATIENCE):
            async with anyio.create_task_group() as tasks:
                async with anyio.create_task_group() as asking:
                    asking.start_soon(ask, app, "/meta")
                    await children.tenth.begun()
                    tasks.start_soon(app.store.lanes.library.run, busy)
                    await anyio.wait_all_tasks_blocked()
                    children.tenth.open()
                    await busy.begun()
                    asking.cancel_scope.cancel()
                assert held(app) == 0
                busy.open()
            answer = await ask(app, "/meta", path="000")
    finally:
        busy.open()
    assert answer.status == 200
    assert children.described == 10
