"""Histograms with equal bins, block by block: each block is counted, and the counts add up."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from asgihive.hdf5.statistics import PIECE, Piece, pieces

Array = np.ndarray[Any, Any]

# Doubles hold every whole number up to here.
_WHOLE = 2**53

# Within these, distances and their inverses are ordinary doubles.
_TINY, _HUGE = 1e-290, 1e290


@dataclass(frozen=True, slots=True)
class Extent:
    """The least and the greatest finite value seen so far; None when there was none."""

    low: float | None = None
    high: float | None = None

    def repeated(self, times: int) -> "Extent":  # noqa: ARG002  # as others that blocks make
        """Of so many times the same values."""
        return self

    def merge(self, other: "Extent") -> "Extent":
        """Of the values of both."""
        if self.low is None or self.high is None:
            return other
        if other.low is None or other.high is None:
            return self
        return Extent(min(self.low, other.low), max(self.high, other.high))


def extent(values: Array) -> Extent:
    """The extent of one block of booleans, integers or real floats."""
    found = Extent()
    for piece in pieces(values):
        found = found.merge(Extent(piece.minimum, piece.maximum))
    return found


def needs_extent(dtype: np.dtype[Any]) -> bool:
    """Whether a histogram without a given range takes a first pass that finds the extent.

    Of types with at most 65,536 different values all are counted, and put into bins at the end.
    """
    return dtype.kind == "f" or dtype.itemsize > 2


class Histogram:
    """Counts of the finite values in `bins` equal bins from `low` to `high`.

    A bin holds its lower edge and not its upper one, except the last, which holds both. The
    edges are those of `numpy.histogram` for doubles, and every value is compared with them
    exactly. Bounds of integers that doubles do not hold (beyond 2**53) have edges that are whole
    numbers, each the first at or above where equal bins would begin.

    Args:
        bins: at least 1.
        dtype: of the blocks: booleans, integers or real floats.
        extent: `low` and `high`, finite, `low <= high`. Equal ones are taken half a unit apart
            to each side, as `numpy.histogram` does, and no bounds as 0 and 1. May be left out
            where `needs_extent(dtype)` is false: it is what the values turn out to have then.
    """

    def __init__(self, bins: int, dtype: np.dtype[Any], extent: Extent | None = None) -> None:
        self.bins = bins
        self.dtype = dtype
        self._not_finite = 0
        self._counter: _ValueCounter | _SlotCounter
        if not needs_extent(dtype):
            self._counter = _ValueCounter(dtype)
            self._edges = None if extent is None else edges(bins, extent, dtype)
        else:
            if extent is None:
                message = f"a histogram of {dtype} needs an extent"
                raise TypeError(message)
            self._edges = edges(bins, extent, dtype)
            self._counter = _SlotCounter(self._edges, dtype)

    def add(self, values: Array) -> None:
        """Count one block of `dtype`."""
        finite = 0
        for piece in pieces(values):
            self._counter.add(piece)
            finite += piece.values.size
        self._not_finite += values.size - finite

    def repeated(self, times: int) -> "Histogram":
        """Count the same values so many times; this one, changed."""
        self._counter.counts *= times
        return self

    def merge(self, other: "Histogram") -> None:
        """Add what `other`, made with the same arguments, has counted."""
        self._counter.counts += other._counter.counts  # noqa: SLF001 (of this class)
        self._not_finite += other._not_finite  # noqa: SLF001 (of this class)

    def described(self) -> dict[str, Any]:
        """As `/histogram` shows it.

        `counts` (one per bin), `edges` (one more), `below` and `above` the range,
        `not_finite` (NaN and infinities).
        """
        found = self._edges
        if isinstance(self._counter, _ValueCounter):
            if found is None:
                found = edges(self.bins, self._counter.extent(), self.dtype)
            slots = self._counter.slots(found)
        else:
            slots = self._counter.counts
        below, *counts, above = slots.tolist()
        return {
            "counts": counts,
            "edges": found,
            "below": below,
            "above": above,
            "not_finite": self._not_finite,
        }


def edges(bins: int, extent: Extent, dtype: np.dtype[Any]) -> list[float]:
    """The `bins + 1` edges, in ascending order; too narrow a range makes some of them equal."""
    low, high = (0, 1) if extent.low is None or extent.high is None else (extent.low, extent.high)
    if dtype.kind != "f" and isinstance(low, int) and isinstance(high, int):
        found = _whole_edges(bins, low, high)
        if found is not None:
            return found
    low, high = float(low), float(high)
    if low == high:
        low, high = low - 0.5, high + 0.5
    if max(-low, high) < _HUGE:
        equal: list[float] = np.linspace(low, high, bins + 1).tolist()
        return equal
    # Their distance may be no double, but a quarter of it is.
    quarters = np.linspace(low / 4, high / 4, bins + 1)[1:-1] * 4
    return [low, *quarters.tolist(), high]


def _whole_edges(bins: int, low: int, high: int) -> list[float] | None:
    """Whole numbers; None when doubles hold the bounds."""
    if max(abs(low), abs(high)) <= _WHOLE:
        return None
    if low == high:
        # Towards zero, so that 64 bits hold it.
        low, high = (low, high + 1) if low <= 0 else (low - 1, high)
    return [low + -(-(high - low) * i // bins) for i in range(bins + 1)]


def _thresholds(found: list[float], dtype: np.dtype[Any]) -> Array:
    """The least value of each slot (below, the bins, above) that `dtype` can reach.

    dtype: of pieces: integers, or doubles for all floats.
    """
    if dtype.kind == "f":
        with np.errstate(over="ignore"):  # nothing is above the greatest double
            above = np.nextafter(found[-1], np.inf)
        return np.array([-np.inf, *found[:-1], above])
    limits = np.iinfo(dtype)
    lower = [math.ceil(edge) for edge in found[:-1]]
    lower.append(math.floor(found[-1]) + 1)
    reached = (max(each, int(limits.min)) for each in lower if each <= limits.max)
    return np.array([limits.min, *reached], dtype)


class _ValueCounter:
    """Counts every value of an integer type of at most 16 bits."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")
        self._unsigned = np.dtype(f"u{dtype.itemsize}")
        self.counts = np.zeros(1 << 8 * dtype.itemsize, np.int64)

    def add(self, piece: Piece) -> None:
        found = np.bincount(piece.values.view(self._unsigned))
        self.counts[: found.size] += found

    def extent(self) -> Extent:
        values = self._values()[self.counts > 0]
        return Extent(int(values.min()), int(values.max())) if values.size else Extent()

    def slots(self, found: list[float]) -> Array:
        lower = _thresholds(found, self._dtype)
        slots = lower.searchsorted(self._values(), "right") - 1
        counts = np.zeros(len(found) + 1, np.int64)
        np.add.at(counts, slots, self.counts)
        return counts

    def _values(self) -> Array:
        """The value that each count is of."""
        return np.arange(self.counts.size).astype(self._unsigned).view(self._dtype)


class _SlotCounter:
    """Counts slots: one below the range, the bins, one above.

    A value's slot is computed as `value * scale + offset`, which may be wrong by one near an
    edge: whether that may be so is found by computing it twice, `tolerance` apart, and only
    then values are compared with the edges.
    """

    def __init__(self, found: list[float], dtype: np.dtype[Any]) -> None:
        pieces_dtype = np.dtype(np.float64) if dtype.kind == "f" else dtype.newbyteorder("=")
        self._lower = _thresholds(found, pieces_dtype)
        self._low, self._high = float(found[0]), float(found[-1])
        self.counts = np.zeros(len(found) + 1, np.int64)
        size, bins = self._high - self._low, len(found) - 1
        largest = max(abs(self._low), abs(self._high))
        self._scale = 0.0
        # Memory that is written again for every piece: fresh memory costs more than counting.
        self._scaled = np.empty(PIECE)
        self._slots, self._upper = np.empty(PIECE, np.int32), np.empty(PIECE, np.int32)
        self._taken = np.empty(PIECE, self._lower.dtype)
        if size > _TINY and largest < _HUGE:
            # A few roundings of the value, the edges and the products, each 2**-53.
            tolerance = 2.0**-48 * (bins + 2) * (largest / size + 1)
            if tolerance < 0.25:
                self._scale = bins / size
                self._offset = 1 - self._low * self._scale - tolerance
                self._tolerance = tolerance

    def add(self, piece: Piece) -> None:
        if self._scale:
            self._add_computed(piece)
        else:
            slots = self._lower.searchsorted(piece.values, "right") - 1
            self._count(slots)

    def _add_computed(self, piece: Piece) -> None:
        values, size = piece.values, piece.values.size
        scaled, slots, upper = self._scaled[:size], self._slots[:size], self._upper[:size]
        # What overflows is far outside, and clipped.
        with np.errstate(over="ignore"):
            np.multiply(values, self._scale, out=scaled, dtype=np.float64)
            scaled += self._offset
        top = self._lower.size - 1
        outside = piece.minimum < self._low or piece.maximum > self._high
        if outside or top < self.counts.size - 1:
            np.clip(scaled, 0, top, out=scaled)
        np.copyto(slots, scaled, casting="unsafe")
        scaled += 2 * self._tolerance
        np.copyto(upper, scaled, casting="unsafe")
        self._count(upper)
        if not np.array_equal(slots, upper):
            self._move_down(values, upper)

    def _move_down(self, values: Array, upper: Array) -> None:
        """From slots that are right or too high by one to the right ones."""
        lower = self._taken[: values.size]
        # No slot needs clipping, but only then NumPy writes to `out` directly.
        np.take(self._lower, upper, out=lower, mode="clip")
        high = upper.compress(np.greater(lower, values))
        moved = np.bincount(high, minlength=self.counts.size)
        self.counts -= moved
        self.counts[:-1] += moved[1:]

    def _count(self, slots: Array) -> None:
        self.counts += np.bincount(slots, minlength=self.counts.size)


# What the comparison twice computes must fit into 32 bits, and a piece's counts into memory.
MAX_BINS = PIECE
