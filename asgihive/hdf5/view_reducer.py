"""From the blocks of a view to its points, in order and in bounded memory."""

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from asgihive.hdf5.binning import binned
from asgihive.hdf5.views import Method, Slab, View, ViewBlock

Array = np.ndarray[Any, Any]

_INT64 = np.dtype(np.int64)
_DOUBLE = np.dtype(np.float64)
_HALF = 32
_LOW = (1 << _HALF) - 1

# Fewer than 2**60 doubles below this do not overflow when they are summed up.
_LARGE = 2.0**900
_SCALE = 2.0**100


class ViewReducer:
    """Takes what was read for each block of `plan_view_blocks`, in that order.

    Not for `nearest`. Memory: at most `SLAB_BYTES`, and a few times one block.

    Args:
        dtype: of the arrays that it will get: booleans, integers or real floats.
    """

    def __init__(self, view: View, dtype: np.dtype[Any]) -> None:
        self._view = view
        self._dtype = dtype
        self._slab: Slab | None = None
        self._bins: _Bins
        self._seen = self._given = 0

    def add(self, block: ViewBlock, array: Array) -> Array:
        """The points that are complete with this block, of `view.dtype`, maybe none.

        They follow those of the call before: whole rows of one axis k of `view.shape`, so of
        shape (n, *view.shape[k + 1:]), or all of `view.shape` where the selection has no axes.
        Together the arrays of all calls are the view.

        Args:
            array: the elements at `block.block.axes`, C-contiguous, in any shape.
        """
        slab, factors = block.slab, self._view.axis_factors
        if slab is not self._slab:
            self._slab, self._seen, self._given = slab, 0, 0
            self._bins = _bins(self._view.method, self._dtype, slab, factors)
        offsets, region = [], []
        for axis, whole, factor in zip(block.block.axes, slab.axes, factors, strict=True):
            first = (axis.start - whole.start) // whole.step
            offsets.append(first % factor)
            region.append(slice(first // factor, -(-(first + axis.count) // factor)))
        shaped = array.reshape([axis.count for axis in block.block.axes])
        self._bins.add(_comparable(shaped), tuple(region), offsets)
        self._seen += array.size
        return self._complete(slab)

    def _complete(self, slab: Slab) -> Array:
        """The points along the slab's axis that are complete and were not given yet."""
        if slab.axis is None:
            points = self._bins.points(())
            return np.asarray(points).astype(self._view.dtype).reshape(self._view.shape)
        counts = [axis.count for axis in slab.axes]
        length, row = counts[slab.axis], math.prod(counts[slab.axis + 1 :])
        # Of the positions before the axis, all in one bin, only the last one completes any.
        earlier = (math.prod(counts[: slab.axis]) - 1) * length * row
        positions = max(0, self._seen - earlier) // row
        factor = self._view.axis_factors[slab.axis]
        stop = -(-length // factor) if positions == length else positions // factor
        region = (*(slice(None),) * slab.axis, slice(self._given, stop))
        points = self._bins.points(region).astype(self._view.dtype)
        kept = sum(not axis.dropped for axis in slab.axes[: slab.axis + 1])
        points = points.reshape(stop - self._given, *self._view.shape[kept:])
        self._given = stop
        return points


def _comparable(array: Array) -> Array:
    """The same numbers in a type that NumPy computes with fast."""
    if array.dtype.kind == "b":
        # A file may store true as any byte but 0.
        return np.not_equal(array.view(np.uint8), 0).view(np.uint8)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


class _Bins(ABC):
    """The bins of one slab, while they are filled."""

    @abstractmethod
    def add(self, values: Array, region: tuple[slice, ...], offsets: list[int]) -> None:
        """Values of the bins in `region`, of whose first `offsets` elements came before."""

    @abstractmethod
    def points(self, region: tuple[slice, ...]) -> Array:
        """What the bins in `region`, which are full, amount to."""


def _bins(method: Method, dtype: np.dtype[Any], slab: Slab, factors: tuple[int, ...]) -> _Bins:
    counts = tuple(axis.count for axis in slab.axes)
    if method is Method.MEAN:
        return (_FloatMeans if dtype.kind == "f" else _IntegerMeans)(counts, factors, dtype)
    number = _numbers(counts, factors)
    computed = _comparable(np.empty(0, dtype)).dtype
    if method is Method.MINMAX:
        return _MinimaAndMaxima(factors, number, computed)
    return _Extremes(factors, number, computed, greatest=method is Method.MAX)


def _numbers(counts: tuple[int, ...], factors: tuple[int, ...]) -> tuple[int, ...]:
    """How many bins there are along each axis."""
    return tuple(-(-n // factor) for n, factor in zip(counts, factors, strict=True))


class _Extremes(_Bins):
    """Minima or maxima of the finite values; NaN where there are none."""

    def __init__(
        self,
        factors: tuple[int, ...],
        number: tuple[int, ...],
        dtype: np.dtype[Any],
        *,
        greatest: bool,
    ) -> None:
        self._factors = factors
        self._operation: np.ufunc
        self._found: Array
        if dtype.kind == "f":
            self._operation = np.fmax if greatest else np.fmin
            self._found = np.full(number, np.nan, dtype)
        else:
            limits = np.iinfo(dtype)
            self._operation = np.maximum if greatest else np.minimum
            self._found = np.full(number, limits.min if greatest else limits.max, dtype)

    def add(self, values: Array, region: tuple[slice, ...], offsets: list[int]) -> None:
        found = self._reduced(values, offsets)
        if values.dtype.kind == "f" and not np.isfinite(found).all():
            # `fmin` and `fmax` pass over NaNs, but not over signalling ones and infinities.
            finite = np.where(np.isfinite(values), values, values.dtype.type(np.nan))
            found = self._reduced(finite, offsets)
        where: tuple[Any, ...] = (*region, ...)  # an array even without axes
        bins = self._found[where]
        self._operation(bins, found, out=bins)

    def points(self, region: tuple[slice, ...]) -> Array:
        return self._found[region]

    def _reduced(self, values: Array, offsets: list[int]) -> Array:
        with np.errstate(invalid="ignore"):
            return binned(self._operation, values, self._factors, offsets, values.dtype)


class _MinimaAndMaxima(_Bins):
    """Both, side by side along a last axis."""

    def __init__(
        self, factors: tuple[int, ...], number: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        self._minima = _Extremes(factors, number, dtype, greatest=False)
        self._maxima = _Extremes(factors, number, dtype, greatest=True)

    def add(self, values: Array, region: tuple[slice, ...], offsets: list[int]) -> None:
        self._minima.add(values, region, offsets)
        self._maxima.add(values, region, offsets)

    def points(self, region: tuple[slice, ...]) -> Array:
        return np.stack([self._minima.points(region), self._maxima.points(region)], axis=-1)


class _Means(_Bins):
    """What means of all types share: how many elements the bins have."""

    def __init__(
        self,
        counts: tuple[int, ...],
        factors: tuple[int, ...],
        dtype: np.dtype[Any],  # noqa: ARG002 (one signature for both kinds)
    ) -> None:
        self._counts = counts
        self._factors = factors
        self._number = _numbers(counts, factors)

    def _sizes(self, region: tuple[slice, ...]) -> Array:
        sizes = np.ones(())
        whole = (slice(None),) * (len(self._number) - len(region))
        for axis, part in enumerate((*region, *whole)):
            first, stop, _ = part.indices(self._number[axis])
            factor = self._factors[axis]
            along = np.full(stop - first, float(factor))
            if stop == self._number[axis]:
                along[-1:] = self._counts[axis] - (stop - 1) * factor
            sizes = np.multiply.outer(sizes, along)
        return sizes


class _IntegerMeans(_Means):
    """Exact sums, divided in double precision.

    They are `high * 2**32 + low`, without `high` where 64 bits hold them.
    """

    def __init__(
        self, counts: tuple[int, ...], factors: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        super().__init__(counts, factors, dtype)
        small = dtype.itemsize < 8 and math.prod(factors) <= 1 << 31
        self._high = None if small else np.zeros(self._number, np.int64)
        self._low = np.zeros(self._number, np.int64)

    def add(self, values: Array, region: tuple[slice, ...], offsets: list[int]) -> None:
        if self._high is None:
            self._low[region] += binned(np.add, values, self._factors, offsets, _INT64)
            return
        if values.dtype.itemsize == 8:
            high = (values >> values.dtype.type(_HALF)).astype(np.int64, copy=False)
            self._high[region] += binned(np.add, high, self._factors, offsets, _INT64)
            values = (values & values.dtype.type(_LOW)).astype(np.int64, copy=False)
        sums = binned(np.add, values, self._factors, offsets, _INT64)
        self._high[region] += sums >> _HALF
        self._low[region] += sums & _LOW

    def points(self, region: tuple[slice, ...]) -> Array:
        sums: Array = self._low[region]
        if self._high is not None:
            high = self._high[region] + (sums >> _HALF)
            sums = np.ldexp(high.astype(np.float64), _HALF) + (sums & _LOW)
        means: Array = sums / self._sizes(region)
        return means


class _FloatMeans(_Means):
    """Of the finite values; NaN where there are none."""

    def __init__(
        self, counts: tuple[int, ...], factors: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        super().__init__(counts, factors, dtype)
        self._sums = np.zeros(self._number)
        # Of most data these stay None: how many values were not finite, and the sums of values
        # so large that they are scaled.
        self._missing: Array | None = None
        self._large: Array | None = None

    def add(self, values: Array, region: tuple[slice, ...], offsets: list[int]) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            sums = binned(np.add, values, self._factors, offsets, _DOUBLE)
        if not (np.abs(sums) < _LARGE).all():
            sums = self._add_unusual(values, region, offsets)
        self._sums[region] += sums

    def points(self, region: tuple[slice, ...]) -> Array:
        count = self._sizes(region)
        if self._missing is not None:
            count = count - self._missing[region]
        with np.errstate(invalid="ignore"):
            means: Array = self._sums[region] / count
            if self._large is not None:
                means += self._large[region] / count * _SCALE
        return means

    def _add_unusual(self, values: Array, region: tuple[slice, ...], offsets: list[int]) -> Array:
        """Count what is not finite, add what is large; the sums of the rest."""
        with np.errstate(over="ignore", invalid="ignore"):
            values = values.astype(np.float64)
        finite = np.isfinite(values)
        if self._missing is None:
            self._missing = np.zeros(self._number, np.int64)
        self._missing[region] += binned(np.add, ~finite, self._factors, offsets, _INT64)
        values = np.where(finite, values, 0.0)
        large = np.abs(values) >= _LARGE
        if large.any():
            if self._large is None:
                self._large = np.zeros(self._number)
            scaled = np.where(large, values, 0.0) / _SCALE
            self._large[region] += binned(np.add, scaled, self._factors, offsets, _DOUBLE)
            values = np.where(large, 0.0, values)
        return binned(np.add, values, self._factors, offsets, _DOUBLE)
