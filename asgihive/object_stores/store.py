"""One object store: what is asked of it, by obstore, and what its answers mean.

Credentials come from the environment or from the machine alone. What obstore says in an error has
addresses and names of keys in it: none of that is shown or logged.
"""

import asyncio
import os
import re
import threading
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from hashlib import blake2b
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import anyio

from asgihive.concurrency import LoopLocal
from asgihive.errors import (
    ExtraMissing,
    FileChanged,
    FileMissing,
    StoreRefused,
    StoreUnavailable,
    StoreUnlisted,
)
from asgihive.hdf5.cache import BytesCache
from asgihive.hdf5.sandbox import Identity
from asgihive.object_stores.listing_file import MAX_LISTING_BYTES, Folder, ListingFile
from asgihive.object_stores.locations import parse_url
from asgihive.settings import H5Settings

try:
    import obstore
    from obstore.exceptions import (
        BaseError,
        NotFoundError,
        NotModifiedError,
        NotSupportedError,
        PermissionDeniedError,
        PreconditionError,
        UnauthenticatedError,
    )
    from obstore.store import from_url
except ImportError:  # the extra `s3`
    is_installed = False
else:
    is_installed = True
    # Names that can be no keys are a ValueError, what is missing a FileNotFoundError.
    _ERRORS = (BaseError, OSError, ValueError)

T = TypeVar("T")

BLOCK_BYTES = 1 << 20
"""What is asked for at once of metadata; the first block of a file is asked for with its identity.

The superblock, the root group and most of what `/meta` shows lie there, or in one other block.
"""

MAX_REQUESTS = 32
"""Requests of the event loop to one store at the same time; further ones wait."""

_BODY_ATTEMPTS = 3
"""How often a body is asked for that ends too early: obstore repeats what fails before that."""

_LEAST_BACKOFF, _MOST_BACKOFF = timedelta(milliseconds=50), timedelta(seconds=2)

# As obstore's errors have it; all that is shown of them.
_STATUS = re.compile(r"status code: (\d{3})( [A-Za-z][A-Za-z -]*)?")
_FORBIDDEN = {"401", "403"}


@dataclass(frozen=True, slots=True)
class ObjectContent:
    """One content of an object, as the store tells it from the next."""

    key: str
    tag: str | None
    """Its entity-tag; None = the store has none."""
    identity: Identity

    @property
    def condition(self) -> dict[str, Any]:
        """What makes the store refuse to send bytes of another content (RFC 9110, 13.1.1).

        A weak tag never matches there: what was sent is compared afterwards in any case.
        """
        if self.tag is None or self.tag.startswith("W/"):
            return {}
        return {"if_match": self.tag}


class ObjectStore:
    """The objects below one prefix.

    Args:
        url: of the prefix; with neither credentials nor a query.
        settings: bounds.

    Attributes:
        url: as it is shown.
        blocks: those that were read, by inode and number. Under `blocks_lock`.

    Raises:
        ValueError: the URL is none that can be served, or what the store needs beside it is not in
            the environment.
        ExtraMissing: obstore is not installed.
    """

    def __init__(self, url: str, settings: H5Settings) -> None:
        self.url = parse_url(url)
        if not is_installed:
            raise ExtraMissing("An object store", "obstore", "s3")
        seconds = settings.store_timeout_seconds
        is_plain = _find_endpoint(self.url).startswith("http://")
        options: Any = {
            "client_options": {
                "timeout": timedelta(seconds=seconds),
                "connect_timeout": timedelta(seconds=seconds),
                "allow_http": is_plain or _is_allowed("AWS_ALLOW_HTTP"),
                "user_agent": "asgihive",
            },
            "retry_config": {
                "max_retries": settings.store_retries,
                "retry_timeout": timedelta(seconds=seconds * (1 + settings.store_retries)),
                "backoff": {
                    "init_backoff": _LEAST_BACKOFF,
                    "max_backoff": _MOST_BACKOFF,
                    "base": 2,
                },
            },
        }
        try:
            self._store: Any = from_url(self.url, **options)
        except _ERRORS as error:
            raise ValueError(f"it cannot be served: {_describe(error)}") from None
        self._device = _digest(self.url)
        self.blocks: BytesCache[tuple[int, int], bytes] = BytesCache(settings.store_cache_bytes)
        self.blocks_lock = threading.Lock()
        self._is_web_server = self.url.startswith(("http://", "https://"))
        self._listing_file: ListingFile | None = None
        if self._is_web_server and settings.store_listing_file:
            self._listing_file = ListingFile(
                settings.store_listing_file, self._fetch_list, settings.store_identity_seconds
            )
        self._asked: LoopLocal[dict[Hashable, anyio.Event]] = LoopLocal()
        self._limiter: LoopLocal[anyio.CapacityLimiter] = LoopLocal()

    # In threads.

    def look(self, key: str, known: ObjectContent | None) -> ObjectContent | None:
        """Return the content that an object has now, None where there is no object.

        One request: of an object that is `known`, whether it is still that; else its first block,
        which is kept.

        Raises:
            StoreUnavailable, StoreRefused
        """
        try:
            if known is not None and known.tag is not None:
                options: Any = {"head": True, "if_none_match": known.tag}
                return self._make_content(key, obstore.get(self._store, key, options=options).meta)
            return self._look_first(key)
        except _ERRORS as error:
            if isinstance(error, NotModifiedError):
                return known
            translated = _translate(error, key)
            if isinstance(translated, FileMissing):
                return None
            raise translated from None

    def _look_first(self, key: str) -> ObjectContent:
        try:
            result = obstore.get(self._store, key, options={"range": (0, BLOCK_BYTES)})
            body = bytes(result.bytes())
        except _ERRORS as error:
            # An empty object has no range (RFC 9110, 15.5.17).
            if not isinstance(_translate(error, key), FileChanged):
                raise
            return self._make_content(key, obstore.head(self._store, key))
        content = self._make_content(key, result.meta)
        if len(body) == min(BLOCK_BYTES, content.identity.size):
            self.keep_block(content, 0, body)
        return content

    def fetch(self, content: ObjectContent, start: int, stop: int) -> bytes:
        """Return bytes of a content, never of another one.

        Raises:
            FileChanged: the object has another content now, or has gone.
            StoreUnavailable, StoreRefused
        """
        left = _BODY_ATTEMPTS
        while True:
            left -= 1
            with _asking(content, left):
                result = obstore.get(
                    self._store, content.key, options=_make_options(content, start, stop)
                )
                return self._check(content, start, stop, result.meta, bytes(result.bytes()))

    def list(self, folder: str) -> Folder | None:
        """Return the folders and the objects in a folder, as obstore describes them.

        None where there is no such folder: an empty one is told of by WebDAV alone.

        Raises:
            StoreUnlisted: it is a web server that neither speaks WebDAV nor has a list.
            StoreUnavailable, StoreRefused
        """
        if self._listing_file is not None:
            listed = self._listing_file.list(folder)
            if listed is not None:
                return listed if any(listed) or not folder else None
        try:
            found = obstore.list_with_delimiter(self._store, folder or None)
        except _ERRORS as error:
            translated = _translate(error, folder)
            if isinstance(translated, FileMissing):
                return None
            if self._is_web_server and _lists_nothing(error):
                name = (
                    "" if self._listing_file is None else f", and has no {self._listing_file.key}"
                )
                raise StoreUnlisted(f"it does not speak WebDAV{name}") from None
            raise translated from None
        folders: list[str] = list(found["common_prefixes"])
        objects: list[Any] = list(found["objects"])
        is_told = bool(folders or objects) or not folder
        if self._is_web_server:
            # PROPFIND tells of the folder itself, too (RFC 4918, section 9.1), by its whole path.
            own = unquote("/".join(filter(None, (urlsplit(self.url).path.strip("/"), folder))))
            folders = [each for each in folders if unquote(each) != own]
        return (folders, objects) if is_told else None

    def _fetch_list(self, key: str) -> bytes | None:
        try:
            result = obstore.get(self._store, key)
            if result.meta["size"] > MAX_LISTING_BYTES:
                raise StoreUnlisted(f"{key} has more than {MAX_LISTING_BYTES >> 20} MiB")
            return bytes(result.bytes())
        except _ERRORS as error:
            translated = _translate(error, key)
            if isinstance(translated, FileMissing):
                return None
            raise translated from None

    # On the event loop.

    async def ask_once(self, question: Hashable, ask: Callable[[], Awaitable[object]]) -> None:
        """Await `ask`, or who asks the same at the moment; what goes wrong there is theirs."""
        asked = self._asked.get(dict)
        done = asked.get(question)
        if done is not None:
            await done.wait()
            return
        done = asked[question] = anyio.Event()
        try:
            await ask()
        finally:
            del asked[question]
            done.set()

    async def run_in_thread(self, work: Callable[[], T]) -> T:
        """Return what `work`, which asks the store, returns in a thread of no lane."""
        limiter = self._limiter.get(partial(anyio.CapacityLimiter, MAX_REQUESTS))
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=limiter)

    async def fetch_soon(self, content: ObjectContent, start: int, stop: int) -> bytes:
        """Return the same as `fetch`; on asyncio without a thread.

        obstore has asynchronous requests for asyncio alone.
        """
        async with self._limiter.get(partial(anyio.CapacityLimiter, MAX_REQUESTS)):
            if anyio.get_cancelled_exc_class() is not asyncio.CancelledError:
                fetch = partial(self.fetch, content, start, stop)
                return await anyio.to_thread.run_sync(fetch, abandon_on_cancel=True)
            left = _BODY_ATTEMPTS
            while True:
                left -= 1
                with _asking(content, left):
                    result = await obstore.get_async(
                        self._store, content.key, options=_make_options(content, start, stop)
                    )
                    body = bytes(await result.bytes_async())
                    return self._check(content, start, stop, result.meta, body)

    def _check(
        self, content: ObjectContent, start: int, stop: int, meta: Any, body: bytes
    ) -> bytes:
        """Return a body if it is what was asked for; raises FileChanged, _CutOff."""
        now = self._make_content(content.key, meta)
        if now.tag != content.tag or now.identity.inode != content.identity.inode:
            raise FileChanged(content.key)
        if len(body) != stop - start:
            raise _CutOff
        return body

    def keep_block(self, content: ObjectContent, number: int, block: bytes) -> None:
        """Keep a block of a content."""
        with self.blocks_lock:
            self.blocks.put((content.identity.inode, number), block, len(block))

    def _make_content(self, key: str, meta: Any) -> ObjectContent:
        """Return the content that an answer was about.

        Another content of a key is another inode. The time of the change says that where the
        store has no tags.
        """
        tag, size = meta.get("e_tag"), int(meta["size"])
        modified_ns = int(meta["last_modified"].timestamp()) * 1_000_000_000
        inode = _digest(repr((key, size, modified_ns if tag is None else tag)))
        return ObjectContent(key, tag, Identity(self._device, inode, size, modified_ns, 0))


class _CutOff(Exception):  # control flow: it is asked for again
    """A body ended too early."""


def _make_options(content: ObjectContent, start: int, stop: int) -> Any:
    return {"range": (start, stop), **content.condition}


def _digest(text: str) -> int:
    """Return a positive number of 63 bits that stands for a text."""
    return (
        int.from_bytes(blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest())
        >> 1
    )


_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
"""Variables in which obstore finds another server than the cloud's own, the first one counts."""


def _find_endpoint(url: str) -> str:
    """Return the address that a store is asked at; "" is that of the cloud."""
    names = _ENDPOINTS.get(url.partition("://")[0])
    if names is None:
        return url
    return next(filter(None, map(os.environ.get, names)), "")


def _lists_nothing(error: Exception) -> bool:
    """Return whether a web server has answered as one that does not know PROPFIND (RFC 4918)."""
    status = _STATUS.search(str(error))
    if status is None:
        return "PROPFIND response" in str(error)  # a page, for one
    return status[1] in {"400", "405", "501"}


def _is_allowed(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in {"1", "true", "yes", "on"}


def _translate(error: Exception, key: str) -> Exception:
    """Return what an error of obstore means."""
    if isinstance(error, NotFoundError | FileNotFoundError | ValueError):
        return FileMissing(key)
    if isinstance(error, PreconditionError):
        return FileChanged(key)
    status = _STATUS.search(str(error))
    if isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError) or (
        status is not None and status[1] in _FORBIDDEN
    ):
        return StoreRefused("its credentials may not read this, or it is not there")
    if status is not None and status[1] == "416":
        return FileChanged(key)
    return StoreUnavailable(_describe(error))


@contextmanager
def _asking(content: ObjectContent, left: int) -> Iterator[None]:
    """Translate what goes wrong while bytes are asked for that were there a moment ago.

    Passes over a body that ends too early, if it may be asked for so often again: more than 0.
    """
    try:
        yield
    except _CutOff:
        if not left:
            raise StoreUnavailable("its answers end too early") from None
    except _ERRORS as error:
        translated = _translate(error, content.key)
        if isinstance(translated, FileMissing):
            raise FileChanged(content.key) from None
        raise translated from None


_TIMED_OUT = re.compile(r"timed? ?out|TimedOut", re.IGNORECASE)


def _describe(error: Exception) -> str:
    """Return what an error of obstore says, without addresses, keys and credentials."""
    message = str(error)
    status = _STATUS.search(message)
    if status is not None:
        return f"it answers {status[1]}{status[2] or ''}"
    if _TIMED_OUT.search(message):
        return "it does not answer in time"
    if isinstance(error, NotSupportedError):
        return "it does not send parts of files (RFC 9110, Range)"
    if "must be specified" in message:
        return "an account must be named by the environment, such as AZURE_STORAGE_ACCOUNT_NAME"
    if "credential" in message.lower():
        return "the service has no credentials in its environment"
    return "no connection to it is made or kept"
