"""Limits and indices of colours, for whatever numbers a file may hold."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from asgihive.service.picture_parameters import ColourScale
from asgihive.viewer.normalisation import (
    MAX_SAMPLED,
    ColourLimits,
    find_limits,
    index_colours,
)
from tests.viewer.pictures import Array

DTYPES = ("?", "i1", "u1", ">i2", "<u2", "<i4", ">u4", "<i8", ">u8", "<f2", ">f4", "<f8", ">f8")
PERCENTILES = (1.0, 99.0)


def transform(value: float, scale: ColourScale, limits: ColourLimits) -> float:
    """What is spread evenly between the limits, one number at a time."""
    if scale is ColourScale.LOG:
        return math.log(value) if value > 0 else -math.inf
    if scale is ColourScale.SYMLOG:
        constant = min(1.0, max(abs(limits.low), abs(limits.high)) / 1000)
        return math.copysign(math.log1p(abs(value) / constant), value)
    return value


def place(value: float, scale: ColourScale, limits: ColourLimits, levels: int) -> float:
    """Where a number lies among the colours, as a real number."""
    low, high = (transform(each, scale, limits) for each in (limits.low, limits.high))
    part = (transform(value, scale, limits) - low) / (high - low)
    if scale is ColourScale.SQRT:
        part = math.sqrt(max(0.0, part))
    return min(max(part, 0.0), 1.0) * levels


@given(data=st.data(), scale=st.sampled_from(ColourScale))
def test_each_number_has_the_colour_of_the_formula(data: Any, scale: ColourScale) -> None:
    numbers = st.floats(-1e6, 1e6).filter(lambda each: each == 0 or abs(each) > 1e-6)
    points = data.draw(arrays.arrays("f8", (3, 5), elements=numbers))
    low, high = sorted(data.draw(st.lists(numbers, min_size=2, max_size=2, unique=True)))
    if scale is ColourScale.LOG:
        low, high = sorted((abs(low) + 1, abs(low) + abs(high) + 2))
    limits = ColourLimits(low, high)
    indices, has_nan = index_colours(points, scale, limits, 256)
    assert not has_nan
    for value, index in zip(points.flat, indices.flat, strict=True):
        exact = place(value, scale, limits, 256)
        assert math.floor(exact - 1e-6) <= index <= exact + 1e-6 or (exact > 255 and index == 255)


@given(
    points=st.sampled_from(DTYPES).flatmap(
        lambda dtype: arrays.arrays(dtype, st.tuples(*[st.integers(1, 6)] * 2))
    ),
    scale=st.sampled_from(ColourScale),
    low=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    high=st.none() | st.floats(allow_nan=False, allow_infinity=False),
)
@example(np.full((2, 2), np.nan), ColourScale.LINEAR, None, None)
@example(np.array([[np.inf, -np.inf]]), ColourScale.SYMLOG, None, None)
@example(np.array([[0.0, -0.0]]), ColourScale.LOG, None, None)
@example(np.array([[-1.7e308, 1.7e308]]), ColourScale.LINEAR, None, None)
@example(np.array([[5e-324, 0.0]]), ColourScale.SYMLOG, None, None)
@example(np.array([[1e300, np.nextafter(1e300, np.inf)]]), ColourScale.LOG, None, None)
@example(np.array([[-(2**63), 2**63 - 1]]), ColourScale.SQRT, None, None)
@example(np.array([[2**64 - 1, 2**64 - 1]], np.uint64), ColourScale.LINEAR, None, None)
def test_any_numbers_have_colours_in_their_order(
    points: Array, scale: ColourScale, low: float | None, high: float | None
) -> None:
    if low is not None and high is not None and not low < high:
        low = high = None
    if scale is ColourScale.LOG:  # others are refused before
        low = high = None
    limits = find_limits(points, scale, PERCENTILES, low, high)
    assert math.isfinite(limits.low)
    assert math.isfinite(limits.high)
    assert limits.low <= limits.high
    indices, has_nan = index_colours(points, scale, limits, 256)
    assert indices.shape == points.shape
    values = points.astype(np.float64)
    missing = np.isnan(values)
    assert has_nan == missing.any()
    assert (indices[missing] == 255).all()
    if has_nan:
        assert (indices[~missing] < 255).all()
    order = np.argsort(values[~missing], kind="stable")
    assert (np.diff(indices[~missing][order].astype(int)) >= 0).all()


@pytest.mark.parametrize("dtype", ["u1", "i1", "<u2", ">i2"])
def test_a_table_gives_what_the_formula_gives(dtype: str) -> None:
    every = np.arange(1 << 16).reshape(256, 256)
    points = (every % (1 << 8 * np.dtype(dtype).itemsize)).astype(f"u{dtype[-1]}").view(dtype)
    for scale in ColourScale:
        limits = ColourLimits(3.0, 100.0)
        got, _ = index_colours(points, scale, limits, 256)
        expected, _ = index_colours(points.astype("f8"), scale, limits, 256)
        np.testing.assert_array_equal(got, expected)


def test_a_frame_that_is_dark_but_for_a_few_pixels_has_limits_of_these() -> None:
    points = np.zeros((100, 100))
    points[3, 4:9] = [10, 20, 30, 40, 50]
    assert find_limits(points, ColourScale.LINEAR, PERCENTILES) == ColourLimits(
        0.0, float(np.percentile([10, 20, 30, 40, 50], 99))
    )
    assert find_limits(points, ColourScale.LOG, (0, 100)) == ColourLimits(10, 50)
    assert find_limits(np.full((3, 3), 7), ColourScale.LINEAR, PERCENTILES) == ColourLimits(7, 7)


def test_limits_of_many_pixels_are_found_from_some_in_all_columns() -> None:
    points = np.tile(np.arange(1024.0), (4 * MAX_SAMPLED // 1024, 1))
    limits = find_limits(points, ColourScale.LINEAR, (0, 100))
    assert limits.low < 10
    assert limits.high > 1013


def test_a_given_limit_stays_whatever_the_values_are() -> None:
    points = np.arange(100.0).reshape(10, 10)
    assert find_limits(points, ColourScale.LINEAR, PERCENTILES, low=500) == ColourLimits(500, 500)
    assert find_limits(points, ColourScale.LINEAR, PERCENTILES, high=-5) == ColourLimits(-5, -5)
    above, _ = index_colours(points, ColourScale.LINEAR, ColourLimits(-5, -5), 256)
    below, _ = index_colours(points, ColourScale.LINEAR, ColourLimits(500, 500), 256)
    assert (above == 255).all()
    assert (below == 0).all()
