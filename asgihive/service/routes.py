"""The routes of the HDF5 service: what each makes of a request, and how it is answered."""

import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import anyio
import anyio.lowlevel
import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgihive.asgi import BufferedResponse, Router, StreamedResponse, run_while_connected
from asgihive.concurrency import Portions, measured
from asgihive.encoders.protocol import DocumentEncoder, list_encoders
from asgihive.errors import AnswerTooLarge, KindMismatch, ReadTimeout
from asgihive.hdf5.entities import Describer, read_attributes
from asgihive.hdf5.links import LinkResolution, Resolved, kind_of, list_paths, walk
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.views import Method
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
    COMPRESS_OVER_BYTES,
    ReadRequest,
    Version,
    Wanted,
    answer_preconditions,
    finish_response,
    get_coding,
    parse_wanted,
    read_request,
)
from asgihive.service.store import MAX_DOCUMENT_BYTES, Answer, BytesPlace, Store

MAX_LISTED_PATHS = 1_000_000
"""Paths in one answer of `/paths`."""

# Makes the content of a document in portions in the library lane.
MakeContent = Callable[[ReadRequest, Lease, "DocumentSize"], Portions[Any]]


class Routes:
    """The routes over one store, as `router`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        list_encoders()  # found and imported now, not on the event loop of the first request
        self.router = Router(optional_trailing_slash=True)
        self.router.add("/", _ok, name="ok")
        for name, make in _DOCUMENTS.items():
            self._add(name, ReadRoute(store, name, partial(self._answer_document, make)))
        self._add("data", ReadRoute(store, "data", self._answer_data))
        for name in ("stats", "histogram"):
            self._add(name, ReadRoute(store, name, self._answer_reduction))
        files, seconds = Files(store), store.settings.read_timeout_seconds
        self._add("files", TimedRoute(files.list, seconds))
        self._add("file", TimedRoute(files.send, seconds))
        self._add("file", TimedRoute(files.send, seconds), path=f"{FILE_PREFIX}{{path:path}}")
        # Each of its requests has as long as it has by itself.
        self.router.add("/batch", Batch(store, self.router), methods=("POST",), name="batch")

    def _add(self, name: str, app: ASGIApp, path: str | None = None) -> None:
        self.router.add(path or f"/{name}", app, name=name)

    async def _answer_document(
        self, make: MakeContent, request: ReadRequest, wanted: Wanted, _receive: Receive
    ) -> ASGIApp | None:
        answers, key = self.store.answers, request.key
        answer = await answers.find(key)
        if answer is None:
            make_answer = partial(self._make_document, make, request, wanted)
            answer = await answers.find_or_make(key, make_answer)
        if wanted.is_conditional:
            unchanged = answer_preconditions(wanted, answer.version)
            if unchanged is not None:
                return unchanged
        coding = get_coding(wanted, answer.version)
        name = None if coding is None else coding.name
        response = answer.responses.get(name)
        if response is None:
            plain = answer.responses[None]
            response = cast(
                "BufferedResponse",
                await finish_response(wanted, answer.version, plain, self.store.run_in_decode_lane),
            )
            answers.keep_response(key, answer, name, response)
        return response

    async def _make_document(
        self, make: MakeContent, request: ReadRequest, wanted: Wanted
    ) -> Answer:
        store = self.store
        encoder = cast("DocumentEncoder", request.encoder)
        most = min(MAX_DOCUMENT_BYTES, store.settings.max_response_bytes)

        def make_body(lease: Lease) -> Portions[bytes]:
            size = DocumentSize(encoder, most)
            return _encode(encoder, (yield from make(request, lease, size)))

        body, lease = await store.read(partial(store.in_portions, work=make_body))
        lease.release()
        if len(body) > most:
            raise AnswerTooLarge(len(body), most, "ask for a part of it")
        is_large = len(body) > COMPRESS_OVER_BYTES
        version = await store.make_version(request, lease, is_large=is_large)
        # As it is: other codings are made of it.
        plain = replace(wanted, coding=None)
        response = BufferedResponse(body, headers={"content-type": encoder.media_type})
        finished = await finish_response(plain, version, response, self.store.run_in_decode_lane)
        answer = Answer(version, {None: cast("BufferedResponse", finished)})
        store.answers.keep(request.key, answer)
        return answer

    async def _answer_data(
        self, request: ReadRequest, wanted: Wanted, receive: Receive
    ) -> ASGIApp | None:
        store = self.store
        if wanted.is_conditional:
            unchanged = await self._find_unchanged(request, wanted)
            if unchanged is not None:
                return unchanged
        view, place = request.view, None
        if view is None or view.method is Method.NEAREST:
            version, response, place = await answer_values(store, request, wanted)
        else:
            answered = await answer_view(store, request, wanted, view, receive)
            if answered is None:
                return None
            version, response = answered
        return await self._finish(request, wanted, version, response, place)

    async def _answer_reduction(
        self, request: ReadRequest, wanted: Wanted, receive: Receive
    ) -> ASGIApp | None:
        """Answer with few numbers made of many values, while the client waits."""
        if wanted.is_conditional:
            unchanged = await self._find_unchanged(request, wanted)
            if unchanged is not None:
                return unchanged
        encoder = cast("DocumentEncoder", request.encoder)
        compute = compute_statistics if request.route == "stats" else compute_histogram

        async def answer() -> tuple[Version, BufferedResponse]:
            numbers, lease = await prepare_numbers(self.store, request)
            try:
                version = await self.store.make_version(request, lease, numbers.sources)
                unchanged = answer_preconditions(wanted, version)
                if unchanged is not None:
                    return version, unchanged
                body = _encode(encoder, await compute(request, numbers))
            finally:
                lease.release()
            return version, BufferedResponse(body, headers={"content-type": encoder.media_type})

        answered = await run_while_connected(receive, answer)
        return None if answered is None else await self._finish(request, wanted, *answered)

    async def _find_unchanged(
        self, request: ReadRequest, wanted: Wanted
    ) -> BufferedResponse | None:
        """Return a 304, if what is in memory says so. Raises HTTPException: 412."""
        known = await self.store.answers.find(request.key)
        return None if known is None else answer_preconditions(wanted, known.version)

    async def _finish(
        self,
        request: ReadRequest,
        wanted: Wanted,
        version: Version,
        response: BufferedResponse | StreamedResponse,
        place: BytesPlace | None = None,
    ) -> ASGIApp:
        """Return a response as it is sent, and keep what is known of it.

        Raises:
            HTTPException: 412.
        """
        if response.status == 304:
            return response
        if isinstance(response, StreamedResponse):
            version = replace(version, is_large=True)
        elif response.status == 200:
            version = replace(version, is_large=len(response.body) > COMPRESS_OVER_BYTES)
            if wanted.is_conditional:
                unchanged = answer_preconditions(wanted, version)
                if unchanged is not None:
                    return unchanged
        finished = await finish_response(wanted, version, response, self.store.run_in_decode_lane)
        is_whole = isinstance(finished, BufferedResponse) and finished.status == 200
        answer = Answer(version)
        if place is not None and is_whole and wanted.coding is None:
            # Not its bytes: they are in memory where they lie.
            short = cast("BufferedResponse", finished).with_body(b"")
            answer = Answer(version, {None: short}, place)
        self.store.answers.keep(request.key, answer)
        return finished


@contextmanager
def begin_in_time(seconds: float, send: Send) -> Iterator[Send]:
    """Yield a `send` for an answer that has to begin in time.

    All that the service does before counts: waiting for a lane, for another request that makes the
    same answer, for a file to stop changing. What has begun is bounded by how long its client may
    take (`Passage`), and for each further block by the reader. What makes the answer
    is cancelled when its time is over, so that its work ends at the next step.

    Args:
        seconds: until the first byte.

    Raises:
        ReadTimeout: nothing was sent by then.
    """
    with anyio.move_on_after(seconds) as limit:

        async def begin(message: Message) -> None:
            if limit.cancel_called:
                # Too late by a moment: nothing may be sent of an answer that is cancelled.
                await anyio.lowlevel.checkpoint()
            limit.deadline = math.inf
            await send(message)

        yield begin
    if limit.cancelled_caught:
        raise ReadTimeout(seconds)


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


_OK = BufferedResponse(b"ok", headers={"content-type": "text/plain; charset=utf-8"})


async def _ok(scope: Scope, receive: Receive, send: Send) -> None:
    await _OK(scope, receive, send)


def _describe_entity(request: ReadRequest, lease: Lease, size: "DocumentSize") -> Portions[Any]:
    file = lease.open_asked(request.file)
    found = walk(lease, file, request.path, request.values["resolve_links"])
    return (yield from Describer(lease, size.keep).describe(found))


def _read_attributes(request: ReadRequest, lease: Lease, size: "DocumentSize") -> Portions[Any]:
    file = lease.open_asked(request.file)
    found = walk(lease, file, request.path, LinkResolution.ONLY_VALID)
    if not isinstance(found, Resolved):
        kind = kind_of(found).replace("_", " ")
        needed = "a group, a dataset or a datatype"
        raise KindMismatch(request.file, found.path, f"{kind} without a target", needed)
    names = list(request.values["attr_keys"]) or None
    return (yield from read_attributes(found, names, size.most))


def _list_paths(request: ReadRequest, lease: Lease, _: "DocumentSize") -> Portions[Any]:
    resolution = request.values["resolve_links"]
    found = walk(lease, lease.open_asked(request.file), request.path, resolution)
    return (yield from list_paths(lease, found, resolution, MAX_LISTED_PATHS))


_DOCUMENTS: dict[str, MakeContent] = {
    "meta": _describe_entity,
    "attr": _read_attributes,
    "paths": _list_paths,
}


@dataclass(slots=True)
class DocumentSize:
    """Encodes the parts of a document as they come, and stops where they are too many bytes.

    A few hundred KiB of a file may stand for GiBs: links to one object with many attributes.
    """

    encoder: DocumentEncoder
    most: int
    used: int = 0

    def keep(self, part: Any) -> Any:
        """Return the part, for a document. Raises AnswerTooLarge."""
        # Not by `_encode`: to measure each of thousands would take as long as to encode it.
        body = self.encoder.document(part)
        self.used += len(body)
        if self.used > self.most:
            raise AnswerTooLarge(self.used, self.most, "ask for its members one by one")
        # In JSON it need not be encoded again.
        return orjson.Fragment(body) if self.encoder.media_type == "application/json" else part


@measured("encode")
def _encode(encoder: DocumentEncoder, content: Any) -> bytes:
    return encoder.document(content)
