"""How an answer is made once for all who ask, kept, finished for one request, and begun in time."""

import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn, cast

import anyio
import anyio.lowlevel
import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgihive.asgi import BufferedResponse, HTTPException, StreamedResponse
from asgihive.concurrency import Portions, measured
from asgihive.encoders.protocol import DocumentEncoder
from asgihive.errors import AnswerTooLarge, ReadTimeout
from asgihive.hdf5.pool import Lease
from asgihive.service.requests import (
    COMPRESS_OVER_BYTES,
    ReadRequest,
    Version,
    Wanted,
    answer_preconditions,
    finish_response,
    get_coding,
)
from asgihive.service.store import MAX_DOCUMENT_BYTES, Answer, AnswerCache, BytesPlace, Store


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
        # Not by `encode_document`: to measure each of thousands would take as long as to encode it.
        body = self.encoder.document(part)
        self.used += len(body)
        if self.used > self.most:
            raise AnswerTooLarge(self.used, self.most, "ask for its members one by one")
        # In JSON it need not be encoded again.
        return orjson.Fragment(body) if self.encoder.media_type == "application/json" else part


MakeContent = Callable[[ReadRequest, Lease, DocumentSize], Portions[Any]]
"""Makes the content of a document in portions in the library lane."""


async def answer_document(
    store: Store, make: MakeContent, request: ReadRequest, wanted: Wanted, _receive: Receive
) -> ASGIApp:
    """Return the response with a document, or a 304. Raises HTTPException: 412."""
    answer = await find_or_make_document(store, make, request, wanted)
    return await answer_whole(store, request, wanted, answer)


async def answer_whole(
    store: Store, request: ReadRequest, wanted: Wanted, answer: Answer
) -> BufferedResponse:
    """Return the response with an answer that is there as a whole, or a 304.

    Raises:
        HTTPException: 412.
    """
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
            await finish_response(wanted, answer.version, plain, store.run_in_decode_lane),
        )
        store.answers.keep_response(request.key, answer, name, response)
    return response


async def find_or_make_document(
    store: Store, make: MakeContent, request: ReadRequest, wanted: Wanted
) -> Answer:
    """Return a document as it is, in no content coding; made once, however many ask at once."""
    make_answer = partial(_make_document, store, make, request, wanted)
    return await find_or_make_answer(store, request, make_answer)


async def find_or_make_answer(
    store: Store, request: ReadRequest, make: Callable[[], Awaitable[Answer]]
) -> Answer:
    """Return the kept answer, or the one that is made once for all who ask at the same time."""
    answer = await store.answers.find(request.key)
    return await store.answers.find_or_make(request.key, make) if answer is None else answer


async def _make_document(
    store: Store, make: MakeContent, request: ReadRequest, wanted: Wanted
) -> Answer:
    encoder = cast("DocumentEncoder", request.encoder)
    most = min(MAX_DOCUMENT_BYTES, store.settings.max_response_bytes)

    def make_body(lease: Lease) -> Portions[bytes]:
        size = DocumentSize(encoder, most)
        return encode_document(encoder, (yield from make(request, lease, size)))

    body, lease = await store.read(partial(store.in_portions, work=make_body))
    lease.release()
    if len(body) > most:
        raise AnswerTooLarge(len(body), most, "ask for a part of it")
    is_large = len(body) > COMPRESS_OVER_BYTES
    version = await store.make_version(request, lease, is_large=is_large)
    response = BufferedResponse(body, headers={"content-type": encoder.media_type})
    return await keep_whole(store, request, wanted, version, response)


async def keep_whole(
    store: Store,
    request: ReadRequest,
    wanted: Wanted,
    version: Version,
    response: BufferedResponse,
) -> Answer:
    """Keep a response as the answer, in no content coding: others are made of it."""
    plain = replace(wanted, coding=None)
    finished = await finish_response(plain, version, response, store.run_in_decode_lane)
    answer = Answer(version, {None: cast("BufferedResponse", finished)})
    store.answers.keep(request.key, answer)
    return answer


@measured("encode")
def encode_document(encoder: DocumentEncoder, content: Any) -> bytes:
    """Return the content of a document in its format."""
    return encoder.document(content)


async def finish_answer(  # noqa: PLR0913, PLR0917  # what answers, what is asked, what is known
    store: Store,
    answers: AnswerCache,
    request: ReadRequest,
    wanted: Wanted,
    version: Version,
    response: BufferedResponse | StreamedResponse,
    place: BytesPlace | None = None,
    *,
    keeps_body: bool = False,
) -> BufferedResponse | StreamedResponse:
    """Return a response as it is sent, and keep what is known of it.

    Args:
        answers: where it is kept.
        place: of the bytes of the body, if that is known.
        keeps_body: whether a body that has no place is kept as well.

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
    finished = await finish_response(wanted, version, response, store.run_in_decode_lane)
    answer = Answer(version)
    if isinstance(finished, BufferedResponse) and finished.status == 200 and wanted.coding is None:
        if place is not None:
            # Not its bytes: they are in memory where they lie.
            answer = Answer(version, {None: finished.with_body(b"")}, place)
        elif keeps_body:
            answer = Answer(version, {None: finished})
    answers.keep(request.key, answer)
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


def make_inner_scope(route: str, query: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> Scope:
    """Return the scope of a request that the service makes to itself.

    Args:
        route: its path.
        query: as in a URL.
        headers: of the request.
    """
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": route,
        "raw_path": route.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": list(headers),
        "client": None,
        "server": None,
        "state": {},
        "extensions": {},
    }


async def receive_nothing() -> NoReturn:
    """Wait as a client without a body does, until the request is over."""
    while True:
        await anyio.sleep_forever()


class CapturedResponse:
    """A response that is not handed on: one of the service to itself."""

    def __init__(self) -> None:
        self.status = 499
        """That of a client that has gone, while there is none."""
        self.headers: dict[bytes, bytes] = {}
        self._blocks: list[bytes] = []

    async def send(self, message: Message) -> None:
        """Take a message of the response, as a server's `send`."""
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        else:
            self._blocks.append(message.get("body", b""))

    @property
    def body(self) -> bytes:
        """Of the response."""
        return b"".join(self._blocks)

    def make_error(self) -> HTTPException:
        """Return what answers as the response does."""
        content: Mapping[str, Any] = orjson.loads(self.body or b"{}")
        retry = self.headers.get(b"retry-after")
        kept = {} if retry is None else {"Retry-After": retry.decode("latin-1")}
        status = self.status if self.status >= 400 else 500
        return HTTPException(status, content.get("message"), kept)
