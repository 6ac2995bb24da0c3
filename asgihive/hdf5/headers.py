"""Object headers, read from the file's bytes (HDF5 File Format Specification 3.0, section IV.A).

Opening an object by libhdf5 costs more than all that is mostly asked of it. So its header is taken
apart here, of groups and datasets; whatever is not plain, such as shared messages and attributes
in dense storage, is left to libhdf5.
"""

import functools
import math
import struct
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from asgihive.hdf5.file_bytes import FileBytes, NotPlain, is_checked, read_superblock, text
from asgihive.hdf5.layout import Filter
from asgihive.hdf5.remote import Descriptor

Shape = tuple[int, ...] | None

Extent = tuple[Shape, tuple[int | None, ...]]
"""The extent of a dataspace, and the largest extent; None in the latter = without a limit."""

MAX_MESSAGES = 1 << 16
"""Messages of one object header; the format has 16 bits for their number."""

# Message types, section IV.A.2.
DATASPACE, LINK_INFO, DATATYPE, OLD_FILL, FILL, LINK = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
EXTERNAL, LAYOUT, PIPELINE, ATTRIBUTE, CONTINUATION = 0x07, 0x08, 0x0B, 0x0C, 0x10
SYMBOL_TABLE, ATTRIBUTE_INFO = 0x11, 0x15
_DRIVER, _TREE_K, _CACHE_IMAGE = 0x14, 0x13, 0x18
_TELLING = frozenset(
    (DATASPACE, LINK_INFO, DATATYPE, OLD_FILL, FILL, LAYOUT, PIPELINE, SYMBOL_TABLE, ATTRIBUTE_INFO)
)
# Nothing of these is shown: times, comments, reference counts and the like.
_SILENT = frozenset((0x00, 0x0A, 0x0D, 0x0E, 0x0F, 0x12, 0x16))

SHARED = 0x02
"""Of the flags of a message: what it says is stored elsewhere."""

_MAX_RANK = 32
_MAX_KEPT_SPACE_BYTES = 64
_MAX_ELEMENTS = 1 << 63
_MAX_BLOCK_BYTES = 1 << 20
_MAX_BLOCKS = 256

V1_PREFIX = struct.Struct("<BxHIIxxxx")
V1_MESSAGE = struct.Struct("<HHBxxx")
V2_MESSAGE = struct.Struct("<BHB")
_ATTRIBUTE_SIZES = struct.Struct("<BBHHH")


@dataclass(slots=True)
class ObjectHeader:
    """The messages of a group or a dataset.

    Attributes:
        kind: `group` or `dataset`.
        messages: those that there is one of, by type, as they are stored.
        places: address of each of them in the file.
        links: link messages of a group.
        attributes: attribute messages, see `parse_attribute`, in the order of their creation where
            `tracks_attributes`.
        tracks_attributes: whether the object keeps track of that order.
    """

    kind: str = ""
    messages: dict[int, bytes] = field(default_factory=dict)
    places: dict[int, int] = field(default_factory=dict)
    links: list[bytes] = field(default_factory=list)
    attributes: list[bytes] = field(default_factory=list)
    tracks_attributes: bool = False


class AttributeMessage(NamedTuple):  # of which a wide group has tens of thousands
    """An attribute, taken apart."""

    name: bytes
    """As it is stored."""
    shape: Shape
    """Of the dataspace; None = empty."""
    type: bytes
    """The datatype message."""
    value: bytes
    """The elements, as the type says, and perhaps padding."""


def bytes_of_file(descriptor: Descriptor, base: int, end: int, *, is_live: bool) -> FileBytes:
    """Return the bytes of a file, as its superblock and the extension of that explain them.

    Args:
        descriptor: of the open file.
        base: where in the file HDF5 begins.
        end: the size of the file in bytes.
        is_live: whether a writer is writing it.

    Raises:
        NotPlain: libhdf5 must read this file.
        NeedsThread
    """
    found = read_superblock(descriptor, base, end, is_live=is_live)
    if found.extension is not None:
        told = read_messages(found, found.extension, frozenset((_TREE_K, _DRIVER, _CACHE_IMAGE)))
        # Metadata that lie in an image of libhdf5's cache are not where addresses lead, and a
        # driver's own information tells of a file in several parts.
        if _CACHE_IMAGE in told or _DRIVER in told:
            raise NotPlain
        if _TREE_K in told:
            found = replace(found, tree_k=_tree_k(told[_TREE_K]))
    return found


def _tree_k(message: bytes) -> int:
    """Section IV.A.2.t, version 0: that of chunks comes first."""
    tree_k = int.from_bytes(message[1:3], "little")
    if len(message) < 3 or message[0] or not tree_k:
        raise NotPlain
    return tree_k


def read_header(file: FileBytes, address: int) -> ObjectHeader:
    """Return the messages of the object whose header is at `address`.

    Raises:
        NotPlain: libhdf5 must look.
        NeedsThread
    """
    if file.is_live:  # what a writer has not written out yet is not in the bytes
        raise NotPlain
    header = ObjectHeader()
    orders: list[int] = []
    messages = header.messages
    for kind, flags, order, place, body in _messages(file, address):
        if flags & SHARED:
            raise NotPlain
        if kind == ATTRIBUTE:
            header.attributes.append(body)
            orders.append(order)
        elif kind == LINK:
            header.links.append(body)
        elif kind in _TELLING and kind not in messages and len(body) > 1:
            messages[kind] = body
            header.places[kind] = place
        else:
            raise NotPlain
    header.kind = _find_kind(file, header)
    if orders and orders[0] >= 0:
        header.tracks_attributes = True
        ranked = sorted(range(len(orders)), key=orders.__getitem__)
        header.attributes = [header.attributes[each] for each in ranked]
    return header


def _find_kind(file: FileBytes, header: ObjectHeader) -> str:
    """Return what the object is. Raises NotPlain."""
    messages = header.messages
    if ATTRIBUTE_INFO in messages:
        # Section IV.A.2.v: all attributes are in the header itself if there is no heap of them.
        info = messages[ATTRIBUTE_INFO]
        if info[0] or file.address(info, 4 if info[1] & 0x01 else 2) != file.undefined:
            raise NotPlain
    if SYMBOL_TABLE in messages or LINK_INFO in messages:
        return "group"
    if not messages.keys() >= {DATATYPE, DATASPACE, LAYOUT} or header.links:
        raise NotPlain
    return "dataset"


def read_messages(file: FileBytes, address: int, chosen: frozenset[int]) -> dict[int, bytes]:
    """Return messages of `chosen` types of the object whose header is at `address`, by type.

    Raises:
        NotPlain: libhdf5 must look.
        NeedsThread
    """
    told: dict[int, bytes] = {}
    for kind, flags, _, _, body in _messages(file, address):
        if kind in chosen:
            if flags & SHARED or kind in told:
                raise NotPlain
            told[kind] = body
    return told


# Type, flags, creation order (-1 = none), address and body of a message.
_Message = tuple[int, int, int, int, bytes]


def _messages(file: FileBytes, address: int) -> list[_Message]:
    """Return the messages of a header, but for silent ones and those that continue it elsewhere.

    Section IV.A.1.a; no more blocks and messages than the bounds say, and all of them.
    """
    found: list[_Message] = []
    try:
        start = file.read_page(address, V1_PREFIX.size)
        if start.startswith(b"OHDR"):
            return _messages_2(file, address, start)
        version, total, _, size = V1_PREFIX.unpack(start)
        blocks, count = [(address + V1_PREFIX.size, size)], 0
        for first, length in blocks:  # the list grows as it is walked: blocks continue each other
            if version != 1 or length > _MAX_BLOCK_BYTES:
                raise NotPlain
            block, at = file.read_page(first, length), 0
            while at < length:
                kind, bytes_, flags = V1_MESSAGE.unpack_from(block, at)
                at += 8 + bytes_
                count += 1
                if at > length or count > MAX_MESSAGES:
                    raise NotPlain
                if kind in _SILENT:
                    continue
                body = block[at - bytes_ : at]
                if kind == CONTINUATION:
                    blocks.append(_next_block(file, body, len(blocks)))
                else:
                    found.append((kind, flags, -1, first + at - bytes_, body))
    except (struct.error, IndexError, OverflowError):
        raise NotPlain from None
    if count != total:
        raise NotPlain
    return found


def _messages_2(file: FileBytes, address: int, start: bytes) -> list[_Message]:
    """Section IV.A.1.b: with checksums; a gap smaller than a message may precede those."""
    version, flags = start[4], start[5]
    if version != 2:
        raise NotPlain
    width = 1 << (flags & 0x03)
    prefix = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0) + width
    size = int.from_bytes(file.read_page(address, prefix)[-width:], "little")
    head = 6 if flags & 0x04 else 4  # with creation order or without
    found: list[_Message] = []
    blocks, count = [(address, prefix + size + 4)], 0
    for first, length in blocks:
        if length > _MAX_BLOCK_BYTES:
            raise NotPlain
        block, at = file.read_page(first, length), prefix
        if not is_checked(block, b"OHDR" if first == address else b"OCHK"):
            raise NotPlain
        while at + head <= length - 4:
            kind, bytes_, message_flags = V2_MESSAGE.unpack_from(block, at)
            order = int.from_bytes(block[at + 4 : at + 6], "little") if head == 6 else -1
            at += head + bytes_
            count += 1
            if at > length - 4 or count > MAX_MESSAGES:
                raise NotPlain
            if kind in _SILENT:
                continue
            body = block[at - bytes_ : at]
            if kind == CONTINUATION:
                blocks.append(_next_block(file, body, len(blocks)))
            else:
                found.append((kind, message_flags, order, first + at - bytes_, body))
        prefix = 4
    return found


def _next_block(file: FileBytes, body: bytes, blocks: int) -> tuple[int, int]:
    if len(body) < file.address_bytes + file.length_bytes or blocks > _MAX_BLOCKS:
        raise NotPlain
    return file.address(body, 0), file.length(body, file.address_bytes)


def parse_extent(space: bytes, length_bytes: int) -> Extent:
    """Return the extent and the largest extent of a dataspace message, None = without a limit.

    Section IV.A.2.b, versions 1 and 2; trailing bytes are padding.

    Raises:
        NotPlain: libhdf5 must look.
    """
    if len(space) <= _MAX_KEPT_SPACE_BYTES:
        return _parse_kept_extent(space, length_bytes)
    return _parse_kept_extent.__wrapped__(space, length_bytes)


@functools.lru_cache(maxsize=1024)  # of many objects the same
def _parse_kept_extent(space: bytes, length_bytes: int) -> Extent:
    try:
        version, rank, flags = space[0], space[1], space[2]
        is_null = version == 2 and space[3] == 2
        if version not in {1, 2} or rank > _MAX_RANK or flags & ~0x01:
            raise NotPlain
        if version == 2 and space[3] != (2 if is_null else int(rank > 0)):
            raise NotPlain
        start, item = (8 if version == 1 else 4), "Q" if length_bytes == 8 else "I"
        extent = struct.unpack_from(f"<{rank}{item}", space, start)
        most: tuple[int | None, ...] = extent
        if flags & 0x01:
            bounds = struct.unpack_from(f"<{rank}{item}", space, start + length_bytes * rank)
            if any(map(int.__gt__, extent, bounds)):
                raise NotPlain
            if (undefined := (1 << 8 * length_bytes) - 1) in bounds:
                bounds = tuple(None if bound == undefined else bound for bound in bounds)
            most = bounds
    except (struct.error, IndexError):
        raise NotPlain from None
    # What overflows is libhdf5's to judge; so is an extent beside "no data".
    if math.prod(extent) >= _MAX_ELEMENTS or (is_null and rank):
        raise NotPlain
    return (None if is_null else extent), most


def parse_attribute(message: bytes, length_bytes: int = 8) -> AttributeMessage:
    """Take an attribute message apart; section IV.A.2.m, versions 1 to 3.

    Raises:
        NotPlain: it is damaged, or libhdf5 must look.
    """
    name_at, type_at, space_at, value_at = _find_attribute_parts(message)
    _, _, name, datatype, space = _ATTRIBUTE_SIZES.unpack_from(message)
    stored = message[name_at : name_at + name]
    if stored.find(b"\0") != name - 1:
        raise NotPlain
    shape, _ = parse_extent(message[space_at : space_at + space], length_bytes)
    return AttributeMessage(
        stored[:-1], shape, message[type_at : type_at + datatype], message[value_at:]
    )


def cut_attribute_value(message: bytes) -> bytes:
    """Return an attribute message up to its value: its name, type and dataspace as they are stored.

    Raises:
        NotPlain: as `parse_attribute`, but what these three say is not looked at.
    """
    return message[: _find_attribute_parts(message)[3]]


def _find_attribute_parts(message: bytes) -> tuple[int, int, int, int]:
    """Return where name, datatype, dataspace and value of an attribute begin."""
    try:
        version, flags, name, datatype, space = _ATTRIBUTE_SIZES.unpack_from(message)
    except struct.error:
        raise NotPlain from None
    # The flags of the later versions say that the datatype or the dataspace is shared.
    if version not in {1, 2, 3} or (version != 1 and flags):
        raise NotPlain
    start = 9 if version == 3 else 8  # the third knows the name's character set
    unit = 8 if version == 1 else 1  # to which each part is padded
    type_at = start + -(-name // unit) * unit
    space_at = type_at + -(-datatype // unit) * unit
    if len(message) < space_at + space:
        raise NotPlain
    return start, type_at, space_at, space_at + -(-space // unit) * unit


# Those whose names are not stored since the second version.
_FILTER_NAMES = {
    1: "deflate",
    2: "shuffle",
    3: "fletcher32",
    4: "szip",
    5: "nbit",
    6: "scaleoffset",
}

_FIRST_NAMED_FILTER = 256


def parse_pipeline(message: bytes) -> tuple[Filter, ...]:
    """Return the filters of a filter pipeline message; section IV.A.2.l, versions 1 and 2.

    Raises:
        NotPlain: it is damaged, or has no name of a filter: libhdf5 has that of its plugin.
    """
    try:
        version, count = message[0], message[1]
        if version not in {1, 2}:
            raise NotPlain
        filters, position = [], 8 if version == 1 else 2
        for _ in range(count):
            (number,) = struct.unpack_from("<H", message, position)
            name_bytes = 0
            if version == 1 or number >= _FIRST_NAMED_FILTER:
                (name_bytes,) = struct.unpack_from("<H", message, position + 2)
                position += 2
            _, value_count = struct.unpack_from("<HH", message, position + 2)
            position += 6
            stored = message[position : position + name_bytes].partition(b"\0")[0]
            name = text(stored) or _FILTER_NAMES.get(number)
            if not name:
                raise NotPlain
            position += -(-name_bytes // 8) * 8 if version == 1 else name_bytes
            values = struct.unpack_from(f"<{value_count}I", message, position)
            position += 4 * (value_count + (value_count % 2 if version == 1 else 0))
            filters.append(Filter(number, name, values))
    except (struct.error, IndexError):
        raise NotPlain from None
    return tuple(filters)
