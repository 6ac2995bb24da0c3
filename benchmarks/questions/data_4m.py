"""Frames that need no decoding: how often bytes are copied on their way out."""

from benchmarks import data, rate, verify
from benchmarks.question import Target

QUESTION = rate.RateQuestion(
    name="data_4m",
    asks="`/data` of 64 contiguous frames of 4 MiB in 4 files as bin, at random",
    make=data.contiguous_4m,
    target_of=rate.values,
    check=verify.same_bytes,
    target=Target(ratio=2),
)
