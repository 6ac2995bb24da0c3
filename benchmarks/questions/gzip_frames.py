"""Compressed frames: decoding on all cores beside decoding under h5py's lock."""

from benchmarks import data, rate, verify

QUESTION = rate.RateQuestion(
    name="gzip_frames",
    asks="`/data` of 64 gzip+shuffle frames 1024x1024 uint16 as bin, at random, chunk cache off",
    make=data.gzip_frames,
    target_of=rate.values,
    check=verify.same_bytes,
    # The 128 MiB of frames would all fit into the cache, and only that would be measured.
    environment={"ASGIHIVE_CHUNK_CACHE_BYTES": "0"},
)
