"""What is in an HDF5 file, as nodes of a Zarr hierarchy.

Every group is entered once: first those that hard links lead to, then those that only soft and
external links lead to. What lies there again, or would be below itself, is left out and listed.
One member that cannot be shown does not spoil its group.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson
from h5py import h5l

from asgihive.concurrency import Portions, run_at_once
from asgihive.errors import EntityMissing, FileUnreadable, KindMismatch
from asgihive.hdf5.chunks import find_fill
from asgihive.hdf5.datasets import READ_ERRORS
from asgihive.hdf5.file_bytes import decoded, encoded, split_path, text
from asgihive.hdf5.layout import LayoutKind
from asgihive.hdf5.links import PASSING, LinkResolution, Resolved, walk, walk_below
from asgihive.hdf5.objects import find_root, list_links
from asgihive.hdf5.open_file import OpenFile, libhdf5_reason
from asgihive.hdf5.opening import DatasetFacts, find_facts, virtual_extent
from asgihive.hdf5.pool import Lease, ObjectKey
from asgihive.hdf5.stored_metadata import Link, find_common_key
from asgihive.settings import H5Settings
from asgihive.zarr.attributes import AttributeDocument
from asgihive.zarr.data_types import JSON, NoDataType, find_members, format_fill, name_data_type
from asgihive.zarr.dimensions import choose_names, rename_hidden_coordinates
from asgihive.zarr.grid import ArrayPlan, plan_array
from asgihive.zarr.names import publish_names
from asgihive.zarr.nodes import ENUMERATION, REAL_NAME, ArrayNode, GroupNode, Node
from asgihive.zarr.object_attributes import (
    LEFT_OUT,
    LeftOut,
    ObjectAttributes,
    explain,
    read_object_attributes,
)
from asgihive.zarr.plain_attributes import PlainAttributes
from asgihive.zarr.scopes import GroupScope, enter_group

MAX_NODES = 20_000
"""Nodes in one document, and members that are left out."""

MAX_TREE_BYTES = 32 << 20
"""Of the attributes, paths, types and names of one document."""

_INCOMPLETE = (
    "there are more members than are listed here, since the file has too many: open this group by "
    "itself, or its members by their paths"
)


def read_tree(
    lease: Lease, file: OpenFile, path: str, settings: H5Settings, most_nodes: int = MAX_NODES
) -> Portions[Node]:
    """Return the node at a path, a group with all that is below it.

    Args:
        lease: holds every file that a link leads to.
        file: that the path begins in.
        path: by the real names, see `find_real_path`.
        settings: how chunks are encoded.
        most_nodes: in the tree; groups of which members are missing say so.

    Raises:
        EntityMissing, LinkUnresolved, FileUnreadable: the path leads to nothing that can be read.
        KindMismatch: what is there is no group and no dataset, or a dataset without a Zarr array.
    """
    with _translate_damage(file, path):
        return (yield from _TreeReader(lease, settings, most_nodes).read(file, path))


def find_real_path(lease: Lease, file: OpenFile, path: str) -> str:
    """Return the path in the file that a path of published names stands for.

    Where no name was replaced, it is the same.

    Raises:
        EntityMissing, LinkUnresolved, FileUnreadable
    """
    with _translate_damage(file, path):
        return _find_path(lease, file, path)


@contextmanager
def _translate_damage(file: OpenFile, path: str) -> Iterator[None]:
    """Turn what libhdf5 says of a damaged object into FileUnreadable, as `/meta` does."""
    try:
        yield
    except READ_ERRORS as error:
        detail = f"{path} is damaged ({libhdf5_reason(error)})"
        raise FileUnreadable(file.place.name, detail) from error


def _find_path(lease: Lease, file: OpenFile, path: str) -> str:
    if "_" not in path:
        walk(lease, file, path, LinkResolution.ALL)
        return path
    here, real = Resolved("/", find_root(file)), ""
    for name in split_path(path):
        try:
            found = walk_below(lease, here, name, LinkResolution.ALL)
        except EntityMissing:
            name = _find_replaced(here, name)  # noqa: PLW2901  # the real one
            found = walk_below(lease, here, name, LinkResolution.ALL)
        real += "/" + decoded(name)
        if not isinstance(found, Resolved):  # all links are followed
            raise EntityMissing(file.place.name, path)
        here = found
    return real or "/"


def _find_replaced(group: Resolved, shown: bytes) -> bytes:
    """Return the real name of a member that is published as `shown`. Raises EntityMissing."""
    if group.object.kind == "group":
        links = run_at_once(list_links(group.object))
        for real, published in publish_names(link.name for link in links).items():
            if published.encode() == shown:
                return real
    path = f"{group.path.rstrip('/')}/{text(shown)}"
    raise EntityMissing(group.file.place.name, path)


@dataclass(frozen=True, slots=True)
class _ArrayForm:
    """What many arrays of a file have in common."""

    plan: ArrayPlan
    data_type: JSON
    fill_value: JSON
    codecs: tuple[JSON, ...]
    members: tuple[str, ...]
    """Of an enumeration, as they are shown."""
    size: int
    """Bytes of all that as JSON: a type that many datasets have is shown with each of them."""
    description: dict[str, Any]
    """Of the type; it must live as long as the form is known by its identity."""


class _TreeReader:
    """Reads one tree."""

    def __init__(self, lease: Lease, settings: H5Settings, most_nodes: int) -> None:
        self._lease = lease
        self._settings = settings
        self._nodes_left = most_nodes
        self._bytes_left = MAX_TREE_BYTES
        self._entered: dict[ObjectKey, str] = {}
        self._pending: deque[tuple[GroupScope, GroupNode]] = deque()
        self._linked: deque[tuple[GroupScope, GroupNode, bytes]] = deque()
        self._forms: dict[Any, _ArrayForm] = {}
        self._alike: dict[Any, _ArrayForm] = {}
        self._plain = PlainAttributes()

    def read(self, file: OpenFile, path: str) -> Portions[Node]:
        """Return the node at a path."""
        found = Resolved("/", find_root(file))
        scope = yield from enter_group(self._lease, found, "/", None)
        names = split_path(path)
        for number, name in enumerate(names, 1):
            entity = walk_below(self._lease, scope.group, name, LinkResolution.ALL)
            if not isinstance(entity, Resolved):  # all links are followed
                raise EntityMissing(file.place.name, path)
            found = entity
            if found.object.kind == "group":
                scope = yield from enter_group(self._lease, found, scope.join(name), scope)
            elif number < len(names):
                raise EntityMissing(file.place.name, path)
        name, kind = names[-1] if names else b"", found.object.kind
        if kind == "dataset":
            return (yield from self._read_alone(scope, name, found))
        if kind != "group":
            raise KindMismatch(file.place.name, path, kind, "a group or a dataset")
        return (yield from self._read_group(scope, name))

    def _read_alone(self, scope: GroupScope, name: bytes, found: Resolved) -> Portions[Node]:
        try:
            return (yield from self._read_array(scope, name, found))
        except (NoDataType, LeftOut) as error:
            reason = str(error) or "it is a dimension of netCDF without values"
            kind = f"dataset that is left out ({reason})"
            file, needed = found.file.place.name, "what Zarr can express"
            raise KindMismatch(file, found.path, kind, needed) from None

    def _read_group(self, scope: GroupScope, name: bytes) -> Portions[GroupNode]:
        scope.is_top = True
        root = self._make_group(scope, name)
        while self._pending or self._linked:
            if self._pending:
                yield from self._fill(*self._pending.popleft())
                continue
            above, node, linked = self._linked.popleft()
            try:
                yield from self._enter(above, node, linked, above.find_member(linked))
            except PASSING:
                raise
            except LEFT_OUT as error:
                self._omit(node, linked, error)
        # Only now: strings of many groups lie in the same global heaps.
        for each in self._lease.files.values():
            if each.metadata is not None:
                each.metadata.drop_pages()
        rename_hidden_coordinates(root)
        return root

    def _make_group(self, scope: GroupScope, name: bytes) -> GroupNode:
        """Return the node of a group, whose members are read later."""
        self._entered[scope.key] = scope.path
        document = AttributeDocument()
        said = read_object_attributes(scope.group)
        self._bytes_left -= said.fill_document(document, self._bytes_left, is_scale=False)
        self._bytes_left -= len(scope.path)
        if scope.parent is not None:
            _note_real_name(document, scope.parent, name)
        node = GroupNode(scope.path, document.finish())
        self._pending.append((scope, node))
        return node

    def _fill(self, scope: GroupScope, node: GroupNode) -> Portions[None]:
        """Read the members of a group."""
        for name, link in scope.links.items():
            self._lease.go_on()
            if self._nodes_left <= 0 or self._bytes_left <= 0:
                node.incomplete = _INCOMPLETE
                break
            self._nodes_left -= 1
            try:
                yield from self._read_member(scope, node, name, link)
            except PASSING:
                raise
            except LEFT_OUT as error:
                if str(error):
                    self._omit(node, name, error)
            yield

    def _omit(self, node: GroupNode, name: bytes, error: Exception) -> None:
        """Note why a member is left out."""
        reason = explain(error)
        node.omitted[text(name)] = reason
        self._bytes_left -= len(name) + len(reason)

    def _read_member(
        self, scope: GroupScope, node: GroupNode, name: bytes, link: Link
    ) -> Portions[None]:
        if name not in scope.published:
            raise LeftOut("no path can name it")
        found = scope.find_member(name)
        kind = found.object.kind
        if kind == "dataset":
            node.members[scope.published[name]] = yield from self._read_array(scope, name, found)
        elif kind != "group":
            raise LeftOut("Zarr has no named data types")
        elif link.type == h5l.TYPE_HARD:
            yield from self._enter(scope, node, name, found)
        else:
            self._linked.append((scope, node, name))

    def _enter(
        self, scope: GroupScope, node: GroupNode, name: bytes, found: Resolved
    ) -> Portions[None]:
        """Make a member of a group that is a group; raises LeftOut where it is one again."""
        known = self._entered.get((found.file.key, found.object.address))
        if known is not None:
            raise LeftOut(f"it is {text(encoded(known))} again")
        below = yield from enter_group(self._lease, found, scope.join(name), scope)
        node.members[scope.published[name]] = self._make_group(below, name)

    def _read_array(self, scope: GroupScope, name: bytes, found: Resolved) -> Portions[ArrayNode]:
        """Return the node of a dataset.

        Raises:
            NoDataType, LeftOut: it is none.
        """
        form = yield from self._find_form(found)
        plain = None
        if self._bytes_left > _PLAIN_FROM_BYTES:
            plain = self._plain.read(found)
        document = AttributeDocument(np.dtype(object) if form.plan.is_text else form.plan.dtype)
        is_scale = False
        if plain is not None:
            said = ObjectAttributes(found, {})  # none that has a say in its dimensions
            for shown, value in plain[0].items():
                document.add_note(shown, value)
            self._bytes_left -= plain[1]
        else:
            said = read_object_attributes(found)
            is_scale = said.is_scale
            if is_scale and said.is_phantom:
                raise LeftOut
            self._bytes_left -= said.fill_document(document, self._bytes_left, is_scale=is_scale)
        if form.members:
            document.add_note(ENUMERATION, list(form.members))
        _note_real_name(document, scope, name)
        shape = form.plan.shape
        wanted = scope.find_dimensions(found, shape[: form.plan.rank], said, is_scale=is_scale)
        path = scope.join(name)
        names = choose_names(shape, wanted, scope.names)
        self._bytes_left -= len(path) + form.size + sum(map(len, names))
        return ArrayNode(
            path=path,
            shape=shape,
            chunk_shape=form.plan.chunk_shape,
            data_type=form.data_type,
            fill_value=form.fill_value,
            codecs=form.codecs,
            dimension_names=names,
            attributes=document.finish(),
            source=form.plan.source.value,
        )

    def _find_form(self, found: Resolved) -> Portions[_ArrayForm]:
        """Return how a dataset is an array; of those with the same header it is found once.

        Raises:
            NoDataType, LeftOut: it is none.
        """
        header, file = found.object.header, found.file.metadata
        key = None if header is None or file is None else find_common_key(file, header)
        form = None if key is None else self._alike.get(key)
        if form is not None:
            return form
        facts = find_facts(found)
        if facts.layout.kind is LayoutKind.VIRTUAL:
            key, properties = None, facts.layout.properties
            shape = yield from virtual_extent(self._lease, found, properties)
            facts = replace(facts, shape=shape)
        if facts.shape is None:
            raise LeftOut("its dataspace is empty")
        form = self._make_form(facts)
        if key is not None:
            if len(self._alike) >= _MAX_FORMS:
                self._alike.clear()
            self._alike[key] = form
        return form

    def _make_form(self, facts: DatasetFacts) -> _ArrayForm:
        """Return how a dataset is an array; of thousands alike it is found once.

        Raises:
            NoDataType: it is none.
        """
        layout, fill = facts.layout, facts.fill
        stored = None if fill is None or fill.dtype.hasobject else fill.tobytes()
        key = (
            *(facts.shape, facts.max_shape, facts.item_shape, id(facts.description)),
            *(layout.kind, layout.chunks, layout.filters, facts.is_as_stored, stored),
        )
        found = self._forms.get(key)
        if found is None or stored is None:
            data_type = name_data_type(facts.dtype, len(facts.shape or ()))
            plan = plan_array(facts, self._settings)
            members = find_members(facts.description) if facts.dtype.kind in "iu" else {}
            fill_value = format_fill(_find_fill(facts), plan.dtype, is_text=plan.is_text)
            shown = tuple(f"{name}={value}" for name, value in members.items())
            found = _ArrayForm(
                plan,
                data_type,
                fill_value,
                tuple(codec.to_json() for codec in plan.codecs),
                shown,
                len(orjson.dumps((data_type, fill_value, shown))),
                facts.description,
            )
            if len(self._forms) >= _MAX_FORMS:
                self._forms.clear()
            self._forms[key] = found
        return found


_MAX_FORMS = 1024
_PLAIN_FROM_BYTES = 1 << 20  # what is left for: with less, each attribute is measured before


def _note_real_name(document: AttributeDocument, scope: GroupScope, name: bytes) -> None:
    """Show the real name of a member that is published by another one."""
    shown = text(name)
    if scope.published.get(name, shown) != shown:
        document.add_note(REAL_NAME, shown)


def _find_fill(facts: DatasetFacts) -> np.ndarray[Any, Any] | None:
    """Return the fill value, None = zero; of text, which clients never need, an empty one."""
    if facts.fill is not None or facts.dtype.hasobject or facts.dtype.kind == "S":
        return facts.fill
    return None if facts.item_shape else find_fill(facts.layout.properties, facts.dtype)
