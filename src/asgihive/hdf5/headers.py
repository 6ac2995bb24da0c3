"""Object headers read through libhdf5's C interface, for groups with thousands of children.

h5py makes a Python object of each HDF5 identifier, and registers it: for the metadata of a
small dataset that costs more than libhdf5 itself. Here the same C functions are called with
bare identifiers. Where libhdf5 cannot be found behind h5py (a static build), `header_reader`
is None, and h5py does it all.
"""

import ctypes
from collections.abc import Callable
from ctypes import c_char_p, c_int, c_int64, c_size_t, c_uint64, c_void_p
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
    "H5Tencode": (c_int, (c_int64, c_void_p, c_void_p)),
    "H5Tclose": (c_int, (c_int64,)),
    "H5Sget_simple_extent_type": (c_int, (c_int64,)),
    "H5Sget_simple_extent_dims": (c_int, (c_int64, c_void_p, c_void_p)),
    "H5Sclose": (c_int, (c_int64,)),
}

# Most types take less. An encoding says itself where it ends, so padding changes nothing.
_SHORT_ENCODING = 96
_ZEROS = bytes(_SHORT_ENCODING)

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
        self._note_at = ctypes.cast(self._note, c_void_p).value
        self._dimensions = (c_uint64 * _MAX_RANK)()
        self._encoding = ctypes.create_string_buffer(_SHORT_ENCODING)
        self._size = c_size_t()
        # Plain addresses pass through ctypes faster than the objects that lie there.
        self._dimensions_at = ctypes.addressof(self._dimensions)
        self._encoding_at = ctypes.addressof(self._encoding)
        self._size_at = ctypes.addressof(self._size)

    def child(self, group: int, name: bytes) -> ObjectHeader | None:
        """The hard-linked child `name` of the open `group`; None where h5py must look.

        That is a dataset whose storage is anything but contiguous: there is more to tell
        about it, and asking a virtual one for its extent opens other files.

        Raises:
            HeaderError: the child is damaged.
        """
        call = self._call
        with phil:
            child = call["H5Oopen"](group, name, 0)
            if child < 0:
                raise HeaderError
            try:
                kind = _KINDS.get(call["H5Iget_type"](child))
                if kind == "dataset" and call["H5Dget_offset"](child) != _UNDEFINED_ADDRESS:
                    shape, encoding = self._extent_and_type(
                        call["H5Dget_space"](child), call["H5Dget_type"](child)
                    )
                    return ObjectHeader(kind, encoding, shape, self._attributes(child))
                if kind == "group":
                    return ObjectHeader(kind, None, None, self._attributes(child))
                return None
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
        self._names.clear()
        call = self._call
        if call["H5Aiterate2"](entity, 0, 0, None, self._note_at, None) < 0:
            raise HeaderError
        open_attribute, close_attribute = call["H5Aopen"], call["H5Aclose"]
        get_space, get_type = call["H5Aget_space"], call["H5Aget_type"]
        headers = []
        for name in self._names:
            attribute = open_attribute(entity, name, 0)
            try:
                shape, encoding = self._extent_and_type(get_space(attribute), get_type(attribute))
            finally:
                close_attribute(attribute)
            headers.append((name, shape, encoding))
        return headers

    def _on_attribute(self, _location: int, name: bytes, _info: object, _data: object) -> int:
        self._names.append(name)
        return 0

    def _extent_and_type(self, space: int, type_id: int) -> tuple[Shape, bytes]:
        """Of both identifiers, which are closed; a negative one is libhdf5's refusal."""
        call = self._call
        rank = call["H5Sget_simple_extent_dims"](space, self._dimensions_at, None)
        shape: Shape = tuple(self._dimensions[:rank]) if rank > 0 else ()
        if rank == 0 and call["H5Sget_simple_extent_type"](space) == _NULL_SPACE:
            shape = None
        call["H5Sclose"](space)
        encoding = self._encoded(type_id)
        call["H5Tclose"](type_id)
        if rank < 0 or encoding is None:
            raise HeaderError
        return shape, encoding

    def _encoded(self, type_id: int) -> bytes | None:
        """The type as H5Tencode writes it, short ones padded with zeros; None = refused."""
        encode = self._call["H5Tencode"]
        self._encoding.raw = _ZEROS
        self._size.value = _SHORT_ENCODING
        if encode(type_id, self._encoding_at, self._size_at) < 0:
            return None
        # It tells its size only when that is more than there is room for.
        if self._size.value <= _SHORT_ENCODING:
            return self._encoding.raw
        long = ctypes.create_string_buffer(self._size.value)
        refused = encode(type_id, ctypes.addressof(long), self._size_at) < 0
        return None if refused else long.raw


def _find_reader() -> HeaderReader | None:
    try:
        return HeaderReader()
    except (OSError, AttributeError):
        return None


header_reader = _find_reader()
