"""The body of a request: bounded, read once, and decoded by its Content-Type."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from asgihive.asgi import pydantic_models
from asgihive.asgi.errors import HTTPException, Problem, ProblemsFound, parse_msgspec_message

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
    """By media type; None where the body is taken as it is."""

    def decoder(self, content_type: str) -> Decode | None:
        """What decodes a body, None where nothing has to. No Content-Type means JSON.

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
        """The whole body.

        Raises:
            HTTPException: 413, the body is longer than `max_bytes`.
            ClientDisconnect: the client is gone before the end.
        """
        if content_length is not None and content_length.isdigit():
            self._check(int(content_length[:20]))
        blocks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            block: bytes = message.get("body", b"")
            size += len(block)
            self._check(size)
            blocks.append(block)
            if not message.get("more_body", False):
                return blocks[0] if len(blocks) == 1 else b"".join(blocks)

    def _check(self, size: int) -> None:
        if size > self.max_bytes:
            message = f"The body has more than the {self.max_bytes} bytes that are accepted"
            raise HTTPException(413, message)


def make_body_reader(annotation: Any, max_bytes: int) -> BodyReader:
    """The reader of bodies of a type; `bytes` are taken as they are, of any Content-Type."""
    if annotation is bytes:
        return BodyReader(max_bytes, None)
    from_json: Decode
    from_msgpack: Decode
    if pydantic_models.mentions_model(annotation):
        from_json, from_plain = pydantic_models.decoders(annotation)
        from_msgpack = partial(_via_msgpack, from_plain)
    else:
        from_json = msgspec.json.Decoder(annotation).decode
        from_msgpack = msgspec.msgpack.Decoder(annotation).decode
    return BodyReader(max_bytes, {JSON: from_json, **dict.fromkeys(MSGPACK_TYPES, from_msgpack)})


def _via_msgpack(from_plain: Callable[[Any], Any], raw: bytes) -> Any:
    return from_plain(msgspec.msgpack.decode(raw))


def decode_body(decode: Decode, raw: bytes) -> Any:
    """The value of a body.

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
