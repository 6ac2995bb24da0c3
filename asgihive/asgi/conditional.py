"""Conditional requests (RFC 9110 §8.8 and §13): what a client has already, it need not get."""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from starlette.types import Scope

from asgihive.asgi.dates import has_http_date, http_date, parse_http_date
from asgihive.asgi.exceptions import HTTPException

# Lower-case name → value; of several fields of one name, one list (RFC 9110 §5.3).
RequestFields = Mapping[str, str]

_CONDITIONAL = (
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
)
_ASKED = {
    name.encode(): name
    for name in (*_CONDITIONAL, "if-range", "range", "accept-encoding", "cache-control")
}

# An entity-tag of RFC 9110 §8.8.3. Commas are allowed inside, so lists are not split at them.
_ENTITY_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')

# What §15.4.5 wants, and what guides a cache beside it.
_OF_NOT_MODIFIED = frozenset(
    {"cache-control", "content-location", "date", "etag", "expires", "last-modified", "vary"}
)


@dataclass(frozen=True, slots=True)
class Validators:
    """What tells this version of a representation from others; without any, it is never the same.

    etag: strong (§8.8.1), with its quotes.
    last_modified: whole seconds since 1970, only where it is strong (§8.8.2.2).
    changed: when the representation may last have been replaced by another one, even by one
        that was modified longer ago.
    exact: whether two versions with one `last_modified` are the same: not when it is the newest
        of several dates.
    """

    etag: str | None = None
    last_modified: int | None = None
    changed: int | None = None
    exact: bool = True

    @classmethod
    def dated(
        cls, etag: str, modified_ns: int, changed_ns: int, now_ns: int, *, exact: bool = True
    ) -> Self:
        """With a date, unless a change after `now_ns` could leave the same one.

        Args:
            modified_ns, changed_ns: nanoseconds since 1970, as a file's `st_mtime_ns` and
                `st_ctime_ns`.
        """
        modified, changed = modified_ns // 1_000_000_000, changed_ns // 1_000_000_000
        # Within its second, or in the future, it says nothing of what is written next.
        if not has_http_date(modified) or modified >= now_ns // 1_000_000_000:
            return cls(etag)
        return cls(etag, modified, max(modified, changed), exact)

    def coded(self, coding: str | None) -> "Validators":
        """Those of the representation in a content coding, which is another one (§8.8.3.3)."""
        if coding is None or self.etag is None:
            return self
        return replace(self, etag=f'{self.etag[:-1]}-{coding}"')

    def headers(self) -> dict[str, str]:
        """`ETag` and `Last-Modified`, where there is one."""
        found = {}
        if self.etag is not None:
            found["etag"] = self.etag
        if self.last_modified is not None:
            found["last-modified"] = http_date(self.last_modified)
        return found

    def listed(self, tags: str) -> bool:
        """Whether this entity-tag is among `tags`; `W/` makes no difference (§8.8.3.2)."""
        return self.etag is not None and self.etag in {
            tag.removeprefix("W/") for tag in _ENTITY_TAG.findall(tags)
        }

    def matches(self, tags: str) -> bool:
        """Whether `tags` is `*` or lists this entity-tag."""
        return tags.strip(" \t") == "*" or self.listed(tags)

    def matches_strongly(self, tags: str) -> bool:
        """The same for tags that are strong (§8.8.3.2)."""
        return tags.strip(" \t") == "*" or (
            self.etag is not None and self.etag in _ENTITY_TAG.findall(tags)
        )

    def modified_since(self, date: str) -> bool:
        """Whether it may have changed after an HTTP date; so it has if that is none (§13.1.3).

        The very `Last-Modified` that was sent is always a match. A later date is one only if
        nothing was put in place of what was there since then: what is modified longer ago may
        be new here (`mv`, `rsync -t`).
        """
        since = parse_http_date(date.strip(" \t"))
        if since is None or self.last_modified is None or self.changed is None:
            return True
        is_same = self.exact and since == self.last_modified
        return not is_same and since < self.changed

    def unmodified_since(self, date: str) -> bool:
        """Whether it is certain not to have changed after an HTTP date (§13.1.4)."""
        return not self.modified_since(date)


class Verdict(enum.Enum):
    """What comes of the preconditions of a request."""

    PERFORM = "perform"
    NOT_MODIFIED = "not modified"
    FAILED = "failed"


def asked(scope: Scope) -> dict[str, str]:
    """The fields of a request that ask for a certain form of the answer, or for none."""
    fields: dict[str, str] = {}
    for name, value in scope["headers"]:
        known = _ASKED.get(name)
        if known is not None:
            text = value.decode("latin-1")
            fields[known] = f"{fields[known]}, {text}" if known in fields else text
    return fields


def is_conditional(fields: RequestFields) -> bool:
    """Whether a request has preconditions."""
    return not fields.keys().isdisjoint(_CONDITIONAL)


def verdict(fields: RequestFields, validators: Validators) -> Verdict:
    """What the preconditions of GET or HEAD come to, in the order of RFC 9110 §13.2.2.

    For a representation that exists; without validators nothing is known of it but that.
    """
    if "if-match" in fields:
        if not validators.matches_strongly(fields["if-match"]):
            return Verdict.FAILED
    elif "if-unmodified-since" in fields and not _passes_unmodified(fields, validators):
        return Verdict.FAILED
    if "if-none-match" in fields:
        if validators.matches(fields["if-none-match"]):
            return Verdict.NOT_MODIFIED
    elif "if-modified-since" in fields and not validators.modified_since(
        fields["if-modified-since"]
    ):
        return Verdict.NOT_MODIFIED
    return Verdict.PERFORM


def check(fields: RequestFields, validators: Validators) -> bool:
    """Whether the answer is 304: the client has this representation.

    Raises:
        HTTPException: 412, an `If-Match` or `If-Unmodified-Since` is not met.
    """
    found = verdict(fields, validators)
    if found is Verdict.FAILED:
        name = "If-Match" if "if-match" in fields else "If-Unmodified-Since"
        message = f"{name} is {fields[name.lower()]!r}: what is asked for is another version now"
        raise HTTPException(412, message, validators.headers())
    return found is Verdict.NOT_MODIFIED


def range_applies(fields: RequestFields, validators: Validators) -> bool:
    """Whether `If-Range`, if there is one, lets `Range` count (§13.1.5).

    A weak entity-tag, another one, a date that is not exactly `Last-Modified`, or what is
    neither, does not.
    """
    condition = fields.get("if-range")
    if condition is None:
        return True
    condition = condition.strip(" \t")
    if condition.startswith(('"', "W/")):
        return validators.etag is not None and condition == validators.etag
    since = parse_http_date(condition)
    return validators.exact and since is not None and since == validators.last_modified


def not_modified_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Those of a 304, out of those that the 200 would have (§15.4.5); names in lower case."""
    return {name: value for name, value in headers.items() if name in _OF_NOT_MODIFIED}


def _passes_unmodified(fields: RequestFields, validators: Validators) -> bool:
    date = fields["if-unmodified-since"]
    # What is no date, or cannot be compared with one, is ignored (§13.1.4).
    if parse_http_date(date.strip(" \t")) is None or validators.last_modified is None:
        return True
    return validators.unmodified_since(date)
