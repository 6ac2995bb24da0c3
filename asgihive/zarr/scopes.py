"""Groups as what gives names to dimensions: each with those above it, by the path that is walked.

A dimension has the name of the dataset that is its scale, or its axis in NeXus, where that lies in
the array's own group or in one above it, and where nothing on the way has the same name and means
something else.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from h5py import h5l

from asgihive.concurrency import Portions
from asgihive.errors import EntityMissing
from asgihive.hdf5.file_bytes import decoded, encoded, text
from asgihive.hdf5.links import PASSING, LinkResolution, Resolved, walk_below
from asgihive.hdf5.objects import StoredObject, find_listed_object, list_links
from asgihive.hdf5.opening import find_facts
from asgihive.hdf5.pool import Lease, ObjectKey
from asgihive.hdf5.stored_metadata import Link
from asgihive.zarr.dimensions import may_be_wanted
from asgihive.zarr.names import publish_in_portions
from asgihive.zarr.object_attributes import LEFT_OUT, ObjectAttributes, read_object_attributes

_MAX_SIBLINGS = 256
"""Members of a group that are searched for what only they say of their dimensions."""


@dataclass(frozen=True, slots=True)
class _Scale:
    """A dataset that gives a dimension its name and size."""

    key: ObjectKey
    size: int


@dataclass(slots=True, eq=False)
class GroupScope:
    """A group, with those above it, whose dimensions are also its own."""

    lease: Lease
    group: Resolved
    path: str
    """By the real names."""

    parent: "GroupScope | None"

    is_top: bool = False
    """Whether this is the group that a client opens: names need not fit to those above."""

    links: dict[bytes, Link] = field(default_factory=dict)
    published: dict[bytes, str] = field(default_factory=dict)

    names: frozenset[str] = frozenset()
    """The published names of all members."""

    axes: tuple[str, ...] = ()
    """Of NeXus, in the order of the dimensions of its arrays."""

    other_axes: frozenset[str] = frozenset()
    """Of NeXus, which its arrays name themselves."""

    places: dict[ObjectKey, bytes] = field(default_factory=dict)
    """The names of members by the objects that they are."""

    _scales: dict[bytes, _Scale | None] = field(default_factory=dict)
    _wanted: dict[ObjectKey, tuple[str, int] | None] = field(default_factory=dict)
    """Name and size of the dimension that a scale gives here; None = it gives none."""

    @property
    def key(self) -> ObjectKey:
        """The group, by which it is known again."""
        return self.group.file.key, self.group.object.address

    def join(self, name: bytes) -> str:
        """Return the path of a member, by the real names."""
        return f"{self.path.rstrip('/')}/{decoded(name)}"

    def find_member(self, name: bytes) -> Resolved:
        """Return what a link of the group leads to; raises what says why that is nothing."""
        link, group = self.links[name], self.group
        if link.type == h5l.TYPE_HARD:
            found = find_listed_object(group.file, link.address)
            return Resolved(self.join(name), found, (*group.location, name))
        entity = walk_below(self.lease, group, name, LinkResolution.ALL)
        if not isinstance(entity, Resolved):  # all links are followed
            raise EntityMissing(group.file.place.name, self.join(name))
        return entity

    def find_dimensions(
        self, found: Resolved, shape: tuple[int, ...], said: ObjectAttributes, *, is_scale: bool
    ) -> list[str | None]:
        """Return the names that the file has for the dimensions of a dataset in this group.

        Args:
            found: the dataset.
            shape: its extent.
            said: its attributes.
            is_scale: whether it is a dimension scale.
        """
        keys: list[ObjectKey | None] = [None] * len(shape)
        own = found.file.key, found.object.address
        addresses = said.find_scale_addresses()
        if len(shape) == 1 and (is_scale or self._is_axis(own)):
            keys = [own]
        elif addresses and len(addresses) == len(shape):
            keys = [(found.file.key, each) if each else None for each in addresses]
        elif self.axes or b"axes" in said.stored:
            axes = said.find_axes() or self.axes
            if len(axes) == len(shape):
                scales = [self.find_scale(encoded(each)) for each in axes]
                keys = [None if each is None else each.key for each in scales]
        return [
            None if key is None else self._name_dimension(key, size)
            for key, size in zip(keys, shape, strict=True)
        ]

    def _is_axis(self, key: ObjectKey) -> bool:
        name = self.places.get(key) if self.axes or self.other_axes else None
        return name is not None and self._is_named_axis(name)

    def _is_named_axis(self, name: bytes) -> bool:
        return text(name) in self.axes or text(name) in self.other_axes

    def _name_dimension(self, key: ObjectKey, size: int) -> str | None:
        """Return the name that a scale gives to a dimension of an array here, if any."""
        if key not in self._wanted:
            self._wanted[key] = self._find_name(key)
        found = self._wanted[key]
        return found[0] if found is not None and found[1] == size else None

    def _find_name(self, key: ObjectKey) -> tuple[str, int] | None:
        above = list(self._walk_up())
        home = next((each for each in above if key in each.places), None)
        if home is None:
            return None
        name = home.places[key]
        scale, published = home.find_scale(name), home.published[name]
        if scale is None or not may_be_wanted(published):
            return None
        tops = (number for number, each in enumerate(above) if each.is_top)
        end = max(above.index(home), next(tops, 0))
        for each in above[: end + 1]:
            for other in {name, published.encode()} & each.links.keys():
                found = each.find_scale(other)
                # In the own group, xarray takes no other variable of the name of a dimension.
                is_in_the_way = each is self or found is not None
                if is_in_the_way and (found is None or found.key != key):
                    return None
        return published, scale.size

    def _walk_up(self) -> "Iterator[GroupScope]":
        """Yield this group and those above it."""
        scope: GroupScope | None = self
        while scope is not None:
            yield scope
            scope = scope.parent

    def find_scale(self, name: bytes) -> _Scale | None:
        """Return the scale, or axis of NeXus, that a member is."""
        if name not in self._scales:
            self._scales[name] = self._look_for_scale(name)
        return self._scales[name]

    def _look_for_scale(self, name: bytes) -> _Scale | None:
        if name not in self.published:
            return None
        try:
            found = self.find_member(name)
            if found.object.kind != "dataset":
                return None
            facts = find_facts(found)
            is_scale = self._is_named_axis(name) or read_object_attributes(found).is_scale
        except PASSING:
            raise
        except LEFT_OUT:
            return None
        if not is_scale or facts.shape is None or len(facts.shape) != 1 or facts.item_shape:
            return None
        key = found.file.key, found.object.address
        self.places.setdefault(key, name)
        return _Scale(key, facts.shape[0])


def enter_group(
    lease: Lease, found: Resolved, path: str, parent: GroupScope | None
) -> Portions[GroupScope]:
    """Return a group as what gives names to dimensions.

    Args:
        lease: holds every file that a link leads to.
        found: the group.
        path: by its real names.
        parent: the group above it on this path.

    Raises:
        AsgihiveError, LIBRARY_ERRORS: it is damaged.
    """
    # libhdf5 has it not open: there may be thousands.
    forgotten = StoredObject(found.file, found.object.address, found.object.header)
    scope = GroupScope(lease, replace(found, object=forgotten), path, parent)
    # In the order that its writer meant, where the group keeps track of that.
    links = yield from list_links(found.object, by_creation=True)
    scope.links = {link.name: link for link in links}
    scope.published = yield from publish_in_portions(scope.links)
    scope.names = frozenset(scope.published.values())
    places, file = scope.places, found.file.key
    for number, link in enumerate(links, 1):
        if not number & 0xFFF:
            yield
        if link.type == h5l.TYPE_HARD and link.name in scope.published:
            # Of several names of one dataset, the first gives its name to dimensions.
            key = file, link.address
            if key not in places or link.name < places[key]:
                places[key] = link.name
    said = read_object_attributes(found)
    scope.axes = said.find_axes()
    if len(links) <= _MAX_SIBLINGS and said.find_text(b"NX_class") == b"NXdata":
        yield from _collect_axes(scope)
    return scope


def _collect_axes(scope: GroupScope) -> Portions[None]:
    """Note the axes that the arrays of a group name themselves, and what linked members are."""
    named: set[str] = set()
    for name in scope.published:
        try:
            found = scope.find_member(name)
            scope.places.setdefault((found.file.key, found.object.address), name)
            if found.object.kind == "dataset":
                named.update(read_object_attributes(found).find_axes())
        except PASSING:
            raise
        except LEFT_OUT:
            continue
        yield
    scope.other_axes = frozenset(named)
