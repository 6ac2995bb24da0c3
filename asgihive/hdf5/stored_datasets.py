"""How a dataset is stored, read from the messages of its header (section IV.A.2)."""

import struct
from dataclasses import dataclass

from asgihive.hdf5.file_bytes import FileBytes, NotPlain
from asgihive.hdf5.headers import (
    DATASPACE,
    DATATYPE,
    FILL,
    LAYOUT,
    OLD_FILL,
    PIPELINE,
    ObjectHeader,
    Shape,
    parse_extent,
    parse_pipeline,
)
from asgihive.hdf5.layout import Filter, LayoutKind

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
            chunks = parse_chunk_shape(layout, file.address_bytes)
            if shape is not None and len(chunks) != len(shape):
                raise NotPlain
    except (struct.error, IndexError):
        raise NotPlain from None
    filters = parse_pipeline(messages[PIPELINE]) if PIPELINE in messages else ()
    # libhdf5 gives others the names that their plugins have.
    if not all(each.name for each in filters):
        raise NotPlain
    return StoredDataset(
        shape=shape,
        max_shape=max_shape,
        type=messages[DATATYPE],
        kind=kind,
        chunks=chunks,
        filters=filters,
        place=place,
        fill=_find_fill(messages),
    )


def parse_chunk_shape(layout: bytes, address_bytes: int) -> tuple[int, ...]:
    """Return the shape of a chunk by a layout message of chunked storage; section IV.A.2.i.

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
    # The last dimension is the size of an element.
    if len(dimensions) < 2 or not all(dimensions):
        raise NotPlain
    return dimensions[:-1]


def _find_fill(messages: dict[int, bytes]) -> bytes | None:
    """Sections IV.A.2.e and f: the newer message counts, of which there are three versions."""
    try:
        if FILL not in messages:
            return _sized(messages[OLD_FILL], 0) if OLD_FILL in messages else None
        message = messages[FILL]
        version = message[0]
        if version in {1, 2}:
            is_given, time, at = version == 1 or message[3] != 0, message[2], 4
        elif version == 3:
            is_given, time, at = bool(message[1] & 0x20), message[1] >> 2 & 0x03, 2
        else:
            raise NotPlain
    except (struct.error, IndexError):
        raise NotPlain from None
    return _sized(message, at) if is_given and time != _NEVER else None


def _sized(message: bytes, at: int) -> bytes | None:
    (size,) = struct.unpack_from("<i", message, at)
    value = message[at + 4 : at + 4 + max(size, 0)]
    if len(value) < size:
        raise NotPlain
    return value or None
