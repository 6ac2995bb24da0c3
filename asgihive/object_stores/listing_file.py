"""The files of a plain web server, which lists none: those that a file beside them names.

Each line is an object of JSON: `{"name": "scans/x.h5", "size": 123, "modified": 1700000000.5}`.
Names are relative to the served prefix, and come from whoever wrote the list.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import msgspec

from asgihive.errors import StoreUnlisted

MAX_LISTING_BYTES = 64 << 20
"""Some half a million names; a longer list is refused."""

MAX_NAME_DEPTH = 64


class _ListedFile(msgspec.Struct, frozen=True):
    name: str
    size: int
    modified: float = 0


_DECODER = msgspec.json.Decoder(_ListedFile)

Folder = tuple[list[str], list[dict[str, Any]]]
"""Paths of the folders in a folder, and its objects, as obstore describes them."""


class ListingFile:
    """The list that a prefix has, or has not; it is asked for again once in a while.

    Args:
        key: of the list.
        fetch: returns the bytes that the key has now; None = it is not there. See `ObjectStore`.
        seconds: for which an answer is trusted.
    """

    def __init__(self, key: str, fetch: Callable[[str], bytes | None], seconds: float) -> None:
        self.key = key
        self._fetch = fetch
        self._seconds = seconds
        self._lock = threading.Lock()
        self._asked = -float("inf")
        self._body: bytes | None = None
        self._folders: dict[str, Folder] | None = None

    def list(self, folder: str) -> Folder | None:
        """Return what is in a folder; None where the prefix has no list.

        Raises:
            StoreUnlisted: there is one that cannot be read.
            StoreUnavailable, StoreRefused
        """
        with self._lock:
            if monotonic() - self._asked >= self._seconds:
                began = monotonic()
                body = self._fetch(self.key)
                if body is None:
                    self._folders = None
                elif body != self._body or self._folders is None:
                    self._folders = parse_listing(body, self.key)
                self._body, self._asked = body, began
            folders = self._folders
        return None if folders is None else folders.get(folder.strip("/"), ([], []))


def parse_listing(body: bytes, key: str) -> dict[str, Folder]:
    """Return what is in each folder of a list; the top is "". Pure.

    Args:
        body: of the list.
        key: of the list itself, which is left out; for messages, too.

    Raises:
        StoreUnlisted: a line is no such object, or names what cannot be a file below a prefix.
    """
    folders: dict[str, tuple[OrderedDict[str, None], dict[str, dict[str, Any]]]] = {}

    def find_folder(path: str) -> tuple[OrderedDict[str, None], dict[str, dict[str, Any]]]:
        found = folders.get(path)
        if found is None:
            found = folders[path] = (OrderedDict(), {})
            if path:
                find_folder(path.rpartition("/")[0])[0][path] = None
        return found

    find_folder("")
    for number, line in enumerate(body.splitlines(), 1):
        if not line.strip():
            continue
        try:
            listed = _DECODER.decode(line)
            moment = datetime.fromtimestamp(listed.modified, UTC)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError, OverflowError, OSError):
            raise StoreUnlisted(
                f'line {number} of {key} is not like {{"name": "x.h5", "size": 123, "modified": 0}}'
            ) from None
        parts = listed.name.split("/")
        if not _is_name(listed, parts):
            raise StoreUnlisted(f"line {number} of {key} names no file below the prefix")
        if listed.name != key:
            described = {"path": listed.name, "size": listed.size, "last_modified": moment}
            find_folder("/".join(parts[:-1]))[1][listed.name] = described
    return {
        path: (list(inside), list(objects.values())) for path, (inside, objects) in folders.items()
    }


def _is_name(listed: _ListedFile, parts: list[str]) -> bool:
    return (
        listed.size >= 0
        and len(parts) <= MAX_NAME_DEPTH
        and "\0" not in listed.name
        and not {"", ".", ".."} & set(parts)
    )
