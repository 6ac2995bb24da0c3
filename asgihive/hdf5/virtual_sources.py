"""Blocks of virtual datasets: their sources are found by one lane and read by others."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from h5py import h5t

from asgihive.concurrency import Portions
from asgihive.errors import Overloaded
from asgihive.hdf5.chunk_grid import Places
from asgihive.hdf5.datasets import Array, Dataset
from asgihive.hdf5.layout import LayoutKind
from asgihive.hdf5.mapping import Mapping
from asgihive.hdf5.opening import Source, Sources
from asgihive.hdf5.pairing import Piece, Unpaired, pieces, source_box
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.selection import Axis
from asgihive.hdf5.virtual import VirtualLayout, fill_values, mappings_of

# Files held open at once for one block, and parts of them that are read at once.
_SOURCES_AT_ONCE = 16
_SHARES_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class SourceShare:
    """A part of a source that needs no library, and where it goes."""

    dataset: Dataset
    lease: Lease
    piece: Piece
    places: Places | None
    block: Array

    def read(self, *, keep: bool) -> None:
        """Fill the elements of `block`. Raises as `Dataset.read`."""
        axes, slices = self.piece.axes, self.piece.slices
        if slices is not None:
            wanted = self.block[slices]
            if wanted.shape == (*(axis.count for axis in axes), *self.dataset.item_shape):
                self.dataset.read_into(wanted, self.lease, axes, self.places, keep=keep)
                return
        read = self.dataset.read(self.lease, axes, places=self.places, keep=keep)
        self.piece.put(read, self.block)


class VirtualRead:
    """The elements at `axes` of a virtual dataset, being read in rounds.

    Everything but `close` happens in the library lane, what `advance` returns anywhere.

    values: the elements as far as they are read; fill values where no source is.
    """

    def __init__(
        self, source: Source, layout: VirtualLayout, axes: tuple[Axis, ...], dtype: np.dtype[Any]
    ) -> None:
        dataset, lease = source.dataset, source.lease
        self._dataset = dataset
        self._lease = lease
        self._axes = axes
        # Of what is read block by block there may be any number, but not for one block.
        seen = lease.seen if source.depth else lease.seen.counted_anew()
        self._sources = Sources(lease, dataset, dataset.max_hops, source.depth, seen)
        self._mappings: Iterator[tuple[int, Mapping]] = enumerate(mappings_of(layout, axes))
        self._number = 0
        self._source: Source | None = None
        self._pieces: Iterator[Piece] = iter(())
        self._piece: Piece | None = None
        with dataset.diagnosed(lease, axes):
            shape = (*(axis.count for axis in axes), *dataset.item_shape)
            self.values = fill_values(dataset.layout.properties, shape, dtype)

    def advance(self) -> Portions[list[SourceShare]]:
        """Read what needs the library, and return what is to be read next, in any order.

        Everything is read when that is nothing. Until it is read, or given up, sources stay open.

        Raises:
            SourceRefused: a source may not or cannot be read.
            TypeUnsupported, FileChanged, Overloaded, Unsettled: and as `Dataset.read`.
        """
        with self._dataset.diagnosed(self._lease, self._axes):
            self._sources.give_back(keep=self._source)
            shares: list[SourceShare] = []
            targets: list[tuple[int, tuple[slice, ...] | None]] = []
            while len(shares) < _SHARES_AT_ONCE:
                found = yield from self._next_piece(is_first=not shares)
                if found is None:
                    break
                target = (self._number, found[1].slices)
                # Later mappings win, so what they overwrite has to be read before.
                if any(_overlap(target, each) for each in targets):
                    break
                self._piece = None
                share = yield from self._begun(*found)
                if share is not None:
                    shares.append(share)
                    targets.append(target)
            return shares

    def read(self) -> Portions[Array]:
        """All of it, in the library lane. Raises as `advance`."""
        try:
            while shares := (yield from self.advance()):
                for share in shares:
                    share.read(keep=True)
                    yield
        finally:
            self.close()
        return self.values

    def close(self) -> None:
        """Let go of the sources, also when not everything was read; from any thread."""
        self._sources.close()

    def _next_piece(self, *, is_first: bool) -> Portions[tuple[Source, Piece] | None]:
        """What to read next, perhaps found before; None at the end or when others come first."""
        while True:
            if self._piece is None:
                self._piece = next(self._pieces, None)
            if self._piece is not None and self._source is not None:
                return self._source, self._piece
            self._source = None
            if is_first:
                self._sources.give_back()
            elif len(self._sources) >= _SOURCES_AT_ONCE:
                return None
            is_there = yield from self._has_next_source(is_first=is_first)
            if not is_there:
                return None

    def _has_next_source(self, *, is_first: bool) -> Portions[bool]:
        yield
        self._lease.go_on()
        numbered = next(self._mappings, None)
        if numbered is None:
            return False
        number, mapping = numbered
        try:
            source = yield from self._sources.open(mapping)
        except Overloaded:
            if is_first:
                raise
            # There will be room once those that are held are given back.
            self._mappings = itertools.chain((numbered,), self._mappings)
            return False
        if source is not None:
            problem = unreadable(source.dataset, self.values.dtype, self._dataset.item_shape)
            if problem is not None:
                raise self._sources.refusal(mapping, problem)
            self._number, self._source = number, source
            self._pieces = self._pieces_of(mapping, source)
        return True

    def _pieces_of(self, mapping: Mapping, source: Source) -> Iterator[Piece]:
        try:
            yield from pieces(mapping, self._axes, source.shape or ())
        except Unpaired as error:
            raise self._sources.refusal(mapping, str(error)) from None

    def _begun(self, source: Source, piece: Piece) -> Portions[SourceShare | None]:
        """The piece, to be read elsewhere; None when that had to be done here."""
        dataset, lease, dtype = source.dataset, source.lease, self.values.dtype
        if dataset.virtual is not None or dataset.needs_library or dtype != dataset.dtype:
            read = yield from read_in_portions(source, piece.axes, dtype)
            piece.put(read, self.values)
            yield
            return None
        places = dataset.places() or dataset.locate(lease, piece.axes)
        return SourceShare(dataset, lease, piece, places, self.values)


def read_in_portions(
    source: Source, axes: tuple[Axis, ...], dtype: np.dtype[Any]
) -> Portions[Array]:
    """The elements at `axes` of a dataset of any layout, in the library lane.

    Raises as `Dataset.read` and `VirtualRead.advance`.
    """
    dataset = source.dataset
    if dataset.virtual is None:
        return dataset.read(source.lease, axes, dtype)
    return (yield from VirtualRead(source, dataset.virtual, axes, dtype).read())


def unreadable(source: Dataset, dtype: np.dtype[Any], item_shape: tuple[int, ...]) -> str | None:
    """Why values of a source cannot become elements of a type; None = they can."""
    if source.item_shape != item_shape:
        return f"its elements have the dimensions {source.item_shape}, not {item_shape}"
    if source.dtype == dtype and _pointed_kind(source.dtype) == _pointed_kind(dtype):
        return None
    try:
        path = None
        if source.dtype != dtype:
            path = h5t.find(source.memory_type.id, h5t.py_create(np.dtype((dtype, item_shape))))
    except (TypeError, ValueError, RuntimeError, KeyError):
        path = None
    return None if path else f"HDF5 knows no conversion of its type to {dtype}"


def _pointed_kind(dtype: np.dtype[Any]) -> tuple[object, ...]:
    """What the pointers of a dtype point to, which two dtypes of pointers do not compare."""
    string = h5t.check_string_dtype(dtype)
    is_text = string is not None and string.length is None
    return is_text, h5t.check_vlen_dtype(dtype), h5t.check_ref_dtype(dtype)


def _overlap(
    one: tuple[int, tuple[slice, ...] | None], another: tuple[int, tuple[slice, ...] | None]
) -> bool:
    """False when certainly no element is in two pieces; each with the number of its mapping."""
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


# Sources of a virtual dataset that are looked for before an answer is made of them: each is
# opened once more than it is read, though the pool may have it open then.
MAX_SEARCHED_SOURCES = 1024

# Mappings that are looked through in one portion, most of them of a source that is known.
_MAPPINGS_AT_ONCE = 1024


def search_sources(
    lease: Lease, dataset: Dataset, axes: tuple[Axis, ...] | None
) -> Portions["SourcesFound"]:
    """Look for what the elements at `axes` come from; `lease` depends on it then.

    A source that is virtual itself is looked through, and not counted.

    Args:
        axes: None = an empty dataspace, without elements.

    Raises:
        SourceRefused: a source may not or cannot be read.
        FileChanged, Overloaded, Unsettled: and as `Dataset.read`.
    """
    if axes is None:
        return SourcesFound(depends_on_all=True)
    found = sources_at_hand(dataset)
    if dataset.virtual is not None:
        with dataset.diagnosed(lease, axes):
            search = _Search(dataset, found)
            yield from search.look(Source(dataset, lease), dataset.virtual, axes)
    return found


def sources_at_hand(dataset: Dataset) -> "SourcesFound":
    """What `search_sources` finds of a dataset that is not virtual, without looking."""
    return SourcesFound(depends_on_all=dataset.layout.kind is not LayoutKind.EXTERNAL)


@dataclass(slots=True)
class SourcesFound:
    """What was found of the sources of some elements of a dataset.

    depends_on_all: whether the lease depends on every file that they come from: not on external
        raw storage, nor on those of sources that are virtual themselves or too many.
    searched, missing: how many sources were looked for, and how many are not there: their part
        is fill values.
    first_missing: the file of the first one, with the dataset where only that is missing.
    is_all: whether there are no others.
    """

    depends_on_all: bool
    searched: int = 0
    missing: int = 0
    first_missing: str = ""
    is_all: bool = True

    @property
    def is_nothing_there(self) -> bool:
        """Whether all values of a virtual dataset are its fill value, for want of any source."""
        return self.is_all and self.depends_on_all and self.searched == self.missing


class _Search:
    """One search, through all virtual datasets that take part."""

    def __init__(self, dataset: Dataset, found: SourcesFound) -> None:
        self._found = found
        self._dtype = dataset.dtype
        self._item_shape = dataset.item_shape
        self._opened = 0
        # Many a file is mapped frame by frame.
        self._known: set[object] = set()

    def look(
        self, virtual: Source, layout: VirtualLayout, axes: tuple[Axis, ...]
    ) -> Portions[None]:
        """Look for the sources of the elements at `axes`."""
        dataset = virtual.dataset
        sources = Sources(virtual.lease, dataset, dataset.max_hops, virtual.depth)
        try:
            for number, mapping in enumerate(mappings_of(layout, axes), 1):
                if not number % _MAPPINGS_AT_ONCE:
                    yield
                name = (dataset.file.key, mapping.file, mapping.dataset)
                if name in self._known:
                    continue
                if self._opened == MAX_SEARCHED_SOURCES:
                    self._found.is_all = self._found.depends_on_all = False
                    return
                self._opened += 1
                yield from self._look_for(sources, mapping, axes)
                sources.give_back()
                yield
        finally:
            sources.close()

    def _look_for(
        self, sources: Sources, mapping: Mapping, axes: tuple[Axis, ...]
    ) -> Portions[None]:
        found, name = self._found, (sources.file_key, mapping.file, mapping.dataset)
        source = yield from sources.open(mapping)
        if source is None:
            self._known.add(name)
            found.searched += 1
            found.missing += 1
            found.first_missing = found.first_missing or sources.shown(mapping)
            return
        dataset = source.dataset
        problem = unreadable(dataset, self._dtype, self._item_shape)
        if problem is not None:
            raise sources.refusal(mapping, problem)
        if dataset.virtual is None:
            self._known.add(name)
            found.searched += 1
            found.depends_on_all &= dataset.layout.kind is not LayoutKind.EXTERNAL
            return
        found.depends_on_all = False
        try:
            box = source_box(mapping, axes, source.shape or ())
        except Unpaired as error:
            raise sources.refusal(mapping, str(error)) from None
        part = (dataset.file.key, dataset.path, box)
        if box is not None and part not in self._known:
            self._known.add(part)
            yield from self.look(source, dataset.virtual, box)
