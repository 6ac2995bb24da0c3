"""Blocks of virtual datasets: their sources are found by one lane and read by others."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from asgihive.errors import Overloaded
from asgihive.hdf5.chunk_table import Places
from asgihive.hdf5.datasets import Array, Dataset
from asgihive.hdf5.mapping import Mapping, Piece
from asgihive.hdf5.opening import Source, Sources
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.selection import Axis
from asgihive.hdf5.virtual import VirtualLayout, fill_values, mappings_of, pieces_of

# Files held open at once for one block, and parts of them that are read at once.
_SOURCES_AT_ONCE = 16
_SHARES_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class SourceShare:
    """A part of a source that needs no library, and where it goes."""

    dataset: Dataset
    lease: Lease
    axes: tuple[Axis, ...]
    places: Places | None
    wanted: Array

    def read(self, *, keep: bool) -> None:
        """Fill `wanted`. Raises as `Dataset.read`."""
        shape = (*(axis.count for axis in self.axes), *self.dataset.item_shape)
        if self.wanted.shape == shape:
            self.dataset.read_into(self.wanted, self.lease, self.axes, self.places, keep=keep)
        else:
            read = self.dataset.read(self.lease, self.axes, places=self.places, keep=keep)
            self.wanted[...] = read.reshape(self.wanted.shape)


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
        self._sources = Sources(lease, dataset.file, dataset.max_hops, source.depth)
        self._mappings: Iterator[Mapping] = mappings_of(layout, axes)
        self._source: Source | None = None
        self._pieces: Iterator[Piece] = iter(())
        self._piece: Piece | None = None
        with dataset.diagnosed(lease, axes):
            shape = (*(axis.count for axis in axes), *dataset.item_shape)
            self.values = fill_values(dataset.layout.properties, shape, dtype)

    def advance(self) -> list[SourceShare]:
        """Read what needs the library, and return what is to be read next, in any order.

        Everything is read when that is nothing. Until it is read, or given up, sources stay open.

        Raises:
            TypeUnsupported, FileChanged, Overloaded, Unsettled: and as `Dataset.read`.
        """
        with self._dataset.diagnosed(self._lease, self._axes):
            self._sources.give_back(keep=self._source)
            shares: list[SourceShare] = []
            targets: list[tuple[slice, ...]] = []
            while len(shares) < _SHARES_AT_ONCE:
                found = self._next_piece(is_first=not shares)
                # Later mappings win, so what they overwrite has to be read before.
                if found is None or any(_overlap(found[1].target, each) for each in targets):
                    break
                self._piece = None
                share = self._begun(*found)
                if share is not None:
                    shares.append(share)
                    targets.append(found[1].target)
            return shares

    def read(self) -> Array:
        """All of it, here. Raises as `advance`."""
        try:
            while shares := self.advance():
                for share in shares:
                    share.read(keep=True)
        finally:
            self.close()
        return self.values

    def close(self) -> None:
        """Let go of the sources, also when not everything was read; from any thread."""
        self._sources.close()

    def _next_piece(self, *, is_first: bool) -> tuple[Source, Piece] | None:
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
            if not self._has_next_source(is_first=is_first):
                return None

    def _has_next_source(self, *, is_first: bool) -> bool:
        mapping = next(self._mappings, None)
        if mapping is None:
            return False
        try:
            source = self._sources.open(mapping.file, mapping.dataset)
        except Overloaded:
            if is_first:
                raise
            # There will be room once those that are held are given back.
            self._mappings = itertools.chain((mapping,), self._mappings)
            return False
        if source is not None and source.shape is not None and mapping.fits(source.shape):
            self._source = source
            self._pieces = pieces_of(mapping, self._axes, source.shape)
        return True

    def _begun(self, source: Source, piece: Piece) -> SourceShare | None:
        """The piece, to be read elsewhere; None when that had to be done here."""
        dataset, lease = source.dataset, source.lease
        wanted = self.values[piece.target]
        if dataset.virtual is not None or dataset.needs_library or wanted.dtype != dataset.dtype:
            read = read_whole(source, piece.axes, wanted.dtype)
            wanted[...] = read.reshape(wanted.shape)
            return None
        places = dataset.places() or dataset.locate(lease, piece.axes)
        return SourceShare(dataset, lease, piece.axes, places, wanted)


def read_whole(source: Source, axes: tuple[Axis, ...], dtype: np.dtype[Any]) -> Array:
    """The elements at `axes` of a dataset of any layout, in the library lane.

    Raises as `Dataset.read` and `VirtualRead.advance`.
    """
    dataset = source.dataset
    if dataset.virtual is None:
        return dataset.read(source.lease, axes, dtype)
    return VirtualRead(source, dataset.virtual, axes, dtype).read()


def _overlap(first: tuple[slice, ...], second: tuple[slice, ...]) -> bool:
    """False when certainly no element is in both."""
    return all(
        a.start < b.stop
        and b.start < a.stop
        and (a.start - b.start) % math.gcd(a.step or 1, b.step or 1) == 0
        for a, b in zip(first, second, strict=True)
    )
