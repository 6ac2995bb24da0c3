"""Padding is zero, at any depth, and every other byte is as it was."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgihive.padding import has_padding, zero_padding

JUNK = 0xAA

_SCALARS = st.sampled_from(
    ["i1", "<i2", ">i4", "<f8", "<c16", "S3", "V5", "?", "f16", ">f16", "c32"]
)


@st.composite
def _compounds(draw: st.DrawFn, members: st.SearchStrategy[np.dtype[Any]]) -> np.dtype[Any]:
    names, formats, offsets = [], [], []
    at = 0
    for number in range(draw(st.integers(1, 4))):
        at += draw(st.integers(0, 9))
        member = draw(members)
        shape = draw(st.sampled_from([(), (), (2,), (2, 3)]))
        names.append(f"m{number}")
        formats.append((member, shape))
        offsets.append(at)
        at += np.dtype((member, shape)).itemsize
    itemsize = at + draw(st.sampled_from([0, 0, 1, 7, 300]))
    order = draw(st.permutations(range(len(names))))
    return np.dtype(
        {
            "names": [names[k] for k in order],
            "formats": [formats[k] for k in order],
            "offsets": [offsets[k] for k in order],
            "itemsize": itemsize,
        }
    )


_DTYPES = st.recursive(_SCALARS.map(np.dtype), _compounds, max_leaves=6)


def _value_bytes(dtype: np.dtype[Any], first: int = 0) -> set[int]:
    """The bytes of an element that are of values, one by one."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        starts = range(first, first + dtype.itemsize, base.itemsize)
        assert len(starts) == np.prod(shape)
        return {each for start in starts for each in _value_bytes(base, start)}
    if dtype.fields is not None:
        members = [dtype.fields[name] for name in dtype.names or ()]
        return {each for member in members for each in _value_bytes(member[0], first + member[1])}
    if dtype.type is np.clongdouble:
        half = np.dtype("f16").newbyteorder(dtype.byteorder)
        return _value_bytes(half, first) | _value_bytes(half, first + half.itemsize)
    if dtype.type is np.longdouble and np.finfo(np.longdouble).nmant == 63:
        unused = dtype.itemsize - 10
        start = first if dtype.isnative else first + unused
        return set(range(start, start + 10))
    return set(range(first, first + dtype.itemsize))


@given(_DTYPES, st.sampled_from([(), (0,), (5,), (3, 2), (700,)]))
def test_what_is_no_value_is_zero(dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    size = dtype.itemsize * int(np.prod(shape))
    array = np.frombuffer(bytes([JUNK]) * size, dtype).reshape(shape)
    found = zero_padding(array)
    used = _value_bytes(dtype)
    element = bytes(JUNK if at in used else 0 for at in range(dtype.itemsize))
    assert (found.dtype, found.shape) == (dtype, shape)
    assert found.tobytes() == element * (size // dtype.itemsize)
    assert has_padding(dtype) == (len(used) < dtype.itemsize)
    assert (found is array) == (not has_padding(dtype))


@given(_DTYPES)
def test_of_strided_elements_those_are_taken(dtype: np.dtype[Any]) -> None:
    octets = np.arange(6 * 4 * dtype.itemsize, dtype="u4").astype("u1")
    array = octets.view(dtype).reshape(6, 4)[::-2, 1:]
    found = zero_padding(array)
    expected = zero_padding(np.frombuffer(array.tobytes(), dtype)).reshape(array.shape)
    used = sorted(_value_bytes(dtype))

    def values(of: Any) -> Any:
        raw = np.array(of.view(np.dtype((np.void, dtype.itemsize)))).reshape(-1)
        return raw.view("u1").reshape(-1, dtype.itemsize)[:, used]

    np.testing.assert_array_equal(values(found), values(array))
    np.testing.assert_array_equal(values(expected), values(array))


def test_elements_with_pointers_are_left_alone() -> None:
    array = np.zeros(3, np.dtype([("a", "i1"), ("b", "O")], align=True))
    assert zero_padding(array) is array


def test_an_element_of_many_bytes() -> None:
    size = 1 << 20
    dtype = np.dtype({"names": ["a"], "formats": ["u1"], "offsets": [9], "itemsize": size})
    found = zero_padding(np.frombuffer(bytes([JUNK]) * 3 * size, dtype)).view("u1")
    assert np.flatnonzero(found).tolist() == [9, size + 9, 2 * size + 9]


def test_members_that_overlap_keep_their_bytes() -> None:
    inner = np.dtype({"names": ["a"], "formats": ["u1"], "offsets": [0], "itemsize": 4})
    dtype = np.dtype(
        {"names": ["x", "y"], "formats": [inner, "u2"], "offsets": [0, 2], "itemsize": 8}
    )
    found = zero_padding(np.frombuffer(bytes([JUNK]) * 8, dtype))
    assert found.tobytes() == bytes([JUNK, 0, JUNK, JUNK, 0, 0, 0, 0])


@pytest.mark.parametrize("dtype", ["<f4", "S7", "V9", "M8[s]", [("a", "i1"), ("b", "<f8")]])
def test_what_has_none_is_not_copied(dtype: Any) -> None:
    array = np.zeros((3, 4), dtype)[:, ::2]
    assert zero_padding(array) is array
