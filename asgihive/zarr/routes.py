"""The route `/zarr/{file}/{key}`: every file as a Zarr v3 store, read-only.

The status decides what clients make of an answer: a chunk that is 404 is fill values in every one
of them, without a word. So 404 is for metadata that are not there, and for nothing else; what
can be no chunk, or is none any more, is 422 or 410.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Any, cast
from urllib.parse import quote

from starlette.types import ASGIApp, Receive, Scope, Send

from asgihive import errors
from asgihive.asgi import (
    BufferedResponse,
    HTTPException,
    Validators,
    get_route_path,
    parse_query,
)
from asgihive.asgi.errors import clip_text, find_http_exception
from asgihive.asgi.request_fields import find_header
from asgihive.asgi.responses import add_headers
from asgihive.concurrency import Portions
from asgihive.encoders import json
from asgihive.errors import (
    EntityMissing,
    FileForbidden,
    FileMissing,
    NeedsThread,
)
from asgihive.hdf5.file_bytes import encoded
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.sandbox import Identity
from asgihive.service.answering import (
    DocumentSize,
    answer_document,
    begin_in_time,
    find_or_make_document,
    finish_answer,
)
from asgihive.service.gate import (
    STATUSES,
    Permission,
    RequestedEntity,
    find_permission,
    is_permitted,
)
from asgihive.service.parameters import ZARR_PREFIX, find_rest
from asgihive.service.requests import (
    COMPRESS_OVER_BYTES,
    ReadRequest,
    Version,
    Wanted,
    answer_preconditions,
    choose_wanted_range,
    finish_response,
    parse_parameters,
    parse_wanted,
)
from asgihive.service.store import AnswerCache, Store
from asgihive.settings import H5Settings
from asgihive.zarr.chunks import answer_chunk
from asgihive.zarr.keys import MOST_NAMES, KeyKind, StoreKey, parse_key, take_version
from asgihive.zarr.nodes import format_document
from asgihive.zarr.permission import find_hidden_nodes, hide_nodes, list_nodes
from asgihive.zarr.tree import find_real_path, read_tree

SUFFIX = ".zarr"
"""May follow the name of a file: some clients choose how to open a URL by it."""

VERSION_ATTRIBUTE = "_asgihive_version"

ASKED_PATH = b"x-asgihive-real-path"
"""A header of the front that asks for the path in the file, and of the response that tells it."""

# A cache may keep a 404 or 410 for as long as it likes (RFC 9110, section 15.1).
_UNKEPT = {"cache-control": "no-store"}

_TAG_BYTES = 16

# Of a header: a reader's response with a longer one would be taken for a broken one.
_LONGEST_PATH_BYTES = 8 << 10

# Requests of which it is known what they ask for, and the longest URL among them: 4 MiB in all.
_MOST_KNOWN, _LONGEST_KNOWN = 2048, 1024

_NO_KEY = (
    "This is no key of a Zarr store: open the URL of a file below /zarr, or of a group in it, by a "
    "client of Zarr v3, such as xarray.open_zarr(url). It asks for zarr.json, and for chunks as "
    "c/0/1; a store cannot be listed, and the characters # ? % are _ in the names of its nodes"
)


@lru_cache(_MOST_KNOWN)
def _find_known_kind(path: str) -> KeyKind:
    return parse_key(tuple(path.split("/"))).kind


def _find_kind(path: str) -> KeyKind:
    """Return what the key at the end of a path is of."""
    find = _find_known_kind if len(path) <= _LONGEST_KNOWN else _find_known_kind.__wrapped__
    return find(path)


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """What a request asks of which file."""

    rest: str
    """All of the URL behind the prefix."""
    file: str
    """As the client knows it."""
    identity: Identity
    version: str | None
    """That the client has seen; None = whichever there is."""
    key: StoreKey
    real: str | None = None
    """The path in the file, if an application was asked whether it may be read."""

    @property
    def path(self) -> str:
        """The path of the node, by the names that are published."""
        return "/" + "/".join(each for each in self.key.node if each not in {"", "."})


class ZarrRoute:
    """An ASGI application: the route over one store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._make_metadata = partial(make_metadata, store.settings)
        self._known: dict[tuple[str, str | None], tuple[StoreRequest, ReadRequest]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = get_route_path(scope)
        kind = _find_kind(path)
        if kind is KeyKind.PROBE:
            message = "Only Zarr v3 is here: its metadata are in zarr.json"
            raise HTTPException(404, message, _UNKEPT)
        if kind is KeyKind.OTHER:
            raise HTTPException(422, _NO_KEY)
        if (count := path.count("/")) > MOST_NAMES:
            message = f"The path has {count} names: at most {MOST_NAMES} lead to a node"
            raise HTTPException(404 if kind is KeyKind.METADATA else 422, message, _UNKEPT)
        try:
            await self.answer(scope, receive, send, kind)
        except Exception as error:
            cause = error
            if isinstance(error, FileMissing):
                # In the same words, whether or not a link leads to a file that is out of bounds.
                cause = FileMissing(path[len(ZARR_PREFIX) :])
            told = translate_error(cause, kind)
            if told is error:
                raise
            raise told from error

    async def answer(self, scope: Scope, receive: Receive, send: Send, kind: KeyKind) -> None:
        """Answer a key of metadata or of a chunk; at once, if the answer is in memory."""
        rest, version, wanted = self.read_request(scope, kind)
        permission, asked = find_permission(scope), None
        asks_path = find_header(scope, ASKED_PATH) is not None
        with suppress(NeedsThread):
            known = self._known.get((rest, version))
            if known is None:
                asked = self._find_store(rest, version)
                known = None if asked is None else self._remember(asked, version)
            if known is not None and permission is None and not asks_path:
                response = self._find_kept(*known, wanted)
                if response is not None:
                    await response(scope, receive, send)
                    return
        with begin_in_time(self.store.settings.read_timeout_seconds, send) as begin:
            asked = asked or await self.find_store(rest, version)
            if permission is not None:
                asked = await self.check_permission(scope, receive, asked, permission)
            told = begin
            if asks_path:
                real = asked.real or await self.find_real_path(scope, receive, asked)
                told = add_headers(begin, [(ASKED_PATH, format_path(real))])
                if scope["method"] == "HEAD":
                    # Of what is left out, too, which has no metadata, but chunks.
                    await BufferedResponse(b"")(scope, receive, told)
                    return
            try:
                made = await self._make(scope, receive, asked, wanted, permission)
            except FileMissing:
                raise
            except Exception:
                await self._check_version(asked)
                raise
            await self._check_version(asked)
            await made(scope, receive, told)

    async def _make(
        self,
        scope: Scope,
        receive: Receive,
        asked: StoreRequest,
        wanted: Wanted,
        permission: Permission | None,
    ) -> ASGIApp:
        """Return what answers a request."""
        if asked.key.kind is KeyKind.CHUNK:
            return await self._answer_chunk(scope, receive, asked, wanted)
        if permission is not None:
            return await self.filter_document(scope, receive, asked, wanted, permission)
        request = make_request(asked, self.store)
        return await answer_document(self.store, self._make_metadata, request, wanted, receive)

    def read_request(self, scope: Scope, kind: KeyKind) -> tuple[str, str | None, Wanted]:
        """Return what stands behind the prefix, the version that the query says, what is wanted.

        Raises:
            BadParameter, FileMissing: nothing can be meant.
        """
        rest, query = find_rest(scope, ZARR_PREFIX) or "", scope["query_string"]
        version = parse_parameters("zarr", parse_query(query))["v"] if query else None
        wanted = parse_wanted(
            scope,
            self.store.settings.cache_control,
            has_format=True,
            is_compressible=kind is KeyKind.METADATA,
        )
        return rest, version, wanted

    async def find_store(self, rest: str, version: str | None) -> StoreRequest:
        """Return what the rest of a URL asks for.

        Args:
            rest: what follows the prefix.
            version: that the query says.

        Raises:
            FileMissing: it leads to no file.
            FileForbidden, FileUnreadable, RootUnreadable: the file system does not tell.
        """
        try:
            found = self._find_store(rest, version)
        except NeedsThread:
            found = await self.store.lanes.decode.run(partial(self._find_store, rest, version))
        if found is None:
            await self.store.check_root()
            raise FileMissing(rest)
        return found

    def _find_store(self, rest: str, version: str | None) -> StoreRequest | None:
        """Return the same, None where it leads to no file. Raises NeedsThread."""
        parts = tuple(rest.split("/"))
        guard = self.store.pool.stat_guard
        found = self.store.sandbox.find_leading_file(parts, SUFFIX, guard)
        if found is None:
            return None
        file, count, identity = found
        pinned, parts = take_version(parts[count:])
        return StoreRequest(rest, file, identity, pinned or version, parse_key(parts))

    def _remember(
        self, asked: StoreRequest, version: str | None
    ) -> tuple[StoreRequest, ReadRequest]:
        """Return what a request asks for with what is read, which is kept for the next such one.

        A kept answer tells by itself whether its file is there, and unchanged. But where the name
        of the file has no suffix that the URL has, another file may get that name.
        """
        known = asked, make_request(asked, self.store)
        if len(asked.rest) <= _LONGEST_KNOWN and asked.rest.startswith(f"{asked.file}/"):
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[asked.rest, version] = known
        return known

    def _find_kept(
        self, asked: StoreRequest, request: ReadRequest, wanted: Wanted
    ) -> BufferedResponse | None:
        """Return the response to a request from memory, without a thread; None where it is not.

        Raises:
            NeedsThread: the file system is slow.
            HTTPException: 410 or 412.
        """
        if wanted.has_range:
            return None
        response = self._find_answers(asked).find_response(request.key, wanted)
        if response is not None and asked.version is not None:
            check_version(asked, self._find_identity(asked))
        return response

    def _find_answers(self, asked: StoreRequest) -> AnswerCache:
        is_chunk = asked.key.kind is KeyKind.CHUNK
        return self.store.zarr_chunks if is_chunk else self.store.answers

    def _find_identity(self, asked: StoreRequest) -> Identity | None:
        path = f"{self.store.sandbox.root.rstrip('/')}/{asked.file}"
        return self.store.pool.stat_guard.find_identity(path)

    async def _check_version(self, asked: StoreRequest) -> None:
        """Make sure that an answer is of the version that its request names.

        A file is never again what it once was: its change time goes on. So what was made of it
        before is of this version, if the file has it still.

        Raises:
            HTTPException: 410.
        """
        if asked.version is None:
            return
        try:
            identity = self._find_identity(asked)
        except NeedsThread:
            identity = await self.store.lanes.decode.run(
                partial(self._find_identity, asked), patient=True
            )
        check_version(asked, identity)

    async def _answer_chunk(
        self,
        scope: Scope,
        receive: Receive,
        asked: StoreRequest,
        wanted: Wanted,
    ) -> ASGIApp:
        store, request = self.store, make_request(asked, self.store)
        if asked.real is not None:
            request = replace(request, path=asked.real)
        kept = await store.zarr_chunks.find(request.key) if wanted.has_range else None
        if kept is not None and kept.place is None and kept.responses:
            unchanged = answer_preconditions(wanted, kept.version)
            return unchanged or cut_response(wanted, kept.version, kept.responses[None])
        try:
            answered = await answer_chunk(store, request, asked.key.coordinates, wanted)
        except EntityMissing:
            # Only now, since a name that is there stands for nothing else.
            found = await self.find_real_path(scope, receive, asked)
            if asked.real is not None or found == asked.path:
                raise
            request = replace(request, path=found)
            answered = await answer_chunk(store, request, asked.key.coordinates, wanted)
        version, made, place = answered
        finished = await finish_answer(
            store, store.zarr_chunks, request, wanted, version, made, place
        )
        if isinstance(finished, BufferedResponse) and finished.status == 200 and wanted.has_range:
            return cut_response(wanted, version, finished)
        return finished

    # What an application permits

    async def check_permission(
        self, scope: Scope, receive: Receive, asked: StoreRequest, permission: Permission
    ) -> StoreRequest:
        """Ask the permission of an application for a node; return the request with its real path.

        Raises:
            EntityMissing, FileMissing: metadata that are refused, which are as if not there.
            FileForbidden: a chunk is refused.
        """
        real = await self.find_real_path(scope, receive, asked)
        if await is_permitted(permission, RequestedEntity("zarr", asked.file, real)):
            return replace(asked, real=real)
        if asked.key.kind is KeyKind.CHUNK:
            raise FileForbidden(asked.file)
        if asked.path == "/":
            raise FileMissing(asked.rest)
        raise EntityMissing(asked.file, asked.path)

    async def find_real_path(
        self,
        _scope: Scope,
        _receive: Receive,
        asked: StoreRequest,
    ) -> str:
        """Return the path of a node in its file, or the published one where there is none."""
        if "_" not in asked.path:  # which stands for what a name may not have
            return asked.path

        def find(lease: Lease) -> Portions[str]:
            yield
            return find_real_path(lease, lease.open_asked(asked.file), asked.path)

        try:
            real, lease = await self.store.read(partial(self.store.in_portions, work=find))
        except errors.EntityError:
            return asked.path
        lease.release()
        return real

    async def read_document(
        self, _scope: Scope, _receive: Receive, asked: StoreRequest, wanted: Wanted
    ) -> bytes:
        """Return the metadata of a node and of all below it."""
        request = make_request(asked, self.store)
        answer = await find_or_make_document(self.store, self._make_metadata, request, wanted)
        return answer.responses[None].body

    async def filter_document(
        self,
        scope: Scope,
        receive: Receive,
        asked: StoreRequest,
        wanted: Wanted,
        permission: Permission,
    ) -> BufferedResponse:
        """Return a response with the metadata of a node, without those that are refused.

        Its entity-tag tells of the bytes alone: what is permitted may change with anything.

        Args:
            asked: what `check_permission` has returned.
        """
        store = self.store
        body = await self.read_document(scope, receive, asked, wanted)
        real = asked.path if asked.real is None else asked.real
        nodes = await store.lanes.decode.run(partial(list_nodes, body, real))
        hidden = await find_hidden_nodes(nodes, asked.file, permission)
        if hidden:
            body = await store.run_in_decode_lane(partial(hide_nodes, body, hidden))
        tag = f'"{blake2b(body, digest_size=_TAG_BYTES).hexdigest()}"'
        version = Version(Validators(tag), is_large=len(body) > COMPRESS_OVER_BYTES)
        unchanged = answer_preconditions(wanted, version)
        if unchanged is not None:
            return unchanged
        response = BufferedResponse(body, headers={"content-type": json.ENCODER.media_type})
        finished = await finish_response(wanted, version, response, store.run_in_decode_lane)
        return cast("BufferedResponse", finished)


def make_metadata(
    settings: H5Settings, request: ReadRequest, lease: Lease, _: DocumentSize
) -> Portions[Any]:
    """Return the `zarr.json` of a node, with the metadata of all nodes below it."""
    file = lease.open_asked(request.file)
    real = find_real_path(lease, file, request.path)
    yield
    document = format_document((yield from read_tree(lease, file, real, settings)))
    if request.path == "/" and file.settled and not file.live:
        version = file.identity.version
        document["attributes"] = {**document["attributes"], VERSION_ATTRIBUTE: version}
    return document


def make_request(asked: StoreRequest, store: Store) -> ReadRequest:
    """Return what is read of the file; the settings have a say in it, too."""
    settings = store.settings
    canonical = (
        *("zarr", asked.file, asked.path, asked.key.kind.value, asked.key.coordinates),
        *(settings.zarr_compression, settings.zarr_stored_chunks),
    )
    return ReadRequest(
        route="zarr",
        values={},
        encoder=json.ENCODER,
        has_format=True,
        canonical=canonical,
        key=canonical,
        file=asked.file,
        path=asked.path,
    )


def format_path(path: str) -> bytes:
    """Return a path as the value of a header.

    Raises:
        HTTPException: 422, it is too long for that.
    """
    value = quote(encoded(path)).encode()
    if len(value) > _LONGEST_PATH_BYTES:
        message = (
            f"The path in the file has {len(value)} bytes as a header: at most "
            f"{_LONGEST_PATH_BYTES} are accepted where an application is asked about it"
        )
        raise HTTPException(422, message)
    return value


def check_version(asked: StoreRequest, identity: Identity | None) -> None:
    """Refuse a request for another version than the one that there is.

    Raises:
        HTTPException: 410.
    """
    if identity is None or identity.version != asked.version:
        message = (
            f"{clip_text(asked.file)} is not of the version {clip_text(asked.version or '')!r} any "
            "more: it was written again, open it anew"
        )
        raise HTTPException(410, message, _UNKEPT)


def cut_response(wanted: Wanted, version: Version, response: BufferedResponse) -> BufferedResponse:
    """Return the part of a whole response that is wanted.

    Raises:
        HTTPException: 416.
    """
    size = len(response.body)
    part = choose_wanted_range(wanted, version, size)
    if part is None:
        return response
    headers = {**response.headers, "content-range": part.format_content_range(size)}
    return BufferedResponse(response.body[part.start : part.stop], 206, headers)


def translate_error(error: Exception, kind: KeyKind) -> Exception:
    """Return what answers an error at a key: 404 means to a client that there is nothing."""
    known = find_http_exception(error, STATUSES)
    if known is None or (known.status not in {404, 410, 422}):
        return error
    status = known.status
    if kind is KeyKind.CHUNK and status == 404:
        status = 410
    elif isinstance(error, errors.KindMismatch | errors.TypeUnsupported) and (
        kind is KeyKind.METADATA
    ):
        status = 404  # it is there, but no node
    if status == 422:
        return error
    return HTTPException(status, known.message, {**known.headers, **_UNKEPT}, known.details)
