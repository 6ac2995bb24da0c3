"""HDF5 types as Zarr data types: their names, and fill values; pure.

Numbers and strings are those of the core specification. Bytes, times and compounds have the names
that every zarr-python since 3.1 reads (`raw_bytes`, `numpy.datetime64`, `structured`), which other
clients may not know.
"""

import base64
import math
from typing import Any

import h5py
import numpy as np
from h5py import h5t

from asgihive.hdf5.file_bytes import text
from asgihive.hdf5.types import MAX_NESTING

JSON = Any
"""What JSON can express, of Python's own types."""


MAX_ITEM_BYTES = 1 << 20
"""Of an element that is no string: its fill value stands in the metadata, with as many bytes."""


class NoDataType(Exception):  # translated at once by those who know the array
    """There is no Zarr data type for the values; the message says why."""


def name_data_type(dtype: np.dtype[Any], rank: int = 1) -> JSON:
    """Return the data type of an array, as it stands in `zarr.json`.

    Args:
        dtype: of an element in memory, without the dimensions of an array type.
        rank: of the dataset.

    Returns:
        A string, or an object with `name` and `configuration`.

    Raises:
        NoDataType: Zarr cannot express the values.
    """
    if h5py.check_string_dtype(dtype) is not None and not has_characters(dtype, rank):
        return "string"
    if dtype.hasobject:
        raise NoDataType(_name_objects(dtype))
    if dtype.itemsize > MAX_ITEM_BYTES:
        raise NoDataType(
            f"its elements have {dtype.itemsize} bytes each: at most {MAX_ITEM_BYTES} are shown"
        )
    return _name_dtype(dtype, MAX_NESTING)


def has_characters(dtype: np.dtype[Any], rank: int) -> bool:
    """Return whether elements are the single bytes that netCDF keeps a text in.

    Several of them may be one character of UTF-8. xarray puts those of the last axis together, if
    they are bytes.
    """
    return dtype.kind == "S" and dtype.itemsize == 1 and rank > 1


def find_members(description: dict[str, Any]) -> dict[str, int]:
    """Return the names and values of an enumeration that its integers do not tell.

    Args:
        description: of the type, as `/meta` shows it.
    """
    for _ in range(MAX_NESTING):
        if description["class"] != h5t.ARRAY or "base" not in description:
            break
        description = description["base"]
    members = description.get("members")
    if description["class"] != h5t.ENUM or not isinstance(members, dict):
        return {}
    return {} if members == {"FALSE": 0, "TRUE": 1} else members


def format_fill(
    fill: np.ndarray[Any, Any] | bytes | None, sent: np.dtype[Any], *, is_text: bool
) -> JSON:
    """Return the fill value of an array, as it stands in `zarr.json`.

    Args:
        fill: one value in memory, a string as its bytes; None = zero, or an empty string.
        sent: the dtype of elements as they are sent.
        is_text: whether they are strings.
    """
    if is_text:
        value = fill[()] if isinstance(fill, np.ndarray) else fill
        return text(value) if isinstance(value, bytes) else ""
    if fill is None:
        fill = np.zeros((), sent)
    return _format_value(np.asarray(fill).astype(sent)[()])


def format_number(value: float) -> float | str:
    """Return a float as JSON has it: what is not finite is a string, as Zarr spells it."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _format_value(value: Any) -> JSON:
    match value.dtype.kind:
        case "b":
            return bool(value)
        case "i" | "u":
            return int(value)
        case "f":
            return format_number(float(value))
        case "c":
            return [format_number(float(value.real)), format_number(float(value.imag))]
        case "m" | "M":
            return int(value.astype(np.int64))
    return base64.standard_b64encode(value.tobytes()).decode()


def _name_objects(dtype: np.dtype[Any]) -> str:
    """Return why values that are Python objects cannot go."""
    if dtype.names is not None:
        return "Zarr has no compounds with members of variable length or references"
    if h5py.check_ref_dtype(dtype) is not None:
        return "Zarr has no references"
    return "Zarr has no sequences of variable length"


_NUMBERS = {
    **{f"i{size}": f"int{8 * size}" for size in (1, 2, 4, 8)},
    **{f"u{size}": f"uint{8 * size}" for size in (1, 2, 4, 8)},
    **{f"f{size}": f"float{8 * size}" for size in (2, 4, 8)},
    **{f"c{size}": f"complex{8 * size}" for size in (8, 16)},
    "b1": "bool",
}


def _name_dtype(dtype: np.dtype[Any], levels: int) -> JSON:
    """Return the data type of values without objects.

    Raises:
        NoDataType
    """
    if dtype.subdtype is not None:
        raise NoDataType("Zarr has no compounds with members that are arrays")
    if dtype.names is not None:
        if levels <= 0:
            raise NoDataType("its compounds are nested too deeply")
        fields = [[name, _name_dtype(dtype[name], levels - 1)] for name in dtype.names]
        return _configure("structured", fields=fields)
    number = _NUMBERS.get(dtype.str[1:])
    if number is not None:
        return number
    if dtype.kind in "SV":
        kind = "raw_bytes" if dtype.kind == "V" else "null_terminated_bytes"
        return _configure(kind, length_bytes=dtype.itemsize)
    if dtype.kind in "mM":
        unit, count = np.datetime_data(dtype)
        kind = "datetime64" if dtype.kind == "M" else "timedelta64"
        return _configure(f"numpy.{kind}", unit=unit, scale_factor=count)
    raise NoDataType(f"Zarr has no {dtype.name}")


def _configure(name: str, **configuration: Any) -> dict[str, Any]:
    return {"name": name, "configuration": configuration}
