"""Views as planned: factors, shapes, and blocks that cover the selection."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgihive.errors import BadParameter, FormatMismatch
from asgihive.hdf5 import views
from asgihive.hdf5.plan import Selection, parse_selection, select_all
from asgihive.hdf5.views import Method, View, ViewRequest, plan_view, plan_view_blocks
from tests.hdf5.strategies import SHAPES, selections
from tests.hdf5.test_selection import numbered, taken

U2 = np.dtype("u2")
LENGTHS = st.lists(st.integers(0, 300), max_size=4).map(tuple)


def planned(shape: tuple[int, ...], request: ViewRequest) -> View:
    return plan_view(select_all(shape), U2, request)


@given(LENGTHS, st.integers(1, 500))
def test_max_points_takes_the_smallest_factor_that_will_do(
    shape: tuple[int, ...], most: int
) -> None:
    view = planned(shape, ViewRequest(max_points=most))
    assert math.prod(view.points) <= most
    factor = max(view.factors, default=1)
    # An axis that is shorter than the factor makes one bin.
    assert view.factors == tuple(min(factor, max(1, n)) for n in shape)
    if factor > 1:
        assert math.prod(-(-n // (factor - 1)) for n in shape) > most


@given(st.data(), LENGTHS)
def test_shape_takes_the_smallest_factors_that_will_do(
    data: st.DataObject, shape: tuple[int, ...]
) -> None:
    most = data.draw(st.tuples(*(st.integers(1, 400) for _ in shape)))
    view = planned(shape, ViewRequest(shape=most))
    for n, points, factor, limit in zip(shape, view.points, view.factors, most, strict=True):
        assert points == -(-n // factor) <= limit
        assert factor == 1 or -(-n // (factor - 1)) > limit


def test_the_issue_s_curve_and_image() -> None:
    assert planned((100_000_000,), ViewRequest(max_points=2000)).factors == (50_000,)
    image = planned((20_000, 20_000), ViewRequest(max_points=1_000_000, method=Method.MINMAX))
    assert image.factors == (20, 20)
    assert image.shape == (1000, 1000, 2)
    huge = planned((2**63 - 1,), ViewRequest(max_points=1))
    assert huge.points == (1,)


def test_types_of_answers() -> None:
    for method in Method:
        view = plan_view(select_all((9,)), np.dtype(">f4"), ViewRequest(3, method=method))
        assert view.dtype == ("f8" if method is Method.MEAN else ">f4")


@given(st.data(), SHAPES, st.integers(1, 30))
def test_nearest_is_the_first_of_each_bin(
    data: st.DataObject, shape: tuple[int, ...], most: int
) -> None:
    selection = parse_selection(data.draw(selections(shape)), shape)
    view = plan_view(selection, U2, ViewRequest(most, method=Method.NEAREST))
    array = numbered(shape)
    every = tuple(slice(None, None, factor) for factor in view.factors)
    expected = taken(array, selection).reshape(selection.shape)[every]
    assert view.nearest.shape == view.shape == expected.shape
    np.testing.assert_array_equal(taken(array, view.nearest).reshape(view.shape), expected)


@given(st.data(), SHAPES, st.integers(1, 400), st.sampled_from([24, 100, 1 << 20]))
def test_blocks_cover_the_selection_once(
    data: st.DataObject, shape: tuple[int, ...], block_bytes: int, filled_bytes: int
) -> None:
    selection = parse_selection(data.draw(selections(shape)), shape)
    view = plan_view(selection, U2, ViewRequest(data.draw(st.integers(1, 60))))
    array, read = numbered(shape), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views, "FILLED_BYTES", filled_bytes)
        for each in plan_view_blocks(view, None, 2, block_bytes):
            part = taken(array, Selection(each.block.axes)).ravel().tolist()
            assert len(part) * 2 <= block_bytes or len(part) == 1
            read += part
    assert sorted(read) == sorted(taken(array, selection).ravel().tolist())


def test_one_box_is_read_as_the_selection_is() -> None:
    view = planned((100, 64, 64), ViewRequest(max_points=1000))
    blocks = list(plan_view_blocks(view, (1, 64, 64), 2, 8192))
    assert len({id(each.box) for each in blocks}) == 1
    # One chunk a block, though bins are larger than chunks.
    assert [each.block.axes[0].start for each in blocks] == list(range(100))


@pytest.mark.parametrize("method", [Method.MEAN, Method.MIN, Method.MAX, Method.MINMAX])
def test_values_that_are_no_real_numbers(method: Method) -> None:
    request = ViewRequest(10, method=method)
    for dtype in ("c16", "S3", "V4", "O", [("x", "i4")]):
        with pytest.raises(FormatMismatch, match=f"`method` is `{method}`: .* only nearest"):
            plan_view(select_all((5,)), np.dtype(dtype), request)
    with pytest.raises(FormatMismatch, match=r"arrays \(3,\) of uint16"):
        plan_view(select_all((5,)), U2, request, (3,))
    plan_view(select_all((5,)), np.dtype("c16"), ViewRequest(10, method=Method.NEAREST), (3,))


def test_a_shape_for_another_number_of_axes() -> None:
    selection = parse_selection("2,:,:", (5, 6, 7))
    with pytest.raises(BadParameter, match=r"`shape` is `3,3,3`: one number .* has 2 \(6,7\)"):
        plan_view(selection, U2, ViewRequest(shape=(3, 3, 3)))
    with pytest.raises(BadParameter, match="has none"):
        plan_view(select_all(()), U2, ViewRequest(shape=(3,)))
