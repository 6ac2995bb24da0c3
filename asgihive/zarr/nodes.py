"""Nodes of a Zarr hierarchy, and the `zarr.json` of each; pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from asgihive.zarr.data_types import JSON

OWN_PREFIX = "_asgihive_"
"""Begins the names of asgihive's own attributes; those of a file are left out."""

REAL_NAME = "_asgihive_name"
"""The attribute with the name in the file, of a node that has another one here."""

OMITTED = "_asgihive_omitted"
"""The attribute of a group with the members that are left out, and why."""

OMITTED_ATTRIBUTES = "_asgihive_omitted_attributes"
"""The attribute with the attributes that are left out or are not as in the file, and why."""

INCOMPLETE = "_asgihive_incomplete"
"""The attribute of a group of which members are missing here, since there are too many."""

ENUMERATION = "_asgihive_enum"
"""The attribute with the names of the values of an enumeration."""


@dataclass(frozen=True, slots=True)
class ArrayNode:
    """A dataset as a Zarr array."""

    path: str
    """In the file, by its real names."""

    shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    data_type: JSON
    fill_value: JSON

    codecs: tuple[JSON, ...]
    """From values to the bytes of a chunk."""

    dimension_names: tuple[str, ...]
    attributes: dict[str, JSON]

    source: str = "read"
    """Where the bytes of chunks come from, see `grid.ChunkSource`."""


@dataclass(slots=True)
class GroupNode:
    """A group, and what is in it."""

    path: str
    """In the file, by its real names."""

    attributes: dict[str, JSON]

    members: "dict[str, ArrayNode | GroupNode]" = field(default_factory=dict)
    """By the names that clients see."""

    omitted: dict[str, str] = field(default_factory=dict)
    """Why members are left out, by their real names."""

    incomplete: str = ""
    """Why members are missing here that are not left out."""


Node = ArrayNode | GroupNode


def format_document(node: Node) -> dict[str, JSON]:
    """Return the `zarr.json` of a node; that of a group has those of all nodes below it."""
    document = _format_node(node)
    if isinstance(node, GroupNode):
        metadata = document["consolidated_metadata"]["metadata"]
        for path, each in walk_nodes(node):
            metadata[path] = _format_node(each)
    return document


def walk_nodes(group: GroupNode) -> Iterator[tuple[str, Node]]:
    """Yield the path below `group`, by the names that clients see, and node of all below it.

    A group comes before its members.
    """
    pending = [iter(_list_members("", group))]
    while pending:
        for path, node in pending[-1]:
            yield path, node
            if isinstance(node, GroupNode):
                pending.append(iter(_list_members(f"{path}/", node)))
                break
        else:
            pending.pop()


def _list_members(prefix: str, group: GroupNode) -> list[tuple[str, Node]]:
    return [(prefix + name, node) for name, node in group.members.items()]


def _format_node(node: Node) -> dict[str, Any]:
    if isinstance(node, GroupNode):
        return _format_group(node)
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": node.shape,
        "data_type": node.data_type,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": node.chunk_shape}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": node.fill_value,
        "codecs": node.codecs,
        "attributes": node.attributes,
        "dimension_names": node.dimension_names,
    }


def _format_group(group: GroupNode) -> dict[str, Any]:
    attributes = dict(group.attributes)
    # As a list of strings, which netCDF can store too, so that clients can save what they read.
    omitted = [f"{name}: {reason}" for name, reason in group.omitted.items()]
    if omitted:
        attributes[OMITTED] = omitted
    if group.incomplete:
        attributes[INCOMPLETE] = group.incomplete
    # Clients list the members of a group that has no consolidated metadata, and take a listing
    # that fails for an empty group.
    consolidated = {"kind": "inline", "must_understand": False, "metadata": {}}
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": attributes,
        "consolidated_metadata": consolidated,
    }
