"""The body of a request: bounded, read once, and decoded by its Content-Type."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from asgihive.asgi.errors import (
    HTTPException,
    Problem,
    ProblemsFound,
    clip_text,
    parse_msgspec_message,
)
from asgihive.asgi.parameters import has_model

Decode = Callable[[bytes], Any]

JSON = "application/json"
MSGPACK = "application/msgpack"
MSGPACK_TYPES = (MSGPACK, "application/vnd.msgpack", "application/x-msgpack")

INLINE_BYTES = 1 << 16
"""A longer body is decoded in a worker thread."""


@dataclass(frozen=True, slots=True)
class BodyReader:
    """Reads and decodes the bodies of one handler."""

    max_bytes: int
    decoders: dict[str, Decode] | None = field(repr=False)
    """By media type; None if the body is taken as it is."""

    def find_decoder(self, content_type: str) -> Decode | None:
        """Return what decodes a body; None if nothing has to. No Content-Type means JSON.

        A subtype with the suffix `+json` (RFC 6839) is JSON.

        Raises:
            HTTPException: 415 (RFC 9110 §15.5.16), which says what is accepted.
        """
        if self.decoders is None:
            return None
        media_type = content_type.partition(";")[0].strip().lower() or JSON
        decode = self.decoders.get(JSON if media_type.endswith("+json") else media_type)
        if decode is None:
            accepted = f"{JSON}, {MSGPACK}"
            message = f"The Content-Type {media_type[:100]!r} is not accepted: use {accepted}"
            raise HTTPException(415, message, {"accept": accepted})
        return decode

    async def read(self, receive: Receive, content_length: str | None) -> bytes:
        """Return the whole body.

        Raises:
            HTTPException: 413, the body is longer than `max_bytes`.
            ClientDisconnect: the client is gone before the end.
        """
        if content_length is not None and content_length.isdigit():
            self._check_size(int(content_length[:20]))
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            self._check_size(size)
            chunks.append(chunk)
            if not message.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _check_size(self, size: int) -> None:
        if size > self.max_bytes:
            message = f"The body has more than the {self.max_bytes} bytes that are accepted"
            raise HTTPException(413, message)


def make_body_reader(annotation: Any, max_bytes: int) -> BodyReader:
    """Return a reader of bodies of a type; `bytes` are taken as they are, of any Content-Type."""
    if annotation is bytes:
        return BodyReader(max_bytes, None)
    from_json: Decode
    from_msgpack: Decode
    if has_model(annotation):
        adapter = sys.modules["pydantic"].TypeAdapter(annotation)
        from_json = partial(_validate, adapter.validate_json)
        from_msgpack = partial(_validate, adapter.validate_python, decode=msgspec.msgpack.decode)
    else:
        from_json = msgspec.json.Decoder(annotation).decode
        from_msgpack = msgspec.msgpack.Decoder(annotation).decode
    return BodyReader(max_bytes, {JSON: from_json, **dict.fromkeys(MSGPACK_TYPES, from_msgpack)})


def decode_body(decode: Decode, raw: bytes) -> Any:
    """Return the value of a body.

    Raises:
        ProblemsFound: malformed, or of another type.
    """
    try:
        return decode(raw)
    except msgspec.DecodeError as error:
        raise ProblemsFound([parse_msgspec_message(str(error))]) from None
    except UnicodeDecodeError:
        raise ProblemsFound([Problem((), "it has text that is not UTF-8")]) from None
    except RecursionError:
        raise ProblemsFound([Problem((), "it is nested too deeply")]) from None


def _validate(validate: Callable[[Any], Any], raw: bytes, decode: Decode | None = None) -> Any:
    """Return the model of `pydantic` that `validate` makes of a body; raises `ProblemsFound`."""
    value = raw if decode is None else decode(raw)
    try:
        return validate(value)
    except sys.modules["pydantic"].ValidationError as error:
        problems = []
        for each in error.errors(include_url=False, include_context=False, include_input=False):
            # A key of a mapping is the client's own text.
            where = (clip_text(step) if isinstance(step, str) else step for step in each["loc"])
            problems.append(Problem(tuple(where), clip_text(each["msg"])))
        raise ProblemsFound(problems) from None
