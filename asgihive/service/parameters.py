"""The parameters of the routes: from a query string to frozen records; pure."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from starlette.types import Scope

from asgihive.asgi import QueryFields, choose_media_type, get_route_path, parse_query
from asgihive.encoders import csv, json
from asgihive.encoders.protocol import DocumentEncoder, Encoder
from asgihive.encoders.registry import find_encoder, get_aliases, list_encoders, map_accepted_types
from asgihive.errors import BadParameter, FileMissing, UnknownParameter
from asgihive.hdf5.histogram import MAX_BINS, ValueRange
from asgihive.hdf5.links import LinkResolution
from asgihive.hdf5.views import Method, ViewRequest
from asgihive.settings import parse_boolean

DEFAULT_BINS = 100

# Integers of 64 bits, signed or not, are compared exactly; other numbers are doubles.
_LEAST, _GREATEST = -(2**63), 2**64 - 1
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_COUNT = re.compile(r"[0-9]{1,19}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")

FILE_PREFIX = "/file/"
"""Of the URLs that name a file themselves: `/file/{path}`."""

_DOCUMENT = ("file", "path", "format")
PARAMETERS: Mapping[str, frozenset[str]] = {
    "meta": frozenset({*_DOCUMENT, "resolve_links"}),
    "attr": frozenset({*_DOCUMENT, "attr_keys", "compound"}),
    "paths": frozenset({*_DOCUMENT, "resolve_links"}),
    "data": frozenset(
        {*_DOCUMENT, "selection", "dtype", "flatten", "header", "compound"}
        | {"max_points", "shape", "method"}
    ),
    "stats": frozenset({*_DOCUMENT, "selection"}),
    "histogram": frozenset({*_DOCUMENT, "selection", "bins", "range"}),
    "files": frozenset({"dir", "after", "limit", "format"}),
    "file": frozenset({"file"}),
    "batch": frozenset({"format"}),
}
"""The parameters of each route."""

# Clients send parameters of one route to all.
_KNOWN = frozenset().union(*PARAMETERS.values())

_MOST_JUDGED = 32
"""How many unknown parameters of a query are compared with the known ones."""

_SHORT_NAME, _LONG_NAME = 4, 8
"""Letters below which a name has no typing errors, and from which it may have two."""

_RESOLUTIONS = {each.value: each for each in LinkResolution} | {
    # h5grove's parameter was a boolean once.
    "true": LinkResolution.ALL,
    "false": LinkResolution.NONE,
}


@dataclass(frozen=True, slots=True)
class EntityParameters:
    """Of every route: which entity of which file."""

    file: str
    path: str

    @classmethod
    def of(cls, query: QueryFields) -> "EntityParameters":
        file = query.first("file")
        if not file:
            accepted = "the path of an HDF5 file, relative to the served directory, is accepted"
            raise BadParameter("file", file, accepted)
        path = query.first("path") or "/"
        return cls(file, path)


@dataclass(frozen=True, slots=True)
class DataParameters:
    """Of `/data`: which values, and how they are sent.

    view: None = all of them.
    is_navigation: whether a browser will show the answer as a page.
    """

    entity: EntityParameters
    selection: str | None
    encoder: Encoder
    safe: bool
    flatten: bool
    view: ViewRequest | None = None
    is_navigation: bool = False

    @classmethod
    def of(cls, raw: bytes, accept: str, fetch_mode: str | None = None) -> "DataParameters":
        query = parse_query(raw)
        refuse_misspelt(query, "data")
        entity = EntityParameters.of(query)
        dtype = query.first("dtype") or "origin"
        if dtype not in {"origin", "safe"}:
            raise BadParameter("dtype", dtype, "origin and safe are accepted")
        return cls(
            entity=entity,
            selection=query.first("selection"),
            encoder=_value_encoder(query, accept),
            safe=dtype == "safe",
            flatten=_boolean(query, "flatten"),
            view=view_request(query),
            is_navigation=is_navigation(accept, fetch_mode),
        )

    @property
    def canonical(self) -> tuple[object, ...]:
        """What is asked for, in one form, and in which format."""
        selection = "".join((self.selection or "").split())
        entity, encoder = self.entity, self.encoder.name
        # Of one format, each form is an encoder of its own.
        form = self.encoder is json.BY_NAME or self.encoder is csv.WITH_HEADER
        flags = (self.safe, self.flatten, form)
        return ("data", encoder, entity.file, entity.path, selection, *flags, self.view)


@dataclass(frozen=True, slots=True)
class HistogramParameters:
    """Of `/histogram`: of which values, in how many bins.

    range: None = from the least finite value to the greatest.
    """

    entity: EntityParameters
    selection: str | None
    bins: int
    range: ValueRange | None

    @classmethod
    def of(cls, query: QueryFields) -> "HistogramParameters":
        text = query.first("bins")
        accepted = f"a whole number from 1 to {MAX_BINS} is accepted"
        bins = DEFAULT_BINS if not text else count("bins", text, accepted, MAX_BINS)
        return cls(EntityParameters.of(query), query.first("selection"), bins, _range(query))


def refuse_misspelt(query: QueryFields, route: str) -> None:
    """Refuse parameters that resemble one of the route's, so that no typing error is ignored.

    Case, `-` and `_` aside, a name resembles another one that it is the same as, or one edit
    from: a letter more, less or another one, or two neighbours swapped. Of names with fewer than
    four letters there is no such edit, from eight letters on there are two; the first letter is
    the same, unless it is swapped. All other unknown parameters are ignored, as h5grove does,
    and so are those of other routes.

    Raises:
        UnknownParameter
    """
    unknown = [name for name in query.fields if name not in _KNOWN]
    for name in unknown[:_MOST_JUDGED]:
        for known in sorted(PARAMETERS[route]):
            if _resembles(_letters(name), _letters(known)):
                raise UnknownParameter(name, known)


def _letters(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _resembles(name: str, known: str) -> bool:
    if name == known:
        return True
    most = 0 if len(known) < _SHORT_NAME else 1 if len(known) < _LONG_NAME else 2
    if abs(len(name) - len(known)) > most or not name:
        return False
    is_same_start = name[0] == known[0] or name[:2] == known[1::-1]
    return is_same_start and _count_edits(name, known) <= most


def _count_edits(one: str, other: str) -> int:
    """Letters to insert, delete or replace, or neighbours to swap, to make one the other."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        above, row = row, [i]
        for j, wanted in enumerate(other, 1):
            cost = min(row[j - 1] + 1, above[j] + 1, above[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before = above
    return row[-1]


def is_navigation(accept: str, fetch_mode: str | None) -> bool:
    """Whether a browser asks, to show the answer as a page.

    Args:
        accept: it prefers HTML to JSON.
        fetch_mode: `Sec-Fetch-Mode`, which browsers send over HTTPS and to this machine.
    """
    if "text/html" not in accept or fetch_mode not in {None, "navigate"}:
        return False
    return choose_media_type(accept, ("application/json", "text/html")) == "text/html"


def file_in_path(scope: Scope) -> str | None:
    """Return the file that `/file/{path}` names, None for other URLs.

    The server has decoded the path. Where that was not UTF-8, the bytes are taken from
    `raw_path`, if the server has it, and are surrogates (PEP 383).

    Raises:
        FileMissing: the path has `..`, which clients resolve before they ask (RFC 3986, section
            5.2.4), so that a proxy in between would have judged another URL.
    """
    path = get_route_path(scope)
    if not path.startswith(FILE_PREFIX):
        return None
    # Clients that join a URL ending in a slash with a name put another one before it.
    name = path[len(FILE_PREFIX) :].lstrip("/")
    if not name:
        return None
    if "\ufffd" in name:
        name = _undecoded(scope, name)
    if ".." in name.split("/"):
        raise FileMissing(name)
    return name


def _undecoded(scope: Scope, name: str) -> str:
    """The end of a path with surrogates for what is not UTF-8; `name` if it cannot be told."""
    raw = unquote_to_bytes(scope.get("raw_path") or b"")
    before = scope["path"].removesuffix(name).encode()
    rest = raw.removeprefix(before)
    if len(rest) == len(raw) or rest.decode("utf-8", "replace") != name:
        return name
    return rest.decode("utf-8", "surrogateescape")


def view_request(query: QueryFields) -> ViewRequest | None:
    """`max_points` or `shape`, and `method`; None without any of them. Empty means absent.

    Raises:
        BadParameter
    """
    points, shape, method = (query.first(name) or "" for name in ("max_points", "shape", "method"))
    if points and shape:
        raise BadParameter("shape", shape, "it is not accepted together with max_points")
    if method and not points and not shape:
        raise BadParameter("method", method, "it is accepted with max_points or shape only")
    if not points and not shape:
        return None
    try:
        chosen = Method(method or Method.MEAN)
    except ValueError:
        accepted = f"{', '.join(Method)} are accepted"
        raise BadParameter("method", method, accepted) from None
    if points:
        accepted = "a whole number of at least 1 is accepted"
        return ViewRequest(max_points=count("max_points", points, accepted), method=chosen)
    accepted = "comma-separated whole numbers of at least 1 are accepted, one per dimension"
    members = tuple(count("shape", each, accepted, text=shape) for each in shape.split(","))
    return ViewRequest(shape=members, method=chosen)


def link_resolution(query: QueryFields) -> LinkResolution:
    """`resolve_links`, in any case; `only_valid` when absent.

    Raises:
        BadParameter
    """
    text = query.first("resolve_links")
    if text is None:
        return LinkResolution.ONLY_VALID
    resolution = _RESOLUTIONS.get(text.lower())
    if resolution is None:
        raise BadParameter("resolve_links", text, "none, only_valid and all are accepted")
    return resolution


def document_encoder(query: QueryFields, accept: str) -> DocumentEncoder:
    """The encoder of metadata: by `format`, else by `Accept`, else JSON.

    Raises:
        BadParameter
    """
    documents = {
        name: each for name, each in list_encoders().items() if isinstance(each, DocumentEncoder)
    }
    name = query.first("format")
    if name:
        if name not in documents:
            raise BadParameter("format", name, f"{', '.join(documents)} are accepted here")
        return documents[name]
    offered = {
        media_type: each
        for each in documents.values()
        for media_type in (each.media_type, *get_aliases(each))
    }
    first = documents["json"]
    chosen = choose_media_type(accept, (first.media_type, *offered)) if accept else None
    return first if chosen is None else offered[chosen]


def attribute_encoder(query: QueryFields, accept: str) -> DocumentEncoder:
    """The same of attributes, whose values may be compounds.

    Raises:
        BadParameter
    """
    by_member = compounds_by_name(query)
    encoder = document_encoder(query, accept)
    return json.BY_NAME if by_member and encoder is json.ENCODER else encoder


def _value_encoder(query: QueryFields, accept: str) -> Encoder:
    """The encoder of values: by `format`, else by `Accept`, else JSON; in the form asked for.

    Raises:
        BadParameter
    """
    name, has_header = query.first("format"), _boolean(query, "header")
    by_member = compounds_by_name(query)
    if name:
        encoder = find_encoder(name)
    else:
        offered = map_accepted_types()
        first = find_encoder("json")
        # JSON first: it is what any type (`*/*`) means.
        chosen = choose_media_type(accept, (first.media_type, *offered)) if accept else None
        encoder = first if chosen is None else offered[chosen]
    if encoder is json.ENCODER and by_member:
        return json.BY_NAME
    if encoder is csv.ENCODER and has_header:
        return csv.WITH_HEADER
    return encoder


def compounds_by_name(query: QueryFields) -> bool:
    """Whether compounds in JSON are objects, by the names of their members.

    Raises:
        BadParameter
    """
    compound = query.first("compound") or "list"
    if compound not in {"list", "object"}:
        raise BadParameter("compound", compound, "list and object are accepted")
    return compound == "object"


def count(
    parameter: str, member: str, accepted: str, most: int | None = None, text: str | None = None
) -> int:
    """A whole number of at least 1; `text` is the whole value that `member` is part of."""
    member = member.strip()
    number = int(member) if _COUNT.fullmatch(member) else 0
    if number < 1 or (most is not None and number > most):
        raise BadParameter(parameter, member if text is None else text, accepted)
    return number


def _range(query: QueryFields) -> ValueRange | None:
    text = query.first("range")
    if not text:
        return None
    accepted = "two finite numbers `min,max`, min below max, are accepted"
    numbers = [_number(member.strip()) for member in text.split(",")]
    if len(numbers) != 2:
        raise BadParameter("range", text, accepted)
    low, high = numbers
    if low is None or high is None or not low < high:
        raise BadParameter("range", text, accepted)
    return ValueRange(low, high)


def _number(text: str) -> float | None:
    """A finite number, integers of 64 bits exactly; None when it is none."""
    if _INTEGER.fullmatch(text) and _LEAST <= int(text) <= _GREATEST:
        return int(text)
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    return number if math.isfinite(number) else None


def _boolean(query: QueryFields, name: str) -> bool:
    text = query.first(name)
    if text is None:
        return False
    try:
        return parse_boolean(text)
    except ValueError as error:
        raise BadParameter(name, text, str(error)) from None
