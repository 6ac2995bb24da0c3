"""What all decoders of filters share: how much they may make, and how they fail."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from asgihive.hdf5.buffers import Bytes

imagecodecs: Any
"""The package of the extra `codecs`; None where it is not installed."""
try:
    import imagecodecs
except ImportError:
    imagecodecs = None


class BadChunk(Exception):  # translated at once where the entity is known
    """Stored bytes that are not what they should be; the message says how."""


class UnknownForm(BadChunk):
    """A stream in a form of its filter that a decoder does not know, though others may."""


@dataclass(frozen=True, slots=True)
class Room:
    """How many bytes a decoder may make."""

    most: int
    exact: bool = True
    """Whether it may not make one byte less either."""

    def check(self, name: str, size: int) -> None:
        """Raise BadChunk unless `size` bytes, made or announced by the filter, are right."""
        if size > self.most or (self.exact and size != self.most):
            expected = "" if self.exact else "at most "
            message = f"{name} gives {size} bytes, {expected}{self.most} are expected"
            raise BadChunk(message)

    def check_stream(self, name: str, size: int, *, ended: bool) -> None:
        """Check what a decoder made that stopped at one byte too many, or at its stream's end."""
        if size > self.most:
            raise BadChunk(f"{name} gives more than the {self.most} bytes expected")
        if not ended:
            raise BadChunk(f"{name}: the stream ends early")
        self.check(name, size)


Values = tuple[int, ...]
"""Of a filter, as they are stored in the dataset's pipeline (`cd_values`)."""

Decoder = Callable[[Bytes, Values, Room], Bytes]
"""Turns stored bytes into what the filter was given when the chunk was written."""

Check = Callable[[Bytes, Values, Room], object]
"""Raises BadChunk for stored bytes that libhdf5's own filter must not be given."""


@dataclass(frozen=True, slots=True)
class FilterDecoder:
    """How one filter is undone."""

    number: int
    """Registered with the HDF Group."""

    decode: Decoder | None = None
    """None where libhdf5 undoes it, because no decoder is installed."""

    check: Check | None = None
    """Called before libhdf5's own filter, which believes what a stream announces."""


def has_codecs(*names: str) -> bool:
    """Return whether imagecodecs is installed, and built with these codecs."""
    return imagecodecs is not None and all(getattr(imagecodecs, name).available for name in names)


def as_bytes(decoded: bytes | bytearray | memoryview | Bytes) -> Bytes:
    """Return a view of what a codec returned."""
    return np.frombuffer(decoded, np.uint8)


def call_codec(name: str, codec: Callable[..., bytes | Bytes], *args: Any, **options: Any) -> Bytes:
    """Return what a codec of imagecodecs returns; its errors become BadChunk."""
    try:
        return np.frombuffer(codec(*args, **options), np.uint8)
    except (RuntimeError, ValueError) as error:
        raise BadChunk(f"{name}: {error}") from None
