"""What a load needs: cores, replicas, memory and network, out of the rates in RESULTS.md.

python -m benchmarks.model [--requests 500] [--hits 0.8] [--cores 4]

The load shares the cores with the server where the rates were measured, so an answer costs a server
rather less than it says here. What is measured on a machine with other work costs more.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.rate import REQUESTS
from benchmarks.results import RESULTS, Cells, parse_table
from benchmarks.servers import SUBJECT

MEASURED_CORES = 2
"""Of the machine of RESULTS.md."""

BUSY = 0.7
"""The part of the cores that is planned with: the rest is for what comes at the same moment."""

REPLICA_MIB = 940
"""With the default settings (docs/operation.md, Memory)."""

KIB, MIB = 1 << 10, 1 << 20

BYTES = {
    "meta_small": 4 * KIB,
    "data_16k": 16 * KIB,
    "data_4m": 4 * MIB,
    "gzip_frames": 2 * MIB,
    "gzip_frames_cached": 2 * MIB,
    "bitshuffle_lz4_frames": 2 * MIB,
    "zstd_frames": 2 * MIB,
    "zarr_stored": MIB // 2,
}
"""Of an answer, by question."""

_SMALL = "data_16k"


@dataclass(frozen=True, slots=True)
class Cost:
    """What one answer takes.

    Args:
        seconds: of a core.
        bytes: sent.
        python_seconds: of the one core that runs Python in a process.
    """

    question: str
    seconds: float
    bytes: int
    python_seconds: float


@dataclass(frozen=True, slots=True)
class Need:
    """What a load takes.

    Args:
        cores: of the replicas, all of them busy.
        replicas: of one process each, with a reserve, `BUSY`.
        inner: bytes a second from the replicas to nginx.
        outer: bytes a second to the clients.
        memory: of the replicas, in MiB.
    """

    cores: float
    replicas: int
    inner: float
    outer: float
    memory: int


def list_costs(table: Sequence[Cells]) -> list[Cost]:
    """Return those of the questions in `BYTES` that have a row."""
    rates = {
        row["question"]: float(row[SUBJECT].removesuffix("/s").replace(",", ""))
        for row in table
        if row["figure"] == REQUESTS and row["question"] in BYTES
    }
    # All of a small answer is Python, on one core, while the load has the other one.
    python = 1 / rates[_SMALL] if _SMALL in rates else 0.0
    return [
        Cost(name, MEASURED_CORES / rates[name], BYTES[name], min(python, 1 / rates[name]))
        for name in BYTES
        if name in rates
    ]


def estimate(cost: Cost, requests: float, hits: float, cores: int) -> Need:
    """Return what a load needs.

    Args:
        cost: of one answer.
        requests: a second, of all clients.
        hits: the part of them that nginx's cache answers, 0 to 1.
        cores: of one replica.
    """
    asked = requests * (1 - hits)
    busy = asked * cost.seconds
    by_python = asked * cost.python_seconds / BUSY
    replicas = max(1, math.ceil(busy / (BUSY * cores)), math.ceil(by_python))
    sent = float(cost.bytes)
    return Need(busy, replicas, asked * sent, requests * sent, replicas * REPLICA_MIB)


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.model", description=__doc__)
    parser.add_argument("--requests", type=float, default=500, help="a second (%(default)s)")
    parser.add_argument("--hits", type=float, default=0.0, help="by nginx, 0 to 1 (%(default)s)")
    parser.add_argument("--cores", type=int, default=4, help="of a replica (%(default)s)")
    given = parser.parse_args()
    if not (given.requests > 0 and 0 <= given.hits <= 1 and given.cores > 0):
        parser.error("--requests and --cores are above 0, --hits is from 0 to 1")
    print("| answers | core ms each | cores | replicas | MiB/s inside | MiB/s outside |")
    print("| :--- | ---: | ---: | ---: | ---: | ---: |")
    for cost in list_costs(parse_table(RESULTS.read_text(encoding="utf-8"))):
        need = estimate(cost, given.requests, given.hits, given.cores)
        print(
            f"| {cost.question} | {cost.seconds * 1e3:.2f} | {need.cores:.1f} | {need.replicas} "
            f"| {need.inner / MIB:.0f} | {need.outer / MIB:.0f} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
