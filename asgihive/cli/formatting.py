"""How the commands tell names, sizes, types and tables, whatever bytes a file has in them."""

import textwrap
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from h5py import h5t

from asgihive.hdf5.inspection import LinkReport

# Bounds of what a terminal is shown, in characters, since a name in a file may have any length.
LONGEST_LINE, LONGEST_NAME = 1000, 60

# Titles of columns of numbers, which end below each other.
_NUMBERS = frozenset(("chunks", "stored", "raw", "ratio", "offset", "bytes"))


def join_dimensions(shape: Sequence[int | None]) -> str:
    """Return a shape for people."""
    return " x ".join("unlimited" if extent is None else str(extent) for extent in shape)


def describe_type_briefly(described: dict[str, Any]) -> str:
    """Return a type, described as `/meta` does, in a few words."""

    size = f"({described['size']} bytes)"
    dtype = described.get("dtype")
    match described["class"]:
        case h5t.STRING:
            shown = "string (variable)" if described["vlen"] else f"string {size}"
        # h5py's complex numbers are compounds.
        case h5t.COMPOUND if not isinstance(dtype, str) or dtype.startswith("|V"):
            members = (f"{e['name']} {describe_type_briefly(e)}" for e in described["members"])
            shown = f"compound ({', '.join(members)})"
        case h5t.ARRAY:
            base = describe_type_briefly(described["base"])
            shown = f"{join_dimensions(described['dims'])} of {base}"
        # h5py's booleans are enumerations.
        case h5t.VLEN | h5t.ENUM as kind if dtype != "|b1":
            word = "sequence" if kind == h5t.VLEN else "enum"
            shown = f"{word} of {describe_type_briefly(described['base'])}"
        case h5t.REFERENCE:
            shown = "reference"
        case h5t.OPAQUE | h5t.BITFIELD as kind:
            shown = f"{'opaque' if kind == h5t.OPAQUE else 'bit field'} {size}"
        case _ if not isinstance(dtype, str) or dtype.startswith("|V"):
            shown = f"without NumPy equivalent {size}"
        case _:
            number = np.dtype(dtype)
            shown = f"{number.name} big-endian" if number.byteorder == ">" else number.name
    return shown


def describe_target(link: LinkReport) -> str:
    """Return where a link leads, and why it leads nowhere."""
    file = "" if link.target_file is None else f"{printable(link.target_file)}:"
    broken = "" if link.problem is None else f", does not resolve: {printable(link.problem)}"
    return f"-> {file}{printable(link.target_path)}{broken}"


def format_table(rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """Return the lines of a table without its empty columns.

    Args:
        rows: the titles, then the rows; one that is shorter is a line by itself.
        width: where a line is longer, the cells of each row are wrapped; None = never.
    """
    titles, *below = rows
    full = [row for row in below if len(row) == len(titles)]
    kept = [at for at in range(len(titles)) if any(row[at] for row in full)]
    cells = [[row[at] for at in kept] for row in (titles, *full)]
    widths = [max(map(width_of, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        aligned = []
        for title, cell, most in zip(cells[0], row, widths, strict=True):
            blanks = " " * (most - width_of(cell))
            aligned.append(blanks + cell if title in _NUMBERS else cell + blanks)
        lines.append("  ".join(aligned).rstrip())
    if width is not None and max(map(width_of, lines), default=0) > width:
        texts = ("  ".join(filter(None, row)) for row in cells)
        lines = [
            line for text in texts for line in textwrap.wrap(text, width, subsequent_indent="    ")
        ]
    return lines + ["".join(row) for row in below if len(row) < len(titles)]


def width_of(cell: str) -> int:
    """Return how many columns of a terminal a text takes (Unicode Standard Annex #11)."""
    if cell.isascii():
        return len(cell)
    return sum(
        0 if unicodedata.combining(each) else 1 + (unicodedata.east_asian_width(each) in "WF")
        for each in cell
    )


def printable(name: str, most: int = 200) -> str:
    """Return a name in one line, without control characters, not too long for a terminal."""
    if len(name) <= most and name.isprintable():
        return name
    shown = "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in name[: most + 1]
    )
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def human_size(size: int) -> str:
    """Return a size in three digits and a unit, by powers of 1024."""
    value, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    # What would be rounded to four digits is told in the next unit.
    while value >= 999.5 and len(units) > 1:
        value, _ = value / 1024, units.pop(0)
    return f"{value:.3g} {units[0]}"
