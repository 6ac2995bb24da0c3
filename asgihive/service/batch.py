"""`POST /batch`: many requests in one, answered in one body, in their order."""

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, NoReturn, cast
from urllib.parse import urlencode

import anyio
import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from asgihive.asgi import (
    HTTPException,
    QueryFields,
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
from asgihive.concurrency import Lane
from asgihive.encoders import msgpack
from asgihive.errors import AnswerTooLarge, BadParameter
from asgihive.service.batch_forms import Answer, Form, JsonForm, MsgpackForm
from asgihive.service.gate import STATUSES, check_permission
from asgihive.service.parameters import refuse_misspelt
from asgihive.service.representations import Representation
from asgihive.service.store import Store

MAX_BATCH_REQUESTS = 1000

MAX_BODY_BYTES = 1 << 20
"""The body of a batch request."""

MSGPACK = msgpack.ENCODER.media_type

# Requests of one batch that are under way or wait for those before them; few, so that a
# batch is no more than a client with that many connections.
_AT_ONCE = 4

# Small answers are sent together.
_PIECE_BYTES = 1 << 16


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """One request: a route by its name, and its parameters by theirs.

    A parameter is a text, a number, true or false, a list of these where it is repeated, or
    null where it is absent; in MessagePack also bytes, for names that are not UTF-8.
    """

    route: str
    params: dict[str, Any] = {}


class Batch:
    """The route over one store.

    Args:
        app: answers each of the requests.
    """

    def __init__(self, store: Store, app: ASGIApp) -> None:
        self._store = store
        self._settings = store.settings
        self._lane = store.lanes.decode
        self._reader = make_body_reader(list[Asked], MAX_BODY_BYTES)
        # All that is in flight is at most what any answer may have in flight.
        most_bytes = store.reader.read_ahead_bytes // _AT_ONCE
        self._asker = _Asker(app, store.lanes.decode, most_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        content_type = headers.get(b"content-type", "")
        decode = cast("Decode", self._reader.find_decoder(content_type))  # None is for bare bytes
        query = parse_query(scope["query_string"])
        refuse_misspelt(query, "batch")
        media_type = _media_type(query, headers.get(b"accept", ""), content_type)
        raw = await self._reader.read(receive, headers.get(b"content-length"))
        asked = await self._asked(partial(decode_body, decode, raw), len(raw))
        form = JsonForm() if media_type == JSON else MsgpackForm()
        response = StreamedResponse(
            body_chunks=self._answers(scope, asked, form), headers={"content-type": media_type}
        )
        representation = Representation.of(self._store, scope, ("batch",), is_compressible=True)
        coded = await representation.finished(response)
        await coded(scope, receive, send)

    async def _asked(self, decode: Callable[[], list[Asked]], size: int) -> list[Asked]:
        """The requests.

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
    async def _answers(
        self, scope: Scope, asked: Sequence[Asked], form: Form
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The body, while the next requests are answered; none is when the context ends."""
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:

            def begin(each: Asked) -> _Pending:
                pending = _Pending()
                tasks.start_soon(pending.run, partial(self._asker.piece, scope, each, form))
                return pending

            ahead = _Ahead(asked, begin)
            try:
                async with closing(self._pieces(scope, ahead, form, len(asked))) as pieces:
                    yield pieces
            except Exception as error:  # noqa: BLE001  # raised below, outside of the group
                failure = error
            finally:
                tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _pieces(
        self, batch: Scope, ahead: "_Ahead", form: Form, count: int
    ) -> AsyncIterator[bytes]:
        gathered, size, left = [form.head(count)], 0, self._settings.max_response_bytes
        for number in range(count):
            if size and (size >= _PIECE_BYTES or not ahead.is_ready):
                yield b"".join(gathered)
                gathered, size = [], 0
            piece = await ahead.next()
            left -= len(piece)
            if left < 0:
                # What is too much of an answer is so of a batch, but others still fit.
                left += len(piece)
                piece = await self._asker.refusal(self._too_large(left, len(piece)), batch, form)
            gathered += [form.separator if number else b"", piece]
            size += len(piece)
        yield b"".join([*gathered, form.tail])

    def _too_large(self, left: int, size: int) -> AnswerTooLarge:
        limit = self._settings.max_response_bytes
        return AnswerTooLarge(limit - left + size, limit)


@dataclass(slots=True)
class _Pending:
    """A request that is being answered."""

    done: anyio.Event = field(default_factory=anyio.Event)
    piece: bytes = b""

    async def run(self, answer: Any) -> None:
        self.piece = await answer()
        self.done.set()


class _Ahead:
    """Answers in order, of which the next ones are under way."""

    def __init__(self, asked: Sequence[Asked], begin: Callable[[Asked], _Pending]) -> None:
        self._asked: Iterator[Asked] = iter(asked)
        self._begin = begin
        self._pending: deque[_Pending] = deque()

    @property
    def is_ready(self) -> bool:
        """Whether the next answer is there already."""
        return bool(self._pending) and self._pending[0].done.is_set()

    async def next(self) -> bytes:
        """The next answer; the one after the last one is nobody's to ask for."""
        while len(self._pending) < _AT_ONCE and (each := next(self._asked, None)) is not None:
            self._pending.append(self._begin(each))
        first = self._pending.popleft()
        await first.done.wait()
        return first.piece


class _Asker:
    """Lets the service answer single requests.

    Args:
        app: the service, behind its `Guard`.
        most_bytes: of the body of each answer.
    """

    def __init__(self, app: ASGIApp, lane: Lane, most_bytes: int) -> None:
        self._app = app
        self._lane = lane
        self._most_bytes = most_bytes

    async def piece(self, batch: Scope, asked: Asked, form: Form) -> bytes:
        """The answer to one request, as a member of the body."""
        answer = Answer(form, self._most_bytes, has_format="format" in asked.params)
        try:
            scope = _scope(batch, asked, form)
            await check_permission(scope)
            await self._app(scope, _receive, answer.send)
            return await self._member(answer, form)
        except Exception as error:  # noqa: BLE001  # answered: nothing of this request is sent yet
            return await self.refusal(error, batch, form)

    async def refusal(self, error: Exception, batch: Scope, form: Form) -> bytes:
        """What answers a request that failed, as a member of the body."""
        answer = Answer(form, self._most_bytes)
        await send_error(error, batch, _receive, answer.send, statuses=STATUSES)
        return await self._member(answer, form)

    async def _member(self, answer: Answer, form: Form) -> bytes:
        if len(answer.body) <= INLINE_BYTES:
            return form.member(answer)
        return await self._lane.run(partial(form.member, answer), patient=True)


def _scope(batch: Scope, asked: Asked, form: Form) -> Scope:
    """Of the request alone, as if it had come in the place of the batch.

    Raises:
        BadParameter: a parameter has a value that no query can hold, or there are too many.
    """
    # On the event loop, so that no more of them are encoded than are accepted.
    fields = list(islice(_fields(asked), MAX_FIELDS + 1))
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


def _fields(asked: Asked) -> Iterator[tuple[str, str | bytes]]:
    for name, value in asked.params.items():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, bool):
                yield name, "true" if each else "false"
            elif isinstance(each, str | bytes | int | float):
                yield name, each if isinstance(each, bytes) else str(each)
            elif each is not None:
                accepted = "a text, a number, true, false, null, or a list of these is accepted"
                raise BadParameter(name, str(each), accepted)


async def _receive() -> NoReturn:
    """Of a request without a body, whose client waits as long as the batch's does."""
    while True:
        await anyio.sleep_forever()


def _media_type(query: QueryFields, accept: str, content_type: str) -> str:
    """Of the answer: by `format`, else by `Accept`, else as the batch was sent.

    Raises:
        BadParameter
    """
    name = query.first("format")
    if name:
        if name not in {"json", "msgpack"}:
            raise BadParameter("format", name, "json and msgpack are accepted here")
        return JSON if name == "json" else MSGPACK
    sent = content_type.partition(";")[0].strip().lower()
    first = sent if sent in MSGPACK_TYPES else JSON
    return (choose_media_type(accept, (first, JSON, *MSGPACK_TYPES)) if accept else first) or JSON
