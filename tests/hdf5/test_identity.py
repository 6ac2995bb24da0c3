"""Identities of files: when a further change is certain to show."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgihive.hdf5 import sandbox
from asgihive.hdf5.sandbox import Identity, StatGuard

FINE, COARSE = 20_000_000, 2_000_000_000
STAMP = 1_700_000_000_123_456_789


@pytest.fixture(autouse=True)
def real_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "FINE_TICK_NS", FINE)


def stamped(ctime_ns: int, mtime_ns: int | None = None) -> Identity:
    return Identity(1, 2, 3, ctime_ns if mtime_ns is None else mtime_ns, ctime_ns)


@pytest.mark.parametrize(
    ("age", "seconds"),
    [
        (0, 0.02),
        (FINE // 2, 0.01),
        (FINE, 0),
        (10 * FINE, 0),
        (-FINE, 0.04),
        (-FINE - 1, -1.0),
        (-(10**12), -1.0),
    ],
)
def test_fine_stamps(age: int, seconds: float) -> None:
    assert stamped(STAMP).settles_in(STAMP + age) == pytest.approx(seconds)


def test_stamps_of_whole_seconds_tick_slowly() -> None:
    second = STAMP - STAMP % 1_000_000_000
    assert stamped(second).settles_in(second) == pytest.approx(COARSE / 1e9)
    assert stamped(second).settles_in(second + COARSE) == 0
    # A program set the modification time; the clock itself is fine.
    assert stamped(STAMP, second).settles_in(STAMP + FINE) == 0


@given(st.integers(0, 2**62), st.integers(-(10**10), 10**10))
def test_waiting_as_long_as_told_is_enough(ctime_ns: int, age: int) -> None:
    seconds = stamped(ctime_ns).settles_in(ctime_ns + age)
    if seconds > 0:
        later = ctime_ns + age + round(seconds * 1e9) + 1_000
        assert stamped(ctime_ns).settles_in(later) == 0


def test_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"abc")
    found = StatGuard().find_identity(str(file))
    assert found is not None
    assert found == Identity.of(os.stat(file))
    assert found.size == 3
    file.write_bytes(b"abcd")
    assert StatGuard().find_identity(str(file)) != found
    assert StatGuard().find_identity(str(tmp_path / "absent")) is None
    assert StatGuard().find_identity(str(file / "beneath")) is None
