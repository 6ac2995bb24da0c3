"""What holds for every format, and the formats that are bytes of memory: bin, npy, msgpack."""

import contextlib
import io
import json
import warnings
from random import Random
from typing import Any

import h5py
import hypothesis.strategies as st
import msgpack
import msgpack_numpy
import numpy as np
import pytest
from hypothesis import given

from asgihive.encoders import DocumentEncoder, Encoder, Values, find_encoder, list_encoders
from asgihive.encoders.json import BY_NAME
from asgihive.encoders.protocol import pack_dtype, view_bytes
from tests.encoders.strategies import (
    Array,
    arrays,
    fixed,
    in_blocks,
    numbers,
    shapes,
    values_of,
    whole,
)


@pytest.mark.parametrize("name", ["json", "bin", "npy", "msgpack"])
@given(data=st.data(), random=st.randoms(use_true_random=False))
def test_cuts_do_not_show(name: str, data: st.DataObject, random: Random) -> None:
    encoder = find_encoder(name)
    array = data.draw(arrays() if name in ("json", "bin") else arrays(fixed))
    assert in_blocks(encoder, array, random) == whole(encoder, array)


@pytest.mark.parametrize("name", list_encoders())
def test_an_empty_dataspace(name: str) -> None:
    encoder, values = find_encoder(name), Values("x", None, np.dtype(float))
    bodies = {"json": b"null", "bin": b"", "msgpack": msgpack.packb(None)}
    if name in bodies:
        assert encoder.head(values) + encoder.tail(values) == bodies[name]
        assert encoder.length(values) in (None, len(bodies[name]))
    else:
        assert encoder.refusal(values)


@given(arrays())
def test_bin_is_the_memory(array: Array) -> None:
    assert whole(find_encoder("bin"), array) == array.tobytes()


def test_bin_does_not_copy() -> None:
    array = np.arange(6.0).reshape(2, 3)
    block = find_encoder("bin").block(values_of(array), array, 0)
    assert np.shares_memory(np.frombuffer(block, np.uint8), array)


@pytest.mark.parametrize("name", ["arrow", "bin", "npy", "csv", "tiff", "msgpack"])
@pytest.mark.parametrize("dtype", [object, [("a", int), ("b", object)]])
def test_objects_are_never_sent_as_memory(name: str, dtype: Any) -> None:
    assert find_encoder(name).refusal(Values("", (2, 2), np.dtype(dtype)))


@pytest.mark.parametrize("name", ["npy", "csv", "tiff", "msgpack"])
@pytest.mark.parametrize("dtype", ["V3", "M8[s]", "m8[s]", [("a", int), ("b", [("c", "V3")])]])
def test_numbers_and_text_only(name: str, dtype: Any) -> None:
    assert find_encoder(name).refusal(Values("", (2,), np.dtype(dtype)))


@pytest.mark.parametrize("dtype", ["S3", "U3", [("a", int)]])
def test_pixels_are_numbers(dtype: Any) -> None:
    assert find_encoder("tiff").refusal(Values("", (2, 2), np.dtype(dtype)))


def saved(array: Array) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        # That names beyond Latin-1 need version 3.0 of the format.
        warnings.simplefilter("ignore", UserWarning)
        np.save(file, array)
    return file.getvalue()


def loaded(body: bytes) -> Any:
    return np.load(io.BytesIO(body), allow_pickle=False, max_header_size=1 << 24)


@given(arrays(numbers))
def test_npy_is_numpy_save(array: Array) -> None:
    assert whole(find_encoder("npy"), array) == saved(array)


@given(arrays(fixed))
def test_npy_of_compounds_and_text(array: Array) -> None:
    body = whole(find_encoder("npy"), array)
    read = loaded(body)
    assert body.endswith(bytes(view_bytes(array)))
    # NumPy has no description of members that are not in the order of their places.
    with contextlib.suppress(ValueError):
        head = len(body) - array.nbytes
        assert body[:head] == saved(array)[:head]
        assert read.dtype == array.dtype
    assert_same_members(read, array)


def assert_same_members(first: Array, second: Array) -> None:
    """The same values by the same names, in whatever place."""
    assert first.shape == second.shape
    assert first.dtype.names is None or set(first.dtype.names) == set(second.dtype.names or ())
    if first.dtype.names is None:
        np.testing.assert_array_equal(first, second, strict=first.ndim > 0)
    for name in first.dtype.names or ():
        assert_same_members(first[name], second[name])


@pytest.mark.parametrize("letter", ["a", "é", "μ"])
@pytest.mark.parametrize(
    ("shape", "count"),
    [
        ((), 1),
        ((2,), 1),
        ((3, 4), 1),
        ((), 5000),
        pytest.param((3, 4), 5000, marks=pytest.mark.slow),
    ],
)
def test_npy_headers_of_every_version(count: int, letter: str, shape: tuple[int, ...]) -> None:
    array = np.zeros(shape, [(f"{letter}{i}", "<i4") for i in range(count)])
    body = whole(find_encoder("npy"), array)
    assert body == saved(array)
    read = loaded(body)
    assert (read.dtype, read.shape) == (array.dtype, array.shape)


def test_npy_says_nothing_of_what_h5py_notes() -> None:
    marked = h5py.enum_dtype({"ON": 1}, "u1")
    text = h5py.string_dtype("utf-8", 4)
    array = np.zeros(2, [("state", marked), ("name", text), ("is_on", "?")])
    plain = np.dtype([("state", "u1"), ("name", "S4"), ("is_on", "?")])
    assert loaded(whole(find_encoder("npy"), array)).dtype == plain
    assert loaded(whole(find_encoder("npy"), np.zeros(2, text))).dtype == "S4"
    assert_same_members(unpacked(whole(find_encoder("msgpack"), array)), array)


def test_npy_has_no_words_for_some_members() -> None:
    union = np.dtype({"names": ["a", "b"], "formats": ["i4", "f4"], "offsets": [0, 2]})
    assert "share bytes" in str(find_encoder("npy").refusal(Values("", (1,), union)))
    nested = np.dtype([("x", union, (2,))])
    assert "share bytes" in str(find_encoder("npy").refusal(Values("", (1,), nested)))
    bad = np.dtype([("a\udcff", "i4")])
    assert "UTF-8" in str(find_encoder("npy").refusal(Values("", (1,), bad)))


def unpacked(body: bytes) -> Any:
    return msgpack_numpy.unpackb(body)


@given(arrays(fixed))
def test_msgpack_of_compounds_and_text(array: Array) -> None:
    body = whole(find_encoder("msgpack"), array)
    decoded = unpacked(body)
    assert decoded.dtype.names == array.dtype.names
    assert_same_members(np.asarray(decoded), array)
    is_packed = pack_dtype(array.dtype) == array.dtype
    if array.dtype.names and array.ndim and is_packed:
        with contextlib.suppress(ValueError):  # a colon in a name
            assert body == msgpack.packb(msgpack_numpy.encode(array))
    if array.dtype.names:  # no byte of what lies between the members
        assert decoded.dtype.itemsize == pack_dtype(array.dtype).itemsize


texts = st.text(st.characters(codec=None, categories=None), max_size=3) | st.binary(max_size=3)


@st.composite
def text_arrays(draw: st.DrawFn, shapes: st.SearchStrategy[tuple[int, ...]] = shapes) -> Array:
    """As h5py reads strings of variable length."""
    array = np.empty(draw(shapes), h5py.string_dtype())
    for index in np.ndindex(array.shape):
        array[index] = draw(texts)
    return array


def shown(value: Any) -> Any:
    encoder = find_encoder("json")
    assert isinstance(encoder, DocumentEncoder)
    return json.loads(encoder.document(value))


@given(text_arrays(), st.randoms(use_true_random=False))
def test_msgpack_of_text_of_variable_length(array: Array, random: Random) -> None:
    body = in_blocks(find_encoder("msgpack"), array, random)
    assert msgpack.unpackb(body) == shown(array)


def test_msgpack_of_other_objects_is_refused() -> None:
    sequences = h5py.vlen_dtype("i4")
    for dtype in (sequences, [("a", h5py.string_dtype())], h5py.ref_dtype, object):
        reason = find_encoder("msgpack").refusal(Values("", (1,), np.dtype(dtype)))
        assert "variable length" in str(reason)


@given(arrays(), st.randoms(use_true_random=False))
def test_json_by_name(array: Array, random: Random) -> None:
    assert json.loads(in_blocks(BY_NAME, array, random)) == named(array)
    assert json.loads(BY_NAME.document({"a": [array]})) == {"a": [named(array)]}


def named(array: Array) -> Any:
    """What the lists say of an array, with every compound as a dict."""
    return _name_members(shown(array), array.dtype, array.ndim)


def _name_members(listed: Any, dtype: np.dtype[Any], axes: int) -> Any:
    if axes:
        return [_name_members(each, dtype, axes - 1) for each in listed]
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return _name_members(listed, base, len(shape))
    if dtype.names is None:
        return listed
    members = zip(dtype.names, listed, strict=True)
    return {name: _name_members(each, dtype[name], 0) for name, each in members}


def test_json_by_name_keeps_names_apart() -> None:
    array = np.ones(1, [("a\udcff", "i4"), ("a\udcfe", "i4"), ("é", "i4")])
    assert json.loads(whole(BY_NAME, array)) == [{"a\\xff": 1, "a\\xfe": 1, "é": 1}]
    array = np.ones(1, [("a\udcff", "i4")])
    assert json.loads(whole(BY_NAME, array)) == [{"a\ufffd": 1}]


def test_json_by_name_reaches_into_sequences() -> None:
    rows = np.empty(1, h5py.vlen_dtype(np.dtype([("x", "i4")])))
    rows[0] = np.array([(1,), (2,)], [("x", "i4")])
    assert json.loads(whole(BY_NAME, rows)) == [[{"x": 1}, {"x": 2}]]
    assert json.loads(whole(find_encoder("json"), rows)) == [[[1], [2]]]


@given(arrays(numbers))
def test_msgpack_is_msgpack_numpy(array: Array) -> None:
    body = whole(find_encoder("msgpack"), array)
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
    head = find_encoder("msgpack").head(values)
    empty = find_encoder("msgpack").head(Values("", (size, 0), np.dtype("u1")))
    width = 1 if size < 1 << 8 else 2 if size < 1 << 16 else 4
    assert int.from_bytes(head[-width:], "big") == size
    assert head[-width - 1] == {1: 0xC4, 2: 0xC5, 4: 0xC6}[width]
    unpacker.feed(empty)
    assert unpacker.unpack()[b"shape"] == [size, 0]


def test_msgpack_has_an_end() -> None:
    fits = Values("", ((1 << 32) - 1,), np.dtype("u1"))
    over = Values("", (1 << 32,), np.dtype("u1"))
    assert find_encoder("msgpack").refusal(fits) is None
    assert "4294967295 bytes" in str(find_encoder("msgpack").refusal(over))


@given(arrays(), shapes)
def test_a_length_is_known_before_the_values(array: Array, shape: tuple[int, ...]) -> None:
    values = Values("", shape, array.dtype)
    for name in ("bin", "npy", "msgpack", "tiff"):
        encoder: Encoder = find_encoder(name)
        if encoder.refusal(values) is None:
            assert encoder.length(values) is not None
