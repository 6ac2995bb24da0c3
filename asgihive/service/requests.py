"""What one request asks for: what of which file, in which format, and in which form; pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_to_bytes

from starlette.types import Scope

from asgihive.asgi import (
    Coding,
    choose_coding,
    choose_media_type,
    get_route_path,
    parse_query,
)
from asgihive.asgi.request_fields import CONDITIONAL_HEADERS, PRECONDITIONS, RequestFields
from asgihive.encoders import csv, json
from asgihive.encoders.protocol import (
    DocumentEncoder,
    Encoder,
    list_document_encoders,
    list_encoders,
    map_accepted_types,
)
from asgihive.errors import BadParameter, BadParameters, FileMissing, UnknownParameter
from asgihive.hdf5.views import Method, ViewRequest
from asgihive.service.parameters import PARAMETERS

FILE_PREFIX = "/file/"
"""Of the URLs that name a file themselves: `/file/{path}`."""

# Unknown parameters of a query that are compared with the known ones.
_MOST_JUDGED = 32

# Letters below which a name has no typing errors, and from which it may have two.
_SHORT_NAME, _LONG_NAME = 4, 8

# Requests whose parameters are kept, and the longest query among them: 4 MiB in all.
_KEPT_REQUESTS, _LONGEST_KEPT = 1024, 2048


_NAMES = {route: sorted(each.name for each in table) for route, table in PARAMETERS.items()}

# Clients send parameters of one route to all.
_KNOWN = frozenset(name for names in _NAMES.values() for name in names)


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """What a request reads of a file, and in which format it is answered."""

    route: str
    values: Mapping[str, Any]
    """The values of the parameters by name."""
    encoder: Encoder | DocumentEncoder
    """The format: by `format`, else by `Accept`, else JSON."""
    has_format: bool
    """Whether the query names the format, so that `Accept` has no say in it."""
    canonical: tuple[object, ...]
    """What is asked for, in one form, and in which format; its `repr` says all of it."""
    key: tuple[object, ...]
    """By which its answer is kept."""
    view: ViewRequest | None = None
    """Of `/data`: how few points are wanted; None = all values."""
    is_navigation: bool = False
    """Whether a browser will show the answer as a page."""
    file: str = ""
    """The name of the file, as the client knows it."""
    path: str = ""
    """The path of the entity in the file."""


def read_request(scope: Scope, route: str) -> ReadRequest:
    """Return what a request asks for; the same object for a request that is repeated.

    Raises:
        BadParameter
    """
    accept, mode = b"", b""
    for name, value in scope["headers"]:
        if name == b"accept":
            # All fields are one (RFC 9110, section 5.3).
            accept = b"%b,%b" % (accept, value) if accept else value
        elif name == b"sec-fetch-mode":
            mode = value
    query: bytes = scope["query_string"]
    if len(query) + len(accept) > _LONGEST_KEPT:
        return _parse_request.__wrapped__(route, query, accept, mode, 0)
    # Another format that is registered makes another answer.
    return _parse_request(route, query, accept, mode, len(list_encoders()))


@lru_cache(_KEPT_REQUESTS)
def _parse_request(route: str, raw: bytes, accept: bytes, mode: bytes, formats: int) -> ReadRequest:
    values = parse_parameters(route, parse_query(raw))
    encoder = values.pop("format")
    by_name, has_header = values.pop("compound", False), values.pop("header", False)
    has_format, is_page = encoder is not None, False
    if encoder is None:
        encoder = json.ENCODER
    if accept:
        text = accept.decode("latin-1")
        if not has_format:
            offered = _list_offers(formats, of_values=route == "data")
            # JSON first: it is what any type (`*/*`) means.
            chosen = choose_media_type(text, (json.ENCODER.media_type, *offered))
            encoder = encoder if chosen is None else offered[chosen]
        if "text/html" in text:
            is_page = is_navigation(text, mode.decode("latin-1").strip().lower() or None)
    # Of one format, each form is an encoder of its own.
    has_form = True
    if encoder is json.ENCODER and by_name:
        encoder = json.BY_NAME
    elif encoder is csv.ENCODER and has_header:
        encoder = csv.WITH_HEADER
    else:
        has_form = False
    view = None
    if route == "data":
        points, shape, method = (values.pop(name) for name in ("max_points", "shape", "method"))
        if points or shape or method:
            view = make_view_request(points, shape, method)
    told = {**values, "selection": "".join((values.get("selection") or "").split())}
    canonical = (route, encoder.name, has_form, *told.values(), view)
    return ReadRequest(
        route=route,
        values=values,
        encoder=encoder,
        has_format=has_format,
        canonical=canonical,
        key=(canonical, has_format),
        view=view,
        is_navigation=is_page,
        file=values.get("file", ""),
        path=values.get("path", ""),
    )


@lru_cache(4)  # another format that is registered makes others
def _list_offers(_formats: int, *, of_values: bool) -> Mapping[str, Encoder]:
    """Return the formats of values, or of documents, by media type, aliases included."""
    every = map_accepted_types()
    if of_values:
        return every
    documents = list_document_encoders()
    return {name: each for name, each in every.items() if each.name in documents}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request wants of an answer."""

    fields: RequestFields
    """Its conditional headers, and those of ranges and codings."""
    coding: Coding | None
    """In which an answer that is large enough is sent; None = as it is."""
    common: Mapping[str, str]
    """Headers that each form of the answer has."""
    is_conditional: bool
    """Whether it has preconditions."""
    has_range: bool
    """Whether it asks for a part, which is granted where the bytes of an answer can be counted."""


def parse_wanted(
    scope: Scope, cache_control: str, *, has_format: bool, is_compressible: bool
) -> Wanted:
    """Return what a request wants.

    Args:
        cache_control: of all answers, may be empty.
        has_format: whether it names a format, so that `Accept` has no say in it.
        is_compressible: whether `Accept-Encoding` has a say in it.
    """
    fields: dict[str, str] = {}
    for name, value in scope["headers"]:
        known = CONDITIONAL_HEADERS.get(name)
        if known is not None:
            text = value.decode("latin-1")
            fields[known] = f"{fields[known]}, {text}" if known in fields else text
    coding = None
    if is_compressible and "accept-encoding" in fields:
        coding = choose_coding(
            fields["accept-encoding"], cache_control, fields.get("cache-control")
        )
    common = {"cache-control": cache_control} if cache_control else {}
    if not has_format:
        common["vary"] = "accept, accept-encoding" if is_compressible else "accept"
    elif is_compressible:
        common["vary"] = "accept-encoding"
    # Of HEAD, a range means nothing (RFC 9110 §14.2).
    has_range = "range" in fields and scope["method"] == "GET"
    is_conditional = bool(fields) and not fields.keys().isdisjoint(PRECONDITIONS)
    return Wanted(fields, coding, common, is_conditional, has_range)


def parse_parameters(route: str, query: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return the values of a route's parameters by name.

    Raises:
        UnknownParameter: a name resembles that of a parameter.
        BadParameter: a value is not accepted; `BadParameters` if several are not.
    """
    if not query.keys() <= _KNOWN:
        refuse_misspelt(query, route)
    values: dict[str, Any] = {}
    problems: list[BadParameter] = []
    for parameter in PARAMETERS[route]:
        name = parameter.name
        texts = query.get(name)
        if parameter.is_repeated:
            values[name] = tuple(texts or ())
            continue
        text = texts[0] if texts else None
        if text is None or (not text and parameter.is_empty_absent):
            values[name] = parameter.default
            if parameter.required:
                problems.append(BadParameter(name, text, parameter.required))
            continue
        try:
            values[name] = parameter.parse(text)
        except BadParameter as problem:
            problems.append(problem)
        except ValueError as error:
            problems.append(BadParameter(name, text, str(error)))
    if problems:
        raise problems[0] if len(problems) == 1 else BadParameters(problems)
    return values


def make_view_request(
    points: int | None, shape: tuple[int, ...] | None, method: Method | None
) -> ViewRequest:
    """Return the view that `max_points` or `shape`, and `method`, mean.

    Raises:
        BadParameter: they do not go together.
    """
    if points and shape:
        text = ",".join(map(str, shape))
        raise BadParameter("shape", text, "it is not accepted together with max_points")
    if not (points or shape):
        raise BadParameter("method", method, "it is accepted with max_points or shape only")
    return ViewRequest(points, shape, method or Method.MEAN)


def refuse_misspelt(query: Mapping[str, list[str]], route: str) -> None:
    """Refuse parameters that resemble one of the route's, so that no typing error is ignored.

    Case, `-` and `_` aside, a name resembles another one that it is the same as, or one edit
    from: a letter more, less or another one, or two neighbours swapped. Of names with fewer than
    four letters there is no such edit, from eight letters on there are two; the first letter is
    the same, unless it is swapped. All other unknown parameters are ignored, as h5grove does,
    and so are those of other routes.

    Raises:
        UnknownParameter
    """
    unknown = [name for name in query if name not in _KNOWN]
    for name in unknown[:_MOST_JUDGED]:
        for known in _NAMES[route]:
            if _is_like(_strip_name(name), _strip_name(known)):
                raise UnknownParameter(name, known)


def _strip_name(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _is_like(name: str, known: str) -> bool:
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


def find_file_in_path(scope: Scope) -> str | None:
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
        name = _decode_again(scope, name)
    if ".." in name.split("/"):
        raise FileMissing(name)
    return name


def _decode_again(scope: Scope, name: str) -> str:
    """The end of a path with surrogates for what is not UTF-8; `name` if it cannot be told."""
    raw = unquote_to_bytes(scope.get("raw_path") or b"")
    before = scope["path"].removesuffix(name).encode()
    rest = raw.removeprefix(before)
    if len(rest) == len(raw) or rest.decode("utf-8", "replace") != name:
        return name
    return rest.decode("utf-8", "surrogateescape")
