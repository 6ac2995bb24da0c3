"""Statistics and histograms, block by block; pure.

Each block is summed up, or counted into equal bins, and the results of blocks are merged.
"""

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
    if values.dtype.itemsize <= 2:
        deviation = math.sqrt(size * _sum_short_squares(doubles) - total * total) / size
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
    """Return the sum of the squares, which take the place of the values.

    NumPy adds in one order on every processor; the dot product of a BLAS, a twentieth faster
    here, rounds as the instructions do that it finds.
    """
    np.square(doubles, out=doubles)
    return float(doubles.sum())


def _sum_short_squares(doubles: Array) -> int:
    """Return the sum of the squares of integers of 16 bits, exact in whatever order."""
    whole = doubles.size // _ROW * _ROW
    rows, rest = doubles[:whole].reshape(-1, _ROW), doubles[whole:]
    return int(np.vecdot(rows, rows).sum() + np.vecdot(rest, rest))


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


MAX_BINS = RUN_ELEMENTS
"""What `_count_runs` computes must fit into 32 bits, and a block's counts into memory."""

# Doubles hold every integer up to here.
_MAX_EXACT_INTEGER = 2**53

# Between these, distances and their inverses are ordinary doubles.
_TINY, _HUGE = 1e-290, 1e290


@dataclass(frozen=True, slots=True)
class ValueRange:
    """The least and the greatest finite value; None when there is none."""

    low: float | None = None
    high: float | None = None

    def merge(self, other: "ValueRange") -> "ValueRange":
        """Return the range of the values of both."""
        if self.low is None or self.high is None:
            return other
        if other.low is None or other.high is None:
            return self
        return ValueRange(min(self.low, other.low), max(self.high, other.high))


def find_range(block: Array) -> ValueRange:
    """Return the range of one block of booleans, integers or real floats."""
    found = ValueRange()
    for run in split_finite(block):
        found = found.merge(ValueRange(run.minimum, run.maximum))
    return found


def needs_range(dtype: np.dtype[Any]) -> bool:
    """Return whether the values must be read once for their range before they are counted.

    Of types with at most 65,536 different values all are counted, and put into bins at the end.
    """
    return dtype.kind == "f" or dtype.itemsize > 2


class Histogram:
    """Counts the finite values in `bins` equal bins of a range.

    A bin holds its lower edge and not its upper one, except the last, which holds both. The
    edges are those of `numpy.histogram` for doubles, and every value is compared with them
    exactly. Bounds of integers that doubles do not hold (beyond 2**53) have edges that are
    integers, each the first at or above where equal bins would begin.

    Args:
        bins: at least 1, at most `MAX_BINS`.
        dtype: of the blocks: booleans, integers or real floats.
        given: `low` and `high`, finite, `low <= high`. Equal ones are taken half a unit apart to
            each side, as `numpy.histogram` does, and None as 0 and 1. May be left out where
            `needs_range(dtype)` is false: it is the range of the values then.
    """

    def __init__(self, bins: int, dtype: np.dtype[Any], given: ValueRange | None = None) -> None:
        self._bins = bins
        self._dtype = dtype
        self._edges = None if given is None else find_edges(bins, given, dtype)
        # Counts of values, or of slots: one below the range, the bins, one above.
        self._are_values = not needs_range(dtype)
        if self._are_values:
            self._compared = np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")
            return
        if self._edges is None:
            message = f"a histogram of {dtype} needs a range"
            raise TypeError(message)
        self._compared = np.dtype(np.float64) if dtype.kind == "f" else dtype.newbyteorder("=")
        self._lower = _find_lower_bounds(self._edges, self._compared)
        self._low, self._high = float(self._edges[0]), float(self._edges[-1])
        size, largest = self._high - self._low, max(abs(self._low), abs(self._high))
        self._scale = self._offset = self._tolerance = 0.0
        if size > _TINY and largest < _HUGE:
            # Some roundings of the value, the edges and the products, each 2**-53.
            tolerance = 2.0**-48 * (bins + 2) * (largest / size + 1)
            if tolerance < 0.25:
                self._scale, self._tolerance = bins / size, tolerance
                self._offset = 1 - self._low * self._scale - tolerance

    def count(self, block: Array) -> Array:
        """Return the counts of one block; those of several blocks add up.

        The last one is that of NaN and infinities; what the others are of, only `describe` knows.
        """
        if self._are_values:
            unsigned = np.dtype(f"u{self._dtype.itemsize}")
            counts = np.zeros((1 << 8 * unsigned.itemsize) + 1, np.int64)
            for run in split_finite(block):
                found = np.bincount(run.values.view(unsigned))
                counts[: found.size] += found
            return counts
        counts = np.zeros(self._bins + 3, np.int64)
        self._count_runs(block, counts[:-1])
        counts[-1] = block.size - counts.sum()
        return counts

    def describe(self, counts: Array | None) -> dict[str, Any]:
        """Return what `/histogram` shows.

        Args:
            counts: of all blocks; None if there was none.

        Returns:
            `counts` (one per bin), `edges` (one more), `below` and `above` the range,
            `not_finite` (NaN and infinities).
        """
        edges, not_finite = self._edges, 0
        slots = np.zeros(self._bins + 2, np.int64)
        if counts is not None:
            not_finite, counts = int(counts[-1]), counts[:-1]
        if self._are_values:
            unsigned = np.dtype(f"u{self._dtype.itemsize}")
            values = np.arange(1 << 8 * unsigned.itemsize).astype(unsigned).view(self._compared)
            if edges is None:
                seen = values[:0] if counts is None else values[counts > 0]
                edges = find_edges(self._bins, find_range(seen), self._dtype)
            if counts is not None:
                lower = _find_lower_bounds(edges, self._compared)
                np.add.at(slots, lower.searchsorted(values, "right") - 1, counts)
        elif counts is not None:
            slots = counts
        below, *within, above = slots.tolist()
        return {
            "counts": within,
            "edges": edges,
            "below": below,
            "above": above,
            "not_finite": not_finite,
        }

    def _count_runs(self, block: Array, counts: Array) -> None:
        """Add to the counts of slots.

        A value's slot is computed as `value * scale + offset`, which may be wrong by one near an
        edge: whether that may be so is found by computing it twice, two `tolerance` apart, and
        only then values are compared with the edges.
        """
        # Memory that is written again for every run: fresh memory costs more than counting.
        most = min(RUN_ELEMENTS, block.size)
        scratch = np.empty(most)
        low_slots, high_slots = np.empty(most, np.int32), np.empty(most, np.int32)
        top = self._lower.size - 1
        for run in split_finite(block):
            values, size = run.values, run.values.size
            if not self._scale:
                found = self._lower.searchsorted(values, "right") - 1
                counts += np.bincount(found, minlength=counts.size)
                continue
            scaled, slots, upper = scratch[:size], low_slots[:size], high_slots[:size]
            # What overflows is far outside, and clipped.
            with np.errstate(over="ignore"):
                np.multiply(values, self._scale, out=scaled, dtype=np.float64)
                scaled += self._offset
            is_beyond = run.minimum < self._low or run.maximum > self._high
            if is_beyond or top < counts.size - 1:
                np.clip(scaled, 0, top, out=scaled)
            np.copyto(slots, scaled, casting="unsafe")
            scaled += 2 * self._tolerance
            np.copyto(upper, scaled, casting="unsafe")
            counts += np.bincount(upper, minlength=counts.size)
            if not np.array_equal(slots, upper):
                # `upper` is right, or too high by one.
                high = upper.compress(np.greater(self._lower[upper], values))
                moved = np.bincount(high, minlength=counts.size)
                counts -= moved
                counts[:-1] += moved[1:]


def find_edges(bins: int, given: ValueRange, dtype: np.dtype[Any]) -> list[float]:
    """Return the `bins + 1` edges in ascending order; some are equal if the range is too narrow."""
    low, high = (0, 1) if given.low is None or given.high is None else (given.low, given.high)
    are_integers = dtype.kind != "f" and isinstance(low, int) and isinstance(high, int)
    if are_integers and max(abs(low), abs(high)) > _MAX_EXACT_INTEGER:
        if low == high:
            # Towards zero, so that 64 bits hold it.
            low, high = (low, high + 1) if low <= 0 else (low - 1, high)
        return [low + -(-(high - low) * i // bins) for i in range(bins + 1)]
    low, high = float(low), float(high)
    if low == high:
        low, high = low - 0.5, high + 0.5
    if max(-low, high) < _HUGE:
        equal: list[float] = np.linspace(low, high, bins + 1).tolist()
        return equal
    # Their distance may be no double, but a quarter of it is.
    quarters = np.linspace(low / 4, high / 4, bins + 1)[1:-1] * 4
    return [low, *quarters.tolist(), high]


def _find_lower_bounds(edges: list[float], dtype: np.dtype[Any]) -> Array:
    """Return the least value of each slot (below, the bins, above) that `dtype` can reach.

    Args:
        edges: of the bins.
        dtype: of finite runs: integers, or doubles for all floats.
    """
    if dtype.kind == "f":
        with np.errstate(over="ignore"):  # nothing is above the greatest double
            above = np.nextafter(edges[-1], np.inf)
        return np.array([-np.inf, *edges[:-1], above])
    limits = np.iinfo(dtype)
    lower = [math.ceil(edge) for edge in edges[:-1]]
    lower.append(math.floor(edges[-1]) + 1)
    reached = (max(each, int(limits.min)) for each in lower if each <= limits.max)
    return np.array([limits.min, *reached], dtype)
