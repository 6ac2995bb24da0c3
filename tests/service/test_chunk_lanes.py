"""Chunks whose places are known are read and decoded without a visit to the library lane."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from asgihive.concurrency import Lane
from asgihive.hdf5 import chunks, datasets
from asgihive.service import H5App
from tests.zoo.client import client

pytestmark = pytest.mark.anyio


def lanes_taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the lanes, by visit."""
    names: list[str] = []
    run = Lane.run

    async def noted(self: Lane, function: Callable[[], Any], *, patient: bool = False) -> Any:
        names.append(self.name)
        return await run(self, function, patient=patient)

    monkeypatch.setattr(Lane, "run", noted)
    return names


async def test_only_the_first_read_needs_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = np.arange(60_000, dtype="<i4").reshape(60, 1000)
    with h5py.File(tmp_path / "main.h5", "w") as file:
        file.create_dataset("gzip", data=content, chunks=(7, 300), compression="gzip")
        file.create_dataset("bits", data=content % 8, chunks=(7, 300), scaleoffset=0)
    names = lanes_taken(monkeypatch)
    async with client(H5App(tmp_path)) as asker:
        for path, later in (("/gzip", {"decoding"}), ("/bits", {"HDF5"})):
            for first in (0, 10, 20):
                names.clear()
                query = {"file": "main.h5", "path": path, "selection": f"{first}:{first + 5}"}
                answer = await asker.get("/data", params=query | {"format": "bin"})
                wanted = content[first : first + 5] % (8 if path == "/bits" else 1 << 30)
                assert answer.content == wanted.tobytes()
                assert set(names) == ({"HDF5"} if first == 0 else later)


@pytest.mark.parametrize("libver", ["earliest", "latest"])
async def test_chunks_are_found_without_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, libver: str
) -> None:
    content = np.arange(600_000, dtype="<i4").reshape(60, 10_000)
    with h5py.File(tmp_path / "main.h5", "w", libver=libver) as file:
        options = {"chunks": (7, 300), "maxshape": (60, None), "compression": "gzip"}
        file.create_dataset("gzip", data=content, **options)
    names = lanes_taken(monkeypatch)
    async with client(H5App(tmp_path)) as asker:
        query = {"file": "main.h5", "path": "/gzip"}
        # A file that was just written is opened again until its times are old enough.
        other = {"file": "main.h5", "path": "/"}
        assert (await asker.get("/meta", params=other)).status_code == 200
        names.clear()
        answer = await asker.get("/data", params=query | {"format": "bin"})
    assert answer.content == content.tobytes()
    assert names.count("HDF5") <= 1


@pytest.mark.parametrize("filters", [{}, {"scaleoffset": 0}])
@pytest.mark.slow_on_trio
async def test_very_many_chunks_give_their_lane_up_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filters: dict[str, Any]
) -> None:
    monkeypatch.setattr(chunks, "CHUNKS_AT_ONCE", 20)
    monkeypatch.setattr(datasets, "MANY_CHUNKS", 20)
    content = np.arange(200, dtype="<i4") % 8
    with h5py.File(tmp_path / "main.h5", "w") as file:
        file.create_dataset("data", data=content, chunks=(1,), **filters)
    names = lanes_taken(monkeypatch)
    async with client(H5App(tmp_path)) as asker:
        query = {"file": "main.h5", "path": "/data", "format": "bin"}
        answer = await asker.get("/data", params=query)
    assert answer.content == content.tobytes()
    assert names.count("HDF5" if filters else "decoding") >= 10
