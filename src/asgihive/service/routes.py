"""The routes of the HDF5 service."""

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from asgihive.asgi import BufferedResponse, QueryFields, Router, parse_query, while_connected
from asgihive.encoders.registry import encoders
from asgihive.errors import KindMismatch
from asgihive.hdf5.attributes import read_attributes
from asgihive.hdf5.entities import Describer, list_paths
from asgihive.hdf5.links import LinkResolution, Resolved, kind_of, walk
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.views import Method
from asgihive.service.parameters import (
    DataParameters,
    EntityParameters,
    HistogramParameters,
    document_encoder,
    link_resolution,
)
from asgihive.service.reductions import compute_histogram, compute_statistics
from asgihive.service.store import Store
from asgihive.service.values import answer_data
from asgihive.service.views import answer_view

# From a query to what makes the answer's content in the library lane.
Question = Callable[[QueryFields], Callable[[Lease], Any]]

# From a query to what makes the answer's content block by block.
Reduction = Callable[[QueryFields], Callable[[], Awaitable[Any]]]


class Routes:
    """The routes over one store, as `router`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        encoders()  # found and imported now, not on the event loop of the first request
        self.router = Router(optional_trailing_slash=True)
        self.router.add("/", _ok, name="ok")
        self.router.add("/meta", self._document("meta", self._meta), name="meta")
        self.router.add("/attr", self._document("attr", self._attr), name="attr")
        self.router.add("/paths", self._document("paths", self._paths), name="paths")
        self.router.add("/data", self._data, name="data")
        self.router.add("/stats", self._reduction(self._stats), name="stats")
        self.router.add("/histogram", self._reduction(self._histogram), name="histogram")

    def _document(self, name: str, question: Question) -> ASGIApp:
        """A route whose answers are documents, kept while their files are unchanged."""

        @functools.wraps(question)
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            accept = _accept(scope)
            # Only what may change the answer, or any client's own `Accept` would be a miss.
            key = (name, scope["query_string"], accept if b"msgpack" in accept else b"")
            response = await self.store.answers.find(key)
            if response is None:
                query = parse_query(scope["query_string"])
                encoder = document_encoder(query, accept.decode("latin-1"))
                content = question(query)
                response = await self.store.answer(
                    key, lambda lease: encoder.document(content(lease)), encoder.media_type
                )
            await response(scope, receive, send)

        return application

    def _meta(self, query: QueryFields) -> Callable[[Lease], Any]:
        entity, resolution = EntityParameters.of(query), link_resolution(query)
        hops = self.store.settings.max_link_hops

        def content(lease: Lease) -> Any:
            file = self.store.open(lease, entity.file)
            found = walk(lease, file, entity.path, resolution, hops)
            return Describer(lease, hops).describe(found)

        return content

    def _attr(self, query: QueryFields) -> Callable[[Lease], Any]:
        entity, names = EntityParameters.of(query), query.all("attr_keys")

        def content(lease: Lease) -> Any:
            file = self.store.open(lease, entity.file)
            hops = self.store.settings.max_link_hops
            found = walk(lease, file, entity.path, LinkResolution.ONLY_VALID, hops)
            if not isinstance(found, Resolved):
                kind = kind_of(found).replace("_", " ")
                needed = "a group, a dataset or a datatype"
                raise KindMismatch(entity.file, found.path, f"{kind} without a target", needed)
            return read_attributes(found, list(names) or None)

        return content

    def _paths(self, query: QueryFields) -> Callable[[Lease], Any]:
        entity, resolution = EntityParameters.of(query), link_resolution(query)
        hops = self.store.settings.max_link_hops

        def content(lease: Lease) -> Any:
            file = self.store.open(lease, entity.file)
            found = walk(lease, file, entity.path, resolution, hops)
            return list_paths(lease, found, resolution, hops)

        return content

    async def _data(self, scope: Scope, receive: Receive, send: Send) -> None:
        parameters = DataParameters.of(scope["query_string"], _accept(scope).decode("latin-1"))
        view = parameters.view
        response: ASGIApp | None
        if view is None or view.method is Method.NEAREST:
            response = await answer_data(self.store, parameters)
        else:
            response = await answer_view(self.store, parameters, view, receive)
        if response is not None:
            await response(scope, receive, send)

    def _reduction(self, question: Reduction) -> ASGIApp:
        """A route whose answers are few numbers made of many values, while the client waits."""

        @functools.wraps(question)
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            query = parse_query(scope["query_string"])
            encoder = document_encoder(query, _accept(scope).decode("latin-1"))
            content = await while_connected(receive, question(query))
            if content is None:
                return
            body = encoder.document(content)
            response = BufferedResponse(body, headers={"content-type": encoder.media_type})
            await response(scope, receive, send)

        return application

    def _stats(self, query: QueryFields) -> Callable[[], Awaitable[Any]]:
        entity, selection = EntityParameters.of(query), query.first("selection")
        return functools.partial(compute_statistics, self.store, entity, selection)

    def _histogram(self, query: QueryFields) -> Callable[[], Awaitable[Any]]:
        return functools.partial(compute_histogram, self.store, HistogramParameters.of(query))


_OK = BufferedResponse(b"ok", headers={"content-type": "text/plain; charset=utf-8"})


async def _ok(scope: Scope, receive: Receive, send: Send) -> None:
    await _OK(scope, receive, send)


def _accept(scope: Scope) -> bytes:
    """All `Accept` fields as one (RFC 9110, section 5.3)."""
    return b",".join(value for name, value in scope["headers"] if name == b"accept")
