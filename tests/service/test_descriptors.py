"""Fewer file descriptors than `max_open_files` needs, and none left."""

import json
import logging
import resource
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from asgihive.hdf5.sandbox import fit_open_files, is_exhaustion

MANY = 60

_SERVE = """
import json, os, resource, sys, threading
from pathlib import Path
import anyio
from asgihive.service import H5App
from asgihive.settings import H5Settings
from tests.zoo.client import client

root, limit, left = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
files = sorted(each.name for each in root.glob("*.h5"))
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

async def main():
    app = H5App(root, H5Settings(max_open_files=len(files), answer_cache_bytes=0))
    seen = {}
    async with client(app) as asker:
        await asker.get("/meta", params={"file": files[0]})
        pool, taken = app.store.pool, []
        for round in range(2):
            for name in files:
                for route in ("meta", "file", "data"):
                    answer = await asker.get("/" + route, params={"file": name, "path": "/x"})
                    seen.setdefault(answer.status_code, []).append(answer.text[:200])
                    assert answer.status_code != 503 or answer.headers["retry-after"]
            # From now on there is room for so many further descriptors.
            while left >= 0 and not taken:
                try:
                    while True:
                        taken.append(os.open("/dev/null", os.O_RDONLY))
                except OSError:
                    for _ in range(left):
                        os.close(taken.pop())
        listed = await asker.get("/files")
        seen.setdefault(listed.status_code, []).append(listed.text[:200])
    print(json.dumps({"max_open": pool.max_open, "seen": seen}))

anyio.run(main)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("many")
    for number in range(MANY):
        with h5py.File(root / f"{number}.h5", "w") as file:
            file["x"] = number
    return root


def serve(root: Path, limit: int, left: int = -1) -> tuple[int, dict[str, list[str]], str]:
    """The size of the pool, the answers by status, and what was logged."""
    command = [sys.executable, "-c", _SERVE, str(root), str(limit), str(left)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    return said["max_open"], said["seen"], done.stderr


@pytest.mark.slow
def test_a_pool_that_fits_answers_all(root: Path) -> None:
    max_open, seen, log = serve(root, 100)
    assert 1 <= max_open < MANY
    assert set(seen) == {"200"}
    assert log.count("max_open_files is") == 1
    assert len(log.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "left", [0, *(pytest.param(left, marks=pytest.mark.slow) for left in (1, 3))]
)
def test_when_none_is_left_idle_files_are_closed(root: Path, left: int) -> None:
    """Never is a sound file called damaged."""
    _, seen, _ = serve(root, 100, left)
    assert set(seen) <= {"200", "503"}, {status: seen[status][:3] for status in seen}
    assert all("ask again later" in each for each in seen.get("503", ()))
    if left >= 3:
        assert set(seen) == {"200"}


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The soft and the hard limit, and what they are set to."""
    states = [(1024, 1024)]
    monkeypatch.setattr(resource, "getrlimit", lambda which: states[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda which, pair: states.append(pair))
    return states


@pytest.mark.parametrize(
    ("before", "wanted", "fitting", "raised"),
    [
        ((1024, 1024), 128, 128, []),
        ((256, 4096), 128, 128, [(640, 4096)]),
        ((256, resource.RLIM_INFINITY), 1000, 1000, [(3256, resource.RLIM_INFINITY)]),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), 10**6, 10**6, []),
        ((1024, 1024), 1000, 256, [(1024, 1024)]),
        ((64, 1024), 1000, 256, [(1024, 1024)]),
        ((64, 64), 128, 10, [(64, 64)]),
        ((4, 4), 128, 1, [(4, 4)]),
    ],
)
def test_the_limit_is_raised_or_the_pool_is_made_smaller(
    limits: list[tuple[int, int]],
    caplog: pytest.LogCaptureFixture,
    *,
    before: tuple[int, int],
    wanted: int,
    fitting: int,
    raised: list[tuple[int, int]],
) -> None:
    limits[:] = [before]
    with caplog.at_level(logging.WARNING):
        assert fit_open_files(wanted) == fitting
    assert limits[1:] == raised
    assert len(caplog.records) == (fitting != wanted)


def test_a_system_that_refuses_the_raise(
    limits: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(which: int, pair: tuple[int, int]) -> None:
        raise ValueError(which, pair)

    limits[:] = [(256, resource.RLIM_INFINITY)]
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert fit_open_files(1000) == 42


def test_how_libhdf5_says_it() -> None:
    assert is_exhaustion(OSError(24, "Too many open files"))
    assert is_exhaustion(OSError("(unable to open file: name = 'x', errno = 24, error message"))
    assert not is_exhaustion(OSError("(unable to open file: name = 'x', errno = 2, error message"))
    assert not is_exhaustion(KeyError("x"))
