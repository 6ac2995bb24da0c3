"""Names that HDF5 allows and URLs, JSON and shells do not like."""

from pathlib import Path

import h5py
import numpy as np

ODD_NAMES = (
    "sp ace",
    " leading and trailing ",
    ".hidden",
    "..",
    "...",
    "äöü",
    "e\u0301 combining",
    "🎉",
    "日本語",
    "100%",
    "%41",
    "%2F",
    "a&b=c",
    "a?b",
    "a#b",
    "a+b",
    "a;b",
    '"quoted"',
    "it's",
    "back\\slash",
    "<script>",
    "new\nline",
    "carriage\rreturn",
    "tab\t",
    "\x01control",
    "\u2028",
    "x" * 10_000,
)
FILE_NAME = "odd name é 🎉 % & # ?.h5"


FILES = ("names.h5", FILE_NAME)


def write(root: Path) -> None:
    for name in FILES:
        with h5py.File(root / name, "w") as file:
            for index, odd in enumerate(ODD_NAMES):
                group = file.create_group(f"groups/{odd}")
                group["child"] = index
                group.attrs[odd] = index
                file[f"datasets/{odd}"] = np.arange(index + 1)
            file["datasets"].attrs["."] = 1
