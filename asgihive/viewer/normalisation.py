"""From numbers to indices of colours: limits that show the data, and four scales; pure NumPy."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from asgihive.service.picture_parameters import ColourScale

Array = np.ndarray[Any, Any]

MAX_SAMPLED = 1 << 20
"""Pixels that limits are found from: of more, so many that lie evenly spaced."""

# Numbers at once, so that intermediate results stay small.
_ROWS_ELEMENTS = 1 << 18

# Of integers with few values, each value is looked up in a table with the result of each.
_LEAST_FOR_TABLE = 1 << 16

# A linear range of symlog below which nothing is told apart, as a part of the largest value.
_SYMLOG_PART = 1e-3


@dataclass(frozen=True, slots=True)
class ColourLimits:
    """The values that the first and the last colour stand for; values beyond have these, too."""

    low: float
    high: float


def find_largest(dtype: np.dtype[Any]) -> int | None:
    """Return the largest value of an unsigned type of 16 bits or more, None of other types.

    It is what detectors write for pixels that are masked, missing or saturated.
    """
    return int(np.iinfo(dtype).max) if dtype.kind == "u" and dtype.itemsize > 1 else None


def find_limits(
    points: Array,
    scale: ColourScale,
    percentiles: tuple[float, float],
    low: float | None = None,
    high: float | None = None,
) -> ColourLimits:
    """Return the limits of a picture.

    What is not given is a percentile of the values: of the finite ones, for `log` of the positive
    ones, in any case without the largest value of an unsigned type (`find_largest`). Where both
    percentiles are the same value, as of a frame that is dark but for a few pixels, those of the
    values that differ from it count as well.

    Args:
        points: the pixels, real numbers or booleans.
        scale: of the picture.
        percentiles: of the lower and the upper limit, from 0 to 100.
        low: the lower limit, if it is given.
        high: the upper limit, if it is given.
    """
    if low is not None and high is not None:
        return ColourLimits(float(low), float(high))
    found = ColourLimits(1.0, 1.0) if scale is ColourScale.LOG else ColourLimits(0.0, 0.0)
    values = _sample(points, scale)
    if values.size:
        first, last = _find_percentiles(values, percentiles)
        if first == last:
            others = values[values != first]
            if others.size:
                below, above = _find_percentiles(others, percentiles)
                first, last = min(first, below), max(last, above)
        found = ColourLimits(first, last)
    if low is not None:
        return ColourLimits(float(low), max(float(low), found.high))
    if high is not None:
        return ColourLimits(min(float(high), found.low), float(high))
    return found


def _find_percentiles(values: Array, percentiles: tuple[float, float]) -> tuple[float, float]:
    factor = 1.0
    if not math.isfinite(float(values.max()) - float(values.min())):
        factor = 0.25  # NumPy takes differences, which may be larger than any number
    low, high = (np.percentile(values * factor, percentiles) / factor).tolist()
    return low, max(low, high)


def _sample(points: Array, scale: ColourScale) -> Array:
    """Return the values that limits are found from, as doubles."""
    flat = points.reshape(-1)
    step = -(-flat.size // MAX_SAMPLED)
    # Not in columns, as a step that divides the width would have them.
    while step > 1 and math.gcd(step, points.shape[-1]) > 1:
        step += 1
    values: Array = flat[::step]
    largest = find_largest(points.dtype)
    if largest is not None:
        values = values[values != largest]
    with np.errstate(over="ignore", invalid="ignore"):
        values = values.astype(np.float64)
    kept = np.isfinite(values)
    if scale is ColourScale.LOG:
        kept &= values > 0
    finite: Array = values[kept]
    return finite


def index_colours(
    points: Array, scale: ColourScale, limits: ColourLimits, levels: int
) -> tuple[Array, bool]:
    """Return which colour each number has.

    As Matplotlib: where t goes from 0 to 1 between the limits, the index is the whole part of
    `t * levels`, the last one of t = 1, and the first and the last one beyond the limits; so it is
    of infinities. Of `log`, numbers that are not positive have the first one. Between equal limits
    is nothing: the first colour is up to them, the last one above them.

    - linear: t = (x - low) / (high - low)
    - sqrt: the square root of that
    - log: the same of the logarithms
    - symlog: the same of sign(x) * log(1 + |x| / c), where c is the lesser of 1 and a thousandth of
      the larger limit (by its absolute value)

    Args:
        points: of shape (h, w), real numbers or booleans.
        scale: how they are spread over the colours.
        limits: the values of the first and the last colour.
        levels: how many colours there are, at most 256. With NaN among the points there is one
            fewer, and NaN has the last index.

    Returns:
        The indices, uint8, in the shape of the points; and whether NaN is among them.
    """
    if points.dtype.kind == "b":
        points = np.not_equal(points.view(np.uint8), 0).view(np.uint8)  # true may be any byte
    has_nan = points.dtype.kind == "f" and any(np.isnan(rows).any() for rows in _cut(points))
    spread = _make_spread(scale, limits)
    count = levels - 1 if has_nan else levels
    if points.dtype.kind in "iu" and points.dtype.itemsize <= 2:
        bits = 8 * points.dtype.itemsize
        if bits == 8 or points.size >= _LEAST_FOR_TABLE:
            return _look_up(points, bits, spread, count), False
    indices = np.empty(points.shape, np.uint8)
    for rows, out in zip(_cut(points), _cut(indices), strict=True):
        out[...] = _index_rows(rows, spread, count)
    return indices, has_nan


def _cut(points: Array) -> Iterator[Array]:
    """Yield some rows after the other."""
    count = max(1, _ROWS_ELEMENTS // max(1, points.shape[1]))
    for first in range(0, points.shape[0], count):
        yield points[first : first + count]


def _look_up(points: Array, bits: int, spread: Callable[[Array], Array], count: int) -> Array:
    """Return the indices of integers by a table of all values of their type."""
    native = points.astype(points.dtype.newbyteorder("="), copy=False)
    unsigned = np.dtype(f"u{bits // 8}")
    every = np.arange(1 << bits, dtype=unsigned).view(native.dtype)
    table = _index_rows(every, spread, count)
    # Each value is within the table: nothing is clipped, and nothing is checked.
    found: Array = np.take(table, native.view(unsigned), mode="clip")
    return found


def _index_rows(rows: Array, spread: Callable[[Array], Array], count: int) -> Array:
    with np.errstate(all="ignore"):
        parts = spread(rows.astype(np.float64))
        parts *= count
        missing = np.isnan(rows) if rows.dtype.kind == "f" else None
        np.clip(parts, 0, count - 1, out=parts)
        if missing is None:
            return parts.astype(np.uint8)
        parts[missing] = count
        return parts.astype(np.uint8)


def _make_spread(scale: ColourScale, limits: ColourLimits) -> Callable[[Array], Array]:
    """Return what makes t of numbers, which it may write to."""
    low, high = limits.low, limits.high
    if low < high and scale in {ColourScale.LOG, ColourScale.SYMLOG}:
        transform = _take_logarithms if scale is ColourScale.LOG else _make_symlog(low, high)
        with np.errstate(all="ignore"):
            first, last = transform(np.array([low, high])).tolist()
        if first < last:
            return lambda values: (transform(values) - first) / (last - first)
    elif low < high:
        return _make_even(low, high, is_root=scale is ColourScale.SQRT)
    # There is nothing between the limits.
    return lambda values: np.greater(values, low).astype(np.float64)


def _make_even(low: float, high: float, *, is_root: bool) -> Callable[[Array], Array]:
    # The difference of the limits may be larger than any number.
    factor = 1.0 if math.isfinite(high - low) else 0.25
    first, difference = low * factor, high * factor - low * factor

    def spread_evenly(values: Array) -> Array:
        if factor != 1.0:
            values *= factor
        values -= first
        values /= difference
        if is_root:
            np.maximum(values, 0, out=values)
            np.sqrt(values, out=values)
        return values

    return spread_evenly


def _take_logarithms(values: Array) -> Array:
    # Of what is not positive it is far below all others.
    return np.log(np.maximum(values, 0.0))


def _make_symlog(low: float, high: float) -> Callable[[Array], Array]:
    constant = min(1.0, _SYMLOG_PART * max(abs(low), abs(high)))
    constant = max(constant, np.finfo(np.float64).tiny)

    def transform(values: Array) -> Array:
        size = np.abs(values)
        # The quotient may be larger than any number, where the logarithms' difference is exact.
        large = np.log(size + constant) - math.log(constant)
        return np.copysign(np.where(size < 1.0, np.log1p(size / constant), large), values)

    return transform
