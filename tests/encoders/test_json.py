import json
import math
import re
from datetime import datetime, timedelta
from random import Random
from typing import Any

import h5py
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given

from asgihive.encoders import Values, find_encoder
from asgihive.encoders.json import MAX_EMPTY_LISTS
from tests.encoders.strategies import Array, arrays, in_blocks, numbers, values_of, whole

ENCODER = find_encoder("json")


def assert_same(parsed: Any, array: Any) -> None:
    """Compare with the array, element by element, by the documented conversions."""
    if getattr(array, "ndim", 0):
        assert isinstance(parsed, list)
        assert len(parsed) == len(array)
        for item, row in zip(parsed, array, strict=True):
            assert_same(item, row)
        return
    value = array[()] if isinstance(array, np.ndarray) else array
    if isinstance(value, np.datetime64 | np.timedelta64):
        _assert_same_time(parsed, value)
    elif isinstance(value, np.void) and value.dtype.names is not None:
        assert len(parsed) == len(value.dtype.names)
        for item, name in zip(parsed, value.dtype.names, strict=True):
            assert_same(item, value[name])
    elif isinstance(value, np.complexfloating):
        assert_same(parsed[0], value.real)
        assert_same(parsed[1], value.imag)
        assert len(parsed) == 2
    elif isinstance(value, np.floating):
        rounded = _float64(value)
        assert parsed is None if not math.isfinite(rounded) else _float64(value, parsed) == rounded
    elif isinstance(value, np.void):
        assert parsed == value.tobytes().decode("utf-8", "replace")
    elif isinstance(value, bytes | str):
        # A surrogate by itself is no character (RFC 8259 §8.2).
        shown = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        assert parsed == re.sub("[\ud800-\udfff]", "\ufffd", shown)
    else:
        assert type(parsed) is type(value.item())
        assert parsed == value.item()


def _float64(value: Any, parsed: Any = None) -> float:
    """As a float64; a parsed number first as what it was, since float32 has fewer digits."""
    with np.errstate(over="ignore"):
        kind = type(value) if value.dtype.itemsize <= 8 else np.float64
        return float(kind(value if parsed is None else parsed))


EPOCH = datetime.fromisoformat("1970-01-01")
NAT = -(2**63)
# Days of a unit, as a fraction of whole numbers; and months.
DAYS = {
    unit: (1, 86_400 * 1000**power)
    for power, unit in enumerate(["s", "ms", "us", "ns", "ps", "fs", "as"])
} | {"m": (1, 1440), "h": (1, 24), "D": (1, 1), "W": (7, 1)}
MONTHS = {"M": 1, "Y": 12}


def _find_datetime(value: np.datetime64) -> datetime | None:
    """Return a time by Python's integers alone; None of other years than of four digits."""
    unit, count = np.datetime_data(value.dtype)
    number = int(value.astype(np.int64)) * count
    if unit in MONTHS:
        years, month = divmod(number * MONTHS[unit], 12)
        if not 1 <= 1970 + years <= 9999:
            return None
        return datetime.fromisoformat(f"{1970 + years:04}-{month + 1:02}-01")
    days, parts = DAYS[unit]
    try:
        return EPOCH + timedelta(microseconds=number * days * 86_400_000_000 // parts)
    except OverflowError:
        return None


def _assert_same_time(parsed: Any, value: np.datetime64 | np.timedelta64) -> None:
    number = int(value.astype(np.int64))
    unit, count = np.datetime_data(value.dtype)
    if np.isnat(value):
        assert parsed is None
    elif isinstance(value, np.timedelta64) or unit == "generic":
        assert parsed == number
    elif expected := _find_datetime(value):
        assert datetime.fromisoformat(parsed) == expected
    else:
        # NumPy shows dates of a few hundred thousand years without an overflow.
        shown = re.fullmatch(r"(-?\d+)(-\d\d)*(T[\d:.]+)?", parsed)
        if shown is None:
            assert parsed == f"{number * count} {unit} since 1970"
        else:
            assert abs(int(shown[1])) < 300_000
            assert parsed == str(value)


@given(arrays())
def test_any_array(array: Array) -> None:
    assert_same(json.loads(whole(ENCODER, array)), array)


@given(arrays(numbers), st.randoms(use_true_random=False))
def test_byte_order_does_not_show(array: Array, random: Random) -> None:
    swapped = array.astype(array.dtype.newbyteorder("S"))
    assert in_blocks(ENCODER, swapped, random) == whole(ENCODER, array)


@pytest.mark.parametrize("dtype", ["u1", [("a", "f4"), ("b", "S4", (3,))], "S1"])
def test_many_elements_in_one_block(dtype: Any) -> None:
    array = np.zeros((3, 1, 2, 9000), dtype)
    array.reshape(-1)[::7] = np.ones((), dtype)
    body = ENCODER.block(values_of(array), array, 0)
    assert_same(json.loads(bytes(body)), array)


@pytest.mark.parametrize(
    ("shape", "body"),
    [
        ((0,), b"[]"),
        ((0, 3), b"[]"),
        ((3, 0), b"[[],[],[]]"),
        ((1, 2, 0, 10**18), b"[[[],[]]]"),
        ((2, 0, 2), b"[[],[]]"),
    ],
)
def test_no_elements(shape: tuple[int, ...], body: bytes) -> None:
    assert ENCODER.head(Values("", shape, np.dtype(int))) == body


def test_a_body_out_of_nothing_is_refused() -> None:
    assert ENCODER.refusal(Values("", (MAX_EMPTY_LISTS, 0), np.dtype(int))) is None
    assert "empty lists" in str(ENCODER.refusal(Values("", (10**9, 10**9, 0), np.dtype(int))))


def test_integers_are_exact() -> None:
    array = np.array([2**64 - 1, 2**53 + 1], ">u8")
    assert whole(ENCODER, array) == b"[18446744073709551615,9007199254740993]"


def test_what_is_not_finite() -> None:
    array = np.array([np.nan, np.inf, -np.inf, -0.0])
    for dtype in ("f2", ">f4", "f8", np.longdouble):
        assert whole(ENCODER, array.astype(dtype)) == b"[null,null,null,-0.0]"
    assert whole(ENCODER, np.array([complex(np.nan, 1)])) == b"[[null,1.0]]"
    assert whole(ENCODER, np.array(np.longdouble("1e4000"))) == b"null"


@pytest.mark.parametrize(
    ("element", "expected"),
    [
        (b"caf\xc3\xa9", "café"),
        (b"caf\xe9", "caf\ufffd"),
        ("café", "café"),
        ("caf\udce9", "caf\ufffd"),
        (np.array([1.5, np.nan], ">f4"), [1.5, None]),
        (np.array([b"\xff"], object), ["\ufffd"]),
        (np.array([(1, b"x")], [("a", "i4"), ("b", "S2")]), [[1, "x"]]),
        (np.array([], "f8"), []),
        (None, None),
        (h5py.Reference(), str(h5py.Reference())),
        (2**70, 2**70),
        (1 - 2j, [1.0, -2.0]),
    ],
)
@pytest.mark.parametrize("shape", [(), (3,), (2, 1)])
def test_objects(element: Any, expected: Any, shape: tuple[int, ...]) -> None:
    array = np.empty(shape, object)
    for index in np.ndindex(shape):
        array[index] = element
    for length in reversed(shape):
        expected = [expected] * length
    assert json.loads(whole(ENCODER, array)) == expected


def test_fixed_bytes_and_opaque() -> None:
    assert whole(ENCODER, np.array([b"a\0b\0"], "S4")) == rb'["a\u0000b"]'
    assert whole(ENCODER, np.array([b"a\0"], "V2")) == rb'["a\u0000"]'


def test_members_that_are_objects() -> None:
    array = np.empty(2, [("text", object), ("vlen", object), ("pair", "c8", (2,))])
    array[0] = ("a\udcff", np.array([1, 2]), [1, 2j])
    array[1] = (b"\xff", np.array([]), [0, np.inf])
    assert json.loads(whole(ENCODER, array)) == [
        ["a\ufffd", [1, 2], [[1, 0], [0, 2]]],
        ["\ufffd", [], [[0, 0], [None, 0]]],
    ]


def test_times() -> None:
    array = np.array(["2020-01-02T03:04:05.678", "NaT", "12020-01-01"], "M8[ms]")
    assert json.loads(whole(ENCODER, array)) == [
        "2020-01-02T03:04:05.678000",
        None,
        "12020-01-01T00:00:00.000",
    ]


@given(
    st.sampled_from([*DAYS, *MONTHS]),
    st.sampled_from([1, 7, 25, 1000, 2**31 - 1]),
    st.lists(st.integers(NAT, 2**63 - 1) | st.integers(-(10**6), 10**6), min_size=1, max_size=5),
)
@example("ns", 1, [NAT + 1, NAT + 999, NAT, 2**63 - 1])
@example("as", 25, [NAT + 1, -1, 0, 2**63 - 1])
@example("ns", 7, [NAT + 1, 2**63 - 1])
@example("Y", 1, [-1970, -1969, 8029, 8030, 290_001, 2**63 - 1])
def test_times_are_exact_in_every_unit(unit: str, count: int, ticks: list[int]) -> None:
    times = np.array(ticks, np.int64).view(f"M8[{count}{unit}]")
    assert_same(json.loads(whole(ENCODER, times)), times)


def test_times_of_no_unit_are_numbers() -> None:
    times = np.array([5, -(2**63)], np.int64).view("M8")
    assert json.loads(whole(ENCODER, times)) == [5, None]
