"""What a handler returned → the answer."""

import functools
from collections.abc import Hashable, Mapping
from enum import Enum, auto
from typing import Any

import numpy as np
from starlette.types import Receive, Scope, Send

from asgihive.asgi.arrays import array_response
from asgihive.asgi.bodies import JSON, MSGPACK_TYPES
from asgihive.asgi.documents import encode_json, encode_msgpack
from asgihive.asgi.negotiation import choose_media_type
from asgihive.asgi.routes import Options
from asgihive.asgi.signature import Signature, find_location, find_name
from asgihive.asgi.streams import BYTES, TEXT, stream_response
from asgihive.concurrency import run_in_worker

# Containers of more items than this are encoded in a worker thread.
_INLINE_ITEMS = 1000

_RawHeader = tuple[bytes, bytes]


class _Sort(Enum):
    NOTHING = auto()
    TEXT = auto()
    BYTES = auto()
    ARRAY = auto()
    STREAM = auto()
    CONTAINER = auto()
    VALUE = auto()


_SORTS: tuple[tuple[tuple[type, ...], _Sort], ...] = (
    ((type(None),), _Sort.NOTHING),
    ((Enum,), _Sort.VALUE),
    ((str,), _Sort.TEXT),
    ((bytes, bytearray, memoryview), _Sort.BYTES),
    ((np.ndarray, np.generic), _Sort.ARRAY),
    ((list, tuple, set, frozenset, Mapping), _Sort.CONTAINER),
)


class Results:
    """Sends what one handler returns.

    A response, or any ASGI application, answers itself. `str` is `text/plain`, `bytes` are
    `application/octet-stream`; None is 204, or an empty body where the decorator says a
    status. NumPy arrays and scalars are encoded by the format that `Accept` asks for.
    Iterators, async or not, stream. Everything else is JSON as `msgspec` encodes it, or
    MessagePack where `Accept` prefers it.
    """

    def __init__(self, options: Options, signature: Signature) -> None:
        self._options = options
        self._signature = signature
        self._text = _content_type(options.media_type or TEXT)
        self._bytes = _content_type(options.media_type or BYTES)
        self._json = _content_type(options.media_type or JSON)

    async def send(self, result: Any, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with `result`.

        Raises:
            TypeError: nothing encodes it; says which handler returned it.
        """
        if callable(result):
            await result(scope, receive, send)
            return
        sort = _sort_of(result.__class__)
        if sort is _Sort.NOTHING:
            await self._send_nothing(send)
        elif sort is _Sort.TEXT:
            await self._send_body(send, result.encode(), self._text)
        elif sort is _Sort.BYTES:
            await self._send_body(send, bytes(result), self._bytes)
        elif sort is _Sort.ARRAY:
            response = await array_response(result, _accept(scope), self._options.status)
            await response(scope, receive, send)
        elif sort is _Sort.STREAM:
            response = await stream_response(result, self._options, self._signature.result)
            await response(scope, receive, send)
        else:
            await self._send_value(result, scope, send, large=sort is _Sort.CONTAINER)

    async def _send_nothing(self, send: Send) -> None:
        status = 204 if self._options.status == 200 else self._options.status
        headers = [] if _is_bodiless(status) else [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def _send_body(self, send: Send, body: bytes, *headers: _RawHeader) -> None:
        status = self._options.status
        if _is_bodiless(status):
            await self._send_nothing(send)
            return
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
        await send({"type": "http.response.body", "body": body})

    async def _send_value(self, result: Any, scope: Scope, send: Send, *, large: bool) -> None:
        content_type, encode = self._json, encode_json
        if self._options.media_type is None:
            accept = _accept(scope)
            if "msgpack" in accept:
                chosen = choose_media_type(accept, (JSON, *MSGPACK_TYPES))
                if chosen in MSGPACK_TYPES:
                    content_type, encode = _content_type(chosen), encode_msgpack
        try:
            if large and len(result) > _INLINE_ITEMS:
                body = await run_in_worker(encode, result)
            else:
                body = encode(result)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            function = self._signature.function
            where = f"{find_name(function)} ({find_location(function)})"
            raise TypeError(f"{where} returned what cannot be encoded: {error}") from error
        await self._send_body(send, body, content_type, *self._vary())

    def _vary(self) -> tuple[_RawHeader, ...]:
        # RFC 9110 §12.5.5: the answer depends on `Accept`.
        return ((b"vary", b"accept"),) if self._options.media_type is None else ()


@functools.lru_cache(maxsize=1024)
def _sort_of(kind: Hashable) -> _Sort:
    for classes, sort in _SORTS:
        if isinstance(kind, type) and issubclass(kind, classes):
            return sort
    streams = any(hasattr(kind, name) for name in ("__next__", "__anext__", "__aiter__"))
    return _Sort.STREAM if streams else _Sort.VALUE


def _accept(scope: Scope) -> str:
    """All `Accept` fields as one (RFC 9110 §5.3)."""
    found = [value for name, value in scope["headers"] if name == b"accept"]
    return b",".join(found).decode("latin-1") if found else ""


def _content_type(media_type: str) -> _RawHeader:
    return b"content-type", media_type.encode("latin-1")


def _is_bodiless(status: int) -> bool:
    return status < 200 or status in {204, 304}  # RFC 9110 §6.4.1
