"""Strings of variable length, read from the file's global heaps (section III.E)."""

import struct
from typing import Any

import numpy as np

from asgihive.hdf5.file_bytes import FileBytes, NotPlain

MAX_STRINGS = 1 << 10
"""Strings that are read here; libhdf5 reads more of them in less time."""

_MAX_HEAP_BYTES = 1 << 19
_MAX_OBJECTS = 1 << 12

_OBJECT_HEAD = struct.Struct("<HHxxxx")


def read_strings(file: FileBytes, stored: bytes, count: int) -> np.ndarray[Any, np.dtype[Any]]:
    """Return `count` strings, as bytes, of which `stored` has the length and place of each.

    They end at their first NUL, as libhdf5 has it, and are empty where none was written.

    Returns:
        A one-dimensional array of objects.

    Raises:
        NotPlain: libhdf5 must look.
        NeedsThread
    """
    wide = file.address_bytes
    step = 8 + wide
    if count > MAX_STRINGS or len(stored) < count * step:
        raise NotPlain
    strings = np.empty(count, object)
    heaps: dict[int, dict[int, bytes]] = {}
    for number in range(count):
        at = number * step
        length = int.from_bytes(stored[at : at + 4], "little")
        address = file.address(stored, at + 4)
        index = int.from_bytes(stored[at + 4 + wide : at + step], "little")
        if address in {0, file.undefined}:
            if length:
                raise NotPlain
            strings[number] = b""
            continue
        heap = heaps.get(address)
        if heap is None:
            heap = heaps[address] = _read_heap(file, address)
        value = heap.get(index)
        if value is None or len(value) < length:
            raise NotPlain
        strings[number] = value[:length].partition(b"\0")[0]
    return strings


def _read_heap(file: FileBytes, address: int) -> dict[int, bytes]:
    """Return the objects of a collection by their index."""
    long = file.length_bytes
    head = file.read_page(address, 8 + long)
    size = file.length(head, 8)
    if not head.startswith(b"GCOL\x01") or not 8 + long <= size <= _MAX_HEAP_BYTES:
        raise NotPlain
    body = file.read_page(address, size)
    objects: dict[int, bytes] = {}
    at, head_bytes = 8 + long, 8 + long
    while at + head_bytes <= size:
        index, _ = _OBJECT_HEAD.unpack_from(body, at)
        length = file.length(body, at + 8)
        if not index:  # the free space behind the last one
            break
        at += head_bytes
        if at + length > size or index in objects or len(objects) >= _MAX_OBJECTS:
            raise NotPlain
        objects[index] = body[at : at + length]
        at += (length + 7) & ~7
    return objects
