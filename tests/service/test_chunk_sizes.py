"""Chunks and elements that would fill the memory are refused, before anything is decoded."""

import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t

from asgihive.service import H5App
from asgihive.settings import H5Settings
from tests.zoo.client import client

pytestmark = pytest.mark.anyio

LIMIT = 1 << 20
BOMB_BYTES = 1 << 31

SETTINGS = H5Settings(max_chunk_bytes=LIMIT)
ROUTES: list[tuple[str, dict[str, str]]] = [
    ("/data", {"selection": "0"}),
    ("/data", {"selection": "0", "format": "bin"}),
    ("/data", {"max_points": "10", "selection": "0:1000"}),
    ("/stats", {"selection": "0:10"}),
    ("/histogram", {"selection": "0:10"}),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("chunk_sizes")
    with h5py.File(root / "x.h5", "w") as file:
        _create_bomb(file)
        fits = np.zeros(LIMIT, "u1")
        file.create_dataset("fits", data=fits, chunks=(LIMIT,), compression="gzip")
        over = np.arange(LIMIT + 1, dtype="u4").astype("u1")
        file.create_dataset("over", data=over, chunks=(LIMIT + 1,), compression="gzip")
        file.create_dataset("unfiltered", data=over, chunks=(LIMIT + 1,))
        file.create_dataset("shuffled", data=over, chunks=(LIMIT + 1,), shuffle=True)
        layout = h5py.VirtualLayout((2000,), "u1")
        layout[:1000] = h5py.VirtualSource(".", "/over", (LIMIT + 1,))[:1000]
        file.create_virtual_dataset("virtual", layout)
        for name, base in {"array": h5t.STD_U8LE, "compound": _pair()}.items():
            type_id = h5t.array_create(base, (LIMIT + 1,))
            h5d.create(file.id, name.encode(), type_id, h5s.create_simple((2,)))
        text = h5t.C_S1.copy()
        text.set_size(LIMIT + 1)
        h5d.create(file.id, b"text", text, h5s.create_simple((2,)))
    return root


def _pair() -> Any:
    return h5t.py_create(np.dtype([("a", "i1"), ("b", "<f8")], align=True), logical=True)


def _create_bomb(file: Any) -> None:
    """A chunk of two gibibytes in some kilobytes: zeros deflated, and deflated again."""
    packer = zlib.compressobj(9)
    # After a full flush a piece can be repeated.
    begin = packer.flush(zlib.Z_FULL_FLUSH)
    piece = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    once = begin + piece * (BOMB_BYTES >> 20) + packer.flush()
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_chunk((BOMB_BYTES,))
    for _ in range(2):
        properties.set_filter(1, 0, (9,))
    space = h5s.create_simple((BOMB_BYTES,))
    bomb = h5d.create(file.id, b"bomb", h5t.STD_U8LE, space, properties)
    bomb.write_direct_chunk((0,), zlib.compress(once, 9))


@pytest.mark.parametrize("path", ["bomb", "over", "shuffled", "virtual"])
@pytest.mark.slow_on_trio
async def test_a_large_chunk_is_refused_whatever_is_asked(root: Path, path: str) -> None:
    async with client(H5App(root, SETTINGS)) as http:
        for route, query in ROUTES * 2:
            tracemalloc.start()
            try:
                answer = await http.get(route, params={"file": "x.h5", "path": path} | query)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert answer.status_code == 413, answer.text
            message = answer.json()["message"]
            size = BOMB_BYTES if path == "bomb" else LIMIT + 1
            assert f"{size} bytes of memory, the limit is {LIMIT}" in message
            assert "Each chunk of" in message
            assert "h5repack" in message
            assert "`max_chunk_bytes`" in message
            assert peak < LIMIT
        described = await http.get("/meta", params={"file": "x.h5", "path": path})
        assert described.status_code == 200


@pytest.mark.parametrize("path", ["array", "compound", "text"])
async def test_a_large_element_is_refused(root: Path, path: str) -> None:
    async with client(H5App(root, SETTINGS)) as http:
        for query in ({"selection": "0"}, {}):
            answer = await http.get("/data", params={"file": "x.h5", "path": path} | query)
            assert answer.status_code == 413, answer.text
            assert f"Each element of /{path} of x.h5 takes" in answer.json()["message"]
        described = await http.get("/meta", params={"file": "x.h5", "path": path})
        assert described.status_code == 200


async def test_what_is_not_over_it_is_read(root: Path) -> None:
    async with client(H5App(root, SETTINGS)) as http:
        for path, expected in {"fits": 0, "unfiltered": 7}.items():
            query = {"file": "x.h5", "path": path, "selection": "7"}
            answer = await http.get("/data", params=query)
            assert (answer.status_code, answer.json()) == (200, expected)
    async with client(H5App(root, H5Settings(max_chunk_bytes=LIMIT + 1))) as http:
        answer = await http.get("/data", params={"file": "x.h5", "path": "over", "selection": "7"})
        assert (answer.status_code, answer.json()) == (200, 7)
