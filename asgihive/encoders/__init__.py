"""Values → bytes: one module a format, found by `registry`; knows neither HDF5 nor HTTP.

To add a format, put a module with an `ENCODER` into this folder, or name an `Encoder` in the
entry-point group `asgihive.encoders` of another distribution, or call `register`.
"""

from asgihive.encoders.protocol import DocumentEncoder, Encoder, Values
from asgihive.encoders.registry import (
    accepted_types,
    aliases_of,
    by_name,
    check,
    encoders,
    media_types,
    register,
)

__all__ = [
    "DocumentEncoder",
    "Encoder",
    "Values",
    "accepted_types",
    "aliases_of",
    "by_name",
    "check",
    "encoders",
    "media_types",
    "register",
]
