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
    # Decoded as a whole first: no separator is ever a part of a longer UTF-8 sequence.
    for each in _text(raw).replace("+", " ").split("&"):
        if each:
            name, _, value = each.partition("=")
            if "%" in each:
                name, value = _unquoted(name), _unquoted(value)
            fields.setdefault(name, []).append(value)
    return QueryFields(fields)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _unquoted(text: str) -> str:
    return _text(unquote_to_bytes(text.encode("utf-8", "surrogateescape")))
