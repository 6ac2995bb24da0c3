"""Object headers read from the file's bytes, for groups with thousands of children.

Opening an object through libhdf5 costs more than all that a listing shows of it. Here its
header is taken apart as far as the framing goes (HDF5 File Format Specification, version 3.0,
section IV.A); datatypes and filter pipelines stay the bytes they are, and are looked up among
those that libhdf5 has explained before (`asgihive.hdf5.listing`). Whatever is not
plain, such as shared messages or dense attributes, is left to libhdf5.
"""

import math
import os
import struct
from dataclasses import dataclass, field, replace

from asgihive.hdf5 import file_bytes
from asgihive.hdf5.file_bytes import FileBytes, NotPlain, read_superblock
from asgihive.hdf5.layout import Filter, Layout, LayoutKind
from asgihive.hdf5.names import text
from asgihive.hdf5.open_file import OpenFile
from asgihive.hdf5.structure_checks import MAX_MESSAGES
from asgihive.hdf5.types import NoEquivalent

Shape = tuple[int, ...] | None

# Message types, section IV.A.2.
_DATASPACE, _LINK_INFO, _DATATYPE, _LAYOUT = 0x01, 0x02, 0x03, 0x08
_PIPELINE, _ATTRIBUTE, _CONTINUATION, _SYMBOL_TABLE, _ATTRIBUTE_INFO = 0x0B, 0x0C, 0x10, 0x11, 0x15
_TREE_K, _CACHE_IMAGE = 0x13, 0x18
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
_ATTRIBUTE_SIZES = struct.Struct("<BBHHH")


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
    """The messages of one object: one each of those that tell, and all attributes.

    place_sizes: of the address and of the length in a continuation message.
    """

    place_sizes: tuple[int, int] = (8, 8)
    count: int = 0
    telling: dict[int, bytes] = field(default_factory=dict)
    attributes: list[bytes] = field(default_factory=list)
    continuations: list[tuple[int, int]] = field(default_factory=list)

    def add(self, kind: int, flags: int, body: bytes) -> None:
        self.count += 1
        if self.count > MAX_MESSAGES:
            raise NotPlain
        if kind in _SILENT:
            return
        if flags & _SHARED:
            raise NotPlain
        if kind == _ATTRIBUTE:
            self.attributes.append(_without_value(body))
        elif kind == _CONTINUATION:
            self.continue_at(body)
        elif kind in _TELLING and kind not in self.telling:
            self.telling[kind] = body
        else:
            raise NotPlain

    def continue_at(self, body: bytes) -> None:
        """Note where more messages are."""
        wide, narrow = self.place_sizes
        if len(body) < wide + narrow:
            raise NotPlain
        place = body[:wide], body[wide : wide + narrow]
        address, size = (int.from_bytes(each, "little") for each in place)
        self.continuations.append((address, size))


@dataclass(slots=True)
class _ChosenMessages(_Messages):
    """Only those of some kinds, whatever else there is; `chosen` says which."""

    chosen: frozenset[int] = frozenset()

    def add(self, kind: int, flags: int, body: bytes) -> None:
        self.count += 1
        if kind == _CONTINUATION:
            self.continue_at(body)
        elif kind in self.chosen:
            if flags & _SHARED or kind in self.telling:
                raise NotPlain
            self.telling[kind] = body


class _MessageReader:
    """Reads the object headers of one file, a page at a time."""

    def __init__(self, file: FileBytes) -> None:
        self._descriptor = file.descriptor
        self._base = file.base
        self._place_sizes = file.address_bytes, file.length_bytes
        self._pages: dict[int, bytes] = {}

    def read_chosen(self, address: int, chosen: frozenset[int]) -> dict[int, bytes]:
        """The messages of `chosen` kinds of the object at `address`.

        Raises:
            NotPlain: libhdf5 must look.
        """
        try:
            messages = _ChosenMessages(self._place_sizes, chosen=chosen)
            return self._messages(address, messages).telling
        except (struct.error, IndexError, OverflowError, OSError):
            raise NotPlain from None

    def _messages(self, address: int, messages: _Messages) -> _Messages:
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


class HeaderReader(_MessageReader):
    """Reads what a listing shows of the objects of one open file.

    Raises:
        NotPlain: libhdf5 must read the headers of this file.
    """

    def __init__(self, file: OpenFile) -> None:
        # What a writer has not written out yet is not in the bytes.
        if file.live:
            raise NotPlain
        stored = bytes_of(file)
        if (stored.address_bytes, stored.length_bytes) != (8, 8):
            raise NotPlain
        super().__init__(stored)

    def read(self, address: int) -> ObjectHeader:
        """The header at `address`, relative to where HDF5 begins in the file.

        Raises:
            NotPlain: libhdf5 must look.
        """
        try:
            return _interpreted(self._messages(address, _Messages()))
        except (struct.error, IndexError, OverflowError, OSError):
            raise NotPlain from None


def bytes_of(file: OpenFile) -> FileBytes:
    """The bytes of an open file, as its superblock and the extension of that explain them.

    Raises:
        NotPlain: libhdf5 must read this file.
    """
    if file.bytes is None:
        found = read_superblock(file.descriptor, file.base, file.identity.size, is_live=file.live)
        if found.extension is not None:
            chosen = frozenset((_TREE_K, _CACHE_IMAGE))
            told = read_messages(found, found.extension, chosen)
            # Metadata that lie in an image of libhdf5's cache are not where addresses lead.
            if _CACHE_IMAGE in told:
                raise NotPlain
            if _TREE_K in told:
                found = replace(found, tree_k=_tree_k(told[_TREE_K]))
        file.bytes = found
    return file.bytes


def _tree_k(message: bytes) -> int:
    """Section IV.A.2.t, version 0: that of chunks comes first."""
    tree_k = int.from_bytes(message[1:3], "little")
    if len(message) < 3 or message[0] or not tree_k:
        raise NotPlain
    return tree_k


def read_messages(file: FileBytes, address: int, chosen: frozenset[int]) -> dict[int, bytes]:
    """Messages of `chosen` types of the object whose header is at `address`, by type.

    Raises:
        NotPlain: libhdf5 must look.
    """
    return _MessageReader(file).read_chosen(address, chosen)


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
    if not file_bytes.is_checked(block, b""):
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


def layout_of_header(file: OpenFile, address: int) -> tuple[Layout, tuple[int, ...] | None]:
    """How the dataset at `address` is stored, where libhdf5 says nothing of its properties.

    And its extent as written: it may be virtual, and libhdf5 is not to be asked for that.

    Raises:
        NoEquivalent: the header is not plain.
    """
    try:
        header = HeaderReader(file).read(address)
        filters = () if header.pipeline is None else parse_pipeline(header.pipeline)
    except NotPlain:
        detail = "its fill value is lost, and its header is not plain"
        raise NoEquivalent(detail) from None
    kind = LayoutKind.CONTIGUOUS if header.chunks is None else LayoutKind.CHUNKED
    return Layout(kind, header.chunks, filters), header.shape


# Those whose names are not stored since the second version.
_FILTER_NAMES = {
    1: "deflate",
    2: "shuffle",
    3: "fletcher32",
    4: "szip",
    5: "nbit",
    6: "scaleoffset",
}


def parse_pipeline(message: bytes) -> tuple[Filter, ...]:
    """The filters of a filter pipeline message; section IV.A.2.l, versions 1 and 2.

    Raises:
        NotPlain: it is damaged.
    """
    try:
        version, count = message[0], message[1]
        if version not in {1, 2}:
            raise NotPlain
        filters, position = [], 8 if version == 1 else 2
        for _ in range(count):
            (number,) = struct.unpack_from("<H", message, position)
            name_bytes = 0
            if version == 1 or number >= _FIRST_NAMED:
                (name_bytes,) = struct.unpack_from("<H", message, position + 2)
                position += 2
            _, value_count = struct.unpack_from("<HH", message, position + 2)
            position += 6
            name = message[position : position + name_bytes].partition(b"\0")[0]
            position += _padded(name_bytes) if version == 1 else name_bytes
            values = struct.unpack_from(f"<{value_count}I", message, position)
            position += 4 * (value_count + (value_count % 2 if version == 1 else 0))
            filters.append(Filter(number, text(name) or _FILTER_NAMES.get(number, ""), values))
    except (struct.error, IndexError):
        raise NotPlain from None
    return tuple(filters)


_FIRST_NAMED = 256


def _attribute_start(version: int) -> int:
    return 9 if version == 3 else 8  # the third knows the name's character set


def _padded(size: int) -> int:
    return (size + 7) & ~7
