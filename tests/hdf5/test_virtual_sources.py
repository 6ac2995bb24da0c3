"""The files that the values of a dataset come from, known before the values are read."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from asgihive.concurrency import run_at_once
from asgihive.errors import SourceRefused
from asgihive.hdf5.plan import parse_selection
from asgihive.hdf5.virtual_sources import MAX_SEARCHED_SOURCES, search_sources
from tests.hdf5.serving import dataset_of


def names(depends: dict[str, object]) -> dict[str, bool]:
    """File name → whether it is there."""
    return {Path(path).name: identity is not None for path, identity in depends.items()}


def virtual(root: Path, name: str, sources: int, of: str = "source{}.h5", path: str = "x") -> None:
    layout = h5py.VirtualLayout((sources, 3), "<i4")
    for number in range(sources):
        layout[number] = h5py.VirtualSource(of.format(number), path, (3,))
    with h5py.File(root / name, "w") as file:
        file.create_virtual_dataset("x", layout)


def known(root: Path, file: str, selection: str | None = None) -> dict[str, bool] | None:
    """What the lease depends on, if that is all."""
    with dataset_of(root, file, "x") as (lease, dataset):
        axes = parse_selection(selection, dataset.shape or ()).axes
        found = run_at_once(search_sources(lease, dataset, axes))
        return names(dict(lease.depends)) if found.depends_on_all else None


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(4):
        with h5py.File(tmp_path / f"source{number}.h5", "w") as file:
            file["x"] = np.arange(3, dtype="<i4")
    return tmp_path


def test_plain_values_are_of_their_own_file(root: Path) -> None:
    assert known(root, "source0.h5") == {"source0.h5": True}


def test_the_sources_of_a_virtual_dataset(root: Path) -> None:
    virtual(root, "v.h5", 4)
    everything = {"v.h5": True} | {f"source{number}.h5": True for number in range(4)}
    assert known(root, "v.h5") == everything
    assert known(root, "v.h5", "1") == {"v.h5": True, "source1.h5": True}


def test_a_source_that_is_missing_takes_part(root: Path) -> None:
    virtual(root, "v.h5", 5)
    found = known(root, "v.h5", "3:")
    assert found == {"v.h5": True, "source3.h5": True, "source4.h5": False}


def test_a_source_behind_a_link(root: Path) -> None:
    for number in range(2):
        with h5py.File(root / f"link{number}.h5", "w") as file:
            file["x"] = h5py.ExternalLink(f"source{number}.h5", "/x")
    virtual(root, "v.h5", 2, "link{}.h5")
    assert set(known(root, "v.h5") or ()) == {
        "v.h5",
        *(f"link{number}.h5" for number in range(2)),
        *(f"source{number}.h5" for number in range(2)),
    }


def test_sources_that_are_virtual_themselves_are_not_known(root: Path) -> None:
    virtual(root, "inner.h5", 1)
    with h5py.File(root / "outer.h5", "w") as file:
        layout = h5py.VirtualLayout((1, 3), "<i4")
        layout[...] = h5py.VirtualSource("inner.h5", "x", (1, 3))
        file.create_virtual_dataset("x", layout)
    assert known(root, "outer.h5") is None


def test_external_raw_storage_is_not_known(root: Path) -> None:
    with h5py.File(root / "raw.h5", "w") as file:
        file.create_dataset("x", (3,), "<i4", external=[(str(root / "raw.bin"), 0, 12)])
    assert known(root, "raw.h5") is None
    virtual(root, "v.h5", 1, "raw.h5")
    assert known(root, "v.h5") is None


def test_too_many_sources_are_not_known(root: Path) -> None:
    virtual(root, "v.h5", MAX_SEARCHED_SOURCES + 1)
    assert known(root, "v.h5", f":{MAX_SEARCHED_SOURCES}") is not None
    assert known(root, "v.h5") is None


def test_a_source_that_is_mapped_many_times_is_one(root: Path) -> None:
    """As detectors write them: a mapping for each frame."""
    virtual(root, "frames.h5", 500, "source0.h5")
    assert known(root, "frames.h5") == {"frames.h5": True, "source0.h5": True}


def test_a_source_of_a_type_that_numpy_does_not_know(root: Path) -> None:
    with h5py.File(root / "strange.h5", "w") as file:
        time = h5py.h5t.UNIX_D32LE
        h5py.h5d.create(file.id, b"x", time, h5py.h5s.create_simple((3,)))
    virtual(root, "v.h5", 1, "strange.h5")
    with pytest.raises(SourceRefused):
        known(root, "v.h5")
