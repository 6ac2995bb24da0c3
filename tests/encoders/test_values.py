"""What holds for every format, and the formats that are bytes of memory: bin, npy, msgpack."""

import io
from random import Random
from typing import Any

import hypothesis.strategies as st
import msgpack
import msgpack_numpy
import numpy as np
import pytest
from hypothesis import given

from asgihive.encoders import Encoder, Values, by_name, encoders
from tests.encoders.strategies import Array, arrays, in_blocks, numbers, shapes, values_of, whole


@pytest.mark.parametrize("name", ["json", "bin", "npy", "msgpack"])
@given(data=st.data(), random=st.randoms(use_true_random=False))
def test_cuts_do_not_show(name: str, data: st.DataObject, random: Random) -> None:
    encoder = by_name(name)
    array = data.draw(arrays() if name in ("json", "bin") else arrays(numbers))
    assert in_blocks(encoder, array, random) == whole(encoder, array)


@pytest.mark.parametrize("name", encoders())
def test_an_empty_dataspace(name: str) -> None:
    encoder, values = by_name(name), Values("x", None, np.dtype(float))
    bodies = {"json": b"null", "bin": b"", "msgpack": msgpack.packb(None)}
    if name in bodies:
        assert encoder.head(values) + encoder.tail(values) == bodies[name]
        assert encoder.length(values) in (None, len(bodies[name]))
    else:
        assert encoder.refusal(values)


@given(arrays())
def test_bin_is_the_memory(array: Array) -> None:
    assert whole(by_name("bin"), array) == array.tobytes()


def test_bin_does_not_copy() -> None:
    array = np.arange(6.0).reshape(2, 3)
    block = by_name("bin").block(values_of(array), array, 0)
    assert np.shares_memory(np.frombuffer(block, np.uint8), array)


@pytest.mark.parametrize("name", ["bin", "npy", "csv", "tiff", "msgpack"])
@pytest.mark.parametrize("dtype", [object, [("a", int), ("b", object)]])
def test_objects_are_never_sent_as_memory(name: str, dtype: Any) -> None:
    assert by_name(name).refusal(Values("", (2, 2), np.dtype(dtype)))


@pytest.mark.parametrize("name", ["npy", "csv", "tiff", "msgpack"])
@pytest.mark.parametrize("dtype", ["S3", "U3", "V3", "M8[s]", "m8[s]", [("a", int)]])
def test_numbers_only(name: str, dtype: Any) -> None:
    assert by_name(name).refusal(Values("", (2, 2), np.dtype(dtype)))


@given(arrays(numbers))
def test_npy_is_numpy_save(array: Array) -> None:
    file = io.BytesIO()
    np.save(file, array)
    assert whole(by_name("npy"), array) == file.getvalue()


@given(arrays(numbers))
def test_msgpack_is_msgpack_numpy(array: Array) -> None:
    body = whole(by_name("msgpack"), array)
    # A scalar of msgpack-numpy is always native, an answer keeps the file's byte order.
    if array.ndim or array.dtype.isnative:
        # Not its `packb`, which sends a float64 as the Python float that it also is.
        assert body == msgpack.packb(msgpack_numpy.encode(array if array.ndim else array[()]))
    decoded = msgpack_numpy.unpackb(body)
    np.testing.assert_array_equal(decoded, array, strict=array.ndim > 0)


@given(size=st.integers(0, (1 << 32) - 1))
def test_msgpack_announces_its_data(size: int) -> None:
    values = Values("", (size,), np.dtype("u1"))
    unpacker = msgpack.Unpacker(max_buffer_size=0, max_bin_len=-1)
    head = by_name("msgpack").head(values)
    empty = by_name("msgpack").head(Values("", (size, 0), np.dtype("u1")))
    width = 1 if size < 1 << 8 else 2 if size < 1 << 16 else 4
    assert int.from_bytes(head[-width:], "big") == size
    assert head[-width - 1] == {1: 0xC4, 2: 0xC5, 4: 0xC6}[width]
    unpacker.feed(empty)
    assert unpacker.unpack()[b"shape"] == [size, 0]


def test_msgpack_has_an_end() -> None:
    fits = Values("", ((1 << 32) - 1,), np.dtype("u1"))
    over = Values("", (1 << 32,), np.dtype("u1"))
    assert by_name("msgpack").refusal(fits) is None
    assert "4294967295 bytes" in str(by_name("msgpack").refusal(over))


@given(arrays(), shapes)
def test_a_length_is_known_before_the_values(array: Array, shape: tuple[int, ...]) -> None:
    values = Values("", shape, array.dtype)
    for name in ("bin", "npy", "msgpack", "tiff"):
        encoder: Encoder = by_name(name)
        if encoder.refusal(values) is None:
            assert encoder.length(values) is not None
