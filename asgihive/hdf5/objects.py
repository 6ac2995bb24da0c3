"""Objects of a file by their address, so that libhdf5 follows no link by itself.

A name is no proof of what it leads to: a forged group may hold two links of one name, or a name
with a slash in it, and libhdf5 takes the first for the other one and the second for a path. So an
object is opened by the address in the very link that was looked at, and never by name again.
"""

import contextlib
import ctypes
import functools
import heapq
import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from operator import attrgetter
from time import perf_counter
from typing import Any, TypeAlias

import h5py
import numpy as np
from h5py import h5, h5a, h5d, h5f, h5g, h5i, h5l, h5p, h5r, h5s, h5t
from h5py._objects import phil

from asgihive.concurrency import Portions
from asgihive.hdf5.file_bytes import NotPlain, allow_waiting, find_in_libhdf5
from asgihive.hdf5.headers import LINK_INFO, ObjectHeader, read_header
from asgihive.hdf5.layout import find_properties
from asgihive.hdf5.open_file import OpenFile, address_of, dataset_refreshed
from asgihive.hdf5.stored_metadata import TRACKED, Link, read_links
from asgihive.hdf5.structure_checks import check_links, check_object

HDF5Object: TypeAlias = h5g.GroupID | h5d.DatasetID | h5t.TypeID

# What libhdf5 calls before it opens the file of an external link (H5Pset_elink_cb): file and
# path of the link, file and path of its target, access flags, access properties, and data.
_ELINK_CALLBACK = ctypes.CFUNCTYPE(
    *(ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p),
    *(ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p),
)


def _refuse(*_arguments: object) -> int:
    return -1


# It must live as long as the properties that hold it.
_REFUSAL = _ELINK_CALLBACK(_refuse)


def make_link_access() -> h5p.PropLAID:
    """Return link access without a way out of the file: the second line behind `open_object`.

    A build that hides the callback has the first line alone.
    """
    access = h5p.create(h5p.LINK_ACCESS)
    # One link is the least that libhdf5 accepts.
    access.set_nlinks(1)
    types = (ctypes.c_int64, _ELINK_CALLBACK, ctypes.c_void_p)
    set_callback = find_in_libhdf5("H5Pset_elink_cb", ctypes.c_int, *types)
    if set_callback is not None:
        set_callback(access.id, _REFUSAL, None)
    return access


# To be passed wherever libhdf5 gets the name of a link.
LINK_ACCESS = make_link_access()


class ReferenceOpener:
    """Opens objects through h5py's public names alone, with an object reference made by hand.

    An object reference is an address (HDF5 File Format Specification 3.0, section IV.A.2.d). h5py
    makes none of an address, but it reads those that were written as bytes: here into the
    attribute of a file in memory.
    """

    def __init__(self) -> None:
        access = h5p.create(h5p.FILE_ACCESS)
        access.set_fapl_core(1 << 12, False)
        # libhdf5 refuses a second file of one name, even in memory.
        name = b"asgihive references %d" % id(self)
        self._file = h5f.create(name, h5f.ACC_TRUNC, fapl=access)
        scalar = h5s.create(h5s.SCALAR)
        self._attribute = h5a.create(self._file, b"reference", h5t.STD_REF_OBJ, scalar)
        self._lock = threading.Lock()

    def __call__(self, parent: h5g.GroupID, address: int) -> HDF5Object:
        reference = np.zeros((), h5py.ref_dtype)
        with self._lock:
            self._attribute.write(np.array(address, np.uint64), h5t.STD_REF_OBJ)
            self._attribute.read(reference)
        found = h5r.dereference(reference[()], parent)
        if found is None:
            message = "There is no object at address 0"
            raise KeyError(message)
        return found

    def find_address(self, reference: h5r.Reference) -> int:
        """Return the address that an object reference is."""
        address = np.zeros((), np.uint64)
        with self._lock:
            self._attribute.write(np.array(reference, h5py.ref_dtype))
            self._attribute.read(address, h5t.STD_REF_OBJ)
        return int(address)


@functools.cache
def _make_reference_opener() -> ReferenceOpener:
    return ReferenceOpener()


def find_referenced_address(reference: h5r.Reference) -> int:
    """Return the address of the header of the object that a reference leads to."""
    return _make_reference_opener().find_address(reference)


class DirectOpener:
    """Opens objects by H5Oopen_by_addr: 20 µs, where the other takes 50."""

    def __init__(self, function: Callable[..., int]) -> None:
        self._function = function

    def __call__(self, parent: h5g.GroupID, address: int) -> HDF5Object:
        with phil:
            identifier = self._function(parent.id, address)
            if identifier >= 0:
                found: HDF5Object = h5i.wrap_identifier(identifier)
                return found
        # Why it failed is said by h5py, of its own calls alone.
        return _make_reference_opener()(parent, address)


def find_opener() -> Callable[[h5g.GroupID, int], HDF5Object]:
    """Return the fastest way to open an object that this build of libhdf5 has."""
    types = (ctypes.c_int64, ctypes.c_uint64)
    function = find_in_libhdf5("H5Oopen_by_addr", ctypes.c_int64, *types)
    return _make_reference_opener() if function is None else DirectOpener(function)


_open = find_opener()


def open_object(file: OpenFile, address: int) -> Any:
    """Return the object at `address` of `file` as libhdf5 has it open. In the library lane.

    Args:
        file: that it lies in.
        address: in bytes, relative to where HDF5 begins in the file, as links have it.

    Raises:
        KeyError, OSError, RuntimeError, ValueError, TypeError: there is none, or it is damaged.
        NeedsThread: and what `Handle.library` raises.
    """
    allow_waiting()
    check_object(file, address)
    found = _open(file.root, address)
    return dataset_refreshed(file, found) if isinstance(found, h5d.DatasetID) else found


@dataclass(slots=True, eq=False)
class StoredObject:
    """An object of a file: what its header says, and what libhdf5 has open of it.

    Attributes:
        file: that it lies in.
        address: of its header.
        header: its messages; None = only libhdf5 can tell.
    """

    file: OpenFile
    address: int
    header: ObjectHeader | None
    _id: HDF5Object | None = None

    @property
    def id(self) -> Any:
        """The object as libhdf5 has it open; it is opened when first asked for.

        Raises as `open_object`.
        """
        allow_waiting()
        if self._id is None:
            self._id = open_object(self.file, self.address)
        return self._id

    def find_properties(self) -> h5p.PropDCID:
        """Return the creation properties of a dataset; raises as `layout.find_properties`."""
        return find_properties(self.id)

    @property
    def kind(self) -> str:
        """`group`, `dataset` or `datatype`."""
        if self.header is not None:
            return self.header.kind
        if isinstance(self.id, h5d.DatasetID):
            return "dataset"
        return "group" if isinstance(self.id, h5g.GroupID) else "datatype"


def find_object(file: OpenFile, address: int) -> StoredObject:
    """Return the object at `address`, opened by libhdf5 only if its header is not plain.

    Raises as `open_object`.
    """
    header = find_header(file, address)
    return StoredObject(file, address, header, None if header else open_object(file, address))


def find_listed_object(file: OpenFile, address: int) -> StoredObject:
    """Return one of the many objects of a listing: its header is read, and not kept.

    Raises:
        NeedsThread
    """
    header = None
    if file.metadata is not None:
        try:  # a context manager would take as long as a small header
            header = read_header(file.metadata, address)
        except NotPlain:
            header = None
    return StoredObject(file, address, header)


def find_root(file: OpenFile) -> StoredObject:
    """Return the root group of a file; raises as `open_object`."""
    if file.metadata is not None:
        header = find_header(file, file.metadata.root)
        if header is not None and header.kind == "group":
            return StoredObject(file, file.metadata.root, header)
    return StoredObject(file, address_of(file.root), None, file.root)


def find_header(file: OpenFile, address: int) -> ObjectHeader | None:
    """Return the header at `address`, None where libhdf5 must look; it is kept.

    Raises:
        NeedsThread
    """
    known = file.handle.headers
    header = known.get(address)
    if header is None and address not in known and file.metadata is not None:
        with contextlib.suppress(NotPlain):
            header = read_header(file.metadata, address)
        if len(known) >= _MAX_HEADERS:
            known.clear()
        if header is None or sum(map(len, header.attributes)) <= _MAX_HEADER_BYTES:
            known[address] = header
    return header


# Of one file, headers that are kept, and bytes of the attributes of one.
_MAX_HEADERS = 256
_MAX_HEADER_BYTES = 1 << 13


def find_links(group: StoredObject) -> dict[bytes, Link] | None:
    """Return the links of a group by name, None where libhdf5 must list them; they are kept.

    Raises:
        NeedsThread
    """
    stored = group.file.metadata
    if group.header is None or stored is None:
        return None
    known = group.file.handle.links
    links = known.get(group.address)
    if links is None:
        try:
            links = read_links(stored, group.header)
        except NotPlain:
            return None
        if sum(map(len, known.values())) + len(links) > _MAX_LINKS:
            known.clear()
        known[group.address] = links
    return links


# Of one file, links that are kept.
_MAX_LINKS = 1 << 13


LISTING_SECONDS = 0.03
"""How long libhdf5 lists without a break; going on takes some 10 ms for a million links before."""

SORTED_AT_ONCE = 1 << 14
"""Links that are put in order at once, as sorting holds Python's lock: some milliseconds."""


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
        info = group.header.messages.get(LINK_INFO)
        is_tracked = by_creation and info is not None and info[1] & TRACKED
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


_by_name, _by_creation = attrgetter("name"), attrgetter("order")


def _list_more(group: h5g.GroupID, links: list[Link]) -> bool:
    """Add the next links, as many as there is time for; whether there is another one."""
    ends, before, is_left = perf_counter() + LISTING_SECONDS, len(links), False

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
    for start in range(0, len(links), SORTED_AT_ONCE):
        runs.append(sorted(links[start : start + SORTED_AT_ONCE], key=key))
        yield
    if all(key(one[-1]) <= key(next_[0]) for one, next_ in pairwise(runs)):
        return [link for run in runs for link in run]
    merged: list[Link] = []
    for link in heapq.merge(*runs, key=key):
        merged.append(link)
        if not len(merged) & 0xFF:
            yield
    return merged
