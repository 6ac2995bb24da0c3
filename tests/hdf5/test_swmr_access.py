"""Files under SWMR, whole or not, are read in bounded time.

libhdf5 sleeps longer and longer before it reads metadata again whose checksum is wrong, and
holds the interpreter meanwhile: what hangs would hang these tests, so it is asked elsewhere.
"""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from asgihive.errors import FileBeingWritten
from asgihive.hdf5 import swmr
from asgihive.hdf5.pool import Lease
from tests.fuzz.checksums import checked, repair
from tests.hdf5.serving import pool_of

PATIENCE = 60.0

_READ = """
import sys
from pathlib import Path
from asgihive.errors import AsgihiveError
from asgihive.hdf5.links import LinkResolution, walk
from asgihive.hdf5.links import list_paths
from asgihive.hdf5.pool import Lease
from asgihive.concurrency import run_at_once
from tests.hdf5.serving import pool_of

lease, only_valid = Lease(pool_of(Path(sys.argv[1]))), LinkResolution.ONLY_VALID
try:
    found = walk(lease, lease.open_asked("x.h5"), "/many", only_valid)
    print(len(run_at_once(list_paths(lease, found, only_valid, 100))))
except AsgihiveError as error:
    print(type(error).__name__)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """One that keeps its links in a fractal heap and a B-tree, which have checksums."""
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver="latest") as file:
        for index in range(40):
            file[f"many/member_{index}"] = np.arange(3)
    return path


def _read(root: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _READ, str(root)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return done.stdout.strip()


def _damage(file: Path, *, is_written: bool) -> None:
    """Break the heap of links; `is_written` as if a SWMR writer had the file open."""
    content = bytearray(file.read_bytes())
    structures = checked(bytes(content))
    if is_written:
        content[11] = 0x05
        repair(content, structures)
    [heap] = [each for each in structures if content[each.start : each.start + 4] == b"FRHP"]
    content[heap.start + 20] ^= 0xFF
    file.write_bytes(content)


def test_a_file_that_is_cut_off_is_not_readable(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert _read(file.parent) == "FileUnreadable"


@pytest.mark.parametrize("is_written", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_wrong_checksum_is_damage_soon(file: Path, is_written: bool) -> None:
    assert _read(file.parent) == "41"
    _damage(file, is_written=is_written)
    assert _read(file.parent) == "FileUnreadable"


def test_what_is_written_is_told_by_its_superblock(file: Path) -> None:
    with file.open("rb") as opened:
        assert not swmr.seems_written(opened.fileno())
    with h5py.File(file, "r+", libver="latest") as writing:
        writing.swmr_mode = True
        with file.open("rb") as opened:
            assert swmr.seems_written(opened.fileno())


def test_where_attempts_cannot_be_bounded_live_files_are_not_read(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swmr, "find_in_libhdf5", lambda *_: None)
    pool = pool_of(file.parent)
    Lease(pool).open_asked("x.h5").close()
    with h5py.File(file, "r+", libver="latest") as writing:
        writing.swmr_mode = True
        with pytest.raises(FileBeingWritten):
            Lease(pool).open_asked("x.h5")
