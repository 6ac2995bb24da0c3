"""The padding of compounds is zero in every answer, whatever the file has there."""

from pathlib import Path
from typing import Any

import h5py
import msgpack
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t

from asgihive.service import H5App
from asgihive.settings import H5Settings
from tests.zoo.client import Asker, client

pytestmark = pytest.mark.anyio

JUNK = 0xAA
COUNT = 600

INNER = np.dtype([("a", "i1"), ("b", "<i4")], align=True)
ALIGNED = np.dtype(
    [("flag", "i1"), ("value", "<f8"), ("in", INNER, (2,)), ("id", "i1")], align=True
)
SWAPPED = np.dtype(
    {"names": ["x", "y"], "formats": [">i2", "S3"], "offsets": [2, 9], "itemsize": 17}
)
LONG = np.dtype(np.longdouble)


def _stored(dtype: np.dtype[Any]) -> Any:
    """Elements whose padding is junk, and whose values are not."""
    elements = np.frombuffer(bytearray([JUNK]) * (COUNT * dtype.itemsize), dtype)
    if dtype.names is None:
        elements[...] = np.arange(COUNT)
    else:
        for name in dtype.names:
            elements[name] = np.zeros((), dtype[name].base)
        elements[dtype.names[0]] = np.arange(COUNT) % 100
    return elements


def _expected(elements: Any) -> Any:
    """The same values in zeros."""
    clean = np.zeros(elements.shape, elements.dtype)
    if elements.dtype.names is None:
        clean.view("u1").reshape(-1, 16)[:, :10] = elements.view("u1").reshape(-1, 16)[:, :10]
    else:
        for name in elements.dtype.names:
            clean[name] = elements[name]
    return clean


TYPES: dict[str, np.dtype[Any]] = {"aligned": ALIGNED, "swapped": SWAPPED}
if np.finfo(np.longdouble).nmant == 63:
    TYPES |= {"long": LONG}

SELECTIONS = ("", "3:90", "::3", "5")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("padding")
    with h5py.File(root / "x.h5", "w") as file:
        for name, dtype in TYPES.items():
            _write(file.create_group(name), root, _stored(dtype))
        file.attrs["one"] = _stored(LONG)[3]
        file.attrs["many"] = _stored(LONG)[:7]
    return root


def _write(group: Any, root: Path, elements: Any) -> None:
    dtype, name = elements.dtype, group.name[1:]
    group["contiguous"] = elements
    group.create_dataset("chunked", data=elements, chunks=(64,))
    group.create_dataset("deflate", data=elements, chunks=(64,), compression="gzip", shuffle=True)
    group.create_dataset("one_chunk", data=elements, chunks=(COUNT,), compression="gzip")
    group.create_dataset("checked", data=elements, chunks=(64,), fletcher32=True)
    part = group.create_dataset("part", (COUNT,), dtype, chunks=(64,))
    part[:COUNT] = elements
    (root / f"{name}.bin").write_bytes(elements.tobytes())
    external = [(str(root / f"{name}.bin"), 0, elements.nbytes)]
    group.create_dataset("external", (COUNT,), dtype, external=external)
    compact = h5p.create(h5p.DATASET_CREATE)
    compact.set_layout(h5d.COMPACT)
    space, type_id = h5s.create_simple((COUNT,)), h5t.py_create(dtype, logical=True)
    stored = h5d.create(group.id, b"compact", type_id, space, compact)
    stored.write(h5s.ALL, h5s.ALL, elements, mtype=type_id)
    for source in ("contiguous", "deflate"):
        layout = h5py.VirtualLayout((COUNT,), dtype)
        layout[:300] = h5py.VirtualSource(".", f"/{name}/{source}", (COUNT,))[:300]
        layout[300:] = h5py.VirtualSource(".", f"/{name}/{source}", (COUNT,))[300:]
        group.create_virtual_dataset(f"virtual_{source}", layout)


WAYS = (
    *("contiguous", "chunked", "deflate", "one_chunk", "checked", "part"),
    *("external", "compact", "virtual_contiguous", "virtual_deflate"),
)


@pytest.mark.parametrize("cache", [0, 1 << 20])
@pytest.mark.parametrize("name", TYPES)
@pytest.mark.slow_on_trio
async def test_bytes_have_zeros_as_their_padding(root: Path, name: str, cache: int) -> None:
    size = TYPES[name].itemsize
    expected = _expected(_stored(TYPES[name])).view("u1").reshape(COUNT, size)
    asker = Asker(H5App(root, H5Settings(chunk_cache_bytes=cache)))
    for way in WAYS:
        for selection in SELECTIONS:
            query = {"file": "x.h5", "path": f"/{name}/{way}", "format": "bin"}
            query["selection"] = selection
            index = eval(f"np.s_[{selection}]") if selection else ...
            for _ in range(3):  # of the file, of the cache, of the answer that is kept
                answer = await asker.get("/data", params=query)
                assert answer.status_code == 200, (way, answer.text)
                found = np.frombuffer(answer.content, "u1").reshape(-1, size)
                wanted = expected[index].reshape(-1, size)
                np.testing.assert_array_equal(found, wanted, f"{way} {selection}")


@pytest.mark.parametrize("way", ["contiguous", "deflate"])
async def test_parts_of_a_body_have_zeros_too(root: Path, way: str) -> None:
    expected = _expected(_stored(ALIGNED)).tobytes()
    query = {"file": "x.h5", "path": f"/aligned/{way}", "format": "bin"}
    async with client(H5App(root)) as http:
        for first, last in [(0, 0), (1, 7), (33, 4000), (4001, len(expected) - 1)]:
            headers = {"range": f"bytes={first}-{last}"}
            answer = await http.get("/data", params=query, headers=headers)
            assert answer.status_code == 206
            assert answer.content == expected[first : last + 1]


@pytest.mark.skipif("long" not in TYPES, reason="its long doubles have no padding")
@pytest.mark.parametrize("method", ["min", "max", "minmax", "nearest"])
@pytest.mark.parametrize("format_", ["bin", "npy", "msgpack"])
async def test_views_of_long_doubles(root: Path, method: str, format_: str) -> None:
    query = {"file": "x.h5", "path": "/long/deflate", "format": format_, "max_points": "50"}
    async with client(H5App(root)) as http:
        answer = await http.get("/data", params=query | {"method": method})
    assert answer.status_code == 200, answer.text
    body = answer.content
    if format_ == "msgpack":
        body = msgpack.unpackb(body, strict_map_key=False)[b"data"]
    elif format_ == "npy":
        body = body[-(len(body) - 128) :]
    assert not np.frombuffer(body, "u1").reshape(-1, 16)[:, 10:].any()


@pytest.mark.skipif("long" not in TYPES, reason="its long doubles have no padding")
async def test_documents_with_long_doubles(root: Path) -> None:
    async with client(H5App(root)) as http:
        query = {"file": "x.h5", "path": "/", "format": "msgpack"}
        answer = await http.get("/attr", params=query)
    found = msgpack.unpackb(answer.content, strict_map_key=False)
    for name in ("one", "many"):
        assert not np.frombuffer(found[name][b"data"], "u1").reshape(-1, 16)[:, 10:].any()
