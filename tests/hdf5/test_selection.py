"""Selections: NumPy's basic indexing is the oracle."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgihive.errors import BadSelection
from asgihive.hdf5.plan import Axis, Selection, parse_selection, select_all
from tests.hdf5.strategies import SHAPES, selections


def numbered(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return np.arange(int(np.prod(shape))).reshape(shape)


def taken(array: np.ndarray[Any, Any], selection: Selection) -> np.ndarray[Any, Any]:
    """The elements that the axes name, one index at a time."""
    indices = [[axis.start + i * axis.step for i in range(axis.count)] for axis in selection.axes]
    picked: np.ndarray[Any, Any] = array[np.ix_(*indices)] if indices else array
    return picked.reshape(selection.shape)


def indexed(array: np.ndarray[Any, Any], text: str) -> Any:
    """What NumPy makes of the text, whose numbers may begin with zeros, unlike Python's."""
    literal = re.sub(r"(?<!\d)0+(?=\d)", "", text)
    return eval(f"array[{literal or '...'}]", {"array": array})


@given(st.data(), SHAPES)
def test_valid_selections_mean_what_numpy_means(
    data: st.DataObject, shape: tuple[int, ...]
) -> None:
    text = data.draw(selections(shape))
    array = numbered(shape)
    selection = parse_selection(text, shape)
    np.testing.assert_array_equal(taken(array, selection), indexed(array, text))
    assert selection.size == taken(array, selection).size


TEXTS = st.one_of(
    st.text(max_size=12),
    st.text(alphabet="0123456789-+:,. ", max_size=16),
    st.lists(
        st.sampled_from(["0", "-1", "9", ":", "::2", "1:", ":-1", "...", "", " 1 ", "1:5:3", "7:2"])
        | st.integers().map(str),
        max_size=5,
    ).map(",".join),
)


@given(TEXTS, SHAPES)
@example("9999999999999999999", (3,))
@example(":99999999999999999999", (3,))
@example("0:3:9999999999999999999", (3,))
@example("٣", (5,))  # a digit to `str.isdigit`, and to `int`
@example("...,...", (5,))
@example("1,", (5, 5))
@example("0x1", (5,))
@example("1_0", (50,))
@example("01:-00", (5,))
def test_any_text_is_numpys_or_refused(text: str, shape: tuple[int, ...]) -> None:
    array = numbered(shape)
    try:
        selection = parse_selection(text, shape)
    except BadSelection:
        return
    # NumPy reads an empty text as an error; here it means everything.
    expected = indexed(array, text.strip())
    np.testing.assert_array_equal(taken(array, selection), expected)
    for axis, length in zip(selection.axes, shape, strict=True):
        assert 0 <= axis.start <= length
        assert 1 <= axis.step <= max(1, length)


@pytest.mark.parametrize(
    ("text", "shape", "words"),
    [
        ("3", (3,), "out of bounds"),
        ("-4", (3,), "out of bounds"),
        ("0", (0,), "out of bounds"),
        ("0", (), "0 dimensions"),
        ("0,0", (3,), "2 members"),
        (",", (3, 3), "empty"),
        ("::0", (3,), "at least 1"),
        ("::-1", (3,), "at least 1"),
        ("1:2:3:4", (3,), "colons"),
        ("...,0,...", (3,), "more than one"),
        ("a", (3,), "neither"),
        ("1 2", (3,), "neither"),
        ("1.0", (3,), "neither"),
        ("1" * 20, (3,), "neither"),
    ],
)
def test_refusals_say_why(text: str, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(BadSelection, match=words) as caught:
        parse_selection(text, shape)
    assert caught.value.parameter == "selection"


@pytest.mark.parametrize("text", [None, "", " ", "...", " ... ", ":", ":,..."])
def test_everything(text: str | None) -> None:
    assert parse_selection(text, (2, 3)) == select_all((2, 3))


def test_scalar_dataset() -> None:
    for text in (None, "", "..."):
        selection = parse_selection(text, ())
        assert (selection.shape, selection.size) == ((), 1)


def test_unselected_steps_are_no_steps() -> None:
    # libhdf5's strides have 64 bits, and a run of the storage has a step of 1.
    assert parse_selection("2:3:9999999999999999999", (9,)).axes == (Axis(2, 1, 1),)


@given(st.integers(0, 50), st.integers(1, 9), st.integers(0, 20), st.data())
def test_axis_parts_tile_the_axis(start: int, step: int, count: int, data: st.DataObject) -> None:
    axis = Axis(start, step, count)
    cut = data.draw(st.integers(0, count))
    indices = range(start, axis.stop, step)
    assert len(indices) == count
    halves = [axis.part(0, cut), axis.part(cut, count - cut)]
    assert [i for part in halves for i in range(part.start, part.stop, step)] == list(indices)
