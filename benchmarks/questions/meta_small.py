"""Metadata of small groups, many of them, again and again: what a file tree asks for."""

from benchmarks import rate, verify
from benchmarks.kinds import groups
from benchmarks.question import CEILING_SERVER, H5GROVE, HDF5_SERVERS, Target

QUESTION = rate.RateQuestion(
    name="meta_small",
    asks="`/meta` of 200 groups of 5 datasets with 3 attributes each, at random",
    make=groups.small_groups,
    target_of=rate.metadata,
    check=verify.check_metadata,
    targets={H5GROVE: Target(ratio=15)},
    servers={**HDF5_SERVERS, **CEILING_SERVER},
)
