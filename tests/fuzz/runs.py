"""Runs over many seeds, in processes that may crash; the next goes on where one died."""

import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from tests.fuzz.asking import Effort

MODULE = "tests.fuzz.asking"
REPOSITORY = Path(__file__).resolve().parents[2]

# Seconds without a word, after which a process hangs, beside what its requests may take.
PATIENCE = 30.0

# Where bytes are decoded without libhdf5: what crashes there is not its fault.
_OWN_DECODERS = ("codecs.py", "decoders.py", "library_filters.py")


@dataclass(frozen=True, slots=True)
class Death:
    """A process that ended in the middle, had to be ended, or stood still.

    how: `SIGSEGV` and so on; `hung` when it said nothing for too long; that it stood still, when
        libhdf5 took too long for something, while h5py lets no other thread run.
    frames: the innermost Python functions of the thread that crashed.
    """

    seed: int
    source: str
    request: str
    how: str
    frames: tuple[str, ...]

    @property
    def is_ours(self) -> bool:
        """Whether it happened in a decoder, and not in libhdf5."""
        return bool(self.frames) and any(each in self.frames[0] for each in _OWN_DECODERS)

    def __str__(self) -> str:
        # A crash that overwrites the stack leaves none.
        at = "\n      ".join(self.frames or ("no Python frame is known",))
        return f"{self.how}: seed {self.seed} ({self.source}), {self.request}\n      {at}"


@dataclass(slots=True)
class Report:
    """What came of a run.

    Attributes:
        answers: the status and a digest of each, where they are told, by seed and request.
    """

    mutants: int = 0
    requests: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)
    deaths: list[Death] = field(default_factory=list)
    answers: dict[tuple[int, str], list[tuple[int, str]]] = field(default_factory=dict)

    def add(self, other: "Report") -> None:
        """Take over what another part of the run found."""
        self.mutants += other.mutants
        self.requests += other.requests
        self.slowest = max(self.slowest, other.slowest)
        self.statuses.update(other.statuses)
        self.complaints += other.complaints
        self.deaths += other.deaths

    def hear(self, last: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
        """Take down one thing that an `Asker` says; the last request so far.

        Args:
            last: the last request before.
        """
        if "request" in said:
            self.requests += 1
            return said
        if "answer" in said:
            answers = self.answers.setdefault((int(last["seed"]), last["request"]), [])
            answers.append((int(said["status"]), said["answer"]))
        elif "complaint" in said:
            self.complaints.append(_complaint(last, said))
        elif "stalled" in said:
            how = f"held the interpreter for {said['stalled']:.1f} s"
            self.deaths.append(_death(last, how, ()))
        else:
            self.mutants += 1
            self.statuses.update(said["statuses"])
            self.slowest = max(self.slowest, said["seconds"])
        return last

    @property
    def failures(self) -> list[str]:
        """What must not be: answers outside the contract, and crashes of our own."""
        return [*self.complaints, *(str(each) for each in self.deaths if each.is_ours)]

    def __str__(self) -> str:
        statuses = ", ".join(f"{name} {count}" for name, count in self.statuses.most_common())
        lines = [
            f"{self.mutants} damaged files, {self.requests} requests in {self.seconds:.1f} s",
            f"the slowest file took {self.slowest:.2f} s",
            f"answers: {statuses}",
            f"answers outside the contract: {len(self.complaints)}",
            *(f"  - {each}" for each in self.complaints),
            f"crashes, hangs and stalls of the process: {len(self.deaths)}",
            *(f"  - {each}" for each in self.deaths),
        ]
        return "\n".join(lines)


def fuzz(root: Path, first: int, count: int, effort: Effort, jobs: int = 1) -> Report:
    """Ask for the mutants of `count` seeds from `first` on.

    Args:
        root: the zoo; damaged copies come and go there.
        jobs: processes at once.
    """
    began = time.monotonic()
    share = -(-count // jobs)
    parts = [(first + done, min(share, count - done)) for done in range(0, count, share)]
    report = Report()
    with ThreadPoolExecutor(jobs) as threads:
        for found in threads.map(lambda part: _part(root, part, effort), parts):
            report.add(found)
    report.seconds = time.monotonic() - began
    return report


def _part(root: Path, part: tuple[int, int], effort: Effort) -> Report:
    if effort.about == "values":
        return _compared_part(root, part, effort)
    return _followed_part(root, part, effort, {})


def _followed_part(
    root: Path, part: tuple[int, int], effort: Effort, memory: dict[str, str]
) -> Report:
    first, count = part
    report, stop = Report(), first + count
    while first < stop:
        child = _Child(root, first, stop - first, effort, memory)
        first = child.follow(report)
    return report


def _compared_part(root: Path, part: tuple[int, int], effort: Effort) -> Report:
    """The same questions in two processes, whose memory has other bytes in it."""
    one, other = (_followed_part(root, part, effort, _poisoned(byte)) for byte in _POISONS)
    complaints = [f"it depends on memory: {each}" for each in _differences(one, other)]
    one.add(other)
    one.complaints += complaints
    return one


# What free memory is filled with; what is allocated, with the complement.
_POISONS = (0x55, 0x3C)


def _poisoned(byte: int) -> dict[str, str]:
    """The environment of a process whose memory is never what was there before (mallopt(3)).

    What a thread frees and gets again at once is not filled, and CPython has a heap of its own
    for small objects: without both.
    """
    return {
        "MALLOC_PERTURB_": str(byte),
        "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",
        "PYTHONMALLOC": "malloc",
    }


def _differences(one: "Report", other: "Report") -> Iterator[str]:
    """Questions that were not answered the same way all four times."""
    for key, answers in one.answers.items():
        found = {*answers, *other.answers.get(key, answers)}
        # Of what takes too long, or more memory than there is, nothing can be compared.
        if len(found) > 1 and not {status for status, _ in found} & _INCOMPARABLE:
            seed, request = key
            yield f"seed {seed}, {request} gave {sorted(found)}"


_INCOMPARABLE = {0, 503, 504}


class _Child:
    """One process, followed until it is done or dead."""

    def __init__(
        self, root: Path, first: int, count: int, effort: Effort, memory: dict[str, str]
    ) -> None:
        arguments = (str(root), str(first), str(count), *effort.arguments)
        self._command = [sys.executable, "-m", MODULE, *arguments]
        self._environment = os.environ | memory
        self._first = first
        self._stop = first + count
        self._patience = PATIENCE + 2 * effort.patience

    def follow(self, report: Report) -> int:
        """Add what it says to `report`; the seed that is next."""
        last: dict[str, Any] = {"seed": self._first, "source": "", "request": "the start"}
        with subprocess.Popen(
            self._command,
            cwd=REPOSITORY,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            stderr = _Drain(process.stderr)
            watch = _Watch(process, self._patience)
            for said in _documents(process.stdout):
                watch.heard()
                last = report.hear(last, said)
            watch.end()
            process.wait()
            text = stderr.text()
        if process.returncode == 0:
            return self._stop
        how = "hung" if watch.has_killed else _signal(process.returncode)
        report.mutants += 1
        report.deaths.append(_death(last, how, _frames(text)))
        if last["request"] == "the start" or (process.returncode > 0 and not watch.has_killed):
            raise RuntimeError(f"The process that asks failed by itself:\n{text}")
        return int(last["seed"]) + 1


class _Watch:
    """Kills a process that says nothing for too long."""

    def __init__(self, process: subprocess.Popen[bytes], patience: float) -> None:
        self.has_killed = False
        self._process = process
        self._patience = patience
        self._heard = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def heard(self) -> None:
        self._heard = time.monotonic()

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(1.0):
            if time.monotonic() - self._heard > self._patience:
                self.has_killed = True
                self._process.kill()
                return


class _Drain:
    """Reads what a process says on stderr while it runs, so that it never waits for that."""

    def __init__(self, stream: Any) -> None:
        self._lines: list[bytes] = []
        self._thread = threading.Thread(target=lambda: self._lines.extend(stream))
        self._thread.start()

    def text(self) -> str:
        self._thread.join()
        return b"".join(self._lines[-400:]).decode("utf-8", "replace")


def _documents(stream: Any) -> Iterator[dict[str, Any]]:
    for line in stream:
        # libhdf5 sometimes prints on the standard output, too, and a death cuts a line off.
        if line.startswith(b"{") and line.endswith(b"}\n"):
            yield orjson.loads(line)


def _complaint(asked: dict[str, Any], said: dict[str, Any]) -> str:
    details = "\n      ".join(str(said["details"]).strip().splitlines()[-6:])
    return (
        f"{said['complaint']}: seed {asked['seed']} ({asked['source']}), {asked['request']}\n"
        f"      {'; '.join(said['damages'])}\n      {details}"
    )


def _death(asked: dict[str, Any], how: str, frames: tuple[str, ...]) -> Death:
    return Death(asked["seed"], asked["source"], asked["request"], how, frames)


def _signal(returncode: int) -> str:
    names = {-11: "SIGSEGV", -6: "SIGABRT", -7: "SIGBUS", -8: "SIGFPE", -4: "SIGILL"}
    return names.get(returncode, f"exit code {returncode}")


def _frames(text: str) -> tuple[str, ...]:
    """The innermost frames of the thread that crashed, as `faulthandler` wrote them."""
    _, found, after = text.partition("Current thread")
    frames = re.findall(r'File "(.*?)", line (\d+) in (\S+)', after) if found else []
    return tuple(f"{Path(file).name}:{line} {name}" for file, line, name in frames[:4])
