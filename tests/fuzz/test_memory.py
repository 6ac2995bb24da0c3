"""No answer depends on what lies in the memory of the server.

Each question is asked twice in two processes, whose free memory is filled with other bytes: of
every filter, layout and type, of sound streams and damaged ones, in every format. All four answers
are the same.

`ASGIHIVE_FUZZ_ANSWERS` is how many answers the long run compares, `ASGIHIVE_FUZZ_SEED` the first
seed of those that are damaged.
"""

import os
import platform
from pathlib import Path

import pytest

from tests.fuzz import runs
from tests.fuzz.asking import Effort
from tests.fuzz.runs import Report, fuzz
from tests.zoo import streams

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc fills free memory"
)

ANSWERS = int(os.environ.get("ASGIHIVE_FUZZ_ANSWERS", "50000"))
SEED = int(os.environ.get("ASGIHIVE_FUZZ_SEED", "0"))

# Of a file of the long run, each answered twice by two processes.
REQUESTS = 40
ANSWERS_EACH = 4


@pytest.fixture
def root(tmp_path: Path) -> Path:
    streams.build(tmp_path)
    return tmp_path


def _judge(report: Report) -> None:
    print(report)
    assert not report.failures, str(report)
    assert report.statuses["200"] > report.requests // 4


@pytest.mark.slow
def test_of_sound_files(root: Path) -> None:
    count = len(streams.find(root))
    _judge(fuzz(root, 0, count, Effort(requests=6, about="values")))


@pytest.mark.slow
def test_of_damaged_files(root: Path) -> None:
    sound = len(streams.find(root))
    count = -(-ANSWERS // (REQUESTS * ANSWERS_EACH))
    effort = Effort(requests=REQUESTS, about="values")
    report = fuzz(root, 0, min(count, sound), effort, jobs=2)
    if count > sound:
        more = fuzz(root, sound + SEED, count - sound, effort, jobs=2)
        report.add(more)
        report.seconds += more.seconds
    _judge(report)
    # Some have fewer questions than that, or end their process.
    assert report.requests > 0.9 * ANSWERS


@pytest.mark.slow
def test_what_shows_memory_is_found(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "MODULE", "tests.fuzz.leaking")
    names = [each.name for each in streams.find(root)]
    seed = names.index("filter_gzip.h5")
    report = fuzz(root, seed, 1, Effort(requests=60, about="values"))
    failures = "\n".join(report.failures)
    assert "it depends on memory" in failures
    # By a decoder, by an encoder, and by padding.
    asked = f"mutant_{seed}.h5&path="
    assert f"{asked}%2Fintegers&format=bin&selection=" in failures
    assert f"{asked}%2Fintegers&format=npy" in failures
    assert f"{asked}%2Ftable&format=bin&selection=" in failures
    assert f"/stats?file={asked}%2Fintegers" in failures
