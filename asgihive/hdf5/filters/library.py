"""Filters that libhdf5 undoes, one at a time, so that the size of what they give can be checked.

libhdf5 trusts that a pipeline yields a whole chunk, and offers no way to see what it yields.
So one filter at a time is run on a file in memory whose pipeline ends in a filter of our own,
which takes the bytes. That file is written with another number in the place of the filter's:
libhdf5 would otherwise change its values (`set_local`) to those of the dataset it writes to.

Everything here runs in the library lane, but for chunks in a form that no other decoder knows.
"""

import ctypes
import itertools
import struct
import threading
from typing import Any

import numpy as np
from h5py import h5d, h5f, h5p, h5s, h5t, h5z

from asgihive.hdf5.buffers import Bytes, zeroed_memory
from asgihive.hdf5.file_bytes import allow_waiting
from asgihive.hdf5.filters.contract import BadChunk, FilterDecoder, Room, Values, as_bytes

# Numbers 256 to 511 are for testing, and so in no file (H5Zpublic.h).
_CATCHER = 507
_PLACEHOLDER = 508

# zfp reads on behind the end of what is stored, as far as its numbers may reach: little more than
# they take decoded, but whole blocks of 4 along each dimension. It gets zeros there.
_ZFP = 32013
_ZFP_SLACK_BYTES = 1 << 16

_NUMBERS = itertools.count()

_CATCHER_CALL = ctypes.CFUNCTYPE(
    ctypes.c_size_t,  # of the result; 0 = failed
    ctypes.c_uint,
    ctypes.c_size_t,
    ctypes.POINTER(ctypes.c_uint),
    ctypes.c_size_t,  # of what comes
    ctypes.POINTER(ctypes.c_size_t),
    ctypes.POINTER(ctypes.c_void_p),
)


class _FilterClass(ctypes.Structure):
    """H5Z_class2_t (H5Zdevelop.h)."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("id", ctypes.c_int),
        ("encoder_present", ctypes.c_uint),
        ("decoder_present", ctypes.c_uint),
        ("name", ctypes.c_char_p),
        ("can_apply", ctypes.c_void_p),
        ("set_local", ctypes.c_void_p),
        ("filter", _CATCHER_CALL),
    )


class _Caught(threading.local):
    """What the catcher was given last in this thread: the size, and the bytes if wanted."""

    most: int = 0
    size: int | None = None
    content: bytes = b""


_caught = _Caught()


def _catch(*arguments: Any) -> int:
    size, buffer = arguments[3], arguments[5]
    _caught.size = size
    if size <= _caught.most:
        _caught.content = ctypes.string_at(buffer[0], size)
    # Failing ends the read: libhdf5 gets nothing that it could take for a whole chunk.
    return 0


# libhdf5 keeps pointers to both.
_CATCH = _CATCHER_CALL(_catch)
_CLASS = _FilterClass(1, _CATCHER, 1, 1, b"asgihive", None, None, _CATCH)


def run_filter(number: int, name: str, stored: Bytes, values: Values, room: Room) -> Bytes:
    """Return what libhdf5's filter `number` makes of `stored`.

    Raises:
        BadChunk: it fails, or makes more or less than `room`.
    """
    allow_waiting()
    if not stored.size:
        raise BadChunk(f"{name}: nothing is stored")
    if number == _ZFP:
        more = np.zeros(2 * room.most + _ZFP_SLACK_BYTES, np.uint8)
        stored = np.concatenate((stored, more))
    image = _make_image(number, stored, values)
    _caught.most, _caught.size, _caught.content = room.most, None, b""
    file = h5f.open_file_image(image)
    try:
        dataset = h5d.open(file, b"x")
        try:
            # Filters may succeed without writing all of what they give.
            first = dataset.get_space()
            first.select_hyperslab((0,), (1,))
            with zeroed_memory():
                dataset.read(h5s.create_simple((1,)), first, as_bytes(bytearray(1)), h5t.STD_U8LE)
        except (OSError, RuntimeError, ValueError):
            if _caught.size is None:
                raise BadChunk(f"{name} cannot decode it") from None
    finally:
        _close(file)
    size, content = _caught.size, _caught.content
    _caught.size, _caught.content = None, b""
    room.check(name, size or 0)
    return as_bytes(content)


def _make_image(number: int, stored: Bytes, values: Values) -> bytes:
    """Return a file with one chunk, `stored`, that went through filter `number` alone."""
    if not h5z.filter_avail(_CATCHER):
        h5z.register_filter(ctypes.addressof(_CLASS))
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fapl_core(1 << 16, False)
    # The oldest object headers, which have no checksums.
    access.set_libver_bounds(h5f.LIBVER_EARLIEST, h5f.LIBVER_LATEST)
    # Other threads may have one open, too: other services have library lanes of their own.
    name = b"asgihive chunk %d" % next(_NUMBERS)
    file = h5f.create(name, h5f.ACC_TRUNC, fapl=access)
    try:
        properties = h5p.create(h5p.DATASET_CREATE)
        # libhdf5 before 2.0 refuses stored chunks that are much larger than what they stand for.
        properties.set_chunk((stored.size,))
        properties.set_filter(_CATCHER, 0)
        properties.set_filter(_PLACEHOLDER, h5z.FLAG_OPTIONAL, values)
        space = h5s.create_simple((stored.size,))
        dataset = h5d.create(file, b"x", h5t.STD_U8LE, space, properties)
        # Before there is a chunk, whose bytes might be anything.
        h5f.flush(file)
        message = _PLACEHOLDER.to_bytes(2, "little") + b"\0\0" + b"\1\0"
        message += len(values).to_bytes(2, "little")
        place = file.get_file_image().index(message)
        dataset.write_direct_chunk((0,), stored)
        h5f.flush(file)
        image = bytearray(file.get_file_image())
    finally:
        _close(file)
    # Filter pipeline message, version 1: number, length of the name, flags, number of values.
    image[place : place + 6] = number.to_bytes(2, "little") + bytes(4)
    return bytes(image)


def _close(file: h5f.FileID) -> None:
    """Close a file with all that is open in it, which an exception may hold."""
    # As h5py.File.close does, which has no other way either.
    file._close_open_objects(h5f.OBJ_LOCAL | ~h5f.OBJ_FILE)  # noqa: SLF001
    file.close()


def check_scale_offset(stored: Bytes, values: Values, room: Room) -> None:
    """Check filter 6: the header, then `minbits` for each element (H5Zscaleoffset.c).

    libhdf5 reads as many bits as that is, whatever is stored. Values 2 and 4 are the number of
    elements and their size.
    """
    if len(values) < 5 or stored.size < _SCALE_OFFSET_HEADER:
        raise BadChunk(f"scaleoffset: {len(values)} values, and {stored.size} bytes are stored")
    count, item = values[2], values[4]
    room.check("scaleoffset", count * item)
    (bits,) = struct.unpack("<I", stored[:4].tobytes())
    if bits > item * 8:
        raise BadChunk(f"scaleoffset: {bits} bits are announced for items of {item} bytes")
    needed = _SCALE_OFFSET_HEADER + -(-count * bits // 8)
    if stored.size < needed:
        raise BadChunk(f"scaleoffset: {stored.size} bytes are stored, {needed} are needed")


# The bits, the length of the minimum, sixteen bytes for it (H5Zscaleoffset.c, buf_offset).
_SCALE_OFFSET_HEADER = 21


def check_nbit(stored: Bytes, values: Values, room: Room) -> None:
    """Check filter 5: as many bits as the type has, for each element (H5Znbit.c)."""
    if len(values) < 5 or values[0] != len(values):
        raise BadChunk(f"nbit: it has {len(values)} values, and does not say so")
    _, uncompressed, count = values[:3]
    if uncompressed:
        room.check("nbit", stored.size)
        return
    room.check("nbit", count * values[4])
    bits, _ = _count_nbit_bits(values, 3, values[4], 0)
    needed = -(-count * bits // 8)
    if stored.size < needed:
        raise BadChunk(f"nbit: {stored.size} bytes are stored, {needed} are needed")


_NBIT_ATOMIC, _NBIT_ARRAY, _NBIT_COMPOUND, _NBIT_AS_IT_IS = 1, 2, 3, 4
_NBIT_NESTING = 32


def _count_nbit_bits(values: Values, at: int, room: int, depth: int) -> tuple[int, int]:
    """Return the bits of the type described from `at` on, and where its description ends.

    Its parts must fit into `room` bytes: libhdf5 writes them where the values say.
    """
    kind, size = (*values[at : at + 2], 0, 0)[:2]
    rest = values[at + 2 :]
    if not 0 < size <= room or depth > _NBIT_NESTING:
        raise BadChunk(f"nbit: its values describe {size} bytes where there are {room}")
    if kind == _NBIT_AS_IT_IS:
        return size * 8, at + 2
    if kind == _NBIT_ATOMIC and len(rest) >= 3:
        _, precision, offset = rest[:3]
        if precision and precision + offset <= size * 8:
            return precision, at + 5
    if kind == _NBIT_ARRAY and len(rest) >= 2:
        bits, end = _count_nbit_bits(values, at + 2, size, depth + 1)
        return size // rest[1] * bits, end
    if kind == _NBIT_COMPOUND and rest:
        total, end = 0, at + 3
        for _ in range(rest[0]):
            offset = values[end] if end < len(values) else size
            bits, end = _count_nbit_bits(values, end + 1, size - offset, depth + 1)
            total += bits
        return total, end
    raise BadChunk("nbit: its values describe no type")


FILTERS = (FilterDecoder(5, check=check_nbit), FilterDecoder(6, check=check_scale_offset))
