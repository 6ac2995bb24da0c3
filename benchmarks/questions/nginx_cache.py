"""The nginx site of examples/deployment with a warm cache, beside a replica that is asked itself.

The replica keeps nothing, as where what is asked for is more than its memory: nginx's cache is on
a disk, and holds it.
"""

import importlib
from collections.abc import Callable

from benchmarks import rate, verify
from benchmarks.client import BenchmarkError
from benchmarks.data import DataFolder, Place
from benchmarks.kinds import arrays, frames
from benchmarks.peers import nginx_site
from benchmarks.question import Target
from benchmarks.servers import SUBJECT, on_uvicorn
from benchmarks.verify import Asked

ALONE = "a replica"

NOTHING_KEPT = {
    "ASGIHIVE_CHUNK_CACHE_BYTES": "0",
    "ASGIHIVE_ZARR_CACHE_BYTES": "0",
}


def _make_chunk_target(place: Place) -> str:
    (frame,) = place.selection
    return f"/zarr/{place.file}{place.path}/c/{frame}/0/0"


def _check_chunk(asked: Asked, data: DataFolder, place: Place) -> None:
    blosc2 = importlib.import_module("blosc2")  # other questions need it not
    expected = data.read(place).tobytes()
    for server, request in asked:
        if blosc2.decompress(server.answer(request)) != expected:
            raise BenchmarkError(f"{server.name}: wrong values for {place}")


def _question(
    name: str,
    asks: str,
    target_of: Callable[[Place], str],
    check: verify.Check,
) -> rate.RateQuestion:
    return rate.RateQuestion(
        name=name,
        asks=f"{asks}, nothing kept by the replica; by nginx with a warm cache, and of the replica",
        make=frames.gzip_frames,
        target_of=target_of,
        check=check,
        targets={ALONE: Target(ratio=5)},
        servers={SUBJECT: nginx_site.before_replicas(1), ALONE: on_uvicorn("asgihive")},
        environment=NOTHING_KEPT,
        probed=False,
    )


DATA = _question(
    "nginx_cache_data", "64 gzip+shuffle frames 1024x1024 uint16 as bin", rate.values,
    verify.check_bytes,
)  # fmt: skip
ZARR = _question(
    "nginx_cache_zarr", "the same frames as chunks of Zarr", _make_chunk_target, _check_chunk
)
SMALL = rate.RateQuestion(
    name="nginx_cache_16k",
    asks="`/data` of 400 contiguous datasets of 16 KiB as bin, by nginx with a warm cache, and of "
    "the replica",
    make=arrays.contiguous_16k,
    target_of=rate.values,
    check=verify.check_bytes,
    targets={ALONE: None},
    servers={SUBJECT: nginx_site.before_replicas(1), ALONE: on_uvicorn("asgihive")},
    probed=False,
)
