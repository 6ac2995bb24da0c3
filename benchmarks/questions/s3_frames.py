"""Frames of files in an object store: how fast, and for how many requests and bytes of it."""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks import rate, verify
from benchmarks.kinds import frames
from benchmarks.peers.s3 import ServerOverS3
from benchmarks.question import Figure, Target, Turn
from benchmarks.servers import SUBJECT, Server

S3FS, WITHOUT_CACHE = "h5py over s3fs", "h5py over s3fs, no cache"
GETS, SENT = "GETs a frame", "from the store, a frame"

_COUNTED = 48

_STORES = {
    SUBJECT: ServerOverS3("asgihive"),
    S3FS: ServerOverS3("s3fs_h5py"),
    WITHOUT_CACHE: ServerOverS3("s3fs_h5py", {"BENCHMARK_S3FS_CACHE": "none"}),
}


@dataclass(slots=True, kw_only=True)
class _S3Question(rate.RateQuestion):
    """A `RateQuestion` that also counts what servers ask their stores for, a frame after another.

    Each file is open by then: that takes more.
    """

    @property
    def figures(self) -> tuple[Figure, ...]:
        counted = [
            Figure(name=name, unit=unit, better="lower", target=target, peer=peer)
            for name, unit, target in ((GETS, "", Target(below=1.01)), (SENT, "MiB", None))
            for peer in self.targets
        ]
        return (*rate.RateQuestion.figures.__get__(self), *counted)

    def measure(self, server: Server, turn: Turn) -> Mapping[str, float]:
        if turn.number:
            return rate.RateQuestion.measure(self, server, turn)
        store, requests = _STORES[server.name], self._requests(server, self._places)
        for request in requests[:: frames.LONG_FRAMES]:
            server.answer(request)
        asked = random.Random(turn.number).sample(requests, _COUNTED)
        before = store.count()
        for request in asked:
            server.answer(request)
        after = store.count()
        counted = {
            GETS: (after.requests - before.requests) / len(asked),
            SENT: (after.sent - before.sent) / len(asked) / (1 << 20),
        }
        return {**rate.RateQuestion.measure(self, server, turn), **counted}


QUESTION = _S3Question(
    name="s3_frames",
    asks="`/data` of 512 gzip+shuffle frames 1024x1024 uint16 in 2 files over `s3://` as bin, at "
    "random, chunk cache off",
    make=frames.long_stacks,
    target_of=rate.values,
    check=verify.check_bytes,
    targets={S3FS: Target(ratio=3), WITHOUT_CACHE: None},
    servers=_STORES,
    environment={"ASGIHIVE_CHUNK_CACHE_BYTES": "0"},
    probed=False,
)
