"""Values → JSON or MessagePack, as `msgspec` encodes them, with arrays and models inside."""

import functools
from typing import Any

import msgspec
import numpy as np

from asgihive.asgi import pydantic_models
from asgihive.encoders import DocumentEncoder, json, msgpack


def _plain(value: Any, encoder: DocumentEncoder) -> Any:
    """What `msgspec` encodes in place of what it does not know."""
    if isinstance(value, (np.ndarray, np.generic)):
        return msgspec.Raw(encoder.document(value))
    if pydantic_models.is_model(value):
        return pydantic_models.plain(value)
    raise TypeError(f"nobody knows how to encode a {type(value).__qualname__}")


encode_json = msgspec.json.Encoder(enc_hook=functools.partial(_plain, encoder=json.ENCODER)).encode
"""JSON (RFC 8259); raises what `msgspec` raises of what it cannot encode."""

encode_msgpack = msgspec.msgpack.Encoder(
    enc_hook=functools.partial(_plain, encoder=msgpack.ENCODER)
).encode
"""MessagePack; an array is the map of `msgpack-numpy`."""
