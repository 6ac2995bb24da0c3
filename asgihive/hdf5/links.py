"""Walks a path link by link, so that libhdf5 never follows one out of the served directory.

All paths below a group are listed the same way.

libhdf5's own walk (H5Lvisit) enters what it finds by name, through external links out of the
served directory if names are forged, and by recursion: some ten thousand nested groups end the
process. The one here goes by address, and keeps what is left to do in a list.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from h5py import h5l

from asgihive.concurrency import Portions, run_at_once
from asgihive.errors import (
    AsgihiveError,
    EntityMissing,
    FileBeingWritten,
    FileChanged,
    FileMissing,
    FileOutside,
    FileUnreadable,
    KindMismatch,
    LinkUnresolved,
    Overloaded,
    StoreError,
    TooManyPaths,
)
from asgihive.hdf5.file_bytes import allow_waiting, decoded, split_path, text
from asgihive.hdf5.objects import (
    LINK_ACCESS,
    StoredObject,
    find_links,
    find_listed_object,
    find_object,
    find_root,
    list_links,
)
from asgihive.hdf5.open_file import OpenFile, Unsettled, libhdf5_reason
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.stored_metadata import Link
from asgihive.hdf5.types import LIBRARY_ERRORS

ENTERED_INLINE = 64
"""Objects on the way of one path on the event loop; each takes some 0.1 ms."""

MAX_LINK_HOPS = 64
"""Links that are followed for one path."""


# What libhdf5's refusals look like through h5py.
_REFUSALS = (KeyError, OSError, RuntimeError, ValueError, TypeError)


class LinkResolution(Enum):
    """Whether the last link of a path is followed."""

    NONE = "none"
    ONLY_VALID = "only_valid"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Resolved:
    """An object at the end of a path.

    Attributes:
        path: as it was asked for.
        object: what is there.
        location: the path of hard links that leads to it in its file.
    """

    path: str
    object: StoredObject
    location: tuple[bytes, ...] = ()

    @property
    def file(self) -> OpenFile:
        """The file it lies in."""
        return self.object.file

    @property
    def id(self) -> Any:
        """The object as libhdf5 has it open, see `StoredObject.id`.

        Raises:
            FileUnreadable: it is damaged.
        """
        try:
            return self.object.id
        except _REFUSALS as error:
            detail = f"{self.path} is damaged ({libhdf5_reason(error)})"
            raise FileUnreadable(self.file.place.name, detail) from error


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


def kind_of(entity: Entity) -> str:
    """Return the kind of the object, or `soft_link` or `external_link`."""
    if isinstance(entity, SoftLink):
        return "soft_link"
    if isinstance(entity, ExternalLink):
        return "external_link"
    return entity.object.kind


class Broken(Exception):  # control flow inside this module
    """A link could not be followed; the message says why.

    target_missing: it could be, if there were a target.
    """

    def __init__(self, why: str, *, target_missing: bool = False) -> None:
        super().__init__(why)
        self.target_missing = target_missing


# Conditions of the moment, which say nothing about a link: those that are over soon, and all.
CHANGING = (FileChanged, Overloaded, Unsettled, StoreError)
PASSING = (*CHANGING, FileBeingWritten)


def walk(lease: Lease, file: OpenFile, path: str, resolution: LinkResolution) -> Entity:
    """Return what `path` leads to.

    Intermediate links are always followed, the last one as `resolution` says; targets may
    lie in other files of the served directory, which `lease` then holds too.

    Raises:
        EntityMissing: the path names nothing.
        LinkUnresolved: a link that had to be followed is broken, cyclic, or leads outside.
        FileUnreadable: an object on the way is damaged.
    """
    return walk_below(lease, Resolved("/", find_root(file)), path, resolution)


def walk_below(
    lease: Lease, group: Resolved, path: str | bytes, resolution: LinkResolution
) -> Entity:
    """Return what `path` leads to from `group` on; otherwise as `walk`."""
    file, names = group.object.file.place.name, split_path(path)
    shown = "/".join((group.path.rstrip("/"), *map(text, names))) or "/"
    if "\0" in shown:
        raise EntityMissing(file, shown)
    if not names:
        return group
    walker = _Walker(lease, group.object, list(group.location), file, shown)
    link = None
    try:
        for name in names[:-1]:
            walker.enter(name)
        if resolution is not LinkResolution.ALL:
            link = walker.find_link(names[-1])
            if link is not None and resolution is LinkResolution.NONE:
                return link
        walker.enter(names[-1])
    except Broken as reason:
        if link is not None:
            return link
        # A link of a user-defined kind lands here too: it cannot be shown itself.
        missing = reason.target_missing
        raise LinkUnresolved(file, shown, str(reason), target_missing=missing) from None
    return Resolved(shown, walker.object, tuple(walker.location))


@dataclass(slots=True, eq=False)
class _Walker:
    """A position in a file, moved by one component at a time.

    Attributes:
        lease: holds every file on the way.
        object: that the walk is at.
        location: the hard links that lead there in its file.
        origin: the name of the file that the walk began in.
        shown: the path that is walked.
        hops: links that were followed.
        entered: objects on the way.
    """

    lease: Lease
    object: StoredObject
    location: list[bytes]
    origin: str
    shown: str
    hops: int = 0
    entered: int = 0

    def find_link(self, name: bytes) -> SoftLink | ExternalLink | None:
        """Return the soft or external link of that name here, None for a hard one."""
        found = self._look_up(name)
        if found.type == h5l.TYPE_SOFT:
            return SoftLink(self.shown, self.object.file, text(self._target(found)))
        if found.type == h5l.TYPE_EXTERNAL:
            file, path = self._target(found)
            return ExternalLink(self.shown, self.object.file, text(file), text(path))
        return None

    def enter(self, name: bytes) -> None:
        """Move to what `name` leads to, through as many links as it takes.

        Raises:
            EntityMissing: there is no such name here.
            Broken: there is a link, and it cannot be followed.
            NeedsThread: the way is too long for the event loop.
        """
        found = self._look_up(name)
        pending: deque[bytes] = deque()
        while True:
            self.lease.go_on()
            self.entered += 1
            if self.entered > ENTERED_INLINE:
                allow_waiting()
            if found.type == h5l.TYPE_HARD:
                try:
                    self.object = find_object(self.object.file, found.address)
                except _REFUSALS as error:
                    raise self._damaged(error) from error
                self.location.append(found.name)
            else:
                pending.extendleft(reversed(self._follow(found)))
            if not pending:
                return
            component = pending.popleft()
            try:
                found = self._look_up(component)
            except EntityMissing:
                why = f"there is no {text(component)!r} in its target"
                raise Broken(why, target_missing=True) from None

    def _follow(self, link: Link) -> list[bytes]:
        """Move to where a link's target starts; return the components that are left to walk."""
        self.hops += 1
        if self.hops > MAX_LINK_HOPS:
            raise Broken("it is cyclic, or passes through too many links")
        if link.type == h5l.TYPE_SOFT:
            target = self._target(link)
            if target.startswith(b"/"):
                self._go_to_root(self.object.file)
            return split_path(target)
        if link.type == h5l.TYPE_EXTERNAL:
            target_file, target = self._target(link)
            try:
                file = self.lease.open_linked(self.object.file, decoded(target_file))
            except PASSING:
                raise
            except AsgihiveError as error:
                is_missing = isinstance(error, FileMissing) and not isinstance(error, FileOutside)
                raise Broken(str(error), target_missing=is_missing) from None
            self._go_to_root(file)
            return split_path(target)
        raise Broken("it is of a kind that only its writer can follow")

    def _go_to_root(self, file: OpenFile) -> None:
        self.object = find_root(file)
        self.location.clear()

    def _look_up(self, name: bytes) -> Link:
        """Return the link of that name, or the one link that is shown by it.

        Raises:
            EntityMissing: there is none, or this is no group.
        """
        if self.object.kind != "group":
            raise EntityMissing(self.origin, self.shown)
        links = find_links(self.object)
        if links is None:
            return self._look_up_by_library(name)
        link = links.get(name)
        if link is None and "\ufffd" in (wanted := text(name)):
            shown = [each for each in links.values() if text(each.name) == wanted]
            link = shown[0] if len(shown) == 1 else None
        if link is None:
            raise EntityMissing(self.origin, self.shown)
        return link

    def _look_up_by_library(self, name: bytes) -> Link:
        try:
            return self._ask(name)
        except _REFUSALS as error:
            # h5py's versions differ in what they raise for a name that is not there.
            if self._exists(name):
                raise self._damaged(error) from error
            stored = self._stored(name)
            if stored is None:
                raise EntityMissing(self.origin, self.shown) from None
            try:
                return self._ask(stored)
            except _REFUSALS as damage:
                raise self._damaged(damage) from damage

    def _ask(self, name: bytes) -> Link:
        info = self.object.id.links.get_info(name, lapl=LINK_ACCESS)
        return Link(name, info.type, info.u, info.corder)

    def _target(self, link: Link) -> Any:
        """Return what a link says of its target: a path, or a file and a path."""
        if link.target is not None:
            return link.target
        try:
            return self.object.id.links.get_val(link.name, lapl=LINK_ACCESS)
        except _REFUSALS as error:
            raise self._damaged(error) from error

    def _exists(self, name: bytes) -> bool:
        try:
            return bool(self.object.id.links.exists(name, lapl=LINK_ACCESS))
        except _REFUSALS as error:
            raise self._damaged(error) from error

    def _stored(self, name: bytes) -> bytes | None:
        """Return the one name here that is shown as `name`, when U+FFFD stands in it."""
        wanted = text(name)
        if "\ufffd" not in wanted:
            return None
        try:
            links = run_at_once(list_links(self.object))
        except _REFUSALS as error:
            raise self._damaged(error) from error
        found = [each.name for each in links if text(each.name) == wanted]
        return found[0] if len(found) == 1 else None

    def _damaged(self, error: Exception) -> FileUnreadable:
        reason = libhdf5_reason(error)
        file = self.object.file.place.name
        return FileUnreadable(file, f"{self.shown} is damaged ({reason})")


# Characters of all paths of one answer: nested groups make few paths long.
MAX_PATHS_CHARACTERS = 64 << 20


def list_paths(
    lease: Lease, entity: Entity, resolution: LinkResolution, max_paths: int
) -> Portions[list[str]]:
    """Return the path of a group and of every link below it, depth first, by name.

    Every group is entered once, by whatever hard link comes first. Soft and external links are
    listed, never entered; with `LinkResolution.ALL` each must be resolvable.

    Args:
        max_paths: paths in the answer.

    Raises:
        KindMismatch: `entity` is no group.
        LinkUnresolved: with `ALL`, a link below cannot be followed.
        FileUnreadable: an object below is damaged.
        TooManyPaths: there are more, or their names are too long.
    """
    if not isinstance(entity, Resolved) or entity.object.kind != "group":
        kind = kind_of(entity).replace("_", " ")
        raise KindMismatch(entity.file.place.name, entity.path, kind, "a group")
    return (yield from _PathWalk(lease, entity, resolution, max_paths).walk())


@dataclass(slots=True, eq=False)
class _PathWalk:
    """A walk below one group.

    Of a group that is entered nothing is kept but the links that are left, so that neither
    open objects nor the stack grow with the depth.
    """

    _lease: Lease
    _start: Resolved
    _resolution: LinkResolution
    _max_paths: int
    _characters: int = 0
    _paths: list[str] = field(default_factory=list)

    def walk(self) -> Portions[list[str]]:
        """Return the paths."""
        start = self._start
        self._add(start.path)
        try:
            address = start.object.address
            links = yield from self._links(start.object)
        except LIBRARY_ERRORS as error:
            raise self._damaged(start.path, error) from error
        pending = [("" if start.path == "/" else start.path, address, links)]
        entered = {address}
        while pending:
            group, group_address, links = pending[-1]
            if not links:
                pending.pop()
                continue
            name, kind, address, *_ = links.pop()
            path = f"{group}/{text(name)}"
            self._add(path)
            if kind != h5l.TYPE_HARD:
                self._check_link(group, group_address, name)
            elif address not in entered:
                below = yield from self._enter(path, address)
                if below is not None:
                    entered.add(address)
                    pending.append((path, address, below))
            yield
        return self._paths

    def _add(self, path: str) -> None:
        self._characters += len(path)
        self._paths.append(path)
        if len(self._paths) > self._max_paths or self._characters > MAX_PATHS_CHARACTERS:
            file = self._start.file.place.name
            raise TooManyPaths(file, self._start.path, self._max_paths, MAX_PATHS_CHARACTERS)

    def _enter(self, path: str, address: int) -> Portions[list[Link] | None]:
        """Return the links of the group at `address`; None when it is no group."""
        try:
            found = find_listed_object(self._start.file, address)
            return (yield from self._links(found)) if found.kind == "group" else None
        except LIBRARY_ERRORS as error:
            raise self._damaged(path, error) from error

    def _check_link(self, group: str, address: int, name: bytes) -> None:
        """With `LinkResolution.ALL`, follow the link `name` of a group."""
        if self._resolution is not LinkResolution.ALL:
            return
        try:
            found = find_listed_object(self._start.file, address)
        except LIBRARY_ERRORS as error:
            raise self._damaged(group, error) from error
        here = Resolved(group or "/", found)
        walk_below(self._lease, here, name, self._resolution)

    def _links(self, group: StoredObject) -> Portions[list[Link]]:
        """Return the links of a group, the last one first."""
        links = yield from list_links(group)
        links.reverse()
        return links

    def _damaged(self, path: str, error: Exception) -> FileUnreadable:
        detail = f"{path} is damaged ({libhdf5_reason(error)})"
        return FileUnreadable(self._start.file.place.name, detail)
