"""Chunks whose places are known are read and decoded without a visit to the library lane."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from asgihive.lanes import Lane
from asgihive.service import H5App
from tests.zoo.client import client

pytestmark = pytest.mark.anyio


async def test_only_the_first_read_needs_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = np.arange(60_000, dtype="<i4").reshape(60, 1000)
    with h5py.File(tmp_path / "main.h5", "w") as file:
        file.create_dataset("gzip", data=content, chunks=(7, 300), compression="gzip")
        file.create_dataset("bits", data=content % 8, chunks=(7, 300), scaleoffset=0)
    names: list[str] = []
    run = Lane.run

    async def noted(self: Lane, function: Callable[[], Any], *, patient: bool = False) -> Any:
        names.append(self.name)
        return await run(self, function, patient=patient)

    monkeypatch.setattr(Lane, "run", noted)
    async with client(H5App(tmp_path)) as asker:
        for path, later in (("/gzip", {"decoding"}), ("/bits", {"HDF5"})):
            for first in (0, 10, 20):
                names.clear()
                query = {"file": "main.h5", "path": path, "selection": f"{first}:{first + 5}"}
                answer = await asker.get("/data", params=query | {"format": "bin"})
                wanted = content[first : first + 5] % (8 if path == "/bits" else 1 << 30)
                assert answer.content == wanted.tobytes()
                assert set(names) == ({"HDF5"} if first == 0 else later)
