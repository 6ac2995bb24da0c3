"""From a path to an open dataset, and from a virtual one to those it is made of.

Everything here runs in the library lane.
"""

import os
from dataclasses import dataclass, field, replace

from h5py import h5d, h5o, h5p

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
from asgihive.hdf5.chunks import open_chunks
from asgihive.hdf5.datasets import READ_ERRORS, Dataset
from asgihive.hdf5.layout import LayoutKind, layout_of
from asgihive.hdf5.linear import ContiguousStorage
from asgihive.hdf5.links import PASSING, LinkResolution, Resolved, kind_of, walk
from asgihive.hdf5.names import components, encoded, text
from asgihive.hdf5.open_file import (
    Key,
    OpenFile,
    dataset_refreshed,
    libhdf5_reason,
    refusal_of,
)
from asgihive.hdf5.pool import Lease, ObjectKey, SourcesSeen
from asgihive.hdf5.types import NoEquivalent, memory_type, without_dimensions
from asgihive.hdf5.virtual import Mapping, VirtualLayout, read_virtual_layout, read_written_shape

# Virtual datasets made of virtual datasets: HDF5 sets no bound, and cycles are possible.
MAX_VIRTUAL_DEPTH = 8


class TooDeep(NoEquivalent):
    """Virtual datasets are nested deeper than MAX_VIRTUAL_DEPTH."""

    def __init__(self) -> None:
        super().__init__(f"virtual datasets nested more than {MAX_VIRTUAL_DEPTH} deep")


def dataset_key(path: str) -> bytes:
    """By what the pool keeps the dataset at `path`."""
    return b"/".join(components(encoded(path)))


def find_dataset(lease: Lease, file: OpenFile, path: str, max_hops: int) -> Dataset:
    """What `open_dataset` returns, without a break."""
    return run_at_once(open_dataset(lease, file, path, max_hops))


def open_dataset(
    lease: Lease, file: OpenFile, path: str, max_hops: int, depth: int = 0
) -> Portions[Dataset]:
    """The dataset at `path`; its file keeps it open for the next request.

    Args:
        depth: how many virtual datasets it is in.

    Raises:
        KindMismatch: something else is there.
        TypeUnsupported: its values cannot be held by NumPy.
        SourceRefused: it is virtual, and its extent depends on a source that is refused.
        and whatever `walk` raises.
    """
    key = dataset_key(path)
    known = lease.pool.dataset(file, key)
    if isinstance(known, Dataset):
        return known
    entity = walk(lease, file, path, LinkResolution.ALL, max_hops)
    if not isinstance(entity, Resolved) or not isinstance(entity.id, h5d.DatasetID):
        kind = kind_of(entity).replace("_", " ")
        raise KindMismatch(file.place.name, entity.path, kind, "a dataset")
    dataset = yield from _opened(lease, entity, max_hops, depth)
    # Its path and extent depend on this file alone.
    alone = len(lease.depends) == 1 and entity.file is file and not file.live
    if alone and (dataset.virtual is None or not dataset.virtual.grows):
        index_bytes = 0 if dataset.chunked is None else dataset.chunked.index.bytes
        index_bytes += 0 if dataset.virtual is None else dataset.virtual.bytes
        through_libhdf5 = dataset.chunked is not None and dataset.chunked.fill is None
        lease.pool.keep_dataset(
            file, key, dataset, chunk_cache=through_libhdf5, index_bytes=index_bytes
        )
    return dataset


def _opened(lease: Lease, entity: Resolved, max_hops: int, depth: int) -> Portions[Dataset]:
    dataset_id = dataset_refreshed(entity.file, entity.id)
    entity = replace(entity, id=dataset_id)
    try:
        layout = layout_of(dataset_id)
        memory = memory_type(dataset_id.get_type())
        base, item_shape = without_dimensions(memory.dtype)
        virtual = None
        if layout.kind is LayoutKind.VIRTUAL:
            virtual = yield from read_virtual_layout(dataset_id, layout.properties)
            sources = Sources(lease, entity, max_hops, depth)
            shape = yield from _virtual_shape(sources, virtual)
        else:
            shape = dataset_id.get_space().shape
        chunked = None
        if layout.kind is LayoutKind.CHUNKED and shape is not None:
            chunked = open_chunks(
                entity.file,
                dataset_id,
                layout,
                memory.dtype,
                shape,
                cache=lease.pool.chunks,
                as_in_memory=memory.is_as_stored,
            )
        offset = dataset_id.get_offset() if memory.is_as_stored else None
        contiguous = None
        if offset is not None and shape is not None:
            contiguous = ContiguousStorage(entity.file, offset, shape, base, item_shape)
        return Dataset(
            path=entity.path,
            file=entity.file,
            id=dataset_id,
            layout=layout,
            virtual=virtual,
            shape=shape,
            dtype=base,
            item_shape=item_shape,
            contiguous=contiguous,
            memory_type=memory,
            chunked=chunked,
            max_hops=max_hops,
        )
    except NoEquivalent as error:
        raise TypeUnsupported(entity.file.place.name, entity.path, str(error)) from None
    except READ_ERRORS as error:
        lease.check()
        refusal = refusal_of(entity.file.place.name, entity.path, error)
        if refusal is not None:
            raise refusal from error
        reason = libhdf5_reason(error)
        raise DamagedData(entity.file.place.name, entity.path, reason) from error


def virtual_extent(
    lease: Lease, found: Resolved, properties: h5p.PropDCID, max_hops: int
) -> Portions[tuple[int, ...] | None]:
    """The extent of a virtual dataset for its description, None = empty.

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
    sources = Sources(lease, found, max_hops, 0)
    return (yield from _virtual_shape(sources, virtual, is_lenient=True))


def _virtual_shape(
    sources: "Sources", virtual: VirtualLayout, *, is_lenient: bool = False
) -> Portions[tuple[int, ...] | None]:
    """The extent of a virtual dataset now, inside the sandbox alone, None = empty."""
    if not virtual.grows:
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
        """That of the source of a mapping; None where it is missing. Raises as `Sources.open`."""
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
        max_hops: int,
        depth: int,
        seen: SourcesSeen | None = None,
    ) -> None:
        self._parent = lease
        self._virtual = virtual
        self._max_hops = max_hops
        self.depth = depth
        self.seen = lease.seen if seen is None else seen
        self._held: list[Lease] = []
        self._closed = False

    def __len__(self) -> int:
        return len(self._held)

    @property
    def key(self) -> ObjectKey:
        """Of the virtual dataset."""
        return self._virtual.file.key, h5o.get_info(self._virtual.id).addr

    def open(self, mapping: Mapping) -> Portions[Source | None]:
        """The source that a mapping names; None where it is missing.

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
        return (yield from open_dataset(lease, opened, mapping.dataset, self._max_hops, depth))

    @property
    def file_key(self) -> Key:
        """Of the file that the virtual dataset lies in."""
        return self._virtual.file.key

    def shown(self, mapping: Mapping) -> str:
        """The name of a source that is missing: its file, or what is missing in that."""
        is_file_missing = self.seen.missing[self._name(mapping)]
        return mapping.file if is_file_missing else f"{mapping.file}:{mapping.dataset}"

    def _name(self, mapping: Mapping) -> tuple[Key, str, str]:
        return (self._virtual.file.key, mapping.file, mapping.dataset)

    def refusal(self, mapping: Mapping, detail: str) -> SourceRefused:
        """What is raised of a source that cannot be read as the mapping says."""
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
    """Whether HDF5 has it that there is no such dataset, and nothing was refused."""
    if isinstance(error, LinkUnresolved):
        return error.target_missing
    is_absent = isinstance(error, FileMissing | EntityMissing | KindMismatch)
    return is_absent and not isinstance(error, FileOutside)
