"""Sample files that show what the service can read: small, NeXus-like, the same every time."""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import h5py
import numpy as np

from asgihive.service.parameters import VIEW_PREFIX

MAIN_FILE = "demo.nxs"
SCAN_FILES = ("scan_1.h5", "scan_2.h5")
DETECTOR_FILE = "detector.h5"

_FRAMES, _ROWS, _COLUMNS = 20, 128, 192
_POINTS = 201
_SEED = 20240501


def write_demo(directory: str | os.PathLike[str]) -> None:
    """Write the sample files into an existing directory, over files of the same names.

    `demo.nxs` holds images, line scans, a wave, a sample, other types and links; it links
    to `detector.h5` and shows `scan_1.h5` and `scan_2.h5` as one virtual dataset. Every
    group has an `NX_class`, and defaults lead to the images. The values are the same in
    every call; the files are smaller than 3 MB together.

    Raises:
        OSError: a file cannot be written.
    """
    root, random = Path(directory), np.random.default_rng(_SEED)
    for number, name in enumerate(SCAN_FILES):
        with h5py.File(root / name, "w") as file:
            _write_scan(_entry(file, default="scan"), random, peak=8.9 + 0.15 * number)
    with h5py.File(root / DETECTOR_FILE, "w") as file:
        _write_detector(_entry(file, default="detector"), random)
    with h5py.File(root / MAIN_FILE, "w") as file:
        entry = _entry(file, default="images")
        entry["title"] = "Sample data of asgihive"
        entry["start_time"] = "2024-05-01T12:00:00+02:00"
        _write_images(entry, random)
        _write_scan(entry, random, peak=9.0)
        _write_both_scans(entry)
        _write_wave(entry)
        _write_sample(entry)
        _write_types(entry)
        _write_links(entry)


def _group(parent: Any, name: str, nx_class: str, **attributes: Any) -> Any:
    group = parent.create_group(name)
    group.attrs.update({"NX_class": nx_class, **attributes})
    return group


def _dataset(parent: Any, name: str, data: Any, units: str = "", **options: Any) -> Any:
    dataset = parent.create_dataset(name, data=data, **options)
    if units:
        dataset.attrs["units"] = units
    return dataset


def _entry(file: Any, default: str) -> Any:
    file.attrs.update({"NX_class": "NXroot", "default": "entry"})
    return _group(file, "entry", "NXentry", default=default)


def _write_images(entry: Any, random: np.random.Generator) -> None:
    """Write a spot that wanders over a noisy detector, one compressed frame a chunk."""
    group = _group(entry, "images", "NXdata", signal="data", axes=["time", "y", "x"])
    time = np.arange(_FRAMES) * 0.1
    y = np.linspace(-4.8, 4.8, _ROWS)
    x = np.linspace(-7.2, 7.2, _COLUMNS)
    angle = (2 * np.pi * time / time[-1])[:, None, None]
    distance = (x - 4 * np.cos(angle)) ** 2 + (y[:, None] - 2.5 * np.sin(angle)) ** 2
    images = random.poisson(2 + 400 * np.exp(-distance)).astype(np.uint16)
    data = _dataset(
        group,
        "data",
        images,
        units="counts",
        chunks=(1, _ROWS, _COLUMNS),
        compression="gzip",
        shuffle=True,
    )
    data.attrs.update({"interpretation": "image", "long_name": "Detector counts"})
    _dataset(group, "time", time, units="s")
    _dataset(group, "y", y, units="mm")
    _dataset(group, "x", x, units="mm")


def _write_scan(entry: Any, random: np.random.Generator, peak: float) -> None:
    """Write an absorption edge with errors and a monitor."""
    group = _group(
        entry,
        "scan",
        "NXdata",
        signal="intensity",
        auxiliary_signals=["monitor"],
        axes=["energy"],
        title="Energy scan",
    )
    energy = np.linspace(8.5, 9.5, _POINTS)
    intensity = random.poisson(1000 + 4000 / (1 + np.exp((peak - energy) * 60))).astype(float)
    _dataset(group, "energy", energy, units="keV")
    _dataset(group, "intensity", intensity, units="counts")
    _dataset(group, "intensity_errors", np.sqrt(intensity), units="counts")
    _dataset(group, "monitor", random.normal(4500, 20, _POINTS), units="counts")


def _write_both_scans(entry: Any) -> None:
    """Write the two scan files as the rows of one virtual dataset."""
    group = _group(entry, "both_scans", "NXdata", signal="intensity", axes=["scan", "energy"])
    layout = h5py.VirtualLayout((len(SCAN_FILES), _POINTS), np.float64)
    for row, name in enumerate(SCAN_FILES):
        layout[row] = h5py.VirtualSource(name, "/entry/scan/intensity", (_POINTS,))
    intensity = group.create_virtual_dataset("intensity", layout, fillvalue=np.nan)
    intensity.attrs.update({"units": "counts", "interpretation": "spectrum"})
    group["scan"] = np.arange(1, len(SCAN_FILES) + 1)
    group["energy"] = h5py.SoftLink("/entry/scan/energy")


def _write_wave(entry: Any) -> None:
    """Write a complex image: amplitude and phase of a vortex beam."""
    group = _group(entry, "wave", "NXdata", signal="field", axes=["y", "x"])
    y, x = np.linspace(-3, 3, 96), np.linspace(-4, 4, 128)
    plane = x + 1j * y[:, None]
    field = _dataset(
        group, "field", (plane * np.exp(-(np.abs(plane) ** 2) / 2)).astype(np.complex64)
    )
    field.attrs["interpretation"] = "image"
    _dataset(group, "y", y, units="um")
    _dataset(group, "x", x, units="um")


def _write_sample(entry: Any) -> None:
    group = _group(entry, "sample", "NXsample")
    group["name"] = "Kupferfolie, 5 µm"
    group["chemical_formula"] = np.bytes_("Cu")
    _dataset(group, "temperature", 293.15, units="K")


def _write_types(entry: Any) -> None:
    """Write one dataset for each kind of value that is not a plain array of numbers."""
    group = _group(entry, "types", "NXcollection")
    peaks = np.array(
        [(111, 43.30, True), (200, 50.43, True), (220, 74.13, False)],
        dtype=[("hkl", np.int32), ("two_theta", np.float64), ("fitted", np.bool_)],
    )
    _dataset(group, "table", peaks)
    _dataset(group, "fixed_strings", np.array([b"open", b"closed"], dtype="S8"))
    _dataset(group, "vlen_strings", ["short", "a good deal longer"], dtype=h5py.string_dtype())
    _dataset(group, "utf8_strings", ["Ångström", "温度", "λ/2"], dtype=h5py.string_dtype())
    _dataset(group, "booleans", np.array([True, False, True]))
    shutter = h5py.enum_dtype({"CLOSED": 0, "OPENING": 1, "OPEN": 2}, basetype=np.uint8)
    _dataset(group, "enum", np.array([0, 1, 2, 2, 0], np.uint8), dtype=shutter)
    sequences = group.create_dataset("sequences", (2,), h5py.vlen_dtype(np.int32))
    sequences[0], sequences[1] = [1, 2, 3], [4]
    _dataset(group, "scalar", 42)
    _dataset(group, "empty", h5py.Empty(np.float32))
    group["named_type"] = np.dtype(np.float64)


def _write_links(entry: Any) -> None:
    group = _group(entry, "links", "NXcollection")
    group["soft"] = h5py.SoftLink("/entry/images/data")
    group["hard"] = entry["scan/intensity"]
    group["external"] = h5py.ExternalLink(DETECTOR_FILE, "/entry/detector")


def _write_detector(entry: Any, random: np.random.Generator) -> None:
    """Write a detector's mask and its flat field, for the external link."""
    group = _group(entry, "detector", "NXdata", signal="flat_field", axes=["y", "x"])
    flat = random.normal(1, 0.02, (_ROWS, _COLUMNS)).astype(np.float32)
    _dataset(group, "flat_field", flat).attrs["interpretation"] = "image"
    _dataset(group, "mask", random.random(flat.shape) < 0.002, compression="gzip")
    _dataset(group, "y", np.arange(_ROWS), units="pixel")
    _dataset(group, "x", np.arange(_COLUMNS), units="pixel")


_IMAGES = "/entry/images/data"
# Requests to try: a purpose, a route, its parameters, a file to save to.
_REQUESTS: tuple[tuple[str, str, dict[str, str], str], ...] = (
    ("metadata", "/meta", {"path": "/entry"}, ""),
    ("attributes", "/attr", {"path": _IMAGES}, ""),
    ("part of an image", "/data", {"path": _IMAGES, "selection": "0,60:64,140:148"}, ""),
    (
        "an image for NumPy",
        "/data",
        {"path": _IMAGES, "selection": "5", "format": "npy"},
        "image.npy",
    ),
    ("a scan as CSV", "/data", {"path": "/entry/scan/intensity", "format": "csv"}, "scan.csv"),
    ("statistics", "/stats", {"path": _IMAGES}, ""),
    ("all paths", "/paths", {"path": "/"}, ""),
    ("another file, over an external link", "/meta", {"path": "/entry/links/external"}, ""),
)


def make_page_url(base: str) -> str:
    """Return the URL of the page that shows the main sample file."""
    return f"{base}{VIEW_PREFIX}?{urlencode({'file': MAIN_FILE})}"


def list_invitations(base: str, *, has_page: bool) -> Iterator[str]:
    """Yield lines for people: URLs to open in a browser, then commands to paste into a shell.

    Args:
        base: the URL of the service over the sample files, without a slash at its end.
        has_page: whether there is a page that shows them.
    """
    if has_page:
        yield f"\nSee them in a browser:\n  {make_page_url(base)}"
    urls = [
        f"{base}{route}?{urlencode({'file': MAIN_FILE, **parameters}, safe='/:,')}"
        for _, route, parameters, _ in _REQUESTS
    ]
    yield "\nAsk for parts of them, in a browser, too:"
    for url, (_, _, _, saved_as) in zip(urls, _REQUESTS, strict=True):
        if not saved_as:
            yield f"  {url}"
    yield "\nOr paste into a shell:"
    for url, (purpose, _, _, saved_as) in zip(urls, _REQUESTS, strict=True):
        save = f"-o {shlex.quote(saved_as)} " if saved_as else ""
        yield f"  {purpose}:\n    curl -sS {save}{shlex.quote(url)}"
