"""The object at a path of an HDF5 file, how it is stored, and which way a read of it takes.

Everything here runs in the library lane.
"""

import itertools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
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
from asgihive.hdf5.chunk_index import open_index
from asgihive.hdf5.chunks import ChunkedStorage
from asgihive.hdf5.datasets import Dataset
from asgihive.hdf5.file_bytes import decoded, split_path, text
from asgihive.hdf5.filters.pipeline import make_pipeline
from asgihive.hdf5.layout import Filter, Layout, LayoutKind, layout_of
from asgihive.hdf5.linear import list_segments
from asgihive.hdf5.links import (
    PASSING,
    Entity,
    ExternalLink,
    LinkResolution,
    Resolved,
    kind_of,
    walk,
)
from asgihive.hdf5.objects import list_links
from asgihive.hdf5.open_file import OpenFile, libhdf5_reason
from asgihive.hdf5.opening import Sources, find_dataset
from asgihive.hdf5.plan import select_all
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.remote import close_descriptor
from asgihive.hdf5.structure_checks import check_links
from asgihive.hdf5.type_descriptions import describe_type
from asgihive.hdf5.types import LIBRARY_ERRORS
from asgihive.hdf5.virtual import MAX_NUMBERED_SOURCES, Mapping
from asgihive.hdf5.virtual_sources import find_mismatch


class Way(StrEnum):
    """How the values of a dataset come out of its file."""

    ENGINE = "engine"
    CONTIGUOUS = "contiguous"
    LIBRARY = "library"
    VIRTUAL = "virtual"
    RAW_STORAGE = "raw storage"


@dataclass(frozen=True, slots=True)
class LinkReport:
    """A soft or external link, and whether it leads anywhere."""

    path: str
    kind: str
    target_file: str | None
    """Of an external link."""
    target_path: str
    resolves: bool
    problem: str | None
    """Why it does not resolve."""


@dataclass(frozen=True, slots=True)
class FilterReport(Filter):
    """One filter of the pipeline, in the order of writing."""

    decoder: str | None = None
    """`asgihive`, `libhdf5`, or None = it is missing."""
    install: str | None = None
    """What to do about a missing one."""


@dataclass(frozen=True, slots=True)
class ChunksReport:
    """The chunks of a dataset, sizes in bytes."""

    shape: tuple[int, ...]
    raw_bytes: int
    """The size of one chunk, decoded."""
    in_grid: int
    """How many there could be."""
    stored: int
    smallest: int | None = None
    """As stored; None where it was not asked for, or no chunk is stored."""
    median: int | None = None
    largest: int | None = None


@dataclass(frozen=True, slots=True)
class SourceReport:
    """A source of a virtual dataset, as the mapping names it."""

    file: str
    dataset: str
    found: bool
    """Whether it is there and may be read; if not, and it is not refused, it is missing, and its
    part of the dataset is fill values."""
    refused: bool
    """Whether reading its part of the dataset is an error."""
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
    """How a dataset is stored; sizes in bytes."""

    dataspace: str
    """`simple`, `scalar`, `null`, or `unknown` for a virtual one that cannot be read."""
    shape: tuple[int, ...] | None
    maxshape: tuple[int | None, ...] | None
    """None for an axis without bounds; None altogether where it is not known."""
    layout: str
    chunks: ChunksReport | None
    filters: tuple[FilterReport, ...]
    raw_bytes: int | None
    """Elements times the size of one; values of variable length are not counted."""
    stored_bytes: int | None
    """What the file holds of them; None of a virtual dataset."""
    ratio: float | None
    """Raw by stored; None where it says nothing."""
    way: Way | None
    """Of a read of everything; None where nothing can be read, or there is nothing."""
    reason: str | None
    """Why that way, if it is not the fast one, or why none."""
    sources: tuple[SourceReport, ...] | None
    """Of a virtual dataset, if asked for."""
    segments: tuple[SegmentReport, ...] | None
    """Of external raw storage."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What lies behind a path."""

    name: str
    """The last component of the path; "" of the root."""
    path: str
    kind: str
    """As `/meta` says; of a link that does not resolve, that of the link; `other` for what cannot
    be told."""
    file: str | None = None
    """Where the object really lies, links followed; None where there is none."""
    object_path: str | None = None
    links: tuple[LinkReport, ...] = ()
    """Those that the path passes through, in this order; of a child, the last one alone."""
    type: dict[str, Any] | None = None
    """Of a dataset or a named datatype, as `/meta` shows it."""
    storage: StorageReport | None = None
    """Of a dataset."""
    members: int | None = None
    """How many links a group has."""
    children: tuple["Inspection", ...] | None = None
    """Of a group, by name; None where they were not asked for."""
    problem: str | None = None
    """What is damaged, or why the link does not resolve."""


# What the extra `codecs` brings decoders for: szip (imagecodecs), the rest by hdf5plugin.
CODECS_EXTRA = frozenset(
    (4, 307, 32001, 32004, 32008, 32013, 32015, 32017, 32018, 32024, 32026, 32028, 32033)
)

# What has no NumPy bytes; a type of more than one of these is called by the first.
_POINTERS = (
    (h5t.REFERENCE, "references"),
    (h5t.VLEN, "variable-length sequences"),
    (h5t.STRING, "variable-length strings"),
)


def inspect_path(lease: Lease, file: OpenFile, path: str) -> Inspection:
    """Return what lies at `path` of `file`: a group with its children, a dataset in detail.

    A last link that does not resolve is shown itself. One damaged child hides no other.

    Raises:
        EntityMissing: the path names nothing.
        LinkUnresolved: a link on the way does not resolve.
        FileUnreadable: the object is damaged.
        FileChanged, Overloaded, Unsettled: conditions of the moment; ask again.
    """
    inspector = _Inspector(lease, file)
    names = split_path(path)
    passed = (decoded(b"/".join(names[: at + 1])) for at in range(len(names)))
    links = tuple(filter(None, (describe_link(lease, file, each) for each in passed)))
    entity = walk(lease, file, path, LinkResolution.ONLY_VALID)
    try:
        return inspector.describe(entity, path, links, detailed=True)
    except LIBRARY_ERRORS as error:
        place = entity.file.place if isinstance(entity, Resolved) else file.place
        detail = f"{entity.path} is damaged ({libhdf5_reason(error)})"
        raise FileUnreadable(place.name, detail) from error


def describe_link(lease: Lease, file: OpenFile, path: str) -> LinkReport | None:
    """Return what the last link of a path is, None if it is a hard one; raises as `walk`."""
    entity = walk(lease, file, path, LinkResolution.NONE)
    if isinstance(entity, Resolved):
        return None
    problem = None
    try:
        walk(lease, file, path, LinkResolution.ALL)
    except PASSING:
        raise
    except AsgihiveError as error:
        problem = error.detail if isinstance(error, LinkUnresolved) else str(error)
    target_file = entity.target_file if isinstance(entity, ExternalLink) else None
    kind, target = kind_of(entity), entity.target_path
    return LinkReport(entity.path, kind, target_file, target, problem is None, problem)


@dataclass(frozen=True, slots=True)
class _Inspector:
    lease: Lease
    file: OpenFile

    def describe(
        self, entity: Entity, path: str, links: tuple[LinkReport, ...], *, detailed: bool
    ) -> Inspection:
        """Return what an entity is, which lies at `path`, behind the `links`.

        Raises:
            AsgihiveError: and what h5py raises for a damaged object.
        """
        name = entity.path.rsplit("/", 1)[-1]
        if not isinstance(entity, Resolved):
            # Of two links of one name, which only a forged group has, a path finds one.
            problem = links[-1].problem if links else "another link has its name"
            return Inspection(name, entity.path, kind_of(entity), links=links, problem=problem)
        object_id = entity.id
        described_type = storage = members = children = None
        if isinstance(object_id, h5g.GroupID):
            if detailed:
                listed = run_at_once(list_links(entity.object))
                children = tuple(
                    self._describe_child(path, each.name, each.type) for each in listed
                )
                members = len(children)
            else:
                check_links(entity.file, entity.object.address)
                members = int(object_id.get_num_objs())
        elif isinstance(object_id, h5d.DatasetID):
            described_type = describe_type(object_id.get_type())
            storage = self._describe_storage(entity, path, detailed=detailed)
        else:
            described_type = describe_type(object_id)
        return Inspection(
            name=name,
            path=entity.path,
            kind=entity.object.kind,
            file=entity.file.place.name,
            object_path="/" + "/".join(map(text, entity.location)),
            links=links,
            type=described_type,
            storage=storage,
            members=members,
            children=children,
        )

    def _describe_child(self, group_path: str, name: bytes, link_type: int) -> Inspection:
        path = f"{group_path.rstrip('/')}/{decoded(name)}"
        links: tuple[LinkReport, ...] = ()
        shown = "/" + "/".join(map(text, split_path(path)))
        if b"/" in name:
            # Forged: it can be asked for by no path.
            return Inspection(text(name), shown, "other", problem="its name holds a slash")
        try:
            if (
                link_type != h5l.TYPE_HARD
                and (link := describe_link(self.lease, self.file, path)) is not None
            ):
                links = (link,)
            entity = walk(self.lease, self.file, path, LinkResolution.ONLY_VALID)
            return self.describe(entity, path, links, detailed=False)
        except PASSING:
            raise
        except AsgihiveError as error:
            problem = str(error)
        except LIBRARY_ERRORS as error:
            problem = f"damaged ({libhdf5_reason(error)})"
        return Inspection(text(name), shown, "other", links=links, problem=problem)

    def _describe_storage(self, found: Resolved, path: str, *, detailed: bool) -> StorageReport:
        """Return how a dataset is stored; in detail, each chunk and source is looked at."""
        layout = layout_of(found.id)
        is_virtual = layout.kind is LayoutKind.VIRTUAL
        dataset = way = reason = sources = segments = None
        try:
            dataset = find_dataset(self.lease, self.file, path)
        except (TypeUnsupported, LibraryRefused, DamagedData, SourceRefused) as error:
            reason = error.detail
        else:
            way, reason = _find_way(dataset)
            if detailed and dataset.virtual is not None:
                sources = tuple(self._describe_sources(dataset))
        shape, dataspace, raw_bytes = None, "unknown", None
        # Asking libhdf5 of a virtual one would open the sources, wherever they are.
        if dataset is not None or not is_virtual:
            shape = found.id.get_space().shape if dataset is None else dataset.shape
            dataspace = "null" if shape is None else "simple" if shape else "scalar"
            count = 0 if shape is None else math.prod(shape)
            raw_bytes = count * found.id.get_type().get_size()
        stored_bytes = None if is_virtual else int(found.id.get_storage_size())
        # Of pointers, the size says nothing about what they point to.
        is_comparable = dataset is not None and not dataset.dtype.hasobject
        ratio = raw_bytes / stored_bytes if raw_bytes and stored_bytes and is_comparable else None
        if layout.kind is LayoutKind.EXTERNAL:
            segments = tuple(
                SegmentReport(
                    text(os.fsencode(each.file)),
                    each.offset,
                    each.size,
                    self._is_there(found.file, each.file),
                )
                for each in list_segments(layout.properties)
            )
        return StorageReport(
            dataspace=dataspace,
            shape=shape,
            maxshape=None if shape is None or is_virtual else _find_max_shape(found.id),
            layout=layout.kind.value,
            chunks=_describe_chunks(found, layout, shape, detailed=detailed),
            filters=tuple(map(_describe_filter, layout.filters)),
            raw_bytes=raw_bytes,
            stored_bytes=stored_bytes,
            ratio=ratio,
            way=way,
            reason=reason,
            sources=sources,
            segments=segments,
        )

    def _describe_sources(self, dataset: Dataset) -> Iterator[SourceReport]:
        """Yield each source once, in the order of the mappings."""
        if dataset.virtual is None or dataset.shape is None:
            return
        axes, seen = select_all(dataset.shape).axes, set()
        for mapping in dataset.virtual.mappings:
            for each in itertools.islice(mapping.expand(axes), MAX_NUMBERED_SOURCES):
                if (each.file, each.dataset) not in seen:
                    seen.add((each.file, each.dataset))
                    yield self._describe_source(dataset, each)

    def _describe_source(self, dataset: Dataset, mapping: Mapping) -> SourceReport:
        names = text(os.fsencode(mapping.file)), text(os.fsencode(mapping.dataset))
        # However many there are: this is one after another, and no answer of the service.
        sources = Sources(self.lease, dataset, 0, self.lease.seen.counted_anew())
        try:
            source = run_at_once(sources.open(mapping))
            if source is None:
                problem = f"{sources.shown(mapping)} is missing, and read as fill values"
                return SourceReport(*names, found=False, refused=False, way=None, problem=problem)
            way, reason = _find_way(source.dataset)
            mismatch = find_mismatch(source.dataset, dataset.dtype, dataset.item_shape)
            refusal = mismatch or (None if way else reason)
            return SourceReport(*names, True, refusal is not None, way, refusal)
        except SourceRefused as error:
            return SourceReport(*names, found=False, refused=True, way=None, problem=error.detail)
        finally:
            sources.give_back()
            sources.close()

    def _is_there(self, origin: OpenFile, name: str) -> bool:
        for place in self.lease.pool.sandbox.linked(origin.place, name):
            try:
                close_descriptor(self.lease.pool.sandbox.open(place))
            except (FileMissing, FileForbidden):
                continue
            return True
        return False


def _describe_filter(each: Filter) -> FilterReport:
    decoder = _find_decoder(each)
    install = f"a libhdf5 plugin for filter {each.id}, in a directory of HDF5_PLUGIN_PATH"
    if each.id in CODECS_EXTRA:
        install = "pip install 'asgihive[codecs]'"
    return FilterReport(each.id, each.name, each.values, decoder, None if decoder else install)


def _find_max_shape(dataset: h5d.DatasetID) -> tuple[int | None, ...]:
    most = dataset.get_space().get_simple_extent_dims(True)
    return tuple(None if extent == h5s.UNLIMITED else int(extent) for extent in most)


def _describe_chunks(
    found: Resolved, layout: Layout, shape: tuple[int, ...] | None, *, detailed: bool
) -> ChunksReport | None:
    if layout.chunks is None:
        return None
    raw_bytes = math.prod(layout.chunks) * found.id.get_type().get_size()
    if shape is None:
        return ChunksReport(layout.chunks, raw_bytes, 0, 0)
    pairs = zip(shape, layout.chunks, strict=False)
    in_grid = math.prod(-(-extent // chunk) for extent, chunk in pairs)
    if not detailed:
        return ChunksReport(layout.chunks, raw_bytes, in_grid, int(found.id.get_num_chunks()))
    grid, most = ChunkGrid(shape, layout.chunks), _find_max_shape(found.id)
    index = open_index(found.object, grid, most, is_filtered=bool(layout.filters))
    sizes = np.sort(index.list_all(lambda: None).sizes)
    of_interest = [sizes[at].item() for at in (0, (len(sizes) - 1) // 2, -1)] if len(sizes) else []
    return ChunksReport(layout.chunks, raw_bytes, in_grid, len(sizes), *of_interest)


def _find_way(dataset: Dataset) -> tuple[Way | None, str | None]:
    """Return which way a read of all of `dataset` takes, and why if it is not the fast one."""
    chunked, kind = dataset.chunked, dataset.layout.kind
    way: Way | None = Way.LIBRARY
    reason = None
    if dataset.virtual is not None:
        way = Way.VIRTUAL
    elif dataset.shape is None or 0 in dataset.shape:
        way, reason = None, "there are no elements"
    elif not dataset.needs_library:
        way = Way.CONTIGUOUS if chunked is None else Way.ENGINE
    elif chunked is not None:
        way, reason = _find_way_of_chunks(dataset, chunked)
    elif kind is LayoutKind.EXTERNAL:
        way = Way.RAW_STORAGE
        if dataset.dtype.hasobject:
            way, reason = None, "variable-length values cannot lie in external raw storage"
    elif kind is LayoutKind.COMPACT:
        reason = "compact layout: the values lie in the object's header"
    elif not dataset.id.get_storage_size():
        reason = "nothing is stored, so that all of it is the fill value"
    else:
        reason = _find_type_reason(dataset)
    return way, reason


def _find_way_of_chunks(dataset: Dataset, chunked: ChunkedStorage) -> tuple[Way | None, str | None]:
    """Return the way of chunks that need libhdf5.

    Their values are converted, or a filter has no decoder of ours.
    """
    filters, is_converted = dataset.layout.filters, chunked.fill is None
    foreign = [each for each in filters if _find_decoder(each) != "asgihive"]
    missing = [each for each in (filters if is_converted else foreign) if not each.available]
    if missing:
        masks = chunked.index.list_all(lambda: None).filter_masks
        skipped = int(np.bitwise_and.reduce(masks)) if len(masks) else ~0
        used = [each for number, each in enumerate(filters) if not skipped >> number & 1]
        gone = [_name_filter(each) for each in missing if each in used]
        if gone:
            return None, f"missing: {', '.join(gone)}"
    reasons = [_find_type_reason(dataset) or "fill value of an array type"] * is_converted
    return Way.LIBRARY, "; ".join([*reasons, *map(_name_filter, foreign)])


def _find_type_reason(dataset: Dataset) -> str | None:
    """Return what of its type only libhdf5 converts; None when its bytes are NumPy's."""
    if dataset.dtype.hasobject:
        file_type = dataset.id.get_type()
        pointers = next((name for kind, name in _POINTERS if file_type.detect_class(kind)), "")
        return f"type: {pointers}"
    return None if dataset.memory_type.is_as_stored else "type: its bytes are not those of NumPy"


def _find_decoder(each: Filter) -> str | None:
    """Return `asgihive`, `libhdf5`, or None = there is none here."""
    if not make_pipeline((each,), 1).needs_library:
        return "asgihive"
    return "libhdf5" if each.available else None


def _name_filter(each: Filter) -> str:
    return f"filter {each.id} ({each.name.partition(';')[0]})" if each.name else f"filter {each.id}"
