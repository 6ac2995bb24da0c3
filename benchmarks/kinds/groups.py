"""Groups of small datasets with attributes, whose metadata are asked for."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

from benchmarks.data import DataFolder, Place


def small_groups(data: DataFolder, files: int = 4, groups: int = 50) -> Sequence[Place]:
    """Make groups of 5 datasets with 3 attributes each."""

    def write(folder: Path, _: np.random.Generator) -> None:
        for index in range(files):
            with h5py.File(folder / f"{index}.h5", "w") as file:
                for number in range(groups):
                    _describe(file.create_group(f"entry_{number}"), datasets=5, attributes=3)

    data.require("small_groups", write)
    return [
        Place(f"small_groups/{index}.h5", f"/entry_{number}")
        for index in range(files)
        for number in range(groups)
    ]


def wide_groups(data: DataFolder, files: int = 4) -> Sequence[Place]:
    """Make in each file one group of 5,000 datasets with 5 attributes each."""

    def write(folder: Path, _: np.random.Generator) -> None:
        first = folder / "0.h5"
        with h5py.File(first, "w") as file:
            _describe(file.create_group("wide"), datasets=5_000, attributes=5)
        for index in range(1, files):
            shutil.copyfile(first, folder / f"{index}.h5")

    data.require("wide_groups", write)
    return [Place(f"wide_groups/{index}.h5", "/wide") for index in range(files)]


def _describe(group: h5py.Group, datasets: int, attributes: int) -> None:
    """Fill `group` with small datasets of changing types that carry attributes."""
    types = (np.dtype("<f8"), np.dtype("<i4"), np.dtype("<u2"))
    text = h5py.h5t.py_create(h5py.string_dtype(), logical=True)
    scalar = h5py.h5s.create(h5py.h5s.SCALAR)
    # The low-level API writes the 25,000 attributes of a wide group ten times as fast.
    for number in range(datasets):
        dtype = types[number % len(types)]
        values = np.arange(16, dtype=dtype)
        stored = h5py.h5t.py_create(dtype)
        name = f"channel_{number}".encode()
        dataset = h5py.h5d.create(group.id, name, stored, h5py.h5s.create_simple(values.shape))
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
        for name, value in _attributes(number, attributes):
            kind = text if value.dtype.hasobject else h5py.h5t.py_create(value.dtype)
            h5py.h5a.create(dataset, name, kind, scalar).write(value, mtype=kind)


def _attributes(number: int, count: int) -> Iterator[tuple[bytes, np.ndarray]]:
    yield b"units", np.array("mm", dtype=object)
    yield b"long_name", np.array(f"Channel {number}", dtype=object)
    for index in range(count - 2):
        yield f"factor_{index}".encode(), np.array(number + index / 8)
