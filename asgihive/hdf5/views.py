"""Small views of large selections: which bins they have, and in what order they are read; pure."""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from asgihive.errors import BadParameter, FormatMismatch
from asgihive.hdf5.plan import Block, plan_blocks
from asgihive.hdf5.selection import Axis, Selection

Array = np.ndarray[Any, Any]

# Runs so short that NumPy's cost per run would be that of the whole.
_SHORT = 16

# Elements of such runs at once: what is read column by column stays in a core's cache.
_CACHED = 1 << 15


def binned(
    operation: np.ufunc,
    array: Array,
    factors: Sequence[int],
    offsets: Sequence[int],
    dtype: np.dtype[Any],
) -> Array:
    """`operation` over each bin: `factors[k]` elements along axis k, the last bin maybe fewer.

    Args:
        operation: associative, of two arguments.
        offsets: how many elements of the first bin along each axis lie before `array`.
        dtype: in which it is computed, and of the result.
    """
    # The outer axis first: whole rows are combined, which is fast, and little is left to do.
    for axis, (factor, offset) in enumerate(zip(factors, offsets, strict=True)):
        if factor > 1 and array.shape[axis] > 1:
            array = _along(operation, array, _AxisBins(axis, factor, offset), dtype)
    return array.astype(dtype, copy=False)


@dataclass(frozen=True, slots=True)
class _AxisBins:
    """Of one axis, as `binned` takes them."""

    axis: int
    factor: int
    offset: int


def _along(operation: np.ufunc, array: Array, bins: _AxisBins, dtype: np.dtype[Any]) -> Array:
    axis, factor = bins.axis, bins.factor
    if axis < array.ndim - 1 and array[(0,) * (axis + 1)].size < _SHORT:
        # Short rows are slow: turned into columns first.
        turned = np.ascontiguousarray(np.moveaxis(array, axis, -1))
        last = _AxisBins(array.ndim - 1, factor, bins.offset)
        result = _along(operation, turned, last, dtype)
        return np.ascontiguousarray(np.moveaxis(result, -1, axis))
    length = array.shape[axis]
    # The rest of a bin that began before, whole bins, and the beginning of one that goes on.
    head = min(length, -bins.offset % factor)
    whole = (length - head) // factor
    tail = head + whole * factor
    before = (slice(None),) * axis
    parts = []
    if head:
        part = array[(*before, slice(0, head))]
        parts.append(operation.reduce(part, axis=axis, dtype=dtype, keepdims=True))
    if whole:
        part = array[(*before, slice(head, tail))]
        split = part.reshape(*array.shape[:axis], whole, factor, *array.shape[axis + 1 :])
        if axis == array.ndim - 1 and factor <= _SHORT:
            parts.append(_rows(operation, split, dtype))
        else:
            parts.append(operation.reduce(split, axis=axis + 1, dtype=dtype))
    if tail < length:
        part = array[(*before, slice(tail, length))]
        parts.append(operation.reduce(part, axis=axis, dtype=dtype, keepdims=True))
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=axis)


def _rows(operation: np.ufunc, split: Array, dtype: np.dtype[Any]) -> Array:
    """Over the last axis, which is short: column by column, in pieces that stay in the cache."""
    factor = split.shape[-1]
    rows = split.reshape(-1, factor)
    result = np.empty(len(rows), dtype)
    for first in range(0, len(rows), _CACHED // factor):
        # Converting on the way, column by column, is ten times as slow.
        piece = rows[first : first + _CACHED // factor].astype(dtype, copy=False)
        target = result[first : first + len(piece)]
        operation(piece[:, 0], piece[:, 1], out=target)
        for column in range(2, factor):
            operation(target, piece[:, column], out=target)
    return result.reshape(split.shape[:-1])


# Of the bins that are being filled; a larger answer is made in several slabs.
SLAB_BYTES = 32 << 20

# What a bin takes at most: two sums and a count.
_BIN_BYTES = 24


class Method(StrEnum):
    """What a point of a view tells of its bin."""

    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    MINMAX = "minmax"
    NEAREST = "nearest"


@dataclass(frozen=True, slots=True)
class ViewRequest:
    """What a client asks for: either `max_points` or `shape`.

    max_points: of the whole view. shape: most points along each axis.
    """

    max_points: int | None = None
    shape: tuple[int, ...] | None = None
    method: Method = Method.MEAN


@dataclass(frozen=True, slots=True)
class View:
    """A selection in bins of whole numbers of elements; one point a bin.

    selection: what is shown.
    factors: elements in a bin along each axis of `selection.shape`; the last bin of an axis may
        have fewer.
    dtype: of the answer: float64 for means, else that of the dataset.
    """

    selection: Selection
    factors: tuple[int, ...]
    method: Method
    dtype: np.dtype[Any]

    @property
    def points(self) -> tuple[int, ...]:
        """The number of bins along each axis."""
        shape = self.selection.shape
        return tuple(-(-n // factor) for n, factor in zip(shape, self.factors, strict=True))

    @property
    def shape(self) -> tuple[int, ...]:
        """The answer's shape: of `minmax` the last axis is (minimum, maximum).

        In C order these are the minima and maxima in turns, which is the curve that a viewer
        draws; and a table, an array or an image keeps the two apart.
        """
        return (*self.points, 2) if self.method is Method.MINMAX else self.points

    @property
    def nearest(self) -> Selection:
        """The first element of each bin: point i is element `i * factor`."""
        factors = iter(self.factors)
        return Selection(tuple(_strided(axis, factors) for axis in self.selection.axes))

    @property
    def axis_factors(self) -> tuple[int, ...]:
        """Elements in a bin along each dimension of the dataset."""
        factors = iter(self.factors)
        return tuple(1 if axis.dropped else next(factors) for axis in self.selection.axes)


@dataclass(frozen=True, slots=True)
class Slab:
    """A run of a view's points in C order, whose bins are filled at the same time.

    axes: what is read for it, one per dimension of the dataset: one bin along each axis before
        `axis`, some along it, all along those behind it.
    axis: None when the view is a single point without axes.
    """

    axes: tuple[Axis, ...]
    axis: int | None


@dataclass(frozen=True, slots=True)
class ViewBlock:
    """One block to read for a view: part of a slab, to which `block.first` refers."""

    slab: Slab
    block: Block

    @property
    def size(self) -> int:
        """The number of elements to read."""
        return self.block.size


def plan_view(
    selection: Selection,
    dtype: np.dtype[Any],
    request: ViewRequest,
    item_shape: tuple[int, ...] = (),
) -> View:
    """The view of `selection` that `request` means.

    With `max_points` all axes have the same factor, the smallest with which there are no more
    points: an image keeps its proportions. With `shape` each axis has the smallest factor with
    which it has no more points than that. A selection that is small enough has factors of 1.

    Args:
        dtype, item_shape: of the dataset's elements.

    Raises:
        FormatMismatch: the values are not real numbers or booleans, and the method is not nearest.
        BadParameter: `shape` has another number of members than the selection has axes.
    """
    method = request.method
    if method is not Method.NEAREST and (item_shape or dtype.kind not in "biuf"):
        kind = f"arrays {item_shape} of {dtype}" if item_shape else str(dtype)
        accepted = f"the values are {kind}, for which only nearest is accepted; the other "
        raise FormatMismatch("method", method, accepted + "methods take real numbers and booleans")
    lengths = selection.shape
    if request.shape is not None:
        factors = _factors_of_shape(lengths, request.shape)
    else:
        factors = (_common_factor(lengths, request.max_points or 1),) * len(lengths)
    # No bin is larger than its axis.
    factors = tuple(min(f, max(1, n)) for f, n in zip(factors, lengths, strict=True))
    answer = np.dtype(np.float64) if method is Method.MEAN else dtype
    return View(selection, factors, method, answer)


def plan_view_blocks(
    view: View, chunks: tuple[int, ...] | None, item_bytes: int, block_bytes: int
) -> Iterator[ViewBlock]:
    """The blocks that a reducer needs, in order; each at most `block_bytes` large.

    They cover the selection once. Usually there is one slab, and they are those of
    `plan_blocks`, cut on chunk boundaries and not on those of bins: bins are carried from block
    to block, where a chunk that is cut would be decoded twice. Nothing is yielded for an empty
    selection; not for `nearest`, which reads `view.nearest` and reduces nothing.
    """
    for slab in _slabs(view):
        for block in plan_blocks(Selection(slab.axes), chunks, item_bytes, block_bytes):
            yield ViewBlock(slab, block)


def _slabs(view: View) -> Iterator[Slab]:
    axes, factors = view.selection.axes, view.axis_factors
    kept = [position for position, axis in enumerate(axes) if not axis.dropped]
    if not kept:
        yield Slab(axes, None)
        return
    bins = [-(-axis.count // factor) for axis, factor in zip(axes, factors, strict=True)]
    room = SLAB_BYTES // _BIN_BYTES
    along = next((k for k in kept if math.prod(bins[k + 1 :]) <= room), kept[-1])
    rows = max(1, room // max(1, math.prod(bins[along + 1 :])))
    runs = [range(count) for count in bins[:along]] + [range(0, bins[along], rows)]
    sizes = [1] * along + [rows]
    for firsts in itertools.product(*runs):
        parts = zip(axes, factors, firsts, sizes, strict=False)
        cut = (_bins_of(axis, factor, first, size) for axis, factor, first, size in parts)
        yield Slab((*cut, *axes[along + 1 :]), along)


def _bins_of(axis: Axis, factor: int, first: int, count: int) -> Axis:
    """The elements of `count` bins, as many as there are."""
    begin = first * factor
    return axis.part(begin, min(count * factor, axis.count - begin))


def _strided(axis: Axis, factors: Iterator[int]) -> Axis:
    if axis.dropped:
        return axis
    factor = next(factors)
    count = -(-axis.count // factor)
    return Axis(axis.start, axis.step * factor if count > 1 else 1, count)


def _common_factor(lengths: tuple[int, ...], most: int) -> int:
    """The smallest whole factor with which there are at most `most` bins."""
    low, high = 1, max((1, *lengths))
    while low < high:
        middle = (low + high) // 2
        if math.prod(-(-n // middle) for n in lengths) <= most:
            high = middle
        else:
            low = middle + 1
    return low


def _factors_of_shape(lengths: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != len(lengths):
        text = ",".join(map(str, shape))
        axes = f"{len(lengths)} ({','.join(map(str, lengths))})" if lengths else "none"
        accepted = f"one number per dimension of the selection is accepted, which has {axes}"
        raise BadParameter("shape", text, accepted)
    return tuple(max(1, -(-n // most)) for n, most in zip(lengths, shape, strict=True))


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
