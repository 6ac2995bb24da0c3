"""Walks a path link by link, so that libhdf5 never follows one out of the served directory."""

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Any

from h5py import h5d, h5g, h5l

from asgihive.concurrency import run_at_once
from asgihive.errors import (
    AsgihiveError,
    EntityMissing,
    FileBeingWritten,
    FileChanged,
    FileMissing,
    FileOutside,
    FileUnreadable,
    LinkUnresolved,
    Overloaded,
)
from asgihive.hdf5.by_address import LINK_ACCESS, HDF5Object, open_object
from asgihive.hdf5.group_links import list_links
from asgihive.hdf5.names import components, encoded, text
from asgihive.hdf5.open_file import OpenFile, Unsettled, libhdf5_reason
from asgihive.hdf5.pool import Lease

MAX_LINK_HOPS = 64
"""Links that are followed for one path."""


class LinkResolution(Enum):
    """Whether the last link of a path is followed."""

    NONE = "none"
    ONLY_VALID = "only_valid"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Resolved:
    """An object at the end of a path.

    path: as it was asked for.
    file: the one it lies in.
    location: the path of hard links that leads to it there.
    """

    path: str
    file: OpenFile
    id: HDF5Object
    location: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class SoftLink:
    """A soft link that is shown itself."""

    path: str
    file: OpenFile
    target_path: str


@dataclass(frozen=True, slots=True)
class ExternalLink:
    """An external link that is shown itself."""

    path: str
    file: OpenFile
    target_file: str
    target_path: str


Entity = Resolved | SoftLink | ExternalLink


def kind_of_object(object_id: HDF5Object) -> str:
    """`group`, `dataset` or `datatype`."""
    if isinstance(object_id, h5d.DatasetID):
        return "dataset"
    return "group" if isinstance(object_id, h5g.GroupID) else "datatype"


def kind_of(entity: Entity) -> str:
    """That of the object, or `soft_link` or `external_link`."""
    if isinstance(entity, SoftLink):
        return "soft_link"
    if isinstance(entity, ExternalLink):
        return "external_link"
    return kind_of_object(entity.id)


class Broken(Exception):  # control flow inside this module
    """A link could not be followed; the message says why.

    target_missing: it could be, if there were a target.
    """

    def __init__(self, why: str, *, target_missing: bool = False) -> None:
        super().__init__(why)
        self.target_missing = target_missing


# Conditions of the moment, which say nothing about a link: those that are over soon, and all.
CHANGING = (FileChanged, Overloaded, Unsettled)
PASSING = (*CHANGING, FileBeingWritten)

# What libhdf5's refusals look like through h5py.
_REFUSALS = (KeyError, OSError, RuntimeError, ValueError, TypeError)


def walk(
    lease: Lease, file: OpenFile, path: str, resolution: LinkResolution, max_hops: int
) -> Entity:
    """What `path` leads to.

    Intermediate links are always followed, the last one as `resolution` says; targets may
    lie in other files of the served directory, which `lease` then holds too.

    Raises:
        EntityMissing: the path names nothing.
        LinkUnresolved: a link that had to be followed is broken, cyclic, or leads outside.
        FileUnreadable: an object on the way is damaged.
    """
    root = Resolved("/", file, file.root)
    return walk_below(lease, root, encoded(path), resolution, max_hops)


def walk_below(
    lease: Lease, group: Resolved, path: bytes, resolution: LinkResolution, max_hops: int
) -> Entity:
    """What `path` leads to from `group` on; otherwise as `walk`."""
    names = components(path)
    shown = "/".join((group.path.rstrip("/"), *(text(name) for name in names))) or "/"
    if b"\0" in path:
        raise EntityMissing(group.file.place.name, shown)
    if not names:
        return group
    walker = _Walker(lease, group, shown, max_hops)
    try:
        for name in names[:-1]:
            walker.enter(name)
        return walker.finish(names[-1], resolution)
    except Broken as reason:
        # A link of a user-defined kind lands here too: it cannot be shown itself.
        raise LinkUnresolved(
            group.file.place.name, shown, str(reason), target_missing=reason.target_missing
        ) from None


class _Walker:
    """A position in a file, moved by one component at a time."""

    def __init__(self, lease: Lease, start: Resolved, shown: str, max_hops: int) -> None:
        self.lease = lease
        self.origin = start.file
        self.shown = shown
        self.file = start.file
        self.object: HDF5Object = start.id
        self.location = list(start.location)
        self.hops_left = max_hops

    def resolved(self) -> Resolved:
        """The object reached."""
        return Resolved(self.shown, self.file, self.object, tuple(self.location))

    def finish(self, name: bytes, resolution: LinkResolution) -> Entity:
        """Take the last step of a path, as `resolution` says."""
        link = None if resolution is LinkResolution.ALL else self.link(name)
        if link is not None and resolution is LinkResolution.NONE:
            return link
        try:
            self.enter(name)
        except Broken:
            if link is None:
                raise
            return link
        return self.resolved()

    def link(self, name: bytes) -> SoftLink | ExternalLink | None:
        """The soft or external link of that name here, None for a hard one."""
        stored, kind, _ = self._look_up(name)
        if kind == h5l.TYPE_SOFT:
            return SoftLink(self.shown, self.file, text(self._value(stored)))
        if kind == h5l.TYPE_EXTERNAL:
            target_file, target_path = self._value(stored)
            return ExternalLink(self.shown, self.file, text(target_file), text(target_path))
        return None

    def enter(self, name: bytes) -> None:
        """Move to what `name` leads to, through as many links as it takes.

        Raises:
            EntityMissing: there is no such name here.
            Broken: there is a link, and it cannot be followed.
        """
        found = self._look_up(name)
        pending: deque[bytes] = deque()
        while True:
            self.lease.go_on()
            stored, kind, address = found
            if kind == h5l.TYPE_HARD:
                self.object = self._open(address)
                self.location.append(stored)
            else:
                pending.extendleft(reversed(self._follow(stored, kind)))
            if not pending:
                return
            component = pending.popleft()
            try:
                found = self._look_up(component)
            except EntityMissing:
                why = f"there is no {text(component)!r} in its target"
                raise Broken(why, target_missing=True) from None

    def _follow(self, name: bytes, kind: int) -> list[bytes]:
        """Move to where a link's target starts; the components that are left to walk."""
        self.hops_left -= 1
        if self.hops_left < 0:
            raise Broken("it is cyclic, or passes through too many links")
        if kind == h5l.TYPE_SOFT:
            target = self._value(name)
            if target.startswith(b"/"):
                self._go_to_root()
            return components(target)
        if kind == h5l.TYPE_EXTERNAL:
            target_file, target = self._value(name)
            try:
                named = target_file.decode("utf-8", "surrogateescape")
                self.file = self.lease.open_linked(self.file, named)
            except PASSING:
                raise
            except AsgihiveError as error:
                is_missing = isinstance(error, FileMissing) and not isinstance(error, FileOutside)
                raise Broken(str(error), target_missing=is_missing) from None
            self._go_to_root()
            return components(target)
        raise Broken("it is of a kind that only its writer can follow")

    def _go_to_root(self) -> None:
        self.object = self.file.root
        self.location.clear()

    def _look_up(self, name: bytes) -> tuple[bytes, int, int]:
        """The name as stored, the type of its link, and the address that a hard one says."""
        if not isinstance(self.object, h5g.GroupID):
            raise EntityMissing(self.origin.place.name, self.shown)
        try:
            return name, *self._info(name)
        except _REFUSALS as error:
            # h5py's versions differ in what they raise for a name that is not there.
            if self._exists(name):
                raise self._damaged(error) from error
            stored = self._stored(name)
            if stored is None:
                raise EntityMissing(self.origin.place.name, self.shown) from None
            try:
                return stored, *self._info(stored)
            except _REFUSALS as damage:
                raise self._damaged(damage) from damage

    def _info(self, name: bytes) -> tuple[int, int]:
        info = self.object.links.get_info(name, lapl=LINK_ACCESS)
        return info.type, info.u

    def _value(self, name: bytes) -> Any:
        """What a link says of its target: a path, or a file and a path."""
        try:
            return self.object.links.get_val(name, lapl=LINK_ACCESS)
        except _REFUSALS as error:
            raise self._damaged(error) from error

    def _exists(self, name: bytes) -> bool:
        try:
            return bool(self.object.links.exists(name, lapl=LINK_ACCESS))
        except _REFUSALS as error:
            raise self._damaged(error) from error

    def _stored(self, name: bytes) -> bytes | None:
        """The one name here that is shown as `name`, when U+FFFD stands in it."""
        wanted = text(name)
        if "\ufffd" not in wanted:
            return None
        try:
            links = run_at_once(list_links(self.file, self.object))
        except _REFUSALS as error:
            raise self._damaged(error) from error
        found = [each.name for each in links if text(each.name) == wanted]
        return found[0] if len(found) == 1 else None

    def _open(self, address: int) -> HDF5Object:
        try:
            found: HDF5Object = open_object(self.file, address)
        except _REFUSALS as error:
            raise self._damaged(error) from error
        return found

    def _damaged(self, error: Exception) -> FileUnreadable:
        reason = libhdf5_reason(error)
        return FileUnreadable(self.file.place.name, f"{self.shown} is damaged ({reason})")
