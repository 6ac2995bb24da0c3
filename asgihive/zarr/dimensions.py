"""The names of dimensions, which xarray puts arrays together by; pure.

xarray makes a Dataset of each group, and a tree of them in which a dimension of a group is that of
the groups below it. So one name has one size on every way from the root downwards, or nothing
opens. A name that comes from the size cannot fail in that.
"""

import re
from collections.abc import Container, Sequence
from dataclasses import replace

from asgihive.hdf5 import nexus
from asgihive.zarr.data_types import JSON
from asgihive.zarr.nodes import ArrayNode, GroupNode

_BY_SIZE = re.compile("dim_[0-9]+_*")


def choose_names(
    shape: tuple[int, ...], wanted: Sequence[str | None], members: Container[str]
) -> tuple[str, ...]:
    """Return the names of the dimensions of an array.

    Args:
        shape: of the array.
        wanted: the name that the file has for each of the first dimensions, if it has one.
        members: the published names in its group, which mean something else.
    """
    names: list[str] = []
    for number, size in enumerate(shape):
        name = wanted[number] if number < len(wanted) else None
        if name is None or name in names:
            name = f"dim_{size}"
            # xarray refuses a dimension with the name of a scalar variable, and makes an index of
            # a variable with the name of its dimension.
            while name in names or name in members:
                name += "_"
        names.append(name)
    return tuple(names)


def may_be_wanted(name: str) -> bool:
    """Return whether the file may give a dimension this name: it is none that a size gives."""
    return _BY_SIZE.fullmatch(name) is None


def parse_axes(value: JSON) -> tuple[str, ...]:
    """Return the names in an attribute `axes` of NeXus, in the order of the dimensions.

    What stands for no name is `.`.

    Args:
        value: of the attribute, in JSON.
    """
    if isinstance(value, str):
        return nexus.parse_axes(value)
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return tuple(value)
    return ()


def rename_hidden_coordinates(root: GroupNode) -> None:
    """Give a dimension the name of its size where a group below has a member group of its name.

    xarray takes coordinates for those of all groups below, and no group of the name of one.

    Args:
        root: the whole tree; changed in place.
    """
    renamed: dict[int, set[str]] = {}
    pending: list[tuple[GroupNode, dict[str, GroupNode]]] = [(root, {})]
    while pending:
        group, above = pending.pop()
        own = {
            name: group
            for name, node in group.members.items()
            if isinstance(node, ArrayNode) and node.dimension_names == (name,)
        }
        below = {**above, **own} if own else above
        for name, node in group.members.items():
            if isinstance(node, GroupNode):
                pending.append((node, below))
                if name in above:
                    renamed.setdefault(id(above[name]), set()).add(name)
    left: list[tuple[GroupNode, frozenset[str]]] = [(root, frozenset())] if renamed else []
    while left:
        group, names = left.pop()
        names |= renamed.get(id(group), set())
        for member, each in group.members.items():
            if isinstance(each, GroupNode):
                left.append((each, names))
            elif not names.isdisjoint(each.dimension_names):
                wanted = [None if name in names else name for name in each.dimension_names]
                chosen = choose_names(each.shape, wanted, group.members)
                group.members[member] = replace(each, dimension_names=chosen)
