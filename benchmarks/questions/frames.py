"""Compressed frames: decoding on all cores beside decoding under h5py's lock.

A server decodes a frame and sends it, on the cores that the load uses too. So it cannot be faster
than both in series: 1 / (1/decoders + 1/sending), where decoding is that of the decoders alone,
and sending that of the same bytes by nginx from plain files, or by asgihive from contiguous
datasets: the faster of the two.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from benchmarks import rate, verify
from benchmarks.client import make_request
from benchmarks.data import DataFolder, Place
from benchmarks.kinds import frames
from benchmarks.peers import decoders, hsds, nginx, tiled
from benchmarks.question import H5GROVE, HDF5_SERVERS, Target
from benchmarks.servers import SUBJECT, Launch, Server, on_uvicorn, without_server

# The 128 MiB of frames would all fit into the cache, and only that would be measured.
CACHE_OFF = {"ASGIHIVE_CHUNK_CACHE_BYTES": "0"}


IN_SERIES = "in series"
_PLAIN = "contiguous"


def _plain_requests(_server: Server, places: Sequence[Place]) -> Sequence[bytes]:
    return [make_request(rate.values(frames.locate_plain_frame(place))) for place in places]


def _question(
    kind: str,
    filters: str,
    make: Callable[[DataFolder], Sequence[Place]],
    ratio: float,
    others: Mapping[str, tuple[Launch, rate.Requests]],
) -> rate.RateQuestion:
    def make_all(data: DataFolder) -> Sequence[Place]:
        places = make(data)
        frames.write_plain_frames(data, places)
        data.bring_to_memory(map(frames.locate_plain_frame, places))
        nginx.write_files(data, places)
        return places

    return rate.RateQuestion(
        name=kind,
        asks=f"`/data` of 64 {filters} frames 1024x1024 uint16 as bin, at random, chunk cache "
        "off; in series: the decoders alone, then the same bytes sent without decoding",
        make=make_all,
        target_of=rate.values,
        check=verify.check_bytes,
        targets={
            H5GROVE: Target(ratio=ratio),
            IN_SERIES: Target(ratio=0.85),
            **dict.fromkeys(others),
        },
        servers={
            **HDF5_SERVERS,
            decoders.NAME: without_server,
            nginx.NAME: nginx.launch,
            _PLAIN: on_uvicorn(SUBJECT),
            **{name: launch for name, (launch, _) in others.items()},
        },
        asked={
            nginx.NAME: nginx.requests,
            _PLAIN: _plain_requests,
            **{name: requests for name, (_, requests) in others.items()},
        },
        stages={IN_SERIES: ((decoders.NAME,), (nginx.NAME, _PLAIN))},
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
    make=frames.gzip_frames,
    targets={H5GROVE: Target(ratio=10)},
    servers=HDF5_SERVERS,
    stages={},
    environment={},
)
