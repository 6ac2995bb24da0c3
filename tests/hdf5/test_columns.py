"""Names of columns: any compound, compared with NumPy's own way to its members."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgihive.errors import BadParameter
from asgihive.hdf5.columns import find_columns
from asgihive.hdf5.types import without_dimensions
from tests.efforts import at_most

NAMES = st.text(st.sampled_from(["a", "b", ".", ",", " ", "é"]), min_size=1, max_size=4)
LEAVES = st.sampled_from(["<i4", ">f8", "S3", "?", "<c8"])


def _wrap(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    sized = st.tuples(inner, st.sampled_from([(), (2,), (3, 1)]))
    members = st.lists(st.tuples(NAMES, sized), min_size=1, max_size=4, unique_by=lambda m: m[0])
    return members.map(lambda found: np.dtype([(n, np.dtype(d)) for n, d in found]))


COMPOUNDS = _wrap(st.recursive(LEAVES, _wrap, max_leaves=6))


def _walk(dtype: np.dtype[Any], way: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    base, _ = without_dimensions(dtype)
    found = [way] if way else []
    for name in base.names or ():
        found += _walk(base[name], (*way, name))
    return found


def _fill(dtype: np.dtype[Any]) -> Any:
    """Elements of which no two bytes of one are alike, as far as that goes."""
    octets = np.arange(3 * dtype.itemsize).astype(np.uint8)
    return octets.view(dtype)


@given(COMPOUNDS, st.data())
@settings(max_examples=at_most(60))
def test_a_name_leads_to_the_member_that_numpy_has(dtype: np.dtype[Any], data: Any) -> None:
    way = data.draw(st.sampled_from(_walk(dtype)))
    text = ".".join(way)
    rows = _fill(dtype)
    wanted = rows
    columns = find_columns((text,), dtype, (), {})
    assert columns.names == (text,)
    assert columns.ways is not None
    for name in columns.ways[0]:
        wanted = wanted[name]
    taken = columns.take(rows)
    assert (taken.dtype, taken.shape) == (columns.dtype, (3, *columns.item_shape))
    assert taken.tobytes() == np.ascontiguousarray(wanted).tobytes()
    if text in (dtype.names or ()):
        assert columns.ways == ((text,),)


@given(COMPOUNDS, st.data())
@settings(max_examples=at_most(60))
def test_several_names_are_repeated_parameters(dtype: np.dtype[Any], data: Any) -> None:
    texts = data.draw(
        st.lists(
            st.sampled_from([".".join(each) for each in _walk(dtype)]), min_size=2, unique=True
        )
        if len({".".join(each) for each in _walk(dtype)}) > 1
        else st.just([])
    )
    if not texts:
        return
    rows = _fill(dtype)
    columns = find_columns(tuple(texts), dtype, (), {})
    taken = columns.take(rows)
    assert taken.dtype.names == tuple(texts)
    for each, name in zip(columns.split(), texts, strict=True):
        alone = find_columns((name,), dtype, (), {})
        assert (each.dtype, each.item_shape, each.ways) == (
            alone.dtype,
            alone.item_shape,
            alone.ways,
        )
        assert taken[name].tobytes() == alone.take(rows).tobytes()


def test_a_name_as_a_whole_comes_first() -> None:
    inner = np.dtype([("b", "i1"), ("b,c", "i2")])
    dtype = np.dtype([("a", inner), ("a.b", "i4"), ("x", "i8"), ("x,a", "u1"), (" y", "u2")])
    for texts, ways in [
        (("a.b",), (("a.b",),)),
        (("a.b,c",), (("a", "b,c"),)),
        (("x,a",), (("x,a",),)),
        (("x,a.b",), (("x",), ("a.b",))),
        (("x", "a"), (("x",), ("a",))),
        (("x, y",), (("x",), (" y",))),
        (("a , x",), (("a",), ("x",))),
        (("x,a", "x"), (("x,a",), ("x",))),
    ]:
        assert find_columns(texts, dtype, (), {}).ways == ways
    with pytest.raises(BadParameter):
        find_columns(("a.c",), dtype, (), {})


def test_a_name_that_is_not_utf_8_is_found_as_it_is_shown() -> None:
    dtype = np.dtype([("a\ufffd", "i1"), ("b", "i2")])
    for asked in ("a\udcff", "a\ufffd"):
        assert find_columns((asked,), dtype, (), {}).dtype == np.dtype("i1")
