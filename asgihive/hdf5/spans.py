"""Hyperslab selections that are no regular ones: which indices they hold, in which order; pure.

libhdf5 tells of such a selection as a list of boxes. It makes that list of a tree: spans of
indices along the first dimension, below each of them spans along the second one, and so on
(`H5S_hyper_span_t`). The tree is built again here, each of its subtrees once.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from asgihive.hdf5.selection import Axis

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """Indices along one dimension, in several runs.

    lows, highs: of each run, in ascending order, the first index and the one behind the last.
    before: how many indices there are before each run; one more for all of them.
    """

    lows: Indices
    highs: Indices
    before: Indices

    @classmethod
    def of(cls, lows: Sequence[int], highs: Sequence[int]) -> "Spans":
        """Of runs that neither touch each other in part nor descend.

        Raises:
            ValueError: they do.
        """
        first, behind = np.array(lows, np.int64), np.array(highs, np.int64)
        if not first.size or (behind <= first).any() or (first[1:] < behind[:-1]).any():
            detail = "its spans are not in order"
            raise ValueError(detail)
        return cls(first, behind, _counted((behind - first).tolist()))

    @property
    def start(self) -> int:
        """The first index."""
        return int(self.lows[0])

    @property
    def length(self) -> int:
        """The number of indices."""
        return int(self.before[-1])

    def length_within(self, extent: int) -> int:
        """How many of the indices are below `extent`."""
        run = int(np.searchsorted(self.lows, extent))
        if not run:
            return 0
        return (
            int(self.before[run - 1])
            + min(extent, int(self.highs[run - 1]))
            - int(self.lows[run - 1])
        )

    def extent_of(self, length: int) -> int:
        """The smallest extent that holds the first `length` indices."""
        return int(self.indices(np.array([length - 1]))[0]) + 1 if length else 0

    def indices(self, ordinals: Indices) -> Indices:
        """The `ordinals`-th indices."""
        runs = np.searchsorted(self.before, ordinals, side="right") - 1
        found: Indices = self.lows[runs] + ordinals - self.before[runs]
        return found

    def ordinals(self, axis: Axis) -> tuple[Indices, Indices]:
        """Positions on `axis` whose indices are here, and their ordinals here."""
        positions = positions_within(axis, self.start, int(self.highs[-1]))
        indices = axis.start + positions * axis.step
        runs = np.searchsorted(self.lows, indices, side="right") - 1
        held = indices < self.highs[runs]
        positions, indices, runs = positions[held], indices[held], runs[held]
        return positions, self.before[runs] + indices - self.lows[runs]


def positions_within(axis: Axis, start: int, stop: int | None) -> Indices:
    """The positions on `axis` of indices from `start` to before `stop`."""
    first = max(0, -((axis.start - start) // axis.step))
    last = axis.count
    if stop is not None:
        last = min(last, max(0, -((axis.start - stop) // axis.step)))
    return np.arange(first, max(first, last), dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class _Node:
    """Runs of indices along one dimension; `below` the node of each in the next dimension.

    before: the number of elements before each run.
    size: the number of elements.
    """

    spans: Spans
    below: tuple[int, ...]
    before: Indices
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class _Level:
    """The nodes of one dimension, and the runs of all of them as one list.

    bases: the number of elements before each node, as if one node came behind another.
    starts: the same for each run.
    lows, below: of each run its first index and its node in the next dimension.
    """

    nodes: tuple[_Node, ...]
    bases: Indices
    starts: Indices
    lows: Indices
    below: Indices

    @classmethod
    def of(cls, nodes: Sequence[_Node]) -> Self:
        bases = _counted([node.size for node in nodes])[:-1]
        starts = [base + node.before for base, node in zip(bases, nodes, strict=True)]
        return cls(
            tuple(nodes),
            bases,
            np.concatenate(starts),
            np.concatenate([node.spans.lows for node in nodes]),
            np.array([each for node in nodes for each in node.below], np.int64),
        )


Found = tuple[Indices, Indices]


@dataclass(frozen=True, slots=True, eq=False)
class SpanTree:
    """Elements that are boxes in several dimensions, in C order.

    levels: of each dimension, the nodes that differ; the first dimension has one.
    """

    levels: tuple[_Level, ...]

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.levels[0].nodes[0].size

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """Of each dimension, the first index and the one behind the last."""
        return [
            (
                min(node.spans.start for node in level.nodes),
                max(int(node.spans.highs[-1]) for node in level.nodes),
            )
            for level in self.levels
        ]

    @property
    def lines(self) -> tuple[Spans, ...] | None:
        """The indices of each dimension, if every combination of them is an element."""
        if any(len(level.nodes) > 1 for level in self.levels):
            return None
        return tuple(level.nodes[0].spans for level in self.levels)

    def ordinals(self, axes: tuple[Axis, ...], rows: Sequence[int]) -> Found:
        """Positions of elements at `axes` that are here, in C order, and their ordinals.

        Args:
            rows: by how much a step along each dimension moves the position.
        """
        known: dict[tuple[int, int], Found] = {}

        def of(depth: int, number: int) -> Found:
            found = known.get((depth, number))
            if found is None:
                found = self._ordinals_of(depth, number, axes[depth], rows[depth], of)
                known[depth, number] = found
            return found

        return of(0, 0)

    def _ordinals_of(
        self, depth: int, number: int, axis: Axis, row: int, of: Callable[[int, int], Found]
    ) -> Found:
        node = self.levels[depth].nodes[number]
        positions, ordinals = node.spans.ordinals(axis)
        if not node.below or not len(positions):
            return positions, ordinals
        runs = np.searchsorted(node.spans.before, ordinals, side="right") - 1
        targets: list[Indices] = []
        found: list[Indices] = []
        cuts = [0, *(np.flatnonzero(np.diff(runs)) + 1).tolist(), len(runs)]
        for start, stop in itertools.pairwise(cuts):
            run = int(runs[start])
            below = node.below[run]
            inner, inner_ordinals = of(depth + 1, below)
            lines = ordinals[start:stop] - node.spans.before[run]
            first = node.before[run] + lines * self.levels[depth + 1].nodes[below].size
            targets.append((positions[start:stop, None] * row + inner).reshape(-1))
            found.append((first[:, None] + inner_ordinals).reshape(-1))
        return np.concatenate(targets), np.concatenate(found)

    def coordinates(self, ordinals: Indices) -> list[Indices]:
        """Of each dimension, the indices of the `ordinals`-th elements."""
        found = []
        nodes, rest = np.zeros(len(ordinals), np.int64), ordinals
        for level, deeper in zip(self.levels, (*self.levels[1:], None), strict=True):
            wanted = level.bases[nodes] + rest
            runs = np.searchsorted(level.starts, wanted, side="right") - 1
            within = wanted - level.starts[runs]
            if deeper is None:
                found.append(level.lows[runs] + within)
                break
            nodes = level.below[runs]
            sizes = np.array([node.size for node in deeper.nodes], np.int64)
            rows, rest = np.divmod(within, sizes[nodes])
            found.append(level.lows[runs] + rows)
        return found


# More elements, of all nodes of a dimension together, are not counted in 64 bits.
_MOST_ELEMENTS = 2**63 - 1


def span_tree(boxes: npt.NDArray[np.unsignedinteger]) -> SpanTree:
    """The tree of disjoint boxes in the order of libhdf5.

    Args:
        boxes: of shape (number, 2, rank): of each its first and its last element
            (`H5Sget_select_hyper_blocklist`).

    Raises:
        ValueError: they are in another order, or overlap, or are too large.
    """
    if (boxes > _MOST_ELEMENTS - 1).any():
        detail = "a box of it ends beyond 63 bits"
        raise ValueError(detail)
    signed = boxes.astype(np.int64)
    builder = _Builder(signed[:, 0], signed[:, 1] + 1)
    builder.build(0, 0, len(boxes))
    return SpanTree(tuple(map(_Level.of, builder.levels)))


class _Builder:
    def __init__(self, lows: Indices, highs: Indices) -> None:
        rank = lows.shape[1]
        self.levels: list[list[_Node]] = [[] for _ in range(rank)]
        self._known: list[dict[object, int]] = [{} for _ in range(rank)]
        self._totals = [0] * rank
        self._lows, self._highs = lows, highs

    def build(self, depth: int, first: int, stop: int) -> int:
        """The number of the node, at its level, of the boxes `first` to before `stop`."""
        lows, highs = self._lows[first:stop, depth], self._highs[first:stop, depth]
        if depth == len(self.levels) - 1:
            return self._put(depth, Spans.of(lows.tolist(), highs.tolist()), ())
        cuts = np.flatnonzero((np.diff(lows) != 0) | (np.diff(highs) != 0)) + 1
        starts = [0, *cuts.tolist()]
        stops = [*cuts.tolist(), stop - first]
        below = [
            self.build(depth + 1, first + start, first + end)
            for start, end in zip(starts, stops, strict=True)
        ]
        spans = Spans.of(lows[starts].tolist(), highs[starts].tolist())
        return self._put(depth, *_joined(spans, below))

    def _put(self, depth: int, spans: Spans, below: tuple[int, ...]) -> int:
        key = (spans.lows.tobytes(), spans.highs.tobytes(), below)
        number = self._known[depth].get(key)
        if number is None:
            number = self._known[depth][key] = len(self.levels[depth])
            sizes = [1] * len(spans.lows)
            if below:
                sizes = [self.levels[depth + 1][each].size for each in below]
            lengths = (spans.highs - spans.lows).tolist()
            counts = [length * size for length, size in zip(lengths, sizes, strict=True)]
            total = sum(counts)
            self._totals[depth] += total
            if self._totals[depth] > _MOST_ELEMENTS:
                detail = "it holds more elements than 63 bits count"
                raise ValueError(detail)
            self.levels[depth].append(_Node(spans, below, _counted(counts)[:-1], total))
        return number


def _joined(spans: Spans, below: list[int]) -> tuple[Spans, tuple[int, ...]]:
    """With runs that touch and have the same below them as one."""
    lows: list[int] = []
    highs: list[int] = []
    kept: list[int] = []
    for low, high, each in zip(spans.lows.tolist(), spans.highs.tolist(), below, strict=True):
        if kept and kept[-1] == each and highs[-1] == low:
            highs[-1] = high
        else:
            lows.append(low)
            highs.append(high)
            kept.append(each)
    return Spans.of(lows, highs), tuple(kept)


def _counted(counts: list[int]) -> Indices:
    """The sum of those before each, and of all."""
    return np.cumsum(np.array([0, *counts], np.int64))
