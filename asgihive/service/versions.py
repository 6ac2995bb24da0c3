"""Which version of an answer there is, and what follows from it and from what is wanted; pure.

A status, its headers and a content coding are decided from two frozen values alone: `Wanted`, which
is read from the request, and `Version`, which is made of the files that an answer depends on.
"""

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from importlib.metadata import version as version_of_distribution
from typing import Any
from urllib.parse import quote

from asgihive.asgi import (
    BodyChunk,
    BufferedResponse,
    ByteRange,
    Coding,
    StreamedResponse,
    Validators,
    closing,
    compress_chunks,
)
from asgihive.asgi.request_fields import (
    check_preconditions,
    choose_range,
    select_304_headers,
)
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.sandbox import Identity
from asgihive.hdf5.virtual_sources import SourcesFound
from asgihive.service.requests import Wanted
from asgihive.settings import H5Settings

COMPRESS_OVER_BYTES = 1 << 10
"""A body that is not longer is sent as it is: coding it would take longer than sending it."""

SourceFiles = Mapping[str, Identity | None]
"""Every file that has a say in an answer, by its absolute path; None where there was no file."""

# Another version of these may make other bytes of the same values.
_MAKERS = tuple(
    version_of_distribution(name) for name in ("asgihive", "h5py", "msgpack", "numpy", "orjson")
)

_TAG_BYTES = 16

# Of the name of a missing source, bytes that are shown in a field, and what is not encoded there.
_LONGEST_SOURCE = 500
_SHOWN = "/:!$&'()*+@[]{}^~"

# What is compressed without a thread.
_INLINE_BYTES = 1 << 14

# Runs work where it does not block the event loop.
Run = Callable[[Callable[[], bytes]], Awaitable[bytes]]


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
        # Without the device: machines that share a network file system number it as they like.
        content: tuple[int, ...] = ()
        if identity is not None:
            content = (identity.inode, identity.size, identity.mtime_ns, identity.ctime_ns)
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
