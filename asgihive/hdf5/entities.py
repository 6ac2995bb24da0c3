"""The metadata of entities, as `/meta` and `/paths` show them."""

import contextlib
from collections.abc import Callable
from typing import Any

from h5py import h5a, h5d, h5g, h5l, h5t

from asgihive.concurrency import Portions
from asgihive.errors import AsgihiveError, FileUnreadable
from asgihive.hdf5.attributes import attribute_headers
from asgihive.hdf5.file_bytes import FileBytes, NotPlain
from asgihive.hdf5.headers import (
    AttributeMessage,
    ObjectHeader,
    parse_attribute,
    read_header,
)
from asgihive.hdf5.layout import Filter, Layout, LayoutKind, layout_of
from asgihive.hdf5.links import (
    CHANGING,
    Entity,
    ExternalLink,
    LinkResolution,
    Resolved,
    SoftLink,
    kind_of,
    walk_below,
)
from asgihive.hdf5.names import text
from asgihive.hdf5.objects import StoredObject, find_listed_object, list_links
from asgihive.hdf5.open_file import libhdf5_reason
from asgihive.hdf5.opening import virtual_extent
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.stored_datasets import interpret_dataset
from asgihive.hdf5.stored_links import Link
from asgihive.hdf5.type_descriptions import find_type, learn_type
from asgihive.hdf5.types import NoEquivalent

# What libhdf5's refusals look like through h5py.
LIBRARY_ERRORS = (OSError, RuntimeError, ValueError, TypeError, KeyError, NoEquivalent)


def _as_it_is(described: dict[str, Any]) -> dict[str, Any]:
    return described


class Describer:
    """Describes entities of the files under one lease.

    Args:
        lease: holds every file that a link or a virtual dataset leads to.
        max_hops: links followed for one path.
        keep: what is kept of the metadata of each child, at once; it may raise.
    """

    def __init__(
        self, lease: Lease, max_hops: int, keep: Callable[[dict[str, Any]], Any] = _as_it_is
    ) -> None:
        self._lease = lease
        self._max_hops = max_hops
        self._keep = keep

    def describe(self, entity: Entity) -> Portions[dict[str, Any]]:
        """The metadata of `entity`; a group with its children, one level deep.

        Raises:
            FileUnreadable: the object is damaged.
        """
        name = entity.path.rsplit("/", 1)[-1]
        if not isinstance(entity, Resolved):
            return _describe_link(name, entity)
        try:
            described = yield from self._describe_object(name, entity.object)
            if entity.object.kind == "group":
                described["children"] = yield from self._children(entity)
        except LIBRARY_ERRORS as error:
            detail = f"{entity.path} is damaged ({libhdf5_reason(error)})"
            raise FileUnreadable(entity.file.place.name, detail) from error
        return described

    def _children(self, group: Resolved) -> Portions[list[dict[str, Any]]]:
        # As its writer meant, where the group keeps track of that.
        links = yield from list_links(group.object, by_creation=True)
        children = []
        for link in links:
            child = yield from self._child(group, link)
            children.append(self._keep(child))
            yield
        if group.file.metadata is not None:
            group.file.metadata.drop_pages()
        return children

    def _child(self, group: Resolved, link: Link) -> Portions[dict[str, Any]]:
        name = link.name
        shown = text(name)
        if b"/" in name:
            # Forged: it can be asked for by no path.
            return {"name": shown, "kind": "other"}
        try:
            if link.type == h5l.TYPE_HARD:
                # Not by name: a forged group has two of one name, and this may be the other.
                found = find_listed_object(group.file, link.address)
                return (yield from self._describe_object(shown, found))
            only_valid = LinkResolution.ONLY_VALID
            child = walk_below(self._lease, group, name, only_valid, self._max_hops)
            if isinstance(child, Resolved):
                return (yield from self._describe_object(shown, child.object))
            return _describe_link(shown, child)
        except CHANGING:
            raise
        except (AsgihiveError, *LIBRARY_ERRORS):
            # One damaged child must not hide the others. h5grove's name for what it cannot tell.
            return {"name": shown, "kind": "other"}

    def _describe_object(self, name: str, found: StoredObject) -> Portions[dict[str, Any]]:
        if found.header is not None and found.file.metadata is not None:
            with contextlib.suppress(NotPlain):
                return _describe_header(name, found, found.file.metadata, found.header)
        return (yield from self._describe_by_library(name, found))

    def _describe_by_library(self, name: str, found: StoredObject) -> Portions[dict[str, Any]]:
        described: dict[str, Any] = {"name": name, "kind": found.kind}
        if isinstance(found.id, h5d.DatasetID):
            try:
                layout = layout_of(found.id)
            except NoEquivalent:
                # It may be virtual, and then libhdf5 would look for its extent in other files.
                layout, shape = _layout_of_header(found)
            else:
                shape = None
                if layout.kind is LayoutKind.VIRTUAL:
                    here = Resolved(name, found)
                    shape = yield from virtual_extent(
                        self._lease, here, layout.properties, self._max_hops
                    )
                else:
                    shape = found.id.get_space().shape
            described["shape"] = shape
            described["chunks"] = layout.chunks
            described["filters"] = _describe_filters(layout.filters)
            described["type"] = _describe_type(found.id.get_type())
        elif not isinstance(found.id, h5g.GroupID):
            described["type"] = _describe_type(found.id)
        headers = yield from attribute_headers(found.id)
        described["attributes"] = [
            {"name": text(name), "shape": shape, "type": _describe_type(type_id)}
            for name, shape, type_id in headers
        ]
        described["attributes"].sort(key=_get_name)
        return described


def _describe_header(
    name: str, found: StoredObject, file: FileBytes, header: ObjectHeader
) -> dict[str, Any]:
    """Return the metadata of a group or dataset by the messages of its header.

    Raises:
        NotPlain: libhdf5 must describe it.
        NeedsThread: libhdf5 must explain a type.
    """
    described: dict[str, Any] = {"name": name, "kind": header.kind}
    if header.kind == "dataset":
        stored = interpret_dataset(file, header)
        known = find_type(stored.type) or learn_type(stored.type, found.id.get_type())
        described["shape"] = stored.shape
        described["chunks"] = stored.chunks
        described["filters"] = _describe_filters(stored.filters)
        described["type"] = known.description
    attributes = [parse_attribute(each, file.length_bytes) for each in header.attributes]
    described["attributes"] = [_describe_attribute(found, each, attributes) for each in attributes]
    if len(attributes) > 1:
        described["attributes"].sort(key=_get_name)
    return described


def _describe_attribute(
    found: StoredObject, attribute: AttributeMessage, attributes: list[AttributeMessage]
) -> dict[str, Any]:
    known = find_type(attribute.type)
    if known is None:
        # It is opened by its name: of two attributes of one name libhdf5 would choose.
        if [each.name for each in attributes].count(attribute.name) > 1:
            raise NotPlain
        known = learn_type(attribute.type, h5a.open(found.id, attribute.name).get_type())
    return {"name": text(attribute.name), "shape": attribute.shape, "type": known.description}


def _describe_type(type_id: h5t.TypeID) -> dict[str, Any]:
    """Describe a type that libhdf5 has open, once in the process for each encoding."""
    encoding = type_id.encode()
    return (find_type(encoding) or learn_type(encoding, type_id)).description


def _get_name(described: dict[str, Any]) -> str:
    name: str = described["name"]
    return name


def _describe_filters(filters: tuple[Filter, ...]) -> list[dict[str, Any]] | None:
    return [{"id": each.id, "name": each.name} for each in filters] or None


def _layout_of_header(found: StoredObject) -> tuple[Layout, tuple[int, ...] | None]:
    """How a dataset is stored, where libhdf5 says nothing of its properties.

    Raises:
        NoEquivalent: the header is not plain.
    """
    file = found.file.metadata
    if file is not None:
        with contextlib.suppress(NotPlain):
            stored = interpret_dataset(file, read_header(file, found.address))
            return Layout(stored.kind, stored.chunks, stored.filters), stored.shape
    detail = "its fill value is lost, and its header is not plain"
    raise NoEquivalent(detail)


def _describe_link(name: str, link: SoftLink | ExternalLink) -> dict[str, Any]:
    described = {"name": name, "kind": kind_of(link), "target_path": link.target_path}
    if isinstance(link, ExternalLink):
        described["target_file"] = link.target_file
    return described
