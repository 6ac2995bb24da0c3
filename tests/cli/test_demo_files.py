"""The sample files: what they promise, read back with h5py."""

import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from asgihive.cli.demo_files import DETECTOR_FILE, MAIN_FILE, SCAN_FILES, write_demo


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory: Path = tmp_path_factory.mktemp("demo")
    write_demo(directory)
    return directory


@pytest.fixture
def entry(directory: Path) -> Iterator[Any]:
    with h5py.File(directory / MAIN_FILE) as file:
        yield file["entry"]


def test_writes_four_files_below_3_megabytes(directory: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in directory.iterdir()}
    assert set(sizes) == {MAIN_FILE, DETECTOR_FILE, *SCAN_FILES}
    assert sum(sizes.values()) < 3_000_000


def test_takes_less_than_a_second(tmp_path: Path) -> None:
    begun = time.process_time()
    write_demo(tmp_path)
    assert time.process_time() - begun < 1


def values(path: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}

    def collect(name: str, entity: Any) -> None:
        if isinstance(entity, h5py.Dataset):
            found[name] = entity.dtype.str.encode() + pickle.dumps(entity[()])

    with h5py.File(path) as file:
        file.visititems(collect)
    return found


def test_writes_the_same_values_every_time_and_over_older_files(
    directory: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        write_demo(tmp_path)
        for path in directory.iterdir():
            assert values(tmp_path / path.name) == values(path)


def test_every_group_says_its_class(directory: Path) -> None:
    for path in directory.iterdir():
        with h5py.File(path) as file:
            groups = [file]
            file.visititems(
                lambda _, entity, groups=groups: (
                    groups.append(entity) if isinstance(entity, h5py.Group) else None
                )
            )
            assert len(groups) >= 3
            assert all(group.attrs["NX_class"].startswith("NX") for group in groups)


def test_every_plot_has_its_signal_and_fitting_axes(directory: Path) -> None:
    plots = 0
    for path in directory.iterdir():
        with h5py.File(path) as file:
            for group in file["entry"].values():
                if not isinstance(group, h5py.Group) or group.attrs["NX_class"] != "NXdata":
                    continue
                signal = group[group.attrs["signal"]]
                assert tuple(group[axis].size for axis in group.attrs["axes"]) == signal.shape
                plots += 1
    assert plots == 7


def test_defaults_lead_to_a_plot(directory: Path) -> None:
    for path in directory.iterdir():
        with h5py.File(path) as file:
            entry = file[file.attrs["default"]]
            assert entry[entry.attrs["default"]].attrs["NX_class"] == "NXdata"


def test_images_are_chunked_by_frame_and_compressed(entry: Any) -> None:
    images = entry["images/data"]
    assert images.dtype == np.uint16
    assert images.chunks == (1, *images.shape[1:])
    assert (images.compression, images.shuffle) == ("gzip", True)
    assert images.attrs["interpretation"] == "image"
    assert images.attrs["units"] == "counts"
    peaks = [np.unravel_index(frame.argmax(), frame.shape) for frame in images]
    assert len(set(peaks)) > len(images) // 2  # the spot moves


def test_the_scan_has_errors(entry: Any) -> None:
    scan = entry["scan"]
    np.testing.assert_array_equal(scan["intensity_errors"], np.sqrt(scan["intensity"]))
    assert scan["energy"].attrs["units"] == "keV"


def test_the_virtual_dataset_shows_both_scan_files(entry: Any, directory: Path) -> None:
    both = entry["both_scans/intensity"]
    assert both.is_virtual
    for row, name in enumerate(SCAN_FILES):
        with h5py.File(directory / name) as file:
            np.testing.assert_array_equal(both[row], file["entry/scan/intensity"])
    assert not np.array_equal(both[0], both[1])


def test_links_of_every_kind_resolve(entry: Any) -> None:
    links = entry["links"]
    kinds = {name: type(links.get(name, getlink=True)) for name in links}
    assert kinds == {
        "soft": h5py.SoftLink,
        "hard": h5py.HardLink,
        "external": h5py.ExternalLink,
    }
    assert links["soft"] == entry["images/data"]
    assert links["hard"] == entry["scan/intensity"]
    assert Path(links["external"].file.filename).name == DETECTOR_FILE


def test_types_beyond_plain_numbers(entry: Any) -> None:
    types = entry["types"]
    assert types["table"].dtype.names == ("hkl", "two_theta", "fitted")
    assert h5py.check_string_dtype(types["fixed_strings"].dtype).length == 8
    assert h5py.check_string_dtype(types["vlen_strings"].dtype).length is None
    assert types["utf8_strings"].asstr()[0] == "Ångström"
    assert types["booleans"].dtype == np.bool_
    assert h5py.check_enum_dtype(types["enum"].dtype) == {"CLOSED": 0, "OPENING": 1, "OPEN": 2}
    assert [list(row) for row in types["sequences"]] == [[1, 2, 3], [4]]
    assert types["scalar"].shape == ()
    assert types["empty"].shape is None
    assert isinstance(types["named_type"], h5py.Datatype)
    assert np.iscomplexobj(entry["wave/field"])
