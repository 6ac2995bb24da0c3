"""Tables, text and compounds in each format of `/data`, as they are read from a file."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import h5py
import httpx
import msgpack
import msgpack_numpy
import numpy as np
import pytest

from asgihive.service import H5App
from tests.service.bounds import bounded
from tests.zoo.client import client

pytestmark = pytest.mark.anyio

ROWS = 6_000
FIXED = np.dtype(
    {
        "names": ["time", "label", "at", "is_on"],
        "formats": ["<f8", "S6", [("x", ">i4", (2,)), ("y", "<f4")], "?"],
        "offsets": [0, 8, 16, 30],
        "itemsize": 32,
    }
)
VARIABLE = np.dtype([("name", h5py.string_dtype()), ("value", "<f8")])


def table() -> Any:
    rows = np.zeros(ROWS, FIXED)
    rows["time"] = np.arange(ROWS) / 7
    rows["label"] = [f"a,{i % 100}".encode() for i in range(ROWS)]
    rows["at"]["x"] = np.arange(2 * ROWS).reshape(ROWS, 2)
    rows["at"]["y"] = 0.5
    rows["is_on"] = np.arange(ROWS) % 3 == 0
    return rows


TABLE = table()
WORDS = np.array([["a", "b,c"], ['say "x"', "é\n"], ["", "="]], object)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("data")
    with h5py.File(root / "x.h5", "w") as file:
        file["plain"] = TABLE
        file.create_dataset("chunked", data=TABLE, chunks=(999,), compression="gzip", shuffle=True)
        file.create_dataset("words", data=WORDS, dtype=h5py.string_dtype())
        file["list"] = [f"word {i}" for i in range(500)]
        file["codes"] = np.array([[b"ab", b"c"]], "S3")
        rows = np.zeros(3, VARIABLE)
        rows["name"], rows["value"] = ["é", "b", 'c"'], [1, 2, 3]
        file["variable"] = rows
        file["numbers"] = np.arange(6.0).reshape(3, 2)
        file["grid"] = TABLE[:4].reshape(2, 2)
        file["opaque"] = np.zeros(2, "V3")
        file["lists"] = np.array([np.arange(2), np.arange(3)], object)[:0].astype(
            h5py.vlen_dtype("i4")
        )
        file["mixed"] = np.zeros(2, [("a", "i4"), ("b", "V3")])
        file.attrs["pair"] = np.array((1, 2.5), [("n", "i4"), ("v", "f8")])
        file.attrs["number"] = 5
    return root


@pytest.fixture(scope="module")
def app(root: Path) -> H5App:
    # Blocks of 2,048 rows.
    return bounded(root, read_ahead_bytes=1 << 16)


async def get(app: H5App, path: str, accept: str = "", **query: str) -> httpx.Response:
    headers = {"accept-encoding": "identity"} | ({"accept": accept} if accept else {})
    async with client(app) as asker:
        params = {"file": "x.h5", "path": path, **query}
        return await asker.get("/data", params=params, headers=headers)


def rows_of(answer: httpx.Response) -> list[list[str]]:
    assert answer.status_code == 200, answer.text
    return list(csv.reader(io.StringIO(answer.content.decode(), newline=""), strict=True))


@pytest.mark.parametrize("path", ["plain", "chunked"])
@pytest.mark.parametrize(
    ("selection", "index"), [("", slice(None)), ("7:5000:3", slice(7, 5000, 3))]
)
@pytest.mark.slow_on_trio
async def test_compounds(app: H5App, path: str, selection: str, index: slice) -> None:
    """Whole and in part, in many blocks: the values and the types that were written."""
    expected = TABLE[index]
    answer = await get(app, path, format="npy", selection=selection)
    assert answer.headers["content-length"] == str(len(answer.content))
    read = np.load(io.BytesIO(answer.content), allow_pickle=False)
    assert read.dtype == FIXED
    np.testing.assert_array_equal(read, expected)
    answer = await get(app, path, format="msgpack", selection=selection)
    assert answer.headers["content-length"] == str(len(answer.content))
    read = msgpack_numpy.unpackb(answer.content)
    assert read.dtype.names == FIXED.names
    assert read.dtype.itemsize == sum(FIXED[name].itemsize for name in FIXED.names or ())
    for name in FIXED.names or ():
        np.testing.assert_array_equal(read[name], expected[name])
    header, *rows = rows_of(await get(app, path, format="csv", selection=selection))
    assert header == ["time", "label", "at.x[0]", "at.x[1]", "at.y", "is_on"]
    assert len(rows) == len(expected)
    assert [row[1] for row in rows] == [text.decode() for text in expected["label"]]
    columns = np.array([[float(cell) for cell in (row[0], row[3])] for row in rows])
    np.testing.assert_array_equal(columns[:, 0], expected["time"])
    np.testing.assert_array_equal(columns[:, 1], expected["at"]["x"][:, 1])


async def test_ranges_of_compounds(app: H5App) -> None:
    whole = (await get(app, "chunked", format="npy")).content
    async with client(app) as asker:
        params = {"file": "x.h5", "path": "chunked", "format": "npy"}
        headers = {"range": "bytes=10000-150000"}
        answer = await asker.get("/data", params=params, headers=headers)
    assert answer.status_code == 206
    assert answer.content == whole[10000:150001]


@pytest.mark.slow_on_trio
async def test_objects_by_name(app: H5App) -> None:
    lists = (await get(app, "chunked")).json()
    objects = (await get(app, "chunked", compound="object")).json()
    assert [[*row.values()] for row in objects] == [
        [time, label, {"x": x, "y": y}, is_on] for time, label, (x, y), is_on in lists
    ]
    assert {tuple(row) for row in objects} == {FIXED.names}
    [one] = (await get(app, "grid", compound="object", selection="1,:1")).json()
    assert one == objects[2]
    flat = await get(app, "grid", compound="object", flatten="true")
    assert flat.json() == objects[:4]
    single = await get(app, "grid", compound="object", flatten="true", selection="0,1")
    assert single.json() == objects[1]
    assert (await get(app, "grid", compound="list", selection="0,1")).json() == lists[1]
    by_name = await get(app, "variable", compound="object", format="json", selection="0")
    assert by_name.json() == {"name": "é", "value": 1}
    refused = await get(app, "grid", compound="dict")
    assert refused.status_code == 422
    assert "list and object are accepted" in refused.json()["message"]


async def test_each_form_has_a_version_of_its_own(app: H5App) -> None:
    forms: tuple[dict[str, str], ...] = (
        {},
        {"compound": "object"},
        {"format": "csv"},
        {"format": "csv", "header": "1"},
    )
    tags = {(await get(app, "variable", **form)).headers["etag"] for form in forms}
    assert len(tags) == len(forms)


async def test_attributes_and_batches_by_name(app: H5App) -> None:
    async with client(app) as asker:
        for _ in range(2):  # kept apart in memory
            lists = await asker.get("/attr", params={"file": "x.h5"})
            assert lists.json() == {"pair": [1, 2.5], "number": 5}
            objects = await asker.get("/attr", params={"file": "x.h5", "compound": "object"})
            assert objects.json() == {"pair": {"n": 1, "v": 2.5}, "number": 5}
        asked = [
            {"route": route, "params": {"file": "x.h5", "path": path, "compound": "object"}}
            for route, path in (("data", "variable"), ("attr", "/"))
        ]
        for answer in (
            (await asker.post("/batch", json=asked)).json(),
            msgpack.unpackb((await asker.post("/batch?format=msgpack", json=asked)).content),
        ):
            assert answer[0]["body"][1] == {"name": "b", "value": 2}
        refused = await asker.get("/attr", params={"file": "x.h5", "compound": "x"})
        assert refused.status_code == 422


@pytest.mark.slow_on_trio
async def test_text(app: H5App) -> None:
    words = [["a", "b,c"], ['say "x"', "é\n"], ["", "="]]
    assert rows_of(await get(app, "words", format="csv")) == words
    named = await get(app, "words", format="csv", header="1", selection=":,1")
    assert rows_of(named) == [["words"], ["b,c"], ["é\n"], ["="]]
    table = await get(app, "words", accept="text/csv", header="true")
    assert rows_of(table) == [["words[0]", "words[1]"], *words]
    assert msgpack.unpackb((await get(app, "words", format="msgpack")).content) == words
    scalar = await get(app, "words", format="msgpack", selection="1,1")
    assert msgpack.unpackb(scalar.content) == "é\n"
    long = [f"word {i}" for i in range(500)]
    assert msgpack.unpackb((await get(app, "list", format="msgpack")).content) == long
    assert [row[0] for row in rows_of(await get(app, "list", format="csv"))] == long


async def test_text_of_fixed_length(app: H5App) -> None:
    expected = np.array([[b"ab", b"c"]], "S3")
    read = np.load(io.BytesIO((await get(app, "codes", format="npy")).content), allow_pickle=False)
    np.testing.assert_array_equal(read, expected, strict=True)
    decoded = msgpack_numpy.unpackb((await get(app, "codes", format="msgpack")).content)
    np.testing.assert_array_equal(decoded, expected, strict=True)
    assert (await get(app, "codes", format="csv")).content == b"ab,c\n"
    one = msgpack_numpy.unpackb(
        (await get(app, "codes", format="msgpack", selection="0,1")).content
    )
    assert one == b"c"


async def test_a_header_of_numbers(app: H5App) -> None:
    without = await get(app, "numbers", format="csv")
    answer = await get(app, "numbers", format="csv", header="1")
    assert answer.content == b"numbers[0],numbers[1]\n" + without.content
    read = np.genfromtxt(io.BytesIO(answer.content), delimiter=",", skip_header=1)
    np.testing.assert_array_equal(read, np.arange(6.0).reshape(3, 2))
    assert (await get(app, "numbers", format="csv", header="0")).content == without.content
    view = await get(app, "numbers", format="csv", header="1", max_points="2")
    assert view.content.startswith(b"numbers[0]")
    refused = await get(app, "numbers", format="csv", header="x")
    assert refused.status_code == 422
    assert "header" in refused.json()["message"]


@pytest.mark.parametrize(
    ("path", "format_", "fitting", "others"),
    [
        ("variable", "npy", {"csv", "json"}, {"bin", "msgpack", "tiff"}),
        ("variable", "msgpack", {"csv", "json"}, {"bin", "npy", "tiff"}),
        ("words", "npy", {"csv", "json", "msgpack"}, {"bin", "tiff"}),
        ("grid", "csv", {"bin", "json", "msgpack", "npy"}, {"tiff"}),
        ("opaque", "npy", {"bin", "json"}, {"csv", "msgpack"}),
        ("mixed", "npy", {"bin", "json"}, {"csv", "msgpack"}),
        ("lists", "csv", {"json"}, {"bin", "npy"}),
    ],
)
async def test_what_does_not_fit_says_what_does(
    app: H5App, path: str, format_: str, fitting: set[str], others: set[str]
) -> None:
    answer = await get(app, path, format=format_)
    assert answer.status_code == 422
    named = set(answer.json()["message"].rpartition("use ")[2].split(" or "))
    assert named >= fitting
    assert not named & others


@pytest.mark.parametrize("alias", ["application/msgpack", "application/x-msgpack"])
async def test_aliases_in_accept(app: H5App, alias: str) -> None:
    accept = f"text/html;q=0.1, {alias};q=0.9"
    answer = await get(app, "numbers", accept=accept)
    assert answer.headers["content-type"] == "application/vnd.msgpack"
    np.testing.assert_array_equal(
        msgpack_numpy.unpackb(answer.content), np.arange(6.0).reshape(3, 2)
    )
    async with client(app) as asker:
        for route in ("meta", "attr", "paths", "files"):
            params = {} if route == "files" else {"file": "x.h5"}
            got = await asker.get(f"/{route}", params=params, headers={"accept": accept})
            assert got.headers["content-type"] == "application/vnd.msgpack"
            plain = await asker.get(f"/{route}", params=params)
            packed = msgpack_numpy.unpackb(got.content)
            assert packed.keys() == plain.json().keys() if route != "paths" else packed
            both = await asker.get(
                f"/{route}", params=params, headers={"accept": f"{alias}, application/json"}
            )
            assert both.headers["content-type"] == "application/json"
    assert json.loads((await get(app, "numbers", accept="*/*")).content)
