"""Iterators as answers: items → blocks of a streamed response."""

import typing
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterator
from typing import Any

import anyio

from asgihive.asgi.documents import encode_json
from asgihive.asgi.responses import BodyChunk, StreamedResponse, closing
from asgihive.asgi.routes import Options
from asgihive.concurrency import run_in_worker

TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"
LINES = "application/x-ndjson"

_STREAMS = (AsyncIterator, AsyncIterable, AsyncGenerator, Iterator, Generator)
_END = object()


async def stream_response(items: Any, options: Options, annotation: Any) -> StreamedResponse:
    """The response that sends every item when it comes.

    Text and bytes are sent as they are, any other item is a line of JSON. Which of them it
    is, and so the Content-Type, the first item says, unless the return annotation of the
    handler does (`AsyncIterator[bytes]`). A synchronous iterator is advanced in a worker
    thread. Whatever happens, a generator is closed, shielded from cancellation.
    """
    source = _Threaded(items) if hasattr(items, "__next__") else items.__aiter__()
    kind = annotated_kind(annotation)
    first: Any = _END
    if kind is None:
        try:
            first = await anext(source, _END)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await _close(source)
            raise
        kind = _kind(type(first)) if first is not _END else object
    default = TEXT if kind is str else BYTES if kind is bytes else LINES
    return StreamedResponse(
        body_chunks=closing(_Blocks(source, first, lines=kind is object)),
        status=options.status,
        headers={"content-type": options.media_type or default},
    )


class _Blocks:
    """The items as blocks. No generator: one that never began would not close its source."""

    def __init__(self, source: AsyncIterator[Any], first: Any, *, lines: bool) -> None:
        self._source = source
        self._first = first
        self._lines = lines

    def __aiter__(self) -> AsyncIterator[BodyChunk]:
        return self

    async def __anext__(self) -> BodyChunk:
        item, self._first = self._first, _END
        if item is _END:
            item = await anext(self._source)
        if self._lines:
            return encode_json(item) + b"\n"
        if isinstance(item, str):
            return item.encode()
        if isinstance(item, (bytes, bytearray, memoryview)):
            return bytes(item)
        raise TypeError(f"A stream of text or bytes yielded a {type(item).__qualname__}")

    async def aclose(self) -> None:
        await _close(self._source)


class _Threaded:
    """An iterator that is advanced, and closed, in worker threads."""

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items

    def __aiter__(self) -> "_Threaded":
        return self

    async def __anext__(self) -> Any:
        item = await run_in_worker(next, self._items, _END)
        if item is _END:
            raise StopAsyncIteration
        return item

    async def aclose(self) -> None:
        close = getattr(self._items, "close", None)
        if close is not None:
            await run_in_worker(close)


async def _close(source: Any) -> None:
    aclose = getattr(source, "aclose", None)
    if aclose is not None:
        await aclose()


def _kind(item: type) -> type:
    """`str`, `bytes`, or `object` for everything else."""
    if issubclass(item, str):
        return str
    return bytes if issubclass(item, (bytes, bytearray, memoryview)) else object


def item_annotation(annotation: Any) -> Any:
    """`T` of `AsyncIterator[T]`, `Generator[T, …]` and the like; None of other annotations."""
    origin = typing.get_origin(annotation)
    return typing.get_args(annotation)[0] if origin in _STREAMS else None


def annotated_kind(annotation: Any) -> type | None:
    """`str`, `bytes` or `object` for the items of a stream; None where it does not say."""
    item = item_annotation(annotation)
    return _kind(item) if isinstance(item, type) and item is not object else None
