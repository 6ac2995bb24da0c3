"""Which leading part of a URL is a file of the served directory."""

import os
from pathlib import Path

import pytest

from asgihive.errors import FileForbidden, NeedsThread
from asgihive.hdf5.sandbox import Identity, Sandbox, StatGuard


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "served"
    (root / "dir.h5" / "below").mkdir(parents=True)
    for name in ("a.nc", "dir.h5/b.h5", "dir.h5/below/c", "d.zarr", "e.nc", "e.nc.zarr", ".zarr"):
        (root / name).write_bytes(name.encode())
    (root / "folder").mkdir()
    (root / "link").symlink_to("dir.h5")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "fifo")
    (root / os.fsdecode(b"\xff.h5")).write_bytes(b"")
    return root


def find(root: Path, path: str) -> tuple[str, int] | None:
    found = Sandbox(root).find_leading_file(path.split("/"), ".zarr", StatGuard())
    if found is None:
        return None
    name, count, identity = found
    assert identity == Identity.of((root / name).stat())
    return name, count


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.nc", ("a.nc", 1)),
        ("a.nc/t/c/0", ("a.nc", 1)),
        ("a.nc.zarr/t/c/0", ("a.nc", 1)),
        ("a.nc//zarr.json", ("a.nc", 1)),
        ("./a.nc/zarr.json", ("a.nc", 2)),
        ("dir.h5/b.h5/zarr.json", ("dir.h5/b.h5", 2)),
        ("dir.h5//./b.h5.zarr/zarr.json", ("dir.h5/b.h5", 4)),
        ("dir.h5/below/c/c/0", ("dir.h5/below/c", 3)),
        ("link/b.h5/x", ("link/b.h5", 2)),
        # A file of the very name wins.
        ("d.zarr/x", ("d.zarr", 1)),
        ("e.nc.zarr/x", ("e.nc.zarr", 1)),
        (".zarr/x", (".zarr", 1)),
        ("\udcff.h5/x", ("\udcff.h5", 1)),
        *((each, None) for each in ("", "/", ".", "no.nc/x", "dir.h5", "dir.h5/no", "dir.h5.zarr")),
        *((each, None) for each in ("d/x", "folder.zarr/a", "dir.h5/.zarr", "loop/x", "fifo/x")),
        *((each, None) for each in ("a\0.nc/x", "x" * 300 + "/y", "d/" * 60_000)),
    ],
)
def test_the_file(root: Path, path: str, expected: tuple[str, int] | None) -> None:
    assert find(root, path) == expected


def test_a_directory_that_may_not_be_searched(root: Path) -> None:
    class Refusing(StatGuard):
        def ask(self, question: object, argument: object) -> None:  # type: ignore[override]
            raise PermissionError

    with pytest.raises(FileForbidden):
        Sandbox(root).find_leading_file(["a.nc"], ".zarr", Refusing())


def test_a_slow_file_system_is_asked_in_a_thread(root: Path) -> None:
    class Slow(StatGuard):
        def ask(self, question: object, argument: object) -> None:  # type: ignore[override]
            raise NeedsThread

    with pytest.raises(NeedsThread):
        Sandbox(root).find_leading_file(["a.nc"], ".zarr", Slow())
