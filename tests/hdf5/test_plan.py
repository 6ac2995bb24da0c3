"""Plans: concatenated blocks are the whole, for any selection, chunk shape and budget."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgihive.hdf5 import plan
from asgihive.hdf5.plan import (
    Axis,
    Block,
    Selection,
    find_run,
    parse_selection,
    plan_blocks,
    plan_windows,
    select_all,
    walk_positions,
)
from tests.efforts import at_most
from tests.hdf5.strategies import SHAPES, selections
from tests.hdf5.test_selection import numbered, taken


def planned(
    selection: Selection, chunks: tuple[int, ...] | None, item_bytes: int, block_bytes: int
) -> list[Block]:
    return list(plan_blocks(selection, chunks, item_bytes, block_bytes))


@settings(max_examples=at_most(300))
@given(st.data(), SHAPES, st.sampled_from([1, 2, 8, 1000]), st.integers(1, 400))
def test_blocks_are_the_selection(
    data: st.DataObject, shape: tuple[int, ...], item_bytes: int, block_bytes: int
) -> None:
    selection = parse_selection(data.draw(selections(shape)), shape)
    chunks = data.draw(
        st.none() | st.tuples(*(st.integers(1, 9) for _ in shape)) if shape else st.none()
    )
    array = numbered(shape)
    expected = taken(array, selection)
    first, read = 0, []
    for block in planned(selection, chunks, item_bytes, block_bytes):
        part = taken(array, Selection(block.axes))
        assert block.first == first
        assert math.prod(block.shape) == part.size >= 1
        assert part.size * item_bytes <= block_bytes or part.size == 1
        # Whole rows of one axis: a shorter first dimension, and the answer's own behind it.
        tail = selection.shape[len(selection.shape) - len(block.shape) + 1 :]
        assert block.shape[1:] == tail or block.shape == selection.shape
        assert len(block.shape) <= len(selection.shape)
        first += part.size
        read.append(part.ravel())
    assert first == selection.size
    if read:
        np.testing.assert_array_equal(np.concatenate(read), expected.ravel())


@given(
    st.integers(1, 200),
    st.integers(1, 30),
    st.integers(1, 40),
    st.integers(0, 9),
    st.integers(1, 5),
)
def test_no_chunk_is_cut_needlessly(
    length: int, chunk: int, most: int, start: int, step: int
) -> None:
    axis = Axis(start, step, length)
    blocks = planned(Selection((axis,)), (chunk,), 1, most)
    for block, after in itertools.pairwise(blocks):
        last = block.axes[0].stop - 1
        if last // chunk != after.axes[0].start // chunk:
            continue
        # A cut inside a chunk: no boundary lies within the longest block from here.
        begin = block.axes[0].start
        assert block.axes[0].count == most
        assert begin // chunk == (begin + most * step) // chunk


def test_as_few_blocks_as_budget_and_boundaries_allow() -> None:
    # 10 rows of 8 bytes fit, chunks are 4 rows: 8 rows at a time.
    blocks = planned(select_all((30, 8)), (4, 8), 1, 80)
    assert [block.axes[0].start for block in blocks] == [0, 8, 16, 24]
    # All of it fits.
    assert len(planned(select_all((30, 8)), (4, 8), 1, 240)) == 1


def test_dropped_axes_have_no_place_in_a_shape() -> None:
    selection = parse_selection("3,:,2", (5, 6, 4))
    (block,) = planned(selection, None, 8, 1 << 20)
    assert block.shape == (6,)
    assert [b.shape for b in planned(selection, None, 8, 8)] == [(1,)] * 6
    (scalar,) = planned(parse_selection("1,2", (3, 3)), None, 8, 8)
    assert scalar.shape == ()


def test_scalar_and_empty() -> None:
    assert planned(select_all(()), None, 8, 1) == [Block(0, (), (), 1)]
    assert planned(select_all((3, 0)), (1, 1), 8, 1) == []


@given(SHAPES)
def test_positions_are_ndindex(shape: tuple[int, ...]) -> None:
    found = [tuple(axis.start for axis in each) for each in walk_positions(select_all(shape).axes)]
    assert found == list(np.ndindex(shape))


@settings(max_examples=at_most(300))
@given(st.data(), SHAPES)
def test_a_run_is_where_the_elements_lie(data: st.DataObject, shape: tuple[int, ...]) -> None:
    selection = parse_selection(data.draw(selections(shape)), shape)
    indices = taken(numbered(shape), selection).ravel()
    run = find_run(selection.axes, shape)
    if indices.size:
        assert (run is not None) == bool((np.diff(indices) == 1).all())
    if run is not None:
        assert indices.tolist() == list(range(run[0], run[0] + run[1]))


def test_a_run_joins_whole_rows() -> None:
    assert find_run(select_all((3, 4, 5)).axes, (3, 4, 5)) == (0, 60)
    assert find_run(parse_selection("1:3", (3, 4, 5)).axes, (3, 4, 5)) == (20, 40)
    assert find_run(parse_selection("1,2:4", (3, 4, 5)).axes, (3, 4, 5)) == (30, 10)
    assert find_run(parse_selection("1:3,2:4", (3, 4, 5)).axes, (3, 4, 5)) is None


@given(st.data(), st.sampled_from([0, 64, 4096]), st.sampled_from([1, 16, 100, 10_000]))
def test_windows_hold_each_wanted_element_once(
    data: st.DataObject, gap: int, window_bytes: int
) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=4)))
    axes = []
    for extent in shape:
        start = data.draw(st.integers(0, extent - 1))
        step = data.draw(st.integers(1, 3))
        count = data.draw(st.integers(1, (extent - 1 - start) // step + 1))
        axes.append(Axis(start, step, count, dropped=count == 1 and data.draw(st.booleans())))
    stored = np.arange(np.prod(shape)).reshape(shape)
    read = np.full([axis.count for axis in axes], -1)
    times_read = np.zeros(stored.size, int)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "GAP_BYTES", gap)
        for window in plan_windows(tuple(axes), shape, 8, window_bytes):
            span = slice(window.first, window.first + window.count)
            times_read[span] += 1
            part = stored.reshape(-1)[span].reshape(window.shape)
            read[window.target] = part if window.inside is None else part[window.inside]
    expected = stored[tuple(slice(axis.start, axis.stop, axis.step) for axis in axes)]
    np.testing.assert_array_equal(read, expected)
    assert times_read.max() == 1
