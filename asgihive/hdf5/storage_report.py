"""How a dataset is stored, and which way a read of it takes, with the reasons.

Everything here runs in the library lane.
"""

import itertools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from h5py import h5d, h5s

from asgihive.concurrency import run_at_once
from asgihive.errors import (
    DamagedData,
    FileForbidden,
    FileMissing,
    LibraryRefused,
    SourceRefused,
    TypeUnsupported,
)
from asgihive.hdf5.chunk_index import chunk_index
from asgihive.hdf5.chunk_table import ChunkGrid
from asgihive.hdf5.datasets import Dataset
from asgihive.hdf5.layout import Filter, Layout, LayoutKind, layout_of
from asgihive.hdf5.links import Resolved
from asgihive.hdf5.mapping import Mapping
from asgihive.hdf5.names import text
from asgihive.hdf5.open_file import OpenFile
from asgihive.hdf5.opening import Sources, find_dataset
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.raw_storage import raw_segments
from asgihive.hdf5.sandbox import open_regular
from asgihive.hdf5.selection import whole
from asgihive.hdf5.virtual import MAX_NUMBERED_SOURCES
from asgihive.hdf5.virtual_reading import unreadable
from asgihive.hdf5.ways import Way, decoder_of, stored_sizes, way_of

# What the extra `codecs` brings decoders for: szip (imagecodecs), the rest by hdf5plugin.
CODECS_EXTRA = frozenset(
    (4, 307, 32001, 32004, 32008, 32013, 32015, 32017, 32018, 32024, 32026, 32028, 32033)
)


@dataclass(frozen=True, slots=True)
class FilterReport:
    """One filter of the pipeline, in the order of writing.

    decoder: `asgihive`, `libhdf5`, or None = it is missing.
    install: what to do about a missing one.
    """

    id: int
    name: str
    values: tuple[int, ...]
    decoder: str | None
    install: str | None


@dataclass(frozen=True, slots=True)
class ChunksReport:
    """The chunks of a dataset, sizes in bytes.

    raw_bytes: of one chunk, decoded.
    in_grid, stored: how many there could be, and are.
    smallest, median, largest: as stored; None where they were not asked for, or none is.
    """

    shape: tuple[int, ...]
    raw_bytes: int
    in_grid: int
    stored: int
    smallest: int | None = None
    median: int | None = None
    largest: int | None = None


@dataclass(frozen=True, slots=True)
class SourceReport:
    """A source of a virtual dataset, as the mapping names it.

    found: whether it is there and may be read; if not, and it is not refused, it is missing, and
        its part of the dataset is fill values.
    refused: whether reading its part of the dataset is an error.
    problem: why it is not found or refused.
    """

    file: str
    dataset: str
    found: bool
    refused: bool
    way: Way | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class SegmentReport:
    """A part of external raw storage: `bytes` of `file` from `offset` on."""

    file: str
    offset: int
    bytes: int
    found: bool


@dataclass(frozen=True, slots=True)
class StorageReport:
    """How a dataset is stored; sizes in bytes.

    dataspace: `simple`, `scalar`, `null`, or `unknown` for a virtual one that cannot be read.
    maxshape: None for an axis without bounds; None altogether where it is not known.
    raw_bytes: elements times the size of one; values of variable length are not counted.
    stored_bytes: what the file holds of them; None of a virtual dataset.
    ratio: raw by stored; None where it says nothing.
    way: of a read of everything; None where nothing can be read, or there is nothing.
    reason: why that way, if it is not the fast one, or why none.
    sources: of a virtual dataset, if asked for.
    segments: of external raw storage.
    """

    dataspace: str
    shape: tuple[int, ...] | None
    maxshape: tuple[int | None, ...] | None
    layout: str
    chunks: ChunksReport | None
    filters: tuple[FilterReport, ...]
    raw_bytes: int | None
    stored_bytes: int | None
    ratio: float | None
    way: Way | None
    reason: str | None
    sources: tuple[SourceReport, ...] | None
    segments: tuple[SegmentReport, ...] | None


@dataclass(frozen=True, slots=True)
class StorageReporter:
    """Reports on datasets of `file` and of whatever its links lead to."""

    lease: Lease
    file: OpenFile
    max_hops: int

    def report(self, found: Resolved, path: str, *, detailed: bool) -> StorageReport:
        """How the dataset `found` at `path` is stored.

        Args:
            detailed: looks at each chunk, and for each source of a virtual dataset.

        Raises:
            FileChanged, Overloaded, Unsettled: conditions of the moment; ask again.
            and what h5py raises for a damaged dataset, see `entities.LIBRARY_ERRORS`.
        """
        layout = layout_of(found.id)
        dataset, problem = self._opened(path)
        dataspace, shape = self._extent(found, layout, dataset)
        file_type = found.id.get_type()
        raw_bytes = None
        if dataspace != "unknown":
            raw_bytes = 0 if shape is None else math.prod(shape) * file_type.get_size()
        virtual = layout.kind is LayoutKind.VIRTUAL
        stored_bytes = None if virtual else int(found.id.get_storage_size())
        # Of pointers, the size says nothing about what they point to.
        comparable = dataset is not None and not dataset.dtype.hasobject
        ratio = raw_bytes / stored_bytes if raw_bytes and stored_bytes and comparable else None
        way, reason = (None, problem) if dataset is None else way_of(dataset)
        sources = None
        if detailed and dataset is not None and dataset.virtual is not None:
            sources = tuple(self._sources(dataset))
        return StorageReport(
            dataspace=dataspace,
            shape=shape,
            maxshape=None if virtual or shape is None else _most(found.id),
            layout=layout.kind.value,
            chunks=_chunks(found, layout, shape, detailed=detailed),
            filters=tuple(map(_filter_report, layout.filters)),
            raw_bytes=raw_bytes,
            stored_bytes=stored_bytes,
            ratio=ratio,
            way=way,
            reason=reason,
            sources=sources,
            segments=self._segments(found.file, layout),
        )

    def _opened(self, path: str) -> tuple[Dataset | None, str | None]:
        """The dataset as it is read, or why it cannot be."""
        try:
            return find_dataset(self.lease, self.file, path, self.max_hops), None
        except (TypeUnsupported, LibraryRefused, DamagedData, SourceRefused) as error:
            return None, error.detail

    def _extent(
        self, found: Resolved, layout: Layout, dataset: Dataset | None
    ) -> tuple[str, tuple[int, ...] | None]:
        if dataset is not None:
            shape = dataset.shape
        elif layout.kind is LayoutKind.VIRTUAL:
            # Asking libhdf5 would open the sources, wherever they are.
            return "unknown", None
        else:
            shape = found.id.get_space().shape
        if shape is None:
            return "null", None
        return ("simple" if shape else "scalar"), shape

    def _sources(self, dataset: Dataset) -> Iterator[SourceReport]:
        """Each source once, in the order of the mappings."""
        layout, shape = dataset.virtual, dataset.shape
        if layout is None or shape is None:
            return
        everything = whole(shape).axes
        seen = set()
        for mapping in layout.mappings:
            for each in itertools.islice(mapping.expanded(everything), MAX_NUMBERED_SOURCES):
                name = (each.file, each.dataset)
                if name not in seen:
                    seen.add(name)
                    yield self._source(dataset, each)

    def _source(self, dataset: Dataset, mapping: Mapping) -> SourceReport:
        names = text(os.fsencode(mapping.file)), text(os.fsencode(mapping.dataset))
        # However many there are: this is one after another, and no answer of the service.
        seen = self.lease.seen.counted_anew()
        sources = Sources(self.lease, dataset, self.max_hops, 0, seen)
        try:
            source = run_at_once(sources.open(mapping))
            if source is None:
                problem = f"{sources.shown(mapping)} is missing, and read as fill values"
                return SourceReport(*names, found=False, refused=False, way=None, problem=problem)
            way, reason = way_of(source.dataset)
            wrong = unreadable(source.dataset, dataset.dtype, dataset.item_shape)
            wrong = wrong or (None if way else reason)
            return SourceReport(
                *names, found=True, refused=wrong is not None, way=way, problem=wrong
            )
        except SourceRefused as error:
            return SourceReport(*names, found=False, refused=True, way=None, problem=error.detail)
        finally:
            sources.give_back()
            sources.close()

    def _segments(self, file: OpenFile, layout: Layout) -> tuple[SegmentReport, ...] | None:
        if layout.kind is not LayoutKind.EXTERNAL:
            return None
        return tuple(
            SegmentReport(
                text(os.fsencode(each.file)),
                each.offset,
                each.size,
                self._is_there(file, each.file),
            )
            for each in raw_segments(layout.properties)
        )

    def _is_there(self, origin: OpenFile, name: str) -> bool:
        for place in self.lease.pool.sandbox.linked(origin.place, name):
            try:
                os.close(open_regular(place))
            except (FileMissing, FileForbidden):
                continue
            return True
        return False


def _filter_report(each: Filter) -> FilterReport:
    decoder = decoder_of(each)
    install = None
    if decoder is None:
        install = f"a libhdf5 plugin for filter {each.id}, in a directory of HDF5_PLUGIN_PATH"
        if each.id in CODECS_EXTRA:
            install = "pip install 'asgihive[codecs]'"
    return FilterReport(each.id, each.name, each.values, decoder, install)


def _most(dataset: h5d.DatasetID) -> tuple[int | None, ...]:
    most = dataset.get_space().get_simple_extent_dims(True)
    return tuple(None if extent == h5s.UNLIMITED else int(extent) for extent in most)


def _chunks(
    found: Resolved, layout: Layout, shape: tuple[int, ...] | None, *, detailed: bool
) -> ChunksReport | None:
    dataset = found.id
    if layout.chunks is None:
        return None
    pairs = zip(shape or (), layout.chunks, strict=False)
    in_grid = 0 if shape is None else math.prod(-(-extent // chunk) for extent, chunk in pairs)
    raw_bytes = math.prod(layout.chunks) * dataset.get_type().get_size()
    if shape is None or not detailed:
        stored = 0 if shape is None else int(dataset.get_num_chunks())
        return ChunksReport(layout.chunks, raw_bytes, in_grid, stored)
    grid, is_filtered = ChunkGrid(shape, layout.chunks), bool(layout.filters)
    sizes, _ = stored_sizes(chunk_index(found.file, dataset, grid, is_filtered=is_filtered), ())
    stored = len(sizes)
    if not stored:
        return ChunksReport(layout.chunks, raw_bytes, in_grid, stored)
    ordered = np.sort(sizes)
    of_interest = (int(ordered[at]) for at in (0, (stored - 1) // 2, -1))
    return ChunksReport(layout.chunks, raw_bytes, in_grid, stored, *of_interest)
