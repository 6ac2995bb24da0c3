"""Virtual datasets, put together here, because libhdf5 would open sources anywhere.

libhdf5 opens the sources of a virtual dataset when its values are read and, if a mapping is
unlimited, already when its extent is asked for; and it looks for them at absolute paths and
in the current directory. So neither is left to it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from h5py import h5d, h5p, h5s, h5t

from asgihive.concurrency import Portions
from asgihive.hdf5.hyperslabs import (
    Hyperslab,
    RegularIndices,
    SpanTree,
    build_irregular,
    find_bounds,
    find_unlimited_axis,
    may_hold_any,
    parse_regular,
)
from asgihive.hdf5.plan import Axis
from asgihive.hdf5.types import NoEquivalent

MAX_NUMBERED_SOURCES = 100_000
"""Blocks of a numbered (`%b`) mapping that are looked for, one file each."""

MAX_SELECTION_BOXES = 1 << 16
"""Boxes of one selection that is irregular: some hundred bytes each while it is open."""

# About what a mapping takes in memory.
_MAPPING_BYTES = 400

# How many mappings are read in one portion.
_MAPPINGS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Mapping:
    """One source of a virtual dataset, as the creation properties name it."""

    file: str
    dataset: str
    virtual: Hyperslab
    source: Hyperslab | None
    """The selection in the source; None = all of it, whatever its extent is by then."""

    @property
    def unlimited_axis(self) -> int | None:
        """The dimension of the virtual dataset along which the mapping is unlimited."""
        return find_unlimited_axis(self.virtual)

    @property
    def source_rank(self) -> int | None:
        """The number of dimensions that the source must have; None = any."""
        if isinstance(self.source, SpanTree):
            return len(self.source.levels)
        return None if self.source is None else len(self.source)

    @property
    def numbered_blocks(self) -> RegularIndices | None:
        """The indices along the unlimited axis, if each block of them has a source of its own.

        Its file or dataset is named by `%b`, the number of the block (H5Pset_virtual).
        """
        axis = self.unlimited_axis
        if axis is None or isinstance(self.virtual, SpanTree):
            return None
        is_named = any("%b" in name.replace("%%", "") for name in (self.file, self.dataset))
        line = self.virtual[axis]
        is_limited = self.source is None or find_unlimited_axis(self.source) is None
        return line if is_named and is_limited and isinstance(line, RegularIndices) else None

    def select_block(self, number: int) -> "Mapping":
        """Return the mapping of the source of one of `numbered_blocks`."""
        axis, blocks = self.unlimited_axis, self.numbered_blocks
        virtual = self.virtual
        if axis is not None and blocks is not None and not isinstance(virtual, SpanTree):
            virtual = (*virtual[:axis], blocks.select_block(number), *virtual[axis + 1 :])
        file, dataset = (
            "%".join(part.replace("%b", str(number)) for part in name.split("%%"))
            for name in (self.file, self.dataset)
        )
        return Mapping(file, dataset, virtual, self.source)

    def select_only(self) -> "Mapping":
        """Return the mapping of the source whose names have no number."""
        if "%%" not in self.file and "%%" not in self.dataset:
            return self
        file, dataset = self.file.replace("%%", "%"), self.dataset.replace("%%", "%")
        return replace(self, file=file, dataset=dataset)

    def expand(self, axes: tuple[Axis, ...]) -> Iterator["Mapping"]:
        """Yield it with its sources' real names: one, or one for each block that `axes` touch."""
        unlimited, blocks = self.unlimited_axis, self.numbered_blocks
        if unlimited is None or blocks is None:
            yield self.select_only()
            return
        for number in blocks.find_blocks(axes[unlimited]):
            yield self.select_block(number)


FindShape = Callable[[Mapping], Portions[tuple[int, ...] | None]]
"""Finds the extent of the source of a mapping; None where there is nothing to read."""


@dataclass(frozen=True, slots=True, eq=False)
class VirtualLayout:
    """The mappings of a virtual dataset."""

    mappings: tuple[Mapping, ...]
    written_shape: tuple[int, ...] | None
    """The extent as last written; None = empty dataspace."""
    lows: npt.NDArray[np.int64]
    """Of each mapping and dimension, the first index."""
    highs: npt.NDArray[np.int64]
    """Of each mapping and dimension, the index behind the last one."""

    @property
    def can_grow(self) -> bool:
        """Whether its extent depends on its sources."""
        return any(each.unlimited_axis is not None for each in self.mappings)

    @property
    def bytes(self) -> int:
        """About what it takes in memory."""
        boxes = sum(
            len(level.lows)
            for mapping in self.mappings
            for each in (mapping.virtual, mapping.source)
            if isinstance(each, SpanTree)
            for level in each.levels
        )
        return (len(self.mappings) + boxes) * _MAPPING_BYTES

    def find_shape(self, find_source_shape: FindShape) -> Portions[tuple[int, ...] | None]:
        """Return the extent now: along an unlimited dimension, as far as any source reaches.

        That is HDF5's default view, H5D_VDS_LAST_AVAILABLE with a printf gap of 0.
        """
        if self.written_shape is None:
            return None
        shape = list(self.written_shape)
        for axis in {axis for each in self.mappings if (axis := each.unlimited_axis) is not None}:
            shape[axis] = 0
            for each in self.mappings:
                reach = yield from _find_reach(each, axis, find_source_shape)
                shape[axis] = max(shape[axis], reach)
        return tuple(shape)

    def find_mappings(self, axes: tuple[Axis, ...]) -> Iterator[Mapping]:
        """Yield the mappings that may touch `axes`, each with its source's real names.

        Later mappings win. One whose source is not there leaves the elements as they are, as HDF5
        does.
        """
        touched = np.ones(len(self.mappings), bool)
        for dimension, axis in enumerate(axes):
            # The first index on the axis that may be in it.
            ahead = np.maximum(self.lows[:, dimension] - axis.start, 0)
            first = axis.start - (-ahead // axis.step) * axis.step
            touched &= first < np.minimum(self.highs[:, dimension], axis.stop)
        for number in np.flatnonzero(touched).tolist():
            mapping = self.mappings[number]
            virtual = mapping.virtual
            if isinstance(virtual, SpanTree) or all(map(may_hold_any, virtual, axes)):
                yield from mapping.expand(axes)


def read_virtual_layout(
    dataset: h5d.DatasetID, properties: h5p.PropDCID
) -> Portions[VirtualLayout]:
    """Read the mappings; opens nothing.

    Raises:
        NoEquivalent: a mapping's selection is of points, or has too many boxes.
        ValueError: a mapping is damaged.
    """
    known: dict[object, Any] = {}
    mappings = []
    for number in range(properties.get_virtual_count()):
        if not number % _MAPPINGS_AT_ONCE:
            yield
        virtual = _read_selection(properties.get_virtual_vspace(number), known)
        # Where nothing is selected, h5py fails at the source's selection: it asks for its bounds.
        if virtual is None or (
            isinstance(virtual, tuple) and any(line.length == 0 for line in virtual)
        ):
            continue
        source = None
        source_space = properties.get_virtual_srcspace(number)
        # Everything is selected: the file does not tell the extent that this was.
        if source_space.get_select_type() != h5s.SEL_ALL:
            source = _read_selection(source_space, known)
            if source is None:
                detail = "a virtual mapping selects nothing of its source"
                raise ValueError(detail)
        try:
            file = properties.get_virtual_filename(number)
            name = properties.get_virtual_dsetname(number)
        except UnicodeDecodeError:
            detail = "the name of a source is not UTF-8, and h5py reads no others"
            raise NoEquivalent(detail) from None
        file, name = known.setdefault(file, file), known.setdefault(name, name)
        mappings.append(Mapping(file, name, virtual, source))
    shape = read_written_shape(dataset, properties)
    rank, count = len(shape or ()), len(mappings)
    bounds = [find_bounds(each.virtual) for each in mappings]
    if any(len(each) != rank for each in bounds):
        detail = "the rank of a virtual mapping is not that of the dataspace"
        raise ValueError(detail)
    farthest = np.iinfo(np.int64).max
    lows = [[low for low, _ in each] for each in bounds]
    highs = [[farthest if high is None else high for _, high in each] for each in bounds]
    return VirtualLayout(
        tuple(mappings),
        shape,
        np.array(lows, np.int64).reshape(count, rank),
        np.array(highs, np.int64).reshape(count, rank),
    )


def read_written_shape(dataset: h5d.DatasetID, properties: h5p.PropDCID) -> tuple[int, ...] | None:
    """Return the extent as last written, None = empty dataspace; opens nothing."""
    if properties.get_virtual_count():
        return _read_extent(properties.get_virtual_vspace(0))
    # Of what has no mappings, libhdf5 opens no sources. The count alone decides: of what has
    # some, a forged dataspace may have no dimensions.
    return _read_extent(dataset.get_space())


def make_fill_values(
    properties: h5p.PropDCID, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> np.ndarray[Any, Any]:
    """Return an array of what a virtual dataset holds where no source is: its fill value."""
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


def _find_reach(mapping: Mapping, axis: int, find_source_shape: FindShape) -> Portions[int]:
    """Return up to where along `axis` the mapping has sources."""
    _low, high = find_bounds(mapping.virtual)[axis]
    if high is not None or isinstance(mapping.virtual, SpanTree):
        return high or 0
    blocks = mapping.numbered_blocks
    if blocks is not None:
        for number in range(MAX_NUMBERED_SOURCES):
            extent = yield from find_source_shape(mapping.select_block(number))
            if extent is None:
                return blocks.select_block(number - 1).start + blocks.block if number else 0
        return blocks.select_block(MAX_NUMBERED_SOURCES).start
    only = mapping.select_only()
    source = only.source
    if source is None or isinstance(source, SpanTree):
        return 0
    growing = find_unlimited_axis(source)
    extent = yield from find_source_shape(only)
    if extent is None or growing is None:
        return 0
    length = source[growing].count_below(extent[growing])
    return mapping.virtual[axis].find_extent(length)


def _read_selection(space: h5s.SpaceID, known: dict[object, Any]) -> Hyperslab | None:
    """Return what a dataspace selects; None = nothing.

    Args:
        space: the dataspace.
        known: values that many mappings share, so that each is kept once.
    """
    kind = space.get_select_type()
    if kind == h5s.SEL_NONE:
        return None
    if kind not in {h5s.SEL_ALL, h5s.SEL_HYPERSLABS}:
        detail = "a virtual mapping selects single points"
        raise NoEquivalent(detail)
    if kind == h5s.SEL_HYPERSLABS and not space.shape:
        detail = "a virtual mapping selects a hyperslab of a dataspace without dimensions"
        raise ValueError(detail)
    if kind == h5s.SEL_HYPERSLABS and not space.is_regular_hyperslab():
        count = space.get_select_hyper_nblocks()
        if count > MAX_SELECTION_BOXES:
            most = f"at most {MAX_SELECTION_BOXES} are accepted"
            detail = f"a virtual mapping selects {count} boxes: {most}"
            raise NoEquivalent(detail)
        return build_irregular(space.get_select_hyper_blocklist())
    if kind == h5s.SEL_ALL:
        lines = tuple(RegularIndices(0, 1, extent, 1) for extent in _read_extent(space) or ())
    else:
        lines = parse_regular(space.get_regular_hyperslab(), h5s.UNLIMITED)
    return tuple(known.setdefault(each, each) for each in lines)


def _read_extent(space: h5s.SpaceID) -> tuple[int, ...] | None:
    if space.get_simple_extent_type() == h5s.NULL:
        return None
    shape: tuple[int, ...] = space.shape
    return shape
