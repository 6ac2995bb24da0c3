import json
import math
from typing import Any

import h5py
import hypothesis.strategies as st
import msgpack
import msgpack_numpy
import numpy as np
import pytest
from hypothesis import given

from asgihive.encoders import DocumentEncoder, find_encoder
from tests.encoders.strategies import Array, arrays, numbers, whole


def document_encoder(name: str) -> DocumentEncoder:
    encoder = find_encoder(name)
    assert isinstance(encoder, DocumentEncoder)
    return encoder


JSON, MSGPACK = document_encoder("json"), document_encoder("msgpack")

text = st.text(st.characters(codec=None, categories=None), max_size=5)
leaves = st.one_of(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | text
    | st.binary(max_size=5)
    | arrays()
)
contents = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)


@given(contents)
def test_nothing_fails(content: Any) -> None:
    json.loads(JSON.document(content))
    msgpack_numpy.unpackb(MSGPACK.document(content))


@given(arrays())
def test_an_array_is_as_in_data(array: Array) -> None:
    body = whole(find_encoder("json"), array)
    assert JSON.document(array) == body
    assert JSON.document({"a": [array, (array,)]}) == b'{"a":[%b,[%b]]}' % (body, body)


@given(arrays())
def test_a_numpy_scalar_is_as_its_array(array: Array) -> None:
    for scalar in array.reshape(-1)[:1]:
        assert (
            json.loads(JSON.document(scalar))
            == json.loads(JSON.document(array.reshape(-1)[0:1]))[0]
        )


@pytest.mark.parametrize("encoder", [JSON, MSGPACK])
def test_text_that_is_not_unicode(encoder: DocumentEncoder) -> None:
    content = {"a\udcff": ["\ud800", np.str_("b\udcff"), b"\xff", np.bytes_(b"c\xff")], 7: "d"}
    parsed = (json.loads if encoder is JSON else msgpack.unpackb)(encoder.document(content))
    assert parsed == {"a\ufffd": ["\ufffd", "b\ufffd", "\ufffd", "c\ufffd"], "7": "d"}


def test_a_document_out_of_nothing_is_bounded() -> None:
    assert JSON.document([np.empty((10**9, 0))]) == b"[[]]"


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 2**64, -(2**63) - 1, 10**400])
def test_large_integers(number: int) -> None:
    assert json.loads(JSON.document({"a": [number]})) == {"a": [number]}


def test_what_is_not_finite() -> None:
    content = [math.nan, math.inf, np.float32("nan"), np.array([np.nan])]
    assert JSON.document(content) == b"[null,null,null,[null]]"
    unpacked = msgpack.unpackb(MSGPACK.document(content[:2]))
    assert math.isnan(unpacked[0])
    assert unpacked[1] == math.inf


def test_what_has_no_equivalent_is_its_str() -> None:
    reference = h5py.Reference()
    assert json.loads(JSON.document({"a": reference})) == {"a": str(reference)}
    assert msgpack.unpackb(MSGPACK.document({"a": reference})) == {"a": str(reference)}


@given(arrays(numbers))
def test_numbers_in_msgpack_documents_are_arrays(array: Array) -> None:
    decoded = msgpack_numpy.unpackb(MSGPACK.document({"a": array}))["a"]
    np.testing.assert_array_equal(decoded, array, strict=array.ndim > 0)


def test_other_arrays_in_msgpack_documents_are_as_in_json() -> None:
    array = np.array(
        [(1.5, b"x", 1j), (math.nan, b"\xff", 0)], [("a", "f8"), ("b", "S1"), ("c", "c8")]
    )
    expected = [[1.5, "x", [0.0, 1.0]], [None, "\ufffd", [0.0, 0.0]]]
    assert msgpack.unpackb(MSGPACK.document([array])) == [expected]
