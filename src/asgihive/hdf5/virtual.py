"""Virtual datasets, put together here, because libhdf5 would open sources anywhere.

libhdf5 opens the sources of a virtual dataset when its values are read and, if a mapping is
unlimited, already when its extent is asked for; and it looks for them at absolute paths and
in the current directory. So neither is left to it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from h5py import h5d, h5p, h5s, h5t

from asgihive.hdf5.mapping import Mapping, Piece, Scattered, Slab, pieces, slabs_of
from asgihive.hdf5.selection import Axis
from asgihive.hdf5.types import NoEquivalent

# Blocks of a numbered (`%b`) mapping that are looked for, one file each.
MAX_NUMBERED_SOURCES = 100_000


class HasShape(Protocol):
    """What the extent of a virtual dataset needs of one it is made of."""

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Its extent; None = empty dataspace."""


# Opens (file, dataset) as named in a mapping; None where there is nothing to read.
SourceOpener = Callable[[str, str], HasShape | None]


@dataclass(frozen=True, slots=True)
class VirtualLayout:
    """The mappings of a virtual dataset and its extent as last written; () without mappings."""

    mappings: tuple[Mapping, ...]
    written_shape: tuple[int, ...]

    @property
    def grows(self) -> bool:
        """Whether its extent depends on its sources."""
        return any(each.unlimited_axis is not None for each in self.mappings)

    def shape(self, open_source: SourceOpener) -> tuple[int, ...]:
        """The extent now: along an unlimited dimension, as far as the farthest source reaches.

        That is HDF5's default view, H5D_VDS_LAST_AVAILABLE with a printf gap of 0.
        """
        shape = list(self.written_shape)
        growing = {axis for each in self.mappings if (axis := each.unlimited_axis) is not None}
        for axis in growing:
            shape[axis] = max(_reach(each, axis, open_source) for each in self.mappings)
        return tuple(shape)


def virtual_layout(properties: h5p.PropDCID) -> VirtualLayout:
    """Read the mappings; opens nothing.

    Raises:
        NoEquivalent: a mapping's selection is no regular hyperslab.
    """
    mappings = []
    shape: tuple[int, ...] = ()
    for number in range(properties.get_virtual_count()):
        space = properties.get_virtual_vspace(number)
        source_space = properties.get_virtual_srcspace(number)
        virtual, source = _slabs(space), _source_slabs(source_space)
        shape = space.shape
        if virtual and source != ():
            file = properties.get_virtual_filename(number)
            dataset = properties.get_virtual_dsetname(number)
            mappings.append(Mapping(_named(file), _named(dataset), virtual, source))
    return VirtualLayout(tuple(mappings), shape)


def mappings_of(layout: VirtualLayout, axes: tuple[Axis, ...]) -> Iterator[Mapping]:
    """The mappings that may touch the elements at `axes`, each with its source's real names.

    Later mappings win. One whose source is not there, or not inside the served directory,
    leaves the elements as they are, as HDF5 does.
    """
    for mapping in layout.mappings:
        if mapping.touches(axes):
            yield from _expanded(mapping, axes)


def pieces_of(
    mapping: Mapping, axes: tuple[Axis, ...], source_shape: tuple[int, ...]
) -> Iterator[Piece]:
    """What to read of the mapping's source for the virtual dataset's elements at `axes`.

    Raises:
        NoEquivalent: the selections of the mapping differ too much in shape.
    """
    try:
        yield from pieces(mapping, axes, source_shape)
    except Scattered:
        detail = "a virtual mapping pairs selections of different shapes"
        raise NoEquivalent(detail) from None


def fill_values(
    properties: h5p.PropDCID, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> np.ndarray[Any, Any]:
    """An array of the fill value, which is what a virtual dataset holds where no source is."""
    if not dtype.hasobject:
        fill = np.zeros((), dtype)
        if properties.fill_value_defined() != h5d.FILL_VALUE_UNDEFINED:
            properties.get_fill_value(fill)
        return np.full(shape, fill, dtype)
    values = np.zeros(shape, dtype)
    if dtype.names is None:
        inner = h5t.check_vlen_dtype(dtype)
        empty = b"" if inner is None or h5t.check_string_dtype(dtype) else np.empty(0, inner)
        for position in np.ndindex(shape):
            values[position] = empty
    return values


def _reach(mapping: Mapping, axis: int, open_source: SourceOpener) -> int:
    """Up to where along `axis` the mapping has sources."""
    slab = mapping.virtual[axis]
    if slab.count is not None:
        return slab.extent_of(slab.count * slab.block)
    if mapping.numbered:
        for number in range(MAX_NUMBERED_SOURCES):
            block = mapping.of_block(number)
            if open_source(block.file, block.dataset) is None:
                return slab.nth_block(number - 1).start + slab.block if number else 0
        return slab.nth_block(MAX_NUMBERED_SOURCES).start
    only = mapping.of_one_source()
    source = open_source(only.file, only.dataset)
    if source is None or source.shape is None or not mapping.fits(source.shape):
        return 0
    for from_slab, extent in zip(mapping.source or (), source.shape, strict=False):
        if from_slab.count is None:
            return slab.extent_of(from_slab.length_within(extent))
    return 0


def _expanded(mapping: Mapping, axes: tuple[Axis, ...]) -> Iterator[Mapping]:
    """The mapping with its sources' real names: one, or one per block that `axes` touch."""
    unlimited = mapping.unlimited_axis
    if unlimited is None or not mapping.numbered:
        yield mapping.of_one_source()
        return
    slab = mapping.virtual[unlimited]
    _, ordinals = slab.ordinals(axes[unlimited])
    for number in np.unique(ordinals // slab.block).tolist():
        yield mapping.of_block(number)


def _source_slabs(space: h5s.SpaceID) -> tuple[Slab, ...] | None:
    # A file does not say of which extent everything is selected.
    return None if space.get_select_type() == h5s.SEL_ALL else _slabs(space)


def _slabs(space: h5s.SpaceID) -> tuple[Slab, ...]:
    kind = space.get_select_type()
    if kind == h5s.SEL_NONE:
        return ()
    if kind == h5s.SEL_ALL:
        ones = (1,) * len(space.shape)
        return slabs_of(((0,) * len(space.shape), ones, ones, space.shape), h5s.UNLIMITED)
    if kind != h5s.SEL_HYPERSLABS or not space.is_regular_hyperslab():
        detail = "a virtual mapping's selection is not a regular hyperslab"
        raise NoEquivalent(detail)
    return slabs_of(space.get_regular_hyperslab(), h5s.UNLIMITED)


def _named(name: str | bytes) -> str:
    return name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")
