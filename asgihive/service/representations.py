"""The form in which a request gets its answer: which version, which part, in which coding."""

import functools
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
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
    closing,
    compress_chunks,
)
from asgihive.asgi.conditional import (
    RequestFields,
    check_preconditions,
    choose_range,
    is_conditional,
    parse_conditional_headers,
    select_304_headers,
)
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.virtual_sources import SourcesFound
from asgihive.service.answers import Answer, Depends, Key
from asgihive.service.plain import PlainSource
from asgihive.service.store import COMPRESS_OVER_BYTES, Store
from asgihive.service.versions import validators_of

_FORMAT = re.compile(rb"(?:^|&)format=[^&]")

# Of the name of a missing source, bytes that are shown in a field, and what is not encoded there.
_LONGEST_SOURCE = 500
_SHOWN = "/:!$&'()*+@[]{}^~"

# What is compressed without a thread.
_INLINE_BYTES = 1 << 14

_UNKNOWN = Validators()


class NotModified(Exception):  # an answer, and not an error: 304
    """The client has the answer already.

    headers: those that the answer itself would have.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__(headers)
        self.headers = headers

    def response(self) -> BufferedResponse:
        return BufferedResponse(b"", 304, select_304_headers(self.headers))


@dataclass(slots=True, kw_only=True)
class Representation:
    """The representation that one request gets; once more is known of the answer, it knows, too.

    key: what is asked for, in one form, with the format of the answer.
    fields: of the request.
    coding: in which an answer that is large enough is sent; None = as it is.
    common: headers that each form of the answer has.
    plain: of which few bytes of a file its body is made, if it is; noted by who reads them.
    missing_sources: the value of the field of that name; None = no source is missing.
    validators, depends: of the answer as it is; none before `identify`, or for good.
    is_large: whether the answer is worth compression, when that is known.
    """

    store: Store
    key: Key
    method: str
    fields: RequestFields
    coding: Coding | None
    common: Mapping[str, str]
    plain: PlainSource | None = None
    missing_sources: str | None = None
    validators: Validators = _UNKNOWN
    depends: Depends = field(default_factory=dict)
    is_large: bool | None = None

    @classmethod
    def of(cls, store: Store, scope: Scope, key: Key, *, is_compressible: bool) -> "Representation":
        """Of the answer to a request, of which nothing is known yet.

        Args:
            is_compressible: whether `Accept-Encoding` has a say in it.
        """
        fields = parse_conditional_headers(scope)
        cache_control = store.settings.cache_control
        coding = None
        if is_compressible:
            accepted = fields.get("accept-encoding")
            coding = choose_coding(accepted, cache_control, fields.get("cache-control"))
        return cls(
            store=store,
            key=key,
            method=scope["method"],
            fields=fields,
            coding=coding,
            common=_common(
                cache_control,
                # Else `Accept` has a say in the format.
                has_format=_FORMAT.search(scope["query_string"]) is not None,
                is_compressible=is_compressible,
            ),
        )

    async def check_known(self) -> None:
        """Answer from memory that the client has the answer, if that can be said there.

        Raises:
            NotModified
            HTTPException: 412
        """
        if is_conditional(self.fields):
            known = await self.store.answers.find(self.key)
            if known is not None:
                self._know(known)
                self._check()

    def identify(
        self,
        lease: Lease,
        sources: SourcesFound,
        *,
        length: int | None = None,
        is_streamed: bool = False,
    ) -> None:
        """Learn the version of an answer from the files that its values come from.

        Args:
            sources: what its values come from, on which `lease` depends.
            length: of its body, if that is known.
            is_streamed: whether it is large, however long. None of both: it is seen at the end.

        Raises:
            NotModified
            HTTPException: 412
        """
        # A second attempt may find other files.
        self.validators, self.depends = _UNKNOWN, {}
        self.missing_sources = missing_sources_field(sources)
        if sources.depends_on_all:
            self.validators = validators_of(self.store.versions_seed, self.key, lease)
            self.depends = dict(lease.depends)
        self.is_large = None if length is None else self.is_worth(length)
        if is_streamed:
            self.is_large = True
        if is_conditional(self.fields):
            self._check()

    def is_worth(self, size: int) -> bool:
        """Whether a body of `size` bytes is large enough for compression."""
        return size > COMPRESS_OVER_BYTES

    def range_of(self, size: int) -> ByteRange | None:
        """The part of a body of `size` bytes that is asked for; None = all of it.

        Raises:
            HTTPException: 416
        """
        # Of HEAD, a range means nothing (RFC 9110 §14.2); and nobody can count the bytes of a
        # coded answer before they are there.
        if self.method != "GET" or self._coding(200) is not None:
            return None
        return choose_range(self.fields, self.validators, size)

    async def finished(
        self, response: BufferedResponse | StreamedResponse
    ) -> BufferedResponse | StreamedResponse:
        """The answer as it is sent: with its validators, and in its content coding.

        Raises:
            NotModified
            HTTPException: 412
        """
        if isinstance(response, StreamedResponse):
            self.is_large = True
            self._keep()
            return self._streamed(response)
        if response.status == 200:
            self.is_large = self.is_worth(len(response.body))
        if is_conditional(self.fields):
            self._check()
        self._keep()
        return await self._buffered(response, self._coding(response.status))

    def at_hand(self, answer: Answer) -> BufferedResponse | None:
        """What was sent of an answer that is kept in memory, if it was in this coding.

        Raises:
            NotModified
            HTTPException: 412
        """
        self._know(answer)
        if is_conditional(self.fields):
            self._check()
        coding = self._coding(200)
        return answer.responses.get(None if coding is None else coding.name)

    async def finished_answer(self, answer: Answer) -> BufferedResponse:
        """The same of an answer that is kept in memory, in all forms it was asked for in.

        Raises:
            NotModified
            HTTPException: 412
        """
        response = self.at_hand(answer)
        if response is None:
            coding = self._coding(200)
            name = None if coding is None else coding.name
            assert answer.body is not None  # noqa: S101  # who is asked for it has made it
            response = await self._buffered(answer.body, coding)
            self.store.answers.keep_response(self.key, answer, name, response)
        return response

    def _know(self, answer: Answer) -> None:
        self.validators, self.depends = answer.validators, answer.depends
        self.is_large = answer.is_large

    def _keep(self) -> None:
        """Remember the version, so that nobody has to open a file to find that it is the same."""
        if self.validators.etag is not None and self.is_large is not None:
            self.store.answers.keep(self.key, Answer(self.validators, self.depends, self.is_large))

    def _coding(self, status: int) -> Coding | None:
        """Ranges are of bytes that can be counted: of the answer as it is."""
        return self.coding if self.is_large and status == 200 else None

    def _check(self) -> None:
        """What the preconditions say, as far as they can be judged yet.

        Whoever has the answer in one of the forms that this request may get has it. That is
        said by its entity-tag even before it is known which form it would get now.
        """
        tags = self.fields.get("if-none-match")
        if tags is not None and "if-match" not in self.fields:
            for coding in (self.coding, None):
                if self._coded(coding).is_listed_in(tags):
                    raise NotModified(self._headers(coding))
        if self.is_large is not None:
            coding = self._coding(200)
            if check_preconditions(self.fields, self._coded(coding)):
                raise NotModified(self._headers(coding))

    def _coded(self, coding: Coding | None) -> Validators:
        return self.validators.with_coding(None if coding is None else coding.name)

    def _headers(self, coding: Coding | None) -> dict[str, str]:
        headers = {**self.common, **self._coded(coding).to_headers()}
        if coding is not None:
            headers["content-encoding"] = coding.name
        if self.missing_sources is not None:
            headers["missing-sources"] = self.missing_sources
        return headers

    async def _buffered(
        self, response: BufferedResponse, coding: Coding | None
    ) -> BufferedResponse:
        headers = {**_described(response.headers, coding), **self._headers(coding)}
        body = response.body
        if coding is not None:
            compress = functools.partial(coding.compress, body)
            body = compress() if len(body) <= _INLINE_BYTES else await self._run(compress)
        return BufferedResponse(body, response.status, headers)

    def _streamed(self, response: StreamedResponse) -> StreamedResponse:
        coding = self._coding(response.status)
        headers = {**_described(response.headers, coding), **self._headers(coding)}
        if coding is None:
            return replace(response, headers=headers)
        blocks = _coded_blocks(response.body_chunks, coding, self._run)
        return replace(response, body_chunks=blocks, content_length=None, headers=headers)

    async def _run(self, work: Callable[[], bytes]) -> bytes:
        return await self.store.lanes.decode.run(work, patient=True)


def missing_sources_field(sources: SourcesFound) -> str | None:
    """`Missing-Sources`: how many of how many, and the first one, percent-encoded (RFC 3986).

    With `; others=unknown` where not all sources were looked for. None where none is missing.
    """
    if not sources.missing:
        return None
    first = quote(os.fsencode(sources.first_missing)[:_LONGEST_SOURCE], safe=_SHOWN)
    value = f"{sources.missing} of {sources.searched}; first={first}"
    return value if sources.is_all else f"{value}; others=unknown"


@asynccontextmanager
async def _coded_blocks(
    blocks: AbstractAsyncContextManager[AsyncIterator[BodyChunk]], coding: Coding, run: Any
) -> AsyncIterator[AsyncIterator[BodyChunk]]:
    async with blocks as plain, closing(compress_chunks(plain, coding, run)) as coded:
        yield coded


def _described(headers: Mapping[str, str], coding: Coding | None) -> Mapping[str, str]:
    """Without what is not true of a coded body."""
    if coding is None:
        return headers
    return {name: value for name, value in headers.items() if name != "accept-ranges"}


@functools.cache
def _common(cache_control: str, *, has_format: bool, is_compressible: bool) -> Mapping[str, str]:
    headers = {}
    if cache_control:
        headers["cache-control"] = cache_control
    vary = ["accept"] * (not has_format) + ["accept-encoding"] * is_compressible
    if vary:
        headers["vary"] = ", ".join(vary)
    return headers
