"""Histograms with equal bins, block by block: each block is counted, and the counts add up."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from asgihive.hdf5.statistics import RUN_ELEMENTS, FiniteRun, split_finite

Array = np.ndarray[Any, Any]

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
            if self._reaches_beyond(run) or top < counts.size - 1:
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

    def _reaches_beyond(self, run: FiniteRun) -> bool:
        return run.minimum < self._low or run.maximum > self._high


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
