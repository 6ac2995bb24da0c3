"""The attributes of an object of a file, read for its node."""

import math
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from asgihive.errors import AnswerTooLarge, AsgihiveError, EntityError
from asgihive.hdf5.datasets import READ_ERRORS
from asgihive.hdf5.entities import (
    AttributeBudget,
    StoredAttributes,
    find_stored_attributes,
    read_stored_attribute,
)
from asgihive.hdf5.file_bytes import DamagedMetadata, NotPlain, encoded, text
from asgihive.hdf5.links import PASSING, Resolved
from asgihive.hdf5.nexus import MAX_ATTRIBUTE_BYTES, find_small_attribute
from asgihive.hdf5.objects import find_referenced_address
from asgihive.hdf5.open_file import libhdf5_reason
from asgihive.hdf5.stored_metadata import read_references
from asgihive.hdf5.types import NoEquivalent
from asgihive.zarr.attributes import AttributeDocument, NoJSON, format_value
from asgihive.zarr.data_types import NoDataType
from asgihive.zarr.dimensions import parse_axes


class LeftOut(Exception):  # translated at once by those who know the member
    """A member is not shown; the message says why. Empty = it is no loss."""


LEFT_OUT = (AsgihiveError, NoDataType, LeftOut, *READ_ERRORS)
"""What keeps one attribute or member from being shown, if it is none of `PASSING`."""

_STRUCTURE = frozenset(
    (
        *(b"DIMENSION_LIST", b"REFERENCE_LIST", b"_Netcdf4Dimid", b"_Netcdf4Coordinates"),
        *(b"_nc3_strict", b"_NCProperties"),
    )
)
SCALE_STRUCTURE = _STRUCTURE | {b"CLASS", b"NAME"}
# They tell of the file's own structure, and are left out without a word.

_PHANTOM = b"This is a netCDF dimension but not a netCDF variable"

_SEQUENCE, _REFERENCE = 9, 7

ELEMENT_BYTES = 16
# Of an element of a list in memory, beside what is stored.


@dataclass(slots=True, eq=False)
class ObjectAttributes:
    """The attributes of an open object."""

    entity: Resolved
    stored: StoredAttributes

    def find_value(self, name: bytes) -> Any:
        """Return the value of a small attribute; None where it is missing or cannot be read."""
        return find_small_attribute(self.entity, self.stored, name)

    def find_text(self, name: bytes) -> bytes:
        """Return the text of a small attribute; empty where there is none."""
        value = self.find_value(name)
        return bytes(value) if isinstance(value, bytes) else b""

    @property
    def is_scale(self) -> bool:
        """Whether a dataset is a dimension scale."""
        return self.find_text(b"CLASS") == b"DIMENSION_SCALE"

    @property
    def is_phantom(self) -> bool:
        """Whether a dimension scale is a dimension of netCDF, and no variable."""
        return self.find_text(b"NAME").startswith(_PHANTOM)

    def find_axes(self) -> tuple[str, ...]:
        """Return the axes of NeXus that the object names."""
        if b"axes" not in self.stored:
            return ()
        try:
            return parse_axes(format_value(self.find_value(b"axes")))
        except NoJSON:
            return ()

    def find_scale_addresses(self) -> tuple[int, ...]:
        """Return the address of the first scale of each dimension; 0 = it has none."""
        if b"DIMENSION_LIST" not in self.stored:
            return ()
        message, file = self.stored[b"DIMENSION_LIST"], self.entity.file.metadata
        try:
            if message is not None and file is not None and _has_references(message.type):
                count = math.prod(message.shape or (0,))
                found = read_references(file, message.value, count)
                return tuple(each[0] if each else 0 for each in found)
        except NotPlain:
            pass
        except DamagedMetadata:
            return ()
        values = self.find_value(b"DIMENSION_LIST")
        if not isinstance(values, np.ndarray) or values.dtype.kind != "O":
            return ()
        return tuple(map(_find_first_address, values.reshape(-1).tolist()))

    def fill_document(self, document: AttributeDocument, most_bytes: int, *, is_scale: bool) -> int:
        """Add the attributes to the document of a node.

        Args:
            document: of the node.
            most_bytes: of all; what is more is left out, and listed.
            is_scale: whether the object is a dimension scale.

        Returns:
            How many bytes they have.
        """
        hidden: Container[bytes] = SCALE_STRUCTURE if is_scale else _STRUCTURE
        used = 0
        for name in self.stored:
            if name in hidden:
                continue
            shown = text(name)
            budget = AttributeBudget(min(MAX_ATTRIBUTE_BYTES, max(0, most_bytes - used)))
            try:
                value = read_stored_attribute(self.entity, self.stored, name, budget)
            except PASSING:
                raise
            except AnswerTooLarge as error:
                document.omit(shown, f"it has {error.size} bytes: ask /attr for it")
            except LEFT_OUT as error:
                document.omit(shown, explain(error))
            else:
                document.add(shown, value)
                used += ELEMENT_BYTES * (value.size if isinstance(value, np.ndarray) else 1)
            used += min(budget.used, budget.most) + len(shown)
        return used


def read_object_attributes(entity: Resolved) -> ObjectAttributes:
    """Return the attributes of an object. Raises as `find_stored_attributes`."""
    return ObjectAttributes(entity, find_stored_attributes(entity))


def explain(error: Exception) -> str:
    """Return why something is left out, without the name of its file, as it is shown."""
    if isinstance(error, EntityError) and error.detail:
        reason = error.detail
    elif isinstance(error, AsgihiveError | NoDataType | LeftOut | NoEquivalent):
        reason = str(error)
    else:
        reason = libhdf5_reason(error)
    # It may have a path in it, whose names need not be UTF-8.
    return text(encoded(reason))


def _has_references(datatype: bytes) -> bool:
    """Return whether a datatype message is of sequences of object references; IV.A.2.d."""
    is_sequence = datatype[0] & 0x0F == _SEQUENCE and not datatype[1] & 0x0F
    if not is_sequence or len(datatype) < 16:
        return False
    return datatype[8] & 0x0F == _REFERENCE and not datatype[9] & 0x0F


def _find_first_address(references: Any) -> int:
    """Return the address that the first of some references leads to; 0 where there is none."""
    if not isinstance(references, np.ndarray) or not references.size:
        return 0
    first = references.reshape(-1)[0]
    is_given = isinstance(first, h5py.Reference) and bool(first)
    return find_referenced_address(first) if is_given else 0
