"""Small views of large selections: which bins they have, and in what order they are read; pure."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from asgihive.errors import BadParameter, FormatMismatch
from asgihive.hdf5.plan import Block, plan_blocks
from asgihive.hdf5.selection import Axis, Selection

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
