"""Which way a read takes: past libhdf5, through it, or put together of other datasets.

Everything here runs in the library lane.
"""

from enum import StrEnum
from typing import Any

import numpy as np
from h5py import h5t

from asgihive.hdf5.chunk_index import ChunkIndex
from asgihive.hdf5.chunks import ChunkedStorage
from asgihive.hdf5.datasets import Dataset
from asgihive.hdf5.filters import pipeline_of
from asgihive.hdf5.layout import Filter, LayoutKind


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
    if not pipeline_of((each,), 1).needs_library:
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
