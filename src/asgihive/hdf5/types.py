"""HDF5 types: their description for a client, and their NumPy dtype for a reader."""

from typing import Any

import numpy as np
from h5py import h5t

from asgihive.hdf5.names import text

# Types nest in files as deeply as a hostile writer likes; nobody's data nest deeper.
MAX_NESTING = 32


class NoEquivalent(Exception):  # translated at once by those who know the entity
    """An HDF5 type that NumPy has no equivalent for; the message names it."""


def numpy_dtype(type_id: h5t.TypeID) -> np.dtype[Any]:
    """The dtype that values of this type have in memory.

    Raises:
        NoEquivalent: there is none (reference types of HDF5 1.12, times, exotic floats, or
            nested deeper than MAX_NESTING).
    """
    if type_id.get_class() in _NESTING:
        _check_nesting(type_id)
    try:
        dtype: np.dtype[Any] = type_id.dtype
    except (TypeError, ValueError, NotImplementedError, OverflowError, RuntimeError) as error:
        raise NoEquivalent(f"its HDF5 type has no NumPy equivalent ({error})") from None
    return dtype


def without_dimensions(dtype: np.dtype[Any]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """The dtype inside an array type, however often nested, and the dimensions around it."""
    shape: tuple[int, ...] = ()
    while dtype.subdtype is not None:
        dtype, inner = dtype.subdtype
        shape += inner
    return dtype, shape


def memory_type(file_type: h5t.TypeID, dtype: np.dtype[Any]) -> h5t.TypeID:
    """The HDF5 type of a `dtype` that values of `file_type` are read into.

    Opaque values and bit fields are read as they are stored: libhdf5 converts them to their
    own kind only, and the types that h5py makes of their dtypes have no tag, or are integers.
    """
    same_size = file_type.get_size() == dtype.itemsize
    if not dtype.hasobject and same_size and _has_unconvertible(file_type):
        return file_type
    return h5t.py_create(dtype)


def _has_unconvertible(type_id: h5t.TypeID) -> bool:
    if type_id.get_class() in {h5t.OPAQUE, h5t.BITFIELD}:
        return True
    return any(_has_unconvertible(inner) for inner in _inner_types(type_id))


def describe_type(type_id: h5t.TypeID) -> dict[str, Any]:
    """The type as `/meta` shows it: `class`, `dtype`, `size`, then by class.

    The classes are those of the HDF5 specification, H5T_class_t.

    Raises:
        NoEquivalent: nested deeper than MAX_NESTING.
    """
    if type_id.get_class() in _NESTING:
        _check_nesting(type_id)
    return _describe(type_id)


# Name, extent (None = empty dataspace) and encoded type (H5Tencode) of an attribute.
AttributeHeader = tuple[bytes, tuple[int, ...] | None, bytes]


class Descriptions:
    """Descriptions of types and attributes, each made once: a group's children share most.

    What is returned is shared, and must not be changed. Equal encodings (H5Tencode) mean
    equal types.
    """

    def __init__(self) -> None:
        self._types: dict[bytes, dict[str, Any]] = {}
        self._attributes: dict[AttributeHeader, dict[str, Any]] = {}

    def type(self, encoding: bytes) -> dict[str, Any]:
        """As `describe_type`, of a type as H5Tencode wrote it."""
        known = self._types.get(encoding)
        if known is None:
            known = self._types[encoding] = describe_type(h5t.decode(encoding))
        return known

    def attributes(self, headers: list[AttributeHeader]) -> list[dict[str, Any]]:
        """`{name, shape, type}` of each, sorted by name, from name, extent and encoded type."""
        described = []
        for header in headers:
            known = self._attributes.get(header)
            if known is None:
                name, shape, encoding = header
                known = {"name": text(name), "shape": shape, "type": self.type(encoding)}
                self._attributes[header] = known
            described.append(known)
        described.sort(key=_by_name)
        return described


def _by_name(described: dict[str, Any]) -> str:
    name: str = described["name"]
    return name


_NESTING = {h5t.COMPOUND, h5t.VLEN, h5t.ARRAY}


def _check_nesting(type_id: h5t.TypeID) -> None:
    level = [type_id]
    for _ in range(MAX_NESTING):
        level = [inner for each in level for inner in _inner_types(each)]
        if not level:
            return
    raise NoEquivalent(f"its HDF5 type is nested more than {MAX_NESTING} deep")


def _inner_types(type_id: h5t.TypeID) -> list[h5t.TypeID]:
    kind = type_id.get_class()
    if kind == h5t.COMPOUND:
        return [type_id.get_member_type(i) for i in range(type_id.get_nmembers())]
    if kind in _NESTING:
        return [type_id.get_super()]
    return []


def _describe(type_id: h5t.TypeID) -> dict[str, Any]:
    size = type_id.get_size()
    description: dict[str, Any] = {
        "class": type_id.get_class(),
        "dtype": _dtype_text(type_id, size),
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
        case h5t.TypeCompoundID():
            description["members"] = [
                {"name": text(type_id.get_member_name(i)), **_describe(type_id.get_member_type(i))}
                for i in range(type_id.get_nmembers())
            ]
        case h5t.TypeEnumID():
            description["members"] = {
                text(type_id.get_member_name(i)): int(type_id.get_member_value(i))
                for i in range(type_id.get_nmembers())
            }
            description["base"] = _describe(type_id.get_super())
        case h5t.TypeVlenID():
            description["base"] = _describe(type_id.get_super())
        case h5t.TypeArrayID():
            description["dims"] = list(type_id.get_array_dims())
            description["base"] = _describe(type_id.get_super())
    return description


def _dtype_text(type_id: h5t.TypeID, size: int) -> Any:
    try:
        return _stringified(numpy_dtype(type_id))
    except NoEquivalent:
        return f"|V{size}"


def _stringified(dtype: np.dtype[Any]) -> Any:
    if dtype.fields is None:
        return dtype.str
    return {
        text(name.encode("utf-8", "surrogateescape")): _stringified(field[0])
        for name, field in dtype.fields.items()
    }
