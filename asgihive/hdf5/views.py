"""Small views of large selections: their bins, the blocks to read, and the points made of these."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from asgihive.errors import BadParameter, FormatMismatch
from asgihive.hdf5.plan import Axis, Block, Selection, plan_blocks

Array = np.ndarray[Any, Any]

FILLED_BYTES = 32 << 20
"""Of bins that are filled at the same time; a larger answer is made in several boxes."""

# Of a bin, at most: two sums and a count.
_BIN_BYTES = 24

# Rows of bins so short that NumPy's cost per row would be that of the whole.
_SHORT = 16

# Elements of such rows at once, which are read column by column, so that they stay in a cache.
_CACHED = 1 << 15

_INT64 = np.dtype(np.int64)
_DOUBLE = np.dtype(np.float64)

# Fewer than 2**60 doubles below this do not overflow when they are summed up.
_LARGE = 2.0**900
_SCALE = 2.0**100


class Method(StrEnum):
    """How a point of a view is computed from its bin."""

    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    MINMAX = "minmax"
    NEAREST = "nearest"


@dataclass(frozen=True, slots=True)
class ViewRequest:
    """The request of a client: either `max_points` or `shape`."""

    max_points: int | None = None
    """Of the whole view."""
    shape: tuple[int, ...] | None = None
    """Most points along each axis."""
    method: Method = Method.MEAN


@dataclass(frozen=True, slots=True)
class View:
    """A selection in bins of whole numbers of elements; one point a bin."""

    selection: Selection
    """The elements to show."""
    factors: tuple[int, ...]
    """Elements in a bin along each axis of `selection.shape`; the last bin may have fewer."""
    method: Method
    dtype: np.dtype[Any]
    """Of the answer: float64 for means, else that of the dataset."""

    @property
    def points(self) -> tuple[int, ...]:
        """The number of bins along each axis."""
        return _count_bins(self.selection.shape, self.factors)

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
        axes = []
        for axis, factor in zip(self.selection.axes, self.axis_factors, strict=True):
            count = -(-axis.count // factor)
            step = axis.step * factor if count > 1 else 1
            axes.append(axis if axis.dropped else Axis(axis.start, step, count))
        return Selection(tuple(axes))

    @property
    def axis_factors(self) -> tuple[int, ...]:
        """Elements in a bin along each dimension of the dataset."""
        factors = iter(self.factors)
        return tuple(1 if axis.dropped else next(factors) for axis in self.selection.axes)


@dataclass(frozen=True, slots=True)
class ViewBox:
    """A box of the selection, whose bins are filled at the same time: a run of points in C order.

    It holds one bin along each axis before `axis`, some along it, all along those behind it.
    """

    axes: tuple[Axis, ...]
    """One per dimension of the dataset."""
    axis: int | None
    """None when the view is a single point without axes."""


@dataclass(frozen=True, slots=True)
class ViewBlock:
    """One block to read for a view."""

    box: ViewBox
    block: Block
    """A part of the box, to which `block.first` refers."""

    @property
    def axes(self) -> tuple[Axis, ...]:
        """What to read, one axis per dimension of the dataset."""
        return self.block.axes

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
    """Return the view of `selection` that `request` means.

    With `max_points` all axes have the same factor, the smallest with which there are no more
    points: an image keeps its proportions. With `shape` each axis has the smallest factor with
    which it has no more points than that. A selection that is small enough has factors of 1.

    Args:
        selection: the elements to show.
        dtype: of the dataset's elements.
        request: that of a client.
        item_shape: of the dataset's elements.

    Raises:
        FormatMismatch: the values are not real numbers or booleans, and the method is not nearest.
        BadParameter: `shape` has another number of members than the selection has axes.
    """
    method = request.method
    if method is not Method.NEAREST and (item_shape or dtype.kind not in "biuf"):
        kind = f"arrays {item_shape} of {dtype}" if item_shape else str(dtype)
        accepted = f"the values are {kind}, for which only nearest is accepted; the other "
        raise FormatMismatch("method", method, accepted + "methods take real numbers and booleans")
    lengths, most = selection.shape, request.shape
    if most is None:
        factors = [_find_common_factor(lengths, request.max_points or 1)] * len(lengths)
    elif len(most) == len(lengths):
        factors = [-(-n // points) for n, points in zip(lengths, most, strict=True)]
    else:
        axes = f"{len(lengths)} ({','.join(map(str, lengths))})" if lengths else "none"
        accepted = f"one number per dimension of the selection is accepted, which has {axes}"
        raise BadParameter("shape", ",".join(map(str, most)), accepted)
    # No bin is larger than its axis.
    fitting = tuple(max(1, min(f, n)) for f, n in zip(factors, lengths, strict=True))
    return View(selection, fitting, method, _DOUBLE if method is Method.MEAN else dtype)


def plan_view_blocks(
    view: View, chunks: tuple[int, ...] | None, item_bytes: int, block_bytes: int
) -> Iterator[ViewBlock]:
    """Yield the blocks that a reducer needs, in order; each at most `block_bytes` large.

    They cover the selection once. Usually there is one box, and they are those of
    `plan_blocks`, cut on chunk boundaries and not on those of bins: bins are carried from block
    to block, where a chunk that is cut would be decoded twice. Nothing is yielded for an empty
    selection; not for `nearest`, which reads `view.nearest` and reduces nothing.
    """
    for box in _plan_boxes(view):
        for block in plan_blocks(Selection(box.axes), chunks, item_bytes, block_bytes):
            yield ViewBlock(box, block)


def _plan_boxes(view: View) -> Iterator[ViewBox]:
    axes, factors = view.selection.axes, view.axis_factors
    kept = [position for position, axis in enumerate(axes) if not axis.dropped]
    if not kept:
        yield ViewBox(axes, None)
        return
    bins = _count_bins([axis.count for axis in axes], factors)
    room = FILLED_BYTES // _BIN_BYTES
    along = next((k for k in kept if math.prod(bins[k + 1 :]) <= room), kept[-1])
    rows = max(1, room // max(1, math.prod(bins[along + 1 :])))
    runs = [*map(range, bins[:along]), range(0, bins[along], rows)]
    for firsts in itertools.product(*runs):
        cut = []
        for k, (axis, factor, first) in enumerate(zip(axes, factors, firsts, strict=False)):
            begin, count = first * factor, factor * (rows if k == along else 1)
            cut.append(axis.part(begin, min(count, axis.count - begin)))
        yield ViewBox((*cut, *axes[along + 1 :]), along)


def _count_bins(counts: Sequence[int], factors: Sequence[int]) -> tuple[int, ...]:
    """Return how many bins there are along each axis."""
    return tuple(-(-n // factor) for n, factor in zip(counts, factors, strict=True))


def _find_common_factor(lengths: tuple[int, ...], most: int) -> int:
    """Return the smallest whole factor with which there are at most `most` bins."""
    low, high = 1, max((1, *lengths))
    while low < high:
        middle = (low + high) // 2
        if math.prod(-(-n // middle) for n in lengths) <= most:
            high = middle
        else:
            low = middle + 1
    return low


@dataclass(frozen=True, slots=True)
class BlockBins:
    """What the elements of one block amount to in each bin that some of them lie in."""

    found: tuple[Array, ...]
    """The sums of a mean, else the minima, the maxima or both."""
    missing: Array | None = None
    """How many elements are not finite; None = none anywhere. Of means."""
    large: Array | None = None
    """Sums of elements so large that they are scaled; None = there are none. Of means."""


def reduce_view_block(view: View, block: ViewBlock, array: Array) -> BlockBins:
    """Return what one block amounts to, for `ViewReducer.add_bins`.

    Args:
        view: the view to make, not `nearest`.
        block: one of `plan_view_blocks`.
        array: the elements at `block.axes`, C-contiguous, in any shape: booleans, integers or real
            floats.
    """
    factors = view.axis_factors
    offsets = [first % factor for first, factor in zip(_find_firsts(block), factors, strict=True)]
    values = _as_comparable(array.reshape([axis.count for axis in block.axes]))
    if view.method is Method.MEAN:
        return _sum_bins(values, factors, offsets)
    return BlockBins(
        tuple(
            _find_extremes(operation, values, factors, offsets)
            for operation, _ in _choose_extremes(view.method, values.dtype)
        )
    )


def _find_firsts(block: ViewBlock) -> list[int]:
    """Return at which position of its box a block begins, along each axis."""
    pairs = zip(block.axes, block.box.axes, strict=True)
    return [(axis.start - whole.start) // whole.step for axis, whole in pairs]


class ViewReducer:
    """Takes what was read for each block of `plan_view_blocks`, in that order.

    Not for `nearest`. Memory: at most `FILLED_BYTES`, and a few times one block.

    Args:
        view: the view to make.
        dtype: of the arrays that it will get: booleans, integers or real floats.
    """

    def __init__(self, view: View, dtype: np.dtype[Any]) -> None:
        self._view = view
        self._dtype = dtype
        self._box: ViewBox | None = None
        self._bins: _Extremes | _Means
        self._seen = self._given = 0

    def add(self, block: ViewBlock, array: Array) -> Array:
        """Return the points that are complete with this block, of `view.dtype`, maybe none.

        They follow those of the call before: whole rows of one axis k of `view.shape`, so of
        shape (n, *view.shape[k + 1:]), or all of `view.shape` where the selection has no axes.
        Together the arrays of all calls are the view.

        Args:
            block: the next one.
            array: the elements at `block.block.axes`, C-contiguous, in any shape.
        """
        return self.add_bins(block, reduce_view_block(self._view, block, array))

    def add_bins(self, block: ViewBlock, bins: BlockBins) -> Array:
        """Return the same as `add`, of what a block was reduced to, by whatever process."""
        box, factors = block.box, self._view.axis_factors
        if box is not self._box:
            self._box, self._seen, self._given = box, 0, 0
            counts = tuple(axis.count for axis in box.axes)
            if self._view.method is Method.MEAN:
                self._bins = _Means(counts, factors)
            else:
                self._bins = _Extremes(self._view.method, counts, factors, self._dtype)
        region = []
        for axis, first, factor in zip(block.axes, _find_firsts(block), factors, strict=True):
            region.append(slice(first // factor, -(-(first + axis.count) // factor)))
        self._bins.add(bins, tuple(region))
        self._seen += block.size
        return self._take_complete(box)

    def _take_complete(self, box: ViewBox) -> Array:
        """Return the points along the box's axis that are complete and were not given yet."""
        if box.axis is None:
            points = self._bins.find_points(())
            return np.asarray(points).astype(self._view.dtype).reshape(self._view.shape)
        counts = [axis.count for axis in box.axes]
        length, row = counts[box.axis], math.prod(counts[box.axis + 1 :])
        # Of the positions before the axis, all in one bin, only the last one completes any.
        earlier = (math.prod(counts[: box.axis]) - 1) * length * row
        positions = max(0, self._seen - earlier) // row
        factor = self._view.axis_factors[box.axis]
        stop = -(-length // factor) if positions == length else positions // factor
        region = (*(slice(None),) * box.axis, slice(self._given, stop))
        points = self._bins.find_points(region).astype(self._view.dtype)
        kept = sum(not axis.dropped for axis in box.axes[: box.axis + 1])
        points = points.reshape(stop - self._given, *self._view.shape[kept:])
        self._given = stop
        return points


def _as_comparable(array: Array) -> Array:
    """Return the same numbers in a type that NumPy computes with fast."""
    if array.dtype.kind == "b":
        # A file may store true as any byte but 0.
        return np.not_equal(array.view(np.uint8), 0).view(np.uint8)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _choose_extremes(method: Method, dtype: np.dtype[Any]) -> list[tuple[np.ufunc, Any]]:
    """Return how minima, maxima or both are found, and what is none of any number."""
    chosen: list[tuple[np.ufunc, Any]] = []
    for each, is_least in ((Method.MIN, True), (Method.MAX, False)):
        if method not in {each, Method.MINMAX}:
            continue
        if dtype.kind == "f":
            chosen.append((np.fmin if is_least else np.fmax, np.nan))
        elif is_least:
            chosen.append((np.minimum, np.iinfo(dtype).max))
        else:
            chosen.append((np.maximum, np.iinfo(dtype).min))
    return chosen


def _find_extremes(
    operation: np.ufunc, values: Array, factors: tuple[int, ...], offsets: list[int]
) -> Array:
    with np.errstate(invalid="ignore"):
        found = _reduce_bins(operation, values, factors, offsets, values.dtype)
        if values.dtype.kind == "f" and not np.isfinite(found).all():
            # `fmin` and `fmax` pass over NaNs, but not over signalling ones and infinities.
            finite = np.where(np.isfinite(values), values, values.dtype.type(np.nan))
            found = _reduce_bins(operation, finite, factors, offsets, values.dtype)
    return found


class _Extremes:
    """Bins of minima, maxima or both, of the finite values; NaN where there are none.

    Those of both are side by side along a last axis.
    """

    def __init__(
        self,
        method: Method,
        counts: tuple[int, ...],
        factors: tuple[int, ...],
        dtype: np.dtype[Any],
    ) -> None:
        number = _count_bins(counts, factors)
        dtype = _as_comparable(np.empty(0, dtype)).dtype
        self._found: list[tuple[np.ufunc, Array]] = [
            (operation, np.full(number, nothing, dtype))
            for operation, nothing in _choose_extremes(method, dtype)
        ]

    def add(self, block: BlockBins, region: tuple[slice, ...]) -> None:
        """Add what a block amounts to in the bins in `region`."""
        where: tuple[Any, ...] = (*region, ...)  # an array even without axes
        for (operation, bins), found in zip(self._found, block.found, strict=True):
            operation(bins[where], found, out=bins[where])

    def find_points(self, region: tuple[slice, ...]) -> Array:
        """Return what the bins in `region`, which are full, amount to."""
        found = [bins[region] for _, bins in self._found]
        return found[0] if len(found) == 1 else np.stack(found, axis=-1)


def _sum_bins(values: Array, factors: tuple[int, ...], offsets: list[int]) -> BlockBins:
    """Return the sums of the finite values in each bin, in double precision."""
    # No block has so many short integers that their sum overflows; and that is faster.
    is_short = values.dtype.kind != "f" and values.dtype.itemsize < 8
    dtype = _INT64 if is_short else _DOUBLE
    with np.errstate(over="ignore", invalid="ignore"):
        sums = _reduce_bins(np.add, values, factors, offsets, dtype)
    if (np.abs(sums) < _LARGE).all():
        return BlockBins((sums,))
    with np.errstate(over="ignore", invalid="ignore"):
        values = values.astype(np.float64)
    finite = np.isfinite(values)
    missing = _reduce_bins(np.add, ~finite, factors, offsets, _INT64)
    values = np.where(finite, values, 0.0)
    large = np.abs(values) >= _LARGE
    scaled = None
    if large.any():
        scaled = np.where(large, values, 0.0) / _SCALE
        scaled = _reduce_bins(np.add, scaled, factors, offsets, _DOUBLE)
        values = np.where(large, 0.0, values)
    return BlockBins((_reduce_bins(np.add, values, factors, offsets, _DOUBLE),), missing, scaled)


class _Means:
    """Bins of means of the finite values, in double precision; NaN where there are none."""

    def __init__(self, counts: tuple[int, ...], factors: tuple[int, ...]) -> None:
        self._counts = counts
        self._sums = np.zeros(_count_bins(counts, factors))
        self._factors = factors
        # Of most data these stay None: how many values were not finite, and the sums of values
        # so large that they are scaled.
        self._missing: Array | None = None
        self._large: Array | None = None

    def add(self, block: BlockBins, region: tuple[slice, ...]) -> None:
        """Add what a block amounts to in the bins in `region`."""
        if block.missing is not None:
            if self._missing is None:
                self._missing = np.zeros(self._sums.shape, np.int64)
            self._missing[region] += block.missing
        if block.large is not None:
            if self._large is None:
                self._large = np.zeros(self._sums.shape)
            self._large[region] += block.large
        [sums] = block.found
        self._sums[region] += sums

    def find_points(self, region: tuple[slice, ...]) -> Array:
        """Return what the bins in `region`, which are full, amount to."""
        count = np.ones(())
        parts = (*region, *(slice(None),) * (len(self._counts) - len(region)))
        for n, factor, part in zip(self._counts, self._factors, parts, strict=True):
            number = -(-n // factor)
            first, stop, _ = part.indices(number)
            along = np.full(stop - first, float(factor))
            if stop == number:
                along[-1:] = n - (stop - 1) * factor
            count = np.multiply.outer(count, along)
        if self._missing is not None:
            count = count - self._missing[region]
        with np.errstate(invalid="ignore"):
            means: Array = self._sums[region] / count
            if self._large is not None:
                means += self._large[region] / count * _SCALE
        return means


def _reduce_bins(
    operation: np.ufunc,
    array: Array,
    factors: Sequence[int],
    offsets: Sequence[int],
    dtype: np.dtype[Any],
) -> Array:
    """Return `operation` over each bin: `factors[k]` elements along axis k, at the ends fewer.

    Args:
        operation: associative, of two arguments.
        array: the elements of some bins.
        factors: one per axis.
        offsets: how many elements of the first bin along each axis lie before `array`.
        dtype: in which it is computed, and of the result.
    """
    # The outer axis first: whole rows are combined, which is fast, and little is left to do.
    for axis, (factor, offset) in enumerate(zip(factors, offsets, strict=True)):
        if factor == 1 or array.shape[axis] <= 1:
            continue
        if axis < array.ndim - 1 and array[(0,) * (axis + 1)].size < _SHORT:
            # Short rows are slow: turned into columns first.
            turned = np.ascontiguousarray(np.moveaxis(array, axis, -1))
            reduced = _reduce_axis(operation, turned, (array.ndim - 1, factor, offset), dtype)
            array = np.ascontiguousarray(np.moveaxis(reduced, -1, axis))
        else:
            array = _reduce_axis(operation, array, (axis, factor, offset), dtype)
    return array.astype(dtype, copy=False)


def _reduce_axis(
    operation: np.ufunc, array: Array, bins: tuple[int, int, int], dtype: np.dtype[Any]
) -> Array:
    axis, factor, offset = bins
    length = array.shape[axis]
    # The rest of a bin that began before, whole bins, and the beginning of one that goes on.
    head = min(length, -offset % factor)
    whole = (length - head) // factor
    tail = head + whole * factor
    before = (slice(None),) * axis
    parts = []
    for first, stop in ((0, head), (head, tail), (tail, length)):
        if first == stop:
            continue
        part = array[(*before, slice(first, stop))]
        if (first, stop) != (head, tail):
            parts.append(operation.reduce(part, axis=axis, dtype=dtype, keepdims=True))
            continue
        split = part.reshape(*array.shape[:axis], whole, factor, *array.shape[axis + 1 :])
        if axis == array.ndim - 1 and factor <= _SHORT:
            parts.append(_reduce_short_rows(operation, split, dtype))
        else:
            parts.append(operation.reduce(split, axis=axis + 1, dtype=dtype))
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=axis)


def _reduce_short_rows(operation: np.ufunc, split: Array, dtype: np.dtype[Any]) -> Array:
    """Reduce the last axis, which is short: column by column, as much as stays in the cache."""
    factor = split.shape[-1]
    rows = split.reshape(-1, factor)
    result = np.empty(len(rows), dtype)
    for first in range(0, len(rows), _CACHED // factor):
        # Converting on the way, column by column, is ten times as slow.
        cached = rows[first : first + _CACHED // factor].astype(dtype, copy=False)
        target = result[first : first + len(cached)]
        operation(cached[:, 0], cached[:, 1], out=target)
        for column in range(2, factor):
            operation(target, cached[:, column], out=target)
    return result.reshape(split.shape[:-1])
