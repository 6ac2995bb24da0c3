"""`/data` with `max_points` or `shape`, and `/histogram`: NumPy's own reductions are the oracle."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgihive import H5App, H5Settings
from asgihive.hdf5.filters.pipeline import Pipeline
from tests.asgi.exchange import http
from tests.efforts import at_most
from tests.service.bounds import bounded
from tests.zoo.client import client

pytestmark = pytest.mark.anyio

REDUCE: dict[str, Callable[[Any], Any]] = {
    "mean": np.nanmean,
    "min": np.nanmin,
    "max": np.nanmax,
    "minmax": lambda bins: (np.nanmin(bins), np.nanmax(bins)),
    "nearest": lambda bins: bins.reshape(-1)[0],
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    root = tmp_path_factory.mktemp("views")
    random = np.random.default_rng(11)
    curve = random.normal(size=10_007)
    curve[17] = np.nan
    values = {
        "curve": curve,
        "image": random.integers(0, 1000, (97, 113)).astype("<u2"),
        "cube": random.integers(-1000, 1000, (7, 31, 29)).astype(">i4"),
    }
    with h5py.File(root / "x.h5", "w") as file:
        file["curve"] = values["curve"]
        file.create_dataset("image", data=values["image"], chunks=(10, 50), compression="gzip")
        file.create_dataset("cube", data=values["cube"], chunks=(2, 9, 8))
        file["text"] = ["a", "b", "c"]
        file["empty"] = h5py.Empty("<f8")
        file["scalar"] = np.float32(2.5)
        file["none"] = np.zeros((0, 3))
    return root, values


@pytest.fixture
def app(stored: tuple[Path, dict[str, Any]]) -> H5App:
    return H5App(stored[0])


async def ask(app: H5App, route: str = "/data", **params: Any) -> Any:
    async with client(app) as asks:
        return await asks.get(route, params={"file": "x.h5", **params})


def reduced(values: Any, factors: tuple[int, ...], method: str) -> Any:
    """Bin by bin, as the words of the contract have it."""
    counts = [-(-n // factor) for n, factor in zip(values.shape, factors, strict=True)]
    points = [
        REDUCE[method](
            values[tuple(slice(i * f, (i + 1) * f) for i, f in zip(position, factors, strict=True))]
        )
        for position in np.ndindex(*counts)
    ]
    return np.array(points).reshape(*counts, *np.shape(points[0]))


@settings(max_examples=at_most(40), deadline=None)
@given(
    name=st.sampled_from(["curve", "image", "cube"]),
    method=st.sampled_from(sorted(REDUCE)),
    points=st.integers(1, 3000),
    data=st.data(),
)
def test_any_view_is_what_numpy_makes_of_its_bins(
    stored: tuple[Path, dict[str, Any]], name: str, method: str, points: int, data: st.DataObject
) -> None:
    root, values = stored
    text = data.draw(st.sampled_from(["", "1:,::2", "3", "...,5:20"] if name != "curve" else [""]))
    whole = eval(f"values[{text or '...'}]", {"values": values[name]})
    asked: dict[str, Any] = {"max_points": points}
    if data.draw(st.booleans()):
        asked = {"shape": ",".join(str(data.draw(st.integers(1, 40))) for _ in whole.shape)}
    app = bounded(root, read_ahead_bytes=1 << 16)
    answer = anyio.run(
        lambda: ask(app, path=name, selection=text, method=method, format="npy", **asked)
    )
    assert answer.status_code == 200
    assert answer.headers["x-asgihive-shape"] == ",".join(map(str, whole.shape))
    assert answer.headers["x-asgihive-method"] == method
    factors = tuple(map(int, answer.headers["x-asgihive-factors"].split(",")))
    array = np.load(io.BytesIO(answer.content))
    counts = [-(-n // factor) for n, factor in zip(whole.shape, factors, strict=True)]
    if "shape" in asked:
        most = map(int, asked["shape"].split(","))
        assert all(n <= limit for n, limit in zip(counts, most, strict=True))
    else:
        assert np.prod(counts) <= points
    expected = reduced(whole, factors, method)
    if method == "mean":
        assert array.dtype == np.float64
        np.testing.assert_allclose(array, expected, rtol=1e-12, atol=1e-12)
    else:
        assert array.dtype == values[name].dtype
        np.testing.assert_array_equal(array, expected)


async def test_formats_and_conversions(app: H5App, stored: tuple[Path, dict[str, Any]]) -> None:
    cube = stored[1]["cube"]
    expected = reduced(cube, (1, 4, 3), "max")
    view = {"path": "cube", "shape": "7,8,10", "method": "max"}
    assert (await ask(app, **view)).json() == expected.tolist()
    flat = await ask(app, **view, flatten=True)
    assert flat.json() == expected.reshape(-1).tolist()
    raw = await ask(app, **view, format="bin", dtype="safe")
    assert raw.content == expected.astype("<i4").tobytes()
    assert int(raw.headers["content-length"]) == expected.nbytes
    curve = await ask(app, path="curve", max_points=10, method="minmax", format="csv")
    lines = np.loadtxt(io.StringIO(curve.text), delimiter=",")
    np.testing.assert_array_equal(lines, reduced(stored[1]["curve"], (1001,), "minmax"))
    interleaved = await ask(
        app, path="curve", max_points=10, method="minmax", format="bin", flatten=True
    )
    assert interleaved.content == lines.tobytes()


@pytest.mark.slow_on_trio
async def test_a_large_view_is_streamed(tmp_path: Path) -> None:
    # More than one answer's block of JSON: 65,536 points.
    values = np.random.default_rng(2).integers(0, 9, (1100, 3000)).astype("u1")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("data", data=values, chunks=(100, 3000), compression="gzip")
    app = H5App(tmp_path)
    answer = await ask(app, path="data", shape="1100,1000", method="max")
    assert answer.json() == values.reshape(1100, 1000, 3).max(axis=2).tolist()


async def test_what_has_no_bins(app: H5App) -> None:
    assert (await ask(app, path="empty", max_points=5)).json() is None
    assert (await ask(app, path="scalar", max_points=5)).json() == 2.5
    assert (await ask(app, path="none", max_points=5)).json() == []
    assert (await ask(app, path="text", max_points=2, method="nearest")).json() == ["a", "c"]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"path": "image", "max_points": "0"}, "max_points"),
        ({"path": "image", "max_points": "x"}, "whole number"),
        ({"path": "image", "max_points": "5", "shape": "2,2"}, "together"),
        ({"path": "image", "shape": "5"}, "one number per dimension"),
        ({"path": "image", "shape": "5,0"}, "at least 1"),
        ({"path": "image", "method": "mean"}, "max_points or shape"),
        ({"path": "image", "max_points": "5", "method": "median"}, "minmax"),
        ({"path": "text", "max_points": "5"}, "nearest"),
        ({"path": "image", "max_points": "5", "method": "minmax", "format": "csv"}, "csv"),
    ],
)
async def test_what_is_refused(app: H5App, params: dict[str, str], words: str) -> None:
    answer = await ask(app, **params)
    assert answer.status_code == 422
    assert words in answer.json()["message"]


async def test_the_answer_is_bounded_not_what_it_shows(stored: tuple[Path, dict[str, Any]]) -> None:
    app = H5App(stored[0], H5Settings(max_response_bytes=1000))
    assert (await ask(app, path="image", max_points=100)).status_code == 200
    assert (await ask(app, path="image", max_points=1000)).status_code == 413


async def test_nobody_reduces_for_a_client_that_is_gone(
    app: H5App, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = http("/data", query_string=b"file=x.h5&path=image&max_points=9")
    decode = Pipeline.decode
    decoded = 0

    def leaving(self: Pipeline, stored: Any, mask: int) -> Any:
        nonlocal decoded
        decoded += 1
        anyio.from_thread.run_sync(exchange.gone.set)
        return decode(self, stored, mask)

    monkeypatch.setattr(Pipeline, "decode", leaving)
    with anyio.fail_after(20):
        await app(exchange.scope, exchange.receive, exchange.send)
    assert exchange.sent == []
    assert decoded < 30
    assert not any(file.holders for file in app.store.pool.files.values())


@pytest.mark.parametrize("name", ["curve", "image", "cube"])
@pytest.mark.parametrize("bins", [1, 7, 1000])
@pytest.mark.slow_on_trio
async def test_histograms(
    app: H5App, stored: tuple[Path, dict[str, Any]], name: str, bins: int
) -> None:
    finite = stored[1][name][np.isfinite(stored[1][name])]
    counts, edges = np.histogram(finite, bins)
    found = (await ask(app, "/histogram", path=name, bins=bins)).json()
    assert found["counts"] == counts.tolist()
    assert found["edges"] == edges.tolist()
    assert (found["below"], found["above"]) == (0, 0)
    assert found["not_finite"] == stored[1][name].size - finite.size
    inside = (await ask(app, "/histogram", path=name, bins=bins, range="-0.5,0.5")).json()
    counts, edges = np.histogram(finite, bins, (-0.5, 0.5))
    assert (inside["counts"], inside["edges"]) == (counts.tolist(), edges.tolist())
    assert inside["below"] == np.count_nonzero(finite < -0.5)
    assert inside["above"] == np.count_nonzero(finite > 0.5)


@pytest.mark.parametrize(
    ("params", "status", "words"),
    [
        ({"path": "text"}, 422, "real numbers"),
        ({"path": "image", "bins": "0"}, 422, "bins"),
        ({"path": "image", "bins": "9999999"}, 422, "131072"),
        ({"path": "image", "range": "1"}, 422, "min,max"),
        ({"path": "image", "range": "2,1"}, 422, "min,max"),
        ({"path": "image", "range": "nan,1"}, 422, "min,max"),
        ({"path": "nowhere"}, 404, "not a valid path"),
    ],
)
async def test_histograms_that_are_refused(
    app: H5App, params: dict[str, str], status: int, words: str
) -> None:
    answer = await ask(app, "/histogram", **params)
    assert answer.status_code == status
    assert words in answer.json()["message"]


async def test_histograms_of_nothing(app: H5App) -> None:
    for path in ("empty", "none"):
        found = (await ask(app, "/histogram", path=path, bins=2)).json()
        assert found["counts"] == [0, 0]
        assert found["edges"] == [0, 0.5, 1]
