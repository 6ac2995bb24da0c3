"""The mappings of virtual datasets: which of a source's elements lie where; pure.

A mapping pairs two hyperslab selections with equally many elements, one of the virtual
dataset's dataspace and one of the source's, element by element in C order (HDF5 Reference
Manual, H5Pset_virtual).
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from asgihive.hdf5.selection import Axis

Indices = npt.NDArray[np.int64]


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
        positions = np.arange(axis.count, dtype=np.int64)
        blocks, rest = np.divmod(axis.start + positions * axis.step - self.start, self.stride)
        selected = (blocks >= 0) & (rest < self.block)
        if self.count is not None:
            selected &= blocks < self.count
        return positions[selected], (blocks * self.block + rest)[selected]

    def nth_block(self, number: int) -> "Slab":
        """The `number`-th block alone."""
        return Slab(self.start + number * self.stride, self.block, 1, self.block)


@dataclass(frozen=True, slots=True)
class Mapping:
    """One source of a virtual dataset, as the creation properties name it.

    source: the selection in the source; None = all of it, whatever its extent is by then.
    """

    file: str
    dataset: str
    virtual: tuple[Slab, ...]
    source: tuple[Slab, ...] | None

    @property
    def unlimited_axis(self) -> int | None:
        """The dimension of the virtual dataset along which the mapping is unlimited."""
        return next((i for i, slab in enumerate(self.virtual) if slab.count is None), None)

    @property
    def numbered(self) -> bool:
        """Whether each block along the unlimited axis has a source of its own, named by `%b`."""
        names_number = "%b" in self.file.replace("%%", "") or "%b" in self.dataset.replace("%%", "")
        limited_source = all(slab.count is not None for slab in self.source or ())
        return self.unlimited_axis is not None and limited_source and names_number

    def of_one_source(self) -> "Mapping":
        """The mapping of the source whose names have no number."""
        file, dataset = self.file.replace("%%", "%"), self.dataset.replace("%%", "%")
        return Mapping(file, dataset, self.virtual, self.source)

    def of_block(self, number: int) -> "Mapping":
        """The mapping of the source that `%b` = `number` names."""
        axis = self.unlimited_axis
        virtual = tuple(
            slab.nth_block(number) if i == axis else slab for i, slab in enumerate(self.virtual)
        )
        return Mapping(
            _named(self.file, number), _named(self.dataset, number), virtual, self.source
        )

    def fits(self, source_shape: tuple[int, ...]) -> bool:
        """Whether a source of this extent has the rank that the mapping takes it to have."""
        return self.source is None or len(self.source) == len(source_shape)

    def touches(self, axes: tuple[Axis, ...]) -> bool:
        """False when certainly none of the elements at `axes` is mapped."""
        return all(
            axis.stop > slab.start
            and (slab.count is None or axis.start < slab.extent_of(slab.count * slab.block))
            for slab, axis in zip(self.virtual, axes, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Piece:
    """Elements that form a regular hyperslab both in the source and in the answer's block."""

    axes: tuple[Axis, ...]
    target: tuple[slice, ...]


class Scattered(Exception):  # translated at once by the reader
    """The two selections differ so much in shape that no hyperslabs describe their pairing."""


def pieces(
    mapping: Mapping, axes: tuple[Axis, ...], source_shape: tuple[int, ...]
) -> Iterator[Piece]:
    """What to read of a source of `source_shape` for the virtual dataset's elements at `axes`.

    Elements that the source's extent does not reach are left out: they stay fill values.

    Raises:
        Scattered
    """
    source = _whole(source_shape) if mapping.source is None else mapping.source
    pairs = _paired_dimensions(mapping.virtual, source)
    runs: list[list[tuple[Axis, slice]]] = [[(Axis(0, 1, 1), slice(0, 1))] for _ in source_shape]
    targets: list[int | None] = [None] * len(source_shape)
    fixed: dict[int, slice] = {}
    for virtual_dimension, source_dimension in pairs:
        positions, ordinals = mapping.virtual[virtual_dimension].ordinals(axes[virtual_dimension])
        if source_dimension is None:
            if not len(positions):
                return
            fixed[virtual_dimension] = slice(int(positions[0]), int(positions[0]) + 1)
            continue
        slab, extent = source[source_dimension], source_shape[source_dimension]
        within = ordinals < slab.length_within(extent)
        runs[source_dimension] = list(_runs(slab.indices(ordinals[within]), positions[within]))
        targets[source_dimension] = virtual_dimension
    for dimension, single in enumerate(source):
        if targets[dimension] is None:
            if single.start >= source_shape[dimension]:
                return
            runs[dimension] = [(Axis(single.start, 1, 1), slice(0, 1))]
    for combination in itertools.product(*runs):
        target = dict(fixed)
        for (_, where), mapped in zip(combination, targets, strict=True):
            if mapped is not None:
                target[mapped] = where
        yield Piece(
            tuple(axis for axis, _ in combination), tuple(target[i] for i in range(len(axes)))
        )


def _whole(shape: tuple[int, ...]) -> tuple[Slab, ...]:
    return tuple(Slab(0, extent, 1, extent) for extent in shape)


def _paired_dimensions(
    virtual: tuple[Slab, ...], source: tuple[Slab, ...]
) -> list[tuple[int, int | None]]:
    """Virtual dimension → source dimension; None for one of length 1 that the source lacks.

    Dimensions of length 1 change nothing about C order, so they pair with nothing.
    """
    longer = [i for i, slab in enumerate(virtual) if slab.length != 1]
    partners = [i for i, slab in enumerate(source) if slab.length != 1]
    if [virtual[i].length for i in longer] != [source[i].length for i in partners]:
        raise Scattered
    partner = dict(zip(longer, partners, strict=True))
    return [(i, partner.get(i)) for i in range(len(virtual))]


def _runs(indices: Indices, positions: Indices) -> Iterator[tuple[Axis, slice]]:
    """Cut both ascending sequences where the step of either changes."""
    steps = np.stack([np.diff(indices), np.diff(positions)])
    changes = np.flatnonzero((steps[:, 1:] != steps[:, :-1]).any(axis=0)) + 1
    first = 0
    while first < len(indices):
        step, stride, last = 1, 1, first
        if first + 1 < len(indices):
            step, stride = (int(each) for each in steps[:, first])
            after = int(np.searchsorted(changes, first, side="right"))
            last = int(changes[after]) if after < len(changes) else len(indices) - 1
        start = int(positions[first])
        where = slice(start, start + (last - first) * stride + 1, stride)
        yield Axis(int(indices[first]), step, last - first + 1), where
        first = last + 1


def _named(template: str, number: int) -> str:
    """`%b` is the block's number and `%%` a percent sign (H5Pset_virtual)."""
    parts = (part.replace("%b", str(number)) for part in template.split("%%"))
    return "%".join(parts)


def slabs_of(regular: tuple[Any, ...], unlimited: int) -> tuple[Slab, ...]:
    """From HDF5's `(start, stride, count, block)`, each one value per dimension."""
    return tuple(
        # The stride of a single block means nothing, and may be shorter than the block.
        Slab(start, block if count == 1 else stride, None if count == unlimited else count, block)
        for start, stride, count, block in zip(*regular, strict=True)
    )
