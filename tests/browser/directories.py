"""Directories of files for the tests of the list of files."""

import os
from pathlib import Path

import h5py
import numpy as np

ODD_NAMES = (
    b"a b.h5",
    b"hash#1.h5",
    b"what?.h5",
    b"100%.h5",
    b"percent%20.h5",
    b"plus+and&=.h5",
    b"quote'\".h5",
    b"new\nline.h5",
    "R\N{LATIN SMALL LETTER O WITH DIAERESIS}ntgen.h5".encode(),
    b"latin\xe9\xff.h5",
)
"""What a careless reader of URLs takes for something else; the last is not UTF-8."""


def write_image(path: Path | bytes, value: int = 0) -> None:
    """Write a NeXus file whose default is an image, and a dataset `value`."""
    with h5py.File(path, "w") as file:
        file.attrs["default"] = "entry"
        entry = file.create_group("entry")
        entry.attrs.update(NX_class="NXentry", default="data")
        data = entry.create_group("data")
        data.attrs.update(NX_class="NXdata", signal="image")
        data["image"] = np.add.outer(np.arange(40), np.arange(60)) * (value + 1)
        file["value"] = value


def write_many(root: Path, count: int) -> None:
    """Make a directory of so many files, which are all the same one."""
    write_image(root / "scan_00000.h5")
    for index in range(1, count):
        os.link(root / "scan_00000.h5", root / f"scan_{index:05d}.h5")


def write_odd_names(root: Path) -> None:
    """Write a file of each of `ODD_NAMES`, with its place among them as `value`."""
    for value, name in enumerate(ODD_NAMES):
        write_image(os.fsencode(root) + b"/" + name, value)
