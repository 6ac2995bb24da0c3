"""What h5py says of a file, in the words of Zarr; written from the contract."""

import base64
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from tests.zoo.oracle import text

NOT_SENT = {"DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME", "_NCProperties"}
"""Attributes by which HDF5 libraries keep dimension scales."""

OMITTED = "_asgihive_omitted"
"""The attribute of a group that says what is left out, by name, and why."""

OMITTED_ATTRIBUTES = "_asgihive_omitted_attributes"
"""The attribute of a node that says which attributes are left out, or changed, and why."""

REAL_NAME = "_asgihive_name"
"""The attribute of a node that has another name in the file."""

OWN = "_asgihive_"
"""What the names of attributes begin with that are not in the file."""


def read_values(dataset: Any) -> Any:
    """Return the whole dataset as a client of Zarr has it, or None where none can."""
    if dataset.shape is None or not has_data_type(dataset.dtype):
        return None
    values = dataset[()]
    has_characters = dataset.dtype == "S1" and dataset.ndim > 1
    if h5py.check_string_dtype(dataset.dtype.base) is not None and not has_characters:
        return decode_texts(values)
    return np.asarray(values)


def decode_texts(values: Any) -> Any:
    """Return text of bytes; U+FFFD stands for what is not UTF-8."""
    array = np.asarray(values, object)
    filled = np.empty(array.size, object)
    filled[:] = [text(each) for each in array.flat]
    return filled.reshape(array.shape)


def has_data_type(dtype: np.dtype[Any]) -> bool:
    """Return whether Zarr has these values."""
    dtype = dtype.base
    if h5py.check_string_dtype(dtype) is not None:
        return True
    if dtype.names is not None:
        members = [dtype[name] for name in dtype.names]
        return all(each.kind in "biufcSVmM" and _is_simple(each) for each in members)
    return _is_simple(dtype)


def _is_simple(dtype: np.dtype[Any]) -> bool:
    if dtype.subdtype is not None or dtype.hasobject:
        return False
    if dtype.names is not None:
        return has_data_type(dtype)
    return dtype.kind in "bSVmM" or dtype.str[1:] in {
        *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)),
        *("f2", "f4", "f8", "c8", "c16"),
    }


def same_values(given: Any, expected: Any) -> bool:
    """Return whether two arrays hold the same, in the same shape, and of one type of number."""
    given = np.asarray(given)
    if given.shape != expected.shape:
        return False
    if expected.dtype == object or given.dtype.kind in "OT":
        return bool(given.astype(object).ravel().tolist() == expected.ravel().tolist())
    if expected.dtype.names is not None:
        return all(
            same_values(given[name], expected[name]) for name in expected.dtype.names
        ) and len(given.dtype.names or ()) == len(expected.dtype.names)
    if expected.dtype.kind in "VS":
        return bool(given.tolist() == expected.tolist())
    if (given.dtype.kind, given.dtype.itemsize) != (expected.dtype.kind, expected.dtype.itemsize):
        return False
    # To the last bit, but for what a NaN carries and the order of bytes.
    with np.errstate(invalid="ignore"):
        return bool(np.array_equal(given, expected, equal_nan=expected.dtype.kind in "fcmM"))


def find_attribute_differences(shown: dict[str, Any], owner: Any) -> Iterator[str]:
    """Say which attributes differ, are not there and not listed, or are not in the file.

    Args:
        shown: what a client has.
        owner: of the same attributes, h5py's.
    """
    noted = shown.get(OMITTED_ATTRIBUTES, [])
    for name in owner.attrs:
        is_noted = any(each.startswith(f"{text(name)}: ") for each in noted)
        value = owner.attrs[name]
        if name in NOT_SENT or name.startswith("_Netcdf4"):
            continue
        if name == "_FillValue":
            value = _format_fill(owner, value)
            if value is not None and shown.get(name) != value:
                yield f"_FillValue is {shown.get(name)!r}, not {value!r}"
        elif text(name) not in shown:
            # xarray fails at the word that stands for NaN in JSON, and NaN is missing by itself.
            is_needless = name == "missing_value" and format_attribute(value) == "NaN"
            if not is_noted or (_can_be_json(value) and not is_needless):
                yield f"{text(name)!r:.100} is not there"
        elif _can_be_json(value) and shown[text(name)] != (wanted := format_attribute(value)):
            yield f"{text(name)!r:.100} is {shown[text(name)]!r:.200}, not {wanted!r:.200}"
    names = {text(name) for name in owner.attrs}
    for name in shown:
        if not name.startswith(OWN) and name not in names:
            yield f"{name!r:.100} is not in the file"


def _format_fill(owner: Any, value: Any) -> Any:
    kind = getattr(owner, "dtype", np.dtype("V")).kind
    if kind == "f":
        return base64.b64encode(np.float64(np.ravel(value)[0]).tobytes()).decode()
    return np.ravel(value)[0] if kind in "iu" else None


def _can_be_json(value: Any) -> bool:
    if isinstance(value, h5py.Empty):
        return False
    array = np.asarray(value)
    if array.dtype == object:
        return all(isinstance(each, str | bytes) for each in array.flat)
    return array.dtype.names is None and array.dtype.kind in "bSUiufc"


def format_attribute(value: Any) -> Any:
    """Return a value of an attribute as JSON has it: one element as a scalar."""
    array = np.asarray(value)
    if array.dtype in {np.dtype(np.longdouble), np.dtype(np.clongdouble)}:
        array = array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
    if array.size == 1:
        array = array.reshape(())
    return _format(array.tolist())


def format_not_finite(value: float) -> str:
    """Return what stands for the number in JSON, as in Zarr."""
    return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]


def _format(value: Any) -> Any:
    if isinstance(value, list):
        return [_format(each) for each in value]
    if isinstance(value, bytes | str):
        return text(value)
    if isinstance(value, complex):
        return [_format(value.real), _format(value.imag)]
    if isinstance(value, float) and not np.isfinite(value):
        return format_not_finite(value)
    return value


def follow(group: Any, name: str) -> Any:
    """Return the object of that name, or None where its link leads nowhere."""
    try:
        return group[name]
    except (KeyError, OSError, RuntimeError):
        return None
