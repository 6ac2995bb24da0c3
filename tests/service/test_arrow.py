"""`format=arrow` over a real server, read by pyarrow, pandas, polars and DuckDB from the URL."""

import io
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import h5py
import numpy as np
import pytest

from asgihive.encoders import Values, arrow, list_encoders
from asgihive.service import H5App, data
from tests.service.asking import ask
from tests.service.servers import PATIENCE, serving
from tests.zoo.arrow_tables import IS_INSTALLED, is_same_table, read_table

if IS_INSTALLED:
    import pyarrow as pa

installed = pytest.mark.skipif(not IS_INSTALLED, reason="pyarrow is not installed")


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [each for each in packages if find_spec(each) is None]
    reason = f"{', '.join(missing)} not installed: pip install 'asgihive[test-clients]'"
    return pytest.mark.skipif(bool(missing), reason=reason)


SHUTTER = h5py.enum_dtype({"CLOSED": 0, "OPEN": 1, "STUCK": 7}, basetype="u1")
POINT = np.dtype([("x", "<f4"), ("y", ">f4")])
ROW = np.dtype(
    [
        ("id", ">i8"),
        ("energy", "<f8"),
        ("half", "<f2"),
        ("name", "S6"),
        ("note", h5py.string_dtype()),
        ("ok", "?"),
        ("field", "<c16"),
        ("shutter", SHUTTER),
        ("at", POINT),
        ("counts", "<u2", (4,)),
        ("größe", "<u4"),
    ]
)
COUNT = 3000
MEDIA_TYPE = "application/vnd.apache.arrow.stream"


def _make_rows() -> Any:
    random = np.random.default_rng(3)
    rows = np.zeros(COUNT, ROW)
    rows["id"] = random.integers(-(2**62), 2**62, COUNT)
    for name in ("energy", "half"):
        rows[name] = random.normal(size=COUNT)
    rows["energy"][:3] = np.nan, np.inf, -0.0
    rows["name"] = random.choice([b"", b"Cu", "Öl".encode(), b"abcdef"], COUNT)
    rows["note"] = [f"é{i}" * (i % 3) for i in range(COUNT)]
    rows["ok"] = random.integers(0, 2, COUNT)
    rows["field"] = random.normal(size=COUNT) + 1j * random.normal(size=COUNT)
    rows["shutter"] = random.choice([0, 1, 7], COUNT)
    rows["at"]["x"], rows["at"]["y"] = random.normal(size=(2, COUNT))
    rows["counts"] = random.integers(0, 2**16, (COUNT, 4))
    rows["größe"] = range(COUNT)
    return rows


ROWS = _make_rows()
FIXED = [name for name in ROW.names or () if name != "note"]
LONG = np.random.default_rng(5).normal(size=1_500_000).astype(">f8")
GRID = np.arange(60 * 7, dtype=">i4").reshape(60, 7)
ARRAYS: dict[str, Any] = {
    "long": LONG,
    "grid": GRID,
    "flags": GRID % 3 == 0,
    "halves": GRID[0].astype("<f2"),
    "complex": GRID[:, 0] * 1j,
    "scalar": np.array(7, ">u2"),
    "fixed": ROWS["name"],
    "nothing": GRID[:0],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("arrow")
    with h5py.File(root / "x.h5", "w") as file:
        # What libhdf5 alone reads, for the texts of variable length, and what it does not.
        file["table"] = ROWS
        plain = np.zeros(COUNT, [(name, ROW[name]) for name in FIXED])
        for name in FIXED:
            plain[name] = ROWS[name]
        file.create_dataset("plain", data=plain, chunks=(500,), compression="gzip")
        for name, array in ARRAYS.items():
            file[name] = array
        file.create_dataset("chunked", data=GRID, chunks=(8, 3), compression="gzip")
        file["words"] = ["a", "", "größer"]
        file.create_dataset("wordy", data=[["a", "é"], ["", "b" * 500]], dtype=h5py.string_dtype())
        file.create_dataset("shutter", data=ROWS["shutter"], dtype=SHUTTER)
        file.create_dataset("triples", (60,), np.dtype((">i4", (3,))))[...] = GRID[:, :3]
        file.create_dataset("lists", (2,), h5py.vlen_dtype(np.dtype("<i4")))[1] = [1, 2]
        file["wide"] = np.zeros((2, 500), "u1")
        file["members"] = np.zeros(2, [(f"m{i}", "u1") for i in range(500)])
        file["cube"] = np.zeros((2, 2, 2))
        file["empty"] = h5py.Empty("f4")
    return root


@pytest.fixture(scope="module")
def url(root: Path) -> Iterator[str]:
    with serving(H5App(root), "uvicorn-httptools") as url:
        yield url


@pytest.fixture
def app(root: Path) -> H5App:
    return H5App(root)


def _at(url: str, path: str, **query: str) -> str:
    return f"{url}/data?{urlencode({'file': 'x.h5', 'path': path, 'format': 'arrow', **query})}"


def _stream(url: str, path: str, **query: str) -> Any:
    return pa.ipc.open_stream(urlopen(_at(url, path, **query), timeout=PATIENCE))


@installed
@pytest.mark.parametrize("path", [*ARRAYS, "chunked", "table", "plain", "words", "wordy"])
def test_every_bit_is_that_of_h5py(root: Path, url: str, path: str) -> None:
    with h5py.File(root / "x.h5", locking=False) as file:  # as the service, in one process
        expected = np.asarray(file[path][()])
        expected = expected.astype(file[path].dtype)  # which has the mark of text
    with _stream(url, path) as stream:
        table = stream.read_all()
    table.validate(full=True)
    assert is_same_table(table, expected, path)


@installed
def test_the_types_of_a_table(url: str) -> None:
    with _stream(url, "table") as stream:
        schema = stream.schema
    complex128 = pa.struct([("re", pa.float64()), ("im", pa.float64())])
    assert dict(zip(schema.names, schema.types, strict=True)) == {
        "id": pa.int64(),
        "energy": pa.float64(),
        "half": pa.float16(),
        "name": pa.utf8(),
        "note": pa.utf8(),
        "ok": pa.bool_(),
        "field": complex128,
        "shutter": pa.uint8(),
        "at": pa.struct([("x", pa.float32()), ("y", pa.float32())]),
        "counts": pa.list_(pa.uint16(), 4),
        "größe": pa.uint32(),
    }
    names = {b"enum": b'{"CLOSED":0,"OPEN":1,"STUCK":7}'}
    assert schema.field("shutter").metadata == names
    with _stream(url, "shutter", selection="::2") as stream:
        assert stream.schema.field("shutter").metadata == names
        assert stream.read_all()["shutter"].to_pylist() == ROWS["shutter"][::2].tolist()
    with _stream(url, "table", fields="größe,shutter") as stream:
        assert stream.schema.names == ["größe", "shutter"]
        assert stream.schema.field("shutter").metadata == names
    with _stream(url, "table", fields="shutter", max_points="10") as stream:  # of means it is not
        assert stream.schema.field("shutter").metadata is None
    with _stream(url, "triples") as stream:
        assert is_same_table(stream.read_all(), GRID[:, :3], "triples")
    with _stream(url, "lists") as stream:
        assert stream.read_all()["lists"].to_pylist() == [[], [1, 2]]


@installed
def test_parts(url: str) -> None:
    with _stream(url, "table", selection="5") as stream:
        assert is_same_table(stream.read_all(), ROWS[5:6], "")
    with _stream(url, "table", selection="7:2000:3", fields="energy,id") as stream:
        assert is_same_table(stream.read_all(), ROWS[["energy", "id"]][7:2000:3], "")
    with _stream(url, "table", fields="energy") as stream:
        assert is_same_table(stream.read_all(), ROWS["energy"], "energy")
    with _stream(url, "table", fields="counts") as stream:
        assert is_same_table(stream.read_all(), ROWS["counts"], "counts")
    with _stream(url, "grid", selection=":,2") as stream:
        assert is_same_table(stream.read_all(), GRID[:, 2], "grid")
    with _stream(url, "cube", selection="1") as stream:
        assert is_same_table(stream.read_all(), np.zeros((2, 2)), "cube")
    with _stream(url, "cube", flatten="1") as stream:
        assert is_same_table(stream.read_all(), np.zeros(8), "cube")
    with _stream(url, "halves", dtype="safe") as stream:
        assert is_same_table(stream.read_all(), GRID[0].astype("<f4"), "halves")
    with _stream(url, "long", max_points="1000", method="minmax") as stream:
        assert stream.schema.names == ["long[0]", "long[1]"]
        assert stream.read_all().num_rows == 1000


@installed
def test_it_comes_block_by_block(url: str) -> None:
    with urlopen(_at(url, "long"), timeout=PATIENCE) as answer:
        assert answer.headers["content-type"] == MEDIA_TYPE
        assert answer.headers["content-disposition"] == 'attachment; filename="long.arrows"'
        assert "content-length" not in answer.headers
        with pa.ipc.open_stream(answer) as stream:
            sizes = [batch.nbytes for batch in stream]
    assert sum(sizes) == LONG.nbytes
    assert len(sizes) > 2
    assert max(sizes) <= 4 << 20


@needs("pyarrow", "pandas")
def test_pandas(url: str) -> None:
    with _stream(url, "table") as stream:
        frame = stream.read_pandas()
    assert list(frame.columns) == list(ROW.names or ())
    for name in ("id", "energy", "half", "ok", "shutter", "größe"):
        assert (
            frame[name].to_numpy().tobytes()
            == ROWS[name].astype(ROW[name].newbyteorder("=")).tobytes()
        )
    assert frame["note"].tolist() == ROWS["note"].tolist()
    assert frame["name"].tolist() == [each.decode() for each in ROWS["name"].tolist()]
    assert np.stack(frame["counts"].to_numpy()).tolist() == ROWS["counts"].tolist()
    with _stream(url, "grid") as stream:
        assert np.array_equal(stream.read_pandas().to_numpy(), GRID)


@needs("pyarrow", "polars")
def test_polars(url: str) -> None:
    import polars as pl  # noqa: PLC0415  # where it is installed

    fields = "id,energy,name,note,ok,field,at,counts,größe"
    with urlopen(_at(url, "table", fields=fields), timeout=PATIENCE) as answer:
        frame = pl.read_ipc_stream(io.BytesIO(answer.read()))
    assert frame.columns == fields.split(",")
    for name in ("id", "energy", "ok", "größe"):
        native = ROWS[name].astype(ROW[name].newbyteorder("="))
        assert frame[name].to_numpy().tobytes() == native.tobytes()
    assert frame["note"].to_list() == ROWS["note"].tolist()
    assert frame["counts"].to_numpy().tolist() == ROWS["counts"].tolist()
    assert frame["at"].struct.field("y").to_list() == ROWS["at"]["y"].tolist()
    assert frame["field"].struct.field("im").to_list() == ROWS["field"].imag.tolist()
    with urlopen(_at(url, "long"), timeout=PATIENCE) as answer:
        column = pl.read_ipc_stream(answer.read())["long"]
    assert np.array_equal(column.to_numpy(), LONG)


@needs("pyarrow", "duckdb")
def test_duckdb(url: str) -> None:
    import duckdb  # noqa: PLC0415  # where it is installed

    fields = "id,energy,name,note,ok,field,shutter,at,counts,größe"
    with duckdb.connect() as connection, _stream(url, "table", fields=fields) as table:
        query = "SELECT * FROM table ORDER BY größe".replace("table", '"table"')
        found = connection.register("table", table).sql(query).fetchall()
    assert [each[0] for each in found] == ROWS["id"].tolist()
    assert [each[3] for each in found] == ROWS["note"].tolist()
    assert [each[4] for each in found] == ROWS["ok"].tolist()
    assert [each[5]["im"] for each in found] == ROWS["field"].imag.tolist()
    assert [each[7]["y"] for each in found] == ROWS["at"]["y"].tolist()
    assert [list(each[8]) for each in found] == ROWS["counts"].tolist()
    with duckdb.connect() as connection, _stream(url, "long") as stream:
        total = connection.register("t", stream).sql("SELECT sum(long), count(*) FROM t")
        assert total.fetchall() == [(pytest.approx(float(LONG.sum())), len(LONG))]
    with duckdb.connect() as connection, _stream(url, "grid") as stream:
        summed = connection.register("t", stream).sql('SELECT sum("grid[3]") FROM t')
        assert summed.fetchall() == [(int(GRID[:, 3].sum()),)]


@installed
@pytest.mark.anyio
@pytest.mark.parametrize("path", ["grid", "chunked", "wordy", "flags", "triples"])
async def test_rows_that_are_longer_than_a_block(
    app: H5App, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """They are whole in each batch."""
    monkeypatch.setattr(data, "_BLOCK_BYTES", 8)
    answer = await ask(app, "/data", path=path, format="arrow")
    words = np.array([["a", "é"], ["", "b" * 500]], h5py.string_dtype())
    expected = {"wordy": words, "flags": GRID % 3 == 0, "triples": GRID[:, :3]}.get(path, GRID)
    table = read_table(answer.body)
    assert is_same_table(table, expected, path)
    assert len(table.to_batches()) > 1


@installed
@pytest.mark.anyio
async def test_what_is_refused(app: H5App) -> None:
    for path, reason in [("cube", "more than two dimensions"), ("empty", "the dataspace is empty")]:
        answer = await ask(app, "/data", path=path, format="arrow")
        assert answer.status == 422
        assert reason in answer.json["message"]
        assert "use " in answer.json["message"]


@installed
@pytest.mark.anyio
async def test_accept_chooses_it(app: H5App) -> None:
    answer = await ask(app, "/data", {"Accept": f"{MEDIA_TYPE}, */*;q=0.1"}, path="grid")
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert is_same_table(read_table(answer.body), GRID, "grid")
    tag = answer.headers["etag"]
    again = await ask(app, "/data", {"If-None-Match": tag}, path="grid", format="arrow")
    assert again.status == 304
    head = await ask(app, "/data", None, "HEAD", path="grid", format="arrow")
    assert (head.status, head.body, head.headers["etag"]) == (200, b"", tag)


@pytest.mark.anyio
async def test_pyarrow_is_loaded_once_and_off_the_event_loop(
    app: H5App, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    monkeypatch.setattr(
        arrow.Arrow, "load", lambda _: threads.append(threading.current_thread().name)
    )
    here = threading.current_thread().name
    for selection in ("0", "1", "9999"):
        await ask(app, "/data", path="grid", format="arrow", selection=selection)
    assert len(threads) == 1
    assert threads[0] != here


@installed
@pytest.mark.anyio
async def test_many_columns_are_made_off_the_event_loop(
    app: H5App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is some work, whether it has values or not."""
    here, threads = threading.current_thread().name, set()

    class Noting(arrow.Arrow):
        def head(self, values: Values) -> bytes:
            threads.add(threading.current_thread().name)
            return super().head(values)

        def block(self, values: Values, array: Any, first: int) -> bytes:
            threads.add(threading.current_thread().name)
            return super().block(values, array, first)

    monkeypatch.setitem(list_encoders(), "arrow", Noting())
    for query in ({"path": "wide"}, {"path": "members"}, {"path": "wide", "shape": "1,500"}):
        for selection in (":1", ":2", ":1"):  # read anew, of an open file, and known
            answer = await ask(app, "/data", **query, selection=selection, format="arrow")
            assert answer.status == 200
            assert read_table(answer.body).num_columns == 500
    assert here not in threads


@pytest.mark.anyio
async def test_without_pyarrow(app: H5App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow, "_is_installed", lambda: False)
    for _ in range(2):
        answer = await ask(app, "/data", path="grid", format="arrow")
        assert answer.status == 501
        assert "pip install 'asgihive[arrow]'" in answer.json["message"]
    other = await ask(app, "/data", path="cube", format="csv")
    assert other.status == 422
    assert "arrow" not in other.json["message"]
    assert (await ask(app, "/data", path="grid")).status == 200
