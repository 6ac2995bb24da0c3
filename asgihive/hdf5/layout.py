"""How a dataset is stored: its layout, chunks and filter pipeline."""

import contextlib
import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from h5py import h5d, h5p, h5t, h5z
from h5py._objects import phil

from asgihive.hdf5.file_bytes import allow_waiting, find_in_libhdf5, text
from asgihive.hdf5.types import NoEquivalent

# Importing it registers its filters with libhdf5.
with contextlib.suppress(ImportError):
    import hdf5plugin  # noqa: F401


class LayoutKind(Enum):
    """The layouts of the HDF5 specification, external raw storage counted as one."""

    COMPACT = "compact"
    CONTIGUOUS = "contiguous"
    CHUNKED = "chunked"
    VIRTUAL = "virtual"
    EXTERNAL = "external"


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter of a pipeline: its registered number, and the name and values stored with it."""

    id: int
    name: str
    values: tuple[int, ...] = ()

    @property
    def available(self) -> bool:
        """Whether libhdf5 can apply it here."""
        allow_waiting()
        return bool(h5z.filter_avail(self.id))


@dataclass(frozen=True, slots=True)
class Layout:
    """How a dataset is stored.

    Attributes:
        kind: of its layout.
        chunks: shape of a chunk; only of the chunked layout.
        filters: of each chunk.
        find_properties: asks libhdf5 for the creation properties; None = they say nothing more.
    """

    kind: LayoutKind
    chunks: tuple[int, ...] | None = None
    filters: tuple[Filter, ...] = ()
    find_properties: Callable[[], h5p.PropDCID] | None = None

    @property
    def properties(self) -> h5p.PropDCID | None:
        """The creation properties, in the library lane; None where they say nothing more."""
        return None if self.find_properties is None else self.find_properties()


_KINDS = {
    h5d.COMPACT: LayoutKind.COMPACT,
    h5d.CONTIGUOUS: LayoutKind.CONTIGUOUS,
    h5d.CHUNKED: LayoutKind.CHUNKED,
    h5d.VIRTUAL: LayoutKind.VIRTUAL,
}

_PLAIN = Layout(LayoutKind.CONTIGUOUS)


def layout_of(dataset: h5d.DatasetID) -> Layout:
    """Return the layout of `dataset`; opens no other file.

    Asking for the extent of a virtual dataset, in contrast, opens its sources: look here
    first (`asgihive.hdf5.virtual`).

    Raises:
        NoEquivalent: libhdf5 knows the properties no more, since a fill value of variable length
            is lost.
    """
    # Only contiguous storage has an offset, and asking is ten times as fast as the properties.
    if dataset.get_offset() is not None and dataset.get_storage_size():
        return _PLAIN
    properties = find_properties(dataset)
    kind = _KINDS[properties.get_layout()]
    # Of any layout: libhdf5 reads a forged compact dataset with segments from those, too.
    if kind is not LayoutKind.VIRTUAL and properties.get_external_count():
        kind = LayoutKind.EXTERNAL
    filters = tuple(
        Filter(number, text(name), tuple(values))
        for number, _flags, values, name in map(
            properties.get_filter, range(properties.get_nfilters())
        )
    )
    chunks = tuple(properties.get_chunk()) if kind is LayoutKind.CHUNKED else None
    return Layout(kind, chunks, filters, lambda: properties)


def find_properties(dataset: h5d.DatasetID) -> h5p.PropDCID:
    """Return the creation properties of a dataset.

    Raises:
        NoEquivalent: libhdf5 knows them no more, since a fill value of variable length is lost.
    """
    try:
        return dataset.get_create_plist()
    except RuntimeError:
        type_id = dataset.get_type()
        # libhdf5 finds strings of variable length among sequences, h5py's versions among strings.
        if not type_id.detect_class(h5t.VLEN) and not type_id.detect_class(h5t.STRING):
            raise
        message = (
            "its fill value of variable length is lost, as h5copy loses those, and libhdf5 reads "
            "nothing without it"
        )
        raise NoEquivalent(message) from None


# H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS (H5Dpublic.h).
_EDGES_UNFILTERED = 0x2


def has_edges_unfiltered(properties: h5p.PropDCID) -> bool:
    """Return whether chunks that reach beyond the extent went through no filter.

    Mostly the layout message is read instead (`asgihive.hdf5.chunk_index`).
    """
    types = (ctypes.c_int64, ctypes.c_void_p)
    get_options = find_in_libhdf5("H5Pget_chunk_opts", ctypes.c_int, *types)
    if get_options is None:  # such chunks, which are rare, count as damaged then
        return False
    options = ctypes.c_uint(0)
    with phil:
        failed = get_options(properties.id, ctypes.byref(options)) < 0
    return not failed and bool(options.value & _EDGES_UNFILTERED)
