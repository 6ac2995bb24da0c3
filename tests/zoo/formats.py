"""The same content in every version and variant of the file format."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

MANY = 40


_VARIANTS: dict[str, dict[str, Any]] = {
    "earliest.h5": {"libver": "earliest"},
    "latest.h5": {"libver": "latest"},
    "v108.h5": {"libver": ("v108", "v108")},
    "user_block.h5": {"userblock_size": 1024},
    "paged.h5": {"fs_strategy": "page", "fs_page_size": 4096},
    "no_extension": {},
    "nexus.nxs": {"track_order": True},
}
FILES = tuple(_VARIANTS)


def write(root: Path) -> None:
    for name, options in _VARIANTS.items():
        with h5py.File(root / name, "w", **options) as file:
            _content(file, dense=name in {"latest.h5", "v108.h5"})
        if "userblock_size" in options:
            with (root / name).open("r+b") as raw:
                raw.write(b"#!/bin/sh\n")


def _content(file: h5py.File, *, dense: bool) -> None:
    file["contiguous"] = np.arange(10, dtype="<f4")
    file.create_dataset(
        "chunked", data=np.arange(30).reshape(5, 6), chunks=(2, 4), compression="gzip"
    )
    file.create_dataset("growing", data=np.arange(9), maxshape=(None,), chunks=(2,))
    file.create_dataset("growing_2d", data=np.eye(5), maxshape=(None, None), chunks=(2, 2))
    file.create_dataset("one_chunk", data=np.arange(9), chunks=(9,))
    ordered = file.create_group("ordered", track_order=True)
    for name in ("zebra", "apple", "mango"):
        ordered[name] = 1
        ordered.attrs[name] = 1
    many = file.create_group("many")
    for index in range(MANY):
        many.create_group(f"member_{index}")
    file["link"] = h5py.SoftLink("/many/member_7")
    crowded = file.create_group("crowded")
    for index in range(60):
        # An object header holds 64 KiB; dense storage, which newer formats have, holds more.
        crowded.attrs[f"attribute_{index:02}"] = np.arange(400 if dense else 40)
