"""Views as reduced: bin by bin with Python's numbers is the oracle, however the blocks are cut."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from asgihive.hdf5 import views
from asgihive.hdf5.plan import Selection, parse_selection, select_all
from asgihive.hdf5.views import Method, View, ViewReducer, ViewRequest, plan_view, plan_view_blocks
from tests.efforts import at_most
from tests.hdf5.strategies import SHAPES, selections
from tests.hdf5.test_selection import taken

Array = np.ndarray[Any, Any]
REDUCING = [Method.MEAN, Method.MIN, Method.MAX, Method.MINMAX]
DTYPES = ["?", "i1", ">u2", "<i4", "<u4", "<i8", ">u8", "<f2", ">f4", "<f8"]


def reduced(view: View, array: Array, block_bytes: int = 1 << 20, chunks: Any = None) -> Array:
    """The answer, put together; checks that each part is whole rows of one axis."""
    reducer = ViewReducer(view, array.dtype)
    parts = []
    for each in plan_view_blocks(view, chunks, array.itemsize, block_bytes):
        read = np.ascontiguousarray(taken(array, Selection(each.block.axes)))
        read.setflags(write=False)
        part = reducer.add(each, read)
        assert part.dtype == view.dtype
        if view.points:
            assert part.shape[1:] == view.shape[len(view.shape) - part.ndim + 1 :]
        else:
            assert part.shape == view.shape
        parts.append(part.ravel())
    flat = np.concatenate(parts) if parts else np.empty(0, view.dtype)
    return flat.reshape(view.shape)


def by_bins(view: View, values: Array) -> Array:
    """By definition, with exact sums."""
    answer = np.empty(view.shape, view.dtype)
    for index in np.ndindex(view.points):
        where = tuple(
            slice(i * factor, (i + 1) * factor)
            for i, factor in zip(index, view.factors, strict=True)
        )
        finite = [x for x in values[where].ravel().tolist() if math.isfinite(x)]
        if view.method is Method.MEAN:
            total = sum(map(Fraction, finite) if values.dtype.kind == "f" else finite)
            answer[index] = float(Fraction(total) / len(finite)) if finite else np.nan
        elif view.method is Method.MINMAX:
            answer[index] = (min(finite), max(finite)) if finite else (np.nan, np.nan)
        else:
            chosen = min if view.method is Method.MIN else max
            answer[index] = chosen(finite) if finite else np.nan
    return answer


def assert_equal(view: View, found: Array, values: Array, expected: Array) -> None:
    """Of the view, what was found and what `by_bins` makes of the values."""
    if view.method is not Method.MEAN:
        np.testing.assert_array_equal(found, expected)
        return
    usual = values.astype("f8")
    finite = np.abs(usual[np.isfinite(usual)])
    # Sums lose what doubles lose: of short integers, nothing.
    is_exact = values.dtype.kind != "f" and values.dtype.itemsize < 8
    largest = 0.0 if is_exact else float(finite.max(initial=0))
    np.testing.assert_allclose(found, expected, rtol=1e-15, atol=1e-14 * largest)


@settings(max_examples=at_most(200))
@given(st.data(), SHAPES, st.sampled_from(DTYPES), st.sampled_from(REDUCING))
def test_any_view_in_any_blocks(
    data: st.DataObject, shape: tuple[int, ...], dtype: str, method: Method
) -> None:
    array = data.draw(st_numpy.arrays(np.dtype(dtype), shape))
    selection = parse_selection(data.draw(selections(shape)), shape)
    if data.draw(st.booleans()):
        request = ViewRequest(data.draw(st.integers(1, 60)), method=method)
    else:
        most = tuple(data.draw(st.integers(1, 8)) for _ in selection.shape)
        request = ViewRequest(shape=most, method=method)
    view = plan_view(selection, array.dtype, request)
    chunks = data.draw(st.none() | st.tuples(*(st.integers(1, 5) for _ in shape)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views, "FILLED_BYTES", data.draw(st.sampled_from([24, 100, 1 << 20])))
        found = reduced(view, array, data.draw(st.integers(1, 400)), chunks if shape else None)
    values = taken(array, selection).reshape(selection.shape)
    assert_equal(view, found, values, by_bins(view, values))


@pytest.mark.parametrize(
    ("dtype", "factor", "method"),
    [
        # Each pair of two of them is fast, with half of the third.
        pytest.param(dtype, factor, method, marks=[pytest.mark.slow] * ((i + j + k) % 2))
        for i, dtype in enumerate(["u2", "i8", "f4", "f8"])
        for j, factor in enumerate([1, 2, 3, 16, 17, 1000, 70_001])
        for k, method in enumerate(REDUCING)
    ],
)
def test_long_curves(method: Method, factor: int, dtype: str) -> None:
    values = np.random.default_rng(factor).normal(size=70_001) * 9000
    values = np.abs(values).astype(dtype)
    view = plan_view(
        select_all(values.shape), values.dtype, ViewRequest(-(-70_001 // factor), None, method)
    )
    answer = reduced(view, values, 40_000)
    starts = np.arange(0, values.size, view.factors[0])
    wide = values.astype("i8" if values.dtype.kind != "f" else "f8")
    sums = np.add.reduceat(wide, starts)
    minima, maxima = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    expected = {
        Method.MEAN: sums / np.diff([*starts, values.size]),
        Method.MIN: minima,
        Method.MAX: maxima,
        Method.MINMAX: np.stack([minima, maxima], -1),
    }[method]
    np.testing.assert_allclose(answer, expected, rtol=1e-13 if method is Method.MEAN else 0)


# Each shape with every other method; by all of them it is slow.
@pytest.mark.parametrize(
    ("shape", "method"),
    [
        pytest.param(shape, method, marks=[pytest.mark.slow] * ((row + column) % 2))
        for row, shape in enumerate([(40, 900), (900, 2), (300, 40, 3), (2, 3, 700)])
        for column, method in enumerate(REDUCING)
    ],
)
def test_images(shape: tuple[int, ...], method: Method) -> None:
    values = np.random.default_rng(1).integers(-500, 500, shape).astype("i4")
    most = tuple(max(2, n // 7) for n in shape)
    view = plan_view(select_all(shape), values.dtype, ViewRequest(shape=most, method=method))
    expected = by_bins(view, values)
    for block_bytes in (1 << 20, 5000, 77):
        assert_equal(view, reduced(view, values, block_bytes), values, expected)


def test_rows_are_given_as_soon_as_they_are_complete() -> None:
    values = np.arange(40, dtype="u2").reshape(10, 4)
    view = plan_view(select_all((10, 4)), values.dtype, ViewRequest(shape=(4, 2)))
    reducer = ViewReducer(view, values.dtype)
    rows = [
        len(reducer.add(each, taken(values, Selection(each.block.axes))))
        for each in plan_view_blocks(view, None, 2, 16)
    ]
    # Two rows a block, three a bin; the last bin has one.
    assert rows == [0, 1, 1, 0, 2]


def test_sums_of_64_bits_do_not_overflow() -> None:
    for numbers, dtype in (
        ([2**63 - 1] * 5 + [-(2**63)] * 4, "i8"),
        ([2**64 - 1] * 7 + [3], ">u8"),
        ([-1] * 3, "i8"),
    ):
        values = np.array(numbers, dtype)
        view = plan_view(select_all(values.shape), values.dtype, ViewRequest(1))
        for block_bytes in (8, 24, 800):
            found = reduced(view, values, block_bytes)
            assert found[0] == pytest.approx(float(Fraction(sum(numbers), len(numbers))), rel=1e-15)


def test_floats_that_are_not_finite_or_large() -> None:
    most = np.finfo("f8").max
    values = np.array([np.nan, 1, 3, np.inf, -np.inf, np.nan, most, most, most, -most, 5, 5e-324])
    means = plan_view(select_all((12,)), values.dtype, ViewRequest(4))
    pairs = plan_view(select_all((12,)), values.dtype, ViewRequest(4, method=Method.MINMAX))
    for block_bytes in (8, 16, 40, 1000):
        mean = reduced(means, values, block_bytes)
        np.testing.assert_allclose(mean, [2, np.nan, most, -most / 3], rtol=1e-15)
        minmax = reduced(pairs, values, block_bytes)
        expected = [[1, 3], [np.nan, np.nan], [most, most], [-most, 5]]
        np.testing.assert_array_equal(minmax, expected)


def test_signalling_nans_are_as_good_as_others() -> None:
    values = np.array([0x7F800001, 0x3F800000], "<u4").view("<f4")
    for method in REDUCING:
        view = plan_view(select_all((2,)), values.dtype, ViewRequest(1, method=method))
        assert set(reduced(view, values).ravel().tolist()) == {1.0}
