"""Statistics, block by block: each block is summed up, and the sums are merged."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

RUN_ELEMENTS = 1 << 17
"""As doubles 1 MiB, which stays in a core's cache; shorter runs cost more in calls."""

# OpenBLAS starts threads of its own for longer dot products.
_ROW = 8192

# Squares of doubles with larger exponents leave the range of doubles.
_LARGE_EXPONENT = 400


@dataclass(frozen=True, slots=True)
class FiniteRun:
    """At least one finite number of a block: a 1-D array in native byte order."""

    values: Array
    """Not to be written to. Integers, float32 or float64: booleans are uint8, float16 is float32,
    and wider floats are float64."""
    minimum: float
    """Of `values`, exact."""
    maximum: float


def split_finite(block: Array) -> Iterator[FiniteRun]:
    """Yield the finite values of a block, at most `RUN_ELEMENTS` at once.

    Args:
        block: booleans, integers or real floats. What is too large for a double counts as infinite.
    """
    flat = block.reshape(-1)
    are_booleans = flat.dtype.kind == "b"
    if are_booleans:
        flat = flat.view(np.uint8)
    dtype = flat.dtype.newbyteorder("=")
    if dtype.kind == "f":
        # NumPy compares halves slowly; and only doubles are as wide everywhere.
        dtype = np.dtype(np.float32 if dtype.itemsize <= 4 else np.float64)
    for first in range(0, flat.size, RUN_ELEMENTS):
        run = flat[first : first + RUN_ELEMENTS]
        if are_booleans:
            # A file may store true as any byte but 0.
            run = np.not_equal(run, 0).view(np.uint8)
        # What overflows becomes infinite; comparing a signalling NaN would warn.
        with np.errstate(over="ignore", invalid="ignore"):
            run = run.astype(dtype, copy=False)
            least, most = run.min(), run.max()
        if dtype.kind != "f":
            yield FiniteRun(run, int(least), int(most))
            continue
        if not (np.isfinite(least) and np.isfinite(most)):
            # Three times as fast as indexing with the mask.
            run = run.compress(np.isfinite(run))
            if not run.size:
                continue
            least, most = run.min(), run.max()
        yield FiniteRun(run, float(least), float(most))


@dataclass(frozen=True, slots=True)
class Statistics:
    """The statistics of the finite values seen so far, in double precision."""

    count: int = 0
    minimum: float | None = None
    maximum: float | None = None
    positive_minimum: float | None = None
    """The least value that is at least 0."""
    strict_positive_minimum: float | None = None
    """The least value above 0."""
    mean: float = 0.0
    deviation: float = 0.0
    """The standard deviation, of the values and not of a sample of them."""
    total: int | None = None
    """The exact sum of integers; None of floats."""

    def merge(self, other: "Statistics") -> "Statistics":
        """Return the statistics of the values of both.

        After Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing
        sample variances" (1979), but with the standard deviation in place of the sum of squares,
        so that nothing leaves the range of doubles.
        """
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        here, there = self.count / count, other.count / count
        if self.total is None or other.total is None:
            total = None
            half_distance = other.mean / 2 - self.mean / 2
            mean = self.mean + half_distance * there + half_distance * there
        else:
            total = self.total + other.total
            mean = total / count
            # Python divides integers of any size with one rounding.
            apart = other.total * self.count - self.total * other.count
            half_distance = apart / (2 * self.count * other.count)
        deviation = math.hypot(
            self.deviation * math.sqrt(here),
            other.deviation * math.sqrt(there),
            half_distance * (2 * math.sqrt(here * there)),
        )
        return Statistics(
            count,
            min(x for x in (self.minimum, other.minimum) if x is not None),
            max(x for x in (self.maximum, other.maximum) if x is not None),
            _find_least(self.positive_minimum, other.positive_minimum),
            _find_least(self.strict_positive_minimum, other.strict_positive_minimum),
            mean,
            deviation,
            total,
        )

    def describe(self) -> dict[str, Any]:
        """Return what `/stats` shows; every value is None if there was no finite one."""
        return {
            "strict_positive_min": self.strict_positive_minimum,
            "positive_min": self.positive_minimum,
            "min": self.minimum,
            "max": self.maximum,
            "mean": self.mean if self.count else None,
            "std": self.deviation if self.count else None,
        }


def summarise(block: Array) -> Statistics:
    """Return the statistics of one block of booleans, integers or real floats."""
    statistics = Statistics()
    scratch = np.empty(min(RUN_ELEMENTS, block.size))
    for run in split_finite(block):
        is_float = run.values.dtype.kind == "f"
        sums = _sum_floats(run, scratch) if is_float else _sum_integers(run, scratch)
        positive = _find_positive_minima(run)
        found = Statistics(run.values.size, run.minimum, run.maximum, *positive, *sums)
        statistics = statistics.merge(found)
    return statistics


def _sum_integers(run: FiniteRun, scratch: Array) -> tuple[float, float, int]:
    """Return mean, standard deviation and exact sum."""
    values, size, least = run.values, run.values.size, 0
    total: int | None = None
    if values.dtype.itemsize == 8:
        # The distances from the least value, as unsigned integers, lose no digit.
        least = int(run.minimum)
        values = values.view(np.uint64) - np.uint64(least % 2**64)
        if (int(run.maximum) - least) * size > 2**53:  # up to here doubles hold every integer
            total = (int((values >> 32).sum()) << 32) + int((values & 0xFFFFFFFF).sum())
    doubles = scratch[:size]
    np.copyto(doubles, values)
    if total is None:
        total = int(doubles.sum())
    if values.dtype.itemsize <= 2:  # whose squares add up exactly
        deviation = math.sqrt(size * int(_sum_squares(doubles)) - total * total) / size
    else:
        np.subtract(doubles, total / size, out=doubles)
        deviation = math.sqrt(_sum_squares(doubles) / size)
    total += least * size
    return total / size, deviation, total


def _sum_floats(run: FiniteRun, scratch: Array) -> tuple[float, float]:
    """Return mean and standard deviation."""
    if run.minimum == run.maximum:
        return run.minimum, 0.0
    values, doubles = run.values, scratch[: run.values.size]
    # Squares of very large and very small values leave the range of doubles: scale those.
    exponent = math.frexp(max(abs(run.minimum), abs(run.maximum)))[1]
    if abs(exponent) < _LARGE_EXPONENT:
        exponent = 0
    if exponent:
        values = np.ldexp(values, -exponent, out=doubles)
    elif values.dtype != doubles.dtype:
        np.copyto(doubles, values)
        values = doubles
    mean = float(values.sum()) / values.size
    np.subtract(values, mean, out=doubles)
    deviation = math.sqrt(_sum_squares(doubles) / doubles.size)
    return math.ldexp(mean, exponent), math.ldexp(deviation, exponent)


def _sum_squares(doubles: Array) -> float:
    whole = doubles.size // _ROW * _ROW
    rows, rest = doubles[:whole].reshape(-1, _ROW), doubles[whole:]
    return float(np.vecdot(rows, rows).sum() + np.vecdot(rest, rest))


def _find_positive_minima(run: FiniteRun) -> tuple[float | None, float | None]:
    """Return the least value that is at least 0, and the least above 0."""
    if run.minimum > 0:
        return run.minimum, run.minimum
    if run.maximum <= 0:
        return (None if run.maximum < 0 else abs(run.maximum)), None
    # Adding 0 makes 0 of -0. Read as unsigned integers, every negative number is larger than every
    # other one: integers are two's complements, and IEEE 754 orders positive floats by their bits.
    values = run.values + 0.0 if run.values.dtype.kind == "f" else run.values
    bits = values.view(np.dtype(f"u{values.dtype.itemsize}"))
    # Of 0, subtracting makes the largest number.
    strict: float = ((bits - 1).min() + 1).view(values.dtype).item()
    return (strict if bits.min() else strict * 0), strict


def _find_least(a: float | None, b: float | None) -> float | None:
    return a if b is None else b if a is None else min(a, b)
