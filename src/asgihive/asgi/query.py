"""The query string, with every byte preserved."""

from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from asgihive.errors import BadParameter

MAX_FIELDS = 1000


@dataclass(frozen=True, slots=True)
class QueryFields:
    """The fields of a query string: name → values, both in the order of the query."""

    fields: dict[str, list[str]]

    def first(self, name: str) -> str | None:
        """The first value, `""` where the field has none, None without such a field."""
        values = self.fields.get(name)
        return values[0] if values else None

    def all(self, name: str) -> tuple[str, ...]:
        """Every value of a repeated field."""
        return tuple(self.fields.get(name, ()))


def parse_query(raw: bytes) -> QueryFields:
    """The fields of an `application/x-www-form-urlencoded` query string (WHATWG URL §5.1).

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
    for each in raw.replace(b"+", b" ").split(b"&"):
        if each:
            name, _, value = each.partition(b"=")
            fields.setdefault(_decoded(name), []).append(_decoded(value))
    return QueryFields(fields)


def _decoded(raw: bytes) -> str:
    return (unquote_to_bytes(raw) if b"%" in raw else raw).decode("utf-8", "surrogateescape")
