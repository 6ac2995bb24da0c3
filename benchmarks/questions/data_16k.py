"""Small answers: what a request costs beside its values."""

from benchmarks import data, rate, verify
from benchmarks.question import CEILING_SERVER, HDF5_SERVERS, Target

QUESTION = rate.RateQuestion(
    name="data_16k",
    asks="`/data` of 400 contiguous datasets of 16 KiB as bin, at random",
    make=data.contiguous_16k,
    target_of=rate.values,
    check=verify.same_bytes,
    target=Target(ratio=4),
    servers={**HDF5_SERVERS, **CEILING_SERVER},
)
