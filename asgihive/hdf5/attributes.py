"""Attributes: names, descriptions and values."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from h5py import h5, h5a, h5p

from asgihive.concurrency import Portions
from asgihive.errors import (
    AnswerTooLarge,
    AttributeMissing,
    DamagedData,
    LibraryRefused,
    TypeUnsupported,
)
from asgihive.hdf5.links import Resolved
from asgihive.hdf5.names import encoded, text
from asgihive.hdf5.open_file import libhdf5_reason, refusal_of
from asgihive.hdf5.type_descriptions import AttributeHeader
from asgihive.hdf5.types import NoEquivalent, memory_type, relabel_sequences, without_dimensions


def attribute_headers(entity_id: Any) -> Portions[list[AttributeHeader]]:
    """The attributes of an open object, by name."""
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
    stored = _stored(entity)
    room = _Room(most_bytes)
    values: dict[str, Any] = {}
    if names is not None:
        known = frozenset(stored)
        for name in dict.fromkeys(names):
            values[name] = _read(entity, _find(entity, stored, known, name), room)
            yield
        return values
    for each in stored:
        try:
            values[text(each)] = _read(entity, each, room)
        except (TypeUnsupported, LibraryRefused):
            values[text(each)] = None
        yield
    return values


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


def _stored(entity: Resolved) -> list[bytes]:
    names: list[bytes] = []
    try:
        h5a.iterate(entity.id, names.append, index_type=_attribute_order(entity.id))
    except (OSError, RuntimeError, ValueError) as error:
        detail = f"its attributes ({libhdf5_reason(error)})"
        raise DamagedData(entity.file.place.name, entity.path, detail) from error
    return names


def _attribute_order(entity_id: Any) -> int:
    """By creation where the object keeps track of it, as its writer meant; else by name."""
    try:
        order = entity_id.get_create_plist().get_attr_creation_order()
    except RuntimeError:  # a fill value of variable length that was lost
        return int(h5.INDEX_NAME)
    return int(h5.INDEX_CRT_ORDER if order & h5p.CRT_ORDER_TRACKED else h5.INDEX_NAME)


def _find(entity: Resolved, stored: list[bytes], known: frozenset[bytes], name: str) -> bytes:
    wanted = encoded(name)
    if wanted in known:
        return wanted
    shown = [each for each in stored if "\ufffd" in name and text(each) == name]
    if len(shown) != 1:
        raise AttributeMissing(entity.file.place.name, entity.path, name)
    return shown[0]


def _read(entity: Resolved, name: bytes, room: _Room) -> Any:
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
