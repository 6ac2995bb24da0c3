"""A format is added as CONTRIBUTING.md says: by one file in the folder of formats."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from asgihive import encoders
from asgihive.encoders import list_encoders
from asgihive.service import H5App
from tests.zoo.client import client

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"
VALUES = np.arange(200_000, dtype="<u2").reshape(400, 500)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("values", data=VALUES, chunks=(100, 500))
        file["names"] = ["a", "bc"]
    return tmp_path


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    section = CONTRIBUTING.read_text().partition("## Add a format")[2]
    code = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[0]
    folder = tmp_path / "formats"
    folder.mkdir()
    (folder / "hexadecimal.py").write_text(code)
    monkeypatch.setattr(encoders, "__path__", [*encoders.__path__, str(folder)])
    list_encoders.cache_clear()
    yield
    list_encoders.cache_clear()
    del sys.modules[f"{encoders.__name__}.hexadecimal"]


@pytest.mark.anyio
@pytest.mark.usefixtures("added")
async def test_it_is_answered_documented_and_refused(root: Path) -> None:
    query = {"file": "x.h5", "path": "/values", "format": "hex"}
    async with client(H5App(root)) as asker:
        answer = await asker.get("/data", params=query)
        assert answer.headers["content-type"] == "text/plain"
        assert bytes.fromhex(answer.text) == VALUES.tobytes()
        part = await asker.get("/data", params=query | {"selection": "3:5,::2"})
        assert bytes.fromhex(part.text) == VALUES[3:5, ::2].tobytes()
        refused = await asker.get("/data", params=query | {"path": "/names"})
        assert refused.status_code == 422
        assert "their elements are of variable length" in refused.json()["message"]
        assert "hex" in (await asker.get("/openapi.json")).text


@pytest.mark.anyio
async def test_it_is_not_there_without_the_file(root: Path) -> None:
    async with client(H5App(root)) as asker:
        answer = await asker.get("/data", params={"file": "x.h5", "path": "/", "format": "hex"})
    assert answer.status_code == 422
