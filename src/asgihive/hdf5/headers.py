"""Object headers read through libhdf5's C interface, for groups with thousands of children.

h5py makes a Python object of each HDF5 identifier, and registers it: for the metadata of a
small dataset that costs more than libhdf5 itself. Here the same C functions are called with
bare identifiers. Where libhdf5 cannot be found behind h5py (a static build), `header_reader`
is None, and h5py does it all.
"""

import ctypes
from collections.abc import Callable
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_size_t, c_uint64, c_void_p
from dataclasses import dataclass
from typing import Any

import h5py
from h5py._objects import phil

# Of H5Ipublic.h, H5Spublic.h and H5public.h; stable since 1.10.
_KINDS = {2: "group", 3: "datatype", 5: "dataset"}
_NULL_SPACE = 2
_MAX_RANK = 32
_UNDEFINED_ADDRESS = (1 << 64) - 1

_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "H5Oopen": (c_int64, (c_int64, c_char_p, c_int64)),
    "H5Oclose": (c_int, (c_int64,)),
    "H5Iget_type": (c_int, (c_int64,)),
    "H5Dget_offset": (c_uint64, (c_int64,)),
    "H5Dget_type": (c_int64, (c_int64,)),
    "H5Dget_space": (c_int64, (c_int64,)),
    "H5Aopen": (c_int64, (c_int64, c_char_p, c_int64)),
    "H5Aclose": (c_int, (c_int64,)),
    "H5Aget_type": (c_int64, (c_int64,)),
    "H5Aget_space": (c_int64, (c_int64,)),
    "H5Aiterate2": (c_int, (c_int64, c_int, c_int, c_void_p, c_void_p, c_void_p)),
    "H5Tencode": (c_int, (c_int64, c_void_p, POINTER(c_size_t))),
    "H5Tclose": (c_int, (c_int64,)),
    "H5Sget_simple_extent_type": (c_int, (c_int64,)),
    "H5Sget_simple_extent_dims": (c_int, (c_int64, c_void_p, c_void_p)),
    "H5Sclose": (c_int, (c_int64,)),
}

_OnAttribute = ctypes.PYFUNCTYPE(c_int, c_int64, c_char_p, c_void_p, c_void_p)

Shape = tuple[int, ...] | None


# Name, extent (None = empty dataspace) and encoded type (H5Tencode) of an attribute.
AttributeHeader = tuple[bytes, Shape, bytes]


@dataclass(frozen=True, slots=True)
class ObjectHeader:
    """What a group's listing shows of one child; `type` and `shape` of contiguous datasets."""

    kind: str
    type: bytes | None
    shape: Shape
    attributes: list[AttributeHeader]


class HeaderError(Exception):
    """libhdf5 refused; h5py can say why."""


class HeaderReader:
    """Calls into the libhdf5 that h5py has loaded, under h5py's own lock.

    Raises:
        OSError, AttributeError: it cannot be found.
    """

    def __init__(self) -> None:
        # Looking up a symbol also searches the libraries that h5py's module depends on. The
        # GIL is kept: the calls are short, and releasing it would cost as much as they do.
        library = ctypes.PyDLL(h5py.h5.__file__)
        self._call: dict[str, Callable[..., Any]] = {}
        for name, (result, arguments) in _FUNCTIONS.items():
            function = library[name]
            function.restype, function.argtypes = result, arguments
            self._call[name] = function
        self._names: list[bytes] = []
        self._note = _OnAttribute(self._on_attribute)
        self._note_address = ctypes.cast(self._note, c_void_p)
        self._dimensions = (c_uint64 * _MAX_RANK)()
        self._encoding = ctypes.create_string_buffer(1 << 12)

    def child(self, group: int, name: bytes) -> ObjectHeader | None:
        """The hard-linked child `name` of the open `group`; None where h5py must look.

        That is a dataset whose storage is anything but contiguous: there is more to tell
        about it, and asking a virtual one for its extent opens other files.

        Raises:
            HeaderError: the child is damaged.
        """
        call = self._call
        with phil:
            child = _checked(call["H5Oopen"](group, name, 0))
            try:
                kind = _KINDS.get(call["H5Iget_type"](child))
                encoded, shape = None, None
                if kind == "dataset":
                    if call["H5Dget_offset"](child) == _UNDEFINED_ADDRESS:
                        return None
                    encoded = self._type(call["H5Dget_type"](child))
                    shape = self._shape(call["H5Dget_space"](child))
                elif kind != "group":
                    return None
                return ObjectHeader(kind, encoded, shape, self._attributes(child))
            finally:
                call["H5Oclose"](child)

    def attributes(self, entity: int) -> list[AttributeHeader]:
        """The attributes of an open object, by name.

        Raises:
            HeaderError: they are damaged.
        """
        with phil:
            return self._attributes(entity)

    def _attributes(self, entity: int) -> list[AttributeHeader]:
        call = self._call
        self._names.clear()
        _checked(call["H5Aiterate2"](entity, 0, 0, None, self._note_address, None))
        headers = []
        for name in self._names:
            attribute = _checked(call["H5Aopen"](entity, name, 0))
            try:
                shape = self._shape(call["H5Aget_space"](attribute))
                headers.append((name, shape, self._type(call["H5Aget_type"](attribute))))
            finally:
                call["H5Aclose"](attribute)
        return headers

    def _on_attribute(self, _location: int, name: bytes, _info: object, _data: object) -> int:
        self._names.append(name)
        return 0

    def _type(self, type_id: int) -> bytes:
        _checked(type_id)
        try:
            # Only when there is no buffer does it say how much it writes.
            size = c_size_t(0)
            _checked(self._call["H5Tencode"](type_id, None, byref(size)))
            if size.value > len(self._encoding):
                self._encoding = ctypes.create_string_buffer(size.value)
            _checked(self._call["H5Tencode"](type_id, self._encoding, byref(size)))
            return ctypes.string_at(self._encoding, size.value)
        finally:
            self._call["H5Tclose"](type_id)

    def _shape(self, space: int) -> Shape:
        _checked(space)
        try:
            if self._call["H5Sget_simple_extent_type"](space) == _NULL_SPACE:
                return None
            rank = self._call["H5Sget_simple_extent_dims"](space, self._dimensions, None)
            return tuple(self._dimensions[: _checked(rank)])
        finally:
            self._call["H5Sclose"](space)


def _checked(result: int) -> int:
    if result < 0:
        raise HeaderError
    return result


def _find_reader() -> HeaderReader | None:
    try:
        return HeaderReader()
    except (OSError, AttributeError):
        return None


header_reader = _find_reader()
