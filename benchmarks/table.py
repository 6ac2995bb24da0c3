"""From the turns' values to the table: pure functions, tested alone."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.question import Figure, Target
from benchmarks.servers import CEILING, SUBJECT

HEADER = ("question", "figure", SUBJECT, "peer", "ratio", "target", CEILING)
_ABSENT = "-"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one question: the values of all turns by server, in the order measured."""

    question: str
    figure: Figure
    turns: Mapping[str, Sequence[float]]

    def value(self, server: str) -> float | None:
        """Return the value that stands for a server's turns; `None` if it was not measured."""
        values = self.turns.get(server)
        return summarize(self.figure, values) if values else None

    @property
    def ratio(self) -> float | None:
        """Return how many times better asgihive is than the peer; below 1 it is worse."""
        ours, theirs = self.value(SUBJECT), self.value(self.figure.peer)
        if not ours or not theirs:
            return None
        return ours / theirs if self.figure.better == "higher" else theirs / ours

    @property
    def met(self) -> bool | None:
        """Return whether the target is reached; `None` without a target or without its figure."""
        target = self.figure.target
        if target is None:
            return None
        ours, ratio = self.value(SUBJECT), self.ratio
        if target.below is not None:
            return None if ours is None else ours < target.below
        return None if ratio is None or target.ratio is None else ratio >= target.ratio


def summarize(figure: Figure, values: Sequence[float]) -> float:
    """Return the median of the turns, or the worst where the figure asks for that."""
    if figure.turns == "median":
        return statistics.median(values)
    return min(values) if figure.better == "higher" else max(values)


def compute_serial_ceiling(
    stages: Sequence[Sequence[str]], turns: Mapping[str, Sequence[float]]
) -> Sequence[float]:
    """Return the rate in each turn of work that is done in stages, one after the other.

    Two stages of the rates a and b have the rate 1 / (1/a + 1/b).

    Args:
        stages: the servers that do each stage; the fastest of them counts.
        turns: rates by server; servers that were not measured are left out.

    Returns:
        A rate for each turn in which every stage was measured.
    """
    measured = [[turns[name] for name in stage if turns.get(name)] for stage in stages]
    if not all(measured):
        return []
    fastest = [[max(rates) for rates in zip(*stage, strict=True)] for stage in measured]
    return [1 / sum(1 / rate for rate in rates) for rates in zip(*fastest, strict=True)]


def render(rows: Sequence[Row]) -> str:
    """Return the comparison as a Markdown table."""
    return render_cells([HEADER, *(list_cells(row) for row in rows)], names=2)


def render_cells(cells: Sequence[Sequence[str]], *, names: int) -> str:
    """Return a Markdown table, padded so that it reads as plain text too.

    Args:
        cells: the lines, the first with the columns' names.
        names: how many columns are aligned to the left; the others hold figures.
    """
    columns = len(cells[0])
    widths = [max(len(line[column]) for line in cells) for column in range(columns)]
    align = [str.ljust] * names + [str.rjust] * (columns - names)
    rule = [
        ":" + "-" * (width - 1) if side is str.ljust else "-" * (width - 1) + ":"
        for width, side in zip(widths, align, strict=True)
    ]
    padded = [
        [side(cell, width) for cell, width, side in zip(line, widths, align, strict=True)]
        for line in cells
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in (padded[0], rule, *padded[1:]))


def list_cells(row: Row) -> tuple[str, ...]:
    """Return the row as text, a cell for each column of `HEADER`."""
    unit = row.figure.unit
    ratio = _ABSENT if row.ratio is None else f"{_number(row.ratio)}x"
    return (
        row.question,
        row.figure.name,
        _quantity(row.value(SUBJECT), unit),
        _peer(row),
        ratio,
        _target(row.figure.target, unit, row.met),
        _quantity(row.value(CEILING), unit),
    )


def _peer(row: Row) -> str:
    value = row.value(row.figure.peer)
    return _ABSENT if value is None else f"{row.figure.peer} {_quantity(value, row.figure.unit)}"


def _target(target: Target | None, unit: str, met: bool | None) -> str:
    if target is None:
        return _ABSENT
    wanted = f"≥ {target.ratio:g}x" if target.below is None else f"< {target.below:g} {unit}"
    return wanted if met is None else f"{wanted} {'met' if met else 'missed'}"


def _quantity(value: float | None, unit: str) -> str:
    if value is None:
        return _ABSENT
    return f"{_number(value)}{'' if unit.startswith('/') else ' '}{unit}"


def _number(value: float) -> str:
    """Return three significant digits and no exponent: 0.123, 4.56, 78.9, 1,230."""
    if value >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"
