"""Reads as the service reads, without its event loop."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from asgihive.concurrency import run_at_once
from asgihive.hdf5.datasets import Dataset
from asgihive.hdf5.entities import Describer
from asgihive.hdf5.links import LinkResolution, walk
from asgihive.hdf5.opening import Source, find_dataset
from asgihive.hdf5.plan import Selection, parse_selection
from asgihive.hdf5.pool import FilePool, Lease
from asgihive.hdf5.sandbox import Sandbox
from asgihive.hdf5.virtual_sources import read_in_portions


def pool_of(root: Path, *, follow_symlinks: bool = False, **bounds: Any) -> FilePool:
    """A pool over `root`, small unless `bounds` say otherwise."""
    small = {"max_open": 8, "idle_seconds": 30.0}
    small |= {"chunk_cache_bytes": 1 << 20, "max_chunk_bytes": 1 << 30}
    return FilePool(Sandbox(root, follow_symlinks=follow_symlinks), **(small | bounds))


@contextmanager
def leased(root: Path, **bounds: Any) -> Iterator[Lease]:
    """A lease on a pool over `root`, closed at the end."""
    pool = pool_of(root, **bounds)
    lease = Lease(pool)
    try:
        yield lease
    finally:
        lease.release()
        pool.close()


@contextmanager
def dataset_of(root: Path, file: str, path: str) -> Iterator[tuple[Lease, Dataset]]:
    """The dataset at `path` of `file`, and the lease that holds it."""
    with leased(root) as lease:
        yield lease, find_dataset(lease, lease.open_asked(file), path)


def values(root: Path, file: str, path: str, selection: str | None = None) -> np.ndarray[Any, Any]:
    """What is read of a dataset, shaped as the selection."""
    with dataset_of(root, file, path) as (lease, dataset):
        assert dataset.shape is not None
        return selected(lease, dataset, parse_selection(selection, dataset.shape))


def selected(lease: Lease, dataset: Dataset, selection: Selection) -> np.ndarray[Any, Any]:
    """The elements of `selection`, shaped as NumPy shapes them."""
    read = run_at_once(read_in_portions(Source(dataset, lease), selection.axes, dataset.dtype))
    return read.reshape((*selection.shape, *dataset.item_shape))


def described(root: Path, file: str, path: str = "/") -> dict[str, Any]:
    """The metadata of the entity at `path`."""
    with leased(root) as lease:
        entity = walk(lease, lease.open_asked(file), path, LinkResolution.ALL)
        return run_at_once(Describer(lease).describe(entity))


def forge(path: Path, old: bytes, new: bytes) -> None:
    """Overwrite the one place where `old` stands in a file."""
    content = path.read_bytes()
    assert len(old) == len(new)
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))


def descriptors() -> int:
    """How many file descriptors the process has open."""
    return len(os.listdir("/proc/self/fd"))
