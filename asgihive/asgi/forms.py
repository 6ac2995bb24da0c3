"""Forms: `multipart/form-data`, whose files go to disk, and `application/x-www-form-urlencoded`."""

import functools
import importlib.util
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import anyio
from starlette.datastructures import FormData, Headers
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope

from asgihive.asgi.errors import HTTPException, Problem, clip_text, refuse_request
from asgihive.asgi.request_fields import find_header, parse_query
from asgihive.errors import BadParameter

MULTIPART = "multipart/form-data"
URL_ENCODED = "application/x-www-form-urlencoded"

SPOOLED_BYTES = 1 << 20
"""A longer file is on disk, and not in memory. Starlette's parser has the same bound."""

MAX_PART_HEADER_BYTES = 1 << 14
"""Of the headers of one part. Before 0.0.28 python-multipart has no bound, and 20 MB of them stop
the event loop for half a minute."""

_TOO_MUCH = ("Too many", "Part exceeded")  # how Starlette's parser says that a bound is reached


def load_parser() -> bool:
    """Import the parser of the extra `forms` before a request does; return whether it is there."""
    is_installed = importlib.util.find_spec("python_multipart") is not None
    if is_installed:
        _make_parser_class()
    return is_installed


@dataclass(frozen=True, slots=True)
class FormReader:
    """Reads the forms of one handler, within its bounds."""

    max_bytes: int
    """Of a whole multipart body."""

    max_files: int
    max_fields: int
    max_field_bytes: int
    """Of one field that is no file, and of a whole body that is URL-encoded."""

    async def read(self, scope: Scope, receive: Receive) -> FormData:
        """Return the fields and files, which the caller closes.

        Raises:
            HTTPException: 413, a bound is reached; 415, another Content-Type; 422, malformed.
            ClientDisconnect: the client is gone before the end.
        """
        content_type = find_header(scope, b"content-type") or ""
        media_type = content_type.partition(";")[0].strip().lower()
        if media_type not in {MULTIPART, URL_ENCODED}:
            accepted = f"{MULTIPART}, {URL_ENCODED}"
            message = f"The Content-Type {media_type[:100]!r} is not accepted: use {accepted}"
            raise HTTPException(415, message, {"accept": accepted})
        is_multipart = media_type == MULTIPART
        most = self.max_bytes if is_multipart else self.max_field_bytes
        check_announced_size(find_header(scope, b"content-length"), most, "form")
        async with aclosing(_stream(receive, most)) as chunks:
            if is_multipart:
                return await self._parse_multipart(content_type, chunks)
            return self._parse_fields(b"".join([chunk async for chunk in chunks]))

    async def _parse_multipart(
        self, content_type: str, chunks: AsyncGenerator[bytes, None]
    ) -> FormData:
        # Not at the top: few services need the parser.
        from python_multipart.exceptions import FormParserError  # noqa: PLC0415
        from starlette.formparsers import MultiPartException  # noqa: PLC0415

        headers = Headers({"content-type": content_type})
        parser = _make_parser_class()(
            headers,
            chunks,
            max_files=self.max_files,
            max_fields=self.max_fields,
            max_part_size=self.max_field_bytes,
        )
        parsed: FormData | None = None
        try:
            parsed = await parser.parse()
        except MultiPartException as error:
            if error.message.startswith(_TOO_MUCH):
                raise HTTPException(413, error.message) from None
            raise _refuse_body(error.message) from None
        except FormParserError:  # Starlette 1.0 lets it through
            raise _refuse_body("Invalid multipart data.") from None
        finally:
            if parsed is None or not parser.has_ended:
                with anyio.CancelScope(shield=True):
                    # Starlette 1.0 leaves some open; the unfinished one is no item of the form.
                    for file in getattr(parser, "_files_to_close_on_error", ()):
                        await anyio.to_thread.run_sync(file.close)
        if not parser.has_ended:
            raise _refuse_body("it ends before its last boundary")
        return parsed

    def _parse_fields(self, raw: bytes) -> FormData:
        try:
            found = parse_query(raw)
        except BadParameter as error:
            raise HTTPException(413, str(error)) from None
        fields: list[tuple[str, Any]] = [
            (name, value) for name, values in found.items() for value in values
        ]
        if len(fields) > self.max_fields:
            raise HTTPException(413, f"The form has more than {self.max_fields} fields")
        for name, value in fields:
            try:
                (name + value).encode()
            except UnicodeEncodeError:  # the bytes of a form may be any
                raise _refuse_body("it is not UTF-8", name) from None
        return FormData(fields)


@functools.cache
def _make_parser_class() -> Any:
    """Return Starlette's parser, which bounds headers too and knows whether the form has ended."""
    from starlette.formparsers import MultiPartException, MultiPartParser  # noqa: PLC0415

    class BoundedParser(MultiPartParser):
        """Parses one form."""

        has_ended = False
        header_bytes = 0

        def on_part_begin(self) -> None:
            self.header_bytes = 0
            super().on_part_begin()

        def on_header_field(self, data: bytes, start: int, end: int) -> None:
            self.count_header_bytes(end - start)
            super().on_header_field(data, start, end)

        def on_header_value(self, data: bytes, start: int, end: int) -> None:
            self.count_header_bytes(end - start)
            super().on_header_value(data, start, end)

        def on_end(self) -> None:
            self.has_ended = True

        def count_header_bytes(self, count: int) -> None:
            self.header_bytes += count
            if self.header_bytes > MAX_PART_HEADER_BYTES:
                raise MultiPartException("Part exceeded the size that its headers may have.")

    return BoundedParser


async def _stream(receive: Receive, most: int) -> AsyncGenerator[bytes, None]:
    size = 0
    while True:
        message = await receive()
        chunk = take_chunk(message, size, most, "form")
        size += len(chunk)
        if chunk:
            yield chunk
        if not message.get("more_body", False):
            return


def check_announced_size(content_length: str | None, most: int, what: str) -> None:
    """Refuse a body that announces more than `most` bytes, before any of it is read.

    Args:
        what: the client sends, for the message: "body" or "form".

    Raises:
        HTTPException: 413.
    """
    if content_length is not None and content_length.isdecimal():
        _check_size(int(content_length[:20]), most, what)


def take_chunk(message: Message, before: int, most: int, what: str) -> bytes:
    """Return the bytes of a body that an ASGI message has.

    Args:
        before: how many bytes of the body came before.
        most: how many it may have.
        what: as of `check_announced_size`.

    Raises:
        HTTPException: 413, there are more.
        ClientDisconnect: the client is gone before the end.
    """
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    chunk: bytes = message.get("body", b"")
    _check_size(before + len(chunk), most, what)
    return chunk


def _check_size(size: int, most: int, what: str) -> None:
    if size > most:
        raise HTTPException(413, f"The {what} has more than the {most} bytes that are accepted")


def _refuse_body(message: str, *where: Any) -> HTTPException:
    place = ("form", *map(clip_text, where)) if where else ("body",)
    return refuse_request([Problem(place, message)])


async def close_form(form: FormData) -> None:
    """Close the files of a form, shielded from cancellation."""
    with anyio.CancelScope(shield=True):
        await form.close()
