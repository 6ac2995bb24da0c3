"""Responses: a body that is in memory and can be sent again, and a body that is streamed."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote

import anyio
import anyio.lowlevel
from starlette.types import Receive, Scope, Send

from asgihive.asgi.connection import cancel_on_disconnect

T = TypeVar("T")

RawHeaders = tuple[tuple[bytes, bytes], ...]
Block = bytes | memoryview

_NOT_IN_A_VALUE = re.compile(rb"[\r\n\0]")  # RFC 9110 §5.5
_LONGEST_FILENAME = 150


class ContentLengthMismatch(RuntimeError):
    """A streamed body is shorter or longer than the Content-Length it was announced with."""

    def __init__(self, content_length: int, received: int) -> None:
        super().__init__(content_length, received)
        self.content_length = content_length
        self.received = received

    def __str__(self) -> str:
        return f"Content-Length is {self.content_length}, the blocks hold {self.received} bytes"


class _ClientGone(Exception):
    """`send` says that nobody listens any more."""


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

    def __post_init__(self) -> None:
        length = None if self.status < 200 or self.status in {204, 304} else len(self.body)
        object.__setattr__(self, "raw_headers", _raw_headers(self.headers, length))

    def with_body(self, body: bytes) -> "BufferedResponse":
        """The same answer with another body, which is as long if it is to be sent."""
        other = object.__new__(BufferedResponse)
        for name, value in (
            ("body", body),
            ("status", self.status),
            ("headers", self.headers),
            ("raw_headers", self.raw_headers),
        ):
            object.__setattr__(other, name, value)
        return other

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        # Messages and header lists belong to whoever receives them: middleware edits both.
        await send(_start(self.status, self.raw_headers))
        await send(
            {
                "type": "http.response.body",
                "body": b"" if scope.get("method") == "HEAD" else self.body,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamedResponse:
    """A body sent block by block, once.

    The first block is fetched before the response starts, so that its error can still be
    answered properly; an error after that is raised, and the server aborts the connection.
    The block that completes `content_length` is sent only after the iterator has ended
    without an error. In answer to HEAD the headers are sent and nothing is iterated.

    A client that is gone ends the iteration quietly, whether `send` raises an `OSError`
    (ASGI 2.4) or only `receive` says `http.disconnect`; a pending block is cancelled.

    Args:
        blocks: a context around the iterator, entered by the calling task before the first
            block is asked for, and left there whatever happens, cancellation included.
            Blocks are C-contiguous and must not change after they were yielded. An iterator
            that needs no context of its own goes `closing`.
        content_length: in bytes; None where it is not known beforehand.

    Raises:
        ContentLengthMismatch: too few or too many bytes; none beyond Content-Length is sent.
    """

    blocks: AbstractAsyncContextManager[AsyncIterator[Block]]
    content_length: int | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self.blocks as blocks:
            body = _Body(blocks, self.content_length)
            try:
                if scope["method"] == "HEAD":
                    await self._send_start(send)
                    await _send_block(send, b"", complete=True)
                else:
                    await self._send_all(body, receive, send)
            except _ClientGone:
                return

    async def _send_all(self, body: "_Body", receive: Receive, send: Send) -> None:
        block, complete = await body.next_block(0)
        await self._send_start(send)
        if complete:
            await _send_block(send, block, complete=True)
            return
        failure: Exception | None = None
        async with anyio.create_task_group() as watching:
            watching.start_soon(cancel_on_disconnect, receive, watching.cancel_scope)
            try:
                await _send_blocks(body, send, block)
            except Exception as error:  # noqa: BLE001  # raised below, outside of the group
                failure = error
            watching.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _send_start(self, send: Send) -> None:
        try:
            await send(_start(self.status, _raw_headers(self.headers, self.content_length)))
        except OSError as error:
            raise _ClientGone from error


@dataclass(frozen=True, slots=True)
class _Body:
    """The blocks of one answer, held against their announced length."""

    blocks: AsyncIterator[Block]
    content_length: int | None

    async def next_block(self, before: int) -> tuple[Block, bool]:
        """The block after `before` bytes, and whether the body is complete with it."""
        try:
            block = _flat(await anext(self.blocks))
        except StopAsyncIteration:
            if self.content_length not in {None, before}:
                raise self._mismatch(before) from None
            return b"", True
        received = before + len(block)
        if self.content_length is None or received < self.content_length:
            return block, False
        if received == self.content_length:
            async for surplus in self.blocks:
                received += len(_flat(surplus))
        if received > self.content_length:
            raise self._mismatch(received)
        return block, True

    def _mismatch(self, received: int) -> ContentLengthMismatch:
        return ContentLengthMismatch(self.content_length or 0, received)


@asynccontextmanager
async def closing(blocks: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """A context around an iterator that awaits its `aclose`, if it has one, at the end.

    In the calling task, shielded from cancellation. So the iterator must not hold a cancel
    scope or task group open across a `yield` (PEP 789).
    """
    try:
        yield blocks
    finally:
        aclose = getattr(blocks, "aclose", None)
        if aclose is not None:
            with anyio.CancelScope(shield=True):
                await aclose()


def content_disposition(filename: str) -> str:
    """`Content-Disposition` that saves the body as `filename` (RFC 6266, RFC 8187).

    Slashes and what is not printable become `_`; at most the last 150 characters are kept,
    which hold the extension. `filename*` is added where ASCII cannot say the name.
    """
    name = "".join(
        char if char.isprintable() and char not in "/\\" else "_"
        for char in filename[-_LONGEST_FILENAME:]
    )
    name = name or "download"
    # A percent sign is left out of the fallback as well: RFC 6266 appendix D.
    fallback = re.sub(r'[^\x20-\x7e]|["%]', "_", name)
    if fallback == name:
        return f'attachment; filename="{name}"'
    encoded = quote(name, safe="!#$&+^`|")
    return f"attachment; filename=\"{fallback}\"; filename*=UTF-8''{encoded}"


def _raw_headers(headers: Mapping[str, str], content_length: int | None) -> RawHeaders:
    raw = {
        name.lower().encode("latin-1"): value.encode("latin-1") for name, value in headers.items()
    }
    for name, value in raw.items():
        if _NOT_IN_A_VALUE.search(value):
            raise ValueError(f"The header {name!r} has a line break in its value: {value!r}")
    if content_length is not None:
        raw.setdefault(b"content-length", b"%d" % content_length)
    return tuple(raw.items())


def _start(status: int, raw_headers: RawHeaders) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(raw_headers)}


async def _send_block(send: Send, block: Block, *, complete: bool) -> None:
    try:
        await send({"type": "http.response.body", "body": block, "more_body": not complete})
    except OSError as error:
        raise _ClientGone from error


async def _send_blocks(body: _Body, send: Send, block: Block) -> None:
    sent = 0
    complete = False
    while not complete:
        await _send_block(send, block, complete=False)
        sent += len(block)
        # Neither `send` nor the blocks need to wait for anything, the watcher must run.
        await anyio.lowlevel.checkpoint()
        block, complete = await body.next_block(sent)
    await _send_block(send, block, complete=True)


def _flat(block: Block) -> Block:
    # Servers count the body with `len`, which of a typed view is not its size in bytes.
    if isinstance(block, memoryview):
        return block.cast("B") if block.nbytes else b""
    return block
