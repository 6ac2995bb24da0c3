"""What a browser shows as a page is bounded; programs get what they ask for."""

import json
from pathlib import Path
from typing import Any

import h5py
import httpx
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from asgihive.encoders import Values, find_encoder
from asgihive.encoders.json import BY_NAME, Json
from asgihive.service import H5App, data
from asgihive.service.requests import is_navigation
from asgihive.settings import H5Settings
from tests.encoders.strategies import whole
from tests.zoo.client import client

pytestmark = pytest.mark.anyio

FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
CHROME = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;"
    "q=0.8,application/signed-exchange;v=b3;q=0.7"
)
LONG = 5_000_000  # 95 MB of JSON, and none is made here


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("data")
    with h5py.File(root / "x.h5", "w") as file:
        # Chunks that cannot be read: a request that tries gets another status.
        damaged = file.create_dataset(
            "long", (LONG,), "f8", chunks=(LONG // 2,), compression="gzip"
        )
        damaged.id.write_direct_chunk((0,), b"no gzip")
        file.create_dataset("table", (LONG, 2, 3), [("a", "i4"), ("b", "f4")], chunks=(1000, 2, 3))
        file["small"] = np.arange(1000)
        file.create_dataset("words", (LONG,), h5py.string_dtype(), chunks=(1000,))
    return root


async def get(app: H5App, path: str, accept: str, mode: str = "", **query: str) -> httpx.Response:
    headers = {"accept": accept, **({"sec-fetch-mode": mode} if mode else {})}
    async with client(app) as asker:
        params = {"file": "x.h5", "path": path, **query}
        return await asker.get("/data", params=params, headers=headers)


@pytest.mark.parametrize("accept", [FIREFOX, CHROME, "text/html"])
@pytest.mark.parametrize("mode", ["", "navigate"])
@pytest.mark.parametrize("path", ["long", "table", "words"])
@pytest.mark.slow_on_trio
async def test_a_page_that_is_too_large(root: Path, path: str, accept: str, mode: str) -> None:
    app = H5App(root)
    for query in ({}, {"format": "json"}, {"flatten": "true"}, {"compound": "object"}):
        answer = await get(app, path, accept, mode, **query)
        assert answer.status_code == 413
        message = answer.json()["message"]
        for each in ("max_points", "selection", "format=bin", str(64 << 20), "bytes of JSON"):
            assert each in message


async def test_the_ways_out(root: Path) -> None:
    app = H5App(root)
    part = await get(app, "table", FIREFOX, "navigate", selection="10")
    assert part.json() == [[[0, 0]] * 3] * 2
    last = await get(app, "long", FIREFOX, "navigate", selection="-5:")
    assert last.json() == [0] * 5
    view = await get(app, "long", FIREFOX, selection=f"{LONG // 2}:", max_points="10")
    assert view.json() == [0] * 10
    assert (await get(app, "small", CHROME, "navigate")).json() == list(range(1000))
    # Its values are read, though they cannot be.
    assert (await get(app, "long", FIREFOX, "navigate", format="bin")).status_code == 500


@pytest.mark.parametrize(
    ("accept", "mode"),
    [
        ("*/*", ""),
        ("*/*", "cors"),
        ("application/json", "navigate"),
        (FIREFOX, "cors"),
        (FIREFOX, "no-cors"),
        ("application/json, text/plain, */*", "cors"),
        ("application/json, text/html;q=0.9", ""),
        ("", ""),
    ],
)
async def test_programs_get_what_they_ask_for(root: Path, accept: str, mode: str) -> None:
    """Which is to read the values, so that here it is found that they are damaged."""
    assert (await get(H5App(root), "long", accept, mode)).status_code == 500


async def test_the_bound_is_what_counts(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = H5App(root)
    values = Values("small", (1000,), np.dtype("<i8"))
    size = Json().estimate_length(values)
    monkeypatch.setattr(data, "MAX_PAGE_BYTES", size)
    assert (await get(app, "small", FIREFOX)).status_code == 200
    monkeypatch.setattr(data, "MAX_PAGE_BYTES", size - 1)
    assert (await get(app, "small", FIREFOX)).status_code == 413
    assert (await get(app, "small", "*/*")).status_code == 200


async def test_a_view_may_be_too_large(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = H5App(root)
    monkeypatch.setattr(data, "MAX_PAGE_BYTES", 1000)
    for method, points, status in (
        ("mean", "500", 413),
        ("nearest", "500", 413),
        ("mean", "5", 200),
    ):
        answer = await get(app, "small", FIREFOX, max_points=points, method=method)
        assert answer.status_code == status


@pytest.mark.slow
async def test_in_a_process_of_its_own(root: Path) -> None:
    app = H5App(root, H5Settings(isolation="process"))
    async with app.running():
        assert (await get(app, "long", FIREFOX, "navigate")).status_code == 413
        assert (await get(app, "long", FIREFOX, "cors")).status_code == 500


def test_who_navigates() -> None:
    assert is_navigation(FIREFOX, None)
    assert is_navigation(CHROME, "navigate")
    assert not is_navigation(CHROME, "cors")
    assert not is_navigation("text/html;q=0.5, application/json", None)
    assert not is_navigation("text/html;q=0, */*", "navigate")


MIXED = np.dtype([("a", "f4"), ("b", "i2", (3,)), ("c", "?"), ("d", [("e", "S8")])])


@pytest.mark.parametrize("by_name_", [False, True])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "u1", "i2", "c16", "?", "S8", "U8", MIXED])
def test_the_estimate_is_near(dtype: Any, by_name_: bool) -> None:
    """For values as they usually are: within half and double."""
    encoder = BY_NAME if by_name_ else Json()
    array = np.zeros((40, 25), dtype)
    generator = np.random.default_rng(1)
    for name in (None,) if array.dtype.names is None else ("a", "b"):
        member = array if name is None else array[name]
        kind = member.dtype.kind
        if kind in "fc":
            member[...] = generator.normal(size=member.shape)
        elif kind in "iu":
            member[...] = generator.integers(0, np.iinfo(member.dtype).max, member.shape)
        elif kind == "b":
            member[...] = generator.integers(0, 2, member.shape)
        else:
            member[...] = "abcdefgh"
    size = len(whole(encoder, array))
    estimate = encoder.estimate_length(Values("", array.shape, array.dtype))
    assert size / 2 < estimate < size * 2
    json.loads(whole(encoder, array))


@given(st.lists(st.integers(0, 10**12), max_size=5).map(tuple))
def test_the_estimate_never_reads_or_fails(shape: tuple[int, ...]) -> None:
    encoder = find_encoder("json")
    assert isinstance(encoder, Json)
    for dtype in (MIXED, np.dtype("m8[s]"), np.dtype("V3"), np.dtype("g"), h5py.ref_dtype):
        assert encoder.estimate_length(Values("", shape, dtype)) >= 0
    assert encoder.estimate_length(Values("", None, MIXED)) >= 0
