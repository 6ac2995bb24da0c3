"""Hyperslab selections of virtual mappings: which indices they hold, in which order; pure.

A hyperslab is all combinations of the indices of each dimension, or a tree of boxes. libhdf5 tells
of the latter as a list of boxes, which it makes of a tree: spans of indices along the first
dimension, below each of them spans along the second one, and so on (`H5S_hyper_span_t`). The tree
is built again here, each of its subtrees once.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from asgihive.hdf5.plan import Axis

Indices = npt.NDArray[np.int64]

# Indices and numbers of elements are counted in 64 bits with a sign.
MAX_COUNT = 2**63 - 1

# Indices that are looked at one by one to tell whether a selection with gaps holds any.
_MAX_LOOKED_AT = 4096


@dataclass(frozen=True, slots=True)
class RegularIndices:
    """Selected indices of one dimension: `count` blocks of `block` indices, `stride` apart."""

    start: int
    stride: int
    count: int | None
    """None = unlimited."""
    block: int

    @property
    def length(self) -> int | None:
        """The number of selected indices, None when unlimited."""
        return None if self.count is None else self.count * self.block

    def count_below(self, extent: int) -> int:
        """Return how many of the selected indices are below `extent`."""
        blocks, rest = divmod(max(0, extent - self.start), self.stride)
        length = blocks * self.block + min(rest, self.block)
        return length if self.count is None else min(length, self.count * self.block)

    def find_extent(self, length: int) -> int:
        """Return the smallest extent that holds the first `length` selected indices."""
        if not length:
            return 0
        blocks, rest = divmod(length - 1, self.block)
        return self.start + blocks * self.stride + rest + 1

    def find_indices(self, ordinals: Indices) -> Indices:
        """Return the dataset's indices of the selection's `ordinals`-th elements."""
        blocks, rest = np.divmod(ordinals, self.block)
        found: Indices = self.start + blocks * self.stride + rest
        return found

    def find_ordinals(self, axis: Axis) -> tuple[Indices, Indices]:
        """Return positions on `axis` whose indices are selected, and their ordinals here."""
        stop = None if self.length is None else self.find_extent(self.length)
        positions = np.arange(*find_positions(axis, self.start, stop), dtype=np.int64)
        blocks, rest = np.divmod(axis.start + positions * axis.step - self.start, self.stride)
        selected = rest < self.block
        return positions[selected], (blocks * self.block + rest)[selected]

    def select_block(self, number: int) -> "RegularIndices":
        """Return the `number`-th block alone."""
        return RegularIndices(self.start + number * self.stride, self.block, 1, self.block)

    def find_blocks(self, axis: Axis) -> Iterator[int]:
        """Yield the numbers of the blocks that have indices on `axis`."""
        known = -1
        position, _ = find_positions(axis, self.start, None)
        while position < axis.count:
            index = axis.start + position * axis.step
            number, rest = divmod(index - self.start, self.stride)
            if self.count is not None and number >= self.count:
                return
            if rest < self.block and number != known:
                known = number
                yield number
            # To the first index that may be in the next block.
            further = self.start + (number + 1) * self.stride - index
            position += -(-further // axis.step)


@dataclass(frozen=True, slots=True, eq=False)
class IndexRuns:
    """Selected indices of one dimension, in several runs."""

    lows: Indices
    """The first index of each run, in ascending order."""
    highs: Indices
    """The index behind the last one of each run."""
    before: Indices
    """How many indices there are before each run; one more for all of them."""

    @classmethod
    def of(cls, lows: Sequence[int], highs: Sequence[int]) -> Self:
        """Return runs that neither overlap nor descend.

        Raises:
            ValueError: they do.
        """
        first, behind = np.array(lows, np.int64), np.array(highs, np.int64)
        if not first.size or (behind <= first).any() or (first[1:] < behind[:-1]).any():
            detail = "its spans are not in order"
            raise ValueError(detail)
        return cls(first, behind, _count_before((behind - first).tolist()))

    @property
    def start(self) -> int:
        """The first index."""
        return int(self.lows[0])

    @property
    def length(self) -> int:
        """The number of indices."""
        return int(self.before[-1])

    def count_below(self, extent: int) -> int:
        """Return how many of the indices are below `extent`."""
        run = int(np.searchsorted(self.lows, extent)) - 1
        if run < 0:
            return 0
        return int(self.before[run] + min(extent, self.highs[run]) - self.lows[run])

    def find_extent(self, length: int) -> int:
        """Return the smallest extent that holds the first `length` indices."""
        return int(self.find_indices(np.array([length - 1]))[0]) + 1 if length else 0

    def find_indices(self, ordinals: Indices) -> Indices:
        """Return the `ordinals`-th indices."""
        runs = np.searchsorted(self.before, ordinals, side="right") - 1
        found: Indices = self.lows[runs] + ordinals - self.before[runs]
        return found

    def find_ordinals(self, axis: Axis) -> tuple[Indices, Indices]:
        """Return positions on `axis` whose indices are here, and their ordinals here."""
        within = find_positions(axis, self.start, int(self.highs[-1]))
        positions = np.arange(*within, dtype=np.int64)
        indices = axis.start + positions * axis.step
        runs = np.searchsorted(self.lows, indices, side="right") - 1
        held = indices < self.highs[runs]
        positions, indices, runs = positions[held], indices[held], runs[held]
        return positions, self.before[runs] + indices - self.lows[runs]


AxisIndices = RegularIndices | IndexRuns


def find_positions(axis: Axis, start: int, stop: int | None) -> tuple[int, int]:
    """Return the first position on `axis` of an index from `start` to before `stop`, and the end.

    The latter is not before the former.
    """
    first = max(0, -((axis.start - start) // axis.step))
    last = axis.count
    if stop is not None:
        last = min(last, -((axis.start - stop) // axis.step))
    return first, max(first, last)


def may_hold_any(line: AxisIndices, axis: Axis) -> bool:
    """Return False when certainly no index on `axis` is selected, because of gaps."""
    if isinstance(line, RegularIndices) and line.stride == line.block:
        return True
    if axis.step == 1:
        return line.count_below(axis.stop) > line.count_below(axis.start)
    return axis.count > _MAX_LOOKED_AT or bool(len(line.find_ordinals(axis)[0]))


def parse_regular(regular: tuple[Any, ...], unlimited: int) -> tuple[RegularIndices, ...]:
    """Return what HDF5's `(start, stride, count, block)`, each with one value per dimension, says.

    Raises:
        ValueError: they are none of a selection, or end beyond 63 bits.
    """
    found = []
    for start, stride, count, block in zip(*regular, strict=True):
        given = (start, stride, count, block)
        if block == unlimited:
            # One block without end holds the indices that unlimited blocks of one index hold.
            stride, count, block = 1, unlimited, 1  # noqa: PLW2901
        elif count == 1:
            # The stride of a single block means nothing, and may be shorter than the block.
            stride = block  # noqa: PLW2901
        last = start + block
        if count != unlimited:
            last += max(0, count - 1) * stride
        if start < 0 or block < 1 or stride < block or count < 1 or max(last, stride) > MAX_COUNT:
            detail = f"{given} is no hyperslab"
            raise ValueError(detail)
        found.append(RegularIndices(start, stride, None if count == unlimited else count, block))
    return tuple(found)


@dataclass(frozen=True, slots=True, eq=False)
class _SpanNode:
    """Runs of indices along one dimension."""

    runs: IndexRuns
    below: tuple[int, ...]
    """The node of each run in the next dimension; empty in the last one."""
    before: Indices
    """The number of elements before each run."""
    size: int
    """The number of elements."""


@dataclass(frozen=True, slots=True, eq=False)
class _SpanLevel:
    """The nodes of one dimension, and the runs of all of them as one list."""

    nodes: tuple[_SpanNode, ...]
    bases: Indices
    """The number of elements before each node, as if one node came behind another."""
    starts: Indices
    """The same for each run."""
    lows: Indices
    below: Indices

    @classmethod
    def of(cls, nodes: Sequence[_SpanNode]) -> Self:
        bases = _count_before([node.size for node in nodes])[:-1]
        return cls(
            tuple(nodes),
            bases,
            np.concatenate([base + node.before for base, node in zip(bases, nodes, strict=True)]),
            np.concatenate([node.runs.lows for node in nodes]),
            np.array([each for node in nodes for each in node.below], np.int64),
        )


@dataclass(frozen=True, slots=True, eq=False)
class SpanTree:
    """Elements that are boxes in several dimensions, in C order."""

    levels: tuple[_SpanLevel, ...]
    """The nodes of each dimension that differ; the first dimension has one."""

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.levels[0].nodes[0].size

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """Of each dimension, the first index and the one behind the last."""
        return [
            (
                int(level.lows.min()),
                max(int(node.runs.highs[-1]) for node in level.nodes),
            )
            for level in self.levels
        ]

    def find_ordinals(self, axes: tuple[Axis, ...], rows: Sequence[int]) -> tuple[Indices, Indices]:
        """Return positions of elements at `axes` that are here, in C order, and their ordinals.

        Args:
            axes: one per dimension.
            rows: by how much a step along each dimension moves the position.
        """
        known: dict[tuple[int, int], tuple[Indices, Indices]] = {}

        def find(depth: int, number: int) -> tuple[Indices, Indices]:
            if (depth, number) not in known:
                node = self.levels[depth].nodes[number]
                positions, ordinals = node.runs.find_ordinals(axes[depth])
                if node.below and len(positions):
                    positions, ordinals = combine(depth, node, positions, ordinals)
                known[depth, number] = positions, ordinals
            return known[depth, number]

        def combine(
            depth: int, node: _SpanNode, positions: Indices, ordinals: Indices
        ) -> tuple[Indices, Indices]:
            targets, found = [], []
            runs = np.searchsorted(node.runs.before, ordinals, side="right") - 1
            cuts = [0, *(np.flatnonzero(np.diff(runs)) + 1).tolist(), len(runs)]
            for start, stop in itertools.pairwise(cuts):
                run = int(runs[start])
                inner, inner_ordinals = find(depth + 1, node.below[run])
                size = self.levels[depth + 1].nodes[node.below[run]].size
                first = node.before[run] + (ordinals[start:stop] - node.runs.before[run]) * size
                targets.append((positions[start:stop, None] * rows[depth] + inner).reshape(-1))
                found.append((first[:, None] + inner_ordinals).reshape(-1))
            return np.concatenate(targets), np.concatenate(found)

        return find(0, 0)

    def find_coordinates(self, ordinals: Indices) -> list[Indices]:
        """Return, of each dimension, the indices of the `ordinals`-th elements."""
        found = []
        nodes, rest = np.zeros(len(ordinals), np.int64), ordinals
        for level, deeper in zip(self.levels, (*self.levels[1:], None), strict=True):
            wanted = level.bases[nodes] + rest
            runs = np.searchsorted(level.starts, wanted, side="right") - 1
            along = wanted - level.starts[runs]
            if deeper is not None:
                nodes = level.below[runs]
                sizes = np.array([node.size for node in deeper.nodes], np.int64)
                along, rest = np.divmod(along, sizes[nodes])
            found.append(level.lows[runs] + along)
        return found


Hyperslab = tuple[AxisIndices, ...] | SpanTree


def find_bounds(hyperslab: Hyperslab) -> list[tuple[int, int | None]]:
    """Return, of each dimension, the first index and the one behind the last; None = unlimited."""
    if isinstance(hyperslab, SpanTree):
        return [(low, high) for low, high in hyperslab.bounds]
    return [
        (line.start, None if line.length is None else line.find_extent(line.length))
        for line in hyperslab
    ]


def find_unlimited_axis(hyperslab: Hyperslab) -> int | None:
    """Return the dimension along which a selection is unlimited."""
    if isinstance(hyperslab, SpanTree):
        return None
    return next((i for i, line in enumerate(hyperslab) if line.length is None), None)


def build_irregular(boxes: npt.NDArray[np.unsignedinteger]) -> Hyperslab:
    """Return the selection of disjoint boxes, which are in the order of libhdf5.

    Args:
        boxes: of shape (number, 2, rank): of each its first and its last element
            (`H5Sget_select_hyper_blocklist`).

    Returns:
        The indices of each dimension, if every combination of them is an element; else a tree.

    Raises:
        ValueError: they are in another order, or overlap, or are too large.
    """
    if (boxes > MAX_COUNT - 1).any():
        detail = "a box of it ends beyond 63 bits"
        raise ValueError(detail)
    signed = boxes.astype(np.int64)
    all_lows, all_highs = signed[:, 0], signed[:, 1] + 1
    rank = signed.shape[2]
    levels: list[list[_SpanNode]] = [[] for _ in range(rank)]
    known: list[dict[object, int]] = [{} for _ in range(rank)]
    totals = [0] * rank

    def build(depth: int, first: int, stop: int) -> int:
        """Return the number of the node, at its level, of the boxes `first` to before `stop`."""
        lows, highs = all_lows[first:stop, depth], all_highs[first:stop, depth]
        cuts = [0, *range(1, stop - first)]
        if depth < rank - 1:
            cuts = [0, *(np.flatnonzero(np.diff(lows) | np.diff(highs)) + 1).tolist()]
        below: list[int] = []
        if depth < rank - 1:
            for start, end in itertools.pairwise([*cuts, stop - first]):
                below.append(build(depth + 1, first + start, first + end))
        runs = IndexRuns.of(lows[cuts].tolist(), highs[cuts].tolist())
        if below:
            runs, below = _join_runs(runs, below)
        key = (runs.lows.tobytes(), runs.highs.tobytes(), *below)
        if key not in known[depth]:
            sizes = [levels[depth + 1][each].size for each in below] or [1] * len(runs.lows)
            lengths = (runs.highs - runs.lows).tolist()
            counts = [length * size for length, size in zip(lengths, sizes, strict=True)]
            # Of all nodes of a dimension together.
            totals[depth] += sum(counts)
            if totals[depth] > MAX_COUNT:
                detail = "it holds more elements than 63 bits count"
                raise ValueError(detail)
            known[depth][key] = len(levels[depth])
            before = _count_before(counts)[:-1]
            levels[depth].append(_SpanNode(runs, tuple(below), before, sum(counts)))
        return known[depth][key]

    build(0, 0, len(boxes))
    if all(len(nodes) == 1 for nodes in levels):
        return tuple(nodes[0].runs for nodes in levels)
    return SpanTree(tuple(map(_SpanLevel.of, levels)))


def _join_runs(runs: IndexRuns, below: list[int]) -> tuple[IndexRuns, list[int]]:
    """Return runs that touch and have the same node below them as one."""
    lows: list[int] = []
    highs: list[int] = []
    kept: list[int] = []
    for low, high, each in zip(runs.lows.tolist(), runs.highs.tolist(), below, strict=True):
        if kept and kept[-1] == each and highs[-1] == low:
            highs[-1] = high
        else:
            lows.append(low)
            highs.append(high)
            kept.append(each)
    return IndexRuns.of(lows, highs), kept


def _count_before(counts: list[int]) -> Indices:
    """Return the sum of those before each, and of all."""
    return np.cumsum(np.array([0, *counts], np.int64))
