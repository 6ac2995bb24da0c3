"""From what was seen to the tables and the verdict: pure functions, tested alone."""

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.soak.clients import Record, Tally
from benchmarks.soak.processes import Sample, Trend, trend

# What a process may have more at the end of the watched time, by what the line says: a cache that
# fills up late; the connections of all clients, which the operating system hands to one worker or
# the other, and some open files. What is leaked with each request is soon thousands.
MOST_GROWTH = {"memory MiB": 24 << 20, "descriptors": 12, "threads": 4}

# Memory is what was needed at once so far, which rises in steps for some minutes, the more rarely
# the later. A shorter time says nothing of it but what it is.
MEMORY_MINUTES = 4.0
MOST_MEMORY_BYTES = 640 << 20

_SCALE = {"memory MiB": 1 << 20, "descriptors": 1, "threads": 1}
_FEWEST_SAMPLES = 8
_SHOWN = 20


def render_answers(record: Record) -> str:
    """Return a line for each kind of request."""
    header = ("request", "count", "outcomes", "median", "99 %", "longest")
    lines = [header, *(_answers_line(kind, tally) for kind, tally in record.tallies.items())]
    return _aligned(lines)


def render_processes(samples: Mapping[int, Sequence[Sample]]) -> str:
    """Render memory, descriptors and threads of each worker, and how they went."""
    header = ("worker", "figure", "first quarter", "last quarter", "per minute")
    lines: list[tuple[str, ...]] = [header]
    for pid, seen in samples.items():
        for name, each in _trends(seen).items():
            scale = _SCALE[name]
            numbers = (each.first / scale, each.last / scale, each.per_minute / scale)
            lines.append((str(pid), name, *(f"{number:.2f}" for number in numbers)))
    return _aligned(lines)


def problems(
    record: Record, samples: Mapping[int, Sequence[Sample]], left_open: Sequence[str]
) -> list[str]:
    """List what went wrong; nothing when all is well."""
    found = [*record.wrong[:_SHOWN]]
    if len(record.wrong) > _SHOWN:
        found.append(f"and {len(record.wrong) - _SHOWN} more wrong answers")
    if not record.tallies:
        found.append("nothing was asked")
    for pid, seen in samples.items():
        if len(seen) < _FEWEST_SAMPLES:
            found.append(f"worker {pid} was seen {len(seen)} times: the run is too short")
            continue
        found += [f"worker {pid}: {each}" for each in _growing(seen)]
    found += [f"still open at the end: {each}" for each in left_open]
    return found


def _growing(seen: Sequence[Sample]) -> list[str]:
    found = []
    most = max(each.memory_bytes for each in seen)
    if most > MOST_MEMORY_BYTES:
        found.append(f"memory is up to {most / 2**20:.0f} MiB")
    for name, each in _trends(seen).items():
        is_known = name != "memory MiB" or each.minutes >= MEMORY_MINUTES
        if is_known and each.growth > MOST_GROWTH[name]:
            found.append(f"{name} grow by {each.per_minute / _SCALE[name]:.2f} a minute")
    return found


def _trends(seen: Sequence[Sample]) -> dict[str, Trend]:
    if len(seen) < 2:
        return {}
    return {
        "memory MiB": trend([(each.seconds, each.memory_bytes) for each in seen]),
        "descriptors": trend([(each.seconds, each.descriptors) for each in seen]),
        "threads": trend([(each.seconds, each.threads) for each in seen]),
    }


def _answers_line(kind: str, tally: Tally) -> tuple[str, ...]:
    outcomes = ", ".join(f"{count} x {name}" for name, count in tally.outcomes.most_common())
    # One is its own median, and its own everything.
    cuts = statistics.quantiles([*tally.seconds, tally.seconds[-1]], n=100)
    times = (cuts[49], cuts[98], max(tally.seconds))
    count = f"{len(tally.seconds):,}"
    return (kind, count, outcomes, *(f"{1000 * each:.1f} ms" for each in times))


def _aligned(lines: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
