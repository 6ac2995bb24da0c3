"""From a mapping and a block of a virtual dataset to what is read of the source; pure.

Where both selections have equally many indices along each of their dimensions, each pair of
dimensions is solved by itself. Else (a vector out of a matrix, a union of boxes) the elements
of the block are counted one by one in C order, a bounded number of them at once.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from asgihive.hdf5.mapping import (
    Line,
    Mapping,
    Pattern,
    Slab,
    bounds_of,
    unlimited_axis_of,
)
from asgihive.hdf5.plan import plan_blocks
from asgihive.hdf5.selection import Axis, Selection
from asgihive.hdf5.spans import Indices, SpanTree

# Elements that are counted one by one at once: of each, a few numbers of 64 bits.
_COUNTED_AT_ONCE = 1 << 18

# A hyperslab around scattered elements is read whole if it holds up to so many times as many,
# or so many times as many indices along one dimension: reads of few elements cost more.
_COVERED_TIMES = 8
_COVERED_TIMES_ALONG = 2

# Fewer elements than that, on the average, are not worth a read for each hyperslab of them.
_WORTH_READING = 16

# So few reads are no matter, however few elements they are for.
_FEW_RUNS = 4
_FEW_PIECES = 64

# What counts elements does so in 64 bits with a sign.
_MOST_COUNTED = 2**63 - 1


class Unpaired(Exception):  # translated at once by the reader
    """The selections of a mapping have different numbers of elements; the message says it."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A hyperslab of the source, and where its elements go in the block.

    axes: the hyperslab.
    target: the elements of the block: what is taken of each of its dimensions, or of the block
        as a vector.
    picked: the elements of the hyperslab that go there, in C order: positions along each of its
        dimensions, or in it as a vector; None = all of them.
    """

    axes: tuple[Axis, ...]
    target: tuple[slice | Indices, ...] | slice | Indices
    picked: tuple[Indices, ...] | Indices | None = None

    @property
    def slices(self) -> tuple[slice, ...] | None:
        """Where the whole hyperslab goes, if that is a hyperslab of the block."""
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


def pieces(
    mapping: Mapping, axes: tuple[Axis, ...], source_shape: tuple[int, ...]
) -> Iterator[Piece]:
    """What to read of a source of `source_shape` for the virtual dataset's elements at `axes`.

    No element of the block is in two pieces. Elements that the source's extent does not reach
    are left out: they stay fill values.

    Raises:
        Unpaired
    """
    source = _whole(source_shape) if mapping.source is None else mapping.source
    lengths = _lengths(mapping.virtual, source, source_shape)
    if lengths is not None:
        virtual_lengths, source_lengths = lengths
        if [n for n in virtual_lengths if n != 1] == [n for n in source_lengths if n != 1]:
            virtual, lines = mapping.virtual, source
            if isinstance(virtual, tuple) and isinstance(lines, tuple):
                aligned = _Aligned(virtual, virtual_lengths, lines, source_lengths, source_shape)
                found = aligned.pieces(axes)
                if found is not None:
                    yield from found
                    return
    if (_size_of(source) or 0) > _MOST_COUNTED or math.prod(a.count for a in axes) > _MOST_COUNTED:
        detail = "it has more elements than 63 bits count"
        raise Unpaired(detail)
    yield from _Counted(mapping.virtual, source, source_shape, lengths).pieces(axes)


def source_box(
    mapping: Mapping, axes: tuple[Axis, ...], source_shape: tuple[int, ...]
) -> tuple[Axis, ...] | None:
    """A part of the source that holds all that is read of it for `axes`; None = nothing is.

    Costs the same however much is selected.
    """
    source = _whole(source_shape) if mapping.source is None else mapping.source
    lengths = _lengths(mapping.virtual, source, source_shape)
    bounds: list[tuple[int, int | None]] = [(0, extent) for extent in source_shape]
    if mapping.source is not None:
        bounds = bounds_of(mapping.source)
    if lengths is not None and isinstance(mapping.virtual, tuple) and isinstance(source, tuple):
        longer = [i for i, n in enumerate(lengths[0]) if n != 1]
        partners = [i for i, n in enumerate(lengths[1]) if n != 1]
        if [lengths[0][i] for i in longer] == [lengths[1][i] for i in partners]:
            for i, partner in zip(longer, partners, strict=True):
                line = mapping.virtual[i]
                first, stop = map(line.length_within, (axes[i].start, axes[i].stop))
                stop = min(stop, lengths[0][i])
                if first >= stop:
                    return None
                from_line = source[partner]
                bounds[partner] = (
                    int(from_line.indices(np.array([first]))[0]),
                    from_line.extent_of(stop),
                )
    box = []
    for (low, high), extent in zip(bounds, source_shape, strict=True):
        behind = extent if high is None else min(high, extent)
        if low >= behind:
            return None
        box.append(Axis(low, 1, behind - low))
    return tuple(box)


def _whole(shape: tuple[int, ...]) -> tuple[Slab, ...]:
    return tuple(Slab(0, 1, extent, 1) for extent in shape)


def _lengths(
    virtual: Pattern, source: Pattern, source_shape: tuple[int, ...]
) -> tuple[list[int], list[int]] | None:
    """How many indices both selections have along each dimension; None = one is a tree.

    Along unlimited dimensions, as many as the source's extent holds (H5S_hyper_clip_unlim).

    Raises:
        Unpaired
    """
    if isinstance(virtual, SpanTree) or isinstance(source, SpanTree):
        sizes = [_size_of(each) for each in (virtual, source)]
        if sizes[0] != sizes[1]:
            raise _unpaired(*sizes)
        return None
    unlimited, growing = unlimited_axis_of(virtual), unlimited_axis_of(source)
    length = 0
    if growing is not None:
        length = source[growing].length_within(source_shape[growing])
    if (unlimited is None) != (growing is None):
        detail = "one of its selections is unlimited, and the other one is not"
        raise Unpaired(detail)
    counts = (
        [_length_of(line, length) for line in virtual],
        [_length_of(line, length) for line in source],
    )
    sizes = [math.prod(each) for each in counts]
    if sizes[0] != sizes[1]:
        raise _unpaired(*sizes)
    return counts


def _length_of(line: Line, unlimited: int) -> int:
    return unlimited if line.length is None else line.length


def _size_of(pattern: Pattern) -> int | None:
    if isinstance(pattern, SpanTree):
        return pattern.size
    lengths = [line.length for line in pattern]
    known = [each for each in lengths if each is not None]
    return math.prod(known) if len(known) == len(lengths) else None


def _unpaired(virtual: int | None, source: int | None) -> Unpaired:
    counts = ["unlimited" if each is None else str(each) for each in (virtual, source)]
    return Unpaired(f"the mapping pairs {counts[0]} elements with {counts[1]} of it")


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """Indices of one dimension of the source that are read together, and where they go."""

    axis: Axis
    target: slice | Indices
    picked: Indices | None = None


@dataclass(frozen=True, slots=True)
class _Aligned:
    """Selections whose dimensions pair, but for those of length 1."""

    virtual: Sequence[Line]
    virtual_lengths: list[int]
    source: Sequence[Line]
    source_lengths: list[int]
    source_shape: tuple[int, ...]

    def pieces(self, axes: tuple[Axis, ...]) -> Iterator[Piece] | None:
        """Those of the block at `axes`; None if they are too many and too small."""
        if 0 in self.virtual_lengths:
            return iter(())
        partners = (j for j, length in enumerate(self.source_lengths) if length != 1)
        runs: list[list[_Run]] = []
        for line, extent in zip(self.source, self.source_shape, strict=True):
            # The one of length 1, unless another one takes its place below.
            runs.append([_Run(Axis(line.start, 1, 1), _FIRST)] if line.start < extent else [])
        fixed = [_FIRST] * len(axes)
        paired: list[int | None] = [None] * len(axes)
        for i, (line, length, axis) in enumerate(
            zip(self.virtual, self.virtual_lengths, axes, strict=True)
        ):
            if length == 1:
                positions, ordinals = line.ordinals(axis)
                if not len(positions) or ordinals[0]:
                    return iter(())
                fixed[i] = slice(int(positions[0]), int(positions[0]) + 1)
                continue
            j = paired[i] = next(partners)
            most = min(length, self.source[j].length_within(self.source_shape[j]))
            runs[j] = _runs(line, self.source[j], axis, most)
        count = math.prod(map(len, runs))
        wanted = math.prod(sum(_count(run.target) for run in each) for each in runs)
        if count > _FEW_PIECES and wanted < count * _WORTH_READING:
            return None
        return self._combined(runs, paired, fixed)

    def _combined(
        self, runs: list[list[_Run]], paired: list[int | None], fixed: list[slice]
    ) -> Iterator[Piece]:
        for combination in itertools.product(*runs):
            target = tuple(
                one if j is None else combination[j].target
                for one, j in zip(fixed, paired, strict=True)
            )
            picked = None
            if any(run.picked is not None for run in combination):
                picked = tuple(
                    np.arange(run.axis.count) if run.picked is None else run.picked
                    for run in combination
                )
            yield Piece(tuple(run.axis for run in combination), target, picked)


_FIRST = slice(0, 1)


def _runs(virtual: Line, source: Line, axis: Axis, most: int) -> list[_Run]:
    """What is read of a dimension of the source for `axis`: of its first `most` indices."""
    if (
        isinstance(virtual, Slab)
        and isinstance(source, Slab)
        and virtual.stride == virtual.block
        and source.block in {1, source.stride}
    ):
        # Without gaps: no index need be looked at.
        first = max(0, -((axis.start - virtual.start) // axis.step))
        stop = min(axis.count, max(0, -((axis.start - virtual.start - most) // axis.step)))
        if first >= stop:
            return []
        step = source.stride if source.block == 1 else 1
        ordinal = axis.start + first * axis.step - virtual.start
        further = axis.step * step if stop - first > 1 else 1
        return [
            _Run(Axis(source.start + ordinal * step, further, stop - first), slice(first, stop))
        ]
    positions, ordinals = virtual.ordinals(axis)
    within = ordinals < most
    return _read_together(source.indices(ordinals[within]), positions[within])


def _read_together(indices: Indices, positions: Indices) -> list[_Run]:
    if not indices.size:
        return []
    low, span = int(indices[0]), int(indices[-1] - indices[0]) + 1
    if _roughly(np.diff(indices)) > _FEW_RUNS and span <= _COVERED_TIMES_ALONG * len(indices):
        return [_Run(Axis(low, 1, span), _taken(positions), indices - low)]
    return [
        _Run(Axis(int(indices[first]), step, stop - first), _taken(positions[first:stop]))
        for first, stop, step in _arithmetic(np.diff(indices))
    ]


def _roughly(steps: Indices) -> int:
    """About how many runs `_arithmetic` finds."""
    return 1 + int(np.count_nonzero(steps[1:] != steps[:-1])) // 2


def _arithmetic(steps: Indices) -> Iterator[tuple[int, int, int]]:
    """Runs of elements with one step, by the steps between all: first, behind the last, step.

    A step of 0 is none: the next element begins a run.
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


def _taken(positions: Indices) -> slice | Indices:
    """As a slice, if it is one."""
    first, last = int(positions[0]), int(positions[-1])
    step = int(positions[1]) - first if len(positions) > 1 else 1
    is_regular = len(positions) < 3 or bool((np.diff(positions) == step).all())
    return slice(first, last + 1, step) if is_regular else positions


def _count(taken: slice | Indices) -> int:
    if isinstance(taken, slice):
        return len(range(taken.start, taken.stop, taken.step or 1))
    return len(taken)


@dataclass(frozen=True, slots=True, eq=False)
class _Counted:
    """Any two selections with equally many elements.

    lengths: the number of indices along each dimension, if neither is a tree.
    """

    virtual: Pattern
    source: Pattern
    source_shape: tuple[int, ...]
    lengths: tuple[list[int], list[int]] | None

    def pieces(self, axes: tuple[Axis, ...]) -> Iterator[Piece]:
        """Those of the block at `axes`."""
        rows = [math.prod(axis.count for axis in axes[i + 1 :]) for i in range(len(axes))]
        narrow = Selection(
            tuple(map(_narrowed, axes, bounds_of(self.virtual)))  # what is there may be little
        )
        for part in plan_blocks(narrow, None, 1, _COUNTED_AT_ONCE):
            found, ordinals = self._ordinals(part.axes, rows)
            offsets = (
                (inner.start - axis.start) // axis.step * row
                for inner, axis, row in zip(part.axes, axes, rows, strict=True)
            )
            positions = found + sum(offsets)
            coordinates = self._coordinates(ordinals)
            inside = np.ones(len(positions), bool)
            for indices, extent in zip(coordinates, self.source_shape, strict=True):
                inside &= indices < extent
            yield from _boxed([each[inside] for each in coordinates], positions[inside])

    def _ordinals(self, axes: tuple[Axis, ...], rows: list[int]) -> tuple[Indices, Indices]:
        """Positions, as `rows` count them, of mapped elements at `axes`; and their ordinals."""
        if isinstance(self.virtual, SpanTree):
            return self.virtual.ordinals(axes, rows)
        lengths = [line.length or 0 for line in self.virtual]
        if self.lengths is not None:
            lengths = self.lengths[0]
        positions = ordinals = np.zeros(1, np.int64)
        for line, length, axis, row in zip(self.virtual, lengths, axes, rows, strict=True):
            along, those = line.ordinals(axis)
            within = those < length
            positions = (positions[:, None] + along[within] * row).reshape(-1)
            ordinals = (ordinals[:, None] * length + those[within]).reshape(-1)
        return positions, ordinals

    def _coordinates(self, ordinals: Indices) -> list[Indices]:
        """Of each dimension of the source, the indices of its `ordinals`-th elements."""
        if isinstance(self.source, SpanTree):
            return self.source.coordinates(ordinals)
        lengths = [line.length or 0 for line in self.source]
        if self.lengths is not None:
            lengths = self.lengths[1]
        found: list[Indices] = []
        for line, length in zip(reversed(self.source), reversed(lengths), strict=True):
            ordinals, along = np.divmod(ordinals, max(1, length))
            found.insert(0, line.indices(along))
        return found


def _narrowed(axis: Axis, bounds: tuple[int, int | None]) -> Axis:
    low, high = bounds
    first = max(0, -((axis.start - low) // axis.step))
    stop = axis.count
    if high is not None:
        stop = min(stop, max(0, -((axis.start - high) // axis.step)))
    return axis.part(first, max(0, stop - first))


def _boxed(coordinates: list[Indices], positions: Indices) -> Iterator[Piece]:
    """Hyperslabs of the source that hold elements in C order, each of them in one."""
    count = len(positions)
    if not count:
        return
    steps = np.ones(count - 1, np.int64)
    if coordinates:
        steps = np.diff(coordinates[-1])
    for leading in coordinates[:-1]:
        steps[np.diff(leading) != 0] = 0
    rough = _roughly(steps) + int(np.count_nonzero(steps == 0)) // 2
    if rough > _FEW_RUNS and rough * _WORTH_READING > count:
        lows = [int(each.min()) for each in coordinates]
        spans = [int(each.max()) - low + 1 for each, low in zip(coordinates, lows, strict=True)]
        if math.prod(spans) <= _COVERED_TIMES * count:
            picked = np.zeros(count, np.int64)
            for each, low, span in zip(coordinates, lows, spans, strict=True):
                picked = picked * span + each - low
            axes = tuple(Axis(low, 1, span) for low, span in zip(lows, spans, strict=True))
            yield Piece(axes, _taken(positions), picked)
            return
        if count > _WORTH_READING:
            half = count // 2
            yield from _boxed([each[:half] for each in coordinates], positions[:half])
            yield from _boxed([each[half:] for each in coordinates], positions[half:])
            return
    for box in _joined(coordinates, steps):
        yield Piece(tuple(box.axes), _taken(positions[box.first : box.stop]))


@dataclass(slots=True)
class _Box:
    """Elements in C order, of which `first` to before `stop` are a hyperslab."""

    axes: list[Axis]
    first: int
    stop: int


def _joined(coordinates: list[Indices], steps: Indices) -> list[_Box]:
    """Runs along the last dimension, and what is the same in a row of them as one."""
    boxes = []
    for first, stop, step in _arithmetic(steps):
        axes = [Axis(int(each[first]), 1, 1) for each in coordinates]
        if axes:
            axes[-1] = Axis(axes[-1].start, step, stop - first)
        boxes.append(_Box(axes, first, stop))
    for dimension in reversed(range(len(coordinates) - 1)):
        joined: list[_Box] = []
        for box in boxes:
            if not joined or not _join(joined[-1], box, dimension):
                joined.append(box)
        boxes = joined
    return boxes


def _join(box: _Box, further: _Box, dimension: int) -> bool:
    """Add the next hyperslab to one that differs from it along one dimension, if it fits."""
    axis, other = box.axes[dimension], further.axes[dimension]
    step = other.start - (axis.start + (axis.count - 1) * axis.step)
    if step < 1 or (axis.count > 1 and step != axis.step):
        return False
    if any(
        one != another
        for i, (one, another) in enumerate(zip(box.axes, further.axes, strict=True))
        if i != dimension
    ):
        return False
    box.axes[dimension] = Axis(axis.start, step, axis.count + 1)
    box.stop = further.stop
    return True
