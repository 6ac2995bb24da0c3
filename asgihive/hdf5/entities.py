"""The metadata of entities, as `/meta` and `/paths` show them."""

from collections.abc import Callable
from functools import partial
from typing import Any

from h5py import h5d, h5g, h5l

from asgihive.concurrency import Portions
from asgihive.errors import AsgihiveError, FileUnreadable
from asgihive.hdf5.attributes import attribute_headers
from asgihive.hdf5.by_address import open_object
from asgihive.hdf5.group_links import Link, list_links
from asgihive.hdf5.headers import layout_of_header
from asgihive.hdf5.layout import LayoutKind, layout_of
from asgihive.hdf5.links import (
    CHANGING,
    Entity,
    ExternalLink,
    LinkResolution,
    Resolved,
    SoftLink,
    kind_of,
    kind_of_object,
    walk_below,
)
from asgihive.hdf5.listing import Listing
from asgihive.hdf5.names import text
from asgihive.hdf5.open_file import OpenFile, address_of, dataset_refreshed, libhdf5_reason
from asgihive.hdf5.opening import virtual_extent
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.type_descriptions import Descriptions
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
        self._known = Descriptions()

    def describe(self, entity: Entity) -> Portions[dict[str, Any]]:
        """The metadata of `entity`; a group with its children, one level deep.

        Raises:
            FileUnreadable: the object is damaged.
        """
        name = entity.path.rsplit("/", 1)[-1]
        if not isinstance(entity, Resolved):
            return _describe_link(name, entity)
        try:
            described = yield from self._describe_object(name, entity.file, entity.id)
            if isinstance(entity.id, h5g.GroupID):
                described["children"] = yield from self._children(entity)
        except LIBRARY_ERRORS as error:
            detail = f"{entity.path} is damaged ({libhdf5_reason(error)})"
            raise FileUnreadable(entity.file.place.name, detail) from error
        return described

    def _children(self, group: Resolved) -> Portions[list[dict[str, Any]]]:
        # As its writer meant, where the group keeps track of that.
        links = yield from list_links(group.file, group.id, by_creation=True)
        listing = Listing(group.file)
        children = []
        for link in links:
            child = yield from self._child(group, listing, link)
            children.append(self._keep(child))
            yield
        return children

    def _child(self, group: Resolved, listing: Listing, link: Link) -> Portions[dict[str, Any]]:
        name, address = link.name, link.address
        shown = text(name)
        if b"/" in name:
            # Forged: it can be asked for by no path.
            return {"name": shown, "kind": "other"}
        try:
            if link.type == h5l.TYPE_HARD:
                # Not by name: a forged group has two of one name, and this may be the other.
                by_libhdf5 = partial(self._describe_at, shown, group.file, address)
                return (yield from listing.describe(shown, address, by_libhdf5))
            only_valid = LinkResolution.ONLY_VALID
            child = walk_below(self._lease, group, name, only_valid, self._max_hops)
            if isinstance(child, Resolved):
                return (yield from self._describe_object(shown, child.file, child.id))
            return _describe_link(shown, child)
        except CHANGING:
            raise
        except (AsgihiveError, *LIBRARY_ERRORS):
            # One damaged child must not hide the others. h5grove's name for what it cannot tell.
            return {"name": shown, "kind": "other"}

    def _describe_at(self, name: str, file: OpenFile, address: int) -> Portions[dict[str, Any]]:
        return (yield from self._describe_object(name, file, open_object(file, address)))

    def _describe_object(
        self, name: str, file: OpenFile, object_id: Any
    ) -> Portions[dict[str, Any]]:
        described: dict[str, Any] = {"name": name, "kind": kind_of_object(object_id)}
        if isinstance(object_id, h5d.DatasetID):
            object_id = dataset_refreshed(file, object_id)
            try:
                layout = layout_of(object_id)
            except NoEquivalent:
                # It may be virtual, and then libhdf5 would look for its extent in other files.
                layout, shape = layout_of_header(file, address_of(object_id))
            else:
                shape = None
                if layout.kind is LayoutKind.VIRTUAL:
                    here = Resolved(name, file, object_id)
                    shape = yield from virtual_extent(
                        self._lease, here, layout.properties, self._max_hops
                    )
                else:
                    shape = object_id.get_space().shape
            described["shape"] = shape
            described["chunks"] = layout.chunks
            described["filters"] = [
                {"id": each.id, "name": each.name} for each in layout.filters
            ] or None
            described["type"] = self._known.type(object_id.get_type())
        elif not isinstance(object_id, h5g.GroupID):
            described["type"] = self._known.type(object_id)
        headers = yield from attribute_headers(object_id)
        described["attributes"] = self._known.attributes(headers)
        return described


def _describe_link(name: str, link: SoftLink | ExternalLink) -> dict[str, Any]:
    described = {"name": name, "kind": kind_of(link), "target_path": link.target_path}
    if isinstance(link, ExternalLink):
        described["target_file"] = link.target_file
    return described
