"""What a client may know of a hierarchy: metadata without the nodes that an application refuses."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import anyio.lowlevel
import orjson

from asgihive.service.gate import Permission, RequestedEntity, is_permitted
from asgihive.zarr.names import needs_replacement
from asgihive.zarr.nodes import OMITTED, REAL_NAME

# Between so many questions other requests have their turn.
_ASKED_AT_ONCE = 256

# Of an entry about a member that is left out: names with more colons are hidden without a question.
_MOST_READINGS = 16

# What names another path, which may be hidden, see `tree`.
_AGAIN = re.compile(r": it is /.* again\Z", re.DOTALL)
_AGAIN_SOMEWHERE = ": it is there already, by another path"


@dataclass(frozen=True, slots=True)
class ListedNode:
    """A node, or a member that is none, in the metadata of a group."""

    key: str
    """The path below the group, by the names that are published; `""` is the group itself."""
    path: str
    """The path in the file; `""` where it cannot be told."""
    omitted: str = ""
    """The entry that says why a member of this group is left out, if it is that."""


@dataclass(slots=True)
class HiddenNodes:
    """What a client may not know of."""

    keys: set[str] = field(default_factory=set)
    omitted: set[tuple[str, str]] = field(default_factory=set)
    """Entries about members that are left out, by their groups."""

    def __bool__(self) -> bool:
        return bool(self.keys or self.omitted)


def list_nodes(body: bytes, path: str) -> list[ListedNode]:
    """Return the nodes in the `zarr.json` of a group at `path`, each behind its group."""
    document = orjson.loads(body)
    paths = {"": path.rstrip("/")}
    nodes = list(_list_omitted("", paths[""], document))
    below: dict[str, Any] = document.get("consolidated_metadata", {}).get("metadata", {})
    for key in sorted(below, key=lambda each: each.count("/")):
        group, _, name = key.rpartition("/")
        told = below[key]["attributes"].get(REAL_NAME)
        # A file may have an attribute of that name itself.
        if isinstance(told, str) and needs_replacement(told):
            name = told
        real = f"{paths[group]}/{name}"
        paths[key] = real
        nodes.append(ListedNode(key, real))
        nodes += _list_omitted(key, real, below[key])
    return nodes


def _list_omitted(key: str, path: str, document: dict[str, Any]) -> Iterator[ListedNode]:
    for entry in document["attributes"].get(OMITTED, ()):
        # A name may itself have what stands behind it.
        parts = entry.split(": ", _MOST_READINGS + 1)
        if len(parts) > _MOST_READINGS + 1:
            yield ListedNode(key, "", entry)
            continue
        for count in range(1, len(parts)):
            yield ListedNode(key, f"{path}/{': '.join(parts[:count])}", entry)


async def find_hidden_nodes(
    nodes: list[ListedNode], file: str, permission: Permission
) -> HiddenNodes:
    """Return which of some nodes a permission refuses; what is below them is not asked for."""
    hidden = HiddenNodes()
    for count, each in enumerate(nodes, 1):
        if count % _ASKED_AT_ONCE == 0:
            await anyio.lowlevel.checkpoint()
        if each.omitted:
            if each.key in hidden.keys or (each.key, each.omitted) in hidden.omitted:
                continue
        elif each.key.rpartition("/")[0] in hidden.keys:
            hidden.keys.add(each.key)
            continue
        requested = RequestedEntity("zarr", file, each.path)
        if each.path and await is_permitted(permission, requested):
            continue
        if each.omitted:
            hidden.omitted.add((each.key, each.omitted))
        else:
            hidden.keys.add(each.key)
    return hidden


def hide_nodes(body: bytes, hidden: HiddenNodes) -> bytes:
    """Return the `zarr.json` of a group without the nodes that are hidden."""
    document = orjson.loads(body)
    below: dict[str, Any] = document["consolidated_metadata"]["metadata"]
    for key in hidden.keys:
        del below[key]
    for key, node in (("", document), *below.items()):
        attributes = node["attributes"]
        if OMITTED not in attributes:
            continue
        shown = [each for each in attributes[OMITTED] if (key, each) not in hidden.omitted]
        attributes[OMITTED] = [_AGAIN.sub(_AGAIN_SOMEWHERE, each) for each in shown]
        if not shown:
            del attributes[OMITTED]
    return orjson.dumps(document)
