"""What is in memory is answered on the event loop, without a thread."""

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from asgihive import H5App
from asgihive.concurrency import Lane
from asgihive.hdf5 import sandbox
from asgihive.hdf5.links import ENTERED_INLINE
from asgihive.service import store
from tests.service.asking import ask

pytestmark = pytest.mark.anyio


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for number in range(4):
            group = file.create_group(f"entry/group {number}")
            group.attrs["NX_class"] = "NXdata"
            data = group.create_dataset("data", data=np.arange(100.0) + number)
            data.attrs["units"] = np.bytes_("mm")
            group.create_dataset("chunked", data=np.arange(100), chunks=(10,), compression="gzip")
            group["title"] = f"title {number}"
    return tmp_path


@pytest.fixture
def in_threads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the lanes, by visit of a thread."""
    names: list[str] = []
    run = Lane.run

    async def noted(self: Lane, *given: Any, **named: Any) -> Any:
        names.append(self.name)
        return await run(self, *given, **named)

    monkeypatch.setattr(Lane, "run", noted)
    monkeypatch.setattr(store, "INLINE_SECONDS", 10.0)  # blockbuster makes each call slow
    monkeypatch.setattr(sandbox, "SLOW_STAT_SECONDS", math.inf)  # a busy machine is no slow disk
    return names


async def test_an_open_file_needs_no_thread(root: Path, in_threads: list[str]) -> None:
    app = H5App(root)
    assert (await ask(app, "/meta")).status == 200
    in_threads.clear()
    for number in range(4):
        group = f"entry/group {number}"
        described = (await ask(app, "/meta", path=group)).json
        assert [each["name"] for each in described["children"]] == ["chunked", "data", "title"]
        assert (await ask(app, "/attr", path=group)).json == {"NX_class": "NXdata"}
        assert (await ask(app, "/attr", path=f"{group}/data")).json == {"units": "mm"}
        assert (await ask(app, "/meta", path=f"{group}/data")).json["shape"] == [100]
        answer = await ask(app, "/data", path=f"{group}/data", format="bin")
        assert answer.body == (np.arange(100.0) + number).tobytes()
        assert (await ask(app, "/data", path=f"{group}/title")).json == f"title {number}"
        answer = await ask(app, "/data", path=f"{group}/chunked", selection="5:15")
        assert answer.json == list(range(5, 15))
        assert (await ask(app, "/meta", path=f"{group}/nothing")).status == 404
    # Of 32: now and then the kernel has a page in memory, and does not give it without waiting.
    assert len(in_threads) <= 3


@pytest.mark.parametrize("by_link", [False, True])
async def test_a_long_way_is_gone_in_a_thread(
    tmp_path: Path, in_threads: list[str], *, by_link: bool
) -> None:
    way = "/".join("a" * (ENTERED_INLINE + 1))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_group(way).attrs["depth"] = 1
        file["link"] = h5py.SoftLink(way)
    app = H5App(tmp_path)
    # A file that was just written is opened again until its times are old enough.
    assert (await ask(app, "/meta")).status == 200
    in_threads.clear()
    assert (await ask(app, "/attr", path="link" if by_link else way)).json == {"depth": 1}
    assert in_threads == ["HDF5"]
    in_threads.clear()
    assert (await ask(app, "/meta", path="a/a")).status == 200
    assert not in_threads


async def test_what_is_not_in_memory_is_read_by_a_thread(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = H5App(root)
    assert (await ask(app, "/meta")).status == 200

    def nothing(*_: Any) -> int:
        raise BlockingIOError

    monkeypatch.setattr("os.preadv", nothing)
    answer = await ask(app, "/data", path="entry/group 1/data", format="bin")
    assert answer.body == (np.arange(100.0) + 1).tobytes()
