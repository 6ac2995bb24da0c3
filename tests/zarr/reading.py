"""Trees of files, read as the service reads them, and opened by Zarr clients."""

import json
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import orjson

from asgihive.concurrency import run_at_once
from asgihive.hdf5.pool import FilePool, Lease
from asgihive.hdf5.sandbox import Sandbox
from asgihive.settings import H5Settings
from asgihive.zarr.nodes import ArrayNode, GroupNode, Node, format_document, walk_nodes
from asgihive.zarr.tree import MAX_NODES, find_real_path, read_tree


class Reader:
    """Reads trees of the files in a directory."""

    def __init__(self, root: Path) -> None:
        self.pool = FilePool(
            Sandbox(str(root)),
            max_open=20,
            idle_seconds=60,
            chunk_cache_bytes=0,
            max_chunk_bytes=1 << 30,
        )

    def read(self, file: str, path: str = "/", most_nodes: int = MAX_NODES) -> Node:
        lease = Lease(self.pool)
        try:
            work = read_tree(lease, lease.open_asked(file), path, H5Settings(), most_nodes)
            return run_at_once(work)
        finally:
            lease.release()
            self.pool.close_unheld()  # as h5py refuses to open it otherwise, by another lock

    def find_real_path(self, file: str, path: str) -> str:
        lease = Lease(self.pool)
        try:
            return find_real_path(lease, lease.open_asked(file), path)
        finally:
            lease.release()


def make_document(node: Node) -> dict[str, Any]:
    """Return the document as a client has it."""
    document: dict[str, Any] = json.loads(orjson.dumps(format_document(node)))
    return document


def make_store(node: Node, file: Path) -> Any:
    """Return a store in memory with the documents of a node, and its values as h5py reads them.

    zarr-python encodes the chunks by the documents, so that a wrong one is found.
    """
    import zarr  # noqa: PLC0415  # tests that use it are skipped without it

    store = zarr.storage.MemoryStore()
    nodes = [("", node), *(walk_nodes(node) if isinstance(node, GroupNode) else ())]
    with h5py.File(file) as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of data types without a specification
        for path, each in nodes:
            key = f"{path}/zarr.json".removeprefix("/")
            body = orjson.dumps(format_document(each))
            store._store_dict[key] = zarr.core.buffer.cpu.Buffer.from_bytes(body)
        for path, each in nodes:
            if isinstance(each, ArrayNode):
                array = zarr.open_array(store, path=path, mode="r+", zarr_format=3)
                values = read_values(opened[each.path.encode("utf-8", "surrogateescape")])
                # zarr-python (3.1) writes a compound in the order that it is given in.
                array[...] = values if values.dtype.names is None else values.astype(array.dtype)
    return store


def read_values(dataset: h5py.Dataset) -> Any:
    """Return the values of a dataset as h5py has them, of text as text."""
    if h5py.check_string_dtype(dataset.dtype) is not None:
        return np.asarray(dataset.asstr("utf-8")[...], np.dtypes.StringDType())
    return dataset[...]
