"""Small answers: what a request costs beside its values."""

from benchmarks import rate, verify
from benchmarks.kinds import arrays
from benchmarks.question import CEILING_SERVER, H5GROVE, HDF5_SERVERS, Target

QUESTION = rate.RateQuestion(
    name="data_16k",
    asks="`/data` of 400 contiguous datasets of 16 KiB as bin, at random",
    make=arrays.contiguous_16k,
    target_of=rate.values,
    check=verify.check_bytes,
    targets={H5GROVE: Target(ratio=8)},
    servers={**HDF5_SERVERS, **CEILING_SERVER},
)
