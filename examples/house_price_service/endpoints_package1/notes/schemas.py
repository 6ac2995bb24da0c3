"""What clients send and get."""

from typing import Annotated

from msgspec import Meta, Struct

# PostgreSQL's text has no NUL, and its `integer` 32 bits.
Text = Annotated[str, Meta(max_length=10_000, pattern=r"^[^\x00]*$")]
NoteId = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Skip = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Limit = Annotated[int, Meta(ge=0, le=1_000)]


class NoteIn(Struct, frozen=True):
    """A note as it is sent."""

    text: Text
    completed: bool


class NoteOut(Struct, frozen=True):
    """A note as it is stored."""

    id: int
    text: str
    completed: bool
