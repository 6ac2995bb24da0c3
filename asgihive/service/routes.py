"""The routes of the HDF5 service: what each makes of a request, and how it is answered."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

from starlette.types import ASGIApp, Receive, Scope, Send

from asgihive.asgi import BufferedResponse, Router, run_while_connected
from asgihive.concurrency import Portions
from asgihive.encoders.protocol import DocumentEncoder, list_encoders
from asgihive.errors import KindMismatch
from asgihive.hdf5.entities import Describer, read_attributes
from asgihive.hdf5.links import LinkResolution, Resolved, kind_of, list_paths, walk
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.views import Method
from asgihive.service.answering import (
    DocumentSize,
    MakeContent,
    answer_document,
    begin_in_time,
    encode_document,
    finish_answer,
)
from asgihive.service.batch import Batch
from asgihive.service.data import answer_values
from asgihive.service.files import Files
from asgihive.service.parameters import FILE_PREFIX
from asgihive.service.reductions import (
    answer_view,
    compute_histogram,
    compute_statistics,
    prepare_numbers,
)
from asgihive.service.requests import (
    ReadRequest,
    Version,
    Wanted,
    answer_preconditions,
    parse_wanted,
    read_request,
)
from asgihive.service.store import Store

MAX_LISTED_PATHS = 1_000_000
"""Paths in one answer of `/paths`."""


class Routes:
    """The routes over one store, as `router`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._loaded: set[str] = set()
        """Formats whose encoder has imported what it needs."""
        list_encoders()  # found and imported now, not on the event loop of the first request
        self.router = Router(optional_trailing_slash=True)
        for name, make in _DOCUMENTS.items():
            self._add(name, ReadRoute(store, name, partial(answer_document, store, make)))
        self._add("data", ReadRoute(store, "data", self._answer_data))
        for name in ("stats", "histogram"):
            self._add(name, ReadRoute(store, name, self._answer_reduction))
        files, seconds = Files(store), store.settings.read_timeout_seconds
        self.listing = TimedRoute(files.list, seconds)
        """What answers `/files`."""
        self._add("files", self.listing)
        self._add("file", TimedRoute(files.send, seconds))
        self._add("file", TimedRoute(files.send, seconds), path=f"{FILE_PREFIX}{{path:path}}")
        # Each of its requests has as long as it has by itself.
        self.router.add("/batch", Batch(store, self.router), methods=("POST",), name="batch")

    def _add(self, name: str, app: ASGIApp, path: str | None = None) -> None:
        self.router.add(path or f"/{name}", app, name=name)

    async def _answer_data(
        self, request: ReadRequest, wanted: Wanted, receive: Receive
    ) -> ASGIApp | None:
        store = self.store
        if wanted.is_conditional:
            unchanged = await self._find_unchanged(request, wanted)
            if unchanged is not None:
                return unchanged
        load = getattr(request.encoder, "load", None)
        if load is not None and request.encoder.name not in self._loaded:
            await store.lanes.decode.run(load, patient=True)
            self._loaded.add(request.encoder.name)
        view, place = request.view, None
        if view is None or view.method is Method.NEAREST:
            version, response, place = await answer_values(store, request, wanted)
        else:
            answered = await answer_view(store, request, wanted, view, receive)
            if answered is None:
                return None
            version, response = answered
        return await finish_answer(store, store.answers, request, wanted, version, response, place)

    async def _answer_reduction(
        self, request: ReadRequest, wanted: Wanted, receive: Receive
    ) -> ASGIApp | None:
        """Answer with few numbers made of many values, while the client waits."""
        store = self.store
        if wanted.is_conditional:
            unchanged = await self._find_unchanged(request, wanted)
            if unchanged is not None:
                return unchanged
        encoder = cast("DocumentEncoder", request.encoder)
        compute = compute_statistics if request.route == "stats" else compute_histogram

        async def answer() -> tuple[Version, BufferedResponse]:
            numbers, lease = await prepare_numbers(store, request)
            try:
                version = await store.make_version(request, lease, numbers.sources)
                unchanged = answer_preconditions(wanted, version)
                if unchanged is not None:
                    return version, unchanged
                body = encode_document(encoder, await compute(request, numbers))
            finally:
                lease.release()
            return version, BufferedResponse(body, headers={"content-type": encoder.media_type})

        answered = await run_while_connected(receive, answer)
        if answered is None:
            return None
        return await finish_answer(store, store.answers, request, wanted, *answered)

    async def _find_unchanged(
        self, request: ReadRequest, wanted: Wanted
    ) -> BufferedResponse | None:
        """Return a 304, if what is in memory says so. Raises HTTPException: 412."""
        known = await self.store.answers.find(request.key)
        return None if known is None else answer_preconditions(wanted, known.version)


class TimedRoute:
    """An ASGI application: another one, which has to begin its answer in time."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with begin_in_time(self._seconds, send) as begin:
            await self._app(scope, receive, begin)


class ReadRoute:
    """An ASGI application: a route whose answers are made of the values in a file.

    A kept answer that is in memory is sent at once: a bound of time would cost a third of it.

    Args:
        store: the store.
        name: of the route.
        answer: makes the answer to a request; None where the client has gone.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        answer: Callable[[ReadRequest, Wanted, Receive], Awaitable[ASGIApp | None]],
    ) -> None:
        self._store = store
        self._name = name
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        settings = self._store.settings
        request = read_request(scope, self._name)
        wanted = parse_wanted(
            scope,
            settings.cache_control,
            has_format=request.has_format,
            # Where it is, its length is not known beforehand.
            is_compressible=settings.compress_arrays
            or getattr(request.encoder, "is_compressible", True),
        )
        response: ASGIApp | None = self._store.answers.find_response(request.key, wanted)
        if response is not None:
            await response(scope, receive, send)
            return
        with begin_in_time(settings.read_timeout_seconds, send) as begin:
            response = await self._answer(request, wanted, receive)
            if response is not None:
                await response(scope, receive, begin)


def _describe_entity(request: ReadRequest, lease: Lease, size: DocumentSize) -> Portions[Any]:
    file = lease.open_asked(request.file)
    found = walk(lease, file, request.path, request.values["resolve_links"])
    return (yield from Describer(lease, size.keep).describe(found))


def _read_attributes(request: ReadRequest, lease: Lease, size: DocumentSize) -> Portions[Any]:
    file = lease.open_asked(request.file)
    found = walk(lease, file, request.path, LinkResolution.ONLY_VALID)
    if not isinstance(found, Resolved):
        kind = kind_of(found).replace("_", " ")
        needed = "a group, a dataset or a datatype"
        raise KindMismatch(request.file, found.path, f"{kind} without a target", needed)
    names = list(request.values["attr_keys"]) or None
    return (yield from read_attributes(found, names, size.most))


def _list_paths(request: ReadRequest, lease: Lease, _: DocumentSize) -> Portions[Any]:
    resolution = request.values["resolve_links"]
    found = walk(lease, lease.open_asked(request.file), request.path, resolution)
    return (yield from list_paths(lease, found, resolution, MAX_LISTED_PATHS))


_DOCUMENTS: dict[str, MakeContent] = {
    "meta": _describe_entity,
    "attr": _read_attributes,
    "paths": _list_paths,
}
