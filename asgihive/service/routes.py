"""The routes of the HDF5 service."""

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from starlette.types import ASGIApp, Receive, Scope, Send

from asgihive.asgi import (
    BufferedResponse,
    QueryFields,
    Router,
    StreamedResponse,
    parse_query,
    run_while_connected,
)
from asgihive.concurrency import Portions
from asgihive.context import measured
from asgihive.encoders.protocol import DocumentEncoder
from asgihive.encoders.registry import list_encoders
from asgihive.errors import AnswerTooLarge, KindMismatch
from asgihive.hdf5.attributes import read_attributes
from asgihive.hdf5.entities import Describer
from asgihive.hdf5.links import MAX_LINK_HOPS, LinkResolution, Resolved, kind_of, walk
from asgihive.hdf5.paths import list_paths
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.views import Method
from asgihive.service.batch import Batch
from asgihive.service.files import Files
from asgihive.service.parameters import (
    FILE_PREFIX,
    DataParameters,
    EntityParameters,
    HistogramParameters,
    attribute_encoder,
    document_encoder,
    link_resolution,
    refuse_misspelt,
)
from asgihive.service.plain import PlainKey
from asgihive.service.read_timeout import AtHand, TimedRoute
from asgihive.service.reductions import compute_histogram, compute_statistics
from asgihive.service.representations import NotModified, Representation
from asgihive.service.store import DocumentRequest, Store
from asgihive.service.values import answer_data
from asgihive.service.views import answer_view

MAX_LISTED_PATHS = 1_000_000
"""Paths in one answer of `/paths`."""

# From a query to what makes the answer's content in portions in the library lane.
Content = Callable[[Lease, "DocumentSize"], Portions[Any]]
Question = Callable[[QueryFields], Content]

# From a query to what makes the answer's content block by block.
Reduction = Callable[[QueryFields, Representation], Callable[[], Awaitable[Any]]]

# From a query and `Accept` to the format of a document.
EncoderOf = Callable[[QueryFields, str], DocumentEncoder]

# The parameters that documents and reductions depend on, beside their format.
_PARAMETERS = (
    *("file", "path", "resolve_links", "attr_keys", "compound"),
    *("selection", "bins", "range"),
)


class Routes:
    """The routes over one store, as `router`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        list_encoders()  # found and imported now, not on the event loop of the first request
        self.router = Router(optional_trailing_slash=True)
        self.router.add("/", _ok, name="ok")
        self._add_document("meta", self._meta)
        self._add_document("attr", self._attr, attribute_encoder)
        self._add_document("paths", self._paths)
        self._add("data", self._data, self._data_at_hand)
        self._add("stats", self._reduction("stats", self._stats))
        self._add("histogram", self._reduction("histogram", self._histogram))
        files = Files(store)
        self._add("files", files.list)
        self._add("file", files.send)
        self._add("file", files.send, path=f"{FILE_PREFIX}{{path:path}}")
        # Each of its requests has as long as it has by itself.
        self.router.add("/batch", Batch(store, self.router), methods=("POST",), name="batch")

    def _add(
        self, name: str, app: ASGIApp, at_hand: AtHand | None = None, path: str | None = None
    ) -> None:
        timed = TimedRoute(app, self.store.settings.read_timeout_seconds, at_hand)
        self.router.add(path or f"/{name}", timed, name=name)

    def _add_document(
        self, name: str, question: Question, encoder_of: EncoderOf = document_encoder
    ) -> None:
        """A route whose answers are documents, kept while their files are unchanged."""

        def representation_of(scope: Scope) -> Representation:
            accept = _accept(scope)
            # Only what may change the answer, or any client's own `Accept` would be a miss.
            key = (name, scope["query_string"], accept if b"msgpack" in accept else b"")
            return Representation.of(self.store, scope, key, is_compressible=True)

        def at_hand(scope: Scope) -> ASGIApp | None:
            representation = representation_of(scope)
            answer = self.store.answers.at_hand(representation.key)
            if answer is None:
                return None
            try:
                response = representation.at_hand(answer)
            except NotModified as unchanged:
                response = unchanged.response()
            self.store.answers.hits += response is not None
            return response

        @functools.wraps(question)
        async def make(scope: Scope, receive: Receive, send: Send) -> None:
            representation = representation_of(scope)
            answer = await self.store.answers.find(representation.key)
            if answer is None:
                query = parse_query(scope["query_string"])
                refuse_misspelt(query, name)
                encoder = encoder_of(query, _accept(scope).decode("latin-1"))
                request = DocumentRequest(
                    key=representation.key,
                    canonical=_canonical(name, query, encoder),
                    make=partial(_made, encoder, question(query), self.store.most_document_bytes),
                    media_type=encoder.media_type,
                )
                answer = await self.store.answer(request)
            await _send(representation.finished_answer(answer), scope, receive, send)

        self._add(name, make, at_hand)

    def _meta(self, query: QueryFields) -> Content:
        entity, resolution = EntityParameters.of(query), link_resolution(query)

        def content(lease: Lease, size: DocumentSize) -> Portions[Any]:
            file = self.store.open(lease, entity.file)
            found = walk(lease, file, entity.path, resolution, MAX_LINK_HOPS)
            return (yield from Describer(lease, MAX_LINK_HOPS, size.keep).describe(found))

        return content

    def _attr(self, query: QueryFields) -> Content:
        entity, names = EntityParameters.of(query), query.all("attr_keys")

        def content(lease: Lease, size: DocumentSize) -> Portions[Any]:
            file = self.store.open(lease, entity.file)
            found = walk(lease, file, entity.path, LinkResolution.ONLY_VALID, MAX_LINK_HOPS)
            if not isinstance(found, Resolved):
                kind = kind_of(found).replace("_", " ")
                needed = "a group, a dataset or a datatype"
                raise KindMismatch(entity.file, found.path, f"{kind} without a target", needed)
            return (yield from read_attributes(found, list(names) or None, size.most))

        return content

    def _paths(self, query: QueryFields) -> Content:
        entity, resolution = EntityParameters.of(query), link_resolution(query)

        def content(lease: Lease, _: DocumentSize) -> Portions[Any]:
            file = self.store.open(lease, entity.file)
            found = walk(lease, file, entity.path, resolution, MAX_LINK_HOPS)
            return (
                yield from list_paths(lease, found, resolution, MAX_LINK_HOPS, MAX_LISTED_PATHS)
            )

        return content

    def _data_at_hand(self, scope: Scope) -> ASGIApp | None:
        return self.store.plain.find((scope["query_string"], _accept(scope)), scope)

    async def _data(self, scope: Scope, receive: Receive, send: Send) -> None:
        accept = _accept(scope)
        key = (scope["query_string"], accept)
        mode = _fetch_mode(scope)
        parameters = DataParameters.of(scope["query_string"], accept.decode("latin-1"), mode)
        media_type = parameters.encoder.media_type
        representation = Representation.of(
            self.store,
            scope,
            parameters.canonical,
            is_compressible=self.store.settings.compress_arrays or not _is_array(media_type),
        )
        response = self._values(key, parameters, representation, receive)
        await _send(response, scope, receive, send)

    async def _values(
        self,
        key: PlainKey,
        parameters: DataParameters,
        representation: Representation,
        receive: Receive,
    ) -> ASGIApp | None:
        await representation.check_known()
        view = parameters.view
        response: BufferedResponse | StreamedResponse | None
        if view is None or view.method is Method.NEAREST:
            response = await answer_data(self.store, parameters, representation)
        else:
            response = await answer_view(self.store, parameters, view, representation, receive)
        if response is None:
            return None
        finished = await representation.finished(response)
        source = representation.plain
        if source is not None and isinstance(finished, BufferedResponse) and finished.status == 200:
            # Nothing but that file, which is looked at each time, may have a say in the answer.
            is_alone = representation.depends.keys() == {source.file.place.asked}
            if is_alone and not self.store.settings.compress_arrays:
                self.store.plain.keep(key, finished, source)
        return finished

    def _reduction(self, name: str, question: Reduction) -> ASGIApp:
        """A route whose answers are few numbers made of many values, while the client waits."""

        @functools.wraps(question)
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            query = parse_query(scope["query_string"])
            refuse_misspelt(query, name)
            encoder = document_encoder(query, _accept(scope).decode("latin-1"))
            key = _canonical(name, query, encoder)
            representation = Representation.of(self.store, scope, key, is_compressible=True)
            work = question(query, representation)

            async def answer() -> ASGIApp | None:
                await representation.check_known()
                content = await run_while_connected(receive, work)
                if content is None:
                    return None
                body = _encoded(encoder, content)
                headers = {"content-type": encoder.media_type}
                return await representation.finished(BufferedResponse(body, headers=headers))

            await _send(answer(), scope, receive, send)

        return application

    def _stats(
        self, query: QueryFields, representation: Representation
    ) -> Callable[[], Awaitable[Any]]:
        entity, selection = EntityParameters.of(query), query.first("selection")
        return partial(compute_statistics, self.store, entity, selection, representation)

    def _histogram(
        self, query: QueryFields, representation: Representation
    ) -> Callable[[], Awaitable[Any]]:
        parameters = HistogramParameters.of(query)
        return partial(compute_histogram, self.store, parameters, representation)


_OK = BufferedResponse(b"ok", headers={"content-type": "text/plain; charset=utf-8"})


async def _ok(scope: Scope, receive: Receive, send: Send) -> None:
    await _OK(scope, receive, send)


async def _send(
    answer: Awaitable[ASGIApp | None], scope: Scope, receive: Receive, send: Send
) -> None:
    """Send what comes of `answer`; nothing to a client that went away."""
    try:
        response = await answer
    except NotModified as unchanged:
        response = unchanged.response()
    if response is not None:
        await response(scope, receive, send)


def _canonical(name: str, query: QueryFields, encoder: DocumentEncoder) -> tuple[object, ...]:
    """What is asked for, in whatever order, and in which format."""
    return (name, encoder.name, *map(query.all, _PARAMETERS))


def _is_array(media_type: str) -> bool:
    """Whether it is of numbers as they are, of which compression takes the length away."""
    return media_type == "application/octet-stream" or media_type.startswith("image/")


def _accept(scope: Scope) -> bytes:
    """All `Accept` fields as one (RFC 9110, section 5.3)."""
    return b",".join(value for name, value in scope["headers"] if name == b"accept")


@dataclass(slots=True)
class DocumentSize:
    """Encodes the parts of a document as they come, and stops where they are too many bytes.

    A few hundred KiB of a file may stand for GiBs: links to one object with many attributes.
    """

    encoder: DocumentEncoder
    most: int
    used: int = 0

    def keep(self, part: Any) -> Any:
        """The part, for a document. Raises AnswerTooLarge."""
        body = _encoded(self.encoder, part)
        self.used += len(body)
        if self.used > self.most:
            raise AnswerTooLarge(self.used, self.most, "ask for its members one by one")
        # In JSON it need not be encoded again.
        return orjson.Fragment(body) if self.encoder.media_type == "application/json" else part


def _made(encoder: DocumentEncoder, content: Content, most: int, lease: Lease) -> Portions[bytes]:
    return _encoded(encoder, (yield from content(lease, DocumentSize(encoder, most))))


def _fetch_mode(scope: Scope) -> str | None:
    """What a browser asks for, in its own words (W3C Fetch Metadata, section 2.2)."""
    for name, value in scope["headers"]:
        if name == b"sec-fetch-mode":
            mode: str = value.decode("latin-1").strip().lower()
            return mode
    return None


@measured("encode")
def _encoded(encoder: DocumentEncoder, content: Any) -> bytes:
    return encoder.document(content)
