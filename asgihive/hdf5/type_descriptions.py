"""Descriptions of types and attributes, as `/meta` shows them.

Everything is described, also what values cannot be read of.
"""

from typing import Any

import h5py
import numpy as np
from h5py import h5t

from asgihive.hdf5.names import text
from asgihive.hdf5.types import MAX_NESTING, NoEquivalent, enum_members, translated_dtype

# Name, extent (None = empty dataspace) and type of an attribute.
AttributeHeader = tuple[bytes, tuple[int, ...] | None, h5t.TypeID]


def describe_type(type_id: h5t.TypeID) -> dict[str, Any]:
    """The type as `/meta` shows it: `class`, `dtype`, `size`, then by class.

    The classes are those of the HDF5 specification, H5T_class_t. What has no NumPy equivalent is
    described, too; what is nested deeper than MAX_NESTING is shown without what is in it.
    """
    return _describe(type_id, None, MAX_NESTING)


class Descriptions:
    """Descriptions of types and attributes, each made once: a group's children share most.

    What is returned is shared, and must not be changed. Equal encodings (H5Tencode) mean
    equal types.
    """

    def __init__(self) -> None:
        self._types: dict[bytes, dict[str, Any]] = {}
        self._attributes: dict[tuple[Any, ...], dict[str, Any]] = {}

    def type(self, type_id: h5t.TypeID) -> dict[str, Any]:
        """As `describe_type`."""
        return self._type(type_id, type_id.encode())

    def attributes(self, headers: list[AttributeHeader]) -> list[dict[str, Any]]:
        """`{name, shape, type}` of each, sorted by name."""
        described = []
        for name, shape, type_id in headers:
            encoding = type_id.encode()
            key = (name, shape, encoding)
            known = self._attributes.get(key)
            if known is None:
                kind = self._type(type_id, encoding)
                known = {"name": text(name), "shape": shape, "type": kind}
                self._attributes[key] = known
            described.append(known)
        described.sort(key=_by_name)
        return described

    def _type(self, type_id: h5t.TypeID, encoding: bytes) -> dict[str, Any]:
        known = self._types.get(encoding)
        if known is None:
            # Not of what is decoded: libhdf5 takes that for another type than a dataset's.
            known = self._types[encoding] = describe_type(type_id)
        return known


def _by_name(described: dict[str, Any]) -> str:
    name: str = described["name"]
    return name


def _describe(type_id: h5t.TypeID, dtype: np.dtype[Any] | None, levels: int) -> dict[str, Any]:
    """As `describe_type`, `levels` deep; `dtype` is that of the type if it is known."""
    if dtype is None:
        dtype = _dtype_of(type_id)
    size = type_id.get_size()
    description: dict[str, Any] = {
        "class": type_id.get_class(),
        "dtype": f"|V{size}" if dtype is None else _stringified(dtype),
        "size": size,
    }
    match type_id:
        case h5t.TypeIntegerID():
            description |= {"order": type_id.get_order(), "sign": type_id.get_sign()}
        case h5t.TypeFloatID() | h5t.TypeBitfieldID():
            description["order"] = type_id.get_order()
        case h5t.TypeStringID():
            description |= {
                "cset": type_id.get_cset(),
                "strpad": type_id.get_strpad(),
                "vlen": type_id.is_variable_str(),
            }
        case h5t.TypeOpaqueID():
            description["tag"] = text(type_id.get_tag())
    return description if levels <= 0 else description | _parts(type_id, dtype, levels - 1)


def _parts(type_id: h5t.TypeID, dtype: np.dtype[Any] | None, levels: int) -> dict[str, Any]:
    """What a type is made of; `dtype` = None where it has no equivalent."""
    match type_id:
        case h5t.TypeCompoundID():
            fields = {} if dtype is None or dtype.fields is None else dtype.fields
            members = []
            for i in range(type_id.get_nmembers()):
                name = text(type_id.get_member_name(i))
                inner = fields[name][0] if name in fields else None
                described = _describe(type_id.get_member_type(i), inner, levels)
                members.append({"name": name, **described})
            return {"members": members}
        case h5t.TypeEnumID():
            base = _describe(type_id.get_super(), None, levels)
            return {"members": _members(type_id), "base": base}
        case h5t.TypeVlenID():
            inner = None if dtype is None else h5py.check_vlen_dtype(dtype)
            return {"base": _describe(type_id.get_super(), inner, levels)}
        case h5t.TypeArrayID():
            base, inner = type_id.get_super(), None
            # NumPy makes one array type of nested ones.
            if dtype is not None and dtype.subdtype and not isinstance(base, h5t.TypeArrayID):
                inner = dtype.subdtype[0]
            dimensions = list(type_id.get_array_dims())
            return {"dims": dimensions, "base": _describe(base, inner, levels)}
    return {}


def _members(type_id: h5t.TypeEnumID) -> dict[str, int]:
    try:
        return {text(name): value for name, value in enum_members(type_id).items()}
    except NoEquivalent:
        return {}


def _dtype_of(type_id: h5t.TypeID) -> np.dtype[Any] | None:
    try:
        return translated_dtype(type_id)
    except NoEquivalent:
        return None


def _stringified(dtype: np.dtype[Any]) -> Any:
    if dtype.fields is None:
        return dtype.str
    return {name: _stringified(field[0]) for name, field in dtype.fields.items()}
