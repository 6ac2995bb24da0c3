"""What a request says: its query string, with every byte preserved, and its headers.

Content negotiation goes by the `Accept` header (RFC 9110 §12.5.1).
"""

import functools
import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from starlette.types import Scope

from asgihive.errors import BadParameter

MAX_FIELDS = 1000
"""Most fields of a query string."""


@dataclass(frozen=True, slots=True)
class QueryFields:
    """The fields of a query string."""

    fields: dict[str, list[str]]
    """Name → values, both in the order of the query."""

    def first(self, name: str) -> str | None:
        """Return the first value, `""` if the field has none, None without such a field."""
        values = self.fields.get(name)
        return values[0] if values else None

    def all(self, name: str) -> tuple[str, ...]:
        """Return every value of a repeated field."""
        return tuple(self.fields.get(name, ()))


def parse_query(raw: bytes) -> QueryFields:
    """Parse an `application/x-www-form-urlencoded` query string (WHATWG URL §5.1).

    Names and values are UTF-8 with `surrogateescape`: encoding them the same way gives the
    bytes that the client sent, whatever they are. Malformed percent sequences stay as they
    are, empty fields are dropped.

    Raises:
        BadParameter: more than `MAX_FIELDS` fields.
    """
    count = raw.count(b"&") + 1
    if count > MAX_FIELDS:
        raise BadParameter("query", f"{count} fields", f"at most {MAX_FIELDS} are accepted")
    fields: dict[str, list[str]] = {}
    # Decoded as a whole first: no separator is ever a part of a longer UTF-8 sequence.
    for each in raw.decode("utf-8", "surrogateescape").replace("+", " ").split("&"):
        if each:
            name, _, value = each.partition("=")
            if "%" in each:
                name, value = _unquote(name), _unquote(value)
            fields.setdefault(name, []).append(value)
    return QueryFields(fields)


def _unquote(text: str) -> str:
    raw = unquote_to_bytes(text.encode("utf-8", "surrogateescape"))
    return raw.decode("utf-8", "surrogateescape")


def find_header(scope: Scope, name: bytes) -> str | None:
    """Return the first value of a header, or None without such a header.

    Args:
        scope: of an HTTP request or a websocket.
        name: in lower case.
    """
    for each, value in scope["headers"]:
        if each == name:
            text: str = value.decode("latin-1")
            return text
    return None


def join_headers(scope: Scope, name: bytes) -> str:
    """Return all values of a header as one list (RFC 9110 §5.3); `""` without such a header."""
    values = [value for each, value in scope["headers"] if each == name]
    return b", ".join(values).decode("latin-1") if values else ""


_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # a token of RFC 9110 §5.6.2
_TYPE = re.compile(rf"({_WORD})/({_WORD})")
_PARAMETER = re.compile(rf'({_WORD})=(?:({_WORD})|"((?:[^"\\]|\\.)*)")', re.DOTALL)
_WEIGHT = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")  # RFC 9110 §12.4.2
# The text between separators outside of quotes. A quote that is never closed takes the rest
# with it: every alternative ends in a match, so the time is linear whatever a client sends.
_QUOTED = r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)'
_BETWEEN_COMMAS = re.compile(rf'(?:[^,"]|{_QUOTED})+', re.DOTALL)
_BETWEEN_SEMICOLONS = re.compile(rf'(?:[^;"]|{_QUOTED})+', re.DOTALL)
_BLANKS = " \t"


@dataclass(frozen=True, slots=True)
class _MediaRange:
    type: str
    subtype: str
    parameters: frozenset[tuple[str, str]]
    quality: float

    @property
    def specificity(self) -> tuple[bool, bool, int]:
        return self.type != "*", self.subtype != "*", len(self.parameters)

    def includes(self, other: "_MediaRange") -> bool:
        return (
            self.type in {"*", other.type}
            and self.subtype in {"*", other.subtype}
            and self.parameters <= other.parameters
        )


@functools.lru_cache(maxsize=64)  # clients send few, and offers come from code
def choose_media_type(accept: str, offers: tuple[str, ...]) -> str | None:
    """Return the offered media type that an `Accept` header asks for; None if it refuses all.

    The most specific range that includes an offer gives its quality. The highest quality
    wins, then the more specific range, then the earlier offer. Malformed parts are
    ignored; a header without a valid part is as good as none: the first offer.

    Raises:
        ValueError: an offer is not a media type.
    """
    parsed = [_parse(part) for part in _BETWEEN_COMMAS.findall(accept)]
    ranges = [each for each in parsed if each is not None]
    if not ranges:
        return next(iter(offers), None)
    best = None
    best_rank = (0.0, (False, False, 0))
    for offer in offers:
        media_type = _parse(offer)
        if media_type is None:
            raise ValueError(f"{offer!r} is not a media type")
        including = [each for each in ranges if each.includes(media_type)]
        if including:
            nearest = max(including, key=lambda each: each.specificity)
            rank = (nearest.quality, nearest.specificity)
            if nearest.quality > 0 and (best is None or rank > best_rank):
                best, best_rank = offer, rank
    return best


def _parse(part: str) -> _MediaRange | None:
    part = part.strip(_BLANKS)
    media_type = _TYPE.match(part)
    if media_type is None or (media_type[1] == "*" and media_type[2] != "*"):
        return None
    rest = part[media_type.end() :].lstrip(_BLANKS)
    if rest and not rest.startswith(";"):
        return None
    quality = 1.0
    parameters = set()
    for text in _BETWEEN_SEMICOLONS.findall(rest):
        if not text.strip(_BLANKS):
            continue
        parameter = _PARAMETER.fullmatch(text.strip(_BLANKS))
        if parameter is None:
            return None
        name, value = parameter[1].lower(), parameter[2]
        if name == "q":
            if not _WEIGHT.fullmatch(value or ""):
                return None
            quality = float(value)
            break  # what follows a weight never narrowed the range (RFC 7231 §5.3.2)
        parameters.add((name, (value or re.sub(r"\\(.)", r"\1", parameter[3])).lower()))
    return _MediaRange(media_type[1].lower(), media_type[2].lower(), frozenset(parameters), quality)
