"""Types that are rare or awkward over HTTP: one rule for all routes, and the rest of a file."""

import io
import json
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from h5py import h5t

from asgihive import H5App
from tests.hdf5.test_types import enumeration_of, vax
from tests.zoo.client import client
from tests.zoo.low_level import create_attribute, create_dataset

pytestmark = pytest.mark.anyio

STORED = np.array([[0, 1], [2, 255]], "u1")
TRUTH = [[False, True], [True, True]]
LARGE = np.array([0, 2**63, 2**64 - 1], "u8")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> H5App:
    root = tmp_path_factory.mktemp("types")
    with h5py.File(root / "x.h5", "w") as file:
        _booleans(file.create_group("booleans"))
        group = file.create_group("group")
        group["plain"] = [1, 2]
        large = enumeration_of(LARGE.dtype, LARGE.tolist())
        create_dataset(group, "large", large, LARGE)
        create_attribute(group, b"large", large, LARGE[2:].reshape(()))
        regions = h5t.vlen_create(h5t.STD_REF_DSETREG)
        for name, type_id in {"vax": vax(), "regions": regions, "time": h5t.UNIX_D32LE}.items():
            create_dataset(group, name, type_id, shape=(2,))
            create_attribute(group, name.encode(), type_id)
    return H5App(root)


def _booleans(group: h5py.Group) -> None:
    for name, base in (("signed", h5t.STD_I8LE), ("unsigned", h5t.STD_U8LE)):
        type_id = h5t.enum_create(base)
        type_id.enum_insert(b"FALSE", 0)
        type_id.enum_insert(b"TRUE", 1)
        create_dataset(group, name, type_id, STORED.view(base.dtype))
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((1, 2))
        properties.set_deflate(1)
        create_dataset(group, f"{name}_chunked", type_id, STORED, plist=properties)
        create_attribute(group, name.encode(), type_id, STORED[1:, 1:].reshape(()))
        pair = h5t.create(h5t.COMPOUND, 2)
        pair.insert(b"on", 1, type_id)
        pairs = np.zeros((2, 2, 2), "u1")
        pairs[..., 1] = STORED
        create_dataset(group, f"{name}_within", pair, pairs.view("V2").reshape(2, 2))


async def answer(app: H5App, route: str, path: str, **query: str) -> Any:
    async with client(app) as asks:
        return await asks.get(route, params={"file": "x.h5", "path": path, **query})


@pytest.mark.parametrize("name", ["signed", "unsigned", "signed_chunked", "unsigned_chunked"])
async def test_any_byte_but_0_is_true(app: H5App, name: str) -> None:
    path = f"/booleans/{name}"

    async def data(name: str, **query: str) -> Any:
        found = await answer(app, "/data", path, format=name, **query)
        assert found.status_code == 200, found.text
        return found

    assert (await data("json")).json() == TRUTH
    numbers = np.loadtxt(io.StringIO((await data("csv")).text), delimiter=",")
    assert numbers.tolist() == TRUTH
    assert tifffile.imread(io.BytesIO((await data("tiff")).content)).tolist() == [[0, 1], [1, 1]]
    assert np.load(io.BytesIO((await data("npy")).content)).tolist() == TRUTH
    assert (await data("json", max_points="1", method="max")).json() == [[1]]
    assert (await data("json", max_points="1", method="mean")).json() == [[0.75]]
    # The bytes as they are stored.
    assert (await data("bin")).content == STORED.tobytes()
    statistics = (await answer(app, "/stats", path)).json()
    assert (statistics["min"], statistics["max"], statistics["mean"]) == (0, 1, 0.75)
    histogram = (await answer(app, "/histogram", path, bins="2")).json()
    assert histogram["counts"] == [1, 3]


@pytest.mark.parametrize("name", ["signed", "unsigned"])
async def test_booleans_in_compounds_and_attributes(app: H5App, name: str) -> None:
    found = (await answer(app, "/data", f"/booleans/{name}_within")).json()
    assert found == [[[each] for each in row] for row in TRUTH]
    assert (await answer(app, "/attr", "/booleans")).json()[name] is True


async def test_enumerations_beyond_signed_integers(app: H5App) -> None:
    path, values = "/group/large", LARGE.tolist()
    described = (await answer(app, "/meta", path)).json()["type"]
    assert list(described["members"].values()) == values
    assert (described["dtype"], described["base"]["dtype"]) == ("<u8", "<u8")
    assert (await answer(app, "/data", path)).json() == values
    assert (await answer(app, "/data", path, format="bin")).content == LARGE.tobytes()
    loaded = np.load(io.BytesIO((await answer(app, "/data", path, format="npy")).content))
    assert loaded.tolist() == values
    text = (await answer(app, "/data", path, format="csv")).text.split()
    assert text == [f"{float(value):.18e}" for value in values]
    assert (await answer(app, "/stats", path)).json()["max"] == values[-1]
    assert (await answer(app, "/attr", "/group")).json()["large"] == values[-1]


@pytest.mark.parametrize("name", ["vax", "regions", "time"])
async def test_what_is_not_read_is_described_and_hides_nothing(app: H5App, name: str) -> None:
    group = (await answer(app, "/meta", "/group")).json()
    assert {child["kind"] for child in group["children"]} == {"dataset"}
    assert {each["name"] for each in group["attributes"]} >= {"large", name}
    alone = await answer(app, "/meta", f"/group/{name}")
    assert alone.status_code == 200
    (child,) = (each for each in group["children"] if each["name"] == name)
    assert alone.json()["type"] == child["type"]
    for route, path, query in (
        ("/data", f"/group/{name}", {}),
        ("/data", f"/group/{name}", {"format": "bin"}),
        ("/attr", "/group", {"attr_keys": name}),
    ):
        refused = await answer(app, route, path, **query)
        assert refused.status_code == 422, refused.text
        message = json.loads(refused.content)["message"]
        assert "cannot be read" in message
        assert "amaged" not in message
    rest = (await answer(app, "/attr", "/group")).json()
    assert rest[name] is None
    assert rest["large"] == LARGE.tolist()[-1]
