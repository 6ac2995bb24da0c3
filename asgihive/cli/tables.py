"""Aligned text for people: names out of files, sizes, and tables."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_GAP = "  "
_INDENT = "    "


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Args:
        title: above it.
        right: whether its cells end below each other, as numbers do.
        line: of a row that does not fit into one line: 0, 1 or 2.
    """

    title: str
    right: bool = False
    line: int = 0


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """The lines of a table, its titles first; columns without any content are left out.

    Where one line is wider than `width` (None = there is no such bound), each row takes two;
    where that is not enough either, three.
    """
    kept = [at for at, _ in enumerate(columns) if any(row[at] for row in rows)]
    lines: list[str] = []
    for breaks in _BREAKS:
        parts = [[at for at in kept if columns[at].line in part] for part in breaks]
        lines = _interleaved(columns, rows, [part for part in parts if part])
        if width is None or max(map(width_of, lines), default=0) <= width:
            break
    return lines


# Which columns share a line, by their `line`.
_BREAKS = (((0, 1, 2),), ((0,), (1, 2)), ((0,), (1,), (2,)))


def _interleaved(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], parts: Sequence[Sequence[int]]
) -> list[str]:
    blocks = [_aligned(columns, rows, part) for part in parts]
    return [
        (_INDENT if at else "") + line
        for row in zip(*blocks, strict=True)
        for at, line in enumerate(row)
        if line
    ]


def _aligned(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], kept: Sequence[int]
) -> list[str]:
    cells = [[columns[at].title for at in kept], *([row[at] for at in kept] for row in rows)]
    widths = [max(map(width_of, column)) for column in zip(*cells, strict=True)]
    return [
        _GAP.join(
            _padded(cell, width, right=columns[at].right)
            for cell, width, at in zip(row, widths, kept, strict=True)
        ).rstrip()
        for row in cells
    ]


def _padded(cell: str, width: int, *, right: bool) -> str:
    blanks = " " * (width - width_of(cell))
    return blanks + cell if right else cell + blanks


def width_of(cell: str) -> int:
    """How many columns of a terminal it takes (Unicode Standard Annex #11)."""
    return sum(
        0 if unicodedata.combining(each) else 1 + (unicodedata.east_asian_width(each) in "WF")
        for each in cell
    )


def printable(name: str, most: int = 200) -> str:
    """A name as a terminal may see it: in one line, without control characters, not too long."""
    shown = "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in name[: most + 1]
    )
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def human_size(size: int) -> str:
    """Three digits and a unit, by powers of 1024."""
    value = float(size)
    power = 0
    # What would be rounded to four digits is told in the next unit.
    while value >= 999.5 and power < len(_UNITS) - 1:
        value, power = value / 1024, power + 1
    return f"{value:.3g} {_UNITS[power]}"
