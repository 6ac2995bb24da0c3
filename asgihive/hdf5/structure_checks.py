"""Looks over structures of a file that libhdf5 would walk for minutes, or without an end.

libhdf5 (2.0) takes in a whole object header when it opens the object, and holds Python's lock
meanwhile: a header of a MiB whose continuations overlap each other is billions of messages, and
stops every thread of the process for minutes. It lists a group by recursion: a B-tree that is a
child of itself ends the process. So their bytes are looked over first. What is found here is said
as damage; whatever else is malformed is left to libhdf5, which refuses it at once (HDF5 File
Format Specification 3.0, sections II.A, III.A and IV.A).
"""

import contextlib
import os
import struct
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from asgihive.hdf5.file_bytes import signature_offset
from asgihive.hdf5.headers import MAX_MESSAGES
from asgihive.hdf5.open_file import OpenFile

MAX_TREE_DEPTH = 32
"""Levels of a version 2 B-tree; 10^12 links take some ten."""

MAX_SHARED = 1 << 10
"""Headers that are looked over for one object, beside its own: those of shared datatypes."""

# Objects of one file that are known to be good; of more, all are looked over again.
_MAX_KNOWN = 1 << 16

# While a writer is writing, what is read may be half of the old and half of the new.
_LIVE_ATTEMPTS = 20
_LIVE_PAUSE_SECONDS = 50e-6

_WINDOW_BYTES = 1 << 12
_MAX_READ_BYTES = 1 << 21

_V1_PREFIX = struct.Struct("<BxHIIxxxx")
_V1_MESSAGE = struct.Struct("<HHBxxx")
_V2_MESSAGE = struct.Struct("<BHB")
_TREE_1_NODE = struct.Struct("<4sBBH")
_TREE_2_DEPTH = slice(12, 14)

# Message types, section IV.A.2.
_LINK_INFO, _DATATYPE, _ATTRIBUTE, _CONTINUATION = 0x02, 0x03, 0x0C, 0x10
_SYMBOL_TABLE, _ATTRIBUTE_INFO = 0x11, 0x15
_SHARED = 0x02


class EndlessStructure(RuntimeError):  # as libhdf5's own refusals
    """What libhdf5 would walk for too long; the message says what it is."""


class _Unknown(Exception):  # libhdf5 is to say so
    """The file ends before, or something else is there."""


# What is wrong with a structure is said by libhdf5, unless it is endless.
_left_to_libhdf5 = contextlib.suppress(_Unknown, struct.error, IndexError, OSError)


def check_object(file: OpenFile, address: int) -> None:
    """Return when libhdf5 may open the object at `address`.

    Raises:
        EndlessStructure
    """
    checked = file.handle.checked
    if address in checked:
        return
    _check(file, lambda stored: _check_headers(stored, address))
    if not file.live:
        if len(checked) >= _MAX_KNOWN:
            checked.clear()
        checked.add(address)


def check_links(file: OpenFile, address: int) -> None:
    """Return when libhdf5 may list or count the links of the group at `address`.

    Raises:
        EndlessStructure
    """

    def check(stored: _Bytes) -> None:
        for tree in _scanned(stored, address).link_trees:
            with _left_to_libhdf5:
                _check_tree_1(stored, tree)

    _check(file, check)


def check_before_opening(descriptor: int, size: int) -> None:
    """Return when libhdf5 may open a file of `size` bytes: it takes in some headers of it.

    Raises:
        EndlessStructure
    """
    with _left_to_libhdf5:
        base = signature_offset(descriptor, size)
        if base is not None:
            for stored, address in _first_headers(descriptor, base):
                _check_headers(stored, address)


def _check(file: OpenFile, check: "Callable[[_Bytes], None]") -> None:
    for attempt in range(_LIVE_ATTEMPTS if file.live else 1):
        if attempt:
            time.sleep(_LIVE_PAUSE_SECONDS)
        try:
            check(_Bytes.of(file))
        except EndlessStructure as error:
            endless = error
        else:
            return
    raise endless


@dataclass(slots=True)
class _Bytes:
    """The bytes of a file; the last ones that were read are kept.

    wide, long: bytes of an address and of a length.
    """

    descriptor: int
    base: int
    wide: int
    long: int
    _start: int = 0
    _window: bytes = b""

    @classmethod
    def of(cls, file: OpenFile) -> "_Bytes":
        return cls(file.descriptor, file.base, *file.handle.sizes)

    def read(self, address: int, size: int) -> bytes:
        """Return `size` bytes at `address`. Raises _Unknown."""
        at = address - self._start
        if at < 0 or at + size > len(self._window):
            if size > _MAX_READ_BYTES or address >= 1 << 62:
                raise _Unknown
            self._start, at = address, 0
            wanted = max(size, _WINDOW_BYTES)
            self._window = os.pread(self.descriptor, wanted, self.base + address)
            if len(self._window) < size:
                raise _Unknown
        return self._window[at : at + size]

    def address(self, stored: bytes, at: int) -> int | None:
        """Return the address that is stored at a position; None = nowhere. Raises _Unknown."""
        found = stored[at : at + self.wide]
        if len(found) < self.wide:
            raise _Unknown
        return None if found == b"\xff" * self.wide else int.from_bytes(found, "little")


@dataclass(slots=True)
class _Header:
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


def _check_headers(stored: _Bytes, address: int) -> None:
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


def _scanned(stored: _Bytes, address: int) -> _Header:
    """Return what can be known of the header at `address`."""
    header = _Header()
    with _left_to_libhdf5:
        start = stored.read(address, _V1_PREFIX.size)
        if start.startswith(b"OHDR"):
            flags = start[5]
            width = 1 << (flags & 0x03)
            prefix = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0) + width
            size = int.from_bytes(stored.read(address, prefix)[-width:], "little")
            header.add_block(address + prefix, address + prefix + size)
            # With creation order or without; a signature and a checksum around further blocks.
            _scan(stored, header, _V2_MESSAGE, 6 if flags & 0x04 else 4, (4, 4))
        elif start[0] == 1:
            first = address + _V1_PREFIX.size
            header.add_block(first, first + _V1_PREFIX.unpack(start)[3])
            _scan(stored, header, _V1_MESSAGE, _V1_MESSAGE.size, (0, 0))
    return header


def _scan(
    stored: _Bytes, header: _Header, message: struct.Struct, head: int, around: tuple[int, int]
) -> None:
    """Note where the messages lead to, block after block."""
    # The list grows while it is walked: blocks continue each other.
    for position, end in header.blocks:
        while position + head <= end:
            kind, size, flags = message.unpack_from(stored.read(position, head))
            position += head  # noqa: PLW2901  # from message to message
            header.count += 1
            if header.count > MAX_MESSAGES:
                raise EndlessStructure(f"its header has more than {MAX_MESSAGES} messages")
            if position + size > end:
                break
            if kind == _CONTINUATION:
                body = stored.read(position, stored.wide + stored.long)
                place = stored.address(body, 0)
                length = int.from_bytes(body[stored.wide :], "little")
                if place is not None and length > sum(around):
                    header.add_block(place + around[0], place + length - around[1])
            elif kind in _NOTES:
                with contextlib.suppress(_Unknown, IndexError):
                    _NOTES[kind](stored, header, position, size, flags)
            position += size  # noqa: PLW2901


def _note_table(stored: _Bytes, header: _Header, at: int, size: int, flags: int) -> None:
    """Section IV.A.2.r: the B-tree of the links, and their heap."""
    tree = stored.address(stored.read(at, min(size, stored.wide)), 0)
    if tree is not None and not flags & _SHARED:
        header.link_trees.append(tree)


def _note_links(stored: _Bytes, header: _Header, at: int, size: int, flags: int) -> None:
    """Section IV.A.2.c, see `_note_indexes`."""
    _note_indexes(stored, header, at, size, 0 if flags & _SHARED else 8)


def _note_attributes(stored: _Bytes, header: _Header, at: int, size: int, flags: int) -> None:
    """Section IV.A.2.v, see `_note_indexes`."""
    _note_indexes(stored, header, at, size, 0 if flags & _SHARED else 2)


def _note_indexes(stored: _Bytes, header: _Header, at: int, size: int, order_bytes: int) -> None:
    """Note a fractal heap, then a B-tree by name, then perhaps one by creation order."""
    if not order_bytes:
        return
    body = stored.read(at, size)
    first = 2 + (order_bytes if body[1] & 0x01 else 0) + stored.wide
    for position in range(first, size - stored.wide + 1, stored.wide):
        index = stored.address(body, position)
        if index is not None:
            header.indexes.append(index)


def _note_type(stored: _Bytes, header: _Header, at: int, size: int, flags: int) -> None:
    """Section IV.A.2, "Shared message": of a dataset of a named datatype, where that is."""
    if flags & _SHARED:
        body = stored.read(at, min(size, 8 + stored.wide))
        # Of version 3, type 1 is in a heap of its own.
        if body[0] < 3 or body[1] == 2:
            place = stored.address(body, 8 if body[0] == 1 else 2)
            if place is not None:
                header.types.append(place)


def _note_attribute(stored: _Bytes, header: _Header, at: int, size: int, flags: int) -> None:
    """Section IV.A.2.m: of an attribute of a named datatype, where that is."""
    if flags & _SHARED:
        return
    body = stored.read(at, min(size, 9))
    # The flags of the later versions say that the datatype is shared.
    if body[0] in {2, 3} and body[1] & 0x01:
        start = (9 if body[0] == 3 else 8) + int.from_bytes(body[2:4], "little")
        _note_type(stored, header, at + start, max(0, size - start), _SHARED)


_NOTES: dict[int, Callable[[_Bytes, _Header, int, int, int], None]] = {
    _SYMBOL_TABLE: _note_table,
    _LINK_INFO: _note_links,
    _ATTRIBUTE_INFO: _note_attributes,
    _DATATYPE: _note_type,
    _ATTRIBUTE: _note_attribute,
}


def _check_tree_1(stored: _Bytes, root: int) -> None:
    """Section III.A.1: no node twice, and each a level below the one before it."""
    seen, pending = {root}, [(root, -1)]
    start = _TREE_1_NODE.size + 2 * stored.wide
    while pending:
        address, expected = pending.pop()
        signature, kind, level, used = _TREE_1_NODE.unpack(stored.read(address, _TREE_1_NODE.size))
        if signature != b"TREE" or kind:
            continue
        if expected not in {-1, level}:
            raise EndlessStructure("the levels of its B-tree do not descend")
        step = stored.long + stored.wide
        body = stored.read(address + start, used * step)
        for position in range(stored.long, used * step, step):
            child = int.from_bytes(body[position : position + stored.wide], "little")
            if child in seen:
                raise EndlessStructure("nodes of its B-tree are in it twice")
            seen.add(child)
            if level:
                pending.append((child, level - 1))


def _check_tree_2(stored: _Bytes, header: int) -> None:
    """Section III.A.2: libhdf5 goes down as far as the header says, by recursion."""
    body = stored.read(header, _TREE_2_DEPTH.stop)
    depth = int.from_bytes(body[_TREE_2_DEPTH], "little")
    if body.startswith(b"BTHD") and depth > MAX_TREE_DEPTH:
        raise EndlessStructure(f"a B-tree of it has more than {MAX_TREE_DEPTH} levels")


def _first_headers(descriptor: int, base: int) -> Iterator[tuple[_Bytes, int]]:
    """Section II.A: what the superblock leads to, the root group and its own extension."""
    head = os.pread(descriptor, 16, base)
    version = head[8]
    wide, long = head[13:15] if version < 2 else head[9:11]
    stored = _Bytes(descriptor, base, wide, long)
    # Of the older versions, a symbol table entry comes behind four addresses, its name first.
    places = [24 + 4 * version + 5 * wide] if version < 2 else [12 + wide, 12 + 3 * wide]
    for place in places:
        address = stored.address(stored.read(place, wide), 0)
        if address is not None:
            yield stored, address
