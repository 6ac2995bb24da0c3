"""Arrays of every dtype an answer may have, and every way to cut them into blocks."""

from collections.abc import Iterator
from random import Random
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt

from asgihive.encoders import Encoder, Values

Array = npt.NDArray[Any]

LONG = np.dtype(np.longdouble)
numbers = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
    hnp.complex_number_dtypes(endianness="?", sizes=(64, 128)),
    st.sampled_from([LONG, np.dtype(np.clongdouble)]),
)
opaque = st.integers(1, 5).map(lambda size: np.dtype(f"V{size}"))
simple = st.one_of(
    numbers,
    opaque,
    hnp.byte_string_dtypes(max_len=5),
    hnp.unicode_string_dtypes(max_len=3),
    hnp.datetime64_dtypes(),
    hnp.timedelta64_dtypes(),
)
# Numbers and strings of fixed length, and compounds of them, packed and with padding.
leaves = st.one_of(numbers, hnp.byte_string_dtypes(max_len=5), hnp.unicode_string_dtypes(max_len=3))
fixed = hnp.nested_dtypes(leaves, max_leaves=5).flatmap(
    lambda dtype: st.sampled_from([untitled(dtype), aligned(dtype), reversed_members(dtype)])
)
dtypes = st.one_of(simple, hnp.nested_dtypes(simple, max_leaves=4))
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)


def untitled(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Without the second names that NumPy has for members, and HDF5 has not."""
    if dtype.subdtype is not None:
        return np.dtype((untitled(dtype.subdtype[0]), dtype.subdtype[1]))
    if dtype.names is None:
        return dtype
    return np.dtype([(name, untitled(dtype[name])) for name in dtype.names])


def aligned(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """As C lays a struct out, with padding."""
    if dtype.subdtype is not None:
        return np.dtype((aligned(dtype.subdtype[0]), dtype.subdtype[1]))
    if dtype.names is None:
        return dtype
    members = [(name, aligned(dtype[name])) for name in dtype.names]
    return np.dtype(members, align=True)


def reversed_members(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The last member first in memory, and gaps between them."""
    if dtype.names is None:
        return dtype
    offset, offsets = 3, []
    members = [untitled(dtype[name]) for name in dtype.names]
    for each in reversed(members):
        offsets.append(offset)
        offset += each.itemsize + 1
    form: Any = {"names": list(dtype.names), "formats": members, "offsets": offsets[::-1]}
    form["itemsize"] = offset + 2
    placed: np.dtype[Any] = np.dtype(form)
    return placed


@st.composite
def arrays(
    draw: st.DrawFn,
    dtypes: st.SearchStrategy[np.dtype[Any]] = dtypes,
    shapes: st.SearchStrategy[tuple[int, ...]] = shapes,
) -> Array:
    dtype = draw(dtypes)
    while dtype.subdtype is not None:  # an array is never of an array dtype
        dtype = dtype.subdtype[0]
    array = np.empty(draw(shapes), dtype)
    _fill(draw, array)
    array.setflags(write=False)
    return array


def _fill(draw: st.DrawFn, array: Array) -> None:
    dtype = array.dtype
    if dtype.names is not None:
        for name in dtype.names:
            _fill(draw, array[name])
    elif dtype.kind == "V":
        size = array.size * dtype.itemsize
        raw = draw(st.binary(min_size=size, max_size=size))
        array[...] = np.frombuffer(raw, dtype).reshape(array.shape)
    else:
        array[...] = draw(hnp.arrays(dtype, array.shape))


def values_of(array: Array, name: str = "") -> Values:
    return Values(name, array.shape, array.dtype)


def whole(encoder: Encoder, array: Array) -> bytes:
    """The body in one block."""
    blocks = [(array, 0)] if array.size else []
    return _body(encoder, array, iter(blocks))


def in_blocks(encoder: Encoder, array: Array, random: Random) -> bytes:
    """The body, cut as the contract of `Encoder.block` allows."""
    return _body(encoder, array, _cut(array, 0, random) if array.size else iter(()))


def _body(encoder: Encoder, array: Array, blocks: Iterator[tuple[Array, int]]) -> bytes:
    values = values_of(array)
    encoded = [encoder.block(values, block, first) for block, first in blocks]
    body = b"".join((encoder.head(values), *encoded, encoder.tail(values)))
    assert encoder.length(values) in (None, len(body))
    return body


def _cut(array: Array, first: int, random: Random) -> Iterator[tuple[Array, int]]:
    if array.ndim == 0:
        yield array, first
        return
    row = array.size // len(array)
    start = 0
    while start < len(array):
        if array.ndim > 1 and random.random() < 0.5:
            yield from _cut(array[start], first + start * row, random)
            start += 1
        else:
            stop = random.randint(start + 1, len(array))
            yield array[start:stop], first + start * row
            start = stop
