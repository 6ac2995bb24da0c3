"""The attributes that most objects of a file have, numbers and texts, read as fast as may be.

Thousands of datasets have the same ones. Each is taken apart once; afterwards its bytes alone tell
what is shown, but for texts, which lie elsewhere.
"""

from operator import itemgetter
from typing import NamedTuple

import numpy as np

from asgihive.hdf5.entities import AttributeBudget, read_stored_attribute
from asgihive.hdf5.file_bytes import DamagedMetadata, FileBytes, NotPlain, text
from asgihive.hdf5.headers import AttributeMessage, parse_attribute
from asgihive.hdf5.links import PASSING, Resolved
from asgihive.hdf5.nexus import MAX_ATTRIBUTE_BYTES
from asgihive.hdf5.stored_metadata import read_string
from asgihive.hdf5.type_descriptions import find_type
from asgihive.zarr.attributes import XARRAY_NAMES, AttributeDocument
from asgihive.zarr.data_types import JSON
from asgihive.zarr.nodes import OWN_PREFIX
from asgihive.zarr.object_attributes import (
    ELEMENT_BYTES,
    LEFT_OUT,
    SCALE_STRUCTURE,
)

_MOST_KNOWN, _LONGEST_KNOWN = 2048, 512

# What has a say in more than itself.
_TELLING = {*SCALE_STRUCTURE, b"axes", *map(str.encode, XARRAY_NAMES)}

_POINTER_BYTES = 8  # of a text, in memory


class _PlainAttribute(NamedTuple):
    """An attribute as it is shown."""

    name: bytes
    shown: str
    value: JSON
    size: int
    """As `ObjectAttributes.fill_document` counts it."""


class PlainAttributes:
    """Reads the attributes of the objects of one tree."""

    def __init__(self) -> None:
        self._known: dict[bytes, _PlainAttribute | None] = {}
        self._texts: dict[bytes, tuple[bytes, str]] = {}

    def read(self, entity: Resolved) -> tuple[dict[str, JSON], int] | None:
        """Return the attributes as they are shown, and how many bytes they have.

        None where one of them is not plain, so that all must be looked at.

        Raises:
            NeedsThread
        """
        header, file = entity.object.header, entity.file.metadata
        if header is None or file is None:
            return None
        found = []
        for message in header.attributes:
            plain = self._known.get(message)
            if plain is None:
                plain = self._read_text(file, message) or self._learn(entity, file, message)
                if plain is None:
                    return None
            found.append(plain)
        if not header.tracks_attributes and len(found) > 1:
            found.sort(key=_get_name)
        shown = {each.shown: each.value for each in found}
        if len(shown) < len(found):  # which only a forged header has
            return None
        return shown, sum(map(_get_size, found))

    def _read_text(self, file: FileBytes, message: bytes) -> _PlainAttribute | None:
        """Return an attribute that is a text, if its name and type are known."""
        at = len(message) - 8 - file.address_bytes
        known = self._texts.get(message[:at]) if at > 0 else None
        if known is None:
            return None
        try:
            stored = read_string(file, message[at:])
            value = stored.decode()
        except (NotPlain, DamagedMetadata, UnicodeDecodeError):
            return None
        size = _POINTER_BYTES + len(stored)
        if size > MAX_ATTRIBUTE_BYTES:
            return None
        name, shown = known
        return _PlainAttribute(name, shown, value, ELEMENT_BYTES + size + len(shown))

    def _learn(self, entity: Resolved, file: FileBytes, message: bytes) -> _PlainAttribute | None:
        """Take an attribute apart, and note what it says; None = it is not plain.

        Raises:
            NeedsThread
        """
        if len(message) > _LONGEST_KNOWN or message in self._known:
            return None
        try:
            attribute = parse_attribute(message, file.length_bytes)
        except NotPlain:
            return None
        known = find_type(attribute.type)
        if known is not None and known.is_text:
            at, shown = len(message) - len(attribute.value), text(attribute.name)
            is_one = not attribute.shape and len(message) - at == 8 + file.address_bytes
            if not is_one or not _is_plain(attribute.name) or shown.encode() != attribute.name:
                return None
            if len(self._texts) >= _MOST_KNOWN:
                self._texts.clear()
            self._texts[message[:at]] = attribute.name, shown
            return self._read_text(file, message)
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        plain = None
        if attribute.shape is not None and _is_plain(attribute.name):
            plain = _format(entity, attribute)
        self._known[message] = plain
        return plain


def _is_plain(name: bytes) -> bool:
    return name not in _TELLING and not name.startswith(OWN_PREFIX.encode())


def _format(entity: Resolved, attribute: AttributeMessage) -> _PlainAttribute | None:
    """Return what is shown of an attribute that lies in its message; None = not all of it can be.

    Raises:
        NeedsThread
    """
    budget, name = AttributeBudget(MAX_ATTRIBUTE_BYTES), attribute.name
    try:
        value = read_stored_attribute(entity, {name: attribute}, name, budget)
    except PASSING:
        raise
    except LEFT_OUT:
        return None
    shown, document = text(name), AttributeDocument()
    document.add(shown, value)
    if not document.is_complete:
        return None
    count = value.size if isinstance(value, np.ndarray) else 1
    size = ELEMENT_BYTES * count + budget.used + len(shown)
    return _PlainAttribute(name, shown, document.finish()[shown], size)


_get_name, _get_size = itemgetter(0), itemgetter(3)
