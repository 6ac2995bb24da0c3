"""Content codings (RFC 9110 §8.4.1): gzip, and zstd (RFC 8878), whole or as a stream."""

import functools
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from isal import isal_zlib

from asgihive.asgi.responses import Block

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    import zstandard

# Of fast codings, the one that still makes something of numbers as text; both let go of the GIL.
_GZIP_LEVEL = 2
_ZSTD_LEVEL = 1
_GZIP_WINDOW = 31  # of 15 bits, in the wrapping of gzip

# As much may wait in a compressor for what follows.
_FLUSH_BYTES = 16 << 10

_MEMBER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:[ \t]*;[ \t]*[qQ]=([01](?:\.[0-9]{0,3})?))?")
_ALIASES = {"x-gzip": "gzip"}  # §8.4.1.3
_NO_TRANSFORM = re.compile(r"(?:^|,)[ \t]*no-transform[ \t]*(?:,|$)", re.IGNORECASE)


class Compressor(Protocol):
    """What `zlib`, `isal` and the makers of zstd agree on."""

    def compress(self, data: bytes | memoryview, /) -> bytes: ...

    def flush(self, mode: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Coding:
    """A content coding.

    name: as in `Content-Encoding`.
    begin: makes what compresses one body.
    flush_mode, end_mode: for its `flush`, after which what came in can be read; and at the end.
    """

    name: str
    begin: Callable[[], Compressor]
    flush_mode: int
    end_mode: int

    def compress(self, body: bytes) -> bytes:
        """A whole body in one go."""
        compressor = self.begin()
        return compressor.compress(body) + compressor.flush(self.end_mode)


def _gzip() -> Compressor:
    return isal_zlib.compressobj(_GZIP_LEVEL, isal_zlib.DEFLATED, _GZIP_WINDOW)


if sys.version_info >= (3, 14):

    def _zstd() -> Compressor:
        return zstd.ZstdCompressor(level=_ZSTD_LEVEL)

    ZSTD = Coding("zstd", _zstd, zstd.ZstdCompressor.FLUSH_BLOCK, zstd.ZstdCompressor.FLUSH_FRAME)
else:

    def _zstd() -> Compressor:
        return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()

    ZSTD = Coding(
        "zstd", _zstd, zstandard.COMPRESSOBJ_FLUSH_BLOCK, zstandard.COMPRESSOBJ_FLUSH_FINISH
    )

GZIP = Coding("gzip", _gzip, isal_zlib.Z_SYNC_FLUSH, isal_zlib.Z_FINISH)

CODINGS = (ZSTD, GZIP)
"""In the order of preference, where a client has none."""


@functools.lru_cache(maxsize=64)  # browsers send few
def preferred_coding(
    accept_encoding: str | None, offers: tuple[Coding, ...] = CODINGS
) -> Coding | None:
    """The coding that an `Accept-Encoding` field asks for (§12.5.3); None = as it is.

    The highest quality wins, then the earlier offer. To send it as it is comes last unless the
    field names `identity`, and is what is left when nothing offered is accepted, even where
    the field refuses that, too: an answer that cannot be read says more than none. Malformed
    members are ignored, and without a field nothing is coded.
    """
    if accept_encoding is None:
        return None
    qualities: dict[str, float] = {}
    for member in accept_encoding.split(","):
        found = _MEMBER.fullmatch(member.strip(" \t"))
        if found is not None and float(found[2] or 1) <= 1:
            name = found[1].lower()
            qualities.setdefault(_ALIASES.get(name, name), float(found[2] or 1))
    others = qualities.get("*", 0.0)
    best, best_quality = None, qualities.get("identity", 0.0)
    for offer in offers:
        quality = qualities.get(offer.name, others)
        if quality > best_quality or (quality == best_quality > 0 and best is None):
            best, best_quality = offer, quality
    return best


def forbids_transforms(cache_control: str | None) -> bool:
    """Whether a `Cache-Control` field holds `no-transform` (RFC 9111 §5.2.1.6)."""
    return cache_control is not None and _NO_TRANSFORM.search(cache_control) is not None


async def compressed(
    blocks: AsyncIterator[Block],
    coding: Coding,
    run: Callable[[Callable[[], bytes]], Awaitable[bytes]],
) -> AsyncIterator[bytes]:
    """The blocks in a content coding, one block after the other and never ahead of who asks.

    What came in can be read by the client soon: at most 16 KiB of it wait for more.

    Args:
        run: runs the work, one call at a time, where it blocks nobody.

    Raises:
        whatever `blocks` and `run` raise; then the coded body is cut off and not ended.
    """
    compressor = coding.begin()
    waiting = 0
    async for block in blocks:
        waiting += len(block)
        flush = waiting >= _FLUSH_BYTES
        piece = await run(partial(_add, coding, compressor, block, flush=flush))
        if flush:
            waiting = 0
        if piece:
            yield piece
    yield await run(partial(compressor.flush, coding.end_mode))


def _add(coding: Coding, compressor: Compressor, block: Block, *, flush: bool) -> bytes:
    piece = compressor.compress(block)
    return piece + compressor.flush(coding.flush_mode) if flush else piece
