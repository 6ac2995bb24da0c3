"""What a request says: its path, its query string, with every byte preserved, its headers."""

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


def get_route_path(scope: Scope) -> str:
    """Return the path below `root_path`, whether or not the server keeps that in `path`.

    As Starlette's function of that name: empty for the root itself without a trailing slash.
    """
    path: str = scope["path"]
    root_path: str = scope.get("root_path", "")
    if not root_path or not path.startswith(root_path):
        return path
    rest = path[len(root_path) :]
    return path if rest and rest[0] != "/" else rest
