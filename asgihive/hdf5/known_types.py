"""HDF5 types that are known by their datatype message, so that no library is asked again.

Equal messages mean equal types, in whatever file they are. Those of numbers and strings are known
from the start; others are explained by libhdf5 once in the process (`learn_type`).
"""

import threading
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from h5py import h5t

from asgihive.hdf5.cache import BytesCache
from asgihive.hdf5.type_descriptions import describe_type
from asgihive.hdf5.types import NoEquivalent, memory_type

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
        dtype: of one element in memory, an array type included; None where values are not read.
        is_as_stored: whether the bytes in the file are those of `dtype`.
        refusal: why values are not read; None = they are.
        is_text: whether values are strings of variable length.
        size: bytes of one element in the file; None = not known here.
    """

    description: dict[str, Any]
    dtype: np.dtype[Any] | None
    is_as_stored: bool
    refusal: str | None = None
    is_text: bool = False
    size: int | None = None


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
    return KnownType(description, memory.dtype, memory.is_as_stored, size=size)


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
