"""Compressed frames: decoding on all cores beside decoding under h5py's lock."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from benchmarks import rate, verify
from benchmarks.data import DataFolder, Place
from benchmarks.kinds import frames
from benchmarks.peers import decoders, hsds, tiled
from benchmarks.question import H5GROVE, HDF5_SERVERS, Target
from benchmarks.servers import Launch, without_server

# The 128 MiB of frames would all fit into the cache, and only that would be measured.
CACHE_OFF = {"ASGIHIVE_CHUNK_CACHE_BYTES": "0"}


def _question(
    kind: str,
    filters: str,
    make: Callable[[DataFolder], Sequence[Place]],
    ratio: float,
    others: Mapping[str, tuple[Launch, rate.Requests]],
) -> rate.RateQuestion:
    return rate.RateQuestion(
        name=kind,
        asks=f"`/data` of 64 {filters} frames 1024x1024 uint16 as bin, at random, chunk cache "
        "off; the decoders alone, without HTTP, on the same cores",
        make=make,
        target_of=rate.values,
        check=verify.same_bytes,
        targets={
            H5GROVE: Target(ratio=ratio),
            decoders.NAME: Target(ratio=0.7),
            **dict.fromkeys(others),
        },
        servers={
            **HDF5_SERVERS,
            decoders.NAME: without_server,
            **{name: launch for name, (launch, _) in others.items()},
        },
        asked={name: requests for name, (_, requests) in others.items()},
        without_http={decoders.NAME: decoders},
        environment=CACHE_OFF,
    )


_OTHERS = {
    tiled.NAME: (tiled.serving("gzip_frames"), tiled.requests),
    hsds.NAME: (hsds.serving("gzip_frames"), hsds.requests),
}

GZIP = _question("gzip_frames", "gzip+shuffle", frames.gzip_frames, 4, _OTHERS)
BITSHUFFLE = _question(
    "bitshuffle_lz4_frames", "bitshuffle-LZ4", frames.bitshuffle_lz4_frames, 3, {}
)
ZSTD = _question("zstd_frames", "zstd", frames.zstd_frames, 3, {})
CACHED = replace(
    GZIP,
    name="gzip_frames_cached",
    asks="the same gzip+shuffle frames, chunk cache on",
    targets={H5GROVE: Target(ratio=10)},
    servers=HDF5_SERVERS,
    environment={},
)
