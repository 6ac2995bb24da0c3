"""The forms of a batch's body: a list of `{"status": …, "body": …}` in JSON or MessagePack.

A member says `missing_sources` where the answer by itself has the field `Missing-Sources`.
"""

from typing import Protocol

import msgpack
import msgspec
from starlette.types import Message

from asgihive.asgi import HTTPException
from asgihive.asgi.arguments import JSON, MSGPACK_TYPES
from asgihive.encoders import msgpack as documents

# Values are JSON where no format is named: MessagePack does not hold all types.
_VALUES_ROUTE = "data"


class Answer:
    """What a request of the batch is answered: it is sent here.

    Args:
        form: of the batch.
        most_bytes: of the body.
        has_format: whether the request names a format.
    """

    def __init__(self, form: "Form", most_bytes: int, *, has_format: bool = False) -> None:
        self.status = 0
        self.media_type = ""
        self.missing_sources: str | None = None
        self._form = form
        self._most_bytes = most_bytes
        self._has_format = has_format
        self._blocks: list[bytes] = []
        self._size = 0

    async def send(self, message: Message) -> None:
        """As a server's.

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
            if not self._form.holds(self.media_type):
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


class Form(Protocol):
    """How answers become a body: head, members with separators, tail."""

    separator: bytes
    tail: bytes

    def holds(self, media_type: str) -> bool:
        """Whether a body of that type can be part of it."""

    def accept(self, route: str) -> bytes:
        """What the answer of a route should be, as an `Accept` header."""

    def head(self, count: int) -> bytes: ...

    def member(self, answer: Answer) -> bytes:
        """One answer; what is encoded anew takes a while."""


class JsonForm:
    """Bodies are what they are by themselves."""

    separator = b","
    tail = b"]"

    def holds(self, media_type: str) -> bool:
        return media_type == JSON

    def accept(self, route: str) -> bytes:  # noqa: ARG002  # as `Form`
        return JSON.encode()

    def head(self, count: int) -> bytes:  # noqa: ARG002  # as `Form`
        return b"["

    def member(self, answer: Answer) -> bytes:
        missing = b""
        if answer.missing_sources is not None:
            missing = b',"missing_sources":%b' % msgspec.json.encode(answer.missing_sources)
        return b'{"status":%d%b,"body":%b}' % (answer.status, missing, answer.body)


class MsgpackForm:
    """Bodies in MessagePack and JSON are values of it, all others bytes."""

    separator = b""
    tail = b""

    def holds(self, media_type: str) -> bool:  # noqa: ARG002  # as `Form`
        return True

    def accept(self, route: str) -> bytes:
        return b"*/*" if route == _VALUES_ROUTE else documents.ENCODER.media_type.encode()

    def head(self, count: int) -> bytes:
        header: bytes = msgpack.Packer().pack_array_header(count)
        return header

    def member(self, answer: Answer) -> bytes:
        pack = msgspec.msgpack.encode
        fields = [pack("status"), pack(answer.status)]
        if answer.missing_sources is not None:
            fields += [pack("missing_sources"), pack(answer.missing_sources)]
        fields += [pack("body"), _as_msgpack(answer)]
        size: bytes = msgpack.Packer().pack_map_header(len(fields) // 2)
        return b"".join([size, *fields])


def _as_msgpack(answer: Answer) -> bytes:
    if answer.media_type in MSGPACK_TYPES:
        return answer.body
    if answer.media_type != JSON:
        return msgspec.msgpack.encode(answer.body)
    content = msgspec.json.decode(answer.body)
    try:
        return msgspec.msgpack.encode(content)
    except OverflowError:  # an integer of more than 64 bits
        return documents.ENCODER.document(content)
