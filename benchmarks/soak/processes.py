"""The service under load, as the operating system sees it: memory, descriptors, threads."""

import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a process."""

    seconds: float
    memory_bytes: float
    descriptors: float
    threads: float


@dataclass(frozen=True, slots=True)
class Trend:
    """How a number went over a time.

    first, last: averages of the first and the last quarter.
    per_minute: the slope of the line that fits best.
    """

    first: float
    last: float
    per_minute: float
    minutes: float

    @property
    def growth(self) -> float:
        """Return the growth over the whole time, along that line."""
        return self.per_minute * self.minutes


def trend(points: Sequence[tuple[float, float]]) -> Trend:
    """Compute the trend of (seconds, value), at least two of them, by least squares."""
    times, values = zip(*points, strict=True)
    middle, mean = sum(times) / len(times), sum(values) / len(values)
    spread = sum((each - middle) ** 2 for each in times)
    slope = sum((t - middle) * (v - mean) for t, v in points) / spread
    quarter = max(1, len(values) // 4)
    return Trend(
        first=sum(values[:quarter]) / quarter,
        last=sum(values[-quarter:]) / quarter,
        per_minute=60 * slope,
        minutes=(times[-1] - times[0]) / 60,
    )


def sample(pid: int, began: float) -> Sample | None:
    """Look at a process (proc(5)); None when it is gone."""
    folder = Path(f"/proc/{pid}")
    try:
        resident = int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        descriptors = len(list((folder / "fd").iterdir()))
        threads = len(list((folder / "task").iterdir()))
    except OSError:
        return None
    return Sample(time.monotonic() - began, resident, descriptors, threads)


def workers(pid: int) -> list[int]:
    """Return the worker processes of `asgihive serve`, which `multiprocessing` spawned."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in children if b"spawn_main" in _command_line(each)]


def open_below(pid: int, root: Path) -> list[str]:
    """Return the files of a directory that a process has open."""
    found = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(each.readlink())
        except FileNotFoundError:  # closed meanwhile
            continue
        if target.startswith(f"{root}/"):
            found.append(target)
    return found


def _command_line(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


@dataclass(slots=True)
class Watch:
    """Samples of every worker there was, and the kills.

    pid: of the server.
    """

    pid: int
    began: float
    samples: dict[int, list[Sample]] = field(default_factory=dict)

    def run(self, every_seconds: float, over: threading.Event) -> None:
        """Look at the workers until it is over."""
        while not over.wait(every_seconds):
            for pid in workers(self.pid):
                found = sample(pid, self.began)
                if found is not None:
                    self.samples.setdefault(pid, []).append(found)

    def kill_one(self, seed: int) -> int:
        """Kill a worker, which the server has to replace; its process id."""
        found = workers(self.pid)
        killed = found[seed % len(found)]
        os.kill(killed, signal.SIGKILL)
        return killed

    def since(self, seconds: float) -> dict[int, list[Sample]]:
        """Return the samples after a time, of those that live now."""
        alive = set(workers(self.pid))
        return {
            pid: [each for each in samples if each.seconds >= seconds]
            for pid, samples in self.samples.items()
            if pid in alive
        }
