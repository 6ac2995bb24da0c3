"""The sources of virtual datasets: which there are, and the blocks that are made of them.

They are found by the library lane, and read by others where they can be.
"""

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from h5py import h5t

from asgihive.concurrency import Portions
from asgihive.errors import Overloaded
from asgihive.hdf5.chunk_grid import Places
from asgihive.hdf5.datasets import Array, Dataset
from asgihive.hdf5.layout import LayoutKind
from asgihive.hdf5.opening import Source, Sources
from asgihive.hdf5.pairing import SourceBox, Unpaired, find_source_bounds, pair_boxes
from asgihive.hdf5.plan import Axis
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.remote import ByteRun
from asgihive.hdf5.virtual import Mapping, VirtualLayout, make_fill_values

MAX_SOURCES_AT_ONCE = 16
"""Files held open at once for one block."""

# Boxes of them that are read at once.
_BOXES_AT_ONCE = 64

MAX_SEARCHED_SOURCES = 1024
"""Sources of a virtual dataset that are looked for before an answer is made of them: each is
opened once more than it is read, though the pool may have it open then."""

# Mappings that are looked through in one portion, most of them of a source that is known.
_MAPPINGS_AT_ONCE = 1024


@dataclass(slots=True)
class SourcesFound:
    """What was found of the sources of some elements of a dataset."""

    depends_on_all: bool
    """Whether the lease depends on every file that the elements come from: not on external raw
    storage, nor on the files of sources that are virtual themselves or too many."""
    searched: int = 0
    """How many sources were looked for."""
    missing: int = 0
    """How many of them are not there: their part is fill values."""
    first_missing: str = ""
    """The file of the first one, with the dataset where only that is missing."""
    is_all: bool = True
    """Whether there are no others."""

    @property
    def is_nothing_there(self) -> bool:
        """Whether all values of a virtual dataset are its fill value, for want of any source."""
        return self.is_all and self.depends_on_all and self.searched == self.missing


def search_sources(
    lease: Lease, dataset: Dataset, axes: tuple[Axis, ...] | None
) -> Portions[SourcesFound]:
    """Look for what the elements at `axes` come from; `lease` depends on it then.

    A source that is virtual itself is looked through, and not counted.

    Args:
        lease: holds the dataset.
        dataset: virtual or not.
        axes: None = an empty dataspace, without elements.

    Raises:
        SourceRefused: a source may not or cannot be read.
        FileChanged, Overloaded, Unsettled: and as `Dataset.read`.
    """
    if axes is None:
        return SourcesFound(depends_on_all=True)
    found = SourcesFound(depends_on_all=dataset.layout.kind is not LayoutKind.EXTERNAL)
    if dataset.virtual is not None:
        with dataset.diagnosed(lease, axes):
            search = _Search(dataset, found)
            yield from search.look(Source(dataset, lease), dataset.virtual, axes)
    return found


def find_mismatch(source: Dataset, dtype: np.dtype[Any], item_shape: tuple[int, ...]) -> str | None:
    """Return why values of a source cannot become elements of a type; None = they can."""
    if source.item_shape != item_shape:
        return f"its elements have the dimensions {source.item_shape}, not {item_shape}"
    if source.dtype == dtype:
        if _find_pointed_kind(source.dtype) == _find_pointed_kind(dtype):
            return None
    else:
        try:
            memory = h5t.py_create(np.dtype((dtype, item_shape)))
            if h5t.find(source.memory_type.id, memory):
                return None
        except (TypeError, ValueError, RuntimeError, KeyError):
            pass
    return f"HDF5 knows no conversion of its type to {dtype}"


def _find_pointed_kind(dtype: np.dtype[Any]) -> tuple[object, ...]:
    """Return what the pointers of a dtype point to, which two dtypes of pointers do not compare."""
    string = h5t.check_string_dtype(dtype)
    is_text = string is not None and string.length is None
    return is_text, h5t.check_vlen_dtype(dtype), h5t.check_ref_dtype(dtype)


def _open_source(
    sources: Sources, mapping: Mapping, dtype: np.dtype[Any], item_shape: tuple[int, ...]
) -> Portions[Source | None]:
    """Open a source whose values can become elements of a type. Raises as `Sources.open`."""
    source = yield from sources.open(mapping)
    if source is not None:
        problem = find_mismatch(source.dataset, dtype, item_shape)
        if problem is not None:
            raise sources.refusal(mapping, problem)
    return source


@contextmanager
def _refuse_unpaired(sources: Sources, mapping: Mapping) -> Iterator[None]:
    try:
        yield
    except Unpaired as error:
        raise sources.refusal(mapping, str(error)) from None


class _Search:
    """One search, through all virtual datasets that take part."""

    def __init__(self, dataset: Dataset, found: SourcesFound) -> None:
        self._type = dataset.dtype, dataset.item_shape
        self._found = found
        self._opened = 0
        # Many a file is mapped frame by frame.
        self._known: set[object] = set()

    def look(
        self, virtual: Source, layout: VirtualLayout, axes: tuple[Axis, ...]
    ) -> Portions[None]:
        """Look for the sources of the elements at `axes`."""
        dataset = virtual.dataset
        sources = Sources(virtual.lease, dataset, virtual.depth)
        try:
            for number, mapping in enumerate(layout.find_mappings(axes), 1):
                if not number % _MAPPINGS_AT_ONCE:
                    yield
                name = (dataset.file.key, mapping.file, mapping.dataset)
                if name in self._known:
                    continue
                if self._opened == MAX_SEARCHED_SOURCES:
                    self._found.is_all = self._found.depends_on_all = False
                    return
                self._opened += 1
                source = yield from _open_source(sources, mapping, *self._type)
                if source is None or source.dataset.virtual is None:
                    self._known.add(name)
                    self._note(sources, mapping, source)
                else:
                    yield from self._look_through(sources, mapping, source, axes)
                sources.give_back()
                yield
        finally:
            sources.close()

    def _note(self, sources: Sources, mapping: Mapping, source: Source | None) -> None:
        found = self._found
        found.searched += 1
        if source is None:
            found.missing += 1
            found.first_missing = found.first_missing or sources.shown(mapping)
        elif source.dataset.layout.kind is LayoutKind.EXTERNAL:
            found.depends_on_all = False

    def _look_through(
        self, sources: Sources, mapping: Mapping, source: Source, axes: tuple[Axis, ...]
    ) -> Portions[None]:
        dataset = source.dataset
        self._found.depends_on_all = False
        with _refuse_unpaired(sources, mapping):
            box = find_source_bounds(mapping.virtual, mapping.source, axes, source.shape or ())
        part = (dataset.file.key, dataset.path, box)
        if box is not None and dataset.virtual is not None and part not in self._known:
            self._known.add(part)
            yield from self.look(source, dataset.virtual, box)


@dataclass(frozen=True, slots=True)
class BoxRead:
    """The read of a box of a source that needs no library."""

    dataset: Dataset
    lease: Lease
    box: SourceBox
    places: Places | None
    block: Array
    """Where the values go."""

    def list_runs(self) -> list[ByteRun]:
        """Return where the bytes of the source's file lie that `read` will read."""
        return self.dataset.list_runs(self.lease, self.box.axes, self.places)

    def read(self, *, keep: bool) -> None:
        """Fill the elements of `block`. Raises as `Dataset.read`."""
        axes, slices = self.box.axes, self.box.slices
        if slices is not None:
            wanted = self.block[slices]
            if wanted.shape == (*(axis.count for axis in axes), *self.dataset.item_shape):
                self.dataset.read_into(wanted, self.lease, axes, self.places, keep=keep)
                return
        read = self.dataset.read(self.lease, axes, places=self.places, keep=keep)
        self.box.put(read, self.block)


class VirtualRead:
    """Reads the elements at `axes` of a virtual dataset in rounds.

    Everything but `close` runs in the library lane, the reads that `advance` returns in any thread.

    Attributes:
        values: the elements as far as they are read; fill values where no source is.
    """

    def __init__(
        self, source: Source, layout: VirtualLayout, axes: tuple[Axis, ...], dtype: np.dtype[Any]
    ) -> None:
        dataset, lease = source.dataset, source.lease
        self._dataset = dataset
        self._lease = lease
        self._axes = axes
        # An answer may read any number of sources, block by block, but one block may not.
        seen = lease.seen if source.depth else lease.seen.counted_anew()
        self._sources = Sources(lease, dataset, source.depth, seen)
        self._mappings: Iterator[tuple[int, Mapping]] = enumerate(layout.find_mappings(axes))
        # What is read now, and what of it is read next.
        self._number = 0
        self._source: Source | None = None
        self._boxes: Iterator[SourceBox] = iter(())
        self._box: SourceBox | None = None
        with dataset.diagnosed(lease, axes):
            shape = (*(axis.count for axis in axes), *dataset.item_shape)
            self.values = make_fill_values(dataset.layout.properties, shape, dtype)

    def advance(self) -> Portions[list[BoxRead]]:
        """Read boxes that need the library, and return the next others, to be read in any order.

        Everything is read when there are none. Until they are read, or given up, sources stay open.

        Raises:
            SourceRefused: a source may not or cannot be read.
            TypeUnsupported, FileChanged, Overloaded, Unsettled: and as `Dataset.read`.
        """
        with self._dataset.diagnosed(self._lease, self._axes):
            self._sources.give_back(keep=self._source)
            reads: list[BoxRead] = []
            targets: list[tuple[int, tuple[slice, ...] | None]] = []
            while len(reads) < _BOXES_AT_ONCE:
                found = yield from self._find_next_box(is_first=not reads)
                if found is None:
                    break
                source, box = found
                target = (self._number, box.slices)
                # Later mappings win, so what they overwrite has to be read before.
                if any(_may_overlap(target, each) for each in targets):
                    break
                self._box = None
                dataset, dtype = source.dataset, self.values.dtype
                if dataset.virtual is None and not dataset.needs_library and dtype == dataset.dtype:
                    places = dataset.locate(source.lease, box.axes)
                    reads.append(BoxRead(dataset, source.lease, box, places, self.values))
                    targets.append(target)
                else:
                    read = yield from read_in_portions(source, box.axes, dtype)
                    box.put(read, self.values)
                    yield
            return reads

    def read(self) -> Portions[Array]:
        """Read all of it, in the library lane. Raises as `advance`."""
        try:
            while reads := (yield from self.advance()):
                for each in reads:
                    each.read(keep=True)
                    yield
        finally:
            self.close()
        return self.values

    def close(self) -> None:
        """Let go of the sources, also when not everything was read; from any thread."""
        self._sources.close()

    def _find_next_box(self, *, is_first: bool) -> Portions[tuple[Source, SourceBox] | None]:
        """Return what to read next, found before perhaps; None if nothing, or others come first."""
        while True:
            if self._box is None:
                self._box = next(self._boxes, None)
            if self._box is not None and self._source is not None:
                return self._source, self._box
            self._source = None
            if is_first:
                self._sources.give_back()
            elif len(self._sources) >= MAX_SOURCES_AT_ONCE:
                return None
            yield
            self._lease.go_on()
            numbered = next(self._mappings, None)
            if numbered is None:
                return None
            try:
                item_shape = self._dataset.item_shape
                source = yield from _open_source(
                    self._sources, numbered[1], self.values.dtype, item_shape
                )
            except Overloaded:
                if is_first:
                    raise
                # There will be room once those that are held are given back.
                self._mappings = itertools.chain((numbered,), self._mappings)
                return None
            if source is not None:
                self._number, self._source = numbered[0], source
                self._boxes = self._pair(numbered[1], source)

    def _pair(self, mapping: Mapping, source: Source) -> Iterator[SourceBox]:
        with _refuse_unpaired(self._sources, mapping):
            shape = source.shape or ()
            yield from pair_boxes(mapping.virtual, mapping.source, self._axes, shape)


def read_in_portions(
    source: Source, axes: tuple[Axis, ...], dtype: np.dtype[Any]
) -> Portions[Array]:
    """Read the elements at `axes` of a dataset of any layout, in the library lane.

    Raises as `Dataset.read` and `VirtualRead.advance`.
    """
    dataset = source.dataset
    if dataset.virtual is None:
        return dataset.read(source.lease, axes, dtype)
    return (yield from VirtualRead(source, dataset.virtual, axes, dtype).read())


def _may_overlap(
    one: tuple[int, tuple[slice, ...] | None], another: tuple[int, tuple[slice, ...] | None]
) -> bool:
    """Return False when certainly no element is in two boxes, each with its mapping's number."""
    # Those of one mapping have no element in common.
    if one[0] == another[0]:
        return False
    first, second = one[1], another[1]
    return (
        first is None
        or second is None
        or all(
            a.start < b.stop
            and b.start < a.stop
            and (a.start - b.start) % math.gcd(a.step or 1, b.step or 1) == 0
            for a, b in zip(first, second, strict=True)
        )
    )
