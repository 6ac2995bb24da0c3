"""`fields`: columns of compounds, in every format and on every route that reads values."""

import io
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import h5py
import msgpack
import msgpack_numpy
import numpy as np
import pytest
import tifffile

from asgihive.service import H5App, data
from asgihive.settings import H5Settings
from tests.asgi.exchange import http, run
from tests.service.asking import ask, held

pytestmark = pytest.mark.anyio

POINT = np.dtype([("x", "<f4"), ("y", ">f4")])
SPARSE = np.dtype(
    {"names": ["p", "q"], "formats": ["u1", "<i8"], "offsets": [3, 8], "itemsize": 24}
)
ROW = np.dtype(
    [
        ("id", "<i4"),
        ("name", "S5"),
        ("b,c", ">f8"),
        ("at", POINT),
        ("at.x", "<u2"),
        ("three", "<i2", (3,)),
        ("both", POINT, (2,)),
        ("ok", "?"),
        ("gaps", SPARSE),
        ("größe", "<f8"),
    ]
)
COUNT = 5000


def _make_rows(shape: tuple[int, ...]) -> Any:
    random = np.random.default_rng(7)
    octets = random.integers(0, 250, (*shape, ROW.itemsize), dtype=np.uint8)
    rows = octets.view(ROW).reshape(shape)
    rows["name"] = random.choice([b"", b"ab", b"abcde"], shape)
    rows["ok"] = random.integers(0, 2, shape)
    for name in ("b,c", "größe"):
        rows[name] = random.normal(size=shape)
    for name in ("at", "both"):
        for each in "xy":
            rows[name][each] = random.normal(size=rows[name][each].shape)
    return rows


ROWS = _make_rows((COUNT,))
GRID = _make_rows((3, 4))
WAYS = ("contiguous", "chunked", "checked", "virtual", "with_text")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fields")
    with h5py.File(root / "x.h5", "w") as file:
        file["contiguous"] = ROWS
        file.create_dataset("chunked", data=ROWS, chunks=(700,), compression="gzip", shuffle=True)
        file.create_dataset("checked", data=ROWS, chunks=(700,), fletcher32=True)
        layout = h5py.VirtualLayout((COUNT,), ROW)
        layout[:2000] = h5py.VirtualSource(".", "/chunked", (COUNT,))[:2000]
        layout[2000:] = h5py.VirtualSource(".", "/contiguous", (COUNT,))[2000:]
        file.create_virtual_dataset("virtual", layout)
        # libhdf5 alone reads texts of variable length, and so all of these elements.
        wide = np.dtype(
            [("text", h5py.string_dtype()), *((each, ROW[each]) for each in ROW.names or ())]
        )
        texts = np.empty(COUNT, wide)
        texts["text"] = [f"é{i}" for i in range(COUNT)]
        for name in ROW.names or ():
            texts[name] = ROWS[name]
        file["with_text"] = texts
        file["grid"] = GRID
        file["scalar"] = ROWS[3]
        file.create_dataset("nothing", (0,), ROW)
        file["empty"] = h5py.Empty(ROW)
        missing = h5py.VirtualLayout((1000,), POINT)
        missing[:] = h5py.VirtualSource("no.h5", "/x", (1000,))
        file.create_virtual_dataset("missing", missing, fillvalue=np.array((2, 3), POINT))
        file["numbers"] = np.arange(3.0)
        file["complex"] = np.arange(3) * 1j
        file.create_dataset("arrays", (4,), np.dtype((POINT, (2,))))
        file.create_dataset("wide", (2,), [(f"c{i}", "u1") for i in range(80)])
    return root


@pytest.fixture
def app(root: Path) -> H5App:
    return H5App(root)


def _same(found: Any, wanted: Any) -> None:
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    assert found.tobytes() == np.ascontiguousarray(wanted).tobytes()


def _pick(rows: Any, *names: str) -> Any:
    """The columns as NumPy has them, without padding between them."""
    columns = []
    for name in names:
        column = rows
        for each in [name] if name in ROW.names else name.split("."):  # type: ignore[operator]
            column = column[each]
        columns.append(column)
    item = [(n, c.dtype, c.shape[rows.ndim :]) for n, c in zip(names, columns, strict=True)]
    picked = np.zeros(rows.shape, item)
    for name, column in zip(names, columns, strict=True):
        picked[name] = column
    return picked


def _load(body: bytes) -> Any:
    return np.load(io.BytesIO(body), allow_pickle=False)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("selection", ["", "17:4000:3", "5:6"])
async def test_the_columns_are_those_of_numpy(app: H5App, way: str, selection: str) -> None:
    rows = eval(f"ROWS[{selection or ':'}]")
    several = ("ok", "at.y", "id", "three", "both")
    answer = await ask(
        app, "/data", path=way, format="npy", selection=selection, fields=",".join(several)
    )
    _same(_load(answer.body), _pick(rows, *several))
    for name in ("id", "b,c", "at.x", "at.y", "three", "ok", "name", "größe"):
        answer = await ask(app, "/data", path=way, format="npy", selection=selection, fields=name)
        _same(_load(answer.body), _pick(rows, name)[name])
        answer = await ask(app, "/data", path=way, format="bin", selection=selection, fields=name)
        assert answer.body == _pick(rows, name)[name].tobytes()
    assert not held(app)


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        (["id,ok"], ("id", "ok")),
        (["ok , id"], ("ok", "id")),
        (["ok", "id"], ("ok", "id")),
        (["b,c", "id"], ("b,c", "id")),
        (["id,at.y", "b,c", "größe"], ("id", "at.y", "b,c", "größe")),
        (["", "three,both.x", ""], ("three", "both.x")),
        (["at.x,at.y"], ("at.x", "at.y")),
    ],
)
async def test_how_names_are_written(app: H5App, fields: list[str], names: tuple[str, ...]) -> None:
    query = [("file", "x.h5"), ("path", "contiguous"), ("format", "npy"), ("selection", ":9")]
    raw = urlencode([*query, *(("fields", each) for each in fields)]).encode()
    answer = await run(app, http("/data", query_string=raw))
    _same(_load(answer.body), _pick(ROWS[:9], *names))


async def test_every_format(app: H5App) -> None:
    query = {"path": "chunked", "selection": "2:7", "fields": "id,name,at.y"}
    rows = _pick(ROWS[2:7], "id", "name", "at.y")

    async def body(format_: str, **more: str) -> bytes:
        answer = await ask(app, "/data", **query | {"format": format_} | more)
        assert answer.status == 200, answer.body
        return answer.body

    assert await body("bin") == rows.tobytes()
    found = msgpack.unpackb(await body("msgpack"), object_hook=msgpack_numpy.decode)
    assert found.tolist() == rows.tolist()
    decoded = [[int(i), n.decode(), pytest.approx(float(y))] for i, n, y in rows.tolist()]
    answer = await ask(app, "/data", **query)
    assert answer.json == decoded
    answer = await ask(app, "/data", **query, compound="object")
    assert answer.json == [dict(zip(rows.dtype.names, each, strict=True)) for each in decoded]
    lines = (await body("csv")).decode().splitlines()
    assert lines[0] == "id,name,at.y"
    assert [line.split(",")[1] for line in lines[1:]] == [each[1] for each in decoded]
    lines = (await body("csv", fields="b,c", header="1")).decode().splitlines()
    assert lines[0] == '"b,c"'
    assert [float(each) for each in lines[1:]] == ROWS[2:7]["b,c"].tolist()
    refused = await ask(app, "/data", **query, format="tiff")
    assert refused.status == 422
    grid = await ask(app, "/data", path="grid", fields="id", format="tiff")
    _same(tifffile.imread(io.BytesIO(grid.body)), GRID["id"])
    safe = await ask(app, "/data", path="grid", fields="at.y", format="bin", dtype="safe")
    assert safe.body == GRID["at"]["y"].astype("<f4").tobytes()


async def test_a_column_that_is_a_compound(app: H5App) -> None:
    answer = await ask(app, "/data", path="chunked", fields="at", format="npy")
    _same(_load(answer.body), ROWS["at"])
    for names in ("gaps", "gaps,id"):  # whose padding is zero, whatever the file has there
        answer = await ask(app, "/data", path="chunked", fields=names, format="bin")
        octets = np.frombuffer(answer.body, "u1").reshape(COUNT, -1)[:, :24]
        found = np.frombuffer(octets.tobytes(), SPARSE)
        assert found["q"].tolist() == ROWS["gaps"]["q"].tolist()
        assert not octets[:, [0, 1, 2, 4, 5, 6, 7, 16, 23]].any()


async def test_elements_of_other_shapes(app: H5App) -> None:
    for path, rows in [("grid", GRID), ("nothing", ROWS[:0])]:
        for name in ("id", "three"):
            answer = await ask(app, "/data", path=path, fields=name, format="npy")
            _same(_load(answer.body), rows[name])
            answer = await ask(app, "/data", path=path, fields=name, format="npy", flatten="1")
            _same(_load(answer.body), rows[name].reshape(-1))
    scalar = await ask(app, "/data", path="scalar", fields="three")
    assert scalar.json == ROWS[3]["three"].tolist()
    one = await ask(app, "/data", path="grid", selection="1,2", fields="id,ok")
    assert one.json == [int(GRID[1, 2]["id"]), bool(GRID[1, 2]["ok"])]
    nothing = await ask(app, "/data", path="empty", fields="id")
    assert nothing.json is None
    arrays = await ask(app, "/data", path="arrays", fields="y")
    assert arrays.json == [[0.0, 0.0]] * 4


async def test_text_of_variable_length(app: H5App) -> None:
    answer = await ask(app, "/data", path="with_text", fields="id,text", selection=":3")
    ids = ROWS["id"][:3].tolist()
    assert answer.json == [[i, f"é{n}"] for n, i in enumerate(ids)]
    answer = await ask(app, "/data", path="with_text", fields="text", selection=":3")
    assert answer.json == ["é0", "é1", "é2"]


@pytest.mark.parametrize("way", ["contiguous", "chunked"])
async def test_a_range_of_the_bytes(app: H5App, way: str) -> None:
    for fields in ("id", "ok,b,c".replace("b,c", "at.y"), "three"):
        names = fields.split(",")
        picked = _pick(ROWS, *names)
        whole = (picked if len(names) > 1 else picked[names[0]]).tobytes()
        query = {"path": way, "fields": fields, "format": "bin"}
        for first, last in [(0, 0), (3, 77), (9001, len(whole) - 1)]:
            answer = await ask(app, "/data", {"Range": f"bytes={first}-{last}"}, **query)
            assert answer.status == 206
            assert answer.body == whole[first : last + 1]


async def test_many_blocks(app: H5App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "_BLOCK_BYTES", 1 << 14)
    for way, count in [
        ("contiguous", COUNT),
        ("chunked", COUNT),
        ("virtual", 900),
        ("with_text", 99),
    ]:
        query = {"path": way, "selection": f":{count}", "format": "npy"}
        answer = await ask(app, "/data", **query, fields="at.y,id")
        _same(_load(answer.body), _pick(ROWS[:count], "at.y", "id"))


async def test_what_is_sent_is_what_is_bounded(root: Path) -> None:
    app = H5App(root, H5Settings(max_response_bytes=COUNT * 5))
    assert (await ask(app, "/data", path="chunked", fields="id", format="bin")).status == 200
    assert (await ask(app, "/data", path="chunked", fields="id,ok", format="bin")).status == 200
    assert (await ask(app, "/data", path="chunked", fields="id,at.x", format="bin")).status == 413
    assert (await ask(app, "/data", path="chunked", format="bin")).status == 413


@pytest.mark.parametrize("route", ["/data", "/stats", "/histogram"])
async def test_what_is_refused(app: H5App, route: str) -> None:
    for fields, reason in [
        ("nope", "`id`, `name`, `b,c`, `at`, `at.x`, `at.y`"),
        ("id,nope", "Parameter `fields` is `nope`"),
        ("id,", "Parameter `fields` is ``"),
        ("id,ok,id", "Parameter `fields` is `id`: it is there twice; `id`, `name`"),
        ("at.z", "`at.z`"),
        ("id.x", "`id.x`"),
        ("at.", "`at.`"),
        ("three.0", "`three.0`"),
        ("ID", "`ID`"),
        ("." * 60_000, "..."),
    ]:
        answer = await ask(app, route, path="contiguous", fields=fields)
        assert answer.status == 422
        assert reason in answer.json["message"]
    for path in ("numbers", "complex"):
        answer = await ask(app, route, path=path, fields="r")
        assert answer.status == 422
        assert "columns of compounds" in answer.json["message"]
    answer = await ask(app, route, path="wide", fields="x")
    assert "`c49` and others are accepted" in answer.json["message"]
    assert not held(app)


async def test_each_choice_is_an_answer_of_its_own(app: H5App) -> None:
    tags = set()
    for fields in ("", "id", "ok", "id,ok", "ok,id"):
        first = await ask(app, "/data", path="contiguous", fields=fields, selection="3")
        tags.add(first.headers["etag"])
        again = await ask(
            app,
            "/data",
            {"If-None-Match": first.headers["etag"]},
            path="contiguous",
            fields=fields,
            selection="3",
        )
        assert again.status == 304
    assert len(tags) == 5
    whole = await ask(app, "/data", path="contiguous", selection="3")
    assert whole.headers["etag"] in tags  # an empty parameter is none


def _describe(column: Any) -> Any:
    numbers = column.astype(np.float64)
    numbers = numbers[np.isfinite(numbers)]
    return {
        "min": numbers.min(),
        "max": numbers.max(),
        "mean": numbers.mean(),
        "std": numbers.std(),
    }


def _shows(found: dict[str, Any], column: Any) -> None:
    for name, value in _describe(column).items():
        assert found[name] == pytest.approx(float(value), rel=1e-12)


@pytest.mark.parametrize("way", WAYS)
async def test_statistics(app: H5App, way: str) -> None:
    one = await ask(app, "/stats", path=way, fields="b,c")
    _shows(one.json, ROWS["b,c"])
    several = await ask(app, "/stats", path=way, fields="ok,three,at.y", selection="10:4000")
    assert list(several.json) == ["ok", "three", "at.y"]
    for name, found in several.json.items():
        _shows(found, _pick(ROWS[10:4000], name)[name])


async def test_statistics_of_nothing(app: H5App) -> None:
    for path in ("nothing", "empty"):
        answer = await ask(app, "/stats", path=path, fields="id,ok")
        assert [each["mean"] for each in answer.json.values()] == [None, None]


async def test_statistics_of_fill_values_alone(app: H5App) -> None:
    answer = await ask(app, "/stats", path="missing", fields="y,x")
    assert {name: each["mean"] for name, each in answer.json.items()} == {"y": 3, "x": 2}
    assert answer.headers["missing-sources"] == "1 of 1; first=no.h5"
    counted = await ask(app, "/histogram", path="missing", fields="y", bins="1")
    assert counted.json["counts"] == [1000]


@pytest.mark.parametrize("way", WAYS)
async def test_a_histogram_is_of_one_column(app: H5App, way: str) -> None:
    for name in ("id", "b,c", "ok", "three"):
        answer = await ask(app, "/histogram", path=way, fields=name, bins="7")
        counts, edges = np.histogram(ROWS[name].astype(np.float64), 7)
        assert answer.json["counts"] == counts.tolist()
        assert answer.json["edges"] == pytest.approx(edges.tolist())
    refused = await ask(app, "/histogram", path=way, fields="id,ok")
    assert refused.status == 422
    assert "one column" in refused.json["message"]


@pytest.mark.parametrize("route", ["/stats", "/histogram"])
async def test_columns_that_are_no_numbers(app: H5App, route: str) -> None:
    for fields in ("name", "at"):
        answer = await ask(app, route, path="contiguous", fields=fields)
        assert answer.status == 422
        assert f"Parameter `fields` is `{fields}`" in answer.json["message"]
    answer = await ask(app, route, path="contiguous")
    assert answer.status == 422
    assert "`fields`" in answer.json["message"]


@pytest.mark.parametrize("way", ["contiguous", "chunked", "with_text"])
@pytest.mark.parametrize("method", ["mean", "min", "max", "minmax", "nearest"])
async def test_views(app: H5App, way: str, method: str) -> None:
    query = {"path": way, "max_points": "50", "method": method, "format": "npy"}
    found = _load((await ask(app, "/data", **query, fields="b,c")).body)
    bins = ROWS["b,c"].reshape(50, 100).astype(float)
    wanted = {
        "mean": bins.mean(axis=1),
        "min": bins.min(axis=1),
        "max": bins.max(axis=1),
        "minmax": np.stack([bins.min(axis=1), bins.max(axis=1)], axis=-1),
        "nearest": bins[:, 0],
    }[method]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    answer = await ask(app, "/data", **query, fields="id,ok")
    assert answer.status == (200 if method == "nearest" else 422)


async def test_in_a_batch(app: H5App) -> None:
    asked = (
        b'[{"route": "data", "params": {"file": "x.h5", "path": "contiguous", "selection": "3", '
        b'"fields": ["id", "b,c"]}},'
        b'{"route": "stats", "params": {"file": "x.h5", "path": "contiguous", "fields": "id"}}]'
    )
    headers = [(b"content-type", b"application/json")]
    answer = await run(app, http("/batch", "POST", headers=headers, body=asked))
    data, statistics = answer.json
    assert data["body"] == [int(ROWS[3]["id"]), float(ROWS[3]["b,c"])]
    _shows(statistics["body"], ROWS["id"])
