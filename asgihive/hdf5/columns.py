"""Columns of compounds: which a client asks for, and how they are taken of elements; pure."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np

from asgihive.errors import BadParameter
from asgihive.hdf5.file_bytes import encoded, text
from asgihive.hdf5.types import without_dimensions

Array = np.ndarray[Any, Any]

MAX_NAMED_FIELDS = 50
"""Those that an error names; a compound may have thousands."""

_ARRAY = 10
"""The class of array types in descriptions."""


@dataclass(frozen=True, slots=True)
class Columns:
    """What is taken of each element of a dataset: all of it, one column, or a few of them."""

    dtype: np.dtype[Any]
    """Of what is taken: a column's own; of several a compound of these, without padding."""
    item_shape: tuple[int, ...]
    """The dimensions of the dataset's array type, and those of the array type of one column."""
    description: Mapping[str, Any]
    """The HDF5 type of `dtype` as `/meta` shows it; of several columns `members` alone."""
    ways: tuple[tuple[str, ...], ...] | None
    """The names that lead to each column, from the outermost compound on; None = all is taken."""

    @property
    def item_bytes(self) -> int:
        """Size of what is taken of an element in memory, in bytes."""
        return self.dtype.itemsize * math.prod(self.item_shape)

    @property
    def names(self) -> tuple[str, ...]:
        """How the columns were asked for; empty when all is taken."""
        return () if self.ways is None else tuple(map(".".join, self.ways))

    @property
    def is_several(self) -> bool:
        """Whether more than one column is taken."""
        return self.ways is not None and len(self.ways) > 1

    def take(self, array: Array) -> Array:
        """Return what is taken of elements that were read, C-contiguous.

        Args:
            array: of the dataset's dtype and shape (..., *item_shape) of the dataset.
        """
        if self.ways is None:
            return array
        if not self.is_several:
            return np.asarray(_walk(array, self.ways[0]), order="C")
        taken = np.empty(array.shape, self.dtype)
        for name, way in zip(self.names, self.ways, strict=True):
            taken[name] = _walk(array, way)
        return taken

    def split(self) -> Iterator["Columns"]:
        """Yield the columns that are taken, one by one."""
        if self.ways is None or not self.is_several:
            yield self
            return
        members = self.description["members"]
        for name, way, member in zip(self.names, self.ways, members, strict=True):
            dtype, shape = without_dimensions(self.dtype[name])
            yield Columns(dtype, (*self.item_shape, *shape), member, (way,))


def find_columns(
    fields: tuple[str, ...],
    dtype: np.dtype[Any],
    item_shape: tuple[int, ...],
    description: Mapping[str, Any],
) -> Columns:
    """Return the columns that `fields` names; of one name that column itself, as h5py does.

    Each text is a name, or else several with commas between them. A name is that of a member,
    or of a member of a nested compound, `a.b`; where a member is called so, it is that one.

    Args:
        fields: the texts; none = all of each element.
        dtype: of an element in memory.
        item_shape: the dimensions of the dataset's array type.
        description: the type as `/meta` shows it.

    Raises:
        BadParameter: the values are no compounds, a name is unknown, or it is repeated.
    """
    while description.get("class") == _ARRAY:
        description = description["base"]
    if not fields:
        return Columns(dtype, item_shape, description, None)
    if dtype.names is None:
        accepted = f"it chooses columns of compounds, and these values are {dtype}"
        raise BadParameter("fields", ",".join(fields), accepted)
    ways: dict[tuple[str, ...], None] = {}
    for name, way in chain.from_iterable(_find_ways(dtype, each) for each in fields):
        if way is None:
            raise BadParameter("fields", name, f"there is no such field; {_list_fields(dtype)}")
        if way in ways:
            raise BadParameter("fields", name, f"it is there twice; {_list_fields(dtype)}")
        ways[way] = None
    found = [(".".join(way), *_find_member(dtype, description, way)) for way in ways]
    if len(found) == 1:
        _, member, described = found[0]
        base, shape = without_dimensions(member)
        while described.get("class") == _ARRAY:
            described = described["base"]
        return Columns(base, (*item_shape, *shape), described, tuple(ways))
    members = [{**described, "name": name} for name, _, described in found]
    compound = np.dtype([(name, member) for name, member, _ in found])
    return Columns(compound, item_shape, {"members": members}, tuple(ways))


def _find_ways(dtype: np.dtype[Any], asked: str) -> Iterator[tuple[str, tuple[str, ...] | None]]:
    """Yield the names in a text, and the way to each column; None where there is none."""
    asked = text(encoded(asked))
    way = _find_way(dtype, asked)
    if way is not None:
        yield asked, way
        return
    for name in asked.split(","):
        way = _find_way(dtype, name)
        yield name, way if way is not None else _find_way(dtype, name.strip())


def _find_way(dtype: np.dtype[Any], name: str) -> tuple[str, ...] | None:
    base, _ = without_dimensions(dtype)
    fields = base.fields
    if fields is None:
        return None
    if name in fields:
        return (name,)
    for each, (member, *_) in fields.items():
        if name.startswith(f"{each}."):
            rest = _find_way(member, name[len(each) + 1 :])
            if rest is not None:
                return (each, *rest)
    return None


def _find_member(
    dtype: np.dtype[Any], description: Mapping[str, Any], way: tuple[str, ...]
) -> tuple[np.dtype[Any], Mapping[str, Any]]:
    """Return dtype and description of a column; dimensions that lead to it are its own."""
    dimensions: tuple[int, ...] = ()
    for name in way:
        while description.get("class") == _ARRAY:
            description = description["base"]
        base, outer = without_dimensions(dtype)
        dimensions += outer
        dtype = base[name]
        members = description.get("members", ())
        description = next((each for each in members if each["name"] == name), {})
    return np.dtype((dtype, dimensions)) if dimensions else dtype, description


def _walk(array: Array, way: tuple[str, ...]) -> Array:
    for name in way:
        array = array[name]
    return array


def _list_fields(dtype: np.dtype[Any]) -> str:
    names = list(islice(_list_names(dtype), MAX_NAMED_FIELDS + 1))
    shown = [f"`{name}`" for name in names[:MAX_NAMED_FIELDS]]
    rest = " and others" if len(names) > MAX_NAMED_FIELDS else ""
    return f"{', '.join(shown)}{rest} are accepted, each once"


def _list_names(dtype: np.dtype[Any]) -> Iterator[str]:
    """Yield the names of all columns, those of nested compounds behind the compound."""
    base, _ = without_dimensions(dtype)
    for name in base.names or ():
        yield name
        for inner in _list_names(base[name]):
            yield f"{name}.{inner}"
