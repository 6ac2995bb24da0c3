"""Histograms: `numpy.histogram` is the oracle where it is exact, Python's integers elsewhere."""

import bisect
import functools
import math
import operator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from asgihive.hdf5.statistics import RUN_ELEMENTS, Histogram, ValueRange, find_range, needs_range

Array = np.ndarray[Any, Any]
SMALL_INTEGERS = ["i1", "u1", "<i2", ">u2", "?"]
INTEGERS = [*SMALL_INTEGERS, ">i4", "<u4"]
FLOATS = ["<f2", "<f4", ">f8"]
CUTS = st.lists(st.integers(0, 60), max_size=3)


def counted(
    values: Array, bins: int, given_range: ValueRange | None = None, cuts: tuple[int, ...] = ()
) -> dict[str, Any]:
    """Of `values` in blocks."""
    blocks = np.split(values, sorted(cuts))
    found = given_range
    if found is None and needs_range(values.dtype):
        found = ValueRange()
        for block in blocks:
            found = found.merge(find_range(block))
    histogram = Histogram(bins, values.dtype, found)
    return histogram.describe(functools.reduce(operator.add, map(histogram.count, blocks)))


def by_comparison(values: Array, described: dict[str, Any]) -> tuple[int, list[int], int]:
    """below, counts, above: every value compared with the edges as Python compares, exactly."""
    edges, counts = described["edges"], [0] * (len(described["edges"]) - 1)
    below = above = 0
    for value in values.tolist():
        if not math.isfinite(value):
            continue
        if value < edges[0]:
            below += 1
        elif value > edges[-1]:
            above += 1
        elif value == edges[-1]:
            counts[-1] += 1
        else:
            counts[bisect.bisect_right(edges, value) - 1] += 1
    return below, counts, above


def assert_exact(values: Array, described: dict[str, Any]) -> None:
    found = (described["below"], described["counts"], described["above"])
    assert found == by_comparison(values, described)
    finite = np.isfinite(values) if values.dtype.kind == "f" else np.ones(values.shape, bool)
    assert described["not_finite"] == values.size - int(finite.sum())


def arrays(dtypes: list[str]) -> st.SearchStrategy[Array]:
    return st.sampled_from(dtypes).flatmap(
        lambda dtype: st_numpy.arrays(np.dtype(dtype), st.integers(0, 60))
    )


@given(arrays(INTEGERS), st.integers(1, 40), CUTS)
@example(np.arange(60, dtype="<u4"), 20, [])
def test_integers_are_counted_as_numpy_does(values: Array, bins: int, cuts: list[int]) -> None:
    found = counted(values, bins, cuts=tuple(cuts))
    plain = values.astype("u1") if values.dtype.kind == "b" else values
    counts, edges = np.histogram(plain, bins)
    assert found["edges"] == edges.tolist()
    assert found["counts"] == counts.tolist()
    assert found["below"] == found["above"] == found["not_finite"] == 0


@given(
    st_numpy.arrays(
        np.float64,
        st.integers(0, 60),
        elements=st.one_of(st.floats(-1e6, 1e6), st.integers(-20, 20).map(float)),
    ),
    st.integers(1, 40),
    CUTS,
)
def test_floats_are_counted_as_numpy_does(values: Array, bins: int, cuts: list[int]) -> None:
    try:
        counts, edges = np.histogram(values, bins)
    except ValueError:
        assume(False)  # NumPy refuses too narrow a range
    found = counted(values, bins, cuts=tuple(cuts))
    assert found["edges"] == edges.tolist()
    assert found["counts"] == counts.tolist()


@given(arrays(FLOATS), st.integers(1, 40), CUTS)
@example(np.array([1e308, -1.7e308, np.nan, np.inf]), 7, [])
@example(np.array([5e-324, 0, 1e-323]), 7, [])
@example(np.array([1, 1 + 2**-52, 1 + 2**-51]), 40, [])
@example(np.array([1e300, 1e300]), 3, [])
def test_any_floats_are_where_the_edges_say(values: Array, bins: int, cuts: list[int]) -> None:
    found = counted(values, bins, cuts=tuple(cuts))
    assert found["edges"] == sorted(found["edges"])
    assert_exact(values.astype("f8"), found)
    assert found["below"] == found["above"] == 0


@given(
    arrays([*INTEGERS, "<i8", "<u8", *FLOATS]),
    st.integers(1, 40),
    st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)).filter(lambda pair: pair[0] < pair[1]),
)
def test_what_is_outside_a_range(values: Array, bins: int, pair: tuple[float, float]) -> None:
    found = counted(values, bins, ValueRange(*pair))
    assert_exact(values.astype("u1" if values.dtype.kind == "b" else values.dtype), found)


WIDE = st.sampled_from([(np.int64, -(2**63), 2**63 - 1), (np.uint64, 0, 2**64 - 1)])


@given(st.data(), WIDE, st.integers(1, 40))
def test_wide_integers_are_exact(data: st.DataObject, wide: Any, bins: int) -> None:
    dtype, least, most = wide
    base = data.draw(st.integers(least, most))
    near = st.integers(max(least, base - 1000), min(most, base + 1000))
    numbers = data.draw(st.lists(st.one_of(near, st.integers(least, most)), min_size=1))
    values = np.array(numbers, dtype)
    found = counted(values, bins)
    assert_exact(values, found)
    assert sum(found["counts"]) == len(numbers)
    edges, low, high = found["edges"], min(numbers), max(numbers)
    if low < high and max(abs(low), abs(high)) > 2**53:
        assert (edges[0], edges[-1]) == (low, high)
        exact = [low + Fraction(high - low) * i / bins for i in range(bins + 1)]
        assert edges == [math.ceil(edge) for edge in exact]
    assert all(-(2**63) <= edge < 2**64 for edge in edges)


@pytest.mark.parametrize(
    ("kind", "bins"),
    [
        # Each kind with two of the numbers, and each number with three of the kinds.
        pytest.param(kind, bins, marks=[pytest.mark.slow] * ((row + column) % 2))
        for row, kind in enumerate(("floats", "f4", "whole floats", "i4", "u2", "i8 timestamps"))
        for column, bins in enumerate((1, 7, 256, 1000))
    ],
)
def test_several_runs(kind: str, bins: int) -> None:
    rng = np.random.default_rng(bins)
    normal = rng.normal(size=RUN_ELEMENTS + 4321)
    values = {
        "floats": normal,
        "f4": normal.astype("f4"),
        "whole floats": np.rint(normal * 50),
        "i4": np.rint(normal * 1000).astype("i4"),
        "u2": np.abs(normal * 9000).astype("u2"),
        "i8 timestamps": 1_700_000_000_000_000_000 + (normal * 1e12).astype("i8"),
    }[kind]
    for chosen in (None, ValueRange(-1, 2), ValueRange(0, bins)):
        assert_exact(values, counted(values, bins, chosen, (70_000,)))


def test_nothing_finite() -> None:
    found = counted(np.array([np.nan, np.inf, -np.inf]), 2)
    assert found == {
        "counts": [0, 0],
        "edges": [0.0, 0.5, 1.0],
        "below": 0,
        "above": 0,
        "not_finite": 3,
    }
    assert counted(np.array([], "u1"), 1)["counts"] == [0]


@pytest.mark.parametrize("dtype", ["u1", "f4", "i8"])
def test_no_block_at_all(dtype: str) -> None:
    found = Histogram(2, np.dtype(dtype), ValueRange()).describe(None)
    empty = {"counts": [0, 0], "below": 0, "above": 0, "not_finite": 0}
    assert found == {"edges": [0.0, 0.5, 1.0], **empty}
    assert Histogram(2, np.dtype("u1")).describe(None) == found


def test_one_value_has_a_range_of_one() -> None:
    assert counted(np.array([3.0, 3.0]), 2)["edges"] == [2.5, 3.0, 3.5]
    assert counted(np.array([3], "u1"), 2)["counts"] == [0, 1]
    most = counted(np.array([2**64 - 1], np.uint64), 2)
    assert (most["edges"][-1], most["counts"]) == (2**64 - 1, [0, 1])
    least = counted(np.array([-(2**63)]), 1)
    assert (least["edges"][0], least["counts"]) == (-(2**63), [1])


def test_a_range_is_asked_for() -> None:
    with pytest.raises(TypeError, match="float64 needs a range"):
        Histogram(3, np.dtype("f8"))
