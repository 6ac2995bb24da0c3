"""Virtual datasets over HTTP: what is missing is said, what is refused is an error."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import h5py
import httpx
import msgpack
import numpy as np
import pytest

from asgihive import H5App, H5Settings
from asgihive.hdf5 import virtual_sources
from tests.service.asking import ask

pytestmark = pytest.mark.anyio

ROWS = 12


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """`v.h5`: a row of each of twelve files; the first three are missing."""
    layout = h5py.VirtualLayout((ROWS, 50_000), "<i4")
    for number in range(ROWS):
        name = f"source{number:02}.h5"
        if number >= 3:
            with h5py.File(tmp_path / name, "w") as file:
                file["x"] = np.full(50_000, number, "<i4")
        layout[number] = h5py.VirtualSource(name, "x", (50_000,))
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.create_virtual_dataset("x", layout, fillvalue=-1)
    return tmp_path


@pytest.fixture
def app(root: Path) -> Iterator[H5App]:
    app = H5App(root, H5Settings())
    yield app
    app.store.pool.close()


MISSING = "3 of 12; first=source00.h5"

FORMS = {
    "json": ("/data", {}),
    "streamed": ("/data", {"format": "bin"}),
    "npy": ("/data", {"format": "npy"}),
    "csv": ("/data", {"format": "csv"}),
    "tiff": ("/data", {"format": "tiff"}),
    "msgpack": ("/data", {"format": "msgpack"}),
    "stats": ("/stats", {}),
    "histogram": ("/histogram", {"bins": "4"}),
    "view": ("/data", {"max_points": "100"}),
    "nearest": ("/data", {"max_points": "100", "method": "nearest"}),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.slow_on_trio
async def test_every_answer_says_what_is_missing(app: H5App, name: str) -> None:
    route, query = FORMS[name]
    for method in ("GET", "HEAD", "GET"):
        answer = await ask(app, route, {}, method, file="v.h5", path="x", **query)
        assert answer.status == 200
        # Of the nearest 100 points, all are in the first row.
        expected = "1 of 1; first=source00.h5" if name == "nearest" else MISSING
        assert answer.headers["missing-sources"] == expected
    again = await ask(
        app, route, {"if-none-match": answer.headers["etag"]}, file="v.h5", path="x", **query
    )
    # What a client has says it already (RFC 9110, section 15.4.5).
    assert (again.status, "missing-sources" in again.headers) == (304, False)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("0", "1 of 1; first=source00.h5"),
        ("2:5", "1 of 3; first=source02.h5"),
        ("1::5", "1 of 3; first=source01.h5"),
        (":,7", MISSING),
        ("3:", None),
        ("0:0", None),
    ],
)
@pytest.mark.slow_on_trio
async def test_those_that_the_selection_touches_count(
    app: H5App, selection: str, expected: str | None
) -> None:
    for query in ({"format": "bin"}, {"format": "bin", "max_points": "100"}, {}):
        answer = await ask(app, "/data", file="v.h5", path="x", selection=selection, **query)
        assert answer.status == 200
        assert answer.headers.get("missing-sources") == expected


async def test_a_range_says_it_of_the_whole(app: H5App) -> None:
    query = {"file": "v.h5", "path": "x", "format": "bin"}
    first = np.int32(-1).tobytes()
    for start, row in ((0, first), (4 * 50_000 * 4, np.int32(4).tobytes())):
        fields = {"range": f"bytes={start}-{start + 3}"}
        answer = await ask(app, "/data", fields, **query)
        assert (answer.status, answer.body) == (206, row)
        assert answer.headers["missing-sources"] == MISSING


async def test_a_source_that_appears_is_another_answer(app: H5App, root: Path) -> None:
    before = await ask(app, "/stats", file="v.h5", path="x")
    for number in range(3):
        with h5py.File(root / f"source{number:02}.h5", "w") as file:
            file["x"] = np.full(50_000, number, "<i4")
    after = await ask(
        app, "/stats", {"if-none-match": before.headers["etag"]}, file="v.h5", path="x"
    )
    assert (before.json["min"], after.json["min"]) == (-1, 0)
    assert (after.status, "missing-sources" in after.headers) == (200, False)


async def test_metadata_are_as_before(app: H5App) -> None:
    answer = await ask(app, "/meta", file="v.h5", path="x")
    assert set(answer.json) == {
        *("name", "kind", "shape", "chunks", "filters", "type", "attributes"),
    }


def mapped(root: Path, file: str, dataset: str) -> None:
    layout = h5py.VirtualLayout((3,), "<i4")
    layout[:] = h5py.VirtualSource(file, dataset, (3,))
    with h5py.File(root / "one.h5", "w") as written:
        written.create_virtual_dataset("x", layout)


@pytest.mark.parametrize(
    "name",
    ["a b.h5", "mé\u2192.h5", "line\r\nSet-Cookie: a=b", 'semi;colon,"quote"%%41.h5'],
)
@pytest.mark.slow_on_trio
async def test_any_name_is_safe_in_a_field(app: H5App, root: Path, name: str) -> None:
    mapped(root, name, "x")
    answer = await ask(app, "/data", file="one.h5", path="x")
    assert answer.status == 200, answer.message
    field = answer.headers["missing-sources"]
    assert field.isascii()
    assert field.isprintable()
    count, _, first = field.partition("; first=")
    assert count == "1 of 1"
    assert not set(first) & set(' ;,"\\')
    assert unquote(first, errors="surrogateescape") == name.replace("%%", "%")


async def test_a_name_that_h5py_does_not_read_is_said(app: H5App, root: Path) -> None:
    mapped(root, "\udcff", "x")
    answer = await ask(app, "/data", file="one.h5", path="x")
    assert (answer.status, "not UTF-8" in answer.message) == (422, True)
    assert (await ask(app, "/meta", file="one.h5", path="x")).json["shape"] == [3]


async def test_a_long_name_is_cut(app: H5App, root: Path) -> None:
    mapped(root, "n" * 5000, "x")
    answer = await ask(app, "/data", file="one.h5", path="x")
    assert answer.headers["missing-sources"] == "1 of 1; first=" + "n" * 500


async def test_a_dataset_that_is_missing_is_named(app: H5App, root: Path) -> None:
    mapped(root, "source05.h5", "/no/such")
    answer = await ask(app, "/data", file="one.h5", path="x")
    assert answer.headers["missing-sources"] == "1 of 1; first=source05.h5:/no/such"


async def test_what_is_missing_below_a_virtual_source(app: H5App, root: Path) -> None:
    layout = h5py.VirtualLayout((5, 50_000), "<i4")
    layout[:] = h5py.VirtualSource("v.h5", "x", (ROWS, 50_000))[2:7]
    with h5py.File(root / "outer.h5", "w") as file:
        file.create_virtual_dataset("x", layout)
    for selection, expected in ((":", "1 of 5; first=source02.h5"), ("1:", None)):
        answer = await ask(app, "/data", file="outer.h5", path="x", selection=selection)
        assert answer.headers.get("missing-sources") == expected


async def test_more_than_are_looked_for(
    app: H5App, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(virtual_sources, "MAX_SEARCHED_SOURCES", 5)
    answer = await ask(app, "/data", file="v.h5", path="x", format="bin")
    assert answer.headers["missing-sources"] == "3 of 5; first=source00.h5; others=unknown"
    assert len(answer.body) == 4 * ROWS * 50_000


REFUSED = {
    "outside": "../outside.h5",
    "outside and absolute": "/etc/hostname",
    "outside and not there": "/no/such/file.h5",
    "damaged": "damaged.h5",
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.slow_on_trio
async def test_what_is_refused_is_an_error(app: H5App, root: Path, name: str, form: str) -> None:
    (root / "damaged.h5").write_bytes(b"no HDF5" * 100)
    mapped(root, REFUSED[name], "x")
    route, query = FORMS[form]
    if form == "tiff":
        query = {}
    answer = await ask(app, route, file="one.h5", path="x", **query)
    assert answer.status == 404
    assert answer.message.startswith(f"Cannot resolve the source x of {REFUSED[name]} of ")
    assert (await ask(app, "/meta", file="one.h5", path="x")).json["shape"] == [3]


async def test_a_batch_says_it_of_each(app: H5App) -> None:
    asked = [
        {"route": "data", "params": {"file": "v.h5", "path": "x", "selection": "0,0"}},
        {"route": "data", "params": {"file": "v.h5", "path": "x", "selection": "5,0"}},
    ]
    transport = httpx.ASGITransport(app)
    for decode, form in ((json.loads, "json"), (msgpack.unpackb, "msgpack")):
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as asker:
            answer = await asker.post("/batch", params={"format": form}, json=asked)
        first, second = decode(answer.content)
        assert first == {
            "status": 200,
            "missing_sources": "1 of 1; first=source00.h5",
            "body": -1,
        }
        assert second == {"status": 200, "body": 5}


async def test_sources_between_which_is_selected_do_not_count(app: H5App, root: Path) -> None:
    layout = h5py.VirtualLayout((9,), "<i4")
    for number, name in enumerate(("missing.h5", "source05.h5", "source06.h5")):
        layout[number::3] = h5py.VirtualSource(name, "x", (50_000,))[:3]
    with h5py.File(root / "one.h5", "w") as file:
        file.create_virtual_dataset("x", layout)
    missing = {":": "1 of 3", "0": "1 of 1", "1:3": None, "2::3": None, "::2": "1 of 3"}
    for selection, count in missing.items():
        answer = await ask(app, "/data", file="one.h5", path="x", selection=selection)
        expected = None if count is None else f"{count}; first=missing.h5"
        assert answer.headers.get("missing-sources") == expected


@pytest.mark.parametrize("fill", [-3, 0, 7])
@pytest.mark.slow_on_trio
async def test_where_nothing_is_there_its_size_does_not_matter(
    app: H5App, root: Path, fill: int
) -> None:
    """A trillion elements, and none is read."""
    with h5py.File(root / "one.h5", "w") as file:
        for name, rows in (("small", 10), ("large", 10**6)):
            layout = h5py.VirtualLayout((rows, 10**6), "<i2")
            layout[: rows // 2] = h5py.VirtualSource("missing.h5", "x", (rows // 2, 10**6))
            file.create_virtual_dataset(name, layout, fillvalue=fill)
    for route, query in (("/stats", {}), ("/histogram", {"bins": "5"})):
        answers = [
            await ask(app, route, file="one.h5", path=name, **query) for name in ("small", "large")
        ]
        assert [each.headers["missing-sources"] for each in answers] == [
            "1 of 1; first=missing.h5"
        ] * 2
        small, large = (each.json for each in answers)
        if route == "/histogram":
            assert large.pop("counts") == [each * 10**5 for each in small.pop("counts")]
        else:
            assert (small["min"], small["std"]) == (fill, 0)
        assert large == small
    with h5py.File(root / "same.h5", "w") as file:
        file["x"] = np.full((10, 10**6), fill, "<i2")
    for route, query in (("/stats", {}), ("/histogram", {"bins": "5"})):
        one = await ask(app, route, file="one.h5", path="small", **query)
        assert one.json == (await ask(app, route, file="same.h5", path="x", **query)).json
