"""Runs of a selection's elements as hyperslabs, against NumPy's flat slices."""

import math
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from asgihive.hdf5.plan import Axis, Selection, cut_run, parse_selection, plan_run
from tests.hdf5.strategies import SHAPES, selections


def taken(values: np.ndarray[Any, Any], axes: tuple[Axis, ...]) -> list[int]:
    index = tuple(slice(axis.start, axis.stop, axis.step) for axis in axes)
    return [int(each) for each in values[index].reshape(-1)]


@st.composite
def runs(draw: st.DrawFn) -> tuple[tuple[int, ...], Selection, int, int]:
    shape = draw(SHAPES)
    selection = parse_selection(draw(selections(shape)), shape)
    first = draw(st.integers(0, selection.size))
    return shape, selection, first, draw(st.integers(first, selection.size))


@given(runs())
def test_boxes_are_the_run(run: tuple[tuple[int, ...], Selection, int, int]) -> None:
    shape, selection, first, stop = run
    values = np.arange(math.prod(shape)).reshape(shape)
    found = list(cut_run(selection.axes, first, stop))
    together = [element for axes in found for element in taken(values, axes)]
    assert together == taken(values, selection.axes)[first:stop]
    assert len(found) <= max(1, 2 * len(shape) - 1)
    assert all(axis.count for axes in found for axis in axes)


@given(
    runs(),
    st.lists(st.integers(1, 9), min_size=4, max_size=4),
    st.integers(1, 8),
    st.integers(1, 64),
)
def test_blocks_are_the_run(
    run: tuple[tuple[int, ...], Selection, int, int],
    chunks: list[int],
    item_bytes: int,
    block_bytes: int,
) -> None:
    shape, selection, first, stop = run
    values = np.arange(math.prod(shape)).reshape(shape)
    together: list[int] = []
    of_shape = tuple(chunks[: len(shape)])
    for block in plan_run(selection, (first, stop), of_shape, item_bytes, block_bytes):
        assert block.first == first + len(together)
        assert block.size == math.prod(block.shape)
        together += taken(values, block.axes)
    assert together == taken(values, selection.axes)[first:stop]


def test_whole_rows_are_one_box() -> None:
    axes = (Axis(0, 1, 100), Axis(5, 2, 10), Axis(0, 1, 4))
    assert list(cut_run(axes, 40, 4000)) == [(Axis(1, 1, 99), *axes[1:])]
    assert list(cut_run(axes, 40, 40)) == []
    assert list(cut_run((), 0, 1)) == [()]
