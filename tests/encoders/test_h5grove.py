"""Where the contract is silent, the bytes are those of h5grove 4.0."""

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from asgihive.encoders import find_encoder
from tests.encoders.strategies import LONG, Array, arrays, whole

h5grove = pytest.importorskip("h5grove.encoders")

native = st.one_of(
    hnp.integer_dtypes(endianness="="),
    hnp.unsigned_integer_dtypes(endianness="="),
    hnp.floating_dtypes(endianness="=", sizes=(32, 64)),
    st.sampled_from([np.dtype(bool), np.dtype(complex), LONG]),
)
sides = {"min_side": 1, "max_side": 4}


def by_h5grove(array: Array, name: str) -> bytes:
    with np.errstate(over="ignore"):
        body: bytes = h5grove.encode(array, name).content
    return body


@given(arrays(native | hnp.array_dtypes(native), hnp.array_shapes(**sides)))
def test_json(array: Array) -> None:
    assert whole(find_encoder("json"), array) == by_h5grove(array, "json")


@pytest.mark.parametrize("name", ["bin", "npy", "csv", "tiff"])
@given(data=st.data())
def test_numbers(name: str, data: st.DataObject) -> None:
    held = native.filter(lambda dtype: name != "tiff" or dtype not in (LONG, np.dtype(bool)))
    array = data.draw(arrays(held, hnp.array_shapes(min_dims=2, max_dims=2, **sides)))
    assert whole(find_encoder(name), array) == by_h5grove(array, name)


@pytest.mark.parametrize(
    "array",
    [
        np.array([b"a", b"bc"]),
        np.array(["a", b"b", None], object),
        np.array([(1, 0.1, b"x")], [("a", "i4"), ("b", "f4"), ("c", "S3")]),
        np.array(["2020-01-01T01:02:03.456"], "M8[ms]"),
    ],
)
def test_other_json(array: Array) -> None:
    assert whole(find_encoder("json"), array) == by_h5grove(array, "json")
