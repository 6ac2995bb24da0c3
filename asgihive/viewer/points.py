"""The points of a picture: a view of a dataset, read and reduced block by block, whole in memory.

It is as large as the picture, however large the selection is.
"""

from functools import partial
from typing import Any

import numpy as np

from asgihive.errors import AnswerTooLarge
from asgihive.hdf5.datasets import Array, Dataset
from asgihive.hdf5.plan import Block, plan_blocks
from asgihive.hdf5.reader import Held
from asgihive.hdf5.views import Method, View, ViewReducer, plan_view_blocks
from asgihive.service.data import measure_blocks
from asgihive.service.store import Store
from asgihive.viewer.normalisation import find_largest


def plan_points(dataset: Dataset, view: View) -> View:
    """Return a view that needs no reduction as one of the values themselves.

    So they keep their type, and are infinite where they are; a mean is of finite values alone.
    """
    if all(factor == 1 for factor in view.factors) and view.method is not Method.MINMAX:
        return View(view.selection, view.factors, Method.NEAREST, dataset.dtype)
    return view


async def read_points(store: Store, held: Held, view: View) -> Array:
    """Return the points of a view, of `view.shape` and `view.dtype`.

    A mean does not count the largest value of an unsigned type, unless there is no other in its
    bin: it stands for a pixel that is masked or saturated (`find_largest`).

    Raises:
        AnswerTooLarge: they are more than an answer may hold.
        Exception: whatever reading raises.
    """
    dtype = np.dtype(view.dtype.str)  # without what h5py notes beside numbers
    size, most = int(np.prod(view.shape, dtype=object)) * dtype.itemsize, store.settings
    if size > most.max_response_bytes:
        raise AnswerTooLarge(size, most.max_response_bytes, "ask for fewer pixels with `shape`")
    points = np.empty(view.shape, dtype)
    if view.method is Method.NEAREST:
        await _read_selected(store, held, view, points)
    else:
        await _read_reduced(store, held, view, points)
    return points


async def _read_selected(store: Store, held: Held, view: View, points: Array) -> None:
    selection, dataset = view.nearest, held.dataset
    flat = points.reshape(-1)

    def fill(block: Block, array: Array) -> None:
        flat[block.first : block.first + block.size] = array.reshape(-1)

    item_bytes, block_bytes = measure_blocks(dataset, selection, store)
    blocks = plan_blocks(selection, dataset.layout.chunks, item_bytes, block_bytes)
    async with store.reader.read_blocks(held, blocks, fill) as filled:
        async for _ in filled:
            pass


async def _read_reduced(store: Store, held: Held, view: View, points: Array) -> None:
    dataset, flat, first = held.dataset, points.reshape(-1), 0
    reducer = ViewReducer(view, dataset.dtype)
    largest = find_largest(dataset.dtype) if view.method is Method.MEAN else None
    item_bytes, block_bytes = measure_blocks(dataset, view.selection, store)
    blocks = plan_view_blocks(view, dataset.layout.chunks, item_bytes, block_bytes)

    def take(block: Any, array: Array) -> tuple[Any, Array]:
        return block, array if largest is None else _without_largest(array, largest)

    async with store.reader.read_blocks(held, blocks, take) as ahead:
        async for block, array in ahead:
            reduce = partial(reducer.add, block, array)
            complete = await store.lanes.decode.run(reduce, patient=True)
            flat[first : first + complete.size] = complete.reshape(-1)
            first += complete.size
    if largest is not None:
        # Only of bins that hold nothing else there is no mean.
        await store.lanes.decode.run(
            partial(np.copyto, points, largest, where=np.isnan(points)), patient=True
        )


def _without_largest(array: Array, largest: int) -> Array:
    """Return an array with NaN for a value, as it is where it has none."""
    if not array.size or array.max() != largest:
        return array
    return np.where(array == largest, np.nan, array)
