"""HDF5 types: what is known of them by their datatype message, and how `/meta` describes them.

Everything is described, also types whose values cannot be read.
"""

import threading
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from h5py import h5t

from asgihive.hdf5.cache import BytesCache
from asgihive.hdf5.file_bytes import text
from asgihive.hdf5.types import (
    MAX_NESTING,
    NoEquivalent,
    enum_members,
    memory_type,
    translated_dtype,
    without_dimensions,
)


def describe_type(type_id: h5t.TypeID) -> dict[str, Any]:
    """Return the type as `/meta` shows it: `class`, `dtype`, `size`, then by class.

    The classes are those of the HDF5 specification, H5T_class_t. What has no NumPy equivalent is
    described, too; what is nested deeper than MAX_NESTING is shown without what is in it.
    """
    return _describe(type_id, None, MAX_NESTING)


def _describe(type_id: h5t.TypeID, dtype: np.dtype[Any] | None, levels: int) -> dict[str, Any]:
    """Describe as `describe_type`, `levels` deep; `dtype` is that of the type if it is known."""
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
    """Return what a type is made of; `dtype` = None where it has no equivalent."""
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


# Types that are known by their datatype message, so that libhdf5 is not asked again. Equal messages
# mean equal types, in whatever file they are. Those of numbers and strings are known from the
# start; libhdf5 explains others once in the process.

# Larger ones are explained each time, and more of them push out the least recently used.
_MAX_MESSAGE_BYTES = 1 << 14
_MAX_KNOWN_BYTES = 8 << 20

_INTEGER, _FLOAT, _STRING, _VLEN = 0, 1, 3, 9
_INTEGER_BYTES, _FLOAT_BYTES = 12, 20


@dataclass(frozen=True, slots=True)
class KnownType:
    """What is known of an HDF5 type.

    Attributes:
        description: as `/meta` shows it; shared, and not to be changed.
        dtype: of one element in memory, in an array type if it is one; None where values are not
            read.
        is_as_stored: whether the bytes in the file are those of `dtype`.
        refusal: why values are not read; None = they are.
        is_text: whether values are strings of variable length.
        size: bytes of one element in the file; None = not known here.
        item_shape: the dimensions of an array type.
    """

    description: dict[str, Any]
    dtype: np.dtype[Any] | None
    is_as_stored: bool
    refusal: str | None = None
    is_text: bool = False
    size: int | None = None
    item_shape: tuple[int, ...] = ()


_known: BytesCache[bytes, KnownType] = BytesCache(_MAX_KNOWN_BYTES)
_lock = threading.Lock()


def find_type(message: bytes) -> KnownType | None:
    """Return what is known of a type by its message; None where libhdf5 must explain it."""
    found = _known.peek(message)
    if found is None:
        found = _parse(message)
        if found is not None:
            _keep(message, found)
    return found


def learn_type(message: bytes, type_id: h5t.TypeID) -> KnownType:
    """Return what libhdf5 says of the type that a message stands for, and keep it."""
    found = _explain(type_id)
    _keep(message, found)
    return found


def describe_known_type(type_id: h5t.TypeID) -> dict[str, Any]:
    """Describe a type that libhdf5 has open; once in the process for each encoding."""
    encoding = type_id.encode()
    return (find_type(encoding) or learn_type(encoding, type_id)).description


def _keep(message: bytes, known: KnownType) -> None:
    if len(message) <= _MAX_MESSAGE_BYTES:
        with _lock:
            _known.put(message, known, 8 * len(message))


def _explain(type_id: h5t.TypeID) -> KnownType:
    description = describe_type(type_id)
    try:
        memory = memory_type(type_id)
    except NoEquivalent as error:
        return KnownType(description, None, is_as_stored=False, refusal=str(error))
    size = type_id.get_size() if memory.is_as_stored else None
    base, dimensions = without_dimensions(memory.dtype)
    return KnownType(description, base, memory.is_as_stored, size=size, item_shape=dimensions)


def _parse(message: bytes) -> KnownType | None:
    """Section IV.A.2.d; the versions 1 to 3 differ in other classes than these."""
    if len(message) < 8 or not 0x10 <= message[0] < 0x40:
        return None
    kind, body = message[0] & 0x0F, message[1:8]
    if kind in {_INTEGER, _FLOAT}:
        end = _INTEGER_BYTES if kind == _INTEGER else _FLOAT_BYTES
        return _NUMBERS.get(bytes((kind,)) + message[1:end])
    size = int.from_bytes(body[3:7], "little")
    if kind == _STRING and not body[1]:
        return _know_string(size, body[0] & 0x0F, body[0] >> 4, is_variable=False)
    if kind == _VLEN and body[0] & 0x0F == 1 and size in {12, 16}:
        return _know_string(size, body[0] >> 4, body[1], is_variable=True)
    return None


def _know_string(size: int, padding: int, cset: int, *, is_variable: bool) -> KnownType | None:
    encoding = _ENCODINGS.get(cset)
    if encoding is None or padding > h5t.STR_SPACEPAD or not size:
        return None
    dtype = h5py.string_dtype(encoding, None if is_variable else size)
    described = {
        "class": h5t.STRING,
        "dtype": dtype.str,
        "size": _POINTER_BYTES if is_variable else size,
        "cset": cset,
        "strpad": padding,
        "vlen": is_variable,
    }
    # h5py pads with NULs, to which libhdf5 converts what ends with one, or is padded with spaces.
    is_as_stored = not is_variable and padding == h5t.STR_NULLPAD
    return KnownType(described, dtype, is_as_stored, is_text=is_variable, size=size)


_ENCODINGS = {h5t.CSET_ASCII: "ascii", h5t.CSET_UTF8: "utf-8"}

# libhdf5 gives strings of variable length the size that they have in memory.
_POINTER_BYTES = np.dtype(np.uintp).itemsize


def _know_numbers() -> dict[bytes, KnownType]:
    """Return the integers and floats of NumPy, by message without the version."""
    numbers = {}
    for order in "<>":
        for name in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"):
            type_id = h5t.py_create(np.dtype(order + name))
            message = type_id.encode()[2:]
            numbers[bytes((message[0] & 0x0F,)) + message[1:]] = _explain(type_id)
    return numbers


_NUMBERS = _know_numbers()
