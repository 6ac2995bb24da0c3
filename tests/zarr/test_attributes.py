"""Attributes in JSON: strict, and as xarray decodes them."""

import json
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from asgihive.zarr.attributes import AttributeDocument, NoJSON, format_value
from asgihive.zarr.nodes import OMITTED_ATTRIBUTES
from tests.efforts import at_most

FLOAT = np.dtype("<f4")


def show(name: str, value: Any, sent: Any = FLOAT) -> Any:
    document = AttributeDocument(None if sent is None else np.dtype(sent))
    document.add(name, value)
    return document.finish()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (np.int32(5), 5),
        (np.array([5], "<u8"), 5),
        (np.array([[5]]), 5),
        (np.array([1, 2], ">i2"), [1, 2]),
        (np.float32(0.1), float(np.float32(0.1))),
        (np.float64("nan"), "NaN"),
        (np.array([np.nan, -np.inf, 1.5]), ["NaN", "-Infinity", 1.5]),
        (np.longdouble(1.5), 1.5),
        (np.array([1.5, np.inf], np.longdouble), [1.5, "Infinity"]),
        (np.complex64(1 - 2j), [1.0, -2.0]),
        (np.array([1j, complex("nan")]), [[0.0, 1.0], ["NaN", 0.0]]),
        (np.bool_(True), True),
        (np.bytes_(b"caf\xc3\xa9"), "café"),
        (np.array([b"a", b"b"], object), ["a", "b"]),
        (np.array([b"a"], object), "a"),
        (np.array([], "<f8"), []),
        (np.array([np.array([1, 2]), np.array([3])], object), [[1, 2], [3]]),
        (np.array((1, 2.5, b"x"), [("a", "i4"), ("b", "f4"), ("c", "S3")])[()], [1, 2.5, "x"]),
        (np.datetime64("2026-11-28T01", "s"), "2026-11-28T01:00:00"),
    ],
    ids=str,
)
def test_a_value_is_what_json_has_for_it(value: Any, shown: Any) -> None:
    document = show("a", value)
    assert document == {"a": shown}
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert type(document["a"]) is type(shown)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "dataspace is empty"),
        (np.void(b"abc"), "opaque"),
        (np.array((1, b"x"), [("a", "i4"), ("b", "V1")])[()], "opaque"),
        (h5py.Reference(), "references"),
        (np.array([h5py.Reference(), h5py.Reference()], object), "references"),
    ],
)
def test_what_json_cannot_have_is_listed_with_the_reason(value: Any, reason: str) -> None:
    with pytest.raises(NoJSON, match=reason):
        format_value(value)
    document = show("a", value)
    assert list(document) == [OMITTED_ATTRIBUTES]
    (listed,) = document[OMITTED_ATTRIBUTES]
    assert listed.startswith("a: ")
    assert reason in listed


@pytest.mark.parametrize("value", [b"\xb5m", np.array([b"ok", b"\xb5m"], object)])
def test_text_that_is_not_utf8_is_shown_and_noted(value: Any) -> None:
    document = show("units", value)
    assert "\ufffdm" in document["units"]
    assert document[OMITTED_ATTRIBUTES][0].startswith("units: its text is not UTF-8")


@pytest.mark.parametrize(
    ("name", "value", "sent"),
    [
        ("_FillValue", np.int64(300), "u1"),
        ("_FillValue", np.float64(1.5), "i4"),
        ("_FillValue", np.array([1, 2]), "i4"),
        ("_FillValue", b"x", object),
        ("_FillValue", np.float64("nan"), "i4"),
        ("_FillValue", np.complex64(1j), "f4"),
        ("missing_value", np.float32("nan"), "f4"),
        ("missing_value", np.float32("inf"), "f4"),
        ("missing_value", np.array([-9.0, np.inf]), "f4"),
        ("scale_factor", np.float32("nan"), "i4"),
        ("scale_factor", b"2", "i4"),
        ("add_offset", np.array([1.0, 2.0]), "i4"),
        ("scale_factor", np.float64(2), object),
        ("coordinates", np.int32(1), "f4"),
        ("_Encoding", b"utf-8", object),
    ],
)
def test_what_would_keep_xarray_from_opening_is_left_out(name: str, value: Any, sent: Any) -> None:
    assert list(show(name, value, sent)) == [OMITTED_ATTRIBUTES]
    if name != "_FillValue" or value is not None:
        assert name not in show(name, value, sent)


def test_nan_among_other_missing_values_needs_no_word() -> None:
    assert show("missing_value", np.array([np.nan, -9.0]), "f8") == {"missing_value": -9.0}
    assert show("missing_value", np.array([-8.0, -9.0]), "f8") == {"missing_value": [-8.0, -9.0]}


@pytest.mark.parametrize("name", ["_asgihive_name", "_asgihive_omitted", "_asgihive_other"])
def test_a_file_cannot_speak_for_asgihive(name: str) -> None:
    assert list(show(name, b"x#y")) == [OMITTED_ATTRIBUTES]


FILLS = st.one_of(
    hnp.scalar_dtypes().filter(lambda dtype: dtype.kind in "iufc" and dtype.itemsize <= 16)
).flatmap(lambda dtype: hnp.arrays(dtype, (1,)))


@settings(max_examples=at_most(200))
@given(FILLS)
def test_xarray_decodes_the_fill_value(fill: Any) -> None:
    xarray = pytest.importorskip("xarray.backends.zarr", reason="xarray is not installed")
    if fill.dtype.itemsize > 8 and fill.dtype.kind == "f":
        return
    shown = json.loads(json.dumps(show("_FillValue", fill, fill.dtype), allow_nan=False))
    decoded = xarray.FillValueCoder.decode(shown["_FillValue"], fill.dtype)
    np.testing.assert_array_equal(np.array(decoded, fill.dtype), fill[0])


VALUES = st.one_of(
    hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)),
    st.lists(st.binary(max_size=4), max_size=3).map(lambda each: np.array(each, object)),
    st.binary(max_size=4),
)


@settings(max_examples=at_most(300))
@given(st.dictionaries(st.text(max_size=3), VALUES, max_size=4))
def test_json_is_strict_whatever_the_values(values: dict[str, Any]) -> None:
    document = AttributeDocument(FLOAT)
    for name, value in values.items():
        document.add(name, value)
    found = document.finish()
    text = json.dumps(found, allow_nan=False, ensure_ascii=False)
    assert json.loads(text.encode("utf-8", "surrogatepass")) == found
    listed = found.get(OMITTED_ATTRIBUTES, ())
    for name in values:
        assert name in found or any(each.startswith(f"{name}: ") for each in listed)
