"""Lists the links of a group, however many they are."""

import heapq
from collections.abc import Callable
from itertools import pairwise
from time import perf_counter
from typing import Any

from h5py import h5, h5g, h5l, h5p

from asgihive.concurrency import Portions
from asgihive.hdf5.objects import LINK_ACCESS, StoredObject, find_links
from asgihive.hdf5.stored_links import Link, tracks_creation
from asgihive.hdf5.structure_checks import check_links

# How long libhdf5 lists without a break. Going on, it passes by those that it had before, some
# 10 ms for a million.
_LISTING_SECONDS = 0.03

# Links that are put in order at once, as sorting holds Python's lock: some milliseconds.
_SORTED_AT_ONCE = 1 << 14


def list_links(group: StoredObject, *, by_creation: bool = False) -> Portions[list[Link]]:
    """Return the links of a group, by name.

    Args:
        group: as it was found.
        by_creation: in the order of their creation where the group keeps track of that.

    Raises:
        LIBRARY_ERRORS: it is damaged.
        NeedsThread: and what `StoredObject.id` raises.
    """
    known = find_links(group)
    if known is not None and group.header is not None:
        is_tracked = by_creation and tracks_creation(group.header)
        return sorted(known.values(), key=_by_creation if is_tracked else _by_name)
    check_links(group.file, group.address)
    links: list[Link] = []
    while _list_more(group.id, links):
        yield
    if by_creation:
        order = group.id.get_create_plist().get_link_creation_order()
        if order & h5p.CRT_ORDER_TRACKED:
            return (yield from _sort(links, _by_creation))
    return (yield from _sort(links, _by_name))


def _by_name(link: Link) -> bytes:
    return link.name


def _by_creation(link: Link) -> int:
    return link.order


def _list_more(group: h5g.GroupID, links: list[Link]) -> bool:
    """Add the next links, as many as there is time for; whether there is another one."""
    ends, before, is_left = perf_counter() + _LISTING_SECONDS, len(links), False

    def note(name: bytes, info: h5l.LinkInfo) -> bool | None:
        nonlocal is_left
        count = len(links)
        if not count & 0xFF and count > before and perf_counter() >= ends:
            is_left = True
            return True
        links.append(Link(name, info.type, info.u, info.corder))
        return None

    # In libhdf5's own order: for any other it makes a table of all links of a large group, as
    # often as it is asked for some, and holds Python's lock for it.
    group.links.iterate(note, lapl=LINK_ACCESS, info=True, order=h5.ITER_NATIVE, idx=before)
    return is_left


def _sort(links: list[Link], key: Callable[[Link], Any]) -> Portions[list[Link]]:
    """Sort in runs, which are merged unless they are in order already."""
    runs = []
    for start in range(0, len(links), _SORTED_AT_ONCE):
        runs.append(sorted(links[start : start + _SORTED_AT_ONCE], key=key))
        yield
    if all(key(one[-1]) <= key(next_[0]) for one, next_ in pairwise(runs)):
        return [link for run in runs for link in run]
    merged: list[Link] = []
    for link in heapq.merge(*runs, key=key):
        merged.append(link)
        if not len(merged) & 0xFF:
            yield
    return merged
