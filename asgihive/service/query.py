"""What a parameter of a query is, and what parses the numbers and words that are common in them."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from asgihive.hdf5.statistics import ValueRange

Schema = dict[str, Any]

# Integers of 64 bits, signed or not, are compared exactly; other numbers are doubles.
_LEAST, _GREATEST = -(2**63), 2**64 - 1
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_COUNT = re.compile(r"[0-9]{1,19}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class QueryParameter:
    """A parameter of a query: what it accepts, and what its documentation says."""

    name: str
    description: str
    schema: Schema | Callable[[], Schema]
    """The JSON Schema (2020-12), without examples; called once all formats are registered."""
    example: Any
    parse: Callable[[str], Any] = str
    """Makes the value of a text; raises ValueError with what is accepted, or BadParameter."""
    default: Any = None
    required: str = ""
    """What is accepted, where the parameter may not be left out."""
    is_repeated: bool = False
    """Whether all fields of the name count, and not only the first."""
    is_empty_absent: bool = True
    """Whether a field without a value is as good as none."""
    style: Mapping[str, Any] = field(default_factory=dict)
    """How OpenAPI writes several values."""

    def document(self) -> dict[str, Any]:
        """Return the parameter as OpenAPI has it."""
        schema = self.schema() if callable(self.schema) else self.schema
        # Not as the parameter's own example: Swagger UI would fill it in, and so send it.
        documented = {
            "name": self.name,
            "in": "query",
            "description": self.description,
            "schema": {**schema, "examples": [self.example]},
            **self.style,
        }
        return {**documented, "required": True} if self.required else documented


def choose(choices: Mapping[str, T]) -> Callable[[str], T]:
    """Return what parses one of a few words."""

    def parse(text: str) -> T:
        if text not in choices:
            *others, last = choices
            raise ValueError(f"{', '.join(others)} and {last} are accepted")
        return choices[text]

    return parse


def choose_word(words: Iterable[str]) -> Callable[[str], str]:
    """Return what parses one of a few words that are their own values, such as those of an enum."""
    return choose({str(each): each for each in words})


def parse_count(text: str, accepted: str, most: int | None = None) -> int:
    """Return a whole number of at least 1.

    Raises:
        ValueError: `accepted`.
    """
    number = int(text) if _COUNT.fullmatch(text := text.strip()) else 0
    if number < 1 or (most is not None and number > most):
        raise ValueError(accepted)
    return number


def parse_number(text: str, accepted: str) -> float:
    """Return a finite number; an integer of 64 bits is exact.

    Raises:
        ValueError: `accepted`.
    """
    text = text.strip()
    if _INTEGER.fullmatch(text) and _LEAST <= int(text) <= _GREATEST:
        return int(text)
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise ValueError(accepted)
    return float(text)


def parse_range(text: str) -> ValueRange:
    """Return the range of values that `min,max` means; integers of 64 bits are exact.

    Raises:
        ValueError
    """
    accepted = "two finite numbers `min,max`, min below max, are accepted"
    numbers = [parse_number(each, accepted) for each in text.split(",")]
    if len(numbers) != 2 or not numbers[0] < numbers[1]:
        raise ValueError(accepted)
    return ValueRange(*numbers)


def list_words(values: Sequence[str], default: str) -> Schema:
    """Return the schema of one of a few words."""
    return {"type": "string", "enum": list(values), "default": default}
