"""What a request says in its query and its header fields, and what follows from that (RFC 9110).

Its query string, with every byte preserved; which media type it accepts (§12.5.1); under which
conditions it is performed (§13), and which part of a body it asks for (§14). A client that has
a representation, or a part of it, need not get that again.
"""

import functools
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import formatdate, parsedate
from typing import Literal, Self
from urllib.parse import unquote_to_bytes

from starlette.types import Scope

from asgihive.asgi.errors import HTTPException
from asgihive.errors import BadParameter

MAX_FIELDS = 1000
"""Most fields of a query string."""

_AMBIGUOUS = "Content-Length and Transfer-Encoding exclude each other: send one of them"


def parse_query(raw: bytes) -> dict[str, list[str]]:
    """Parse an `application/x-www-form-urlencoded` query string (WHATWG URL §5.1).

    Names and values are UTF-8 with `surrogateescape`: encoding them the same way gives the
    bytes that the client sent, whatever they are. Malformed percent sequences stay as they
    are, empty fields are dropped.

    Returns:
        Name → values, both in the order of the query; `""` is the value of a field that has none.

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
    return fields


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


def check_framing(scope: Scope) -> None:
    """Refuse a request whose end is ambiguous.

    With both headers a proxy may have taken the next client's request for a part of the body,
    or the other way round; the connection ends with the refusal (RFC 9112, section 6.1), which
    not every server sees to (h11).

    Raises:
        HTTPException: 400.
    """
    for name, _ in scope["headers"]:
        if name == b"transfer-encoding":
            break
    else:  # as of most requests
        return
    if any(name == b"content-length" for name, _ in scope["headers"]):
        raise HTTPException(400, _AMBIGUOUS, {"connection": "close"})


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


RequestFields = Mapping[str, str]
"""Name in lower case → value; several fields of one name are one list (RFC 9110 §5.3)."""

PRECONDITIONS = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since")
CONDITIONAL_HEADERS = {
    name.encode(): name
    for name in (*PRECONDITIONS, "if-range", "range", "accept-encoding", "cache-control")
}
"""The fields of a request that ask for a certain form of the answer, or for none."""

# An entity-tag of RFC 9110 §8.8.3. Commas are allowed inside, so lists are not split at them.
_ENTITY_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')

# What §15.4.5 demands of a 304, and `Cache-Control` and `Vary`, which guide a cache beside it.
_HEADERS_OF_304 = frozenset(
    {"cache-control", "content-location", "date", "etag", "expires", "last-modified", "vary"}
)

# The three formats of §5.6.7: `email.utils` reads them, and much else that is no HTTP date.
_TIME = "[0-9]{2}:[0-9]{2}:[0-9]{2}"
_HTTP_DATE = re.compile(
    "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)(?:"
    f", [0-9]{{2}} [A-Z][a-z]{{2}} [1-9][0-9]{{3}} {_TIME} GMT"
    f"|[a-z]*, [0-9]{{2}}-[A-Z][a-z]{{2}}-(?P<two_digits>[0-9]{{2}}) {_TIME} GMT"
    f"| [A-Z][a-z]{{2}} [0-9 ][0-9] {_TIME} [1-9][0-9]{{3}})"
)
_RANGE_UNIT = re.compile(r"bytes=", re.IGNORECASE)
_RANGE = re.compile(r"([0-9]*)-([0-9]*)")
_LAST_SECOND = 253_402_300_799  # of the year 9999


@dataclass(frozen=True, slots=True)
class Validators:
    """What tells this version of a representation from others; without any, none are the same."""

    etag: str | None = None
    """Strong (§8.8.1), with its quotes."""

    last_modified: int | None = None
    """Whole seconds since 1970, only where it is strong (§8.8.2.2)."""

    changed: int | None = None
    """When the representation may last have been replaced by another one, even by one that was
    modified longer ago."""

    exact: bool = True
    """Whether two versions with one `last_modified` are the same: not when it is the newest of
    several dates."""

    @classmethod
    def from_times(
        cls, etag: str, modified_ns: int, changed_ns: int, now_ns: int, *, exact: bool = True
    ) -> Self:
        """Make validators with a date, unless a change after `now_ns` could leave the same one.

        Args:
            modified_ns, changed_ns: nanoseconds since 1970, as a file's `st_mtime_ns` and
                `st_ctime_ns`.
        """
        modified, changed = modified_ns // 1_000_000_000, changed_ns // 1_000_000_000
        # A date of this second, or of the future, says nothing about the next write.
        if not 0 <= modified < min(now_ns // 1_000_000_000, _LAST_SECOND):
            return cls(etag)
        return cls(etag, modified, max(modified, changed), exact)

    def with_coding(self, coding: str | None) -> "Validators":
        """Return those of the representation in a content coding, another one (§8.8.3.3)."""
        if coding is None or self.etag is None:
            return self
        return replace(self, etag=f'{self.etag[:-1]}-{coding}"')

    def to_headers(self) -> dict[str, str]:
        """Return `ETag` and `Last-Modified`, where there is one."""
        headers = {}
        if self.etag is not None:
            headers["etag"] = self.etag
        if self.last_modified is not None:
            headers["last-modified"] = format_http_date(self.last_modified)
        return headers

    def is_listed_in(self, tags: str) -> bool:
        """Return whether this entity-tag is among `tags`; `W/` is ignored (§8.8.3.2)."""
        return self.etag is not None and self.etag in {
            tag.removeprefix("W/") for tag in _ENTITY_TAG.findall(tags)
        }

    def is_modified_since(self, date: str) -> bool:
        """Return whether it may have changed after an HTTP date; true if that is none (§13.1.3).

        The very `Last-Modified` that was sent is always a match. A later date is one only if
        the representation was not replaced since then: a file that was modified longer ago may
        be new here (`mv`, `rsync -t`).
        """
        since = parse_http_date(date)
        if since is None or self.last_modified is None or self.changed is None:
            return True
        is_same = self.exact and since == self.last_modified
        return not is_same and since < self.changed


def evaluate_preconditions(fields: RequestFields, validators: Validators) -> Literal[200, 304, 412]:
    """Return the status that the preconditions of GET or HEAD lead to (RFC 9110 §13.2.2).

    The representation exists; without validators that is all that is known of it. 200 means
    that the request is performed.
    """
    if "if-match" in fields:
        tags = fields["if-match"]
        is_match = tags.strip(" \t") == "*" or (
            validators.etag is not None and validators.etag in _ENTITY_TAG.findall(tags)
        )
        if not is_match:
            return 412
    elif "if-unmodified-since" in fields:
        date = fields["if-unmodified-since"]
        # A field that is no date, or that there is no date to compare with, is ignored (§13.1.4).
        is_comparable = parse_http_date(date) is not None and validators.last_modified is not None
        if is_comparable and validators.is_modified_since(date):
            return 412
    if "if-none-match" in fields:
        tags = fields["if-none-match"]
        if tags.strip(" \t") == "*" or validators.is_listed_in(tags):
            return 304
    elif "if-modified-since" in fields and not validators.is_modified_since(
        fields["if-modified-since"]
    ):
        return 304
    return 200


def check_preconditions(fields: RequestFields, validators: Validators) -> bool:
    """Return whether the answer is 304: the client has this representation.

    Raises:
        HTTPException: 412, an `If-Match` or `If-Unmodified-Since` is not met.
    """
    status = evaluate_preconditions(fields, validators)
    if status == 412:
        name = "If-Match" if "if-match" in fields else "If-Unmodified-Since"
        message = f"{name} is {fields[name.lower()]!r}: what is asked for is another version now"
        raise HTTPException(412, message, validators.to_headers())
    return status == 304


def is_range_applicable(fields: RequestFields, validators: Validators) -> bool:
    """Return whether `If-Range`, if there is one, lets `Range` count (§13.1.5).

    It does not if it is a weak entity-tag, another entity-tag, a date that is not exactly
    `Last-Modified`, or neither of both.
    """
    condition = fields.get("if-range")
    if condition is None:
        return True
    condition = condition.strip(" \t")
    if condition.startswith(('"', "W/")):
        return validators.etag is not None and condition == validators.etag
    since = parse_http_date(condition)
    return validators.exact and since is not None and since == validators.last_modified


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes of a body from `start` to before `stop`; at least one."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """How many bytes there are."""
        return self.stop - self.start

    def format_content_range(self, size: int) -> str:
        """Return the value of `Content-Range` (§14.4), out of a body of `size` bytes."""
        return f"bytes {self.start}-{self.stop - 1}/{size}"


def choose_range(fields: RequestFields, validators: Validators, size: int) -> ByteRange | None:
    """Return the one range of a body that a request asks for; None = the whole body.

    Args:
        validators: of the body, for `If-Range`.
        size: of the body, in bytes.

    Raises:
        HTTPException: as `parse_byte_range`.
    """
    value = fields.get("range")
    if value is None or not is_range_applicable(fields, validators):
        return None
    return parse_byte_range(value, size)


def parse_byte_range(value: str | None, size: int) -> ByteRange | None:
    """Return the one range of a body that `Range` asks for; None = the whole body.

    Other units, malformed ranges and several ranges are ignored, as §14.2 allows or demands.

    Args:
        value: the header `Range`, or None without one.
        size: of the body, in bytes.

    Raises:
        HTTPException: 416 with `Content-Range: bytes */size` (§15.5.17), no byte of the body
            lies in the range.
    """
    unit = None if value is None else _RANGE_UNIT.match(value)
    if value is None or unit is None:
        return None
    # Empty members of a list count for nothing (§5.6.1.2).
    members = [each.strip(" \t") for each in value[unit.end() :].split(",")]
    specs = [_RANGE.fullmatch(each) for each in members if each]
    if len(specs) != 1 or specs[0] is None:
        return None
    first, last = specs[0].groups()
    if first:
        start, stop = _parse_number(first), _parse_number(last) + 1 if last else sys.maxsize
        if stop <= start:
            return None
    elif last:
        start, stop = max(0, size - _parse_number(last)), sys.maxsize
        if not size and _parse_number(last):
            # It is satisfiable, but no Content-Range can say that of an empty body.
            return None
    else:
        return None
    if start >= size:
        positions = f"bytes 0 to {size - 1} are there" if size else "it is empty"
        message = f"Range is {value!r}: no byte of the answer lies in it; {positions}"
        headers = {"content-range": f"bytes */{size}", "accept-ranges": "bytes"}
        raise HTTPException(416, message, headers)
    return ByteRange(start, min(stop, size))


def _parse_number(digits: str) -> int:
    # A longer number is larger than any body, and Python refuses to convert thousands of digits.
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) < 19 else sys.maxsize - 1


def select_304_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a 304, out of those of the 200 (§15.4.5); names in lower case."""
    return {name: value for name, value in headers.items() if name in _HEADERS_OF_304}


@functools.lru_cache(maxsize=1024)  # of the files that are asked for now
def format_http_date(seconds: int) -> str:
    """Return `Sun, 06 Nov 1994 08:49:37 GMT` for whole seconds since 1970.

    Raises:
        ValueError: there is no such date, as of years before 1970 or of five digits, which file
            systems hold.
    """
    if not 0 <= seconds <= _LAST_SECOND:
        raise ValueError(f"{seconds} seconds since 1970 is not a date of HTTP")
    return formatdate(seconds, usegmt=True)


def parse_http_date(text: str) -> int | None:
    """Return whole seconds since 1970, from any of the three formats; None if it is no date.

    A year of two digits is at most 50 years ahead. Blanks around the date are ignored.
    """
    text = text.strip(" \t")
    match = _HTTP_DATE.fullmatch(text)
    parsed = None if match is None else parsedate(text)
    if match is None or parsed is None:
        return None
    year, month, day, hour, minute, second = parsed[:6]
    if match["two_digits"]:
        latest = datetime.now(UTC).year + 50
        year = latest - (latest - int(match["two_digits"])) % 100
    # A clock that knows no leap second has the last second of the minute in its place.
    second = 59 if second == 60 else second
    try:
        return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp())
    except ValueError:
        return None
