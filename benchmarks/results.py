"""The table that is kept in `RESULTS.md`, and the rows of it that README shows."""

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from benchmarks.servers import REPOSITORY, SUBJECT
from benchmarks.table import HEADER, Row, list_cells, render_cells

RESULTS = REPOSITORY / "benchmarks" / "RESULTS.md"
README = REPOSITORY / "README.md"

COLUMNS = (*HEADER, "measured")
README_COLUMNS = ("what a client asks", SUBJECT, "beside", "times better")

Cells = Mapping[str, str]
"""One row of the table: the text of each column by its name."""

# The paragraph below the table that says on what it was measured.
_LAST_RUN = re.compile(r"^Last run: .*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Headline:
    """A row that README shows, and what it says of it."""

    question: str
    figure: str
    peer: str
    text: str


HEADLINES = (
    Headline("session", "whole session", "h5grove", "15 files looked through as in h5web"),
    Headline("meta_small", "requests", "h5grove", "metadata of small groups, again and again"),
    Headline("meta_wide_cold", "time", "h5grove", "first metadata of a group of 5,000 datasets"),
    Headline("data_4m", "requests", "h5grove", "contiguous frames of 4 MiB"),
    Headline("gzip_frames", "requests", "h5grove", "gzip frames of 2 MiB, none kept decoded"),
    Headline("json_1m", "requests", "h5grove", "a million numbers as JSON"),
    Headline("stats_2g", "time", "h5grove", "statistics of 2 GiB of gzip frames"),
    Headline("download_4g", "contiguous, memory", "h5grove", "memory for a download of 4 GiB"),
    Headline("hive_hooks", "requests", "BaseHTTPMiddleware", "hooks of 3 cornerstones"),
    Headline("typed_handler", "requests", "FastAPI", "a handler with typed path, query and body"),
)
"""What a reader decides by, in the order of README's table."""


def parse_table(text: str) -> list[Cells]:
    """Return the rows of the one table of `COLUMNS` in a Markdown text."""
    lines = _find_table(text, COLUMNS).splitlines()
    return [dict(zip(COLUMNS, _split(line), strict=True)) for line in lines[2:]]


def replace_rows(text: str, rows: Sequence[Row], measured: str, order: Sequence[str]) -> str:
    """Return the text of `RESULTS.md` with new rows in place of the same questions' former ones.

    Args:
        text: what the file holds.
        rows: what was measured.
        measured: when, and at which commit.
        order: the names of all questions; rows of other questions are dropped.
    """
    new = [dict(zip(COLUMNS, (*list_cells(row), measured), strict=True)) for row in rows]
    asked = {row.question for row in rows}
    kept = [cells for cells in parse_table(text) if cells["question"] not in asked]
    everything = [cells for name in order for cells in [*kept, *new] if cells["question"] == name]
    return _replace_table(text, COLUMNS, [list(cells.values()) for cells in everything], names=2)


def list_headlines(table: Sequence[Cells]) -> list[tuple[Headline, Cells]]:
    """Return the rows of the table that README shows; what was not measured is left out."""
    return [
        (headline, cells)
        for headline in HEADLINES
        for cells in table
        if (cells["question"], cells["figure"]) == (headline.question, headline.figure)
        and cells["peer"].startswith(f"{headline.peer} ")
    ]


def replace_headlines(readme: str, table: Sequence[Cells]) -> str:
    """Return README's text with its table made anew from that of `RESULTS.md`."""
    lines = [
        (headline.text, cells[SUBJECT], cells["peer"], cells["ratio"])
        for headline, cells in list_headlines(table)
    ]
    return _replace_table(readme, README_COLUMNS, lines, names=1)


def record(rows: Sequence[Row], about: str, order: Sequence[str]) -> None:
    """Put measured rows, and on what they were measured, into `RESULTS.md`."""
    text = RESULTS.read_text(encoding="utf-8")
    measured = f"{datetime.now(UTC):%Y-%m-%d} {_commit()}"
    text = replace_rows(text, rows, measured, order)
    text = _LAST_RUN.sub(lambda _: f"Last run: {about}", text)
    RESULTS.write_text(text, encoding="utf-8")


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return ran.stdout.strip() or "?"


def _replace_table(
    text: str, columns: Sequence[str], lines: Sequence[Sequence[str]], *, names: int
) -> str:
    return text.replace(_find_table(text, columns), render_cells([columns, *lines], names=names))


def _find_table(text: str, columns: Sequence[str]) -> str:
    """Return the Markdown table with these columns.

    Raises:
        ValueError: there is none.
    """
    for table in re.findall(r"^\|.*(?:\n\|.*)*", text, re.MULTILINE):
        if _split(table.partition("\n")[0]) == [*columns]:
            return str(table)
    raise ValueError(f"no table with the columns {', '.join(columns)}")


def _split(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]
