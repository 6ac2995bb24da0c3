"""Data types and fill values, as zarr-python writes and reads them."""

import json
import warnings
from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5t

from asgihive.hdf5.type_descriptions import KnownType, learn_type
from asgihive.zarr.data_types import NoDataType, find_members, format_fill, name_data_type

zarr = pytest.importorskip("zarr", reason="zarr is not installed")

NUMBERS = [*"?bBhHiIefdFD", "i8", "u8"]
ORDERED = [f"{order}{each}" for each in NUMBERS for order in "<>"]
BYTES = ["V5", "V1"]
COMPOUNDS: list[Any] = [
    [("a", "<i4"), ("b", "S3"), ("c", [("d", "?"), ("e", "<c8")])],
    [("a", "<u8"), ("b", "<f2")],
]


def know(dtype: Any) -> KnownType:
    """Return what the service knows of the HDF5 type that h5py makes of a dtype."""
    type_id = h5t.py_create(np.dtype(dtype), logical=True)
    return learn_type(type_id.encode(), type_id)


def find_dtype(dtype: Any) -> np.dtype[Any]:
    known = know(dtype).dtype
    assert known is not None
    return known


def make_array(dtype: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of data types without a specification
        store = zarr.storage.MemoryStore()
        return zarr.create_array(store, shape=(2,), chunks=(2,), dtype=np.dtype(dtype), **options)


def describe(array: Any) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        described: dict[str, Any] = array.metadata.to_dict()
    return json.loads(json.dumps(described, allow_nan=False))  # type: ignore[no-any-return]


@pytest.mark.parametrize("dtype", [*ORDERED, *BYTES], ids=str)
def test_a_type_is_named_as_zarr_python_names_it(dtype: Any) -> None:
    found = find_dtype(dtype)
    described = describe(make_array(dtype))
    assert name_data_type(found) == described["data_type"]
    assert format_fill(None, found, is_text=False) == described["fill_value"]


@pytest.mark.parametrize("dtype", COMPOUNDS, ids=str)
def test_a_compound_is_what_zarr_python_reads(dtype: Any) -> None:
    """zarr-python reads `structured` since 3.1; since 3.2 it writes `struct`, and reads both."""
    found = find_dtype(dtype)
    described = describe(make_array(dtype))
    described["data_type"] = json.loads(json.dumps(name_data_type(found)))
    described["fill_value"] = format_fill(None, found, is_text=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = zarr.core.metadata.ArrayV3Metadata.from_dict(described)
    assert read.data_type.to_native_dtype() == np.dtype(dtype)
    assert read.fill_value == np.zeros((), dtype)[()]


@pytest.mark.parametrize("dtype", ["<M8[ns]", ">M8[10s]", "<m8[us]"])
def test_times_that_h5py_stores_as_opaque_keep_their_unit(dtype: str) -> None:
    found = find_dtype(h5py.opaque_dtype(np.dtype(dtype)))
    assert name_data_type(found) == describe(make_array(dtype))["data_type"]


@pytest.mark.parametrize(
    ("dtype", "fill"),
    [
        ("<f8", np.nan),
        ("<f4", np.inf),
        (">f4", -np.inf),
        ("<f2", 1.5),
        ("<f4", 9.969209968386869e36),
        ("<i8", -(2**63)),
        ("<u8", 2**64 - 1),
        ("?", True),
        ("<c16", complex(np.nan, -1)),
        (">i2", 258),
        ("<M8[s]", np.datetime64("2026-11-28")),
        ("V3", np.void(b"abc")),
    ],
)
def test_a_fill_value_is_what_zarr_python_reads(dtype: str, fill: Any) -> None:
    value = np.array(fill, dtype)
    shown = format_fill(value, value.dtype, is_text=False)
    described = describe(make_array(dtype, fill_value=value[()]))
    described["fill_value"] = json.loads(json.dumps(shown, allow_nan=False))
    read = zarr.core.metadata.ArrayV3Metadata.from_dict(described)
    np.testing.assert_array_equal(read.fill_value, value[()])


def test_the_fill_value_of_a_compound_is_its_bytes_as_they_go() -> None:
    stored = np.dtype(
        {"names": ["a", "b"], "formats": [">i2", "<f4"], "offsets": [0, 8], "itemsize": 16}
    )
    sent = np.dtype([("a", "<i2"), ("b", "<f4")])
    described = describe(make_array(sent))
    fill = np.array((7, 2.5), stored)
    described["fill_value"] = format_fill(fill, sent, is_text=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = zarr.core.metadata.ArrayV3Metadata.from_dict(described).fill_value
    assert (read.item(), read.dtype) == ((7, 2.5), sent)


@pytest.mark.parametrize("dtype", [h5py.string_dtype(), h5py.string_dtype("utf-8", 7), "S4"])
def test_strings_are_text(dtype: Any) -> None:
    found = find_dtype(dtype)
    assert name_data_type(found) == "string"
    assert format_fill(None, found, is_text=True) == ""
    assert format_fill(b"\xc3\xa4", found, is_text=True) == "ä"


def test_single_bytes_of_two_axes_stay_bytes() -> None:
    """The characters of netCDF, which xarray joins."""
    one = find_dtype("S1")
    assert name_data_type(one, 1) == "string"
    assert name_data_type(one, 2) == describe(make_array("S1"))["data_type"]
    assert name_data_type(find_dtype("S2"), 2) == "string"
    assert format_fill(None, one, is_text=False) == "AA=="


def test_an_enumeration_has_names_that_its_integers_do_not_tell() -> None:
    known = know(h5py.enum_dtype({"IDLE": 0, "RUNNING": 7}, "<u2"))
    assert known.dtype is not None
    assert name_data_type(known.dtype) == "uint16"
    assert find_members(known.description) == {"IDLE": 0, "RUNNING": 7}
    of_array = h5t.array_create(h5t.py_create(h5py.enum_dtype({"A": 3}, "i1"), logical=True), (2,))
    assert find_members(learn_type(of_array.encode(), of_array).description) == {"A": 3}
    assert not find_members(know(h5py.enum_dtype({"FALSE": 0, "TRUE": 1}, "i1")).description)
    assert not find_members(know("<i4").description)


@pytest.mark.parametrize(
    ("dtype", "reason"),
    [
        (np.longdouble, "longdouble|float128"),
        (h5py.ref_dtype, "references"),
        (h5py.regionref_dtype, "references"),
        (h5py.vlen_dtype("<i4"), "sequences of variable length"),
        ([("a", h5py.string_dtype())], "members of variable length"),
        ([("a", "<i4", (3,))], "members that are arrays"),
    ],
)
def test_what_zarr_cannot_express_is_refused_with_a_reason(dtype: Any, reason: str) -> None:
    with pytest.raises(NoDataType, match=reason):
        name_data_type(find_dtype(dtype))
