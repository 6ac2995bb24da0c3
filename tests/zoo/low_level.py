"""What the writers share: datasets and attributes of types that only h5py's low level can make."""

from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5s


def create_dataset(
    group: Any,
    name: str | bytes,
    type_id: Any,
    values: np.ndarray[Any, Any] | None = None,
    *,
    shape: tuple[int, ...] = (4,),
    plist: Any = None,
) -> Any:
    """A dataset of exactly the HDF5 type `type_id`.

    `values` are stored bit by bit when their items are as large as the type's; the dataset
    then has their shape.
    """
    shape = shape if values is None else values.shape
    raw = name if isinstance(name, bytes) else name.encode()
    dataset = h5d.create(group.id, raw, type_id, h5s.create_simple(shape), plist)
    if values is not None:
        dataset.write(h5s.ALL, h5s.ALL, np.ascontiguousarray(values), mtype=type_id)
    return h5py.Dataset(dataset)


def create_attribute(
    owner: Any, name: bytes, type_id: Any, value: np.ndarray[Any, Any] | None = None
) -> None:
    """A scalar attribute of exactly the HDF5 type `type_id`."""
    attribute = h5a.create(owner.id, name, type_id, h5s.create(h5s.SCALAR))
    if value is not None:
        attribute.write(value, mtype=type_id)
