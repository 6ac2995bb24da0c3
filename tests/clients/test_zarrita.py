"""zarrita.js, in Node and in a page of another origin."""

import json
import math
from pathlib import Path
from typing import Any

import h5py
import pytest

from tests.clients.conftest import Served
from tests.clients.expected import format_not_finite, read_values
from tests.clients.javascript import CHROMIUM, install_zarrita, run_in_browser, run_in_node

pytestmark = pytest.mark.slow  # a process each

ARRAYS: tuple[tuple[str, str, list[Any] | None], ...] = (
    ("station.nc", "temperature", None),
    ("station.nc", "name", None),
    ("station.nc", "sky", None),
    ("weather.nc", "is_land", None),
    ("weather.nc", "scalar", None),
    ("weather_h5.nc", "air", [[1, 5], 2, [0, 3]]),
    ("groups.nc", "forecast/member/rain", None),
    ("scan.nxs", "entry/title", None),
    ("scan.nxs", "entry/data/counts", None),
    ("scan.nxs", "entry/detector/frames", [1, [100, 300], [399, 500]]),
    ("stored.h5", "blosc", [[250, 310], [200, 500]]),
    ("stored.h5", "zstd", [[250, 310], [200, 500]]),
    ("stored.h5", "shuffled zstd", [[250, 310], [200, 500]]),
    ("stored.h5", "lz4", [[250, 310], [200, 500]]),
    ("stored.h5", "shuffled lz4", [[250, 310], [200, 500]]),
    ("stored.h5", "bitshuffled lz4", [[250, 310], [200, 500]]),
    ("stored.h5", "bitshuffled zstd", [[250, 310], [200, 500]]),
    ("names of ä + b.h5", "sp ace", None),
    ("names of ä + b.h5", "ä", None),
    ("names of ä + b.h5", "a+b", None),
    ("names of ä + b.h5", "a&b", None),
    ("names of ä + b.h5", "[x]", None),
    ("names of ä + b.h5", "groups/a;b/inside", None),
    ("deep/er/x [1];2.h5", "x", None),
    ("zoo/layouts.h5", "chunked_partly", None),
    ("zoo/layouts.h5", "chunked_edges", None),
    ("zoo/layouts.h5", "chunked_never_written", None),
    ("zoo/types.h5", "numbers/f64_big", None),
    ("zoo/types.h5", "numbers/u64_little", None),
    ("zoo/virtual.h5", "stack", None),
    ("zoo/filters.h5", "gzip_shuffle_fletcher32", None),
    ("zoo/filters.h5", "plugins/bitshuffle_zstd", None),
)


@pytest.fixture(scope="module")
def zarrita() -> Path:
    return install_zarrita()


def ask(served: Served, arrays: Any) -> str:
    wanted = [[served.url + file, f"/{path}", selection] for file, path, selection in arrays]
    return f"readArrays(zarr, {json.dumps(wanted)})"


def expect(served: Served, file: str, path: str, selection: list[Any] | None) -> Any:
    index = tuple(slice(*each) if isinstance(each, list) else each for each in selection or ())
    with h5py.File(served.root / file) as opened:
        values = read_values(opened[path])
    return values[index] if index else values


def format_numbers(values: Any) -> list[Any]:
    """As the script does."""

    def format_one(value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            return format_not_finite(value)
        return value

    if values.dtype.kind in "iu" and values.dtype.itemsize == 8:
        return [str(each) for each in values.ravel().tolist()]
    return [format_one(each) for each in values.ravel().tolist()]


def check(served: Served, given: Any) -> None:
    assert isinstance(given, list), given
    differences = []
    for (file, path, selection), found in zip(ARRAYS, given, strict=True):
        expected = expect(served, file, path, selection)
        if "error" in found:
            differences.append(f"{file} {path}: {found['error']}")
        elif found["values"] != format_numbers(expected) or found["shape"] != [*expected.shape]:
            differences.append(f"{file} {path}: {found!r:.300}")
    assert differences == []


def test_node(zarrita: Path, served: Served) -> None:
    check(served, run_in_node(zarrita, ask(served, ARRAYS)))


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_across_origins(zarrita: Path, served: Served) -> None:
    check(served, run_in_browser(zarrita, ask(served, ARRAYS)))


def test_consolidated_metadata(zarrita: Path, served: Served) -> None:
    paths = run_in_node(zarrita, f"listNodes(zarr, {json.dumps(served.url + 'groups.nc')})")
    for path in ("/x", "/top", "/forecast/y", "/forecast/member/rain"):
        assert path in paths


def test_damaged_chunks_raise(zarrita: Path, served: Served) -> None:
    wanted = [("damaged.h5", "x", [[0, 5]]), ("damaged.h5", "x", [[200_000, 200_005]])]
    good, damaged = run_in_node(zarrita, ask(served, wanted))
    assert good["values"] == [0, 1, 2, 3, 4]
    assert "500" in damaged["error"]
