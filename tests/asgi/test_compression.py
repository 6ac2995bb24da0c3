"""Content codings against RFC 9110 §12.5.3, read by other decoders than wrote them."""

import gzip
import time
import zlib
from collections.abc import AsyncIterator, Callable

import anyio.lowlevel
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from asgihive.asgi.compression import (
    CODINGS,
    GZIP,
    ZSTD,
    Coding,
    choose_coding,
    compress_chunks,
)

pytestmark = pytest.mark.anyio


def decoder(coding: Coding) -> Callable[[bytes], bytes]:
    """What a client takes a stream apart with, as far as it came."""
    if coding is GZIP:
        return zlib.decompressobj(31).decompress
    return zstandard.ZstdDecompressor().decompressobj().decompress


async def here(work: Callable[[], bytes]) -> bytes:
    await anyio.lowlevel.checkpoint()
    return work()


async def of(*blocks: bytes | memoryview) -> AsyncIterator[bytes | memoryview]:
    for block in blocks:
        yield block


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (None, None),
        # The examples of the RFC.
        ("compress, gzip", GZIP),
        ("", None),
        ("*", ZSTD),
        ("compress;q=0.5, gzip;q=1.0", GZIP),
        ("gzip;q=1.0, identity; q=0.5, *;q=0", GZIP),
        # What browsers send.
        ("gzip, deflate, br, zstd", ZSTD),
        ("gzip, deflate", GZIP),
        ("zstd;q=0.5, gzip;q=0.8", GZIP),
        ("zstd;q=0.5, *;q=0.8", GZIP),
        ("GZIP;Q=0.1", GZIP),
        ("x-gzip", GZIP),
        ("gzip;q=0", None),
        ("gzip;q=0.000, zstd;q=0.001", ZSTD),
        ("identity", None),
        ("identity, gzip;q=0.5", None),
        ("identity;q=0.5, gzip;q=0.5", GZIP),
        ("identity;q=0, gzip", GZIP),
        # Nothing that is there is accepted: rather as it is than not at all.
        ("br, identity;q=0", None),
        ("*;q=0", None),
        # Malformed members say nothing.
        ("gzip;q=2, zstd;q=0.1", ZSTD),
        ("gzip;q=1.5, zstd;q=0.1", ZSTD),
        ("gzip;level=9, zstd;q=0.1", ZSTD),
        (", ,gzip ; q=0.5,", GZIP),
        ("gzip zstd", None),
    ],
)
def test_preferred_coding(field: str | None, expected: Coding | None) -> None:
    assert choose_coding(field) is expected


@given(st.text(st.sampled_from("gzipstd*;q=01., \tidentity")))
def test_no_field_breaks_it(field: str) -> None:
    assert choose_coding(field) in {*CODINGS, None}


@pytest.mark.parametrize("part", [",", "gzip;q=", ";", "gzip ", "a" * 10 + ","])
def test_long_hostile_fields_take_linear_time(part: str) -> None:
    started = time.thread_time()
    choose_coding(part * 10_000)
    choose_coding("gzip", part * 10_000)
    assert time.thread_time() - started < 1


@pytest.mark.parametrize(
    ("field", "forbidden"),
    [
        (None, False),
        ("no-transform", True),
        ("max-age=0, No-Transform , no-cache", True),
        ("no-cache", False),
        ("no-transforms", False),
    ],
)
def test_no_transform(field: str | None, forbidden: bool) -> None:
    expected = None if forbidden else GZIP
    assert choose_coding("gzip", field) is expected
    assert choose_coding("gzip", None, field) is expected


@pytest.mark.parametrize("coding", CODINGS, ids=lambda coding: coding.name)
@given(body=st.binary(max_size=5000))
def test_a_whole_body(coding: Coding, body: bytes) -> None:
    coded = coding.compress(body)
    if coding is GZIP:
        assert gzip.decompress(coded) == body
    else:
        assert zstandard.ZstdDecompressor().decompressobj().decompress(coded) == body


def test_zstd_needs_no_larger_window_than_clients_give() -> None:
    # RFC 9659: at most 8 MB.
    body = bytes(range(256)) * (1 << 17)
    coded = ZSTD.compress(body)
    assert zstandard.get_frame_parameters(coded).window_size <= 8 << 20


@pytest.mark.parametrize("coding", CODINGS, ids=lambda coding: coding.name)
@pytest.mark.parametrize("sizes", [(), (0,), (1,), (1, 20_000, 3), (70_000, 0, 1 << 20, 5)])
async def test_a_stream(coding: Coding, sizes: tuple[int, ...]) -> None:
    blocks = [bytes((index * 7 + size) % 251 for index in range(size)) for size in sizes]
    pieces = [piece async for piece in compress_chunks(of(*blocks), coding, here)]
    decode = decoder(coding)
    assert b"".join(map(decode, pieces)) == b"".join(blocks)


async def test_blocks_may_be_views() -> None:
    block = memoryview(bytes(30_000))
    pieces = [piece async for piece in compress_chunks(of(block), GZIP, here)]
    assert gzip.decompress(b"".join(pieces)) == block


@pytest.mark.parametrize("coding", CODINGS, ids=lambda coding: coding.name)
async def test_what_came_in_can_be_read_before_more_comes(coding: Coding) -> None:
    asked = 0

    async def blocks() -> AsyncIterator[bytes]:
        nonlocal asked
        for number in range(5):
            asked += 1
            yield bytes([number]) * 20_000

    decode = decoder(coding)
    number = 0
    async for piece in compress_chunks(blocks(), coding, here):
        if number < 5:
            assert asked == number + 1
            assert decode(piece) == bytes([number]) * 20_000
        number += 1
    assert number == 6


async def test_little_waits_for_more() -> None:
    pieces = [piece async for piece in compress_chunks(of(*[b"ab"] * 1000), GZIP, here)]
    assert len(pieces) == 1
    assert gzip.decompress(pieces[0]) == b"ab" * 1000


async def test_all_work_is_given_away() -> None:
    calls = 0

    async def counting(work: Callable[[], bytes]) -> bytes:
        nonlocal calls
        calls += 1
        return await here(work)

    blocks = of(bytes(20_000), b"x", bytes(20_000))
    assert [piece async for piece in compress_chunks(blocks, ZSTD, counting)]
    assert calls == 4


async def test_what_fails_is_not_ended() -> None:
    async def blocks() -> AsyncIterator[bytes]:
        yield bytes(20_000)
        raise ConnectionResetError

    stream = compress_chunks(blocks(), GZIP, here)
    piece = await anext(stream)
    with pytest.raises(ConnectionResetError):
        await anext(stream)
    with pytest.raises(EOFError):
        gzip.decompress(piece)
