"""From the selections of a mapping to the boxes to read of its source; pure.

A mapping pairs two hyperslab selections with equally many elements, one of the virtual dataset's
dataspace and one of the source's, element by element in C order (HDF5 Reference Manual,
H5Pset_virtual). Where both have equally many indices along each of their dimensions, each pair of
dimensions is solved by itself. Else (a vector out of a matrix, a union of boxes) the elements of
the block are counted one by one in C order, a bounded number of them at once.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from asgihive.hdf5.hyperslabs import (
    MAX_COUNT,
    AxisIndices,
    Hyperslab,
    Indices,
    RegularIndices,
    SpanTree,
    find_bounds,
    find_positions,
    find_unlimited_axis,
)
from asgihive.hdf5.plan import Axis, Selection, plan_blocks

COUNTED_AT_ONCE = 1 << 18
"""Elements that are counted one by one at once: of each, a few numbers of 64 bits."""

# A box around scattered elements is read whole if it holds up to so many times as many: reads of
# few elements cost more. For those in long runs it may hold less, or along one dimension.
_COVERED_TIMES = 8
_COVERED_TIMES_OF_LONG_RUNS = 2

# Fewer elements than that, on the average, are not worth a read for each box of them.
_WORTH_READING = 16

# So few reads are no matter, however few elements they are for.
_FEW_RUNS = 4
_FEW_BOXES = 64

_FIRST = slice(0, 1)


class Unpaired(Exception):  # translated at once by the reader
    """The selections of a mapping have different numbers of elements; the message says it."""


@dataclass(frozen=True, slots=True, eq=False)
class SourceBox:
    """A box of the source, and where its elements go in the block."""

    axes: tuple[Axis, ...]
    target: tuple[slice | Indices, ...] | slice | Indices
    """The elements of the block: along each of its dimensions, or of the block as a vector."""
    picked: tuple[Indices, ...] | Indices | None = None
    """The elements of the box that go there, in C order: positions along each of its dimensions,
    or in it as a vector; None = all of them."""

    @property
    def slices(self) -> tuple[slice, ...] | None:
        """Where the whole box goes, if that is a box of the block."""
        if self.picked is not None or not isinstance(self.target, tuple):
            return None
        slices = tuple(each for each in self.target if isinstance(each, slice))
        return slices if len(slices) == len(self.target) else None

    def put(self, read: npt.NDArray[Any], block: npt.NDArray[Any]) -> None:
        """Put what was read at `axes` into the block, which is C-contiguous.

        Both may have further dimensions, those of their elements.
        """
        item = read.shape[len(self.axes) :]
        taken = read
        if isinstance(self.picked, tuple):
            taken = read[np.ix_(*self.picked)]
        elif self.picked is not None:
            taken = read.reshape(-1, *item)[self.picked]
        if not isinstance(self.target, tuple):
            block.reshape(-1, *item)[self.target] = taken.reshape(-1, *item)
            return
        slices = self.slices
        if slices is not None:
            target = block[slices]
            target[...] = taken.reshape(target.shape)
            return
        grid = [
            np.arange(each.start, each.stop, each.step) if isinstance(each, slice) else each
            for each in self.target
        ]
        block[np.ix_(*grid)] = taken.reshape(*map(len, grid), *item)


@dataclass(frozen=True, slots=True)
class _Pairing:
    """Two selections with equally many elements."""

    virtual: Hyperslab
    source: Hyperslab
    source_shape: tuple[int, ...]
    lengths: list[int]
    """The number of indices along each dimension of the virtual dataset; of a tree, its size."""
    source_lengths: list[int]

    @classmethod
    def of(
        cls, virtual: Hyperslab, source: Hyperslab | None, source_shape: tuple[int, ...]
    ) -> "_Pairing":
        """Pair selections, along unlimited dimensions as far as the source's extent reaches.

        That is what HDF5 does (H5S_hyper_clip_unlim). Raises Unpaired.
        """
        if source is None:
            source = tuple(RegularIndices(0, 1, extent, 1) for extent in source_shape)
        growing, length = find_unlimited_axis(source), 0
        if (find_unlimited_axis(virtual) is None) != (growing is None):
            detail = "one of its selections is unlimited, and the other one is not"
            raise Unpaired(detail)
        if growing is not None and isinstance(source, tuple):
            length = source[growing].count_below(source_shape[growing])
        lengths, source_lengths = (
            [each.size]
            if isinstance(each, SpanTree)
            else [length if line.length is None else line.length for line in each]
            for each in (virtual, source)
        )
        sizes = math.prod(lengths), math.prod(source_lengths)
        if sizes[0] != sizes[1]:
            detail = f"the mapping pairs {sizes[0]} elements with {sizes[1]} of it"
            raise Unpaired(detail)
        return cls(virtual, source, source_shape, lengths, source_lengths)

    def align(self) -> "_Aligned | None":
        """Return the selections and which of their dimensions pair; None = they do not."""
        virtual, source = self.virtual, self.source
        if isinstance(virtual, SpanTree) or isinstance(source, SpanTree):
            return None
        longer = [i for i, n in enumerate(self.lengths) if n != 1]
        partners = [j for j, n in enumerate(self.source_lengths) if n != 1]
        if [self.lengths[i] for i in longer] != [self.source_lengths[j] for j in partners]:
            return None
        return virtual, source, dict(zip(longer, partners, strict=True))


# Of those dimensions whose length is not 1, each has a partner.
_Aligned = tuple[tuple[AxisIndices, ...], tuple[AxisIndices, ...], dict[int, int]]


def pair_boxes(
    virtual: Hyperslab,
    source: Hyperslab | None,
    axes: tuple[Axis, ...],
    source_shape: tuple[int, ...],
) -> Iterator[SourceBox]:
    """Yield what to read of a source of `source_shape` for the virtual dataset's block at `axes`.

    No element of the block is in two boxes. Elements that the source's extent does not reach
    are left out: they stay fill values.

    Args:
        virtual: the selection of the mapping in the virtual dataset.
        source: the one in the source; None = all of it.
        axes: of the block.
        source_shape: the extent of the source.

    Raises:
        Unpaired
    """
    pairing = _Pairing.of(virtual, source, source_shape)
    if 0 in pairing.lengths:
        return
    runs = _pair_axes(pairing, axes)
    if runs is not None:
        yield from _combine_runs(*runs)
        return
    counts = math.prod(pairing.source_lengths), math.prod(axis.count for axis in axes)
    if max(counts) > MAX_COUNT:
        detail = "it has more elements than 63 bits count"
        raise Unpaired(detail)
    yield from _count_pairs(pairing, axes)


def find_source_bounds(
    virtual: Hyperslab,
    source: Hyperslab | None,
    axes: tuple[Axis, ...],
    source_shape: tuple[int, ...],
) -> tuple[Axis, ...] | None:
    """Return a box of the source that holds all that is read of it for `axes`; None = nothing is.

    Costs the same however much is selected. Arguments and errors are those of `pair_boxes`.
    """
    pairing = _Pairing.of(virtual, source, source_shape)
    bounds = find_bounds(pairing.source)
    lines, source_lines, partners = pairing.align() or ((), (), {})
    for i, partner in partners.items():
        first, stop = map(lines[i].count_below, (axes[i].start, axes[i].stop))
        stop = min(stop, pairing.lengths[i])
        if first >= stop:
            return None
        line = source_lines[partner]
        bounds[partner] = int(line.find_indices(np.array([first]))[0]), line.find_extent(stop)
    box = []
    for (low, high), extent in zip(bounds, source_shape, strict=True):
        behind = extent if high is None else min(high, extent)
        if low >= behind:
            return None
        box.append(Axis(low, 1, behind - low))
    return tuple(box)


@dataclass(frozen=True, slots=True, eq=False)
class _AxisRun:
    """Indices of one dimension of the source that are read together, and where they go."""

    axis: Axis
    target: slice | Indices
    picked: Indices | None = None


# The runs of each dimension of the source; and of the block, which dimension goes where, or where
# the only index of one that has no partner is.
_Runs = tuple[list[list[_AxisRun]], list[int | slice]]


def _pair_axes(pairing: _Pairing, axes: tuple[Axis, ...]) -> _Runs | None:
    """Pair each dimension by itself; None if that cannot be, or makes many boxes that are small."""
    aligned = pairing.align()
    if aligned is None:
        return None
    virtual, source, partners = aligned
    runs: list[list[_AxisRun]] = []
    for line, extent in zip(source, pairing.source_shape, strict=True):
        # The one of length 1, unless another one takes its place below.
        runs.append([_AxisRun(Axis(line.start, 1, 1), _FIRST)] if line.start < extent else [])
    targets: list[int | slice] = []
    for i, (line, axis) in enumerate(zip(virtual, axes, strict=True)):
        partner = partners.get(i)
        if partner is None:
            positions, ordinals = line.find_ordinals(axis)
            if not len(positions) or ordinals[0]:
                return [[]], []
            targets.append(slice(int(positions[0]), int(positions[0]) + 1))
            continue
        targets.append(partner)
        most = source[partner].count_below(pairing.source_shape[partner])
        most = min(pairing.lengths[i], most)
        runs[partner] = _pair_axis(line, source[partner], axis, most)
    count = math.prod(map(len, runs))
    wanted = math.prod(sum(_count(run.target) for run in each) for each in runs)
    return None if count > _FEW_BOXES and wanted < count * _WORTH_READING else (runs, targets)


def _combine_runs(runs: list[list[_AxisRun]], targets: list[int | slice]) -> Iterator[SourceBox]:
    for combination in itertools.product(*runs):
        target = tuple(
            combination[each].target if isinstance(each, int) else each for each in targets
        )
        picked = None
        if any(run.picked is not None for run in combination):
            picked = tuple(
                np.arange(run.axis.count) if run.picked is None else run.picked
                for run in combination
            )
        yield SourceBox(tuple(run.axis for run in combination), target, picked)


def _pair_axis(virtual: AxisIndices, source: AxisIndices, axis: Axis, most: int) -> list[_AxisRun]:
    """Return the runs to read of a dimension of the source for `axis`, below `most` indices."""
    if (
        isinstance(virtual, RegularIndices)
        and isinstance(source, RegularIndices)
        and virtual.stride == virtual.block
        and source.block in {1, source.stride}
    ):
        # Without gaps: no index need be looked at.
        first, stop = find_positions(axis, virtual.start, virtual.start + most)
        if first == stop:
            return []
        step = source.stride if source.block == 1 else 1
        start = source.start + (axis.start + first * axis.step - virtual.start) * step
        further = axis.step * step if stop - first > 1 else 1
        return [_AxisRun(Axis(start, further, stop - first), slice(first, stop))]
    positions, ordinals = virtual.find_ordinals(axis)
    within = ordinals < most
    positions, indices = positions[within], source.find_indices(ordinals[within])
    if not indices.size:
        return []
    low, span = int(indices[0]), int(indices[-1] - indices[0]) + 1
    steps = np.diff(indices)
    if _estimate_runs(steps) > _FEW_RUNS and span <= _COVERED_TIMES_OF_LONG_RUNS * len(indices):
        return [_AxisRun(Axis(low, 1, span), _as_slice(positions), indices - low)]
    return [
        _AxisRun(Axis(int(indices[first]), step, stop - first), _as_slice(positions[first:stop]))
        for first, stop, step in _find_runs(steps)
    ]


def _estimate_runs(steps: Indices) -> int:
    """Return about how many runs `_find_runs` finds."""
    return 1 + int(np.count_nonzero(steps[1:] != steps[:-1])) // 2


def _find_runs(steps: Indices) -> Iterator[tuple[int, int, int]]:
    """Yield runs of elements with one step: first, behind the last, step.

    Args:
        steps: between all elements. A step of 0 is none: the next element begins a run.
    """
    changes = np.flatnonzero(steps[1:] != steps[:-1]) + 1
    first, count = 0, len(steps) + 1
    while first < count:
        step, last = 1, first
        if first + 1 < count and steps[first]:
            step = int(steps[first])
            after = int(np.searchsorted(changes, first, side="right"))
            last = int(changes[after]) if after < len(changes) else count - 1
        yield first, last + 1, step
        first = last + 1


def _as_slice(positions: Indices) -> slice | Indices:
    """Return positions as a slice, if they are one."""
    first, last = int(positions[0]), int(positions[-1])
    step = int(positions[1]) - first if len(positions) > 1 else 1
    is_regular = len(positions) < 3 or bool((np.diff(positions) == step).all())
    return slice(first, last + 1, step) if is_regular else positions


def _count(taken: slice | Indices) -> int:
    if isinstance(taken, slice):
        return len(range(taken.start, taken.stop, taken.step or 1))
    return len(taken)


def _count_pairs(pairing: _Pairing, axes: tuple[Axis, ...]) -> Iterator[SourceBox]:
    """Count the elements of both selections one by one."""
    rows = [math.prod(axis.count for axis in axes[i + 1 :]) for i in range(len(axes))]
    # What is there may be little.
    narrow = []
    for axis, (low, high) in zip(axes, find_bounds(pairing.virtual), strict=True):
        first, stop = find_positions(axis, low, high)
        narrow.append(axis.part(first, stop - first))
    for block in plan_blocks(Selection(tuple(narrow)), None, 1, COUNTED_AT_ONCE):
        found, ordinals = _find_ordinals(pairing, block.axes, rows)
        positions = found + sum(
            (inner.start - axis.start) // axis.step * row
            for inner, axis, row in zip(block.axes, axes, rows, strict=True)
        )
        coordinates = _find_coordinates(pairing, ordinals)
        inside = np.ones(len(positions), bool)
        for indices, extent in zip(coordinates, pairing.source_shape, strict=True):
            inside &= indices < extent
        yield from _make_boxes([each[inside] for each in coordinates], positions[inside])


def _find_ordinals(
    pairing: _Pairing, axes: tuple[Axis, ...], rows: list[int]
) -> tuple[Indices, Indices]:
    """Return positions, as `rows` count them, of mapped elements at `axes`; and their ordinals."""
    virtual = pairing.virtual
    if isinstance(virtual, SpanTree):
        return virtual.find_ordinals(axes, rows)
    positions = ordinals = np.zeros(1, np.int64)
    for line, length, axis, row in zip(virtual, pairing.lengths, axes, rows, strict=True):
        along, those = line.find_ordinals(axis)
        within = those < length
        positions = (positions[:, None] + along[within] * row).reshape(-1)
        ordinals = (ordinals[:, None] * length + those[within]).reshape(-1)
    return positions, ordinals


def _find_coordinates(pairing: _Pairing, ordinals: Indices) -> list[Indices]:
    """Return, of each dimension of the source, the indices of its `ordinals`-th elements."""
    source = pairing.source
    if isinstance(source, SpanTree):
        return source.find_coordinates(ordinals)
    found: list[Indices] = []
    for line, length in zip(reversed(source), reversed(pairing.source_lengths), strict=True):
        ordinals, along = np.divmod(ordinals, max(1, length))
        found.insert(0, line.find_indices(along))
    return found


def _make_boxes(coordinates: list[Indices], positions: Indices) -> Iterator[SourceBox]:
    """Yield boxes of the source that hold elements in C order, each of them in one."""
    count = len(positions)
    if not count:
        return
    steps = np.diff(coordinates[-1]) if coordinates else np.ones(count - 1, np.int64)
    for leading in coordinates[:-1]:
        steps[np.diff(leading) != 0] = 0
    runs = _estimate_runs(steps) + int(np.count_nonzero(steps == 0)) // 2
    if runs > _FEW_RUNS:
        lows = [int(each.min()) for each in coordinates]
        spans = [int(each.max()) - low + 1 for each, low in zip(coordinates, lows, strict=True)]
        covered, most = math.prod(spans), _COVERED_TIMES_OF_LONG_RUNS
        if runs * _WORTH_READING > count:
            most = _COVERED_TIMES
        if covered <= most * count:
            picked = np.zeros(count, np.int64)
            for each, low, span in zip(coordinates, lows, spans, strict=True):
                picked = picked * span + each - low
            axes = tuple(Axis(low, 1, span) for low, span in zip(lows, spans, strict=True))
            yield SourceBox(axes, _as_slice(positions), None if covered == count else picked)
            return
        if count > _WORTH_READING:
            half = count // 2
            yield from _make_boxes([each[:half] for each in coordinates], positions[:half])
            yield from _make_boxes([each[half:] for each in coordinates], positions[half:])
            return
    for first, stop, step in _find_runs(steps):
        axes = tuple(Axis(int(each[first]), 1, 1) for each in coordinates)
        if axes:
            axes = (*axes[:-1], Axis(axes[-1].start, step, stop - first))
        yield SourceBox(axes, _as_slice(positions[first:stop]))
