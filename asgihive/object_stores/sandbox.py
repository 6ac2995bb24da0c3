"""From an untrusted file name to an object below the served prefix, and its identity."""

import posixpath
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import TypeVar

from asgihive.errors import FileMissing, NeedsStore, NeedsThread, StoreUnlisted
from asgihive.hdf5.file_bytes import leaves_for_stores, may_wait
from asgihive.hdf5.remote import RemoteFile
from asgihive.hdf5.sandbox import Identity, Place, Sandbox, StatGuard, is_on_loop
from asgihive.object_stores.object_file import ObjectFile
from asgihive.object_stores.store import ObjectContent, ObjectStore
from asgihive.settings import H5Settings

A = TypeVar("A")
T = TypeVar("T")

# Names whose identity is remembered, also those that name nothing.
_MOST_REMEMBERED = 100_000


class ObjectGuard(StatGuard):
    """Asks a store whether objects are unchanged, each of them once in a while.

    Args:
        store: the objects.
        root: what paths of objects begin with.
        seconds: for which an answer is trusted.
    """

    def __init__(self, store: ObjectStore, root: str, seconds: float) -> None:
        super().__init__()
        self._store = store
        self._root = root
        self._seconds = seconds
        self._lock = threading.Lock()
        self._asked: OrderedDict[str, tuple[float, ObjectContent | None]] = OrderedDict()
        """When it was asked, on the monotonic clock, and what the answer was."""

    def find_identity(self, path: str) -> Identity | None:
        """Return the identity of an object, None where there is none.

        Raises:
            NeedsThread: the store has to be asked, and the thread must not wait.
            NeedsStore: the store has to be asked, and the thread leaves that to the event loop.
            StoreUnavailable, StoreRefused
        """
        content = self.find_content(path.removeprefix(f"{self._root}/"))
        return None if content is None else content.identity

    def find_content(self, key: str) -> ObjectContent | None:
        """Return the content of an object; as `find_identity`."""
        known = self._asked.get(key)
        if known is not None and monotonic() - known[0] < self._seconds:
            return known[1]
        if not may_wait() or is_on_loop():
            raise NeedsThread
        if leaves_for_stores() and self._seconds:
            raise NeedsStore(key, partial(self._ask_soon, key))
        return self.ask_store(key)

    async def _ask_soon(self, key: str) -> None:
        """Ask for the content of an object on the event loop, which every lane finds then."""
        await self._store.ask_once(
            key, partial(self._store.run_in_thread, partial(self.ask_store, key))
        )

    def ask_store(self, key: str) -> ObjectContent | None:
        """Return the content of an object now; in a lane."""
        known = self._asked.get(key)
        began = monotonic()
        content = self._store.look(key, None if known is None else known[1])
        with self._lock:
            self._asked[key] = (began, content)
            self._asked.move_to_end(key)
            while len(self._asked) > _MOST_REMEMBERED:
                self._asked.popitem(last=False)
        return content

    def forget(self, key: str) -> None:
        """Ask at the next occasion: the object is known to have changed."""
        with self._lock:
            known = self._asked.get(key)
            if known is not None:
                self._asked[key] = (-float("inf"), known[1])

    def ask(self, question: Callable[[A], T], argument: A) -> T:
        """Return what `question`, which asks no store, says of `argument`."""
        return question(argument)


class ObjectSandbox(Sandbox):
    """The served prefix of an object store, and the rule of what counts as inside it.

    Objects have no symbolic links, so that a name is the place; and `..` leads nowhere in a key.

    Args:
        url: of the prefix.
        settings: bounds.

    Raises:
        ValueError, ExtraMissing: see `ObjectStore`.
    """

    def __init__(self, url: str, settings: H5Settings) -> None:
        # Nothing of the file system is looked at, as the base does.
        self.store = ObjectStore(url, settings)
        self.root = self.store.url
        self.follow_symlinks = False
        self.guard = ObjectGuard(self.store, self.root, settings.store_identity_seconds)

    def make_guard(self) -> ObjectGuard:
        """Return what asks whether objects are unchanged."""
        return self.guard

    def read_root(self) -> None:
        """List the prefix; a web server that lists nothing is asked whether it answers.

        Raises:
            StoreUnavailable, StoreRefused
        """
        with suppress(StoreUnlisted):
            self.store.list("")

    def root_problem(self) -> str | None:
        """Return None: a store that is away says so by itself."""
        return None

    def _inside(self, name: str, path: str) -> Place:
        try:
            path.encode()
        except UnicodeEncodeError:  # bytes that are not UTF-8 are in no key
            raise FileMissing(name) from None
        return Place(name, path, path)

    def find_key(self, place: Place) -> str:
        """Return the key of a place, relative to the prefix."""
        return place.real.removeprefix(self.root).lstrip("/")

    def open(self, place: Place) -> RemoteFile:
        """Return the content that an object has; in a lane.

        Raises:
            FileMissing: there is no such object.
            StoreUnavailable, StoreRefused
        """
        content = self.guard.find_content(self.find_key(place))
        if content is None:
            raise FileMissing(place.name)
        return ObjectFile(self.store, content, partial(self.guard.forget, content.key))

    def identify(self, name: str) -> Identity | None:
        """Return the identity of the client's file `name`, None where there is none; in a lane."""
        try:
            return self.guard.find_identity(self.place(name).real)
        except FileMissing:
            return None

    def find_leading_file(
        self, parts: Sequence[str], suffix: str, guard: StatGuard
    ) -> tuple[str, int, Identity] | None:
        """Return the object that the first of some names lead to, as `Sandbox` does of files.

        Each name before it is asked for as well: a key may begin with another key.
        """
        name = ""
        for count, part in enumerate(parts, 1):
            if part in {"", "."}:
                continue
            name = f"{name}/{part}" if name else part
            bare = name.removesuffix(suffix)
            for each in dict.fromkeys((name, bare)):
                if not each or each.endswith("/"):
                    continue
                try:
                    identity = guard.find_identity(self.place(each).real)
                except FileMissing:
                    return None
                if identity is not None:
                    return each, count, identity
        return None

    def linked(self, origin: Place, target: str) -> list[Place]:
        """Return where a file name stored in an object may lead, best candidate first.

        A relative name starts at the folder of the object. An absolute one is a path of the
        machine that wrote it: it is looked for beside the object.
        """
        places = []
        for path in self._list_candidates(origin, target):
            key = posixpath.normpath(path)
            if key != ".." and not key.startswith("../") and key != ".":
                places.append(self._inside(key, f"{self.root}/{key}"))
        return places

    def leads_outside(self, origin: Place, target: str) -> bool:
        """Return whether `linked` left out a candidate, as not below the prefix."""
        return len(self.linked(origin, target)) < len(self._list_candidates(origin, target))

    def _list_candidates(self, origin: Place, target: str) -> list[str]:
        if not target or "\0" in target:
            return []
        name = posixpath.basename(target) if target.startswith("/") else target
        return [posixpath.join(posixpath.dirname(self.find_key(origin)), name)] if name else []
