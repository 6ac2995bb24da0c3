"""Selections that cut chunks: only what they touch is to be read, and only that copied."""

from benchmarks import rate, verify
from benchmarks.kinds import arrays
from benchmarks.question import H5GROVE
from benchmarks.questions.frames import CACHE_OFF

SLAB = rate.RateQuestion(
    name="slab",
    asks="slabs of 8x512x512 uint16 anywhere in a volume of gzip+shuffle chunks of 8x128x128, "
    "chunk cache off",
    make=arrays.slabs,
    target_of=rate.values,
    check=verify.check_bytes,
    targets={H5GROVE: None},
    environment=CACHE_OFF,
)

STRIDED = rate.RateQuestion(
    name="strided",
    asks="every fourth value, in each dimension, of boxes of 64x128x128 of that volume, "
    "chunk cache off",
    make=arrays.strided,
    target_of=rate.values,
    check=verify.check_bytes,
    targets={H5GROVE: None},
    environment=CACHE_OFF,
)
