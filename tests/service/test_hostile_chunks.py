"""Crafted chunks over HTTP: an error that names the chunk, and never a byte of the heap."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asgihive.service import H5App
from tests.zoo import chunks
from tests.zoo.client import client

pytestmark = pytest.mark.anyio

CASES = chunks.crafted()
NAMES = [*(case.name for case in CASES), "unfiltered_short"]

# Beside the chunk and its like: what any request takes.
PEAK_BYTES = 4 << 20


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root: Path = tmp_path_factory.mktemp("hostile_chunks")
    chunks.write(root / "crafted.h5", CASES)
    return H5App(root)


def polluted() -> None:
    """Leave recognisable bytes in the free memory of the heap."""
    junk = [b"\xabSECRET\xab" * (chunks.RAW // 8) for _ in range(200)]
    del junk


@pytest.mark.parametrize("route", ["/data", "/stats"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow_on_trio
async def test_a_crafted_chunk_is_damaged_data(app: Any, name: str, route: str) -> None:
    polluted()
    query = {"file": "crafted.h5", "path": f"/{name}"}
    if route == "/data":
        query["format"] = "bin"
    async with client(app) as http:
        tracemalloc.start()
        try:
            answers = [await http.get(route, params=query) for _ in range(2)]
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    for answer in answers:
        assert answer.status_code == 500, answer.text[:500]
        assert "chunk (1,)" in answer.text, answer.text
        assert "SECRET" not in answer.text
    assert peak < PEAK_BYTES


async def test_what_surrounds_it_is_served(app: Any) -> None:
    async with client(app) as http:
        for name in NAMES:
            query = {"file": "crafted.h5", "path": f"/{name}", "selection": "0:4096"}
            answer = await http.get("/data", params=query | {"format": "bin"})
            assert (answer.status_code, answer.content) == (200, bytes(chunks.RAW))
        query = {"file": "crafted.h5", "path": "/whole", "format": "bin"}
        answer = await http.get("/data", params=query)
    np.testing.assert_array_equal(np.frombuffer(answer.content, "<i4")[4096:], chunks.VALUES)
