"""What a file holds below a group, object by object, in a tree of so many rows, for people.

Everything here runs in the library lane.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from h5py import h5l

from asgihive.concurrency import run_at_once
from asgihive.errors import AsgihiveError, FileUnreadable
from asgihive.hdf5.entities import Describer, find_stored_attributes
from asgihive.hdf5.file_bytes import decoded, text
from asgihive.hdf5.inspection import LinkReport, describe_link
from asgihive.hdf5.links import PASSING, Resolved
from asgihive.hdf5.nexus import UNREADABLE, find_small_attribute
from asgihive.hdf5.objects import find_listed_object, list_links
from asgihive.hdf5.open_file import OpenFile, libhdf5_reason
from asgihive.hdf5.opening import find_dataset
from asgihive.hdf5.plan import select_all
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.stored_metadata import Link
from asgihive.hdf5.types import LIBRARY_ERRORS

MAX_DEPTH = 100
"""Groups within each other that are looked into, however many are asked for."""

MAX_ATTRIBUTES = 20
"""Attributes of one object that are told."""

MAX_VALUE_BYTES = 1 << 16
"""Of an attribute, or of a dataset of one element, whose value is told."""


@dataclass(frozen=True, slots=True)
class ContentsBounds:
    """How much of a tree is read."""

    depth: int = 6
    """Groups within each other that are looked into; `MAX_DEPTH` at most."""
    rows: int | None = 200
    """Objects and attributes together; None = all. One group takes half of them at most, so that
    a large one hides no other."""


@dataclass(frozen=True, slots=True)
class ShownAttribute:
    """An attribute and its value."""

    name: str
    shape: tuple[int, ...] | None
    type: dict[str, Any]
    """As `/meta` has it."""
    value: Any = None
    """As `read_attributes` has it; None where there is none, or it is large or cannot be read."""


@dataclass(frozen=True, slots=True)
class ContentsNode:
    """An object or a link in a tree."""

    name: str
    path: str
    kind: str
    """As `/meta` says."""
    shape: tuple[int, ...] | None = None
    """Of a dataset; None = it has no values."""
    type: dict[str, Any] | None = None
    """Of a dataset or named datatype, as `/meta` has it."""
    chunks: tuple[int, ...] | None = None
    filters: tuple[str, ...] = ()
    value: Any = None
    """Of a dataset of one element; None where it is large or cannot be read."""
    link: LinkReport | None = None
    """The soft or external link that it is."""
    same_as: str | None = None
    """The path under which a group is shown already, of a further hard link to it."""
    nx_class: str | None = None
    attributes: tuple[ShownAttribute, ...] = ()
    more_attributes: int = 0
    """How many are not told."""
    children: tuple["ContentsNode", ...] = ()
    more_children: int = 0
    problem: str | None = None
    """What is damaged."""


@dataclass(slots=True)
class _Growing:
    """A node whose children are being found."""

    facts: dict[str, Any]
    group: Resolved | None = None
    depth: int = 0
    children: list["_Growing"] = field(default_factory=list)

    def freeze(self) -> ContentsNode:
        """Return the node with all below it; `MAX_DEPTH` bounds the recursion."""
        return ContentsNode(**self.facts, children=tuple(each.freeze() for each in self.children))


def read_contents(
    lease: Lease, file: OpenFile, group: Resolved, bounds: ContentsBounds
) -> ContentsNode:
    """Return a group with what is below it.

    Level by level, so that what is near the top is shown first. Links are told with what they lead
    to, and not followed further. One damaged object hides no other.

    Args:
        lease: holds every file that a link leads to.
        file: that was asked for.
        group: of it, or behind an external link of it.
        bounds: of the tree.

    Raises:
        FileUnreadable: the group itself is damaged.
        FileChanged, Overloaded, Unsettled: conditions of the moment; ask again.
    """
    growth = _Growth(lease, file, bounds)
    root = growth.make_root(group)
    growth.grow(root)
    return root.freeze()


@dataclass(slots=True)
class _Growth:
    """A tree that is being read, level by level."""

    lease: Lease
    file: OpenFile
    bounds: ContentsBounds
    _rows: int = 0
    _shown: dict[Any, str] = field(default_factory=dict)
    """The path of each group that is in the tree, by its file and address."""

    def make_root(self, group: Resolved) -> _Growing:
        try:
            described = run_at_once(Describer(self.lease).describe_object("", group.object))
        except LIBRARY_ERRORS as error:
            detail = f"{group.path} is damaged ({libhdf5_reason(error)})"
            raise FileUnreadable(group.file.place.name, detail) from error
        link = None
        if group.path != "/":
            link = describe_link(self.lease, self.file, group.path)
        name = group.path.rsplit("/", 1)[-1]
        root = _Growing({"name": name, "path": group.path, "kind": "group", "link": link})
        self._add_object(root, group, described)
        return root

    def grow(self, root: _Growing) -> None:
        """Add all that is below the root, within the bounds."""
        pending = deque([root])
        deepest = min(self.bounds.depth, MAX_DEPTH)
        while pending:
            node = pending.popleft()
            group = node.group
            if group is None:
                continue
            try:
                links = run_at_once(list_links(group.object, by_creation=True))
            except PASSING:
                raise
            except UNREADABLE as error:
                node.facts["problem"] = _explain(error)
                continue
            most = self._count_children(len(links)) if node.depth < deepest else 0
            for link in links[:most]:
                if self._is_full():
                    break
                child = self._describe_child(group, link, node.depth + 1)
                node.children.append(child)
                pending.append(child)
            node.facts["more_children"] = len(links) - len(node.children)
            if group.file.metadata is not None:
                group.file.metadata.drop_pages()

    def _count_children(self, links: int) -> int:
        """Return how many children of a group with so many links there may be."""
        rows = self.bounds.rows
        return links if rows is None else max(1, rows // 2)

    def _is_full(self) -> bool:
        return self.bounds.rows is not None and self._rows >= self.bounds.rows

    def _describe_child(self, group: Resolved, link: Link, depth: int) -> _Growing:
        name = text(link.name)
        path = f"{group.path.rstrip('/')}/{name}"
        node = _Growing({"name": name, "path": path, "kind": "other"}, depth=depth)
        self._rows += 1
        if b"/" in link.name:
            # Forged: it can be asked for by no path.
            node.facts["problem"] = "its name holds a slash"
            return node
        try:
            described = run_at_once(Describer(self.lease).describe_child(group, link))
            node.facts["kind"] = described["kind"]
            if link.type != h5l.TYPE_HARD:
                below = f"{group.path.rstrip('/')}/{decoded(link.name)}"
                report = describe_link(self.lease, self.file, below)
                node.facts |= _list_facts(described) | {"link": report}
            else:
                found = find_listed_object(group.file, link.address)
                self._add_object(
                    node, Resolved(path, found, (*group.location, link.name)), described
                )
            if described["kind"] == "other":
                node.facts["problem"] = "it cannot be read"
        except PASSING:
            raise
        except UNREADABLE as error:
            node.facts["problem"] = _explain(error)
        return node

    def _add_object(self, node: _Growing, entity: Resolved, described: dict[str, Any]) -> None:
        """Add what an object has itself; a group that the tree has already is not entered again."""
        node.facts |= _list_facts(described)
        if described["kind"] == "group":
            key = entity.file.key, entity.object.address
            if key in self._shown:
                node.facts["same_as"] = self._shown[key]
                return
            self._shown[key] = entity.path
            node.group = entity
        self._add_attributes(node, entity, described.get("attributes", []))
        if described["kind"] == "dataset" and _has_one_element(described["shape"]):
            node.facts["value"] = self._read_element(entity.path)

    def _add_attributes(
        self, node: _Growing, entity: Resolved, described: list[dict[str, Any]]
    ) -> None:
        if not described:
            return
        known = {each["name"]: each for each in described}
        stored = find_stored_attributes(entity)
        shown: list[ShownAttribute] = []
        class_name = None
        for name in stored:
            each = known.get(text(name))
            if each is None:
                continue
            value = find_small_attribute(entity, stored, name, MAX_VALUE_BYTES)
            if name == b"NX_class" and isinstance(value, bytes | str):
                class_name = text(value) if isinstance(value, bytes) else value
            elif len(shown) == MAX_ATTRIBUTES or self._is_full():
                break
            else:
                self._rows += 1
                shown.append(ShownAttribute(each["name"], each["shape"], each["type"], value))
        told = len(shown) + (class_name is not None)
        node.facts |= {
            "nx_class": class_name,
            "attributes": tuple(shown),
            "more_attributes": len(stored) - told,
        }

    def _read_element(self, path: str) -> Any:
        """Return the only value of a dataset, None where it is large or cannot be read."""
        try:
            dataset = find_dataset(self.lease, self.file, path)
            if dataset.virtual is not None or dataset.item_bytes > MAX_VALUE_BYTES:
                return None
            values = dataset.read(self.lease, select_all(dataset.shape or ()).axes)
        except PASSING:
            raise
        except UNREADABLE:
            return None
        return values.reshape(-1)[0] if values.size == 1 else values


def _list_facts(described: dict[str, Any]) -> dict[str, Any]:
    """Return what a tree tells of the metadata of an object or link."""
    facts = {key: described[key] for key in ("kind", "shape", "type", "chunks") if key in described}
    names = (each["name"] or f"filter {each['id']}" for each in described.get("filters") or ())
    return facts | {"filters": tuple(names)}


def _has_one_element(shape: tuple[int, ...] | None) -> bool:
    return shape is not None and math.prod(shape) == 1


def _explain(error: Exception) -> str:
    return str(error) if isinstance(error, AsgihiveError) else libhdf5_reason(error)
