"""`POST /batch`: many requests in one, answered in one body, in their order.

The body is a list of `{"status": …, "body": …}` in JSON or MessagePack. A member says
`missing_sources` where the response by itself has the header `Missing-Sources`.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from typing import Any, cast
from urllib.parse import urlencode

import msgpack
import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgihive.asgi import (
    HTTPException,
    StreamedResponse,
    choose_media_type,
    closing,
    parse_query,
    send_error,
)
from asgihive.asgi.arguments import (
    INLINE_BYTES,
    JSON,
    MSGPACK_TYPES,
    Decode,
    decode_body,
    make_body_reader,
)
from asgihive.asgi.errors import Problem, ProblemsFound, refuse_request
from asgihive.asgi.request_fields import MAX_FIELDS
from asgihive.encoders import msgpack as documents
from asgihive.errors import AnswerTooLarge, BadParameter
from asgihive.service.answering import receive_nothing
from asgihive.service.gate import STATUSES, check_permission
from asgihive.service.requests import Version, finish_response, parse_parameters, parse_wanted
from asgihive.service.store import Store
from asgihive.tasks import WorkAhead, work_ahead

MAX_BATCH_REQUESTS = 1000

MAX_BODY_BYTES = 1 << 20
"""The body of a batch request."""

MSGPACK = documents.ENCODER.media_type

AT_ONCE = 4
"""Requests of one batch that are under way or wait for those before them.

Few, so that a batch is no more than a client with that many connections.
"""

# Small answers are sent together.
_PIECE_BYTES = 1 << 16


class BatchRequest(msgspec.Struct, forbid_unknown_fields=True):
    """One request: a route by its name, and its parameters by theirs.

    A parameter is a text, a number, true or false, a list of these where it is repeated, or
    null where it is absent; in MessagePack also bytes, for names that are not UTF-8.
    """

    route: str
    params: dict[str, Any] = {}


# Values are JSON where no format is named: MessagePack does not hold all types.
_VALUES_ROUTE = "data"


class BatchMember:
    """What a request of the batch is answered: it is sent here.

    Args:
        form: of the batch.
        most_bytes: of the body.
        has_format: whether the request names a format.
    """

    def __init__(self, form: "BatchForm", most_bytes: int, *, has_format: bool = False) -> None:
        self.status = 0
        self.media_type = ""
        self.missing_sources: str | None = None
        self._form = form
        self._most_bytes = most_bytes
        self._has_format = has_format
        self._blocks: list[bytes] = []
        self._size = 0

    async def send(self, message: Message) -> None:
        """Take a message of the response, as a server's `send`.

        Raises:
            HTTPException: the body does not fit.
        """
        if message["type"] == "http.response.start":
            headers = dict(message["headers"])
            self.status = message["status"]
            self.media_type = headers[b"content-type"].decode("latin-1").partition(";")[0]
            if (missing := headers.get(b"missing-sources")) is not None:
                self.missing_sources = missing.decode("latin-1")
            self._check(int(headers.get(b"content-length", b"0")))
            if not self._form.can_hold(self.media_type):
                other = "leave `format` out" if self._has_format else "ask for it by itself"
                raise HTTPException(
                    422,
                    f"The answer is {self.media_type}, and a batch in JSON holds only JSON: "
                    f"{other}, or send the batch as MessagePack",
                )
        else:
            block = bytes(message.get("body", b""))
            self._size += len(block)
            self._check(self._size)
            self._blocks.append(block)

    @property
    def body(self) -> bytes:
        """Of the answer."""
        return b"".join(self._blocks)

    def _check(self, size: int) -> None:
        if size > self._most_bytes:
            raise HTTPException(
                413,
                f"The answer has more than the {self._most_bytes} bytes that are accepted for one "
                "request of a batch: ask for it by itself, or use `selection`",
            )


class JsonForm:
    """How answers become a body in JSON: head, members with separators, tail.

    Bodies are what they are by themselves.
    """

    separator = b","
    tail = b"]"

    def can_hold(self, media_type: str) -> bool:
        """Return whether a body of that type can be part of it."""
        return media_type == JSON

    def accept(self, route: str) -> bytes:  # noqa: ARG002  # as `MsgpackForm`
        """Return what the answer of a route should be, as an `Accept` header."""
        return JSON.encode()

    def make_head(self, count: int) -> bytes:  # noqa: ARG002  # as `MsgpackForm`
        """Return what comes before `count` members."""
        return b"["

    def encode(self, member: BatchMember) -> bytes:
        """Return one member; a body that is encoded anew takes a while."""
        missing = b""
        if member.missing_sources is not None:
            missing = b',"missing_sources":%b' % msgspec.json.encode(member.missing_sources)
        return b'{"status":%d%b,"body":%b}' % (member.status, missing, member.body)


class MsgpackForm:
    """The same in MessagePack: bodies in it and in JSON are its values, all others bytes."""

    separator = b""
    tail = b""

    def can_hold(self, media_type: str) -> bool:  # noqa: ARG002  # as `JsonForm`
        return True

    def accept(self, route: str) -> bytes:
        return b"*/*" if route == _VALUES_ROUTE else documents.ENCODER.media_type.encode()

    def make_head(self, count: int) -> bytes:
        header: bytes = msgpack.Packer().pack_array_header(count)
        return header

    def encode(self, member: BatchMember) -> bytes:
        pack = msgspec.msgpack.encode
        fields = [pack("status"), pack(member.status)]
        if member.missing_sources is not None:
            fields += [pack("missing_sources"), pack(member.missing_sources)]
        fields += [pack("body"), _convert_to_msgpack(member)]
        size: bytes = msgpack.Packer().pack_map_header(len(fields) // 2)
        return b"".join([size, *fields])


BatchForm = JsonForm | MsgpackForm


def _convert_to_msgpack(member: BatchMember) -> bytes:
    if member.media_type in MSGPACK_TYPES:
        return member.body
    if member.media_type != JSON:
        return msgspec.msgpack.encode(member.body)
    content = msgspec.json.decode(member.body)
    try:
        return msgspec.msgpack.encode(content)
    except OverflowError:  # an integer of more than 64 bits
        return documents.ENCODER.document(content)


class Batch:
    """The route over one store.

    Args:
        app: answers each of the requests.
    """

    def __init__(self, store: Store, app: ASGIApp) -> None:
        self._store = store
        self._app = app
        self._lane = store.lanes.decode
        self._reader = make_body_reader(list[BatchRequest], MAX_BODY_BYTES)
        # All that is in flight is at most what any answer may have in flight.
        self._most_bytes = store.reader.read_ahead_bytes // AT_ONCE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        content_type = headers.get(b"content-type", "")
        decode = cast("Decode", self._reader.find_decoder(content_type))  # None is for bare bytes
        query = parse_query(scope["query_string"])
        name = parse_parameters("batch", query)["format"]
        media_type = _choose_media_type(name, headers.get(b"accept", ""), content_type)
        raw = await self._reader.read(receive, headers.get(b"content-length"))
        asked = await self._decode(partial(decode_body, decode, raw), len(raw))
        form = JsonForm() if media_type == JSON else MsgpackForm()
        response = StreamedResponse(
            body_chunks=self._answer_all(scope, asked, form), headers={"content-type": media_type}
        )
        cache_control = self._store.settings.cache_control
        wanted = parse_wanted(
            scope, cache_control, has_format=name is not None, is_compressible=True
        )
        version = Version(is_large=True)
        coded = await finish_response(wanted, version, response, self._store.run_in_decode_lane)
        await coded(scope, receive, send)

    async def _decode(
        self, decode: Callable[[], list[BatchRequest]], size: int
    ) -> list[BatchRequest]:
        """Return the requests.

        Raises:
            HTTPException: 422, malformed or too many.
        """
        try:
            asked = decode() if size <= INLINE_BYTES else await self._lane.run(decode)
        except ProblemsFound as found:
            problems = [Problem(("body", *each.where), each.message) for each in found.problems]
            raise refuse_request(problems) from None
        if len(asked) > MAX_BATCH_REQUESTS:
            message = (
                f"The batch has {len(asked)} requests: at most {MAX_BATCH_REQUESTS} are accepted"
            )
            raise HTTPException(422, message)
        return asked

    @asynccontextmanager
    async def _answer_all(
        self, scope: Scope, asked: Sequence[BatchRequest], form: BatchForm
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Yield the body, while the next requests are answered; none is when the context ends."""
        answer = partial(self._answer, scope, form)
        async with (
            work_ahead(iter(asked), answer, AT_ONCE) as members,
            closing(self._gather(scope, members, form, len(asked))) as pieces,
        ):
            yield pieces

    async def _gather(
        self, batch: Scope, members: WorkAhead[bytes], form: BatchForm, count: int
    ) -> AsyncIterator[bytes]:
        gathered, size = [form.make_head(count)], 0
        left = limit = self._store.settings.max_response_bytes
        for number in range(count):
            if size and (size >= _PIECE_BYTES or not members.is_ready):
                yield b"".join(gathered)
                gathered, size = [], 0
            member = await anext(members)
            left -= len(member)
            if left < 0:
                # What is too much of an answer is so of a batch, but others still fit.
                left += len(member)
                too_large = AnswerTooLarge(limit - left + len(member), limit)
                member = await self._refuse(too_large, batch, form)
            gathered += [form.separator if number else b"", member]
            size += len(member)
        yield b"".join([*gathered, form.tail])

    async def _answer(self, batch: Scope, form: BatchForm, asked: BatchRequest) -> bytes:
        """Return the answer to one request, as a member of the body."""
        member = BatchMember(form, self._most_bytes, has_format="format" in asked.params)
        try:
            scope = _make_scope(batch, asked, form)
            await check_permission(scope)
            await self._app(scope, receive_nothing, member.send)
            return await self._encode(member, form)
        except Exception as error:  # noqa: BLE001  # answered: nothing of this request is sent yet
            return await self._refuse(error, batch, form)

    async def _refuse(self, error: Exception, batch: Scope, form: BatchForm) -> bytes:
        """Return the answer to a request that failed, as a member of the body."""
        member = BatchMember(form, self._most_bytes)
        await send_error(error, batch, receive_nothing, member.send, statuses=STATUSES)
        return await self._encode(member, form)

    async def _encode(self, member: BatchMember, form: BatchForm) -> bytes:
        if len(member.body) <= INLINE_BYTES:
            return form.encode(member)
        return await self._lane.run(partial(form.encode, member), patient=True)


def _make_scope(batch: Scope, asked: BatchRequest, form: BatchForm) -> Scope:
    """Return the scope of a request, as if it had come in the place of the batch.

    Raises:
        BadParameter: a parameter has a value that no query can hold, or there are too many.
    """
    # On the event loop, so that no more of them are encoded than are accepted.
    fields = list(islice(_list_fields(asked), MAX_FIELDS + 1))
    if len(fields) > MAX_FIELDS:
        accepted = f"at most {MAX_FIELDS} are accepted"
        raise BadParameter("params", f"more than {MAX_FIELDS} values", accepted)
    route = asked.route.strip("/")
    path = f"{batch.get('root_path', '')}/{route}"
    return {
        **batch,
        "method": "GET",
        "path": path,
        "raw_path": path.encode("utf-8", "replace"),
        "query_string": urlencode(fields).encode(),
        "headers": [(b"accept", form.accept(route))],
        "extensions": {},
    }


def _list_fields(asked: BatchRequest) -> Iterator[tuple[str, str | bytes]]:
    for name, value in asked.params.items():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, bool):
                yield name, "true" if each else "false"
            elif isinstance(each, str | bytes | int | float):
                yield name, each if isinstance(each, bytes) else str(each)
            elif each is not None:
                accepted = "a text, a number, true, false, null, or a list of these is accepted"
                raise BadParameter(name, str(each), accepted)


def _choose_media_type(name: str | None, accept: str, content_type: str) -> str:
    """Return the media type: by `format`, else by `Accept`, else as the batch was sent."""
    if name is not None:
        return JSON if name == "json" else MSGPACK
    sent = content_type.partition(";")[0].strip().lower()
    first = sent if sent in MSGPACK_TYPES else JSON
    return (choose_media_type(accept, (first, JSON, *MSGPACK_TYPES)) if accept else first) or JSON
