"""Numbers as text: how fast they are encoded."""

from benchmarks import rate, verify
from benchmarks.kinds import arrays
from benchmarks.question import H5GROVE

QUESTION = rate.RateQuestion(
    name="json_1m",
    asks="`/data` of 1 M float64 as JSON, 1,024 rows anywhere in tables of 64 MiB",
    make=arrays.million_numbers,
    target_of=rate.numbers,
    check=verify.check_json_values,
    targets={H5GROVE: None},
)
