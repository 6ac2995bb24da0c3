"""Attributes as strict JSON, so that xarray decodes them as it decodes those of the file; pure.

JSON knows no NaN, no complex numbers and no bytes, and has one width of floats: a float32 comes
back as the float64 of the same value.
"""

import base64
import struct
from typing import Any

import h5py
import numpy as np

from asgihive.hdf5.file_bytes import text
from asgihive.zarr.data_types import JSON, format_number
from asgihive.zarr.nodes import OMITTED_ATTRIBUTES, OWN_PREFIX

NOT_UTF8 = "its text is not UTF-8: U+FFFD stands for what is not"


class NoJSON(Exception):  # translated at once by those who know the attribute
    """A value has no equivalent in JSON; the message says why."""


class AttributeDocument:
    """The attributes of one node, in the order in which they are added.

    Args:
        sent: of an array, the dtype of its elements as they are sent, of strings `object`; None = a
            group.
    """

    def __init__(self, sent: np.dtype[Any] | None = None) -> None:
        self._sent = sent
        self._shown: dict[str, JSON] = {}
        self._omitted: list[str] = []

    def add(self, name: str, value: Any) -> None:
        """Show an attribute.

        Args:
            name: of it.
            value: a NumPy array or scalar, bytes, or None for an empty dataspace.
        """
        if name.startswith(OWN_PREFIX):
            # What stands in them decides what a client may see.
            self.omit(name, "asgihive has attributes of such names itself")
            return
        if name in self._shown:
            self.omit(name, "another attribute has the same name here")
            return
        try:
            if self._sent is not None and name in _XARRAY:
                self._shown[name] = _XARRAY[name](value, self._sent)
            else:
                self._shown[name] = format_value(value)
        except NoJSON as refused:
            self.omit(name, str(refused))
        else:
            if _has_foreign_text(value):
                self.omit(name, NOT_UTF8)

    def omit(self, name: str, reason: str) -> None:
        """Note that an attribute is left out, or is not as in the file."""
        self._omitted.append(f"{name}: {reason}")

    def add_note(self, name: str, value: JSON) -> None:
        """Show an attribute of asgihive's own."""
        self._shown[name] = value

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left out, or not as in the file."""
        return not self._omitted

    def finish(self) -> dict[str, JSON]:
        """Return the attributes as they stand in `zarr.json`."""
        if self._omitted:
            self._shown[OMITTED_ATTRIBUTES] = self._omitted
        return self._shown


def format_value(value: Any) -> JSON:
    """Return a value as JSON has it; one element is no list.

    Raises:
        NoJSON
    """
    if isinstance(value, bytes):
        return text(value)
    if value is None:
        raise NoJSON("its dataspace is empty")
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(())[()]
    kind = value.dtype.kind if isinstance(value, np.generic | np.ndarray) else ""
    if kind and kind in "biu":
        return value.tolist()
    if kind == "f" and value.dtype.itemsize <= 8 and np.isfinite(value).all():
        return value.tolist()
    if kind == "V":
        _check_compound(value.dtype)
    if kind == "M":
        return np.datetime_as_string(value).tolist()
    if kind == "m":
        return value.astype(np.int64).tolist()
    return _format_items(value if kind in {"", "O"} else value.tolist())


def _check_compound(dtype: np.dtype[Any]) -> None:
    """Look for members without an equivalent in JSON. Raises NoJSON."""
    if dtype.subdtype is not None:
        _check_compound(dtype.subdtype[0])
    elif dtype.names is not None:
        for name in dtype.names:
            _check_compound(dtype[name])
    elif dtype.kind in "VmM":
        raise NoJSON("JSON has no opaque bytes")


def _format_items(value: Any) -> JSON:
    match value:
        case None:
            raise NoJSON("its dataspace is empty")
        case bytes():
            return text(value)
        case bool() | int() | str():
            return value
        case np.ndarray() if value.dtype.kind != "O":
            return format_value(value) if value.size != 1 else [format_value(value)]
        case np.ndarray() | list() | tuple():
            return [_format_items(each) for each in value]
        case complex() | np.complexfloating():
            return [format_number(float(value.real)), format_number(float(value.imag))]
        case float() | np.floating():
            return format_number(float(value))
        case h5py.Reference() | h5py.RegionReference():
            raise NoJSON("JSON has no references")
    raise NoJSON(f"JSON has no {type(value).__name__}")


def _has_foreign_text(value: Any) -> bool:
    """Return whether there is text that is not UTF-8 in a value that JSON has."""
    match value:
        case bytes():
            return not _is_utf8(value)
        case np.ndarray() if value.dtype.kind in "OSV":
            return any(map(_has_foreign_text, value.reshape(-1).tolist()))
        case np.void():
            return _has_foreign_text(value.item())
        case list() | tuple():
            return any(map(_has_foreign_text, value))
    return False


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


# What xarray computes with, and one value of which would keep it from opening a whole tree.


def _format_fill_value(value: Any, sent: np.dtype[Any]) -> JSON:
    """Return `_FillValue` as xarray (2026.9) decodes it: of floats as base64 of a float64."""
    number = _find_number(value)
    match sent.kind:
        case "f":
            if not isinstance(number, complex):
                return _encode_double(number)
        case "c":
            whole = complex(number)
            return [_encode_double(whole.real), _encode_double(whole.imag)]
        case "b":
            return bool(number)
        case "i" | "u":
            limits = np.iinfo(sent)
            if not isinstance(number, complex) and number == number // 1:
                whole_number = int(number)
                if limits.min <= whole_number <= limits.max:
                    return whole_number
    raise NoJSON(f"no value of the array can be {number}")


def _encode_double(number: float) -> str:
    return base64.standard_b64encode(struct.pack("<d", float(number))).decode()


def _find_number(value: Any) -> int | float | complex:
    """Return the one number that a value is. Raises NoJSON."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(())[()]
    match value:
        case np.bool_() | np.integer():
            return int(value)
        case np.floating():
            return float(value)
        case np.complexfloating():
            return complex(value)
    raise NoJSON("it is not one number, as xarray wants it")


def _format_factor(value: Any, sent: np.dtype[Any]) -> JSON:
    number = _find_number(value)
    if sent.kind not in "iuf" or isinstance(number, complex) or not np.isfinite(number):
        raise NoJSON(f"xarray could not compute with {number}")
    return number


_NOT_FINITE = frozenset({"NaN", "Infinity", "-Infinity"})


def _format_missing_value(value: Any, sent: np.dtype[Any]) -> JSON:
    shown = format_value(value)
    if shown == "NaN":
        raise NoJSON("it is NaN, which is missing by itself")
    # xarray would compare the word of what is not finite with numbers, in vain.
    each_shown = shown if isinstance(shown, list) else [shown]
    words = {each for each in each_shown if isinstance(each, str)}
    if sent.kind not in "iuf" or not words & _NOT_FINITE:
        return shown
    finite = [each for each in each_shown if not isinstance(each, str)]
    if words != {"NaN"} or not finite:
        raise NoJSON("xarray could not read what is not finite")
    return finite[0] if len(finite) == 1 else finite


def _format_coordinates(value: Any, _: np.dtype[Any]) -> JSON:
    shown = format_value(value)
    if not isinstance(shown, str):
        raise NoJSON("it is no text, as xarray wants it")
    return shown


def _format_encoding(value: Any, sent: np.dtype[Any]) -> JSON:
    if sent.kind != "S":
        raise NoJSON("strings are UTF-8 here")
    return format_value(value)


_XARRAY = {
    "_FillValue": _format_fill_value,
    "missing_value": _format_missing_value,
    "scale_factor": _format_factor,
    "add_offset": _format_factor,
    "coordinates": _format_coordinates,
    "_Encoding": _format_encoding,
}
XARRAY_NAMES = frozenset(_XARRAY)
"""Attributes that are shown as xarray wants them for the type of the array."""
