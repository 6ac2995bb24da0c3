"""What object headers point to, read from the file's bytes: links, storage of datasets, strings.

The sections are those of the HDF5 File Format Specification 3.0. Links are read of groups with a
symbol table (III.A.1, III.C, III.D) and of those whose links are messages of their header
(IV.A.2.g); what is in dense storage, or is many links, libhdf5 lists. How a dataset is stored is
in the messages of its header (IV.A.2), strings of variable length are in global heaps (III.E).
"""

import struct
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from h5py import h5l

from asgihive.hdf5.file_bytes import DamagedMetadata, FileBytes, NotPlain
from asgihive.hdf5.headers import (
    DATASPACE,
    DATATYPE,
    FILL,
    LAYOUT,
    LINK_INFO,
    OLD_FILL,
    PIPELINE,
    SYMBOL_TABLE,
    ObjectHeader,
    Shape,
    parse_extent,
    parse_pipeline,
)
from asgihive.hdf5.layout import Filter, LayoutKind

# More than that libhdf5 lists, in portions.
_MAX_LINKS = 1 << 12
_MAX_LOCAL_HEAP_BYTES = 1 << 19
_MAX_NODES = 1 << 10

_SOFT, _CACHED_SOFT, _EXTERNAL = 1, 2, 64

TRACKED = 0x01
"""In the flags of a link info message: links have the order of their creation."""


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
            return _read_symbol_table(file, header.messages[SYMBOL_TABLE])
        info = header.messages[LINK_INFO]
        heap = 10 if info[1] & TRACKED else 2
        if info[0] or file.address(info, heap) != file.undefined:
            raise NotPlain
        links = {}
        for message in header.links:
            link = _parse_link(file, message)
            links[link.name] = link
    except (struct.error, ValueError, IndexError, OverflowError):
        raise NotPlain from None
    # Of two links of one name, which only a forged group has, libhdf5 chooses.
    if len(links) < len(header.links):
        raise NotPlain
    return links


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


def _read_symbol_table(file: FileBytes, table: bytes) -> dict[bytes, Link]:
    wide, long = file.address_bytes, file.length_bytes
    if len(table) < 2 * wide:
        raise NotPlain
    # The names are in a local heap (section III.D).
    heap = file.read_page(file.address(table, wide), 8 + 2 * long + wide)
    size = file.length(heap, 8)
    if not heap.startswith(b"HEAP\0") or size > _MAX_LOCAL_HEAP_BYTES:
        raise NotPlain
    names = file.read_page(file.address(heap, 8 + 2 * long), size)
    links: dict[bytes, Link] = {}
    for node in _find_nodes(file, file.address(table, 0)):
        start = file.read_page(node, 8)
        count = int.from_bytes(start[6:8], "little")
        if not start.startswith(b"SNOD\x01") or len(links) + count > _MAX_LINKS:
            raise NotPlain
        size = 2 * wide + 24
        entries = file.read_page(node + 8, count * size)
        for at in range(0, count * size, size):
            first = file.address(entries, at)
            name = names[first : names.index(b"\0", first)]
            address = file.address(entries, at + wide)
            cached = int.from_bytes(entries[at + 2 * wide : at + 2 * wide + 4], "little")
            # Of two links of one name, which only a forged group has, libhdf5 chooses.
            if not name or name in links:
                raise NotPlain
            if cached == _CACHED_SOFT:
                first = int.from_bytes(entries[at + 2 * wide + 8 : at + 2 * wide + 12], "little")
                target = names[first : names.index(b"\0", first)]
                links[name] = Link(name, h5l.TYPE_SOFT, 0, 0, target)
            elif cached > _CACHED_SOFT or address == file.undefined:
                raise NotPlain
            else:
                links[name] = Link(name, h5l.TYPE_HARD, address, 0)
    return links


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
        places = range(long, used * (long + wide), long + wide)
        if level:
            # The last one is taken first.
            pending.extend((file.address(body, at), level - 1) for at in reversed(places))
        else:
            found.extend(map(partial(file.address, body), places))
    return found


_LAYOUTS = {0: LayoutKind.COMPACT, 1: LayoutKind.CONTIGUOUS, 2: LayoutKind.CHUNKED}
_NEVER = 1  # of the times at which a fill value is written


@dataclass(frozen=True, slots=True)
class StoredDataset:
    """What the header of a dataset says.

    Attributes:
        shape: its extent; None = empty.
        max_shape: the largest extent of each dimension; None = without a limit.
        type: the datatype message.
        kind: of its layout.
        chunks: shape of a chunk; None = not chunked.
        filters: of each chunk.
        place: address and number of the bytes of its values, of the compact and contiguous
            layouts; None = never written.
        fill: the fill value as it is stored, where it is given and used; None = zeros.
    """

    shape: Shape
    max_shape: tuple[int | None, ...]
    type: bytes
    kind: LayoutKind
    chunks: tuple[int, ...] | None
    filters: tuple[Filter, ...]
    place: tuple[int, int] | None
    fill: bytes | None


def interpret_dataset(file: FileBytes, header: ObjectHeader) -> StoredDataset:
    """Return what the header of a dataset says.

    Raises:
        NotPlain: libhdf5 must look: values lie in other files, or the header is damaged.
    """
    if header.kind != "dataset":
        raise NotPlain
    messages = header.messages
    layout = messages[LAYOUT]
    shape, max_shape = parse_extent(messages[DATASPACE], file.length_bytes)
    try:
        version, number = layout[0], layout[1]
        if version not in {3, 4, 5} or number not in _LAYOUTS:
            raise NotPlain
        kind, place, chunks = _LAYOUTS[number], None, None
        if kind is LayoutKind.COMPACT:
            (size,) = struct.unpack_from("<H", layout, 2)
            if len(layout) < 4 + size:
                raise NotPlain
            place = (header.places[LAYOUT] + 4, size)
        elif kind is LayoutKind.CONTIGUOUS:
            address = file.address(layout, 2)
            if len(layout) < 2 + file.address_bytes + file.length_bytes:
                raise NotPlain
            if address != file.undefined:
                place = (address, file.length(layout, 2 + file.address_bytes))
        else:
            chunks = parse_chunk_dimensions(layout, file.address_bytes)[:-1]
            if shape is not None and len(chunks) != len(shape):
                raise NotPlain
    except (struct.error, IndexError):
        raise NotPlain from None
    return StoredDataset(
        shape=shape,
        max_shape=max_shape,
        type=messages[DATATYPE],
        kind=kind,
        chunks=chunks,
        filters=parse_pipeline(messages[PIPELINE]) if PIPELINE in messages else (),
        place=place,
        fill=_find_fill(messages),
    )


_MAX_COMMON_BYTES = 1 << 10


def find_common_key(file: FileBytes, header: ObjectHeader) -> Hashable | None:
    """Return what the headers of datasets have in common that differ by their values' places alone.

    Where it is the same, `interpret_dataset` says the same of both, but for `place`.

    Returns:
        None where nothing short does.
    """
    layout, wide = header.messages.get(LAYOUT, b""), file.address_bytes
    others = [(kind, body) for kind, body in header.messages.items() if kind != LAYOUT]
    if len(layout) < 5 or sum(len(body) for _, body in others) > _MAX_COMMON_BYTES:
        return None
    kind = _LAYOUTS.get(layout[1])
    if kind is LayoutKind.COMPACT:  # the values follow their number
        return (wide, file.length_bytes, layout[:4], len(layout), *others)
    if len(layout) > _MAX_COMMON_BYTES:
        return None
    if kind is LayoutKind.CONTIGUOUS:
        is_written = file.address(layout, 2) != file.undefined
        common = (layout[:2], layout[2 + wide :], is_written)
    elif layout[0] == 3:
        common = (layout[:3], layout[3 + wide :], True)
    else:  # the address is the last, behind the dimensions
        end = max(len(layout) - wide, 5 + layout[4] * (layout[3] + 1))
        common = (layout[:end], b"", True)
    return (wide, file.length_bytes, *common, len(layout), *others)


def parse_chunk_dimensions(layout: bytes, address_bytes: int) -> tuple[int, ...]:
    """Return the shape of a chunk and the size of an element by a layout message; IV.A.2.i.

    Raises:
        NotPlain, IndexError, struct.error: the message is damaged.
    """
    if layout[0] == 3:
        dimensions = struct.unpack_from(f"<{layout[2]}I", layout, 3 + address_bytes)
    else:
        rank, width = layout[3], layout[4]
        ends = range(5 + width, 5 + width * (rank + 1), width or 1)
        if not 1 <= width <= 8 or not rank or ends[-1] > len(layout):
            raise NotPlain
        dimensions = tuple(int.from_bytes(layout[end - width : end], "little") for end in ends)
    if len(dimensions) < 2 or not all(dimensions):
        raise NotPlain
    return dimensions


def _find_fill(messages: dict[int, bytes]) -> bytes | None:
    """Return the fill value (sections IV.A.2.e and f), of the newer message if there is one."""
    if FILL not in messages and OLD_FILL not in messages:
        return None
    try:
        message, at = messages.get(OLD_FILL, b""), 0
        if FILL in messages:
            message = messages[FILL]
            version = message[0]
            if version in {1, 2}:
                is_given, time, at = version == 1 or message[3] != 0, message[2], 4
            elif version == 3:
                is_given, time, at = bool(message[1] & 0x20), message[1] >> 2 & 0x03, 2
            else:
                raise NotPlain
            if not is_given or time == _NEVER:
                return None
        (size,) = struct.unpack_from("<i", message, at)
    except (struct.error, IndexError):
        raise NotPlain from None
    value = message[at + 4 : at + 4 + max(size, 0)]
    if len(value) < size:
        raise NotPlain
    return value or None


MAX_STRINGS = 1 << 10
"""Strings that are read here; libhdf5 reads more of them in less time."""

_MAX_GLOBAL_HEAP_BYTES = 1 << 19
_MAX_OBJECTS = 1 << 12

_OBJECT_HEAD = struct.Struct("<HHxxxx")


def read_strings(file: FileBytes, stored: bytes, count: int) -> np.ndarray[Any, np.dtype[Any]]:
    """Return `count` strings, as bytes; `stored` has the length and place of each.

    They end at their first NUL, as libhdf5 has it, and are empty where none was written.

    Returns:
        A one-dimensional array of objects.

    Raises:
        NotPlain: libhdf5 must look.
        DamagedMetadata: it must not, since their heap is damaged.
        NeedsThread
    """
    strings = np.empty(count, object)
    for number, (value, length) in enumerate(_read_heap_objects(file, stored, count)):
        if len(value) < length:
            raise NotPlain
        strings[number] = value[:length].partition(b"\0")[0]
    return strings


def read_string(file: FileBytes, stored: bytes) -> bytes:
    """Return one string; as `read_strings`, in a third of the time."""
    address = file.address(stored, 4)
    length = int.from_bytes(stored[:4], "little")
    heap = None if address in {0, file.undefined} else file.find_heap(address)
    if heap is not None:
        value = heap.get(
            int.from_bytes(stored[4 + file.address_bytes : 8 + file.address_bytes], "little")
        )
        if value is not None and len(value) >= length:
            return value[:length].partition(b"\0")[0]
    found: bytes = read_strings(file, stored, 1)[0]
    return found


def read_references(file: FileBytes, stored: bytes, count: int) -> list[list[int]]:
    """Return the addresses in `count` sequences of object references; as `read_strings`."""
    wide = file.address_bytes
    sequences = []
    for value, length in _read_heap_objects(file, stored, count):
        if len(value) < length * wide:
            raise NotPlain
        sequences.append([file.address(value, at) for at in range(0, length * wide, wide)])
    return sequences


def _read_heap_objects(file: FileBytes, stored: bytes, count: int) -> Iterator[tuple[bytes, int]]:
    """Yield what lies in a global heap for each value of variable length, and its elements.

    Raises:
        NotPlain, NeedsThread
    """
    wide = file.address_bytes
    step = 8 + wide
    if count > MAX_STRINGS or len(stored) < count * step:
        raise NotPlain
    heap: dict[int, bytes] = {}
    known = None
    for at in range(0, count * step, step):
        length = int.from_bytes(stored[at : at + 4], "little")
        address = file.address(stored, at + 4)
        index = int.from_bytes(stored[at + 4 + wide : at + step], "little")
        if address in {0, file.undefined}:
            if length:
                raise NotPlain
            yield b"", 0
            continue
        if address != known:
            heap, known = file.find_heap(address) or _read_global_heap(file, address), address
        value = heap.get(index)
        if value is None:
            raise NotPlain
        yield value, length


def _read_global_heap(file: FileBytes, address: int) -> dict[int, bytes]:
    """Return the objects of a collection by their index. Raises NotPlain, DamagedMetadata."""
    long = file.length_bytes
    head = file.read_page(address, 8 + long)
    size = file.length(head, 8)
    if not head.startswith(b"GCOL\x01") or not 8 + long <= size <= _MAX_GLOBAL_HEAP_BYTES:
        raise NotPlain
    body = file.read_page(address, size)
    objects: dict[int, bytes] = {}
    at, head_bytes = 8 + long, 8 + long
    while at + head_bytes <= size:
        index, _ = _OBJECT_HEAD.unpack_from(body, at)
        length = file.length(body, at + 8)
        if not index and at + length == size:  # the free space behind the last one, and its head
            break
        at += head_bytes
        if at + length > size or not index or index in objects:
            # libhdf5 (2.0) never ends where the next object would begin where this one does, which
            # may lie behind any that is wrong.
            message = f"an object of the heap at {address} has an impossible size or number"
            raise DamagedMetadata(message)
        objects[index] = body[at : at + length]
        at += (length + 7) & ~7
    if len(objects) > _MAX_OBJECTS:
        raise NotPlain
    file.keep_heap(address, objects, size)
    return objects
