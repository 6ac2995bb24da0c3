import csv
import io
from collections.abc import Iterator
from random import Random
from typing import Any

import h5py
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given

from asgihive.encoders import Values, find_encoder
from asgihive.encoders.csv import MAX_EMPTY_ROWS, MAX_NAMED_COLUMNS, WITH_HEADER
from asgihive.encoders.protocol import as_text

# No number is known for which the public function needs `_format_by_python`.
from asgihive.encoders.scientific import _find_digits, _format_by_python, format_scientific
from tests.encoders.strategies import Array, arrays, fixed, in_blocks, numbers, whole

ENCODER = find_encoder("csv")


def savetxt(array: Array) -> bytes:
    file = io.BytesIO()
    with np.errstate(over="ignore"):
        np.savetxt(file, array, delimiter=",")
    return file.getvalue()


@given(
    arrays(numbers, hnp.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=6)),
    st.randoms(use_true_random=False),
)
def test_csv_is_savetxt(array: Array, random: Random) -> None:
    assert in_blocks(ENCODER, array, random) == savetxt(array)


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", ">i2", "f2", ">f2"])
def test_every_small_number(dtype: str) -> None:
    size = np.dtype(dtype).itemsize
    patterns = np.arange(2 if dtype == "?" else 1 << 8 * size, dtype=f"u{size}")
    array = patterns.view(dtype).reshape(2, -1)
    assert whole(ENCODER, array) == savetxt(array)


@pytest.mark.parametrize("shape", [(), (1, 1, 1), None])
def test_other_dimensions_are_refused(shape: tuple[int, ...] | None) -> None:
    assert "one dimension nor two" in str(ENCODER.refusal(Values("", shape, np.dtype(float))))


def test_rows_out_of_nothing_are_refused() -> None:
    dtype: np.dtype[Any] = np.dtype(float)
    assert ENCODER.refusal(Values("", (MAX_EMPTY_ROWS, 0), dtype)) is None
    assert "empty rows" in str(ENCODER.refusal(Values("", (MAX_EMPTY_ROWS + 1, 0), dtype)))
    assert ENCODER.refusal(Values("", (0, MAX_EMPTY_ROWS + 1), dtype)) is None


# Text


def rows_of(body: bytes) -> list[list[str]]:
    """As the module `csv` reads it."""
    return list(csv.reader(io.StringIO(body.decode(), newline=""), strict=True))


awkward = st.text(st.sampled_from('a,"\r\n \té=\0')) | st.text(max_size=4)
tables = hnp.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=5)


@st.composite
def text_arrays(draw: st.DrawFn) -> Array:
    shape, dtype = draw(tables), draw(st.sampled_from(["S6", "U3", h5py.string_dtype()]))
    array = np.empty(shape, dtype)
    for index in np.ndindex(shape):
        text = draw(awkward)
        # As h5py gives those of variable length.
        array[index] = text if array.dtype.kind == "U" else text.encode()
    return array


@given(text_arrays(), st.randoms(use_true_random=False))
def test_text_is_read_back(array: Array, random: Random) -> None:
    body = in_blocks(ENCODER, array, random)
    table = array.reshape(len(array), -1) if array.size else np.empty((len(array), 0), "U1")
    expected = [[as_text(cell) for cell in row] for row in table.tolist()]
    assert rows_of(body) == expected


def test_quotes_are_those_of_rfc_4180() -> None:
    array = np.array([["a,b", 'say "x"', "two\nlines", "plain", ""]], object)
    dtype = h5py.string_dtype()
    body = whole(ENCODER, array.astype(dtype))
    assert body == b'"a,b","say ""x""","two\nlines",plain,\n'
    alone = np.array(["", "a"], "S1")
    assert whole(ENCODER, alone) == b'""\na\n'
    assert whole(ENCODER, np.array([b"\xff"])) == "\ufffd\n".encode()


def test_names_of_columns() -> None:
    def named(array: Array, name: str) -> bytes:
        values = Values(name, array.shape, array.dtype)
        assert WITH_HEADER.refusal(values) is None
        return WITH_HEADER.head(values)

    assert named(np.zeros(3), "x") == b"x\n"
    assert named(np.zeros((3, 2)), "x") == b"x[0],x[1]\n"
    assert named(np.zeros(3, "S1"), 'a"b') == b'"a""b"\n'
    assert named(np.zeros((2, 0)), "x") == b"\n\n\n"
    assert named(np.zeros(3), "") == b"data\n"
    assert ENCODER.head(Values("x", (3, 2), np.dtype("f8"))) == b""
    wide = Values("x", (1, MAX_NAMED_COLUMNS + 1), np.dtype("f8"))
    assert "columns to be named" in str(WITH_HEADER.refusal(wide))
    assert ENCODER.refusal(wide) is None


@given(arrays(numbers, tables), st.randoms(use_true_random=False))
def test_the_header_is_all_that_is_new(array: Array, random: Random) -> None:
    body = in_blocks(WITH_HEADER, array, random)
    assert body.partition(b"\n")[2] == savetxt(array)


# Compounds

compounds = fixed.filter(lambda dtype: dtype.names is not None)
lines = st.tuples(st.integers(0, 5))


def members(array: Array, name: str = "") -> Iterator[tuple[str, str]]:
    """Name and text of each column of one element."""
    if array.ndim:
        for index in np.ndindex(array.shape):
            each = np.asarray(array[index])
            yield from members(each, f"{name}[{','.join(map(str, index))}]")
    elif array.dtype.names is not None:
        for each_name in array.dtype.names:
            each = np.asarray(array[each_name])
            yield from members(each, f"{name}.{each_name}" if name else each_name)
    elif array.dtype.kind in "biufc":
        yield name, savetxt(array.reshape(1)).decode().rstrip("\n")
    else:
        yield name, as_text(array[()])


@given(arrays(compounds, lines), st.randoms(use_true_random=False))
def test_compounds_are_named_columns(array: Array, random: Random) -> None:
    values = Values("", array.shape, array.dtype)
    assert ENCODER.refusal(values) is None
    header, *rows = rows_of(in_blocks(ENCODER, array, random))
    empty = np.zeros((), array.dtype)
    assert header == [name for name, _ in members(empty)]
    assert rows == [[text for _, text in members(np.asarray(each))] for each in array]


def table() -> Array:
    dtype = [("time", "f8"), ("name", h5py.string_dtype()), ("at", [("x", "i4", (2,))]), ("b", "?")]
    array = np.zeros(2, dtype)
    array["time"], array["name"] = [0.5, 1], [b"first, of two", b"\xc3\xa9"]
    array["at"]["x"], array["b"] = [[1, 2], [3, 4]], [True, False]
    return array


def test_a_table() -> None:
    assert whole(ENCODER, table()).decode() == (
        "time,name,at.x[0],at.x[1],b\n"
        '5.000000000000000000e-01,"first, of two",1.000000000000000000e+00,'
        "2.000000000000000000e+00,1.000000000000000000e+00\n"
        "1.000000000000000000e+00,é,3.000000000000000000e+00,"
        "4.000000000000000000e+00,0.000000000000000000e+00\n"
    )


def test_pandas_reads_a_table() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(io.BytesIO(whole(ENCODER, table())))
    assert list(frame.columns) == ["time", "name", "at.x[0]", "at.x[1]", "b"]
    assert frame["name"].tolist() == ["first, of two", "é"]
    np.testing.assert_array_equal(frame["at.x[1]"], table()["at"]["x"][:, 1])


def test_numpy_reads_a_table() -> None:
    array = np.array([(1, 0.1, 2j), (-3, np.inf, 1)], [("i", ">i4"), ("f", "f8"), ("c", "c16")])
    read = np.genfromtxt(io.BytesIO(whole(ENCODER, array[["i", "f"]])), delimiter=",", names=True)
    assert read.dtype.names == ("i", "f")
    np.testing.assert_array_equal(read["i"], array["i"])
    np.testing.assert_array_equal(read["f"], array["f"])
    plain = savetxt(array["f"])
    assert np.array_equal(np.genfromtxt(io.BytesIO(plain)), array["f"])


@pytest.mark.parametrize("shape", [(), (2, 2), None])
def test_compounds_of_other_dimensions_are_refused(shape: tuple[int, ...] | None) -> None:
    dtype = np.dtype([("a", int)])
    assert "do not have one dimension" in str(ENCODER.refusal(Values("", shape, dtype)))


@pytest.mark.parametrize("member", ["V3", object, h5py.ref_dtype, h5py.vlen_dtype("i4"), "M8[s]"])
def test_compounds_of_other_members_are_refused(member: Any) -> None:
    dtype = np.dtype([("a", int), ("b", [("c", member, (2,))])])
    assert "neither a number nor text" in str(ENCODER.refusal(Values("", (2,), dtype)))


def test_compounds_of_very_many_columns_are_refused() -> None:
    most = np.dtype([("a", "f4", (MAX_NAMED_COLUMNS,))])
    over = np.dtype([("a", "f4", (MAX_NAMED_COLUMNS,)), ("b", "f4")])
    assert ENCODER.refusal(Values("", (2,), most)) is None
    assert "columns to be named" in str(ENCODER.refusal(Values("", (2,), over)))


# Numbers


def assert_scientific(numbers: Array) -> None:
    rows = format_scientific(numbers)
    texts = [bytes(row).replace(b"\0", b"").decode() for row in rows]
    assert texts == [f"{number:.18e}" for number in numbers.tolist()]
    assert not rows[:, -2:].any()


@given(st.lists(st.floats(allow_subnormal=True)))
@example([0.0, -0.0, np.nan, np.inf, -np.inf, 5e-324, 1.7976931348623157e308, 1e22, 1e23])
def test_a_number_is_as_c_writes_it(numbers: list[float]) -> None:
    assert_scientific(np.array(numbers, np.float64))


@given(st.lists(st.integers(0, (1 << 64) - 1), max_size=200))
def test_every_bit_pattern(patterns: list[int]) -> None:
    assert_scientific(np.array(patterns, np.uint64).view(np.float64))


def test_ties_go_to_even() -> None:
    # 1 + i / 2**19 has 20 digits, the last one 5.
    assert_scientific(1 + np.arange(1, 5000) * 2.0**-19)


def test_around_every_power() -> None:
    tens = np.array([float(f"1e{i}") for i in range(-323, 309)])
    for power in (tens, 2.0 ** np.arange(-1074, 1024)):
        assert_scientific(power)
        assert_scientific(np.nextafter(power, 0))
        assert_scientific(np.nextafter(power, np.inf)[:-1])


def test_integers_beyond_the_exact_scales() -> None:
    # From 1e19 on the scales are truncated: short multiples of powers of ten are hardest.
    assert_scientific(np.array([float(f"{i}e{j}") for i in range(1, 200) for j in range(17, 40)]))


def test_what_the_scales_cannot_decide_python_does() -> None:
    # No float64 is known to need it, so it is called by hand.
    array = np.array([1.5, 9.875e-300, 1e23])
    digits, decimal = _find_digits(array)
    again, again_decimal = np.zeros_like(digits), np.zeros_like(decimal)
    _format_by_python(array, np.arange(array.size), again, again_decimal)
    np.testing.assert_array_equal(again, digits)
    np.testing.assert_array_equal(again_decimal, decimal)
