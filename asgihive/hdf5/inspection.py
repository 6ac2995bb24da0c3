"""What lies behind a path of an HDF5 file, how it is stored, and which way a read of it takes.

Everything here runs in the library lane.
"""

from dataclasses import dataclass, replace
from typing import Any

from h5py import h5d, h5g, h5l

from asgihive.concurrency import run_at_once
from asgihive.errors import AsgihiveError, FileUnreadable, LinkUnresolved
from asgihive.hdf5.entities import LIBRARY_ERRORS
from asgihive.hdf5.group_links import list_links
from asgihive.hdf5.links import (
    PASSING,
    ExternalLink,
    LinkResolution,
    Resolved,
    SoftLink,
    kind_of,
    kind_of_object,
    walk,
)
from asgihive.hdf5.names import components, encoded, text
from asgihive.hdf5.open_file import OpenFile, address_of, dataset_refreshed, libhdf5_reason
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.storage_report import StorageReport, StorageReporter
from asgihive.hdf5.structure_checks import check_links
from asgihive.hdf5.type_descriptions import describe_type


@dataclass(frozen=True, slots=True)
class LinkReport:
    """A soft or external link, and whether it leads anywhere.

    target_file: of an external link.
    problem: why it does not resolve.
    """

    path: str
    kind: str
    target_file: str | None
    target_path: str
    resolves: bool
    problem: str | None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What lies behind a path.

    name: the last component of the path; "" of the root.
    kind: as `/meta` says; of a link that does not resolve, that of the link; `other` for what
        cannot be told.
    file, object_path: where the object really lies, links followed; None where there is none.
    links: those that the path passes through, in this order; of a child, the last one alone.
    type: of a dataset or a named datatype, as `/meta` shows it.
    storage: of a dataset.
    members: how many links a group has.
    children: of a group, by name; None where they were not asked for.
    problem: what is damaged, or why the link does not resolve.
    """

    name: str
    path: str
    kind: str
    file: str | None = None
    object_path: str | None = None
    links: tuple[LinkReport, ...] = ()
    type: dict[str, Any] | None = None
    storage: StorageReport | None = None
    members: int | None = None
    children: tuple["Inspection", ...] | None = None
    problem: str | None = None


def inspect_path(lease: Lease, file: OpenFile, path: str, max_hops: int) -> Inspection:
    """What lies at `path` of `file`: a group with its children, a dataset in detail.

    A last link that does not resolve is shown itself. One damaged child hides no other.

    Raises:
        EntityMissing: the path names nothing.
        LinkUnresolved: a link on the way does not resolve.
        FileUnreadable: the object is damaged.
        FileChanged, Overloaded, Unsettled: conditions of the moment; ask again.
    """
    return _Inspector(lease, file, max_hops).inspect(path)


@dataclass(frozen=True, slots=True)
class _Inspector:
    lease: Lease
    file: OpenFile
    max_hops: int

    def inspect(self, path: str) -> Inspection:
        names = components(encoded(path))
        before = (b"/".join(names[:count]) for count in range(1, len(names) + 1))
        found = (self._link(_as_path(each)) for each in before)
        links = tuple(each for each in found if each is not None)
        entity = walk(self.lease, self.file, path, LinkResolution.ONLY_VALID, self.max_hops)
        if not isinstance(entity, Resolved):
            return self._dangling(entity, links)
        try:
            return self._object(entity, path, links, detailed=True)
        except LIBRARY_ERRORS as error:
            detail = f"{entity.path} is damaged ({libhdf5_reason(error)})"
            raise FileUnreadable(entity.file.place.name, detail) from error

    def _link(self, path: str) -> LinkReport | None:
        """The last link of `path`, None if it is a hard one."""
        entity = walk(self.lease, self.file, path, LinkResolution.NONE, self.max_hops)
        if isinstance(entity, Resolved):
            return None
        problem = None
        try:
            walk(self.lease, self.file, path, LinkResolution.ALL, self.max_hops)
        except PASSING:
            raise
        except LinkUnresolved as error:
            problem = error.detail
        except AsgihiveError as error:
            problem = str(error)
        return LinkReport(
            path=entity.path,
            kind=kind_of(entity),
            target_file=entity.target_file if isinstance(entity, ExternalLink) else None,
            target_path=entity.target_path,
            resolves=problem is None,
            problem=problem,
        )

    def _dangling(
        self, entity: SoftLink | ExternalLink, links: tuple[LinkReport, ...]
    ) -> Inspection:
        return Inspection(
            name=_last(entity.path),
            path=entity.path,
            kind=kind_of(entity),
            links=links,
            # Of two links of one name, which only a forged group has, a path finds one.
            problem=links[-1].problem if links else "another link has its name",
        )

    def _object(
        self, entity: Resolved, path: str, links: tuple[LinkReport, ...], *, detailed: bool
    ) -> Inspection:
        object_id = entity.id
        kind_of_type = storage = members = children = None
        if isinstance(object_id, h5g.GroupID):
            if detailed:
                children = self._children(entity, path)
                members = len(children)
            else:
                check_links(entity.file, address_of(object_id))
                members = int(object_id.get_num_objs())
        elif isinstance(object_id, h5d.DatasetID):
            object_id = dataset_refreshed(entity.file, object_id)
            kind_of_type = describe_type(object_id.get_type())
            found = replace(entity, id=object_id)
            reporter = StorageReporter(self.lease, self.file, self.max_hops)
            storage = reporter.report(found, path, detailed=detailed)
        else:
            kind_of_type = describe_type(object_id)
        return Inspection(
            name=_last(entity.path),
            path=entity.path,
            kind=kind_of_object(object_id),
            file=entity.file.place.name,
            object_path="/" + "/".join(map(text, entity.location)),
            links=links,
            type=kind_of_type,
            storage=storage,
            members=members,
            children=children,
        )

    def _children(self, group: Resolved, path: str) -> tuple[Inspection, ...]:
        links = run_at_once(list_links(group.file, group.id))
        return tuple(self._child(path, each.name, each.type) for each in links)

    def _child(self, group_path: str, name: bytes, link_type: int) -> Inspection:
        path = f"{group_path.rstrip('/')}/{_as_path(name)}"
        shown = "/" + "/".join(map(text, components(encoded(path))))
        if b"/" in name:
            # Forged: it can be asked for by no path.
            return Inspection(text(name), shown, "other", problem="its name holds a slash")
        links: tuple[LinkReport, ...] = ()
        try:
            if link_type != h5l.TYPE_HARD:
                link = self._link(path)
                links = () if link is None else (link,)
            only_valid = LinkResolution.ONLY_VALID
            entity = walk(self.lease, self.file, path, only_valid, self.max_hops)
            if isinstance(entity, Resolved):
                return self._object(entity, path, links, detailed=False)
            return self._dangling(entity, links)
        except PASSING:
            raise
        except AsgihiveError as error:
            problem = str(error)
        except LIBRARY_ERRORS as error:
            problem = f"damaged ({libhdf5_reason(error)})"
        return Inspection(text(name), shown, "other", links=links, problem=problem)


def _as_path(name: bytes) -> str:
    """The text that stands for exactly these bytes, see `encoded`."""
    return name.decode("utf-8", "surrogateescape")


def _last(path: str) -> str:
    return path.rsplit("/", 1)[-1]
