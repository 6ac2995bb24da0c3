"""Checksums of HDF5's metadata, so that what was damaged on purpose is still looked at.

Version 1 structures have none. All others end with Jenkins' lookup3 of what comes before
(HDF5 File Format Specification, "Disk Format"); libhdf5 goes no further where it is wrong.
"""

import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_MASK = 0xFFFFFFFF
_SUPERBLOCK = b"\x89HDF\r\n\x1a\n"
_SUPERBLOCK_BYTES = 44  # of versions 2 and 3, with offsets of 8 bytes

_WITHOUT = (b"TREE", b"SNOD", b"HEAP", b"GCOL")
_WITH = (
    *(b"OHDR", b"OCHK", b"FRHP", b"FHDB", b"FHIB", b"BTHD", b"BTIN", b"BTLF", b"FSHD", b"FSSE"),
    *(b"SMTB", b"SMLI", b"FAHD", b"FADB", b"EAHD", b"EAIB", b"EASB", b"EADB"),
)
SIGNATURE = re.compile(b"|".join((*_WITHOUT, *_WITH)))

# Where the lengths of structures are not worth knowing, they are tried, up to here.
_LONGEST_TRIED = 400
_MOST_TRIED = 40


@dataclass(frozen=True, slots=True)
class Structure:
    """`length` bytes from `start` on, with their checksum behind them."""

    start: int
    length: int

    @property
    def stop(self) -> int:
        return self.start + self.length

    def differs(self, one: bytes | bytearray, other: bytes) -> bool:
        """Whether its bytes are not the same in both."""
        return one[self.start : self.stop] != other[self.start : self.stop]


def lookup3(data: bytes | bytearray) -> int:
    """`hashlittle` of Bob Jenkins' lookup3.c with the initial value 0, as HDF5 uses it."""
    length = len(data)
    a = b = c = (0xDEADBEEF + length) & _MASK
    padded = bytes(data) + bytes(-length % 12)
    words = struct.unpack(f"<{len(padded) // 4}I", padded)
    # The last twelve bytes, or fewer, are mixed differently.
    last = max(0, len(words) - 3)
    for at in range(0, last, 3):
        a, b, c = _mixed(
            (a + words[at]) & _MASK, (b + words[at + 1]) & _MASK, (c + words[at + 2]) & _MASK
        )
    if not length:
        return c
    a, b, c = (
        (a + words[last]) & _MASK,
        (b + words[last + 1]) & _MASK,
        (c + words[last + 2]) & _MASK,
    )
    return _final(a, b, c)


def checked(content: bytes) -> list[Structure]:
    """The structures of a sound file whose checksums were found."""
    return list(_checked(content))


def repair(content: bytearray, structures: Iterable[Structure]) -> None:
    """Make the checksums of what is still there right again."""
    for each in structures:
        if each.stop + 4 <= len(content):
            content[each.stop : each.stop + 4] = _packed(content[each.start : each.stop])


def _checked(content: bytes) -> Iterator[Structure]:
    at = content.find(_SUPERBLOCK)
    if at >= 0:
        yield from _right(content, at, [_SUPERBLOCK_BYTES])
    tried = 0
    for found in SIGNATURE.finditer(content):
        at = found.start()
        if found[0] == b"OHDR":
            yield from _right(content, at, [_header_length(content, at)])
        elif found[0] in _WITH and tried < _MOST_TRIED:
            tried += 1
            yield from _right(content, at, range(8, _LONGEST_TRIED))


def _right(content: bytes, start: int, lengths: Iterable[int]) -> Iterator[Structure]:
    for length in lengths:
        stop = start + length
        if content[stop : stop + 4] == _packed(content[start:stop]):
            yield Structure(start, length)
            return


def _header_length(content: bytes, at: int) -> int:
    """Of an object header of version 2 (section IV.A.1.b), up to its checksum."""
    flags = content[at + 5]
    width = 1 << (flags & 3)
    size_at = 6 + 16 * bool(flags & 0x20) + 4 * bool(flags & 0x10)
    size = int.from_bytes(content[at + size_at : at + size_at + width], "little")
    return size_at + width + size


def _packed(data: bytes | bytearray) -> bytes:
    return struct.pack("<I", lookup3(data))


def _rotated(value: int, by: int) -> int:
    return ((value << by) | (value >> (32 - by))) & _MASK


def _mixed(a: int, b: int, c: int) -> tuple[int, int, int]:
    for by in (4, 6, 8, 16, 19, 4):
        a = ((a - c) & _MASK) ^ _rotated(c, by)
        c = (c + b) & _MASK
        a, b, c = b, c, a  # the next step is of the next three
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    for by in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - _rotated(b, by)) & _MASK
        a, b, c = b, c, a
    return b
