"""Mappings by themselves: what is read of a source, against the definition in NumPy."""

import math
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgihive.hdf5 import pairing
from asgihive.hdf5.hyperslabs import (
    Hyperslab,
    IndexRuns,
    RegularIndices,
    SpanTree,
    build_irregular,
)
from asgihive.hdf5.pairing import Unpaired, find_source_bounds, pair_boxes
from asgihive.hdf5.plan import Axis
from tests.efforts import at_most

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]


def boxes_of(mask: Array) -> list[tuple[list[int], list[int]]]:
    """A selection as libhdf5 lists it: runs of equal rows, below them runs of their rows."""
    found: list[tuple[list[int], list[int]]] = []
    first = 0
    while first < len(mask):
        stop = first + 1
        while stop < len(mask) and np.array_equal(mask[stop], mask[first]):
            stop += 1
        row = mask[first]
        below = boxes_of(row) if mask.ndim > 1 else [([], [])] * int(row)
        found += [([first, *low], [stop - 1, *high]) for low, high in below]
        first = stop
    return found


def hyperslab_of(mask: Array) -> Hyperslab:
    found = build_irregular(np.array(boxes_of(mask), np.uint64))
    sizes = [found.size] if isinstance(found, SpanTree) else [line.length or 0 for line in found]
    assert math.prod(sizes) == mask.sum()
    return found


def shapes(most: int = 9) -> st.SearchStrategy[Shape]:
    return st.lists(st.integers(1, most), min_size=1, max_size=3).map(tuple)


@st.composite
def masks(draw: st.DrawFn) -> Array:
    """Elements of a small dataset: some hyperslabs together, or a list of indices."""
    shape = draw(shapes())
    mask = np.zeros(shape, bool)
    for _ in range(draw(st.integers(1, 3))):
        part: list[Any] = []
        for extent in shape:
            start = draw(st.integers(0, extent - 1))
            stop = draw(st.integers(start + 1, extent))
            part.append(slice(start, stop, draw(st.sampled_from([1, 1, 2, 3]))))
        if draw(st.booleans()):
            at = draw(st.integers(0, len(shape) - 1))
            indices = st.lists(st.integers(0, shape[at] - 1), min_size=1, unique=True)
            part[at] = sorted(draw(indices))
        mask[tuple(part)] = True
    return mask


@st.composite
def source_masks(draw: st.DrawFn, count: int) -> Array:
    """As many elements of another dataset."""
    shape = draw(shapes(40).filter(lambda each: math.prod(each) >= count))
    mask = np.zeros(math.prod(shape), bool)
    if draw(st.booleans()):
        first = draw(st.integers(0, len(mask) - count))
        mask[first : first + count] = True
    else:
        order = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(mask))
        mask[order[:count]] = True
    return mask.reshape(shape)


@st.composite
def blocks(draw: st.DrawFn, shape: Shape) -> tuple[Axis, ...]:
    axes = []
    for extent in shape:
        start = draw(st.integers(0, extent - 1))
        step = draw(st.integers(1, 3))
        axes.append(Axis(start, step, draw(st.integers(1, -(-(extent - start) // step)))))
    return tuple(axes)


def taken(values: Array, axes: tuple[Axis, ...]) -> Array:
    return values[tuple(slice(each.start, each.stop, each.step) for each in axes)]


def check(
    pair: tuple[Hyperslab, Hyperslab | None],
    virtual: Array,
    source: Array,
    extent: Shape,
    data: Any,
) -> None:
    """Whether a block is what pairing both selections in C order makes of it."""
    content = np.arange(1, source.size + 1).reshape(source.shape)
    expected = np.zeros(virtual.shape, int)
    for target, origin in zip(np.argwhere(virtual), np.argwhere(source), strict=True):
        if (origin < extent).all():
            expected[tuple(target)] = content[tuple(origin)]
    content = content[tuple(map(slice, extent))]
    axes = data.draw(blocks(virtual.shape))
    block = np.zeros([each.count for each in axes], int)
    times = np.zeros_like(block)
    bounds = find_source_bounds(*pair, axes, extent)
    for box in pair_boxes(*pair, axes, extent):
        assert bounds is not None
        for axis, around in zip(box.axes, bounds, strict=True):
            assert axis.count
            assert around.start <= axis.start < axis.stop <= around.stop or box.picked is not None
        read = taken(content, box.axes)
        box.put(read, block)
        once = np.zeros_like(times)
        box.put(np.ones(read.shape, int), once)
        times += once
    np.testing.assert_array_equal(block, taken(expected, axes))
    assert times.max(initial=0) <= 1


@settings(max_examples=at_most(150), deadline=None)
@given(masks(), st.sampled_from([5, 1 << 18]), st.data())
def test_any_selections_are_paired_in_c_order(
    virtual: Array, at_once: int, data: st.DataObject
) -> None:
    source = data.draw(source_masks(int(virtual.sum())))
    extent = tuple(max(1, each - data.draw(st.integers(0, 2))) for each in source.shape)
    pair = (hyperslab_of(virtual), hyperslab_of(source))
    with patch.object(pairing, "COUNTED_AT_ONCE", at_once):
        check(pair, virtual, source, extent, data)


@settings(max_examples=at_most(60), deadline=None)
@given(masks(), st.data())
def test_all_of_a_source_is_paired_in_c_order(virtual: Array, data: st.DataObject) -> None:
    count = int(virtual.sum())
    divisors = [each for each in range(1, count + 1) if count % each == 0]
    rows = data.draw(st.sampled_from(divisors))
    source = np.ones((rows, count // rows), bool)
    pair = (hyperslab_of(virtual), None)
    check(pair, virtual, source, source.shape, data)


def test_a_vector_out_of_a_matrix_is_read_in_few_hyperslabs() -> None:
    pair = ((RegularIndices(0, 1, 10**6, 1),), None)
    found = list(pair_boxes(*pair, (Axis(500, 1, 900_000),), (1000, 1000)))
    # Of a block, its first and its last row are read whole.
    assert 900_000 <= sum(math.prod(axis.count for axis in box.axes) for box in found) < 910_000
    assert len(found) < 20


def test_a_long_list_of_indices_is_one_read() -> None:
    order = np.random.default_rng(1).permutation(4000)[:2400]
    mask = np.zeros(4000, bool)
    mask[order] = True
    pair = (hyperslab_of(mask), None)
    [box] = pair_boxes(*pair, (Axis(0, 1, 4000),), (2400,))
    assert box.axes == (Axis(0, 1, 2400),)


def test_what_is_large_costs_nothing_until_it_is_read() -> None:
    """No array is as long as an extent."""
    huge = 10**15
    virtual = (RegularIndices(0, 1, huge, 1), RegularIndices(0, huge, 1, huge))
    pair = (virtual, None)
    axes = (Axis(0, 1, huge), Axis(5, 7, huge // 7))
    [box] = pair_boxes(*pair, axes, (huge, huge))
    assert box.axes == (Axis(0, 1, huge), Axis(5, 7, huge // 7))
    assert find_source_bounds(*pair, axes, (huge, huge)) is not None
    gaps = ((RegularIndices(0, 3, huge, 2),), (RegularIndices(0, 5, huge, 2),))
    assert find_source_bounds(*gaps, (Axis(0, 1, 2 * huge),), (huge * 5,)) is not None


@pytest.mark.parametrize(
    ("virtual", "source", "shape"),
    [
        ((RegularIndices(0, 1, 4, 1),), None, (5,)),
        ((RegularIndices(0, 1, 4, 1),), None, (2, 3)),
        ((RegularIndices(0, 1, 4, 1),), (RegularIndices(0, 1, 5, 1),), (5,)),
        ((RegularIndices(0, 1, None, 1),), (RegularIndices(0, 1, 5, 1),), (5,)),
        ((RegularIndices(0, 1, 4, 1),), (RegularIndices(0, 1, None, 1),), (5,)),
        (
            (RegularIndices(0, 1, 4, 1),),
            hyperslab_of(np.array([[1, 1, 0], [0, 1, 0]], bool)),
            (2, 3),
        ),
    ],
)
def test_different_numbers_of_elements_pair_with_nothing(
    virtual: Hyperslab, source: Hyperslab | None, shape: Shape
) -> None:
    pair = (virtual, source)
    with pytest.raises(Unpaired):
        list(pair_boxes(*pair, (Axis(0, 1, 4),), shape))


@given(masks().filter(lambda mask: mask.ndim == 1), st.integers(0, 12))
def test_spans_count_what_they_select(mask: Array, extent: int) -> None:
    boxes = boxes_of(mask)
    spans = IndexRuns.of([low[0] for low, _ in boxes], [high[0] + 1 for _, high in boxes])
    indices = np.flatnonzero(mask)
    assert spans.length == len(indices)
    assert spans.count_below(extent) == (indices < extent).sum()
    np.testing.assert_array_equal(spans.find_indices(np.arange(len(indices))), indices)
    assert [spans.find_extent(each) for each in range(len(indices) + 1)] == [
        0,
        *(indices + 1).tolist(),
    ]


@pytest.mark.parametrize(
    "boxes",
    [
        [([5], [6]), ([1], [2])],
        [([1], [4]), ([3], [6])],
        [([4], [1])],
        [([0], [2**63])],
        [([0, 0], [3, 3]), ([2, 0], [5, 3])],
        [([0, 0, 0], [2**40, 2**40, 2**40])],
    ],
)
def test_boxes_that_libhdf5_never_lists_are_refused(boxes: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        build_irregular(np.array(boxes, np.uint64))


def test_equal_subtrees_are_one() -> None:
    mask = np.zeros((200, 50), bool)
    mask[::2, ::2] = True
    mask[-1] = True
    tree = build_irregular(np.array(boxes_of(mask), np.uint64))
    assert isinstance(tree, SpanTree)
    assert [len(level.nodes) for level in tree.levels] == [1, 2]
    assert isinstance(build_irregular(np.array(boxes_of(mask[:-1]), np.uint64)), tuple)


@given(st.integers(0, 4), st.integers(1, 4), st.integers(0, 3), st.integers(1, 5), st.data())
def test_blocks_that_an_axis_touches(
    start: int, block: int, gap: int, count: int, data: st.DataObject
) -> None:
    slab = RegularIndices(start, block + gap, data.draw(st.sampled_from([None, count])), block)
    [axis] = data.draw(blocks((40,)))
    touched = {
        number
        for index in range(axis.start, axis.stop, axis.step)
        for number in range(40 if slab.count is None else count)
        if 0 <= index - start - number * slab.stride < block
    }
    assert list(slab.find_blocks(axis)) == sorted(touched)
