"""Looks over structures of a file that libhdf5 would walk for minutes, or without an end.

libhdf5 (2.0) takes in a whole object header when it opens the object, and holds Python's lock
meanwhile: a header of a MiB whose continuations overlap each other is billions of messages, and
stops every thread of the process for minutes. It lists a group by recursion: a B-tree that is a
child of itself ends the process. So their bytes are looked over first. What is found here is said
as damage; whatever else is malformed is left to libhdf5, which refuses it at once (HDF5 File
Format Specification 3.0, sections II.A, III.A and IV.A).
"""

import contextlib
import struct
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from asgihive.hdf5.file_bytes import FileBytes, NotPlain, read_bytes, signature_offset
from asgihive.hdf5.headers import (
    ATTRIBUTE,
    ATTRIBUTE_INFO,
    CONTINUATION,
    DATATYPE,
    LINK_INFO,
    MAX_MESSAGES,
    SHARED,
    SYMBOL_TABLE,
    V1_MESSAGE,
    V1_PREFIX,
    V2_MESSAGE,
)
from asgihive.hdf5.open_file import OpenFile
from asgihive.hdf5.remote import Descriptor, identify

MAX_TREE_DEPTH = 32
"""Levels of a version 2 B-tree; 10^12 links take some ten."""

MAX_SHARED = 1 << 10
"""Headers that are looked over for one object, beside its own: those of shared datatypes."""

# Objects of one file that are known to be good; of more, all are looked over again.
_MAX_KNOWN = 1 << 16

# While a writer is writing, what is read may be half of the old and half of the new.
_LIVE_ATTEMPTS = 20
_LIVE_PAUSE_SECONDS = 50e-6

_TREE_1_NODE = struct.Struct("<4sBBH")
_TREE_2_DEPTH = slice(12, 14)


class EndlessStructure(RuntimeError):  # as libhdf5's own refusals
    """What libhdf5 would walk for too long; the message says what it is."""


# What is wrong with a structure is said by libhdf5, unless it is endless.
_left_to_libhdf5 = contextlib.suppress(NotPlain, struct.error, IndexError, OSError)


def check_object(file: OpenFile, address: int) -> None:
    """Return when libhdf5 may open the object at `address`.

    Raises:
        EndlessStructure
    """
    checked = file.handle.checked
    if address in checked:
        return
    _check(file, partial(_check_headers, address=address))
    if not file.live:
        if len(checked) >= _MAX_KNOWN:
            checked.clear()
        checked.add(address)


def check_links(file: OpenFile, address: int) -> None:
    """Return when libhdf5 may list or count the links of the group at `address`.

    Raises:
        EndlessStructure
    """

    def check(stored: FileBytes) -> None:
        for tree in _scanned(stored, address).link_trees:
            with _left_to_libhdf5:
                _check_tree_1(stored, tree)

    _check(file, check)


def check_before_opening(descriptor: Descriptor, size: int) -> None:
    """Return when libhdf5 may open a file of `size` bytes: it takes in some headers of it.

    Raises:
        EndlessStructure
    """
    with _left_to_libhdf5:
        base = signature_offset(descriptor, size)
        if base is not None:
            for stored, address in _first_headers(descriptor, base):
                _check_headers(stored, address)


def _check(file: OpenFile, check: Callable[[FileBytes], None]) -> None:
    stored = file.metadata or _bytes_of(file.descriptor, file.base, *file.handle.sizes, file.live)
    left = _LIVE_ATTEMPTS if file.live else 1
    while True:
        left -= 1
        try:
            check(stored)
        except EndlessStructure:
            if not left:
                raise
            time.sleep(_LIVE_PAUSE_SECONDS)
        else:
            return
        finally:
            stored.drop_pages()


def _bytes_of(descriptor: Descriptor, base: int, wide: int, long: int, is_live: bool) -> FileBytes:
    """Return the bytes of a file whose superblock is not plain."""
    return FileBytes(
        descriptor=descriptor,
        base=base,
        end=identify(descriptor).size,
        is_live=is_live,
        address_bytes=wide,
        length_bytes=long,
        undefined=(1 << 8 * wide) - 1,
        root=0,
    )


def _find_address(file: FileBytes, stored: bytes, at: int) -> int | None:
    """Return the address that is stored at a position; None = nowhere. Raises NotPlain."""
    if len(stored) < at + file.address_bytes:
        raise NotPlain
    address = file.address(stored, at)
    return None if address == file.undefined else address


@dataclass(slots=True)
class _HeaderSummary:
    """What one object header leads to, by address.

    blocks: from which address to before which one its messages are; `in_order` by address.
    link_trees: version 1 B-trees of a group.
    indexes: version 2 B-trees of links or attributes.
    types: headers of shared datatypes.
    """

    count: int = 0
    blocks: list[tuple[int, int]] = field(default_factory=list)
    in_order: list[tuple[int, int]] = field(default_factory=list)
    link_trees: list[int] = field(default_factory=list)
    indexes: list[int] = field(default_factory=list)
    types: list[int] = field(default_factory=list)

    def add_block(self, first: int, end: int) -> None:
        at = bisect_left(self.in_order, (first, end))
        for _, before in self.in_order[max(0, at - 1) : at]:
            if first < before:
                raise EndlessStructure("blocks of its header overlap")
        for after, _ in self.in_order[at : at + 1]:
            if after < end:
                raise EndlessStructure("blocks of its header overlap")
        self.in_order.insert(at, (first, end))
        self.blocks.append((first, end))


def _check_headers(stored: FileBytes, address: int) -> None:
    """Look over a header, its version 2 B-trees, and the headers of shared datatypes."""
    pending, seen = [address], {address}
    while pending:
        header = _scanned(stored, pending.pop())
        for index in header.indexes:
            with _left_to_libhdf5:
                _check_tree_2(stored, index)
        for each in header.types:
            if each not in seen:
                seen.add(each)
                pending.append(each)
        if len(seen) > MAX_SHARED:
            raise EndlessStructure(f"it shares more than {MAX_SHARED} datatypes")


def _scanned(stored: FileBytes, address: int) -> _HeaderSummary:
    """Return what can be known of the header at `address`."""
    header = _HeaderSummary()
    with _left_to_libhdf5:
        start = stored.read_page(address, V1_PREFIX.size)
        if start.startswith(b"OHDR"):
            flags = start[5]
            width = 1 << (flags & 0x03)
            prefix = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0) + width
            size = int.from_bytes(stored.read_page(address, prefix)[-width:], "little")
            header.add_block(address + prefix, address + prefix + size)
            # With creation order or without; a signature and a checksum around further blocks.
            _scan(stored, header, V2_MESSAGE, 6 if flags & 0x04 else 4, (4, 4))
        elif start[0] == 1:
            first = address + V1_PREFIX.size
            header.add_block(first, first + V1_PREFIX.unpack(start)[3])
            _scan(stored, header, V1_MESSAGE, V1_MESSAGE.size, (0, 0))
    return header


def _scan(
    stored: FileBytes,
    header: _HeaderSummary,
    message: struct.Struct,
    head: int,
    around: tuple[int, int],
) -> None:
    """Note where the messages lead to, block after block."""
    # The list grows while it is walked: blocks continue each other.
    for position, end in header.blocks:
        while position + head <= end:
            kind, size, flags = message.unpack_from(stored.read_page(position, head))
            position += head  # noqa: PLW2901  # from message to message
            header.count += 1
            if header.count > MAX_MESSAGES:
                raise EndlessStructure(f"its header has more than {MAX_MESSAGES} messages")
            if position + size > end:
                break
            if kind == CONTINUATION:
                body = stored.read_page(position, stored.address_bytes + stored.length_bytes)
                place = _find_address(stored, body, 0)
                length = int.from_bytes(body[stored.address_bytes :], "little")
                if place is not None and length > sum(around):
                    header.add_block(place + around[0], place + length - around[1])
            elif kind in _NOTES:
                with contextlib.suppress(NotPlain, IndexError):
                    _NOTES[kind](stored, header, position, size, flags)
            position += size  # noqa: PLW2901


def _note_table(stored: FileBytes, header: _HeaderSummary, at: int, size: int, flags: int) -> None:
    """Section IV.A.2.r: the B-tree of the links, and their heap."""
    tree = _find_address(stored, stored.read_page(at, min(size, stored.address_bytes)), 0)
    if tree is not None and not flags & SHARED:
        header.link_trees.append(tree)


def _note_indexes(  # noqa: PLR0913  # called as the others, and says of which kind they are
    stored: FileBytes, header: _HeaderSummary, at: int, size: int, flags: int, *, order_bytes: int
) -> None:
    """Sections IV.A.2.c and v: a fractal heap, then a B-tree by name, perhaps one by creation."""
    if flags & SHARED:
        return
    body = stored.read_page(at, size)
    first = 2 + (order_bytes if body[1] & 0x01 else 0) + stored.address_bytes
    for position in range(first, size - stored.address_bytes + 1, stored.address_bytes):
        index = _find_address(stored, body, position)
        if index is not None:
            header.indexes.append(index)


def _note_type(stored: FileBytes, header: _HeaderSummary, at: int, size: int, flags: int) -> None:
    """Section IV.A.2, "Shared message": of a dataset of a named datatype, where that is."""
    if flags & SHARED:
        body = stored.read_page(at, min(size, 8 + stored.address_bytes))
        # Of version 3, type 1 is in a heap of its own.
        if body[0] < 3 or body[1] == 2:
            place = _find_address(stored, body, 8 if body[0] == 1 else 2)
            if place is not None:
                header.types.append(place)


def _note_attribute(
    stored: FileBytes, header: _HeaderSummary, at: int, size: int, flags: int
) -> None:
    """Section IV.A.2.m: of an attribute of a named datatype, where that is."""
    if flags & SHARED:
        return
    body = stored.read_page(at, min(size, 9))
    # The flags of the later versions say that the datatype is shared.
    if body[0] in {2, 3} and body[1] & 0x01:
        start = (9 if body[0] == 3 else 8) + int.from_bytes(body[2:4], "little")
        _note_type(stored, header, at + start, max(0, size - start), SHARED)


_NOTES: dict[int, Callable[[FileBytes, _HeaderSummary, int, int, int], None]] = {
    SYMBOL_TABLE: _note_table,
    LINK_INFO: partial(_note_indexes, order_bytes=8),
    ATTRIBUTE_INFO: partial(_note_indexes, order_bytes=2),
    DATATYPE: _note_type,
    ATTRIBUTE: _note_attribute,
}


def _check_tree_1(stored: FileBytes, root: int) -> None:
    """Section III.A.1: no node twice, and each a level below the one before it."""
    seen, pending = {root}, [(root, -1)]
    start = _TREE_1_NODE.size + 2 * stored.address_bytes
    while pending:
        address, expected = pending.pop()
        signature, kind, level, used = _TREE_1_NODE.unpack(
            stored.read_page(address, _TREE_1_NODE.size)
        )
        if signature != b"TREE" or kind:
            continue
        if expected not in {-1, level}:
            raise EndlessStructure("the levels of its B-tree do not descend")
        step = stored.length_bytes + stored.address_bytes
        body = stored.read_page(address + start, used * step)
        for position in range(stored.length_bytes, used * step, step):
            child = int.from_bytes(body[position : position + stored.address_bytes], "little")
            if child in seen:
                raise EndlessStructure("nodes of its B-tree are in it twice")
            seen.add(child)
            if level:
                pending.append((child, level - 1))


def _check_tree_2(stored: FileBytes, header: int) -> None:
    """Section III.A.2: libhdf5 goes down as far as the header says, by recursion."""
    body = stored.read_page(header, _TREE_2_DEPTH.stop)
    depth = int.from_bytes(body[_TREE_2_DEPTH], "little")
    if body.startswith(b"BTHD") and depth > MAX_TREE_DEPTH:
        raise EndlessStructure(f"a B-tree of it has more than {MAX_TREE_DEPTH} levels")


def _first_headers(descriptor: Descriptor, base: int) -> Iterator[tuple[FileBytes, int]]:
    """Section II.A: what the superblock leads to, the root group and its own extension."""
    head = read_bytes(descriptor, 16, base)
    version = head[8]
    wide, long = head[13:15] if version < 2 else head[9:11]
    stored = _bytes_of(descriptor, base, wide, long, is_live=False)
    # Of the older versions, a symbol table entry comes behind four addresses, its name first.
    places = [24 + 4 * version + 5 * wide] if version < 2 else [12 + wide, 12 + 3 * wide]
    for place in places:
        address = _find_address(stored, stored.read_page(place, wide), 0)
        if address is not None:
            yield stored, address
