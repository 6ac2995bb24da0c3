"""Text of a request → the value of a parameter."""

from collections.abc import Callable
from typing import Any

import msgspec

from asgihive.asgi.annotations import accepted_values
from asgihive.asgi.errors import Problem, ProblemsFound, clip_text, parse_msgspec_message
from asgihive.asgi.signature import MISSING

Convert = Callable[[Any], Any]

# What msgspec says of a text that is no number, and what only repeats that it is a text.
_GOT_TEXT = ", got `str`"


def converter(annotation: Any) -> Convert:
    """What makes a value of `annotation` from a text, a list of texts, or a captured value.

    The rules are those of `msgspec.convert(…, strict=False)`.

    The function raises `ProblemsFound`.
    """
    if any(annotation is each for each in (MISSING, Any, str)) or annotation == (str | None):
        return _unchanged
    # A record of one field is converted several times faster than its field alone.
    holder: Any = msgspec.defstruct("Holder", [("value", annotation)], array_like=True)
    accepted = accepted_values(annotation)

    def convert(raw: Any) -> Any:
        try:
            return msgspec.convert((raw,), holder, strict=False).value
        except msgspec.ValidationError as error:
            raise ProblemsFound([_problem(str(error), raw, accepted)]) from None

    return convert


def _unchanged(raw: Any) -> Any:
    return raw


def _problem(message: str, raw: Any, accepted: tuple[Any, ...]) -> Problem:
    _, *where = (found := parse_msgspec_message(message)).where
    item = raw
    for step in where:
        item = item[step]
    text = found.message
    if accepted:
        text = f"accepted are {clip_text(', '.join(map(str, accepted)))}"
    elif text.endswith(_GOT_TEXT):
        text = text.removesuffix(_GOT_TEXT)
    if isinstance(item, (str, int, float)):
        text += f", got {_shortened(str(item))!r}"
    return Problem(tuple(where), text)


def _shortened(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:99]}…"
