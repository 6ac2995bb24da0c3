"""Frames that need no decoding: how often bytes are copied on their way out."""

from collections.abc import Sequence

from benchmarks import rate, verify
from benchmarks.data import DataFolder, Place
from benchmarks.kinds import frames
from benchmarks.peers import hsds, nginx, tiled
from benchmarks.question import H5GROVE, HDF5_SERVERS, Target


def _frames(data: DataFolder) -> Sequence[Place]:
    places = frames.contiguous_4m(data)
    nginx.write_files(data, places)
    return places


QUESTION = rate.RateQuestion(
    name="data_4m",
    asks="`/data` of 64 contiguous frames of 4 MiB in 4 files as bin, at random; nginx sends "
    "the same bytes from plain files",
    make=_frames,
    target_of=rate.values,
    check=verify.check_bytes,
    targets={
        H5GROVE: Target(ratio=2.5),
        nginx.NAME: Target(ratio=0.7),
        tiled.NAME: None,
        hsds.NAME: None,
    },
    servers={
        **HDF5_SERVERS,
        nginx.NAME: nginx.launch,
        tiled.NAME: tiled.serving("contiguous_4m"),
        hsds.NAME: hsds.serving("contiguous_4m"),
    },
    asked={
        nginx.NAME: nginx.requests,
        tiled.NAME: tiled.requests,
        hsds.NAME: hsds.requests,
    },
)
