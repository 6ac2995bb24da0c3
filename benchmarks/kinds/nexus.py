"""Small files as instruments write them by the NeXus standard, and what a viewer opens in them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from benchmarks.data import DataFolder, Place

SESSIONS = 6
"""Sets of files: one for each turn of a full run, so that every request is new, and the last
for verification."""
FILES = 15
"""Of each session."""
ENTITIES = 40
"""Opened in each file."""

_SIZE = 2048
_UNITS = ("mm", "deg", "keV", "K", "mbar", "A", "s", "counts")


def make_nexus_files(data: DataFolder) -> Sequence[Sequence[Place]]:
    """Make the files and return the root of each, by session."""

    def write(folder: Path, random: np.random.Generator) -> None:
        for session in range(SESSIONS):
            for index in range(FILES):
                with h5py.File(folder / f"{session}_{index}.nxs", "w") as file:
                    _write_file(file, random, index)

    data.require("nexus", write)
    return [
        [Place(f"nexus/{session}_{index}.nxs", "/") for index in range(FILES)]
        for session in range(SESSIONS)
    ]


def _write_file(file: h5py.File, random: np.random.Generator, index: int) -> None:
    """Fill a file of one scan; the groups of NXdata differ in number from file to file."""
    file.attrs["default"] = "entry"
    file.attrs["file_time"] = "2026-07-01T12:00:00+02:00"
    entry = _make_group(file, "entry", "NXentry", {"default": "data_0"})
    for name, text in (("title", f"Scan {index}"), ("start_time", "2026-07-01T12:00:00+02:00")):
        _write_dataset(entry, name, text)
    _write_dataset(entry, "definition", np.bytes_("NXscan"))
    _write_dataset(entry, "duration", random.uniform(1, 100), units="s")
    instrument = _make_group(entry, "instrument", "NXinstrument")
    for number in range(4):
        name = f"motor_{number}"
        motor = _make_group(instrument, name, "NXpositioner", {"target": number})
        _write_dataset(motor, "name", f"Motor {number} of beamline {index}")
        _write_dataset(motor, "value", random.standard_normal(), units=_UNITS[number])
        positions = random.standard_normal(128)
        _write_dataset(motor, "positions", positions, units=_UNITS[number])
    detector = _make_group(instrument, "detector", "NXdetector", {"distance": 0.25})
    _write_dataset(detector, "type", np.bytes_("pixel"))
    _write_dataset(detector, "threshold", np.float32(random.uniform(4, 12)), units="keV")
    _write_dataset(detector, "mask", np.zeros((16, 16), np.uint8))
    sample = _make_group(entry, "sample", "NXsample")
    _write_dataset(sample, "name", f"sample {index}")
    _write_dataset(sample, "temperature", random.uniform(4, 300, 64), units="K")
    for number in range(3 + index % 3):
        signal = {"signal": "counts", "axes": np.array(["x"], h5py.string_dtype())}
        group = _make_group(entry, f"data_{number}", "NXdata", signal)
        _write_dataset(group, "x", np.linspace(0, 1, _SIZE))
        counts = random.poisson(50, _SIZE).astype(np.int32)
        chunked = {"chunks": (512,), "compression": "gzip"}
        _write_dataset(group, "counts", counts, units="counts", filters=chunked)
        _write_dataset(group, "monitor", random.standard_normal(_SIZE, np.float32))
        _write_dataset(group, "frame_count", np.int64(_SIZE))


def _make_group(
    parent: h5py.Group,
    name: str,
    nexus_class: str,
    attributes: Mapping[str, object] | None = None,
) -> h5py.Group:
    group = parent.create_group(name)
    # Writers of NeXus store it in both forms.
    fixed = len(group.name) % 2 == 0
    group.attrs["NX_class"] = np.bytes_(nexus_class) if fixed else nexus_class
    for key, value in (attributes or {}).items():
        group.attrs[key] = value
    return group


def _write_dataset(
    group: h5py.Group,
    name: str,
    values: object,
    *,
    units: str = "",
    filters: Mapping[str, object] | None = None,
) -> None:
    dataset = group.create_dataset(name, data=values, **(filters or {}))
    dataset.attrs["long_name"] = f"{name} of {group.name}"
    dataset.attrs["index"] = len(group)
    if units:
        dataset.attrs["units"] = units
