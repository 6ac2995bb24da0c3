"""Content codings (RFC 9110 §8.4.1): gzip, and zstd (RFC 8878), whole or as a stream."""

import functools
import re
import sys
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from asgihive.asgi.responses import BodyChunk

# Fast levels, which still make something of numbers as text. Both libraries release the GIL.
_GZIP_LEVEL = 2
_ZSTD_LEVEL = 1
_GZIP_WINDOW = 31  # of 15 bits, with the header and trailer of gzip

# At most so much may wait in a compressor for what follows.
_FLUSH_BYTES = 16 << 10

_MEMBER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:[ \t]*;[ \t]*[qQ]=([01](?:\.[0-9]{0,3})?))?")
_ALIASES = {"x-gzip": "gzip"}  # §8.4.1.3
_NO_TRANSFORM = re.compile(r"(?:^|,)[ \t]*no-transform[ \t]*(?:,|$)", re.IGNORECASE)


class Compressor(Protocol):
    """What the compressors of `isal` and of both modules of zstd have in common."""

    def compress(self, data: bytes | memoryview, /) -> bytes: ...

    def flush(self, mode: Any, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Coding:
    """A content coding."""

    name: str
    """As in `Content-Encoding`."""

    begin: Callable[[], Compressor]
    """Makes the compressor of one body."""

    flush_mode: int
    """For `Compressor.flush`: the client can read what came in so far."""

    end_mode: int
    """For `Compressor.flush` at the end of the body."""

    def compress(self, body: bytes) -> bytes:
        """Compress a whole body at once."""
        compressor = self.begin()
        return compressor.compress(body) + compressor.flush(self.end_mode)


# `isal` and `zstandard` are imported at first use: a hive that compresses nothing needs neither.
def _begin_gzip() -> Compressor:
    from isal import isal_zlib  # noqa: PLC0415  # see above

    return isal_zlib.compressobj(_GZIP_LEVEL, isal_zlib.DEFLATED, _GZIP_WINDOW)


if sys.version_info >= (3, 14):
    from compression import zstd

    def _begin_zstd() -> Compressor:
        return zstd.ZstdCompressor(level=_ZSTD_LEVEL)

    def compress_zstd(content: bytes | memoryview) -> bytes:
        """Return a frame of zstd that says how large its content is, as few decoders may need."""
        return zstd.compress(content, _ZSTD_LEVEL)

    ZSTD = Coding(
        "zstd", _begin_zstd, zstd.ZstdCompressor.FLUSH_BLOCK, zstd.ZstdCompressor.FLUSH_FRAME
    )
else:

    def _begin_zstd() -> Compressor:
        import zstandard  # noqa: PLC0415  # see above

        return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()

    def compress_zstd(content: bytes | memoryview) -> bytes:
        """Return a frame of zstd that says how large its content is, as few decoders may need."""
        import zstandard  # noqa: PLC0415  # see above

        return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(content)

    # COMPRESSOBJ_FLUSH_BLOCK and COMPRESSOBJ_FLUSH_FINISH of `zstandard`.
    ZSTD = Coding("zstd", _begin_zstd, flush_mode=1, end_mode=0)

GZIP = Coding("gzip", _begin_gzip, flush_mode=zlib.Z_SYNC_FLUSH, end_mode=zlib.Z_FINISH)

CODINGS = (ZSTD, GZIP)
"""In the order of preference, where a client has none."""


@functools.lru_cache(maxsize=64)  # browsers send few
def choose_coding(accept_encoding: str | None, *cache_controls: str | None) -> Coding | None:
    """Return the coding that a request asks for (RFC 9110 §12.5.3); None = as it is.

    The highest quality wins, then the earlier of `CODINGS`. To send it as it is comes last
    unless the field names `identity`, and is what is left when no coding is accepted, even
    where the field refuses that, too: an answer that cannot be read says more than none.
    Malformed members are ignored, and without a field the body is not coded.

    Args:
        accept_encoding: the field `Accept-Encoding` of the request.
        cache_controls: fields `Cache-Control`, of the request and of the response: with
            `no-transform` (RFC 9111 §5.2.1.6) in one of them the body is sent as it is.
    """
    if accept_encoding is None or any(
        each is not None and _NO_TRANSFORM.search(each) for each in cache_controls
    ):
        return None
    qualities: dict[str, float] = {}
    for member in accept_encoding.split(","):
        found = _MEMBER.fullmatch(member.strip(" \t"))
        if found is not None and float(found[2] or 1) <= 1:
            name = found[1].lower()
            qualities.setdefault(_ALIASES.get(name, name), float(found[2] or 1))
    others = qualities.get("*", 0.0)
    best, best_quality = None, qualities.get("identity", 0.0)
    for offer in CODINGS:
        quality = qualities.get(offer.name, others)
        if quality > best_quality or (quality == best_quality > 0 and best is None):
            best, best_quality = offer, quality
    return best


async def compress_chunks(
    chunks: AsyncIterator[BodyChunk],
    coding: Coding,
    run: Callable[[Callable[[], bytes]], Awaitable[bytes]],
) -> AsyncIterator[bytes]:
    """Yield a body in a content coding; a chunk is taken only when the next one is asked for.

    The client can read soon what came in: at most 16 KiB of it wait for more.

    Args:
        run: runs the work, one call at a time, where it does not block the event loop.

    Raises:
        Exception: what `chunks` and `run` raise; then the coded body is cut off and not ended.
    """
    compressor = coding.begin()
    waiting = 0

    def compress() -> bytes:
        compressed = compressor.compress(chunk)
        return compressed + compressor.flush(coding.flush_mode) if is_flushed else compressed

    async for chunk in chunks:
        waiting += len(chunk)
        is_flushed = waiting >= _FLUSH_BYTES
        compressed = await run(compress)
        if is_flushed:
            waiting = 0
        if compressed:
            yield compressed
    yield await run(functools.partial(compressor.flush, coding.end_mode))
