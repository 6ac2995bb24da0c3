"""Statistics: exact fractions and NumPy are the oracles."""

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from asgihive.hdf5.statistics import RUN_ELEMENTS, Statistics, summarise

Array = np.ndarray[Any, Any]
INTEGERS = ["i1", "u1", "<i2", ">i2", "<u4", ">i4", "<i8", ">i8", "<u8", ">u8", "?"]
FLOATS = ["<f2", "<f4", ">f4", "<f8", ">f8"]


def merged(values: Array, cuts: list[int]) -> dict[str, Any]:
    """Statistics of `values` in blocks."""
    statistics = Statistics()
    for block in np.split(values, sorted(cuts)):
        statistics = statistics.merge(summarise(block))
    return statistics.describe()


def exact(values: Array) -> dict[str, Any]:
    """By definition."""
    finite = [x for x in values.tolist() if math.isfinite(x)]
    if not finite:
        return dict.fromkeys(Statistics().describe())
    fractions = [Fraction(x) for x in finite]
    mean = sum(fractions) / len(fractions)
    variance = sum((x - mean) ** 2 for x in fractions) / len(fractions)
    # The square root with 200 bits behind the point.
    root = Fraction(math.isqrt(int(variance * 4**1200)), 2**1200)
    return {
        "min": min(finite),
        "max": max(finite),
        "mean": float(mean),
        "std": float(root),
        "positive_min": min((x for x in finite if x >= 0), default=None),
        "strict_positive_min": min((x for x in finite if x > 0), default=None),
    }


def arrays(dtypes: list[str]) -> st.SearchStrategy[Array]:
    return st.sampled_from(dtypes).flatmap(
        lambda dtype: st_numpy.arrays(np.dtype(dtype), st.integers(0, 40))
    )


CUTS = st.lists(st.integers(0, 40), max_size=4)


@given(arrays(INTEGERS), CUTS)
@example(np.array([-(2**63), 2**63 - 1, -(2**63)]), [1])
@example(np.array([0, 2**64 - 1], np.uint64), [])
@example(np.array([2**64 - 1] * 9, np.uint64), [4])
def test_integers_are_exact(values: Array, cuts: list[int]) -> None:
    found, expected = merged(values, cuts), exact(values)
    assert found.pop("std") == (
        None if expected["std"] is None else pytest.approx(expected["std"], rel=1e-15)
    )
    expected.pop("std")
    assert found == expected
    assert not any(isinstance(found[key], float) for key in ("min", "max", "positive_min"))


@given(arrays(FLOATS), CUTS)
@example(np.array([1e308, -1e308, 1.7e308]), [1])
@example(np.array([5e-324, 1e-320, 0.0]), [])
@example(np.array([1e16, 1e16 + 2, 1e16 + 4]), [1, 2])
@example(np.array([np.nan, np.inf, -np.inf], "f4"), [1])
@example(np.array([np.finfo("f8").max, np.finfo("f8").min]), [1])
def test_floats_lose_no_more_than_a_double_does(values: Array, cuts: list[int]) -> None:
    found, expected = merged(values, cuts), exact(values)
    for key in ("min", "max", "positive_min", "strict_positive_min"):
        assert found[key] == expected[key]
    if expected["mean"] is None:
        assert found["mean"] is found["std"] is None
        return
    finite = values[np.isfinite(values)].astype("f8")
    largest = float(np.abs(finite).max())
    # Some of the least doubles there are: below them, numbers have fewer digits.
    absolute = max(1e-15 * largest, 2e-323)
    assert math.isclose(found["mean"], expected["mean"], rel_tol=1e-12, abs_tol=absolute)
    assert math.isclose(found["std"], expected["std"], rel_tol=1e-9, abs_tol=absolute)


def test_a_large_offset_costs_few_digits() -> None:
    values = 1e9 + np.random.default_rng(1).normal(size=100_000)
    reference = values.astype(np.longdouble)
    for cuts in ([], [1], [10_000, 50_000, 99_999]):
        found = merged(values, cuts)
        assert found["mean"] == pytest.approx(float(reference.mean()), rel=1e-15)
        # The distance of two means is known no better than the means are.
        assert found["std"] == pytest.approx(float(reference.std()), rel=1e-9)


def test_integers_beyond_all_doubles() -> None:
    values = np.full((1 << 20) + 5, 2**63 - 1, np.int64)
    values[-1] = -(2**63)
    n, far = values.size, 2**64 - 1
    found = merged(values, [])
    assert found["mean"] == float(Fraction((2**63 - 1) * n - far, n))
    assert found["std"] == pytest.approx(far * math.sqrt(n - 1) / n, rel=1e-14)


def test_merge_is_associative_for_integers() -> None:
    a, b, c = (summarise(np.arange(n) * 7) for n in (3, 10, 5))
    expected = summarise(np.concatenate([np.arange(n) * 7 for n in (3, 10, 5)]))
    for found in (a.merge(b).merge(c), a.merge(b.merge(c)), c.merge(a).merge(b)):
        assert found.deviation == pytest.approx(expected.deviation, rel=1e-15)
        assert replace(found, deviation=expected.deviation) == expected


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(1, 40), CUTS)
def test_equal_values_do_not_deviate(value: float, count: int, cuts: list[int]) -> None:
    found = merged(np.full(count, value), cuts)
    assert (found["mean"], found["std"]) == (value, 0)


def test_shape_and_strides_do_not_matter() -> None:
    values = np.arange(60, dtype=">i4").reshape(3, 4, 5)
    assert summarise(values[:, ::2].transpose()) == summarise(np.ascontiguousarray(values[:, ::2]))


def test_what_does_not_fit_a_double_is_not_finite() -> None:
    wide = np.array([1, np.longdouble(10) ** 400, 3], np.longdouble)
    assert merged(wide, [])["mean"] == 2.0
    signalling = np.array([0x7F800001, 0x3F800000], "<u4").view("<f4")
    assert merged(signalling, [])["mean"] == 1.0


@pytest.mark.parametrize("dtype", ["i1", "u1", ">u2", "<i2", "<u4", ">i4", "<i8", "<u8", "?"])
def test_integers_of_several_runs_are_exact(dtype: str) -> None:
    size = 2 * RUN_ELEMENTS + 8191
    raw = np.random.default_rng(3).bytes(size * np.dtype(dtype).itemsize)
    values = np.frombuffer(raw, "u1" if dtype == "?" else dtype)
    if dtype == "?":
        values = values < 77
    whole = summarise(values)
    python = values.astype(object) * 1
    total, squares = int(python.sum()), int((python * python).sum())
    assert whole.count == size
    assert (whole.total, whole.mean) == (total, total / size)
    variance = Fraction(squares, size) - Fraction(total * total, size * size)
    assert whole.deviation == pytest.approx(math.sqrt(variance), rel=1e-13)
    assert whole.deviation == pytest.approx(values.astype("f8").std(), rel=1e-9)
    assert (whole.minimum, whole.maximum) == (python.min(), python.max())
    assert whole.positive_minimum == min(x for x in values.tolist() if x >= 0)
    assert whole.strict_positive_minimum == min(x for x in values.tolist() if x > 0)


@pytest.mark.parametrize("offset", [0.0, 1e12, -1e200, 1e305, 1e-310])
@pytest.mark.parametrize("missing", [0, 0.3, 0.999])
def test_floats_of_several_runs(offset: float, missing: float) -> None:
    rng = np.random.default_rng(5)
    # Runs of unlike sizes, the last one far from the first.
    values = rng.normal(size=2 * RUN_ELEMENTS + 777) * (abs(offset) or 1) + offset
    values[RUN_ELEMENTS:] += offset
    values[rng.random(values.size) < missing] = np.nan
    found, finite = summarise(values).describe(), values[np.isfinite(values)]
    _, exponent = math.frexp(np.abs(finite).max())
    scaled = np.ldexp(finite, -exponent)
    mean = math.fsum(scaled) / scaled.size
    std = math.sqrt(math.fsum((scaled - mean) ** 2) / scaled.size)
    assert found["mean"] == pytest.approx(math.ldexp(mean, exponent), rel=1e-12)
    assert found["std"] == pytest.approx(math.ldexp(std, exponent), rel=1e-12)
    assert (found["min"], found["max"]) == (finite.min(), finite.max())
    assert found["strict_positive_min"] == min((x for x in finite.tolist() if x > 0), default=None)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize(
    ("numbers", "positive", "strictly"),
    [
        ([-1, -0.0, 2], 0, 2),
        ([-1, 0.0, 2], 0, 2),
        ([-1, 3, 2], 2, 2),
        ([-1, -0.0], 0, None),
        ([-1, -2], None, None),
        ([-0.0, 0.0], 0, None),
        ([-0.0, 5], 0, 5),
    ],
)
def test_zeros_of_both_signs(
    dtype: str, numbers: list[float], positive: float | None, strictly: float | None
) -> None:
    found = summarise(np.array(numbers, dtype))
    assert (found.positive_minimum, found.strict_positive_minimum) == (positive, strictly)
