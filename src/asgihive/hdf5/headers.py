"""Object headers read from the file's bytes, for groups with thousands of children.

Opening an object through libhdf5 costs more than all that a listing shows of it. Here its
header is taken apart as far as the framing goes (HDF5 File Format Specification, version 3.0,
section IV.A); datatypes and filter pipelines stay the bytes they are, and are looked up among
those that libhdf5 has explained before (`asgihive.hdf5.listing`). Whatever is not
plain, such as shared messages or dense attributes, is left to libhdf5.
"""

import ctypes
import math
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import h5py

from asgihive.hdf5.open_file import OpenFile

Shape = tuple[int, ...] | None

# Message types, section IV.A.2.
_DATASPACE, _LINK_INFO, _DATATYPE, _LAYOUT = 0x01, 0x02, 0x03, 0x08
_PIPELINE, _ATTRIBUTE, _CONTINUATION, _SYMBOL_TABLE, _ATTRIBUTE_INFO = 0x0B, 0x0C, 0x10, 0x11, 0x15
_TELLING = {_DATASPACE, _LINK_INFO, _DATATYPE, _LAYOUT, _PIPELINE, _SYMBOL_TABLE, _ATTRIBUTE_INFO}
# Nothing of these is shown: fill values, links, times, comments, reference counts and the like.
_SILENT = {0x00, 0x04, 0x05, 0x06, 0x0A, 0x0D, 0x0E, 0x0F, 0x12, 0x16}

_SHARED = 0x02
_UNDEFINED_ADDRESS = _UNLIMITED = (1 << 64) - 1
_MAX_RANK = 32
_MAX_ELEMENTS = 1 << 63
_MAX_BLOCK_BYTES = 1 << 20
_MAX_BLOCKS = 256
_PAGE_BYTES = 1 << 14
_MAX_PAGES = 1024

_V1_PREFIX = struct.Struct("<BxHIIxxxx")
_V1_MESSAGE = struct.Struct("<HHBxxx")
_V2_MESSAGE = struct.Struct("<BHB")
_PLACE = struct.Struct("<QQ")
_ATTRIBUTE_SIZES = struct.Struct("<BBHHH")


class NotPlain(Exception):  # says what a header is, not what went wrong
    """libhdf5 must look: the header is of a rare kind, or damaged."""


@dataclass(frozen=True, slots=True)
class AttributeMessage:
    """Name, extent (None = empty dataspace) and datatype message of an attribute."""

    name: bytes
    shape: Shape
    type: bytes


@dataclass(frozen=True, slots=True)
class ObjectHeader:
    """What a listing shows of a group or a dataset.

    type, pipeline: the messages as they are stored.
    chunks: of the chunked layout.
    attributes: their messages without the values, see `parse_attribute`.
    """

    kind: str
    type: bytes | None
    shape: Shape
    chunks: tuple[int, ...] | None
    pipeline: bytes | None
    attributes: list[bytes]


@dataclass(slots=True)
class _Messages:
    """The messages of one object: one each of those that tell, and all attributes."""

    count: int = 0
    telling: dict[int, bytes] = field(default_factory=dict)
    attributes: list[bytes] = field(default_factory=list)
    continuations: list[tuple[int, int]] = field(default_factory=list)

    def add(self, kind: int, flags: int, body: bytes) -> None:
        self.count += 1
        if kind in _SILENT:
            return
        if flags & _SHARED:
            raise NotPlain
        if kind == _ATTRIBUTE:
            self.attributes.append(_without_value(body))
        elif kind == _CONTINUATION:
            self.continuations.append(_PLACE.unpack_from(body))
        elif kind in _TELLING and kind not in self.telling:
            self.telling[kind] = body
        else:
            raise NotPlain


class HeaderReader:
    """Reads the object headers of one open file, a page at a time.

    Raises:
        NotPlain: libhdf5 must read the headers of this file.
    """

    def __init__(self, file: OpenFile) -> None:
        # What a writer has not written out yet is not in the bytes.
        if file.live or file.id.get_create_plist().get_sizes() != (8, 8):
            raise NotPlain
        self._descriptor = file.descriptor
        self._base = file.base
        self._pages: dict[int, bytes] = {}

    def read(self, address: int) -> ObjectHeader:
        """The header at `address`, relative to where HDF5 begins in the file.

        Raises:
            NotPlain: libhdf5 must look.
        """
        try:
            return _interpreted(self._messages(address))
        except (struct.error, IndexError, OverflowError, OSError):
            raise NotPlain from None

    def _messages(self, address: int) -> _Messages:
        messages = _Messages()
        start = self._bytes(address, _V1_PREFIX.size)
        if start.startswith(b"OHDR"):
            self._add_v2(messages, address, start)
            return messages
        version, total, _, size = _V1_PREFIX.unpack(start)
        if version != 1:
            raise NotPlain
        _split_v1(messages, self._bytes(address + _V1_PREFIX.size, size))
        # The list grows while it is walked: blocks continue each other.
        for place in messages.continuations:
            _split_v1(messages, self._continuation(messages, place))
        if messages.count != total:
            raise NotPlain
        return messages

    def _add_v2(self, messages: _Messages, address: int, start: bytes) -> None:
        version, flags = start[4], start[5]
        if version != 2:
            raise NotPlain
        width = 1 << (flags & 0x03)
        prefix = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0) + width
        head = self._bytes(address, prefix)
        size = int.from_bytes(head[-width:], "little")
        message = 6 if flags & 0x04 else 4  # with creation order or without
        _split_v2(messages, self._bytes(address, prefix + size + 4), prefix, message)
        for place in messages.continuations:
            block = self._continuation(messages, place)
            if not block.startswith(b"OCHK"):
                raise NotPlain
            _split_v2(messages, block, 4, message)

    def _continuation(self, messages: _Messages, place: tuple[int, int]) -> bytes:
        if len(messages.continuations) > _MAX_BLOCKS:
            raise NotPlain
        return self._bytes(*place)

    def _bytes(self, address: int, size: int) -> bytes:
        if size > _MAX_BLOCK_BYTES:
            raise NotPlain
        number, start = divmod(self._base + address, _PAGE_BYTES)
        found = self._page(number)[start : start + size]
        while len(found) < size:
            number += 1
            more = self._page(number)[: size - len(found)]
            if not more:
                raise NotPlain
            found += more
        return found

    def _page(self, number: int) -> bytes:
        page = self._pages.get(number)
        if page is None:
            if len(self._pages) == _MAX_PAGES:
                self._pages.clear()
            page = os.pread(self._descriptor, _PAGE_BYTES, number * _PAGE_BYTES)
            self._pages[number] = page
        return page


def _split_v1(messages: _Messages, block: bytes) -> None:
    position, end, head = 0, len(block), _V1_MESSAGE.size
    while position < end:
        kind, size, flags = _V1_MESSAGE.unpack_from(block, position)
        position += head + size
        if position > end:
            raise NotPlain
        messages.add(kind, flags, block[position - size : position])


def _split_v2(messages: _Messages, block: bytes, position: int, head: int) -> None:
    """Messages from `position` to the checksum; a gap smaller than a message may precede that."""
    end = len(block) - 4
    if _checksum is None or _checksum(block, end, 0) != int.from_bytes(block[end:], "little"):
        raise NotPlain
    while position + head <= end:
        kind, size, flags = _V2_MESSAGE.unpack_from(block, position)
        position += head + size
        if position > end:
            raise NotPlain
        messages.add(kind, flags, block[position - size : position])


def _interpreted(messages: _Messages) -> ObjectHeader:
    telling = messages.telling
    stored = telling.get(_ATTRIBUTE_INFO)
    if stored is not None and not _without_dense_attributes(stored):
        raise NotPlain
    if _SYMBOL_TABLE in telling or _LINK_INFO in telling:
        return ObjectHeader("group", None, None, None, None, messages.attributes)
    if not telling.keys() >= {_DATATYPE, _DATASPACE, _LAYOUT}:
        raise NotPlain
    return ObjectHeader(
        kind="dataset",
        type=telling[_DATATYPE],
        shape=_extent(telling[_DATASPACE]),
        chunks=_chunks(telling[_LAYOUT]),
        pipeline=telling.get(_PIPELINE),
        attributes=messages.attributes,
    )


def _without_dense_attributes(info: bytes) -> bool:
    """Section IV.A.2.v: whether all attributes are in the header itself."""
    version, flags = info[0], info[1]
    heap = 4 if flags & 0x01 else 2
    return version == 0 and info[heap : heap + 8] == b"\xff" * 8


def _extent(space: bytes) -> Shape:
    """Section IV.A.2.b, versions 1 and 2; trailing bytes are padding."""
    version, rank, flags = space[0], space[1], space[2]
    null = version == 2 and space[3] == 2
    if version not in {1, 2} or rank > _MAX_RANK or flags & ~0x01:
        raise NotPlain
    if version == 2 and space[3] != (2 if null else int(rank > 0)):
        raise NotPlain
    start = 8 if version == 1 else 4
    dimensions = struct.unpack_from(f"<{rank}Q", space, start)
    if flags & 0x01:
        most = struct.unpack_from(f"<{rank}Q", space, start + 8 * rank)
        if any(size > bound for size, bound in zip(dimensions, most, strict=True)):
            raise NotPlain
    # What overflows is libhdf5's to judge; so is an extent beside "no data".
    if math.prod(dimensions) >= _MAX_ELEMENTS or (null and rank):
        raise NotPlain
    return None if null else dimensions


def _chunks(layout: bytes) -> tuple[int, ...] | None:
    """Section IV.A.2.i: the chunk shape, None for compact and contiguous storage."""
    version, kind = layout[0], layout[1]
    if version in {3, 4, 5} and kind in {0, 1}:
        return None
    # The last dimension of a chunk is the size of an element.
    if version == 3 and kind == 2:
        return struct.unpack_from(f"<{layout[2]}I", layout, 11)[:-1]
    if version in {4, 5} and kind == 2:
        rank, width = layout[3], layout[4]
        ends = range(5 + width, 5 + width * (rank + 1), width)
        if width and ends[-1] <= len(layout):
            sizes = [int.from_bytes(layout[end - width : end], "little") for end in ends]
            return tuple(sizes[:-1])
    raise NotPlain


def _without_value(attribute: bytes) -> bytes:
    """An attribute message up to its value: name, datatype and dataspace."""
    version, flags, name, datatype, space = _ATTRIBUTE_SIZES.unpack_from(attribute)
    if version == 1:
        return attribute[: 8 + _padded(name) + _padded(datatype) + _padded(space)]
    # The flags of the later versions say that the datatype or the dataspace is shared.
    if version not in {2, 3} or flags:
        raise NotPlain
    return attribute[: _attribute_start(version) + name + datatype + space]


def parse_attribute(message: bytes) -> AttributeMessage:
    """Take an attribute message apart; section IV.A.2.m, versions 1 to 3.

    Raises:
        NotPlain: it is damaged.
    """
    version, _, name, datatype, space = _ATTRIBUTE_SIZES.unpack_from(message)
    aligned = _padded if version == 1 else int
    start = _attribute_start(version)
    type_at = start + aligned(name)
    space_at = type_at + aligned(datatype)
    stored = message[start : start + name]
    if len(message) < space_at + space or stored.find(b"\0") != name - 1:
        raise NotPlain
    try:
        shape = _extent(message[space_at : space_at + space])
    except (struct.error, IndexError):
        raise NotPlain from None
    return AttributeMessage(stored[:-1], shape, message[type_at : type_at + datatype])


def _attribute_start(version: int) -> int:
    return 9 if version == 3 else 8  # the third knows the name's character set


def _padded(size: int) -> int:
    return (size + 7) & ~7


def _find_checksum() -> Callable[[bytes, int, int], int] | None:
    """libhdf5's own checksum of metadata (Jenkins' lookup3); None in a build that hides it."""
    try:
        # Looking up a symbol also searches the libraries that h5py's module depends on.
        function = ctypes.PyDLL(h5py.h5.__file__)["H5_checksum_metadata"]
    except (OSError, AttributeError):
        return None
    function.restype = ctypes.c_uint32
    function.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint32)
    found: Callable[[bytes, int, int], int] = function
    return found


_checksum = _find_checksum()
