"""Filters that only libhdf5 can undo here, so that what they give can be looked at.

libhdf5 trusts that a pipeline yields a whole chunk, and offers no way to see what it yields.
So one filter at a time is run on a file in memory whose pipeline ends in a filter of our own,
which takes the bytes. That file is written with another number in the place of the filter's:
libhdf5 would otherwise change its values (`set_local`) to those of the dataset it writes to.

Everything here runs in the library lane, but for chunks in a form that no other decoder knows.
"""

import ctypes
import itertools
import threading
from typing import Any

import numpy as np
from h5py import h5d, h5f, h5p, h5s, h5t, h5z

from asgihive.hdf5.buffers import zeroed_memory
from asgihive.hdf5.decoders import BadChunk, Bytes, Room, as_bytes

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


def run_filter(number: int, name: str, stored: Bytes, values: tuple[int, ...], room: Room) -> Bytes:
    """What libhdf5's filter `number` makes of `stored`.

    Raises:
        BadChunk: it fails, or makes more or less than `room`.
    """
    if not stored.size:
        raise BadChunk(f"{name}: nothing is stored")
    if number == _ZFP:
        more = np.zeros(2 * room.most + _ZFP_SLACK_BYTES, np.uint8)
        stored = np.concatenate((stored, more))
    image = _image(number, stored, values)
    _caught.most, _caught.size, _caught.content = room.most, None, b""
    file = h5f.open_file_image(image)
    try:
        dataset = h5d.open(file, b"x")
        try:
            # Filters may succeed without writing all of what they give.
            with zeroed_memory():
                dataset.read(h5s.ALL, h5s.ALL, as_bytes(bytearray(1)), h5t.STD_U8LE)
        except (OSError, RuntimeError, ValueError):
            if _caught.size is None:
                raise BadChunk(f"{name} cannot decode it") from None
    finally:
        _close(file)
    size, content = _caught.size, _caught.content
    _caught.size, _caught.content = None, b""
    room.check(name, size or 0)
    return as_bytes(content)


def _image(number: int, stored: Bytes, values: tuple[int, ...]) -> bytes:
    """A file with one chunk, `stored`, that went through filter `number` alone."""
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
        properties.set_chunk((1,))
        properties.set_filter(_CATCHER, 0)
        properties.set_filter(_PLACEHOLDER, h5z.FLAG_OPTIONAL, values)
        space = h5s.create_simple((1,))
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
    """With all that is open in it, which an exception may hold; it would keep the file open."""
    # As h5py.File.close does, which has no other way either.
    file._close_open_objects(h5f.OBJ_LOCAL | ~h5f.OBJ_FILE)  # noqa: SLF001
    file.close()
