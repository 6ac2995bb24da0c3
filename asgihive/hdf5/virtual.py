"""Virtual datasets, put together here, because libhdf5 would open sources anywhere.

libhdf5 opens the sources of a virtual dataset when its values are read and, if a mapping is
unlimited, already when its extent is asked for; and it looks for them at absolute paths and
in the current directory. So neither is left to it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from h5py import h5d, h5p, h5s, h5t

from asgihive.concurrency import Portions
from asgihive.hdf5.mapping import (
    Mapping,
    Pattern,
    Slab,
    bounds_of,
    is_empty,
    slabs_of,
    unlimited_axis_of,
)
from asgihive.hdf5.selection import Axis
from asgihive.hdf5.spans import SpanTree, span_tree
from asgihive.hdf5.types import NoEquivalent

# Blocks of a numbered (`%b`) mapping that are looked for, one file each.
MAX_NUMBERED_SOURCES = 100_000

# Boxes of one selection that is no regular hyperslab: some hundred bytes each while it is open.
MAX_SELECTION_BOXES = 1 << 16

# About what a mapping takes in memory.
_MAPPING_BYTES = 400

# How many mappings are read in one portion.
_MAPPINGS_AT_ONCE = 64

# The extent of the source of a mapping; None where there is nothing to read.
ShapeOf = Callable[[Mapping], Portions[tuple[int, ...] | None]]


@dataclass(frozen=True, slots=True, eq=False)
class VirtualLayout:
    """The mappings of a virtual dataset and its extent as last written; None = empty dataspace.

    lows, highs: of each mapping and dimension, the first index and the one behind the last.
    """

    mappings: tuple[Mapping, ...]
    written_shape: tuple[int, ...] | None
    lows: npt.NDArray[np.int64]
    highs: npt.NDArray[np.int64]

    @property
    def grows(self) -> bool:
        """Whether its extent depends on its sources."""
        return any(each.unlimited_axis is not None for each in self.mappings)

    @property
    def bytes(self) -> int:
        """What it takes in memory, about."""
        boxes = sum(
            len(level.lows)
            for mapping in self.mappings
            for each in (mapping.virtual, mapping.source)
            if isinstance(each, SpanTree)
            for level in each.levels
        )
        return (len(self.mappings) + boxes) * _MAPPING_BYTES

    def shape(self, shape_of: ShapeOf) -> Portions[tuple[int, ...] | None]:
        """The extent now: along an unlimited dimension, as far as the farthest source reaches.

        That is HDF5's default view, H5D_VDS_LAST_AVAILABLE with a printf gap of 0.
        """
        if self.written_shape is None:
            return None
        shape = list(self.written_shape)
        growing = {axis for each in self.mappings if (axis := each.unlimited_axis) is not None}
        for axis in growing:
            shape[axis] = 0
            for each in self.mappings:
                reach = yield from _reach(each, axis, shape_of)
                shape[axis] = max(shape[axis], reach)
        return tuple(shape)


def virtual_layout(dataset: h5d.DatasetID, properties: h5p.PropDCID) -> Portions[VirtualLayout]:
    """Read the mappings; opens nothing.

    Raises:
        NoEquivalent: a mapping's selection is of points, or has too many boxes.
        ValueError: a mapping is damaged.
    """
    count = properties.get_virtual_count()
    known: dict[object, Any] = {}
    mappings = []
    for number in range(count):
        if not number % _MAPPINGS_AT_ONCE:
            yield
        space = properties.get_virtual_vspace(number)
        virtual = _pattern_of(space, known)
        # Of nothing, h5py cannot tell what is selected of the source: it asks for its bounds.
        if virtual is None or is_empty(virtual):
            continue
        source = _source_pattern_of(properties.get_virtual_srcspace(number), known)
        name = _name_of_source(properties, number)
        file, dataset_name = (known.setdefault(each, each) for each in name)
        mappings.append(Mapping(file, dataset_name, virtual, source))
    return _layout(tuple(mappings), written_shape(dataset, properties))


def written_shape(dataset: h5d.DatasetID, properties: h5p.PropDCID) -> tuple[int, ...] | None:
    """The extent as last written, None = empty dataspace; opens nothing."""
    if properties.get_virtual_count():
        return _extent_of(properties.get_virtual_vspace(0))
    # Of what has no mappings, libhdf5 opens no sources. The count alone decides: of what has
    # some, a forged dataspace may have no dimensions.
    return _extent_of(dataset.get_space())


def mappings_of(layout: VirtualLayout, axes: tuple[Axis, ...]) -> Iterator[Mapping]:
    """The mappings that may touch the elements at `axes`, each with its source's real names.

    Later mappings win. One whose source is not there leaves the elements as they are, as HDF5
    does.
    """
    touched = np.ones(len(layout.mappings), bool)
    for dimension, axis in enumerate(axes):
        # The first index on the axis that may be in it.
        ahead = np.maximum(layout.lows[:, dimension] - axis.start, 0)
        first = axis.start - (-ahead // axis.step) * axis.step
        touched &= first < np.minimum(layout.highs[:, dimension], axis.stop)
    for number in np.flatnonzero(touched).tolist():
        mapping = layout.mappings[number]
        if mapping.touches(axes):
            yield from mapping.expanded(axes)


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
        empty = np.empty((), dtype)
        is_text = inner is None or h5t.check_string_dtype(dtype)
        empty[()] = b"" if is_text else np.empty(0, inner)
        values[...] = empty
    return values


def _layout(mappings: tuple[Mapping, ...], shape: tuple[int, ...] | None) -> VirtualLayout:
    rank = 0 if shape is None else len(shape)
    farthest = np.iinfo(np.int64).max
    bounds = [bounds_of(each.virtual) for each in mappings]
    if any(len(each) != rank for each in bounds):
        detail = "the rank of a virtual mapping is not that of the dataspace"
        raise ValueError(detail)
    lows = np.array([[low for low, _ in each] for each in bounds], np.int64)
    highs = np.array(
        [[farthest if high is None else high for _, high in each] for each in bounds], np.int64
    )
    count = len(mappings)
    return VirtualLayout(mappings, shape, lows.reshape(count, rank), highs.reshape(count, rank))


def _reach(mapping: Mapping, axis: int, shape_of: ShapeOf) -> Portions[int]:
    """Up to where along `axis` the mapping has sources."""
    _low, high = bounds_of(mapping.virtual)[axis]
    if high is not None or isinstance(mapping.virtual, SpanTree):
        return high or 0
    line = mapping.virtual[axis]
    if mapping.numbered and isinstance(line, Slab):
        for number in range(MAX_NUMBERED_SOURCES):
            extent = yield from shape_of(mapping.of_block(number))
            if extent is None:
                return line.nth_block(number - 1).start + line.block if number else 0
        return line.nth_block(MAX_NUMBERED_SOURCES).start
    only = mapping.of_one_source()
    source = only.source
    if source is None or isinstance(source, SpanTree):
        return 0
    growing = unlimited_axis_of(source)
    extent = yield from shape_of(only)
    if extent is None or growing is None:
        return 0
    return line.extent_of(source[growing].length_within(extent[growing]))


def _source_pattern_of(space: h5s.SpaceID, known: dict[object, Any]) -> Pattern | None:
    # A file does not say of which extent everything is selected.
    if space.get_select_type() == h5s.SEL_ALL:
        return None
    pattern = _pattern_of(space, known)
    if pattern is None:
        detail = "a virtual mapping selects nothing of its source"
        raise ValueError(detail)
    return pattern


def _pattern_of(space: h5s.SpaceID, known: dict[object, Any]) -> Pattern | None:
    """What a dataspace selects; None = nothing."""
    kind = space.get_select_type()
    if kind == h5s.SEL_NONE:
        return None
    if kind == h5s.SEL_ALL:
        slabs = tuple(Slab(0, 1, extent, 1) for extent in _extent_of(space) or ())
        return tuple(known.setdefault(each, each) for each in slabs)
    if kind != h5s.SEL_HYPERSLABS:
        detail = "a virtual mapping selects single points"
        raise NoEquivalent(detail)
    if not space.shape:
        detail = "a virtual mapping selects a hyperslab of a dataspace without dimensions"
        raise ValueError(detail)
    if space.is_regular_hyperslab():
        slabs = slabs_of(space.get_regular_hyperslab(), h5s.UNLIMITED)
        return tuple(known.setdefault(each, each) for each in slabs)
    count = space.get_select_hyper_nblocks()
    if count > MAX_SELECTION_BOXES:
        detail = (
            f"a virtual mapping selects {count} boxes: at most {MAX_SELECTION_BOXES} are accepted"
        )
        raise NoEquivalent(detail)
    tree = span_tree(space.get_select_hyper_blocklist())
    return tree.lines or tree


def _extent_of(space: h5s.SpaceID) -> tuple[int, ...] | None:
    if space.get_simple_extent_type() == h5s.NULL:
        return None
    shape: tuple[int, ...] = space.shape
    return shape


def _name_of_source(properties: h5p.PropDCID, number: int) -> tuple[str, str]:
    """The file and the dataset that a mapping names."""
    try:
        names = properties.get_virtual_filename(number), properties.get_virtual_dsetname(number)
    except UnicodeDecodeError:
        detail = "the name of a source is not UTF-8, and h5py reads no others"
        raise NoEquivalent(detail) from None
    return names
