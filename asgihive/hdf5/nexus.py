"""What a NeXus file says of its plots: which group is shown first, its signal, its axes.

As the NeXus manual has it ("Find the default plot", "NXdata"), with the older forms that files
still have: the attribute `signal=1` of a dataset, `axes` as one string, and no `default` at all.
All names are as untrusted as any in a file: they lead through `links`, and nothing is done twice.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from h5py import h5l

from asgihive.concurrency import Portions
from asgihive.errors import AsgihiveError
from asgihive.hdf5.datasets import READ_ERRORS
from asgihive.hdf5.entities import (
    AttributeBudget,
    StoredAttributes,
    find_stored_attributes,
    read_stored_attribute,
)
from asgihive.hdf5.file_bytes import split_path, text
from asgihive.hdf5.layout import LayoutKind
from asgihive.hdf5.links import PASSING, LinkResolution, Resolved, walk_below
from asgihive.hdf5.objects import find_root, list_links
from asgihive.hdf5.opening import find_facts, virtual_extent
from asgihive.hdf5.pool import Lease

MAX_DEFAULTS = 16
"""Groups that lead to each other by `default`."""

MAX_SEARCHED = 1000
"""Objects that are looked at for a default that no attribute names."""

MAX_ATTRIBUTE_BYTES = 1 << 16
"""Of an attribute that says something of a plot."""

_SEPARATORS = re.compile("[:,]")

UNREADABLE = (AsgihiveError, *READ_ERRORS)
"""What keeps one object from being looked at, if it is none of `PASSING`."""


@dataclass(frozen=True, slots=True)
class Described:
    """An object and its attributes."""

    entity: Resolved
    stored: StoredAttributes

    @property
    def path(self) -> str:
        """Of the object."""
        return self.entity.path

    def find_value(self, name: str) -> Any:
        """Return the value of a small attribute; None where it is missing or cannot be read."""
        return find_small_attribute(self.entity, self.stored, name.encode())

    def find_texts(self, name: str) -> tuple[str, ...]:
        """Return the strings of a small attribute; none where it has others."""
        value = self.find_value(name)
        values = value.reshape(-1).tolist() if isinstance(value, np.ndarray) else [value]
        if not all(isinstance(each, bytes | str) for each in values):
            return ()
        return tuple(text(each) if isinstance(each, bytes) else each for each in values)

    def find_text(self, name: str) -> str:
        """Return the string of a small attribute; empty where there is none."""
        return next(iter(self.find_texts(name)), "")

    def find_integers(self, name: str) -> tuple[int, ...]:
        """Return the integers of a small attribute; none where it has others."""
        value = np.asarray(self.find_value(name))
        return tuple(map(int, value.reshape(-1))) if value.dtype.kind in "iu" else ()


def find_small_attribute(
    entity: Resolved,
    stored: StoredAttributes,
    name: bytes,
    most_bytes: int = MAX_ATTRIBUTE_BYTES,
) -> Any:
    """Return the value of an attribute; None where it is missing, too large, or not readable.

    Raises:
        FileChanged, FileBeingWritten, Overloaded, Unsettled
    """
    if name not in stored:
        return None
    try:
        return read_stored_attribute(entity, stored, name, AttributeBudget(most_bytes))
    except PASSING:
        raise
    except UNREADABLE:
        return None


def describe(entity: Resolved) -> Described:
    """Return an object with its attributes; none where they are damaged."""
    try:
        return Described(entity, find_stored_attributes(entity))
    except PASSING:
        raise
    except UNREADABLE:
        return Described(entity, {})


def find_member(lease: Lease, group: Resolved, path: str | bytes) -> Resolved | None:
    """Return what a name or path leads to; None where that is nothing."""
    if not split_path(path):
        return None
    try:
        found = walk_below(lease, group, path, LinkResolution.ALL)
    except PASSING:
        raise
    except UNREADABLE:
        return None
    return found if isinstance(found, Resolved) else None


def parse_axes(value: str) -> tuple[str, ...]:
    """Return the names in an attribute `axes` of the older form: `y:x`, `y,x` or `[y,x]`."""
    return tuple(each.strip() for each in _SEPARATORS.split(value.strip("[]")))


def find_default_signal(lease: Lease, start: Resolved) -> Portions[Resolved | None]:
    """Return the dataset that is to be shown first of all below a group; None if none is named.

    Attributes `default` are followed to an NXdata group, and its `signal` to the dataset. Where
    there is no `default`, the first NXdata group of the first NXentry group that has a signal.
    """
    here, seen = start, 0
    for _ in range(MAX_DEFAULTS):
        if here.object.kind == "dataset":
            return here
        group = describe(here)
        signal = yield from find_signal(lease, group)
        if signal is not None:
            return signal
        name, base = group.find_text("default"), here
        if name.startswith("/") and here.file is start.file:
            base = Resolved("/", find_root(here.file))
        below = find_member(lease, base, name)
        if below is None:
            below, count = yield from _find_entered(lease, group, MAX_SEARCHED - seen)
            seen += count
        if below is None:
            return None
        here = below
    return None


def find_signal(lease: Lease, group: Described) -> Portions[Resolved | None]:
    """Return the dataset that a group names as its signal, None where it names none."""
    if group.entity.object.kind != "group":
        return None
    name = group.find_text("signal")
    if name:
        found = find_member(lease, group.entity, name)
        return found if found is not None and found.object.kind == "dataset" else None
    if group.find_text("NX_class") != "NXdata":
        return None
    for each in (yield from _list_members(lease, group.entity, MAX_SEARCHED)):
        if each.object.kind == "dataset" and "1" in _show_number(describe(each)):
            return each
        yield
    return None


def is_signal(group: Described, dataset: Described, name: str) -> bool:
    """Return whether a group has a dataset as its signal, or as one of further ones.

    Args:
        group: that the dataset is in.
        dataset: with its attributes, of which an older one says so.
        name: of the dataset in the group.
    """
    named = (*group.find_texts("signal"), *group.find_texts("auxiliary_signals"))
    is_older = group.find_text("NX_class") == "NXdata" and "1" in _show_number(dataset)
    return name in named or is_older


def _show_number(dataset: Described) -> tuple[str, ...]:
    """Return the older attribute `signal`, which is a number or a string of it."""
    return dataset.find_texts("signal") or tuple(map(str, dataset.find_integers("signal")))


def _find_entered(
    lease: Lease, group: Described, most: int
) -> Portions[tuple[Resolved | None, int]]:
    """Return the first group below that may have a default plot, and how many were looked at."""
    wanted = ("NXdata", "NXentry", "NXsubentry") if group.path != "/" else ("NXentry", "NXdata")
    found: dict[str, Resolved] = {}
    members = yield from _list_members(lease, group.entity, most)
    for each in members:
        if each.object.kind == "group":
            found.setdefault(describe(each).find_text("NX_class"), each)
        yield
    return next((found[each] for each in wanted if each in found), None), len(members)


def _list_members(lease: Lease, group: Resolved, most: int) -> Portions[list[Resolved]]:
    """Return the first members of a group, links followed, without those that cannot be read."""
    try:
        links = yield from list_links(group.object, by_creation=True)
    except PASSING:
        raise
    except UNREADABLE:
        return []
    members = []
    for link in links[: max(0, most)]:
        if b"/" not in link.name:  # else it is forged, and can be asked for by no path
            found = _find_linked(lease, group, link.name, is_hard=link.type == h5l.TYPE_HARD)
            if found is not None:
                members.append(found)
        yield
    return members


def _find_linked(lease: Lease, group: Resolved, name: bytes, *, is_hard: bool) -> Resolved | None:
    # Soft and external links lead anywhere, and each external one opens a file.
    if not is_hard and len(lease.files) > MAX_DEFAULTS:
        return None
    return find_member(lease, group, name)


def find_main_image(lease: Lease, start: Resolved) -> Portions[Resolved | None]:
    """Return the dataset of real numbers with two dimensions or more that a group is about.

    It is the largest one, a stack of frames rather than a mask beside it, of the first group that
    has any: level by level, in the order of their creation, each group once, and `MAX_SEARCHED`
    objects at most. Two dimensions of it are longer than one.
    """
    pending, entered, seen = [start], {(start.file.key, start.object.address)}, 0
    while pending and seen < MAX_SEARCHED:
        group = pending.pop(0)
        members = yield from _list_members(lease, group, MAX_SEARCHED - seen)
        seen += len(members)
        largest, most = None, 0
        for each in members:
            key = (each.file.key, each.object.address)
            if each.object.kind == "group" and key not in entered:
                entered.add(key)
                pending.append(each)
            elif each.object.kind == "dataset":
                size = yield from _measure_image(lease, each)
                if size > most:
                    largest, most = each, size
            yield
        if largest is not None:
            return largest
    return None


def _measure_image(lease: Lease, dataset: Resolved) -> Portions[int]:
    """Return how many values a dataset of images has; 0 = it is none."""
    try:
        facts = find_facts(dataset)
        shape = facts.shape
        if facts.layout.kind is LayoutKind.VIRTUAL:
            shape = yield from virtual_extent(lease, dataset, facts.layout.properties)
    except PASSING:
        raise
    except UNREADABLE:
        return 0
    if shape is None or facts.item_shape or facts.dtype.kind not in "biuf":
        return 0
    return math.prod(shape) if sum(length > 1 for length in shape) > 1 else 0


def find_axes(group: Described, signal: Described, rank: int) -> list[str]:
    """Return the name of the axis of each dimension of a signal; empty where it has none.

    Args:
        group: the NXdata group.
        signal: its signal, which names the axes in older files.
        rank: how many dimensions the signal has.
    """
    names = group.find_texts("axes") or signal.find_texts("axes")
    if len(names) == 1 and rank > 1:
        names = parse_axes(names[0])
    found = [""] * rank
    for position, name in enumerate(names):
        indices = group.find_integers(f"{name}_indices") or (position,)
        is_of_one = len(indices) == 1 and 0 <= indices[0] < rank
        if name not in {"", "."} and is_of_one and not found[indices[0]]:
            found[indices[0]] = name
    return found
