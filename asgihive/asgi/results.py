"""What a handler returned → the response: text, values, arrays, and iterators."""

import functools
import importlib
import operator
import sys
import types
import typing
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, Union

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from asgihive.asgi.arguments import JSON, MSGPACK_TYPES
from asgihive.asgi.metadata import check_examples
from asgihive.asgi.projections import (
    Project,
    Projected,
    is_array_type,
    is_response_type,
    make_projection,
)
from asgihive.asgi.request_fields import choose_media_type, join_headers
from asgihive.asgi.responses import (
    BodyChunk,
    BufferedResponse,
    StreamedResponse,
    closing,
    format_content_disposition,
)
from asgihive.asgi.shapes import MISSING, is_union, resolve_alias
from asgihive.asgi.signatures import Flavour, HandlerError, Signature, find_location, find_name
from asgihive.concurrency import run_in_worker

TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"
LINES = "application/x-ndjson"

# Containers of more items are encoded in a worker thread, and so are arrays of more bytes.
_INLINE_ITEMS = 1000
_INLINE_BYTES = 1 << 16

_VARY = (b"vary", b"accept")  # RFC 9110 §12.5.5

_STREAMS = (AsyncIterator, AsyncIterable, AsyncGenerator, Iterator, Generator)
_END = object()


_Sort = Literal["nothing", "text", "bytes", "array", "stream", "container", "value"]


@functools.lru_cache(maxsize=1024)
def _find_sort(kind: type) -> _Sort:
    sorts: tuple[tuple[_Sort, tuple[type, ...]], ...] = (
        ("nothing", (type(None),)),
        ("value", (Enum,)),
        ("text", (str,)),
        ("bytes", (bytes, bytearray, memoryview)),
        ("container", (list, tuple, set, frozenset, Mapping)),
    )
    if is_array_type(kind):
        return "array"
    for sort, classes in sorts:
        if issubclass(kind, classes):
            return sort
    is_stream = any(hasattr(kind, name) for name in ("__next__", "__anext__", "__aiter__"))
    return "stream" if is_stream else "value"


@dataclass(frozen=True, slots=True)
class ResultAnnotation:
    """A return annotation, taken apart by how its values are sent."""

    plain: Any
    """The members that are encoded, as one annotation; MISSING if there are none."""

    item: Any = MISSING
    """Of the items of streams; MISSING if it has no stream."""

    sent_as_is: frozenset[str] = frozenset()
    """The sorts of values that no annotation is applied to."""

    has_responses: bool = False

    @property
    def says_nothing(self) -> bool:
        """Whether values of any kind may be returned."""
        return self.plain is MISSING and self.item is MISSING and not self.sent_as_is


def split_result_annotation(annotation: Any, *, is_generator: bool = False) -> ResultAnnotation:
    """Take a return annotation apart.

    None at all, `Any`, and a response alone, beside which a handler may return what it likes,
    say nothing.

    Args:
        is_generator: whether the handler is one; else `Iterable` is also a list.
    """
    members = tuple(_list_members(annotation))
    if any(each is one for each in members for one in (MISSING, Any, object)):
        return ResultAnnotation(MISSING)
    plain: list[Any] = []
    item: Any = MISSING
    sorts: set[str] = set()
    for each in members:
        kind = typing.get_origin(each) or each
        if kind in _STREAMS or kind is Iterable:
            sorts.add("stream")
            arguments = typing.get_args(each)
            own_item = resolve_alias(arguments[0]) if arguments else Any
            item = own_item if item is MISSING else Union[item, own_item]  # noqa: UP007
            if kind is Iterable and not is_generator:
                plain.append(types.GenericAlias(list, (own_item,)))
        elif is_array_type(kind):
            sorts.add("array")
        elif not is_response_type(each):
            plain.append(each)
            if each is None or kind is type(None):
                sorts.add("nothing")
            elif kind in {str, bytes, bytearray, memoryview}:
                sorts.add("text" if kind is str else "bytes")
    union = functools.reduce(operator.or_, plain) if plain else MISSING
    has_responses = any(map(is_response_type, members))
    return ResultAnnotation(union, item, frozenset(sorts), has_responses)


def _list_members(annotation: Any) -> Iterator[Any]:
    """Yield the members of a union, also of aliases, or the annotation alone.

    Of streams and responses nothing counts that `Annotated` says.
    """
    annotation = resolve_alias(annotation)
    if is_union(annotation):
        for each in typing.get_args(annotation):
            yield from _list_members(each)
        return
    if typing.get_origin(annotation) is Annotated:
        base = resolve_alias(typing.get_args(annotation)[0])
        kind = typing.get_origin(base) or base
        if kind in _STREAMS or kind is Iterable or is_array_type(kind) or is_response_type(base):
            annotation = base
    yield annotation


class ResultSender:
    """Sends what one handler returns.

    A response, or any ASGI application, answers itself. `str` is `text/plain`, `bytes` are
    `application/octet-stream`; None is 204, or an empty body where the decorator says a
    status. NumPy arrays and scalars are encoded by the format that `Accept` asks for.
    Iterators, async or not, stream. Everything else is JSON as `msgspec` encodes it, or
    MessagePack where `Accept` prefers it.

    The return annotation is applied to everything but responses: what it does not name is
    not sent.

    Args:
        signature: of the handler.
        status: of the response.
        media_type: of the response, if the decorator says one.

    Raises:
        HandlerError: the return annotation cannot be resolved.
    """

    def __init__(self, signature: Signature, status: int, media_type: str | None) -> None:
        self._signature = signature
        is_generator = signature.flavour is Flavour.GENERATOR
        self.annotation = split_result_annotation(signature.result, is_generator=is_generator)
        self._project, self._project_item = self._make_projections()
        self._status = status
        self._empty_status = 204 if status == 200 else status
        self._is_bodiless = _is_bodiless(status)
        self._media_type = media_type
        text, raw, json = (
            (b"content-type", (media_type or default).encode("latin-1"))
            for default in (TEXT, BYTES, JSON)
        )
        self._text, self._bytes = [text], [raw]
        self._json = [json, _VARY] if media_type is None else [json]
        if "numpy" in sys.modules:
            # The handler may return arrays, and to import at its first request blocks others.
            for module in ("asgihive.encoders.msgpack", "asgihive.padding"):
                importlib.import_module(module)

    async def make_response(self, result: Any, scope: Scope, status: int | None = None) -> ASGIApp:
        """Return the response that a result becomes, encoded as far as it is no stream.

        Args:
            status: of the response, if it is another one than the decorator says.

        Raises:
            TypeError: it does not fit the return annotation, or nothing encodes it; says which
                handler returned it.
        """
        if callable(result):
            response: ASGIApp = result
            return response
        sort = _find_sort(result.__class__)
        if self._project is not None and sort not in self.annotation.sent_as_is:
            result = await self._apply_annotation(result, sort)
            sort = _find_sort(result.__class__)
        is_bodiless, empty_status = self._is_bodiless, self._empty_status
        if status is None:
            status = self._status
        else:
            is_bodiless, empty_status = _is_bodiless(status), status
        if sort == "array":
            return await _answer_array(result, join_headers(scope, b"accept"), status)
        if sort == "stream":
            return await self._answer_stream(result, status)
        headers, body = self._text, b""
        if sort == "text":
            body = result.encode()
        elif sort == "bytes":
            headers, body = self._bytes, bytes(result)
        elif sort != "nothing":
            headers, body = await self._encode_value(result, scope, sort == "container")
        if sort == "nothing" or is_bodiless:
            headers = [] if _is_bodiless(empty_status) else [(b"content-length", b"0")]
            return _EncodedResult(empty_status, headers, b"")
        return _EncodedResult(status, [*headers, (b"content-length", b"%d" % len(body))], body)

    def _make_projections(self) -> tuple[Project | None, Project | None]:
        """Return what applies the annotation to results, and to the items of streams."""
        annotation, project, project_item = self.annotation, None, None
        try:
            check_examples(self._signature.result)
            if annotation.item is not MISSING and annotation.item is not Any:
                project = make_projection(types.GenericAlias(list, (annotation.item,)))
                if get_item_kind(annotation.item) in {None, object}:
                    project_item = make_projection(annotation.item)
            if annotation.plain is not MISSING:
                project = make_projection(annotation.plain)
        except Exception as error:  # whatever a class does when its fields are asked for
            reason = f"its return annotation {self._signature.result!r} cannot be used: {error}"
            raise HandlerError(self._signature.function, None, reason) from error
        return project, project_item

    async def _apply_annotation(self, result: Any, sort: _Sort) -> Any:
        """Return the result with the fields that its annotation names, and no others."""
        project: Any = self._project
        is_large = sort == "container" and len(result) > _INLINE_ITEMS
        try:
            if is_large or (sort == "stream" and hasattr(result, "__next__")):
                result = await run_in_worker(project, result)
            else:
                result = project(result)
        except (TypeError, ValueError, RecursionError) as error:
            raise self._refuse(f"does not fit {self._signature.result!r}", error) from error
        return result.value if isinstance(result, Projected) else result

    def _refuse(self, reason: str, error: Exception) -> TypeError:
        function = self._signature.function
        where = f"{find_name(function)} ({find_location(function)})"
        return TypeError(f"{where} returned what {reason}: {error}")

    async def _encode_value(
        self, result: Any, scope: Scope, is_container: bool
    ) -> tuple[list[tuple[bytes, bytes]], bytes]:
        headers, encode = self._json, encode_json
        if self._media_type is None:
            accept = join_headers(scope, b"accept")
            if "msgpack" in accept:
                chosen = choose_media_type(accept, (JSON, *MSGPACK_TYPES))
                if chosen in MSGPACK_TYPES:
                    headers = [(b"content-type", chosen.encode("latin-1")), _VARY]
                    encode = encode_msgpack
        try:
            if is_container and len(result) > _INLINE_ITEMS:
                return headers, await run_in_worker(encode, result)
            return headers, encode(result)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise self._refuse("cannot be encoded", error) from error

    async def _answer_stream(self, items: Any, status: int) -> StreamedResponse:
        """Return the response that sends every item when it comes.

        Text and bytes are sent as they are, any other item is a line of JSON. Which of them it
        is, and so the Content-Type, the first item says, unless the return annotation of the
        handler does (`AsyncIterator[bytes]`). A synchronous iterator is advanced in a worker
        thread. Whatever happens, a generator is closed, shielded from cancellation.
        """
        source = _ThreadedIterator(items) if hasattr(items, "__next__") else items.__aiter__()
        kind = get_item_kind(self.annotation.item)
        first: Any = _END
        if kind is None:
            try:
                first = await anext(source, _END)
            except BaseException:
                async with closing(source):
                    raise
            kind = _find_kind(type(first)) if first is not _END else object
        default = TEXT if kind is str else BYTES if kind is bytes else LINES
        encode = self._encode_item if kind is object else None
        return StreamedResponse(
            body_chunks=closing(_ItemChunks(source, first, encode)),
            status=status,
            headers={"content-type": self._media_type or default},
        )

    def _encode_item(self, item: Any) -> bytes:
        """Return the line of JSON of one item of a stream."""
        if self._project_item is not None:
            try:
                item = self._project_item(item)
            except (TypeError, ValueError, RecursionError) as error:
                raise self._refuse(f"does not fit {self._signature.result!r}", error) from error
        return encode_json(item) + b"\n"


class _EncodedResult:
    """The response of a result that is in memory; it is sent once."""

    __slots__ = ("_body", "_headers", "_status")

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self._status = status
        self._headers = headers
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        start = {"type": "http.response.start", "status": self._status, "headers": self._headers}
        await send(start)
        await send({"type": "http.response.body", "body": self._body})


def _is_bodiless(status: int) -> bool:
    return status < 200 or status in {204, 304}  # RFC 9110 §6.4.1


def _encode_unknown(value: Any, name: str) -> Any:
    """Return what `msgspec` encodes in place of a value that it does not know."""
    if isinstance(value, Projected):
        return value.value
    if is_array_type(type(value)):
        from asgihive.encoders import json, msgpack  # noqa: PLC0415  # they import NumPy

        return msgspec.Raw((json if name == "json" else msgpack).ENCODER.document(value))
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(value, pydantic.BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    raise TypeError(
        f"a {type(value).__qualname__} has no form in JSON or MessagePack: return another value, "
        "or say by a class as the return annotation which of its attributes are sent"
    )


encode_json = msgspec.json.Encoder(enc_hook=lambda value: _encode_unknown(value, "json")).encode
"""JSON (RFC 8259), with arrays and models inside; raises what `msgspec` raises."""

encode_msgpack = msgspec.msgpack.Encoder(
    enc_hook=lambda value: _encode_unknown(value, "msgpack")
).encode
"""MessagePack; an array is the map of `msgpack-numpy`."""


async def _answer_array(
    value: Any, accept: str, status: int
) -> BufferedResponse | StreamedResponse:
    """Return an array, or a scalar, in the format that `Accept` asks for; JSON if none fits.

    A large one is encoded part by part in worker threads and streamed; it must not change
    meanwhile.

    Raises:
        FormatMismatch: not even JSON fits.
    """
    # Not at the top: a hive whose handlers return no arrays does without NumPy.
    import numpy as np  # noqa: PLC0415

    from asgihive.encoders import Encoder, Values, check_fit, map_accepted_types  # noqa: PLC0415
    from asgihive.encoders.json import ENCODER  # noqa: PLC0415
    from asgihive.encoders.protocol import cut  # noqa: PLC0415
    from asgihive.padding import zero_padding  # noqa: PLC0415

    array = np.asarray(value, order="C")
    values = Values("", array.shape, array.dtype)

    def choose_encoder() -> tuple[Encoder, bytes]:
        fitting = {
            media_type: each
            for media_type, each in map_accepted_types().items()
            if each.refusal(values) is None
        }
        # JSON first: it is what any type (`*/*`) means.
        chosen = choose_media_type(accept, (ENCODER.media_type, *fitting))
        found = fitting.get(chosen or ENCODER.media_type, ENCODER)
        if (load := getattr(found, "load", None)) is not None:
            load()
        return found, found.head(values)

    async def encode_parts() -> AsyncIterator[BodyChunk]:
        yield head
        first = 0
        for part in cut(array, encoder.block_elements) if values.size else ():
            encode = functools.partial(encode_part, part, first)
            yield encode() if part.nbytes <= _INLINE_BYTES else await run_in_worker(encode)
            first += part.size
        yield encoder.tail(values)

    def encode_part(part: Any, first: int) -> BodyChunk:
        return encoder.block(values, zero_padding(part), first)

    encoder: Encoder = ENCODER
    head = ENCODER.head(values)
    if accept not in {"", "*/*", ENCODER.media_type}:
        # In a thread, for the first use of the registry imports every format.
        encoder, head = await run_in_worker(choose_encoder)
    check_fit(encoder, values)
    headers = {"content-type": encoder.media_type, "vary": "accept"}
    if encoder.extension is not None:
        headers["content-disposition"] = format_content_disposition(f"data.{encoder.extension}")
    chunks = encode_parts()
    if array.nbytes <= _INLINE_BYTES and array.size <= encoder.block_elements:
        return BufferedResponse(b"".join([chunk async for chunk in chunks]), status, headers)
    return StreamedResponse(
        body_chunks=closing(chunks),
        content_length=encoder.length(values),
        status=status,
        headers=headers,
    )


class _ItemChunks:
    """Items as chunks of a body.

    It is no generator: one that never began would not close its source.
    """

    def __init__(
        self, source: AsyncIterator[Any], first: Any, encode: Callable[[Any], bytes] | None
    ) -> None:
        self._source = source
        self._first = first
        self._encode = encode

    def __aiter__(self) -> AsyncIterator[BodyChunk]:
        return self

    async def __anext__(self) -> BodyChunk:
        item, self._first = self._first, _END
        if item is _END:
            item = await anext(self._source)
        if self._encode is not None:
            return self._encode(item)
        if isinstance(item, str):
            return item.encode()
        if isinstance(item, (bytes, bytearray, memoryview)):
            return bytes(item)
        raise TypeError(f"A stream of text or bytes yielded a {type(item).__qualname__}")

    async def aclose(self) -> None:
        aclose = getattr(self._source, "aclose", None)
        if aclose is not None:
            await aclose()


class _ThreadedIterator:
    """An iterator that is advanced, and closed, in worker threads."""

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items

    def __aiter__(self) -> "_ThreadedIterator":
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


def get_item_kind(item: Any) -> type | None:
    """Return `str`, `bytes` or `object` for the items of a stream; None if it does not say."""
    is_class = isinstance(item, type) and item not in {object, Any, MISSING}
    return _find_kind(item) if is_class else None


def _find_kind(item: type) -> type:
    if issubclass(item, str):
        return str
    return bytes if issubclass(item, (bytes, bytearray, memoryview)) else object
