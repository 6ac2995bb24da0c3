"""What is wrong with a request: each place and reason, and the answer that says so."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from asgihive.asgi.exceptions import HTTPException

LONGEST_TEXT = 200
"""Most characters of a message that a client may have written."""

_PLACE = re.compile(r" - at (?:`key` in )?`\$([^`]*)`$")
_STEP = re.compile(r"\.([^.\[]+)|\[([0-9]+|\.\.\.)\]")
_MOST_REPORTED = 100


@dataclass(frozen=True, slots=True)
class Problem:
    """One wrong thing, and where: `("query", "limit")`, `("body", "items", 3, "name")`."""

    where: tuple[str | int, ...]
    message: str


class ProblemsFound(Exception):
    """A value does not convert; the places are relative to it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)
        self.problems = problems


def clipped(text: str) -> str:
    """A text that is short enough for a message, and always encodable."""
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"


def problem_of(message: str) -> Problem:
    """A message of `msgspec` with its place taken apart: "Expected … - at `$.items[3].name`"."""
    match = _PLACE.search(message)
    if match is None:
        return Problem((), clipped(message))
    where = tuple(
        int(index) if index.isdigit() else name or index for name, index in _STEP.findall(match[1])
    )
    return Problem(where, clipped(message[: match.start()]))


def invalid_request(problems: Iterable[Problem]) -> HTTPException:
    """The answer 422 (RFC 9110 §15.5.21): all problems, in order, each once."""
    distinct = list(dict.fromkeys(problems))
    shown = distinct[:_MOST_REPORTED]
    sentences = [f"{_subject(each.where)}: {each.message}" for each in shown]
    return HTTPException(
        422,
        "; ".join(sentences),
        details={
            "errors": [{"where": list(each.where), "message": each.message} for each in shown]
        },
    )


def _subject(where: tuple[str | int, ...]) -> str:
    source, *rest = where
    if source != "body":
        return f"The {source} parameter {'.'.join(map(str, rest))!r} is wrong"
    place = "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in rest)
    at = f" at {clipped(place.removeprefix('.'))!r}" if rest else ""
    return f"The body is wrong{at}"
