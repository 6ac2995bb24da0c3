"""The entries of a folder in an object store: common prefixes of keys, and objects."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from asgihive.errors import FileMissing
from asgihive.hdf5.directory import EntryStatus, Listing, ListingRequest, OpenDirectory
from asgihive.object_stores.sandbox import ObjectSandbox

HDF5_SUFFIXES = (
    *(".h5", ".hdf5", ".hdf", ".he5", ".h5ad", ".nxs", ".nx5", ".nexus", ".cxi", ".nc", ".nc4"),
    *(".mat", ".jld2", ".loom", ".emd", ".dx", ".ndx", ".sxm", ".kea"),
)
"""What the names of HDF5 files end in. To look into each object would take a request for each."""


class ObjectListing(Listing):
    """The first entries of a folder, or of many, in some order.

    Which objects are HDF5 is told by their names, see `HDF5_SUFFIXES`; others can be read as well.

    Args:
        sandbox: the served prefix.
        request: what is asked for.
    """

    def __init__(self, sandbox: ObjectSandbox, request: ListingRequest) -> None:
        super().__init__(sandbox, request)
        self._objects = sandbox
        self._folders: dict[str, _ObjectFolder] = {}

    def open_directory(self, name: str) -> AbstractContextManager[OpenDirectory]:
        """Return a context in which a folder is open, which is asked for once."""
        folder = self._folders.get(name)
        if folder is None:
            folder = self._folders[name] = self._list(name)
        return nullcontext(folder)

    def _list(self, name: str) -> "_ObjectFolder":
        key = self._objects.find_key(self._objects.directory(name))
        found = self._objects.store.list(key)
        if found is None and key:
            is_object = self._objects.identify(name) is not None
            raise FileMissing(name, "it is no directory" if is_object else "")
        prefixes, objects = found or ([], [])
        folder = _ObjectFolder()
        for each in objects:
            status = EntryStatus(each["size"], int(each["last_modified"].timestamp()) * 10**9)
            folder.entries[each["path"].rpartition("/")[2]] = status
        for path in prefixes:  # an object of that name marks the folder, or is hidden by it
            folder.entries[path.rpartition("/")[2]] = EntryStatus(None, 0)
        return folder


@dataclass(slots=True)
class _ObjectFolder:
    """A folder as it was listed, see `OpenDirectory`."""

    entries: dict[str, EntryStatus] = field(default_factory=dict)

    def scan_names(self) -> Iterator[tuple[str, bool]]:
        for name, status in self.entries.items():
            if name and not name.startswith("."):
                yield name, status.size is None

    def find_status(self, name: str) -> EntryStatus | None:
        return self.entries.get(name)

    def is_hdf5(self, name: str, _status: EntryStatus) -> bool:
        return name.lower().endswith(HDF5_SUFFIXES)
