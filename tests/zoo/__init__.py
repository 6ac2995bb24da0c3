"""HDF5 files of every kind that h5py can write, small, built anew for a test session."""

from pathlib import Path

from tests.zoo import awkward, formats, layouts, links, names, type_classes

# What h5py reads completely, relative to the served directory; `awkward.FILE` is the rest.
FILES = (
    *type_classes.FILES,
    *layouts.FILES,
    *links.FILES,
    *names.FILES,
    *formats.FILES,
)


def build(root: Path) -> None:
    """Write the whole zoo below `root`, which must exist and be empty."""
    for room in (type_classes, layouts, links, names, formats, awkward):
        room.write(root)
