"""Chunks of Zarr arrays, asked for in process, and what zarr-python makes of them."""

import base64
import itertools
import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asgihive.asgi import BufferedResponse
from asgihive.concurrency import Portions
from asgihive.encoders.json import ENCODER
from asgihive.hdf5.datasets import Dataset
from asgihive.hdf5.opening import open_dataset
from asgihive.hdf5.pool import Lease
from asgihive.service import H5App
from asgihive.service.requests import ReadRequest, Wanted, parse_wanted
from asgihive.service.store import Store
from asgihive.settings import H5Settings
from asgihive.zarr.chunks import Answered, answer_chunk
from asgihive.zarr.data_types import name_data_type
from asgihive.zarr.grid import ArrayPlan, plan_array

zarr = pytest.importorskip("zarr", reason="zarr-python decodes what is compared")


def make_store(root: Path, **settings: Any) -> Store:
    return H5App(root, H5Settings(**settings)).store


def make_wanted(**headers: str) -> Wanted:
    fields = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    scope = {"method": "GET", "headers": fields}
    return parse_wanted(scope, "no-cache", has_format=True, is_compressible=False)


def make_request(file: str, path: str, coordinates: tuple[int, ...]) -> ReadRequest:
    key = ("zarr", file, path, coordinates)
    return ReadRequest("zarr", {}, ENCODER, True, key, key, file=file, path=path)


async def ask_chunk(
    store: Store, file: str, path: str, coordinates: tuple[int, ...], **headers: str
) -> Answered:
    request = make_request(file, path, coordinates)
    return await answer_chunk(store, request, coordinates, make_wanted(**headers))


@dataclass(frozen=True)
class Fetched:
    """An array and all of its chunks."""

    plan: ArrayPlan
    data_type: Any
    chunks: Mapping[tuple[int, ...], BufferedResponse]

    def decode(self) -> Any:
        """The values, as zarr-python reads them."""
        plan, prototype = self.plan, zarr.core.buffer.default_buffer_prototype().buffer
        fill: Any = 0
        if plan.is_text:
            fill = ""
        elif plan.dtype.kind == "b":
            fill = False
        elif plan.dtype.kind == "c":
            fill = [0, 0]
        elif plan.dtype.kind in "VS":
            fill = base64.b64encode(bytes(plan.dtype.itemsize)).decode()
        document = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": plan.shape,
            "data_type": self.data_type,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": plan.chunk_shape}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": fill,
            "codecs": [codec.to_json() for codec in plan.codecs],
            "attributes": {},
        }
        stored = {"zarr.json": prototype.from_bytes(json.dumps(document).encode())}
        for at, response in self.chunks.items():
            key = "/".join(map(str, ("c", *at)))
            stored[key] = prototype.from_bytes(response.body)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of types and codecs that are in no specification yet
            array = zarr.open_array(zarr.storage.MemoryStore(stored), mode="r")
            return array[...]


def list_coordinates(plan: ArrayPlan) -> Iterator[tuple[int, ...]]:
    return itertools.product(*map(range, plan.counts))


async def open_plan(store: Store, file: str, path: str) -> tuple[ArrayPlan, Dataset]:
    def work(lease: Lease) -> Portions[Dataset]:
        return (yield from open_dataset(lease, lease.open_asked(file), path))

    async def run(lease: Lease) -> Dataset:
        return await store.in_portions(lease, work)

    dataset, lease = await store.read(run)
    lease.release()
    return plan_array(dataset, store.settings), dataset


async def fetch_array(store: Store, file: str, path: str) -> Fetched:
    plan, dataset = await open_plan(store, file, path)
    chunks = {}
    for at in list_coordinates(plan):
        _, response, _ = await ask_chunk(store, file, path, at)
        assert response.status == 200
        chunks[at] = response
    return Fetched(plan, name_data_type(dataset.dtype, len(dataset.shape or ())), chunks)


def assert_same_values(values: Any, expected: Any) -> None:
    """Equal as h5py has them; strings as text, but in compounds."""
    expected, values = np.asarray(expected), np.asarray(values)
    if expected.dtype.kind in "OS" and values.dtype.kind != "S":
        texts = [
            each.decode("utf-8", "replace") if isinstance(each, bytes) else each
            for each in expected.reshape(-1)
        ]
        expected = np.array(texts, object).reshape(expected.shape)
        np.testing.assert_array_equal(values.astype(object), expected)
        return
    if expected.dtype.names is not None:
        for name in expected.dtype.names:
            assert_same_values(values[name], expected[name])
        return
    assert values.dtype.newbyteorder("=") == expected.dtype.newbyteorder("=")
    np.testing.assert_array_equal(values, expected)
