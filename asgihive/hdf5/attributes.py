"""Attributes: names, descriptions and values."""

import contextlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from h5py import h5, h5a, h5p, h5t

from asgihive.concurrency import Portions
from asgihive.errors import (
    AnswerTooLarge,
    AttributeMissing,
    DamagedData,
    LibraryRefused,
    TypeUnsupported,
)
from asgihive.hdf5.file_bytes import FileBytes, NotPlain
from asgihive.hdf5.global_heap import read_strings
from asgihive.hdf5.headers import AttributeMessage, parse_attribute
from asgihive.hdf5.links import Resolved
from asgihive.hdf5.names import encoded, text
from asgihive.hdf5.open_file import libhdf5_reason, refusal_of
from asgihive.hdf5.type_descriptions import find_type
from asgihive.hdf5.types import NoEquivalent, memory_type, relabel_sequences, without_dimensions

# Name, extent (None = empty dataspace) and type of an attribute.
AttributeHeader = tuple[bytes, tuple[int, ...] | None, h5t.TypeID]


def attribute_headers(entity_id: Any) -> Portions[list[AttributeHeader]]:
    """Return what libhdf5 says of the attributes of an open object, by name."""
    names: list[bytes] = []
    h5a.iterate(entity_id, names.append)
    headers = []
    for name in names:
        attribute = h5a.open(entity_id, name)
        headers.append((name, attribute.get_space().shape, attribute.get_type()))
        yield
    return headers


def read_attributes(
    entity: Resolved, names: list[str] | None, most_bytes: int
) -> Portions[dict[str, Any]]:
    """The values of the attributes called `names`, of all when it is None.

    Each is read once, however often it is named.

    A value is a NumPy array or scalar, an object array of bytes for variable-length
    strings, or None for an empty dataspace. Among all, an attribute of a type that cannot
    be read is None too, since the others are worth reading.

    Args:
        most_bytes: of all values, looked at before each is read.

    Raises:
        AnswerTooLarge: they are more.
        AttributeMissing: one of `names` is not there.
        TypeUnsupported: one of `names` has a type without NumPy equivalent.
        DamagedData
    """
    stored = _find_stored(entity)
    room = _Room(most_bytes)
    values: dict[str, Any] = {}
    if names is not None:
        for name in dict.fromkeys(names):
            values[name] = _read(entity, stored, _find_name(entity, stored, name), room)
            yield
        return values
    for each in stored:
        try:
            values[text(each)] = _read(entity, stored, each, room)
        except (TypeUnsupported, LibraryRefused):
            values[text(each)] = None
        yield
    return values


# Attributes by name, in the order in which they are answered; None where libhdf5 must read them.
_Stored = dict[bytes, AttributeMessage | None]


@dataclass(slots=True)
class _Room:
    """How many bytes of attributes may be read."""

    most: int
    used: int = 0

    def take(self, size: int) -> None:
        """Raises AnswerTooLarge."""
        self.used += size
        if self.used > self.most:
            advice = "name some of the attributes with `attr_keys`"
            raise AnswerTooLarge(self.used, self.most, advice)


def _find_stored(entity: Resolved) -> _Stored:
    """Return the attributes of an object, from its header unless libhdf5 must tell."""
    header, file = entity.object.header, entity.file.metadata
    if header is not None and file is not None:
        with contextlib.suppress(NotPlain):
            found = [parse_attribute(each, file.length_bytes) for each in header.attributes]
            by_name: _Stored = {each.name: each for each in found}
            # Of two attributes of one name, which only a forged header has, libhdf5 chooses.
            if len(by_name) == len(found):
                if header.tracks_attributes:
                    return by_name
                return {name: by_name[name] for name in sorted(by_name)}
    names: list[bytes] = []
    try:
        h5a.iterate(entity.id, names.append, index_type=_attribute_order(entity.id))
    except (OSError, RuntimeError, ValueError) as error:
        detail = f"its attributes ({libhdf5_reason(error)})"
        raise DamagedData(entity.file.place.name, entity.path, detail) from error
    return dict.fromkeys(names)


def _attribute_order(entity_id: Any) -> int:
    """By creation where the object keeps track of it, as its writer meant; else by name."""
    try:
        order = entity_id.get_create_plist().get_attr_creation_order()
    except RuntimeError:  # a fill value of variable length that was lost
        return int(h5.INDEX_NAME)
    return int(h5.INDEX_CRT_ORDER if order & h5p.CRT_ORDER_TRACKED else h5.INDEX_NAME)


def _find_name(entity: Resolved, stored: _Stored, name: str) -> bytes:
    wanted = encoded(name)
    if wanted in stored:
        return wanted
    shown = [each for each in stored if "\ufffd" in name and text(each) == name]
    if len(shown) != 1:
        raise AttributeMissing(entity.file.place.name, entity.path, name)
    return shown[0]


def _read(entity: Resolved, stored: _Stored, name: bytes, room: _Room) -> Any:
    message, file = stored[name], entity.file.metadata
    if message is not None and file is not None:
        if message.shape is None:
            return None
        with contextlib.suppress(NotPlain):
            return _read_message(file, message, message.shape, room)
    return _read_by_library(entity, name, room)


def _read_message(
    file: FileBytes, message: AttributeMessage, shape: tuple[int, ...], room: _Room
) -> Any:
    """Return the value of an attribute in the header. Raises NotPlain, AnswerTooLarge."""
    known = find_type(message.type)
    if known is None or known.dtype is None or known.size is None:
        raise NotPlain
    base, inner = without_dimensions(known.dtype)
    count = math.prod(shape)
    if len(message.value) < count * known.size:
        raise NotPlain
    if known.is_text:
        values = read_strings(file, message.value, count).astype(base).reshape(shape)
    elif known.description["class"] == h5t.STRING:
        values = _read_fixed(message.value, base, count, known.description["strpad"])
        values = values.reshape(shape)
    elif known.is_as_stored:
        values = np.frombuffer(message.value, known.dtype, count).reshape((*shape, *inner))
    else:
        raise NotPlain
    room.take(values.nbytes)
    if known.is_text:
        room.take(sum(map(len, values.flat)))
    return values if values.shape else values[()]


def _read_fixed(stored: bytes, dtype: np.dtype[Any], count: int, padding: int) -> Any:
    """Return strings of one length, padded with NULs as libhdf5 converts them."""
    if padding == h5t.STR_NULLPAD:
        return np.frombuffer(stored, dtype, count)
    size = dtype.itemsize
    parts = [stored[at : at + size] for at in range(0, count * size, size)]
    if padding == h5t.STR_SPACEPAD:
        return np.array([each.rstrip(b" ") for each in parts], dtype)
    return np.array([each.partition(b"\0")[0] for each in parts], dtype)


def _read_by_library(entity: Resolved, name: bytes, room: _Room) -> Any:
    place = (entity.file.place.name, entity.path)
    try:
        attribute = h5a.open(entity.id, name)
        shape = attribute.get_space().shape
        if shape is None:
            return None
        memory = memory_type(attribute.get_type())
        base, inner = without_dimensions(memory.dtype)
        room.take(math.prod((*shape, *inner)) * base.itemsize)
        # Zeros, because a damaged file may fill less than it promises.
        values = np.zeros((*shape, *inner), base)
        if math.prod(values.shape):
            attribute.read(values, memory.id)
            if memory.is_mislabelled:
                relabel_sequences(values, base)
            if base.kind == "O":
                room.take(sum(map(_bytes_of, values.flat)))
    except NoEquivalent as error:
        raise TypeUnsupported(*place, f"attribute {text(name)!r}: {error}") from None
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, MemoryError) as error:
        what = f"attribute {text(name)!r}"
        refusal = refusal_of(*place, error, what)
        if refusal is not None:
            raise refusal from error
        raise DamagedData(*place, f"{what} ({libhdf5_reason(error)})") from error
    return values if values.shape else values[()]


def _bytes_of(value: Any) -> int:
    """About what a value of variable length takes, beside its place in the array."""
    return len(value) if isinstance(value, bytes | str) else int(getattr(value, "nbytes", 0))
