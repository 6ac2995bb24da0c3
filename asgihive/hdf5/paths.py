"""Lists all paths below a group.

libhdf5's own walk (H5Lvisit) enters what it finds by name, through external links out of the
served directory if names are forged, and by recursion: some ten thousand nested groups end the
process. This one goes by address, and keeps what is left to do in a list.
"""

from h5py import h5l

from asgihive.concurrency import Portions
from asgihive.errors import FileUnreadable, KindMismatch, TooManyPaths
from asgihive.hdf5.entities import LIBRARY_ERRORS
from asgihive.hdf5.links import Entity, LinkResolution, Resolved, kind_of, walk_below
from asgihive.hdf5.names import text
from asgihive.hdf5.objects import StoredObject, find_listed_object, list_links
from asgihive.hdf5.open_file import libhdf5_reason
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.stored_links import Link

# Characters of all paths of one answer: nested groups make few paths long.
MAX_PATHS_CHARACTERS = 64 << 20


def list_paths(
    lease: Lease, entity: Entity, resolution: LinkResolution, max_hops: int, max_paths: int
) -> Portions[list[str]]:
    """Return the path of a group and of every link below it, depth first, by name.

    Every group is entered once, by whatever hard link comes first. Soft and external links are
    listed, never entered; with `LinkResolution.ALL` each must be resolvable.

    Args:
        max_hops: links followed for one path.
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
    return (yield from _PathWalk(lease, entity, resolution, max_hops, max_paths).walk())


class _PathWalk:
    """A walk below one group.

    Of a group that is entered nothing is kept but the links that are left, so that neither
    open objects nor the stack grow with the depth.
    """

    def __init__(
        self,
        lease: Lease,
        start: Resolved,
        resolution: LinkResolution,
        max_hops: int,
        max_paths: int,
    ) -> None:
        self._lease = lease
        self._start = start
        self._resolution = resolution
        self._max_hops = max_hops
        self._max_paths = max_paths
        self._characters = 0
        self._paths: list[str] = []

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
        walk_below(self._lease, here, name, self._resolution, self._max_hops)

    def _links(self, group: StoredObject) -> Portions[list[Link]]:
        """Return the links of a group, the last one first."""
        links = yield from list_links(group)
        links.reverse()
        return links

    def _damaged(self, path: str, error: Exception) -> FileUnreadable:
        detail = f"{path} is damaged ({libhdf5_reason(error)})"
        return FileUnreadable(self._start.file.place.name, detail)
