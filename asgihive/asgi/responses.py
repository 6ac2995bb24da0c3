"""Responses: a body that is in memory and can be sent again, and a body that is streamed.

What is sent of them passes a `Passage`, which bounds how long a client takes for it.
"""

import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import quote

import anyio
import anyio.lowlevel
from starlette.types import Message, Receive, Scope, Send

T = TypeVar("T")

BodyChunk = bytes | memoryview
"""Bytes of a response body, which are sent in one message."""

RawHeaders = tuple[tuple[bytes, bytes], ...]

PHASES = {
    "http.response.start": "begun",
    "websocket.accept": "open",
    "websocket.close": "begun",
    "websocket.http.response.start": "begun",
}
"""The phase of a connection after a message of a type; before any of them it is "new"."""

_HANDSHAKES = {"websocket.accept": 101, "websocket.close": 403}
"""The status of a handshake: what a server makes of a websocket that is closed before it."""

# Less than this lies in the buffers of the server and the operating system.
_BUFFERED_BYTES = 1 << 16

_NOT_IN_A_VALUE = re.compile(rb"[\r\n\0]")  # RFC 9110 §5.5
_MAX_FILENAME_CHARACTERS = 150


class ContentLengthMismatch(RuntimeError):
    """A streamed body is shorter or longer than the Content-Length that announced it."""

    def __init__(self, content_length: int, received: int) -> None:
        super().__init__(content_length, received)
        self.content_length = content_length
        self.received = received

    def __str__(self) -> str:
        return f"Content-Length is {self.content_length}, the body has {self.received} bytes"


class ClientStalled(OSError):  # as if the client were gone: there is no one to answer
    """A client took nothing of a body chunk for too long."""


class ClientGone(Exception):  # no error: there is no client to answer
    """The server says in `send` that the client is gone (ASGI 2.4)."""


@dataclass(slots=True, eq=False)
class Passage:
    """One request on its way through a gate."""

    to_server: Send
    seconds: float
    """How long the client may take for one body chunk; infinity = as long as it likes."""
    phase: str = "new"
    """Of the connection, see `PHASES`."""
    answered: int | None = None
    """The status that was sent; of a websocket 101 if it was accepted, 403 if not."""

    async def send(self, message: Message) -> None:
        """Send a message, which the client may hold up for a bounded time.

        A server whose `send` cannot be cancelled (Hypercorn on trio) waits as long as it likes.

        Raises:
            ClientStalled: the client took too long; the server then drops the connection.
        """
        phase = PHASES.get(message["type"])
        if phase is not None:
            self.phase = phase
            if self.answered is None:
                self.answered = message.get("status") or _HANDSHAKES.get(message["type"])
        elif (
            message.get("more_body") or len(message.get("body", b"")) >= _BUFFERED_BYTES
        ) and self.seconds < math.inf:
            with anyio.move_on_after(self.seconds) as scope:
                await self.to_server(message)
            if scope.cancelled_caught:
                raise ClientStalled(f"the client took no block within {self.seconds:g} s")
            return
        await self.to_server(message)


@dataclass(frozen=True, slots=True)
class BufferedResponse:
    """A whole body with its headers, prepared once; immutable, so it can be sent many times.

    `Content-Length` is added where there is none, except where RFC 9110 §8.6 forbids it;
    the body is left out in answer to HEAD.

    Raises:
        ValueError: a header is not latin-1, or a value holds CR, LF or NUL.
    """

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    raw_headers: RawHeaders = field(init=False, repr=False)
    """The headers as ASGI has them."""

    def __post_init__(self) -> None:
        length = None if self.status < 200 or self.status in {204, 304} else len(self.body)
        object.__setattr__(self, "raw_headers", _encode_headers(self.headers, length))

    def with_body(self, body: bytes) -> "BufferedResponse":
        """Return the same response with another body, which is as long if it is to be sent."""
        other = object.__new__(BufferedResponse)
        object.__setattr__(other, "body", body)
        object.__setattr__(other, "status", self.status)
        object.__setattr__(other, "headers", self.headers)
        object.__setattr__(other, "raw_headers", self.raw_headers)
        return other

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        # The receiver owns the message and its list of headers: middleware edits both.
        headers = list(self.raw_headers)
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        body = b"" if scope.get("method") == "HEAD" else self.body
        await send({"type": "http.response.body", "body": body})


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamedResponse:
    """A body that is sent chunk by chunk, once.

    The first chunk is fetched before the response starts, so that its error can still be
    answered properly; an error after that is raised, and the server aborts the connection.
    The chunk that completes `content_length` is sent only after the iterator has ended
    without an error. In answer to HEAD the headers are sent and the body is not iterated.

    If the client is gone, the iteration ends quietly, whether `send` raises an `OSError`
    (ASGI 2.4) or only `receive` says `http.disconnect`; a pending chunk is cancelled.

    Raises:
        ContentLengthMismatch: too few or too many bytes; none beyond Content-Length is sent.
    """

    body_chunks: AbstractAsyncContextManager[AsyncIterator[BodyChunk]]
    """A context around the iterator, which the calling task enters before it asks for the first
    chunk, and leaves whatever happens, cancellation included. Chunks are C-contiguous and must
    not change after they were yielded. `closing` makes a context of an iterator."""

    content_length: int | None = None
    """In bytes; None if it is not known beforehand."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = "http.response.body"
        chunk: BodyChunk = b""
        is_last = True

        async def send_or_stop(message: Message) -> None:
            try:
                await send(message)
            except OSError as error:
                raise ClientGone from error

        async def send_rest() -> None:
            nonlocal chunk, is_last
            while not is_last:
                await send_or_stop({"type": kind, "body": chunk, "more_body": True})
                # Neither `send` nor the iterator need to wait, but the watching task must run.
                await anyio.lowlevel.checkpoint()
                chunk, is_last = await body.read_chunk()
            await send_or_stop({"type": kind, "body": chunk, "more_body": False})

        async with self.body_chunks as chunks:
            body = _MeasuredBody(chunks, self.content_length)
            if scope["method"] != "HEAD":
                chunk, is_last = await body.read_chunk()
            headers = list(_encode_headers(self.headers, self.content_length))
            start = {"type": "http.response.start", "status": self.status, "headers": headers}
            try:
                await send_or_stop(start)
                if is_last:
                    await send_rest()
                else:
                    await run_while_connected(receive, send_rest)
            except ClientGone:
                return


def add_headers(send: Send, headers: Sequence[tuple[bytes, bytes]]) -> Send:
    """Return a `send` that puts further headers into a response.

    They replace those of the same names, except where a response may have several.
    """
    replaced = {name for name, _ in headers} - {b"set-cookie", b"vary"}

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [each for each in message.get("headers", ()) if each[0] not in replaced]
            message = {**message, "headers": [*kept, *headers]}
        await send(message)

    return send_with_headers


class _MeasuredBody:
    """The chunks of one body, whose bytes are counted."""

    def __init__(self, chunks: AsyncIterator[BodyChunk], content_length: int | None) -> None:
        self._chunks = chunks
        self._content_length = content_length
        self._received = 0

    async def read_chunk(self) -> tuple[BodyChunk, bool]:
        """Return the next chunk, and whether it is the last one."""
        chunk: BodyChunk = b""
        is_last = False
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            is_last = True
        # Servers count the body with `len`, which of a typed view is not its size in bytes.
        if isinstance(chunk, memoryview):
            chunk = chunk.cast("B") if chunk.nbytes else b""
        self._received += len(chunk)
        if self._content_length is not None:
            if self._received == self._content_length and not is_last:
                is_last = True
                async for surplus in self._chunks:
                    self._received += memoryview(surplus).nbytes
            if self._received > self._content_length or (
                is_last and self._received < self._content_length
            ):
                raise ContentLengthMismatch(self._content_length, self._received)
        return chunk, is_last


async def run_while_connected(receive: Receive, work: Callable[[], Awaitable[T]]) -> T | None:
    """Return what `work` returns; None if the client went away first, and `work` was cancelled.

    What the client still sends is dropped.
    """
    results: list[T] = []
    failure: Exception | None = None

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        try:
            results.append(await work())
        except Exception as error:  # noqa: BLE001  # raised below, outside of the group
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return results.pop() if results else None


@asynccontextmanager
async def closing(iterator: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Make a context around an iterator, which awaits its `aclose`, if it has one, at the end.

    That happens in the calling task, shielded from cancellation. So the iterator must not hold
    a cancel scope or task group open across a `yield` (PEP 789).
    """
    try:
        yield iterator
    finally:
        aclose = getattr(iterator, "aclose", None)
        if aclose is not None:
            with anyio.CancelScope(shield=True):
                await aclose()


def format_content_disposition(filename: str) -> str:
    """Return the `Content-Disposition` that saves a body as `filename` (RFC 6266, RFC 8187).

    Slashes and unprintable characters become `_`; at most the last 150 characters are kept,
    which hold the extension. `filename*` is added where ASCII cannot say the name.
    """
    name = "".join(
        char if char.isprintable() and char not in "/\\" else "_"
        for char in filename[-_MAX_FILENAME_CHARACTERS:]
    )
    name = name or "download"
    # A percent sign is left out of the fallback as well: RFC 6266 appendix D.
    fallback = re.sub(r'[^\x20-\x7e]|["%]', "_", name)
    if fallback == name:
        return f'attachment; filename="{name}"'
    encoded = quote(name, safe="!#$&+^`|")
    return f"attachment; filename=\"{fallback}\"; filename*=UTF-8''{encoded}"


def _encode_headers(headers: Mapping[str, str], content_length: int | None) -> RawHeaders:
    raw: dict[bytes, bytes] = {}
    for name, text in headers.items():
        value = text.encode("latin-1")
        if _NOT_IN_A_VALUE.search(value):
            raise ValueError(f"The header {name!r} has a line break in its value: {value!r}")
        raw[name.lower().encode("latin-1")] = value
    if content_length is not None:
        raw.setdefault(b"content-length", b"%d" % content_length)
    return tuple(raw.items())
