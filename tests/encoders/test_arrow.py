"""`arrow` read by pyarrow, and compared with NumPy bit by bit."""

import subprocess
import sys
from collections.abc import Iterator
from random import Random
from typing import Any

import h5py
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings

from asgihive.encoders import Values, arrow, list_encoders
from asgihive.encoders.protocol import check_fit, find_encoder
from asgihive.errors import AnswerTooLarge, ExtraMissing, FormatMismatch
from tests.efforts import at_most
from tests.encoders.strategies import (
    Array,
    arrays,
    dtypes,
    in_blocks,
    numbers,
    simple,
    values_of,
    whole,
)
from tests.zoo.arrow_tables import IS_INSTALLED, is_same_table, read_table

ENCODER = arrow.ENCODER

if IS_INSTALLED:
    import pyarrow as pa

installed = pytest.mark.skipif(not IS_INSTALLED, reason="pyarrow is not installed")


def _rows(array: Array, random: Random) -> Iterator[tuple[Array, int]]:
    """Whole rows of the first axis, as the encoder asks for them."""
    start, width = 0, array.size // max(1, len(array))
    while start < len(array):
        stop = random.randint(start + 1, len(array))
        yield array[start:stop], start * width
        start = stop


def _body(array: Array, blocks: Iterator[tuple[Array, int]], values: Values | None = None) -> bytes:
    values = values or values_of(array)
    encoded = [ENCODER.block(values, np.ascontiguousarray(b), first) for b, first in blocks]
    return b"".join([ENCODER.head(values), *encoded, ENCODER.tail(values)])


def _objects(items: list[Any], dtype: np.dtype[Any]) -> Array:
    array = np.empty(len(items), dtype)
    for i, each in enumerate(items):
        array[i] = each
    return array


@installed
@given(arrays(dtypes, hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4)))
@settings(max_examples=at_most(25))
def test_any_values(array: Array) -> None:
    assume(ENCODER.refusal(values_of(array)) is None)
    assert is_same_table(read_table(whole(ENCODER, array)), array, "data")


@installed
@given(
    st.one_of(
        arrays(simple, hnp.array_shapes(min_dims=2, max_dims=2, max_side=4)),
        arrays(hnp.nested_dtypes(numbers), hnp.array_shapes(min_dims=1, max_dims=1, max_side=9)),
    ),
    st.randoms(use_true_random=False),
)
@settings(max_examples=at_most(60))
def test_cuts_do_not_show(array: Array, random: Random) -> None:
    assume(ENCODER.refusal(values_of(array)) is None)
    if array.ndim == 1:
        body = in_blocks(ENCODER, array, random)
    else:
        body = _body(array, _rows(array, random))
    assert is_same_table(read_table(body), array, "data")


@installed
@pytest.mark.parametrize("order", "<>")
def test_every_bit_of_a_float(order: str) -> None:
    """NaNs with what they carry, signalling ones too, and zeros of either sign."""
    for size in (2, 4, 8):
        bits = np.random.default_rng(size).integers(0, 256, (4096, size), np.uint8)
        bits[:64, 0 if order == ">" else -1] = 0x7F
        bits[:64, 1 if order == ">" else -2] |= 0x80
        array = bits.view(np.dtype(f"{order}f{size}")).reshape(-1)
        assert is_same_table(read_table(whole(ENCODER, array)), array, "data")


@installed
def test_every_byte_but_0_is_true() -> None:
    array = np.arange(7, dtype="u1").view(bool)
    assert read_table(whole(ENCODER, array))["data"].to_pylist() == [False] + [True] * 6


@installed
@pytest.mark.parametrize(
    ("array", "shown"),
    [
        (np.array([b"ab", b"", b"a\0b", b"\0"], "S4"), ["ab", "", "a\0b", ""]),
        (np.array(["é".encode(), b"\xff", b"a\xc3", b""], "S2"), ["é", "\ufffd", "a\ufffd", ""]),
        (_objects(["é", "", "a" * 999], h5py.string_dtype()), ["é", "", "a" * 999]),
        (_objects([b"\xff", "\udcff", "x"], h5py.string_dtype()), ["\ufffd", "\ufffd", "x"]),
    ],
)
def test_text(array: Array, shown: list[str]) -> None:
    table = read_table(whole(ENCODER, array))
    assert table.schema.field(0).type == pa.utf8()
    assert table["data"].to_pylist() == shown


@installed
def test_lists_of_variable_length() -> None:
    point = np.dtype([("x", ">f4"), ("y", "u1")])
    for element in (">i4", "<f2", "?", point, h5py.string_dtype(), h5py.vlen_dtype(np.dtype("i1"))):
        kind = np.dtype(element)
        items = [np.zeros(n, kind) for n in (0, 3, 1, 0)]
        if kind.kind == "O":
            is_text = h5py.check_string_dtype(kind) is not None
            for each in items:
                each[:] = _objects(
                    ["é"] * len(each) if is_text else [np.ones(2, "i1")] * len(each), kind
                )
        elif kind.names is None:
            items[1][:] = [1, 0, 1]
        else:
            items[1]["x"] = [1, 2, 3]
        array = _objects(items, h5py.vlen_dtype(kind))
        values = Values("", array.shape, array.dtype)
        assert is_same_table(read_table(_body(array, iter([(array, 0)]), values)), array, "data")


@installed
def test_nested_types() -> None:
    point = np.dtype([("x", "<f4"), ("y", ">c8")])
    row = np.dtype([("at", point), ("grid", point, (2, 3)), ("flags", "?", (9,)), ("raw", "V3")])
    array = np.random.default_rng(0).integers(0, 200, (5, row.itemsize), np.uint8).view(row)[:, 0]
    table = read_table(whole(ENCODER, array))
    assert is_same_table(table, array, "")
    part = pa.struct([("re", pa.float32()), ("im", pa.float32())])
    struct = pa.struct([("x", pa.float32()), ("y", part)])
    grid = pa.list_(pa.list_(struct, 3), 2)
    flags, raw = pa.list_(pa.bool_(), 9), pa.binary(3)
    assert table.schema.types == [struct, grid, flags, raw]


@installed
def test_times() -> None:
    for unit in ("s", "ms", "us", "ns"):
        for kind in "Mm":
            ticks = np.array([0, -5, 2**62, np.iinfo("i8").min], "i8")
            array = ticks.view(f"{kind}8[{unit}]")
            table = read_table(whole(ENCODER, array))
            assert table["data"].null_count == 1  # NaT
            assert is_same_table(table, array, "data")
    for refused in ("M8[D]", "M8", "m8[5s]", "M8[ps]"):
        reason = ENCODER.refusal(Values("", (1,), np.dtype(refused)))
        assert "of no unit that Arrow has" in str(reason)


@installed
def test_the_names_of_an_enumeration_are_in_the_metadata() -> None:
    base = {"class": 0}
    enum = {"class": 8, "members": {"ON": 1, "AUS": 255}, "base": base}
    array = {"class": 10, "dims": [2], "base": enum}
    members = [{"name": "a", **enum}, {"name": "b", **array}, {"name": "c", **base}]
    row = np.dtype([("a", "u1"), ("b", "u1", (2,)), ("c", "u1")])
    values = Values("x", (3,), row, description={"class": 6, "members": members})
    schema = read_table(ENCODER.head(values) + ENCODER.tail(values)).schema
    names = {b"enum": b'{"ON":1,"AUS":255}'}
    assert schema.field("a").metadata == names
    assert schema.field("b").type.value_field.metadata == names
    assert schema.field("c").metadata is None
    plain = Values("x", (3, 2), np.dtype("u1"), description=enum)
    schema = read_table(ENCODER.head(plain) + ENCODER.tail(plain)).schema
    assert [(each.name, each.metadata) for each in schema] == [("x[0]", names), ("x[1]", names)]


@installed
def test_what_a_column_is_called() -> None:
    for values, name in [
        (Values("counts", (0,), np.dtype("i4")), "counts"),
        (Values("", (0,), np.dtype("i4")), "data"),
        (Values("table", (0,), np.dtype("i4"), "a.b"), "a.b"),
        (Values("x\udcff", (0,), np.dtype("i4")), "x\ufffd"),
    ]:
        table = read_table(ENCODER.head(values) + ENCODER.tail(values))
        assert (table.column_names, table.num_rows) == ([name], 0)


@installed
def test_columns_of_names_that_are_shown_alike() -> None:
    row = np.dtype([("\udcff", "i1"), ("\udcfe", "i1"), ("a", "i1")])
    table = read_table(whole(ENCODER, np.zeros(2, row)))
    assert table.column_names == ["\\xff", "\\xfe", "a"]


@installed
@pytest.mark.parametrize(
    ("shape", "dtype", "reason"),
    [
        (None, "i4", "empty"),
        ((2, 2, 2), "i4", "more than two dimensions"),
        ((2, 2), [("a", "i4")], "compounds in more than one dimension"),
        ((2, 0), "i4", "0 columns"),
        ((1, arrow.MAX_COLUMNS + 1), "i4", f"from 1 to {arrow.MAX_COLUMNS}"),
        ((2,), np.longdouble, "they are float128, and Arrow has no floats of more than 8 bytes"),
        ((2,), [("a", [("b", np.clongdouble)])], "`b` is of complex256"),
        ((2,), h5py.ref_dtype, "they are references"),
        ((2,), [("r", h5py.regionref_dtype, (2,))], "`r` is of references"),
        ((2,), h5py.vlen_dtype(np.dtype("M8[D]")), "datetime64[D]"),
        ((2,), object, "references"),
    ],
)
@pytest.mark.skipif(np.dtype(np.longdouble).itemsize != 16, reason="it has other long doubles")
def test_what_is_refused(shape: Any, dtype: Any, reason: str) -> None:
    values = Values("", shape, np.dtype(dtype))
    assert reason in str(ENCODER.refusal(values))
    if shape == (2, 2, 2):
        with pytest.raises(FormatMismatch, match="use bin or json or msgpack or npy or tiff"):
            check_fit(ENCODER, values)


@installed
@pytest.mark.slow
def test_the_widest_table() -> None:
    array = np.arange(2 * arrow.MAX_COLUMNS, dtype="u2").reshape(2, -1)
    assert is_same_table(read_table(whole(ENCODER, array)), array, "data")


@installed
def test_more_text_than_offsets_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow, "MAX_OFFSET", 10)
    texts = ["aaaa", "bbbbbb", "", "cccccccccc", "d"] * 3
    row = np.dtype([("t", h5py.string_dtype()), ("i", "i4")])
    array = np.empty(len(texts), row)
    array["t"], array["i"] = texts, range(len(texts))
    body = whole(ENCODER, array)
    table = read_table(body)
    assert table["t"].to_pylist() == texts
    assert table["i"].to_pylist() == list(range(len(texts)))
    assert max(sum(map(len, batch["t"].to_pylist())) for batch in table.to_batches()) <= 10
    array["t"][7] = "e" * 11
    with pytest.raises(AnswerTooLarge):
        whole(ENCODER, array)
    fixed = np.array([b"12345", b"123456", b"1"])
    assert read_table(whole(ENCODER, fixed))["data"].to_pylist() == ["12345", "123456", "1"]
    lists = _objects([np.zeros(6, "i1"), np.ones(5, "i1")], h5py.vlen_dtype(np.dtype("i1")))
    assert read_table(whole(ENCODER, lists))["data"].to_pylist() == [[0] * 6, [1] * 5]


def test_without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow, "_is_installed", lambda: False)
    with pytest.raises(ExtraMissing, match=r"pip install 'asgihive\[arrow\]'"):
        ENCODER.load()
    with pytest.raises(FormatMismatch) as raised:
        check_fit(find_encoder("tiff"), Values("", (2,), np.dtype("f8")))
    assert "use bin or csv or json" in str(raised.value)
    assert "arrow" not in str(raised.value)


@installed
@pytest.mark.slow
def test_pandas_is_not_imported() -> None:
    """It takes seconds where it is installed; pyarrow imports it for some of its functions."""
    code = """
import sys
import h5py, numpy as np
from asgihive.encoders import Values, list_encoders
list_encoders()
assert "pyarrow" not in sys.modules
from asgihive.encoders.arrow import ENCODER
row = [("a", "i4"), ("t", h5py.string_dtype()), ("l", h5py.vlen_dtype(np.dtype("f4")))]
row = np.dtype([*row, ("c", "c8"), ("g", "f2", (2,)), ("s", "S3"), ("b", "?"), ("m", "M8[s]")])
rows = np.zeros(3, row)
rows["t"], rows["m"] = "x", np.datetime64("NaT")
for i in range(3):
    rows["l"][i] = np.zeros(i, "f4")
values = Values("x", (3,), row)
ENCODER.load()
ENCODER.refusal(values)
ENCODER.head(values) + ENCODER.block(values, rows, 0) + ENCODER.tail(values)
assert "pandas" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_it_is_listed_whether_pyarrow_is_installed_or_not() -> None:
    assert list_encoders()["arrow"] is ENCODER
