"""What the two ends of a connection tell each other: numbered frames, one after the other.

A frame is a head (length of the payload, kind, number of the request; little-endian) and its
payload: bytes of a body as they are, anything else as MessagePack.
"""

import struct
from enum import IntEnum
from typing import Any, NamedTuple, TypeVar

import msgspec

HEAD = struct.Struct("<IBQ")

MOST_BODY_BYTES = 1 << 18
"""Of one frame; other requests' frames come between those of a long body."""

WINDOW_BYTES = 1 << 20
"""How much of a body is under way before the client has taken what came before it."""

MOST_PAYLOAD_BYTES = 64 << 20
"""A longer one is none that these ends send: the other end is not what it was."""

T = TypeVar("T")


class Kind(IntEnum):
    """Of a frame, and what its payload is; the first group goes to the worker."""

    SETUP = 1  # Setup: once, before anything else
    REQUEST = 3  # Request
    CREDIT = 4  # int: so many further bytes of the body may come
    CANCEL = 5  # nothing: nobody waits for the answer any more
    PING = 6  # nothing: are you there?

    READY = 16  # nothing: once, before anything else
    START = 17  # Start
    SPENT = 18  # dict: seconds by stage, beyond those of the start
    BODY = 19  # bytes, and more will come
    LAST = 20  # bytes: the answer is complete
    BROKEN = 21  # str: why it never will be
    PONG = 22  # nothing: I am
    LOG = 23  # LogNote


class Frame(NamedTuple):
    """One of them; `request` is 0 where it is about none."""

    kind: int
    request: int
    payload: bytes | memoryview


class Setup(msgspec.Struct, array_like=True):
    """What a worker is to be.

    root: the served directory.
    settings: of `H5Settings`, by name.
    patience: seconds after which it ends itself, if it is stuck as a whole.
    log_level: of what it logs.
    """

    root: bytes
    settings: dict[str, Any]
    patience: float
    log_level: int


class Request(msgspec.Struct, array_like=True):
    """What a client asks: of an ASGI scope whatever may change the answer.

    is_measured: whether anyone wants to know what takes how long.
    """

    method: str
    path: str
    query_string: bytes
    headers: list[tuple[bytes, bytes]]
    client: str | None
    is_measured: bool


class Start(msgspec.Struct, array_like=True):
    """Status and headers of an answer, and what took how long until here."""

    status: int
    headers: list[tuple[bytes, bytes]]
    spent: dict[str, float]


class LogNote(msgspec.Struct, array_like=True):
    """A record that was logged, with its traceback in the text."""

    name: str
    level: int
    text: str


_encoder = msgspec.msgpack.Encoder()


def encoded(message: Any) -> bytes:
    """A message as a payload."""
    return _encoder.encode(message)


def decoded(payload: bytes | memoryview, kind: type[T]) -> T:
    """A payload as a message. Raises msgspec.DecodeError when it is none of that kind."""
    return msgspec.msgpack.decode(payload, type=kind)


class Decoder:
    """Takes a stream of bytes apart into frames.

    Whoever has bytes writes them into `room()`, and says to `take` how many they are.
    """

    def __init__(self) -> None:
        self._buffer = bytearray(1 << 16)
        self._view = memoryview(self._buffer)
        self._filled = 0
        # A long frame that has begun: its bytes are received where they stay.
        self._long: Frame | None = None
        self._missing = memoryview(b"")

    def room(self) -> memoryview:
        """Where the next bytes belong; never empty."""
        return self._view[self._filled :] if self._long is None else self._missing

    def take(self, count: int) -> list[Frame]:
        """The frames that are complete with `count` more bytes. Raises ValueError."""
        if self._long is not None:
            self._missing = self._missing[count:]
            if self._missing:
                return []
            frame, self._long = self._long, None
            return [frame]
        self._filled += count
        return self._parsed()

    def _parsed(self) -> list[Frame]:
        frames, at = [], 0
        while self._filled - at >= HEAD.size:
            length, kind, request = HEAD.unpack_from(self._buffer, at)
            if length > MOST_PAYLOAD_BYTES:
                message = f"A frame of {length} bytes: at most {MOST_PAYLOAD_BYTES} are accepted"
                raise ValueError(message)
            begin, end = at + HEAD.size, at + HEAD.size + length
            if end <= self._filled:
                frames.append(Frame(kind, request, bytes(self._view[begin:end])))
                at = end
            elif length > len(self._buffer) // 8:
                payload = memoryview(bytearray(length))
                there = self._filled - begin
                payload[:there] = self._view[begin : self._filled]
                self._long = Frame(kind, request, payload)
                self._missing = payload[there:]
                at = self._filled
            else:
                break
        rest = self._filled - at
        if at and rest:
            self._buffer[:rest] = self._buffer[at : self._filled]
        self._filled = rest
        return frames
