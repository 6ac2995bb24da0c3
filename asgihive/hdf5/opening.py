"""From a path to an open dataset, and from a virtual one to those it is made of.

Everything here runs in the library lane.
"""

import contextlib
import math
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from h5py import h5p, h5s

from asgihive.concurrency import Portions, run_at_once
from asgihive.errors import (
    AsgihiveError,
    DamagedData,
    EntityMissing,
    FileMissing,
    FileOutside,
    KindMismatch,
    LinkUnresolved,
    SourceRefused,
    TypeUnsupported,
)
from asgihive.hdf5.chunks import find_fill, find_stored_size, open_chunks
from asgihive.hdf5.datasets import READ_ERRORS, Dataset
from asgihive.hdf5.file_bytes import FileBytes, NotPlain, split_path, text
from asgihive.hdf5.layout import Layout, LayoutKind, layout_of
from asgihive.hdf5.linear import ContiguousStorage
from asgihive.hdf5.links import PASSING, LinkResolution, Resolved, kind_of, walk_below
from asgihive.hdf5.objects import find_root
from asgihive.hdf5.open_file import Key, OpenFile, libhdf5_reason, refusal_of
from asgihive.hdf5.pool import Lease, ObjectKey, SourcesSeen
from asgihive.hdf5.stored_metadata import StoredDataset, interpret_dataset
from asgihive.hdf5.type_descriptions import KnownType, find_type, learn_type
from asgihive.hdf5.types import NoEquivalent, memory_type, without_dimensions
from asgihive.hdf5.virtual import Mapping, VirtualLayout, read_virtual_layout, read_written_shape

# Virtual datasets made of virtual datasets: HDF5 sets no bound, and cycles are possible.
MAX_VIRTUAL_DEPTH = 8


class TooDeep(NoEquivalent):
    """Virtual datasets are nested deeper than MAX_VIRTUAL_DEPTH."""

    def __init__(self) -> None:
        super().__init__(f"virtual datasets nested more than {MAX_VIRTUAL_DEPTH} deep")


def dataset_key(path: str) -> bytes:
    """Return by what the pool keeps the dataset at `path`."""
    return b"/".join(split_path(path))


def find_dataset(lease: Lease, file: OpenFile, path: str) -> Dataset:
    """Return the dataset at `path` as `open_dataset`, without a break."""
    return run_at_once(open_dataset(lease, file, path))


def open_dataset(lease: Lease, file: OpenFile, path: str, depth: int = 0) -> Portions[Dataset]:
    """Return the dataset at `path`; its file keeps it open for the next request.

    Args:
        depth: how many virtual datasets it is in.

    Raises:
        KindMismatch: something else is there.
        TypeUnsupported: its values cannot be held by NumPy.
        SourceRefused: it is virtual, and its extent depends on a source that is refused.
        and whatever `walk` raises.
    """
    key = dataset_key(path)
    known = lease.pool.datasets.get((file, key))
    if isinstance(known, Dataset):
        return known
    root = Resolved("/", find_root(file))
    entity = walk_below(lease, root, key, LinkResolution.ALL)
    if not isinstance(entity, Resolved) or entity.object.kind != "dataset":
        kind = kind_of(entity).replace("_", " ")
        raise KindMismatch(file.place.name, entity.path, kind, "a dataset")
    dataset = yield from _opened(lease, entity, depth)
    # Its path and extent depend on this file alone.
    alone = len(lease.depends) == 1 and dataset.file is file and not file.live
    if alone and (dataset.virtual is None or not dataset.virtual.can_grow):
        index_bytes = 0 if dataset.chunked is None else dataset.chunked.index.bytes
        index_bytes += 0 if dataset.virtual is None else dataset.virtual.bytes
        through_libhdf5 = dataset.chunked is not None and dataset.chunked.fill is None
        lease.pool.keep_dataset(
            file, key, dataset, chunk_cache=through_libhdf5, index_bytes=index_bytes
        )
    return dataset


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """What must be known of a dataset to read it, from its header or from libhdf5.

    Attributes:
        layout: how it is stored.
        shape: its extent as it is written; None = empty.
        max_shape: the largest extent; None = without a limit.
        dtype: of an element in memory, in an array type if it is one.
        item_shape: the dimensions of an array type.
        description: the type as `/meta` shows it.
        item_bytes: of an element in the file.
        is_as_stored: whether the bytes of an element in the file are those of one in memory, once
            the filters are undone.
        offset: in the file, of values that lie there in one piece as they do in memory.
        texts: the same and the number of bytes of strings of variable length.
        fill: what an unwritten chunk holds; None = only libhdf5 can say.
    """

    layout: Layout
    shape: tuple[int, ...] | None
    max_shape: tuple[int | None, ...]
    dtype: np.dtype[Any]
    item_shape: tuple[int, ...]
    description: dict[str, Any]
    item_bytes: int
    is_as_stored: bool
    offset: int | None
    texts: tuple[int, int] | None
    fill: np.ndarray[Any, Any] | None


def find_facts(entity: Resolved) -> DatasetFacts:
    """Return the facts of a dataset, from its header unless libhdf5 must tell.

    Raises:
        NoEquivalent, READ_ERRORS, NeedsThread
    """
    file, header = entity.object.file.metadata, entity.object.header
    if header is not None and file is not None:
        with contextlib.suppress(NotPlain):
            return _facts_of_header(entity, file, interpret_dataset(file, header))
    return _facts_of_library(entity)


def _facts_of_header(entity: Resolved, file: FileBytes, told: StoredDataset) -> DatasetFacts:
    known = find_type(told.type) or learn_type(told.type, entity.id.get_type())
    if known.dtype is None:
        raise NoEquivalent(known.refusal)
    count = 0 if told.shape is None else math.prod(told.shape)
    offset = texts = None
    item_bytes = known.size
    if item_bytes is None:
        item_bytes = find_stored_size(entity.file, entity.id.get_type())
    if told.place is not None:
        address, size = told.place
        if size != count * item_bytes:
            raise NotPlain
        if known.is_as_stored:
            offset = file.base + address
        elif known.is_text:
            texts = (address, size)
    layout = Layout(
        told.kind,
        told.chunks,
        told.filters,
        None if offset is not None else entity.object.find_properties,
    )
    return DatasetFacts(
        layout=layout,
        shape=told.shape,
        max_shape=told.max_shape,
        dtype=known.dtype,
        item_shape=known.item_shape,
        description=known.description,
        item_bytes=item_bytes,
        is_as_stored=known.is_as_stored,
        offset=offset,
        texts=texts,
        fill=_interpret_fill(told.fill, known, known.dtype),
    )


def _interpret_fill(
    fill: bytes | None, known: KnownType, dtype: np.dtype[Any]
) -> np.ndarray[Any, Any] | None:
    if not known.is_as_stored:
        return None
    if fill is None:
        return np.zeros((), dtype)
    # As libhdf5 has it, which h5py has no way to ask for one of an array type.
    if known.item_shape or len(fill) != dtype.itemsize:
        return None
    return np.frombuffer(fill, dtype).reshape(())


def _facts_of_library(entity: Resolved) -> DatasetFacts:
    dataset_id = entity.id
    layout = layout_of(dataset_id)
    type_id = dataset_id.get_type()
    memory, encoding = memory_type(type_id), type_id.encode()
    shape: tuple[int, ...] | None = None
    max_shape: tuple[int | None, ...] = ()
    # Asked for the extent of a virtual dataset, libhdf5 opens its sources.
    if layout.kind is not LayoutKind.VIRTUAL:
        space = dataset_id.get_space()
        shape = space.shape
        most = () if shape is None else space.get_simple_extent_dims(True)
        max_shape = tuple(None if each == h5s.UNLIMITED else int(each) for each in most)
    base, item_shape = without_dimensions(memory.dtype)
    is_chunked = layout.kind is LayoutKind.CHUNKED
    is_written = layout.kind is LayoutKind.CONTIGUOUS and dataset_id.get_storage_size() > 0
    return DatasetFacts(
        layout=layout,
        shape=shape,
        max_shape=max_shape,
        dtype=base,
        item_shape=item_shape,
        description=(find_type(encoding) or learn_type(encoding, type_id)).description,
        item_bytes=find_stored_size(entity.file, type_id) if is_chunked else memory.dtype.itemsize,
        is_as_stored=memory.is_as_stored,
        # Of what was never written, h5py (3.16) says one behind the user block.
        offset=dataset_id.get_offset() if memory.is_as_stored and is_written else None,
        texts=None,
        fill=find_fill(layout.properties, memory.dtype) if memory.is_as_stored else None,
    )


def _opened(lease: Lease, entity: Resolved, depth: int) -> Portions[Dataset]:
    file = entity.object.file
    try:
        facts = find_facts(entity)
        dtype, item_shape = facts.dtype, facts.item_shape
        layout, shape, virtual = facts.layout, facts.shape, None
        if layout.kind is LayoutKind.VIRTUAL:
            virtual = yield from read_virtual_layout(entity.id, layout.properties)
            sources = Sources(lease, entity, depth)
            shape = yield from _virtual_shape(sources, virtual)
        chunked = contiguous = None
        if layout.kind is LayoutKind.CHUNKED and shape is not None:
            chunked = open_chunks(
                entity.object,
                layout,
                dtype=dtype,
                item_shape=item_shape,
                shape=shape,
                max_shape=facts.max_shape,
                item_bytes=facts.item_bytes,
                fill=facts.fill,
                cache=lease.pool.chunks,
            )
        if facts.offset is not None and shape is not None:
            contiguous = ContiguousStorage(file, facts.offset, shape, dtype, item_shape)
        return Dataset(
            path=entity.path,
            file=file,
            object=entity.object,
            layout=layout,
            virtual=virtual,
            shape=shape,
            max_shape=facts.max_shape,
            dtype=dtype,
            item_shape=item_shape,
            is_as_stored=facts.is_as_stored,
            description=facts.description,
            item_bytes=dtype.itemsize * math.prod(item_shape),
            contiguous=contiguous,
            texts=facts.texts,
            chunked=chunked,
            needs_library=contiguous is None if chunked is None else chunked.needs_library,
        )
    except NoEquivalent as error:
        raise TypeUnsupported(file.place.name, entity.path, str(error)) from None
    except READ_ERRORS as error:
        lease.check()
        refusal = refusal_of(file.place.name, entity.path, error)
        if refusal is not None:
            raise refusal from error
        raise DamagedData(file.place.name, entity.path, libhdf5_reason(error)) from error


def virtual_extent(
    lease: Lease, found: Resolved, properties: h5p.PropDCID
) -> Portions[tuple[int, ...] | None]:
    """Return the extent of a virtual dataset for its description, None = empty.

    As if sources that are refused were missing, since it is to be described even where it
    cannot be read; and as last written, where its mappings cannot be.

    Raises:
        NoEquivalent: too many sources would have to be opened.
        FileChanged, Overloaded, Unsettled
    """
    try:
        virtual = yield from read_virtual_layout(found.id, properties)
    except (NoEquivalent, ValueError, RuntimeError):
        return read_written_shape(found.id, properties)
    sources = Sources(lease, found, 0)
    return (yield from _virtual_shape(sources, virtual, is_lenient=True))


def _virtual_shape(
    sources: "Sources", virtual: VirtualLayout, *, is_lenient: bool = False
) -> Portions[tuple[int, ...] | None]:
    """Return the extent of a virtual dataset now, inside the sandbox alone, None = empty."""
    if not virtual.can_grow:
        return virtual.written_shape
    key, seen = sources.key, sources.seen
    if key in seen.shapes:
        return seen.shapes[key]
    if key in seen.growing:
        detail = "its extent is that of a virtual dataset which is made of it"
        raise NoEquivalent(detail)
    seen.growing.add(key)
    try:
        shape = yield from virtual.find_shape(_SourceExtents(sources, is_lenient).of)
    finally:
        seen.growing.discard(key)
        sources.close()
    if not is_lenient:
        seen.shapes[key] = shape
    return shape


@dataclass(frozen=True, slots=True)
class _SourceExtents:
    """The extents of the sources of a virtual dataset, each looked for once.

    is_lenient: whether a source that is refused is as if it were missing.
    """

    sources: "Sources"
    is_lenient: bool
    known: dict[tuple[str, str, int | None], tuple[int, ...] | None] = field(default_factory=dict)

    def of(self, mapping: Mapping) -> Portions[tuple[int, ...] | None]:
        """Return that of a mapping's source; None where it is missing. Raises as `Sources.open`."""
        name = (mapping.file, mapping.dataset, mapping.source_rank)
        if name not in self.known:
            yield from self._look(name, mapping)
            # There may be thousands, and one is asked after another.
            self.sources.give_back()
            yield
        return self.known[name]

    def _look(self, name: tuple[str, str, int | None], mapping: Mapping) -> Portions[None]:
        self.known[name] = None
        if not self.sources.depth:
            self.sources.seen.count()
        try:
            source = yield from self.sources.open(mapping)
        except (SourceRefused, TooDeep):
            if not self.is_lenient:
                raise
        else:
            self.known[name] = None if source is None else source.shape


@dataclass(frozen=True, slots=True)
class Source:
    """A dataset, a source of a virtual one perhaps, together with the lease that holds it.

    depth: how many virtual datasets it is in.
    """

    dataset: Dataset
    lease: Lease
    depth: int = 0

    @property
    def shape(self) -> tuple[int, ...] | None:
        return self.dataset.shape


class Sources:
    """The open sources of one virtual dataset, each under a lease of its own.

    Args:
        virtual: the dataset; a file and a path.
        depth: how many virtual datasets it is in.
        seen: what is known of sources already; None = what the lease knows.
    """

    def __init__(
        self,
        lease: Lease,
        virtual: Resolved | Dataset,
        depth: int,
        seen: SourcesSeen | None = None,
    ) -> None:
        self._parent = lease
        self._virtual = virtual
        self.depth = depth
        self.seen = lease.seen if seen is None else seen
        self._held: list[Lease] = []
        self._closed = False

    def __len__(self) -> int:
        return len(self._held)

    @property
    def key(self) -> ObjectKey:
        """Of the virtual dataset."""
        return self._virtual.file.key, self._virtual.object.address

    def open(self, mapping: Mapping) -> Portions[Source | None]:
        """Return the source that a mapping names; None where it is missing.

        It is missing where there is no such file or no such dataset in it, as HDF5 has it. What
        lies outside the served directory is refused, whether it is there or not.

        Raises:
            SourceRefused: it may not or cannot be read, or is not as the mapping says.
            FileChanged, Overloaded, Unsettled
            NoEquivalent: it is nested too deeply, or one too many.
        """
        if self.depth >= MAX_VIRTUAL_DEPTH:
            raise TooDeep
        name = self._name(mapping)
        if name in self.seen.missing:
            return None
        if self.depth:
            # Of one virtual dataset, any number may be read one after another.
            self.seen.count()
        lease = Lease(self._parent.pool, seen=self.seen)
        self._held.append(lease)
        # In this order, and `close` in the opposite one: it may come at any moment.
        if self._closed:
            lease.release()
        try:
            found = yield from self._find(lease, mapping)
        except (*PASSING, SourceRefused):
            raise
        except AsgihiveError as error:
            if _is_missing(error):
                self.seen.missing[name] = isinstance(error, FileMissing)
                return None
            outside = isinstance(error, FileOutside)
            detail = "it lies outside the served directory" if outside else str(error)
            raise self.refusal(mapping, detail) from None
        if found.shape is None:
            raise self.refusal(mapping, "its dataspace is empty")
        if mapping.source_rank not in {None, len(found.shape)}:
            detail = f"it has {len(found.shape)} dimensions, not {mapping.source_rank}"
            raise self.refusal(mapping, detail)
        return Source(found, lease, self.depth + 1)

    def _find(self, lease: Lease, mapping: Mapping) -> Portions[Dataset]:
        file = self._virtual.file
        if mapping.file == ".":
            opened = lease.open(file.place)
        else:
            opened = lease.open_linked(file, mapping.file)
        depth = self.depth + 1
        return (yield from open_dataset(lease, opened, mapping.dataset, depth))

    def shown(self, mapping: Mapping) -> str:
        """Return the name of a source that is missing: its file, or what is missing in that."""
        is_file_missing = self.seen.missing[self._name(mapping)]
        return mapping.file if is_file_missing else f"{mapping.file}:{mapping.dataset}"

    def _name(self, mapping: Mapping) -> tuple[Key, str, str]:
        return (self._virtual.file.key, mapping.file, mapping.dataset)

    def refusal(self, mapping: Mapping, detail: str) -> SourceRefused:
        """Return what is raised for a source that cannot be read as the mapping says."""
        name = text(os.fsencode(f"{mapping.dataset} of {mapping.file}"))
        return SourceRefused(self._virtual.file.place.name, self._virtual.path, name, detail)

    def give_back(self, keep: Source | None = None) -> None:
        """Release all but `keep`; the virtual dataset's lease depends on what they did.

        Raises:
            FileChanged: a file is not what it was when that lease depended on it before.
        """
        kept = [each for each in self._held if keep is not None and each is keep.lease]
        given, self._held = [each for each in self._held if each not in kept], kept
        for lease in given:
            lease.release()
        for lease in given:
            self._parent.adopt(lease)

    def close(self) -> None:
        """Release all; harmless when repeated; from any thread."""
        self._closed = True
        for lease in list(self._held):
            lease.release()


def _is_missing(error: AsgihiveError) -> bool:
    """Return whether HDF5 has it that there is no such dataset, and nothing was refused."""
    if isinstance(error, LinkUnresolved):
        return error.target_missing
    is_absent = isinstance(error, FileMissing | EntityMissing | KindMismatch)
    return is_absent and not isinstance(error, FileOutside)
