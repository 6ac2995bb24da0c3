"""Small NeXus files as beamlines, detectors and reductions write them."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np


def write_nexus(root: Path) -> None:
    """Write one file of each kind."""
    for write in (_write_small_angle, _write_crystal, _write_beamline, _write_old_style):
        with h5py.File(root / f"{write.__name__.removeprefix('_write_')}.nxs", "w") as file:
            write(file)


def _add(parent: h5py.Group, name: str, kind: Any, **attributes: Any) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs.update(NX_class=kind, **attributes)
    return group


def _write_small_angle(file: h5py.File) -> None:
    """As NXcanSAS: text and numbers without dimensions, a curve with its uncertainties."""
    file.attrs["default"] = "sasentry"
    entry = _add(file, "sasentry", "NXentry", canSAS_class="SASentry", default="sasdata")
    entry["definition"] = "NXcanSAS"
    entry["run"] = "27"
    data = _add(entry, "sasdata", "NXdata", signal="I", I_axes="Q", Q_indices=[0])
    data.attrs["axes"] = "Q"
    points = np.linspace(0.01, 0.3, 50)
    data["Q"], data["I"], data["Idev"] = points, points**-4, points**-2
    data["Q"].attrs["units"] = "1/angstrom"
    data["I"].attrs.update(units="1/cm", uncertainties="Idev", scaling_factor=1.0)
    sample = _add(entry, "sassample", "NXsample")
    sample["name"], sample["thickness"] = "AgBehenate", 1.0
    sample["details"] = h5py.Empty("S1")
    _add(entry, "sasnote", "NXnote")


def _write_crystal(file: h5py.File) -> None:
    """As NXmx: a stack, transformations, groups whose class is an array of one text."""
    entry = _add(file, "entry", np.array([b"NXentry"]), default="data")
    data = _add(entry, "data", np.array([b"NXdata"]), signal="data")
    frames = np.random.default_rng(0).poisson(5, (6, 40, 50)).astype("i4")
    data.create_dataset("data", data=frames, chunks=(1, 40, 50), compression="gzip")
    data["data_000001"] = h5py.ExternalLink("master_data_000001.h5", "/data")
    detector = _add(_add(entry, "instrument", "NXinstrument"), "detector", "NXdetector")
    detector["count_time"], detector["flags"] = 0.1, np.array([1, 0, 1], "i1")
    detector["pixel_mask"] = np.zeros((40, 50), "u4")
    detector["saturation_value"] = np.uint64(2**64 - 1)
    detector["is_ready"] = True
    turns = _add(detector, "transformations", "NXtransformations")
    turns["omega"] = np.arange(6) * 0.1
    omega = {"depends_on": ".", "transformation_type": "rotation", "units": "deg"}
    turns["omega"].attrs.update(vector=np.array([1.0, 0.0, 0.0]), **omega)
    frame = np.zeros(3, [("h", "i4"), ("k", "i4"), ("intensity", "f8"), ("name", "S8")])
    entry["reflections"] = frame


def _write_beamline(file: h5py.File) -> None:
    """As a scan: every number is an array of one, and many names lead to the same dataset."""
    entry = _add(file, "entry", b"NXentry", default=b"scan")
    scan = _add(entry, "scan", b"NXdata", signal=b"counts", axes=[b"y", b"x"])
    scan["counts"] = np.random.default_rng(1).normal(100, 5, (8, 12))
    scan["counts"].attrs.update(interpretation=b"image", long_name=b"counts (1/s)")
    scan["x"], scan["y"] = np.linspace(0, 1, 12), np.linspace(0, 1, 8)
    title = file.create_dataset("entry/title", data=np.array([b"a title"]))
    title.attrs["target"] = b"/entry/title"
    entry["energy"] = np.array([710.0])
    entry["energy"].attrs["units"] = b"eV"
    instrument = _add(entry, "instrument", b"NXinstrument")
    instrument["energy"] = entry["energy"]
    instrument["linked"] = h5py.SoftLink("/entry/scan/counts")
    instrument["gone"] = h5py.SoftLink("/entry/no/such")
    empty = _add(entry, "monitor", b"NXmonitor")
    empty.create_dataset("unwritten", (0,), "f8", maxshape=(None,), chunks=(16,))
    spectra = _add(entry, "spectra", b"NXdata", signal=b"spectra", axes=[b".", b"channel"])
    spectra["spectra"], spectra["channel"] = np.arange(60.0).reshape(3, 20), np.arange(20)
    spectra["spectra"].attrs["interpretation"] = b"spectrum"
    complex_ = _add(entry, "waves", b"NXdata", signal=b"wave")
    complex_["wave"] = np.exp(1j * np.linspace(0, 6, 30))


def _write_old_style(file: h5py.File) -> None:
    """As before 2014: the signal and its axes are told by the dataset, and some do not fit."""
    entry = _add(file, "entry1", b"NXentry")
    data = _add(entry, "data", b"NXdata")
    data["counts"] = np.arange(30, dtype="u2").reshape(5, 6)
    data["counts"].attrs.update(signal=np.int32(1), axes=b"angle:time")
    data["angle"], data["time"] = np.arange(5, dtype="f4"), np.arange(6, dtype="f4")
    wrong = _add(entry, "wrong", b"NXdata", signal=b"counts", axes=b"angle")
    wrong["counts"], wrong["angle"] = np.arange(10.0), np.arange(4.0)
    _add(entry, "no_signal", b"NXdata", signal=b"no_such")["other"] = np.arange(3)
