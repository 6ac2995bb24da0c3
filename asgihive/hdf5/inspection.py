"""What lies behind a path of an HDF5 file, how it is stored, and which way a read of it takes.

Everything here runs in the library lane.
"""

import itertools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
from h5py import h5d, h5g, h5l, h5s, h5t

from asgihive.concurrency import run_at_once
from asgihive.errors import (
    AsgihiveError,
    DamagedData,
    FileForbidden,
    FileMissing,
    FileUnreadable,
    LibraryRefused,
    LinkUnresolved,
    SourceRefused,
    TypeUnsupported,
)
from asgihive.hdf5.chunk_grid import ChunkGrid
from asgihive.hdf5.chunk_index import ChunkIndex, open_index
from asgihive.hdf5.chunks import ChunkedStorage
from asgihive.hdf5.datasets import Dataset
from asgihive.hdf5.entities import LIBRARY_ERRORS
from asgihive.hdf5.filters.pipeline import make_pipeline
from asgihive.hdf5.group_links import list_links
from asgihive.hdf5.layout import Filter, Layout, LayoutKind, layout_of
from asgihive.hdf5.linear import list_segments
from asgihive.hdf5.links import (
    PASSING,
    ExternalLink,
    LinkResolution,
    Resolved,
    SoftLink,
    kind_of,
    kind_of_object,
    walk,
)
from asgihive.hdf5.names import components, encoded, text
from asgihive.hdf5.open_file import OpenFile, address_of, dataset_refreshed, libhdf5_reason
from asgihive.hdf5.opening import Sources, find_dataset
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.sandbox import open_regular
from asgihive.hdf5.selection import whole
from asgihive.hdf5.structure_checks import check_links
from asgihive.hdf5.type_descriptions import describe_type
from asgihive.hdf5.virtual import MAX_NUMBERED_SOURCES, Mapping
from asgihive.hdf5.virtual_sources import find_mismatch


class Way(StrEnum):
    """How the values of a dataset come out of its file."""

    ENGINE = "engine"
    CONTIGUOUS = "contiguous"
    LIBRARY = "library"
    VIRTUAL = "virtual"
    RAW_STORAGE = "raw storage"


def way_of(dataset: Dataset) -> tuple[Way | None, str | None]:
    """Which way a read of all of `dataset` takes, and the reason if it is not the fast one."""
    if dataset.virtual is not None:
        return Way.VIRTUAL, None
    if dataset.shape is None or 0 in dataset.shape:
        return None, "there are no elements"
    if not dataset.needs_library:
        return (Way.ENGINE if dataset.chunked is not None else Way.CONTIGUOUS), None
    if dataset.chunked is not None:
        return _way_of_chunks(dataset, dataset.chunked)
    if dataset.layout.kind is LayoutKind.EXTERNAL:
        pointers = dataset.dtype.hasobject
        return (None, _NO_POINTERS) if pointers else (Way.RAW_STORAGE, None)
    return Way.LIBRARY, _reason_in_one_piece(dataset)


_NO_POINTERS = "variable-length values cannot lie in external raw storage"


def _reason_in_one_piece(dataset: Dataset) -> str | None:
    """Why libhdf5 reads what is neither chunked nor in other files."""
    if dataset.layout.kind is LayoutKind.COMPACT:
        return "compact layout: the values lie in the object's header"
    if not dataset.id.get_storage_size():
        return "nothing is stored, so that all of it is the fill value"
    return _type_reason(dataset)


def _way_of_chunks(dataset: Dataset, chunked: ChunkedStorage) -> tuple[Way | None, str | None]:
    """Of chunks that need libhdf5: as the values are converted, or a filter has no decoder."""
    converted = chunked.fill is None
    filters = dataset.layout.filters
    missing = [
        each
        for each in filters
        if not each.available and (converted or decoder_of(each) != "asgihive")
    ]
    if missing:
        _, used = stored_sizes(chunked.index, filters)
        gone = [_called(each) for each in missing if each in used]
        if gone:
            return None, f"missing: {', '.join(gone)}"
    reasons = [_type_reason(dataset) or "fill value of an array type"] if converted else []
    reasons += [_called(each) for each in filters if decoder_of(each) != "asgihive"]
    return Way.LIBRARY, "; ".join(reasons)


def _type_reason(dataset: Dataset) -> str | None:
    """What of its type only libhdf5 converts; None when its bytes are NumPy's."""
    file_type = dataset.id.get_type()
    if dataset.dtype.hasobject:
        pointers = next((name for kind, name in _POINTERS if file_type.detect_class(kind)), "")
        return f"type: {pointers}"
    if dataset.memory_type.is_as_stored:
        return None
    return "type: its bytes are not those of NumPy"


# What has no NumPy bytes; a type of more than one of these is called by the first.
_POINTERS = (
    (h5t.REFERENCE, "references"),
    (h5t.VLEN, "variable-length sequences"),
    (h5t.STRING, "variable-length strings"),
)


def _called(each: Filter) -> str:
    named = f" ({each.name.partition(';')[0]})" if each.name else ""
    return f"filter {each.id}{named}"


def decoder_of(each: Filter) -> str | None:
    """`asgihive`, `libhdf5`, or None = there is none here."""
    if not make_pipeline((each,), 1).needs_library:
        return "asgihive"
    return "libhdf5" if each.available else None


def stored_sizes(
    index: ChunkIndex, filters: tuple[Filter, ...]
) -> tuple[np.ndarray[Any, np.dtype[np.uint64]], list[Filter]]:
    """The sizes of all stored chunks, and the `filters` that at least one of them went through.

    Raises:
        DamagedMetadata: they cannot be listed.
    """
    table = index.list_all(lambda: None)
    skipped = int(np.bitwise_and.reduce(table.filter_masks)) if len(table.sizes) else ~0
    used = [each for number, each in enumerate(filters) if not skipped >> number & 1]
    return table.sizes, used


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
            for each in itertools.islice(mapping.expand(everything), MAX_NUMBERED_SOURCES):
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
            wrong = find_mismatch(source.dataset, dataset.dtype, dataset.item_shape)
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
            for each in list_segments(layout.properties)
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
    sizes, _ = stored_sizes(open_index(found.file, dataset, grid, is_filtered=is_filtered), ())
    stored = len(sizes)
    if not stored:
        return ChunksReport(layout.chunks, raw_bytes, in_grid, stored)
    ordered = np.sort(sizes)
    of_interest = (int(ordered[at]) for at in (0, (stored - 1) // 2, -1))
    return ChunksReport(layout.chunks, raw_bytes, in_grid, stored, *of_interest)


@dataclass(frozen=True, slots=True)
class LinkReport:
    """A soft or external link, and whether it leads anywhere.

    target_file: of an external link.
    problem: why it does not resolve.
    """

    path: str
    kind: str
    target_file: str | None
    target_path: str
    resolves: bool
    problem: str | None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What lies behind a path.

    name: the last component of the path; "" of the root.
    kind: as `/meta` says; of a link that does not resolve, that of the link; `other` for what
        cannot be told.
    file, object_path: where the object really lies, links followed; None where there is none.
    links: those that the path passes through, in this order; of a child, the last one alone.
    type: of a dataset or a named datatype, as `/meta` shows it.
    storage: of a dataset.
    members: how many links a group has.
    children: of a group, by name; None where they were not asked for.
    problem: what is damaged, or why the link does not resolve.
    """

    name: str
    path: str
    kind: str
    file: str | None = None
    object_path: str | None = None
    links: tuple[LinkReport, ...] = ()
    type: dict[str, Any] | None = None
    storage: StorageReport | None = None
    members: int | None = None
    children: tuple["Inspection", ...] | None = None
    problem: str | None = None


def inspect_path(lease: Lease, file: OpenFile, path: str, max_hops: int) -> Inspection:
    """What lies at `path` of `file`: a group with its children, a dataset in detail.

    A last link that does not resolve is shown itself. One damaged child hides no other.

    Raises:
        EntityMissing: the path names nothing.
        LinkUnresolved: a link on the way does not resolve.
        FileUnreadable: the object is damaged.
        FileChanged, Overloaded, Unsettled: conditions of the moment; ask again.
    """
    return _Inspector(lease, file, max_hops).inspect(path)


@dataclass(frozen=True, slots=True)
class _Inspector:
    lease: Lease
    file: OpenFile
    max_hops: int

    def inspect(self, path: str) -> Inspection:
        names = components(encoded(path))
        before = (b"/".join(names[:count]) for count in range(1, len(names) + 1))
        found = (self._link(_as_path(each)) for each in before)
        links = tuple(each for each in found if each is not None)
        entity = walk(self.lease, self.file, path, LinkResolution.ONLY_VALID, self.max_hops)
        if not isinstance(entity, Resolved):
            return self._dangling(entity, links)
        try:
            return self._object(entity, path, links, detailed=True)
        except LIBRARY_ERRORS as error:
            detail = f"{entity.path} is damaged ({libhdf5_reason(error)})"
            raise FileUnreadable(entity.file.place.name, detail) from error

    def _link(self, path: str) -> LinkReport | None:
        """The last link of `path`, None if it is a hard one."""
        entity = walk(self.lease, self.file, path, LinkResolution.NONE, self.max_hops)
        if isinstance(entity, Resolved):
            return None
        problem = None
        try:
            walk(self.lease, self.file, path, LinkResolution.ALL, self.max_hops)
        except PASSING:
            raise
        except LinkUnresolved as error:
            problem = error.detail
        except AsgihiveError as error:
            problem = str(error)
        return LinkReport(
            path=entity.path,
            kind=kind_of(entity),
            target_file=entity.target_file if isinstance(entity, ExternalLink) else None,
            target_path=entity.target_path,
            resolves=problem is None,
            problem=problem,
        )

    def _dangling(
        self, entity: SoftLink | ExternalLink, links: tuple[LinkReport, ...]
    ) -> Inspection:
        return Inspection(
            name=_last(entity.path),
            path=entity.path,
            kind=kind_of(entity),
            links=links,
            # Of two links of one name, which only a forged group has, a path finds one.
            problem=links[-1].problem if links else "another link has its name",
        )

    def _object(
        self, entity: Resolved, path: str, links: tuple[LinkReport, ...], *, detailed: bool
    ) -> Inspection:
        object_id = entity.id
        kind_of_type = storage = members = children = None
        if isinstance(object_id, h5g.GroupID):
            if detailed:
                children = self._children(entity, path)
                members = len(children)
            else:
                check_links(entity.file, address_of(object_id))
                members = int(object_id.get_num_objs())
        elif isinstance(object_id, h5d.DatasetID):
            object_id = dataset_refreshed(entity.file, object_id)
            kind_of_type = describe_type(object_id.get_type())
            found = replace(entity, id=object_id)
            reporter = StorageReporter(self.lease, self.file, self.max_hops)
            storage = reporter.report(found, path, detailed=detailed)
        else:
            kind_of_type = describe_type(object_id)
        return Inspection(
            name=_last(entity.path),
            path=entity.path,
            kind=kind_of_object(object_id),
            file=entity.file.place.name,
            object_path="/" + "/".join(map(text, entity.location)),
            links=links,
            type=kind_of_type,
            storage=storage,
            members=members,
            children=children,
        )

    def _children(self, group: Resolved, path: str) -> tuple[Inspection, ...]:
        links = run_at_once(list_links(group.file, group.id))
        return tuple(self._child(path, each.name, each.type) for each in links)

    def _child(self, group_path: str, name: bytes, link_type: int) -> Inspection:
        path = f"{group_path.rstrip('/')}/{_as_path(name)}"
        shown = "/" + "/".join(map(text, components(encoded(path))))
        if b"/" in name:
            # Forged: it can be asked for by no path.
            return Inspection(text(name), shown, "other", problem="its name holds a slash")
        links: tuple[LinkReport, ...] = ()
        try:
            if link_type != h5l.TYPE_HARD:
                link = self._link(path)
                links = () if link is None else (link,)
            only_valid = LinkResolution.ONLY_VALID
            entity = walk(self.lease, self.file, path, only_valid, self.max_hops)
            if isinstance(entity, Resolved):
                return self._object(entity, path, links, detailed=False)
            return self._dangling(entity, links)
        except PASSING:
            raise
        except AsgihiveError as error:
            problem = str(error)
        except LIBRARY_ERRORS as error:
            problem = f"damaged ({libhdf5_reason(error)})"
        return Inspection(text(name), shown, "other", links=links, problem=problem)


def _as_path(name: bytes) -> str:
    """The text that stands for exactly these bytes, see `encoded`."""
    return name.decode("utf-8", "surrogateescape")


def _last(path: str) -> str:
    return path.rsplit("/", 1)[-1]
