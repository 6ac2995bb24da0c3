"""The mappings of virtual datasets, as their creation properties name them; pure.

A mapping pairs two hyperslab selections with equally many elements, one of the virtual
dataset's dataspace and one of the source's, element by element in C order (HDF5 Reference
Manual, H5Pset_virtual).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from asgihive.hdf5.selection import Axis
from asgihive.hdf5.spans import Indices, Spans, SpanTree, positions_within

# Indices and numbers of elements are counted in 64 bits with a sign.
_LARGEST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Slab:
    """A regular hyperslab selection along one dimension; `count` None = unlimited."""

    start: int
    stride: int
    count: int | None
    block: int

    @property
    def length(self) -> int | None:
        """The number of selected indices, None when unlimited."""
        return None if self.count is None else self.count * self.block

    def length_within(self, extent: int) -> int:
        """How many of the selected indices are below `extent`."""
        beyond = max(0, extent - self.start)
        blocks, rest = divmod(beyond, self.stride)
        length = blocks * self.block + min(rest, self.block)
        return length if self.count is None else min(length, self.count * self.block)

    def extent_of(self, length: int) -> int:
        """The smallest extent that holds the first `length` selected indices."""
        if not length:
            return 0
        blocks, rest = divmod(length - 1, self.block)
        return self.start + blocks * self.stride + rest + 1

    def indices(self, ordinals: Indices) -> Indices:
        """The dataset's indices of the selection's `ordinals`-th elements."""
        blocks, rest = np.divmod(ordinals, self.block)
        found: Indices = self.start + blocks * self.stride + rest
        return found

    def ordinals(self, axis: Axis) -> tuple[Indices, Indices]:
        """Positions on `axis` whose indices are selected, and their ordinals here."""
        stop = None if self.length is None else self.extent_of(self.length)
        positions = positions_within(axis, self.start, stop)
        blocks, rest = np.divmod(axis.start + positions * axis.step - self.start, self.stride)
        selected = rest < self.block
        return positions[selected], (blocks * self.block + rest)[selected]

    def nth_block(self, number: int) -> "Slab":
        """The `number`-th block alone."""
        return Slab(self.start + number * self.stride, self.block, 1, self.block)

    def blocks_at(self, axis: Axis) -> Iterator[int]:
        """The numbers of the blocks of which indices lie on `axis`, one after another."""
        known = -1
        position = max(0, -((axis.start - self.start) // axis.step))
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


# The selected indices of one dimension.
Line = Slab | Spans

# A selection: all combinations of indices of each dimension, or a tree of boxes.
Pattern = tuple[Line, ...] | SpanTree


def bounds_of(pattern: Pattern) -> list[tuple[int, int | None]]:
    """Of each dimension, the first index and the one behind the last; None = unlimited."""
    if isinstance(pattern, SpanTree):
        return [(low, high) for low, high in pattern.bounds]
    return [
        (line.start, None if line.length is None else line.extent_of(line.length))
        for line in pattern
    ]


@dataclass(frozen=True, slots=True)
class Mapping:
    """One source of a virtual dataset, as the creation properties name it.

    source: the selection in the source; None = all of it, whatever its extent is by then.
    """

    file: str
    dataset: str
    virtual: Pattern
    source: Pattern | None

    @property
    def unlimited_axis(self) -> int | None:
        """The dimension of the virtual dataset along which the mapping is unlimited."""
        return unlimited_axis_of(self.virtual)

    @property
    def numbered(self) -> bool:
        """Whether each block along the unlimited axis has a source of its own, named by `%b`."""
        names_number = "%b" in self.file.replace("%%", "") or "%b" in self.dataset.replace("%%", "")
        return (
            names_number
            and self.unlimited_axis is not None
            and (self.source is None or unlimited_axis_of(self.source) is None)
        )

    def touches(self, axes: tuple[Axis, ...]) -> bool:
        """False when all elements at `axes` certainly lie in gaps of the selection."""
        if isinstance(self.virtual, SpanTree):
            return True
        return all(map(_is_hit, self.virtual, axes))

    def of_one_source(self) -> "Mapping":
        """The mapping of the source whose names have no number."""
        if "%%" not in self.file and "%%" not in self.dataset:
            return self
        file, dataset = self.file.replace("%%", "%"), self.dataset.replace("%%", "%")
        return replace(self, file=file, dataset=dataset)

    @property
    def source_rank(self) -> int | None:
        """The number of dimensions that the source must have; None = any."""
        if isinstance(self.source, SpanTree):
            return len(self.source.levels)
        return None if self.source is None else len(self.source)

    def of_block(self, number: int) -> "Mapping":
        """The mapping of the source that `%b` = `number` names."""
        axis = self.unlimited_axis
        virtual = tuple(
            line.nth_block(number) if i == axis and isinstance(line, Slab) else line
            for i, line in enumerate(() if isinstance(self.virtual, SpanTree) else self.virtual)
        )
        return Mapping(
            _named(self.file, number), _named(self.dataset, number), virtual, self.source
        )

    def expanded(self, axes: tuple[Axis, ...]) -> Iterator["Mapping"]:
        """With its sources' real names: one, or one for each block that `axes` touch."""
        unlimited = self.unlimited_axis
        line = None
        if unlimited is not None and self.numbered and not isinstance(self.virtual, SpanTree):
            line = self.virtual[unlimited]
        if unlimited is None or not isinstance(line, Slab):
            yield self.of_one_source()
            return
        for number in line.blocks_at(axes[unlimited]):
            yield self.of_block(number)


def is_empty(pattern: Pattern) -> bool:
    """Whether a selection holds nothing."""
    return not isinstance(pattern, SpanTree) and any(line.length == 0 for line in pattern)


def unlimited_axis_of(pattern: Pattern) -> int | None:
    """The dimension along which a selection is unlimited."""
    if isinstance(pattern, SpanTree):
        return None
    return next((i for i, line in enumerate(pattern) if line.length is None), None)


# Indices that are looked at one by one to tell whether a selection with gaps holds any.
_LOOKED_AT = 4096


def _is_hit(line: Line, axis: Axis) -> bool:
    """False when certainly no index on `axis` is selected, for the gaps there are."""
    if isinstance(line, Slab) and line.stride == line.block:
        return True
    if axis.step == 1:
        return line.length_within(axis.stop) > line.length_within(axis.start)
    return axis.count > _LOOKED_AT or bool(len(line.ordinals(axis)[0]))


def _named(template: str, number: int) -> str:
    """`%b` is the block's number and `%%` a percent sign (H5Pset_virtual)."""
    parts = (part.replace("%b", str(number)) for part in template.split("%%"))
    return "%".join(parts)


def slabs_of(regular: tuple[Any, ...], unlimited: int) -> tuple[Slab, ...]:
    """From HDF5's `(start, stride, count, block)`, each one value per dimension.

    Raises:
        ValueError: they are none of a selection, or end beyond 63 bits.
    """
    return tuple(
        _slab_of(start, stride, count, block, unlimited)
        for start, stride, count, block in zip(*regular, strict=True)
    )


def _slab_of(start: int, stride: int, count: int, block: int, unlimited: int) -> Slab:
    if block == unlimited:
        # One block without end holds the indices that unlimited blocks of one index hold.
        stride, count, block = 1, unlimited, 1
    elif count == 1:
        # The stride of a single block means nothing, and may be shorter than the block.
        stride = block
    last = start + block
    if count != unlimited:
        last += max(0, count - 1) * stride
    if start < 0 or block < 1 or stride < block or count < 1 or max(last, stride) > _LARGEST:
        detail = f"({start}, {stride}, {count}, {block}) is no hyperslab"
        raise ValueError(detail)
    return Slab(start, stride, None if count == unlimited else count, block)
