"""Links of a group, read from the file's bytes (HDF5 File Format Specification 3.0).

Of groups with a symbol table (sections III.A.1, III.C, III.D) and of those whose links are messages
of their header (IV.A.2.g). What is in dense storage, or is many links, libhdf5 lists.
"""

import struct
from typing import NamedTuple

from h5py import h5l

from asgihive.hdf5.file_bytes import FileBytes, NotPlain
from asgihive.hdf5.headers import LINK_INFO, SYMBOL_TABLE, ObjectHeader

# More than that libhdf5 lists, in portions.
_MAX_LINKS = 1 << 12
_MAX_HEAP_BYTES = 1 << 19
_MAX_NODES = 1 << 10

_SOFT, _CACHED_SOFT, _EXTERNAL = 1, 2, 64
_TRACKED = 0x01


class Link(NamedTuple):
    """A link as its group has it.

    Attributes:
        name: as it is stored.
        type: `h5l.TYPE_HARD` and the like.
        address: of the object, of a hard link.
        order: of its creation, if the group keeps track of that.
        target: the path of a soft link; file and path of an external one; None where it was not
            read.
    """

    name: bytes
    type: int
    address: int
    order: int
    target: bytes | tuple[bytes, bytes] | None = None


def read_links(file: FileBytes, header: ObjectHeader) -> dict[bytes, Link]:
    """Return the links of a group, by name.

    Raises:
        NotPlain: libhdf5 must look.
        NeedsThread
    """
    try:
        if SYMBOL_TABLE in header.messages:
            links = _links_of_table(file, header.messages[SYMBOL_TABLE])
        else:
            links = _links_of_messages(file, header)
    except (struct.error, IndexError, OverflowError):
        raise NotPlain from None
    by_name = {link.name: link for link in links}
    # Of two links of one name, which only a forged group has, libhdf5 chooses.
    if len(by_name) < len(links):
        raise NotPlain
    return by_name


def tracks_creation(header: ObjectHeader) -> bool:
    """Return whether a group keeps track of the order in which its links were created."""
    info = header.messages.get(LINK_INFO)
    return info is not None and bool(info[1] & _TRACKED)


def _links_of_messages(file: FileBytes, header: ObjectHeader) -> list[Link]:
    info = header.messages[LINK_INFO]
    heap = 10 if info[1] & _TRACKED else 2
    if info[0] or file.address(info, heap) != file.undefined:
        raise NotPlain
    return [_parse_link(file, message) for message in header.links]


def _parse_link(file: FileBytes, message: bytes) -> Link:
    version, flags = message[0], message[1]
    if version != 1 or flags & ~0x1F:
        raise NotPlain
    at, kind, order = 2, 0, 0
    if flags & 0x08:
        kind, at = message[at], at + 1
    if flags & 0x04:
        order, at = int.from_bytes(message[at : at + 8], "little"), at + 8
    if flags & 0x10:
        at += 1  # the name's character set
    width = 1 << (flags & 0x03)
    length = int.from_bytes(message[at : at + width], "little")
    at += width
    name = message[at : at + length]
    at += length
    if not name or len(name) < length or b"\0" in name:
        raise NotPlain
    if kind == 0:
        if len(message) < at + file.address_bytes:
            raise NotPlain
        return Link(name, h5l.TYPE_HARD, file.address(message, at), order)
    (size,) = struct.unpack_from("<H", message, at)
    value = message[at + 2 : at + 2 + size]
    if len(value) < size:
        raise NotPlain
    return _parse_target(name, kind, order, value)


def _parse_target(name: bytes, kind: int, order: int, value: bytes) -> Link:
    if kind == _SOFT and value and b"\0" not in value:
        return Link(name, h5l.TYPE_SOFT, 0, order, value)
    parts = value[1:].split(b"\0")
    # A version and flags of zero, then two strings.
    if kind != _EXTERNAL or not value or value[0] or len(parts) != 3 or parts[2]:
        raise NotPlain
    return Link(name, h5l.TYPE_EXTERNAL, 0, order, (parts[0], parts[1]))


def _links_of_table(file: FileBytes, table: bytes) -> list[Link]:
    wide = file.address_bytes
    if len(table) < 2 * wide:
        raise NotPlain
    names = _read_heap(file, file.address(table, wide))
    links: list[Link] = []
    for node in _find_nodes(file, file.address(table, 0)):
        start = file.read_page(node, 8)
        count = int.from_bytes(start[6:8], "little")
        if not start.startswith(b"SNOD\x01") or len(links) + count > _MAX_LINKS:
            raise NotPlain
        size = 2 * wide + 24
        entries = file.read_page(node + 8, count * size)
        for at in range(0, count * size, size):
            name = _string_at(names, file.address(entries, at))
            address = file.address(entries, at + wide)
            cached = int.from_bytes(entries[at + 2 * wide : at + 2 * wide + 4], "little")
            if not name:
                raise NotPlain
            if cached == _CACHED_SOFT:
                target = int.from_bytes(entries[at + 2 * wide + 8 : at + 2 * wide + 12], "little")
                links.append(Link(name, h5l.TYPE_SOFT, 0, 0, _string_at(names, target)))
            elif cached > _CACHED_SOFT or address == file.undefined:
                raise NotPlain
            else:
                links.append(Link(name, h5l.TYPE_HARD, address, 0))
    return links


def _read_heap(file: FileBytes, address: int) -> bytes:
    """Return the data of a local heap (section III.D)."""
    head = file.read_page(address, 8 + 2 * file.length_bytes + file.address_bytes)
    size = file.length(head, 8)
    if not head.startswith(b"HEAP\0") or size > _MAX_HEAP_BYTES:
        raise NotPlain
    return file.read_page(file.address(head, 8 + 2 * file.length_bytes), size)


def _string_at(heap: bytes, at: int) -> bytes:
    end = heap.find(b"\0", at)
    if end < 0:
        raise NotPlain
    return heap[at:end]


def _find_nodes(file: FileBytes, root: int) -> list[int]:
    """Return the addresses of the symbol table nodes below a version 1 B-tree (section III.A.1)."""
    wide, long = file.address_bytes, file.length_bytes
    start = 8 + 2 * wide
    found: list[int] = []
    pending, seen = [(root, -1)], 0
    while pending:
        address, expected = pending.pop()
        head = file.read_page(address, start)
        level, used = head[5], int.from_bytes(head[6:8], "little")
        seen += 1
        is_sound = head.startswith(b"TREE\0") and expected in {-1, level}
        if not is_sound or seen > _MAX_NODES or used > _MAX_NODES:
            raise NotPlain
        body = file.read_page(address + start, used * (long + wide) + long)
        children = [file.address(body, at) for at in range(long, used * (long + wide), long + wide)]
        if level:
            # The last one is taken first.
            pending.extend((child, level - 1) for child in reversed(children))
        else:
            found.extend(children)
    return found
