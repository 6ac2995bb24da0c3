"""From a path to an open dataset, and from a virtual one to those it is made of.

Everything here runs in the library lane.
"""

from dataclasses import dataclass, replace

from h5py import h5d

from asgihive.errors import AsgihiveError, DamagedData, KindMismatch, TypeUnsupported
from asgihive.hdf5.chunks import chunked_storage
from asgihive.hdf5.contiguous import ContiguousStorage
from asgihive.hdf5.datasets import READ_ERRORS, Dataset
from asgihive.hdf5.layout import Layout, LayoutKind, layout_of
from asgihive.hdf5.links import PASSING, LinkResolution, Resolved, kind_of, walk
from asgihive.hdf5.names import components, encoded
from asgihive.hdf5.open_file import OpenFile, dataset_refreshed, libhdf5_reason
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.types import NoEquivalent, memory_type, without_dimensions
from asgihive.hdf5.virtual import virtual_layout

# Virtual datasets made of virtual datasets: HDF5 sets no bound, and cycles are possible.
MAX_VIRTUAL_DEPTH = 8


def dataset_key(path: str) -> bytes:
    """By what the pool keeps the dataset at `path`."""
    return b"/".join(components(encoded(path)))


def find_dataset(lease: Lease, file: OpenFile, path: str, max_hops: int, depth: int = 0) -> Dataset:
    """The dataset at `path`; its file keeps it open for the next request.

    Raises:
        KindMismatch: something else is there.
        TypeUnsupported: its values cannot be held by NumPy.
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
    dataset = _opened(lease, entity, max_hops, depth)
    # Its path and extent depend on this file alone.
    alone = len(lease.depends) == 1 and entity.file is file and not file.live
    if alone and (dataset.virtual is None or not dataset.virtual.grows):
        index_bytes = 0 if dataset.chunked is None else dataset.chunked.index.bytes
        through_libhdf5 = dataset.chunked is not None and dataset.chunked.fill is None
        lease.pool.keep_dataset(
            file, key, dataset, chunk_cache=through_libhdf5, index_bytes=index_bytes
        )
    return dataset


def _opened(lease: Lease, entity: Resolved, max_hops: int, depth: int) -> Dataset:
    dataset_id = dataset_refreshed(entity.file, entity.id)
    entity = replace(entity, id=dataset_id)
    try:
        layout = layout_of(dataset_id)
        memory = memory_type(dataset_id.get_type())
        base, item_shape = without_dimensions(memory.dtype)
        virtual = None
        if layout.kind is LayoutKind.VIRTUAL:
            virtual = virtual_layout(layout.properties)
        shape = dataset_shape(lease, entity, layout, max_hops, depth)
        chunked = None
        if layout.kind is LayoutKind.CHUNKED and shape is not None:
            chunked = chunked_storage(
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
        reason = libhdf5_reason(error)
        raise DamagedData(entity.file.place.name, entity.path, reason) from error


def dataset_shape(
    lease: Lease, entity: Resolved, layout: Layout, max_hops: int, depth: int = 0
) -> tuple[int, ...] | None:
    """The extent of a dataset, None = empty; of a virtual one, inside the sandbox alone."""
    virtual = virtual_layout(layout.properties) if layout.kind is LayoutKind.VIRTUAL else None
    if virtual is None or not virtual.written_shape:
        shape: tuple[int, ...] | None = entity.id.get_space().shape
        return shape
    sources = Sources(lease, entity.file, max_hops, depth)

    def open_source(file: str, dataset: str) -> Source | None:
        # There may be thousands, and one is asked after another.
        sources.give_back()
        return sources.open(file, dataset)

    try:
        shape = virtual.shape(open_source)
        sources.give_back()
    finally:
        sources.close()
    return shape


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
    """The open sources of one virtual dataset, each under a lease of its own."""

    def __init__(self, lease: Lease, file: OpenFile, max_hops: int, depth: int) -> None:
        self._parent = lease
        self._file = file
        self._max_hops = max_hops
        self._depth = depth
        self._held: list[Lease] = []
        self._closed = False

    def __len__(self) -> int:
        return len(self._held)

    def open(self, file: str, dataset: str) -> Source | None:
        """The source called `dataset` in `file`; None where there is none to read.

        Raises:
            FileChanged, Overloaded, Unsettled
            NoEquivalent: its values cannot be held by NumPy, or it is nested too deeply.
        """
        if self._depth >= MAX_VIRTUAL_DEPTH:
            detail = f"virtual datasets nested more than {MAX_VIRTUAL_DEPTH} deep"
            raise NoEquivalent(detail)
        lease = Lease(self._parent.pool)
        self._held.append(lease)
        # In this order, and `close` in the opposite one: it may come at any moment.
        if self._closed:
            lease.release()
        try:
            if file == ".":
                opened = lease.open(self._file.place)
            else:
                opened = lease.open_linked(self._file, file)
            found = find_dataset(lease, opened, dataset, self._max_hops, self._depth + 1)
        except PASSING:
            raise
        except TypeUnsupported as error:
            raise NoEquivalent(error.detail) from None
        except AsgihiveError:
            return None
        return Source(found, lease, self._depth + 1)

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
