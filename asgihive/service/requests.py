"""What a request asks for, which version of its answer there is, and what follows from both; pure.

A `ReadRequest` says what part of a file is read, and in which format; `Wanted` in which form the
answer is sent, and under which conditions; `Version` which files the answer depends on. The status,
the headers and the content coding are decided from the last two alone.
"""

import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of_distribution
from typing import Any
from urllib.parse import quote

from starlette.types import Scope

from asgihive.asgi import (
    BodyChunk,
    BufferedResponse,
    ByteRange,
    Coding,
    StreamedResponse,
    Validators,
    choose_coding,
    choose_media_type,
    closing,
    compress_chunks,
    parse_query,
)
from asgihive.asgi.request_fields import (
    CONDITIONAL_HEADERS,
    PRECONDITIONS,
    RequestFields,
    check_preconditions,
    choose_range,
    select_304_headers,
)
from asgihive.encoders import csv, json
from asgihive.encoders.pictures import IMAGE_FORMATS, SVG, PictureFormat
from asgihive.encoders.protocol import (
    DocumentEncoder,
    Encoder,
    list_document_encoders,
    list_encoders,
    map_accepted_types,
)
from asgihive.errors import BadParameter, BadParameters
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.sandbox import Identity
from asgihive.hdf5.views import Method, ViewRequest
from asgihive.hdf5.virtual_sources import SourcesFound
from asgihive.service.parameters import KNOWN_NAMES, PARAMETERS, refuse_misspelt
from asgihive.settings import H5Settings

COMPRESS_OVER_BYTES = 1 << 10
"""A body that is not longer is sent as it is: coding it would take longer than sending it."""

SourceFiles = Mapping[str, Identity | None]
"""Every file that has a say in an answer, by its absolute path; None where there was no file."""

# Another version of these may make other bytes of the same values.
_MAKERS: tuple[str, ...] = ()
for _name in (
    "asgihive",
    "cmap",
    "h5py",
    "isal",
    "msgpack",
    "numpy",
    "orjson",
    "pillow",
    "pyarrow",
):
    with contextlib.suppress(PackageNotFoundError):
        _MAKERS = (*_MAKERS, version_of_distribution(_name))

_TAG_BYTES = 16

# Of the name of a missing source, bytes that are shown in a field, and what is not encoded there.
_LONGEST_SOURCE = 500
_SHOWN = "/:!$&'()*+@[]{}^~"

# What is compressed without a thread.
_INLINE_BYTES = 1 << 14

# Runs work where it does not block the event loop.
Run = Callable[[Callable[[], bytes]], Awaitable[bytes]]

# The formats of the routes that make pictures; the first is the default.
_PICTURES = {"image": tuple(IMAGE_FORMATS.values()), "plot": (SVG,)}

# Requests whose parameters are kept, and the longest query among them: 4 MiB in all.
_KEPT_REQUESTS, _LONGEST_KEPT = 1024, 2048


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """What a request reads of a file, and in which format it is answered."""

    route: str
    values: Mapping[str, Any]
    """The values of the parameters by name."""
    encoder: Encoder | DocumentEncoder | PictureFormat
    """The format: by `format`, else by `Accept`, else JSON or that of pictures."""
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
def _parse_request(
    route: str, raw: bytes, accept: bytes, mode: bytes, _formats: int
) -> ReadRequest:
    values = parse_parameters(route, parse_query(raw))
    encoder = values.pop("format", None)
    default: PictureFormat | Encoder = next(iter(_PICTURES.get(route, ())), json.ENCODER)
    by_name, has_header = values.pop("compound", False), values.pop("header", False)
    # A plot has one format, which no header chooses.
    has_format, is_page = encoder is not None or len(_PICTURES.get(route, "  ")) == 1, False
    if encoder is None:
        encoder = default
    if accept:
        text = accept.decode("latin-1")
        if not has_format:
            encoder = _choose_accepted(route, text, default)
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
        points, shape, method = values.pop("max_points"), values.pop("shape"), values.pop("method")
        if points or shape or method:
            view = make_view_request(points, shape, method)
    path, selection = values.get("path", ""), values.get("selection") or ""
    is_several = isinstance(selection, tuple)
    told = {**values, "selection": selection if is_several else "".join(selection.split())}
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
        path=path if isinstance(path, str) else next(iter(path), "/"),
    )


def _choose_accepted(route: str, accept: str, default: Any) -> Any:
    """Return the format that an `Accept` header chooses; the default where it refuses all."""
    offered: Mapping[str, Any] = map_accepted_types()
    if route in _PICTURES:
        offered = {each.media_type: each for each in _PICTURES[route]}
    elif route != "data":
        known = list_document_encoders()
        offered = {name: each for name, each in offered.items() if each.name in known}
    # The default first: it is what any type (`*/*`) means.
    chosen = choose_media_type(accept, (default.media_type, *offered))
    return default if chosen is None else offered[chosen]


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
    if not query.keys() <= KNOWN_NAMES:
        refuse_misspelt(query, route)
    values: dict[str, Any] = {}
    problems: list[BadParameter] = []
    for parameter in PARAMETERS[route]:
        name = parameter.name
        texts = query.get(name)
        if parameter.is_repeated:
            given = filter(None, texts or ()) if parameter.is_empty_absent else texts or ()
            values[name] = tuple(given)
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


def is_navigation(accept: str, fetch_mode: str | None) -> bool:
    """Return whether a browser asks, to show the answer as a page.

    Args:
        accept: it prefers HTML to JSON.
        fetch_mode: `Sec-Fetch-Mode`, which browsers send over HTTPS and to this machine.
    """
    if "text/html" not in accept or fetch_mode not in {None, "navigate"}:
        return False
    return choose_media_type(accept, ("application/json", "text/html")) == "text/html"


@dataclass(frozen=True, slots=True)
class Version:
    """Which version of an answer there is, as far as that is known."""

    validators: Validators = field(default_factory=Validators)
    """Those of the answer as it is, in no content coding."""
    source_files: SourceFiles = field(default_factory=dict)
    """The files that it is made of."""
    is_large: bool | None = None
    """Whether it is worth compression; None = that is seen at the end."""
    missing_sources: str | None = None
    """The value of the header of that name; None = no source is missing."""


def make_seed(settings: H5Settings) -> bytes:
    """Return what all entity-tags of a service have in common: how answers are made."""
    rules = (_MAKERS, settings.follow_symlinks)
    return blake2b(repr(rules).encode(), digest_size=_TAG_BYTES).digest()


def make_version(
    seed: bytes,
    canonical: tuple[object, ...],
    lease: Lease,
    sources: SourcesFound | None = None,
    *,
    is_large: bool | None = None,
) -> Version:
    """Return the version of an answer that is made of all that `lease` depends on.

    It has no validators while a file of it is live, or was written so lately that a further change
    might not show in its identity: what cannot be told from the next version must not be called
    the same.

    Args:
        seed: from `make_seed`.
        canonical: what is asked for, in one form, and the format of the answer.
        lease: of the files; computed on what it holds now.
        sources: what the values come from; None = the lease depends on all of it.
        is_large: whether the answer is worth compression, if that is known.
    """
    missing = None
    if sources is not None and sources.missing:
        missing = format_missing_sources(sources)
    if sources is not None and not sources.depends_on_all:
        return Version(is_large=is_large, missing_sources=missing)
    files = dict(lease.depends)
    if not lease.settled:
        return Version(Validators(), files, is_large, missing)
    root = lease.pool.sandbox.root
    told, dated, direct = [], [], True
    names = set()
    for each in lease.files.values():
        if each.place.asked == each.place.real:
            names.add(each.place.asked)
    for path, identity in files.items():
        content: tuple[int, ...] = ()
        if identity is not None:
            content = identity.shared
            dated.append((identity.mtime_ns, identity.ctime_ns))
        # A symbolic link may lead to an older file from now on, and what was missing may turn up
        # with an old date: then the dates do not tell of every change.
        direct = direct and path in names
        told.append((path.removeprefix(root), content))
    text = repr((canonical, sorted(told))).encode()
    tag = f'"{blake2b(text, digest_size=_TAG_BYTES, key=seed).hexdigest()}"'
    validators = Validators(tag)
    if direct and dated:
        modified, changed = map(max, zip(*dated, strict=True))
        validators = Validators.from_times(
            tag, modified, changed, time.time_ns(), exact=len(dated) == 1
        )
    return Version(validators, files, is_large, missing)


def format_missing_sources(sources: SourcesFound) -> str:
    """Return `Missing-Sources`: how many of how many, and the first one, percent-encoded.

    With `; others=unknown` where not all sources were looked for.
    """
    first = quote(os.fsencode(sources.first_missing)[:_LONGEST_SOURCE], safe=_SHOWN)
    value = f"{sources.missing} of {sources.searched}; first={first}"
    return value if sources.is_all else f"{value}; others=unknown"


def get_coding(wanted: Wanted, version: Version) -> Coding | None:
    """Return the coding of a whole answer."""
    return wanted.coding if version.is_large else None


def make_headers(wanted: Wanted, version: Version, coding: Coding | None) -> dict[str, str]:
    """Return the headers that a response has by its version."""
    validators = version.validators
    if coding is not None:
        validators = validators.with_coding(coding.name)
    headers = {**wanted.common, **validators.to_headers()}
    if coding is not None:
        headers["content-encoding"] = coding.name
    if version.missing_sources is not None:
        headers["missing-sources"] = version.missing_sources
    return headers


def answer_preconditions(wanted: Wanted, version: Version) -> BufferedResponse | None:
    """Return the 304 for a client that has this version, None if it is to be sent.

    A client that has the answer in one of the forms that this request may get has it. That is
    said by its entity-tag even before it is known which form it would get now.

    Raises:
        HTTPException: 412.
    """
    if not wanted.is_conditional:
        return None
    tags, form = wanted.fields.get("if-none-match"), get_coding(wanted, version)
    if tags is not None and "if-match" not in wanted.fields:
        for coding in (wanted.coding, None):
            name = None if coding is None else coding.name
            if version.validators.with_coding(name).is_listed_in(tags):
                return _make_not_modified(wanted, version, coding)
    if version.is_large is not None:
        coded = version.validators.with_coding(None if form is None else form.name)
        if check_preconditions(wanted.fields, coded):
            return _make_not_modified(wanted, version, form)
    return None


def _make_not_modified(wanted: Wanted, version: Version, coding: Coding | None) -> BufferedResponse:
    headers = select_304_headers(make_headers(wanted, version, coding))
    return BufferedResponse(b"", 304, headers)


def choose_wanted_range(wanted: Wanted, version: Version, size: int) -> ByteRange | None:
    """Return the part of a body of `size` bytes that is wanted; None = all of it.

    Raises:
        HTTPException: 416.
    """
    # The bytes of a coded answer cannot be counted before they are there.
    if not wanted.has_range or get_coding(wanted, version):
        return None
    return choose_range(wanted.fields, version.validators, size)


async def finish_response(
    wanted: Wanted, version: Version, response: BufferedResponse | StreamedResponse, run: Run
) -> BufferedResponse | StreamedResponse:
    """Return a response with the headers of its version, and in its content coding.

    Args:
        run: runs the compression of what is large.
    """
    # Ranges are of the answer as it is, whose bytes count.
    coding = wanted.coding if version.is_large and response.status == 200 else None
    given = response.headers
    if coding is not None:  # a range of it cannot be had
        given = {name: value for name, value in given.items() if name != "accept-ranges"}
    headers = {**given, **make_headers(wanted, version, coding)}
    if isinstance(response, StreamedResponse):
        if coding is None:
            return replace(response, headers=headers)
        chunks = _compress(response.body_chunks, coding, run)
        return replace(response, body_chunks=chunks, content_length=None, headers=headers)
    body = response.body
    if coding is not None:
        compress = partial(coding.compress, body)
        body = compress() if len(body) <= _INLINE_BYTES else await run(compress)
    return BufferedResponse(body, response.status, headers)


@asynccontextmanager
async def _compress(
    chunks: AbstractAsyncContextManager[AsyncIterator[BodyChunk]], coding: Coding, run: Any
) -> AsyncIterator[AsyncIterator[BodyChunk]]:
    async with chunks as plain, closing(compress_chunks(plain, coding, run)) as coded:
        yield coded
