"""What is selected of which dataset, in which type it is sent, and in which blocks it is read."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from asgihive.concurrency import Portions
from asgihive.encoders.json import Json
from asgihive.encoders.protocol import Values, is_numeric
from asgihive.encoders.registry import check_fit
from asgihive.errors import FormatMismatch, PageTooLarge
from asgihive.hdf5.datasets import Dataset
from asgihive.hdf5.links import MAX_LINK_HOPS
from asgihive.hdf5.opening import open_dataset
from asgihive.hdf5.plan import Block, measure_chunk_row, plan_blocks
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.selection import Selection, parse_selection
from asgihive.service.parameters import DataParameters, EntityParameters
from asgihive.service.store import Store

# Large enough that a thread's cost is nothing, small enough that others get their turn.
_BLOCK_BYTES = 4 << 20

# Elements of variable length are pointers: what they point to is not known before reading.
_POINTED_BYTES = 4096


MAX_PAGE_BYTES = 64 << 20
"""Most JSON that a browser is sent as a page: it would hold several times as much, and stop."""


def check_values(parameters: DataParameters, values: Values) -> None:
    """Make sure that the values can be sent as asked for, before any of them is read.

    Raises:
        FormatMismatch: the format cannot hold them.
        PageTooLarge: a browser would show them as a page.
    """
    encoder = parameters.encoder
    check_fit(encoder, values)
    if parameters.is_navigation and isinstance(encoder, Json):
        size = encoder.estimate_length(values)
        if size > MAX_PAGE_BYTES:
            raise PageTooLarge(size, MAX_PAGE_BYTES)


def found(entity: EntityParameters, lease: Lease) -> Portions[Dataset]:
    """The dataset that is asked for, held by `lease`. In the library lane."""
    file = lease.open_asked(entity.file)
    dataset = yield from open_dataset(lease, file, entity.path, MAX_LINK_HOPS)
    lease.objects.append(dataset)
    return dataset


def selected(dataset: Dataset, text: str | None) -> Selection | None:
    """What is selected; None of an empty dataspace. Raises BadSelection."""
    selection = parse_selection(text, dataset.shape or ())
    return None if dataset.shape is None else selection


def is_kept(store: Store, dataset: Dataset, selection: Selection) -> bool:
    """Whether its chunks are worth a place in the cache: what is long would sweep it clean."""
    return selection.size * dataset.item_bytes <= store.pool.chunks.max_bytes // 4


def item_bytes_of(dataset: Dataset) -> int:
    """Of an element, as far as it can be known before it is read."""
    if dataset.dtype.hasobject:
        return max(dataset.item_bytes, _POINTED_BYTES)
    return dataset.item_bytes


def block_bytes_of(dataset: Dataset, selection: Selection, store: Store) -> int:
    """How large a block of `selection` is at most: if it may be, a whole row of chunks."""
    row = measure_chunk_row(selection, dataset.layout.chunks, item_bytes_of(dataset))
    return min(max(_BLOCK_BYTES, row), store.reader.read_ahead_bytes)


def planned(dataset: Dataset, selection: Selection, store: Store) -> Iterator[Block]:
    """The blocks in which `selection` is read."""
    block_bytes = block_bytes_of(dataset, selection, store)
    return plan_blocks(selection, dataset.layout.chunks, item_bytes_of(dataset), block_bytes)


def answer_dtype(dtype: np.dtype[Any], *, safe: bool) -> np.dtype[Any]:
    """In which type the elements are sent; `safe` = as a JavaScript typed array holds them.

    Raises:
        FormatMismatch: they are not numbers.
    """
    if not is_numeric(dtype):
        if safe:
            accepted = f"safe converts numbers, and these values are {dtype}; use origin"
            raise FormatMismatch("dtype", "safe", accepted)
        return dtype
    # Without what h5py notes beside numbers, such as the names of an enum.
    plain: np.dtype[Any] = np.dtype(dtype.str)
    return safe_dtype(plain) if safe else plain


def safe_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The nearest type that a JavaScript typed array holds, little-endian."""
    if dtype.kind == "f" and dtype.itemsize < 4:
        return np.dtype("<f4")
    if dtype.kind == "f" and dtype.itemsize > 8:
        return np.dtype("<f8")
    return dtype.newbyteorder("<")
