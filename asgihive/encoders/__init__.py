"""Values → bytes: one module a format, listed by `list_encoders`. Nothing of files or HTTP is here.

To add a format, put a module with an `ENCODER` into this folder, or name an `Encoder` in the
entry-point group `asgihive.encoders` of another distribution, or call `register`.
"""

from asgihive.encoders.protocol import (
    DocumentEncoder,
    Encoder,
    Values,
    check_fit,
    find_encoder,
    get_aliases,
    list_encoders,
    map_accepted_types,
    map_media_types,
    register,
)

__all__ = [
    "DocumentEncoder",
    "Encoder",
    "Values",
    "check_fit",
    "find_encoder",
    "get_aliases",
    "list_encoders",
    "map_accepted_types",
    "map_media_types",
    "register",
]
