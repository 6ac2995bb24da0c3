"""Colours of what the commands tell: by `rich` on a terminal, none elsewhere."""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TextIO

from asgihive.cli.formatting import width_of

if TYPE_CHECKING:
    from rich.console import Console

Line = Sequence[tuple[str, str]]
"""A line as its parts, each with a style of `rich`; no part has a control character."""


def is_terminal(stream: TextIO | None) -> bool:
    """Tell whether a stream is a terminal; the shell may have closed it."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed by the program
        return False


def has_colours(stream: TextIO | None) -> bool:
    """Tell whether colours are wanted: by a terminal, unless `NO_COLOR` (no-color.org) is set."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") in {"dumb", "unknown"}:
        return False
    return is_terminal(stream)


class Painter:
    """Puts parts of lines into the colours that a stream shows; changes nothing where it has none.

    `rich` is asked once for each style, since a log has many lines.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._console = _make_console(stream) if has_colours(stream) else None
        self._codes: dict[str, tuple[str, str]] = {}

    def paint(self, line: Line) -> str:
        """Return a line as the stream shows it."""
        return "".join(self._paint_part(part, style) for part, style in line)

    def _paint_part(self, part: str, style: str) -> str:
        if self._console is None or not style:
            return part
        if style not in self._codes:
            self._codes[style] = _find_codes(self._console, style)
        before, after = self._codes[style]
        return f"{before}{part}{after}"


def _make_console(stream: TextIO | None) -> "Console":
    from rich.console import Console  # noqa: PLC0415  # without colours its 50 ms are saved

    return Console(file=stream)


def _find_codes(console: "Console", style: str) -> tuple[str, str]:
    """Return what a terminal is sent before and after a part in that style."""
    with console.capture() as captured:
        console.print("|", style=style, end="")
    before, _, after = captured.get().partition("|")
    return before, after


def paint_lines(lines: Iterable[Line], width: int | None) -> list[str]:
    """Return lines as stdout shows them, with colours where it has any.

    Args:
        lines: by their parts.
        width: lines that are longer end with `…`; None = none is too long.
    """
    painter = Painter(sys.stdout)
    return [painter.paint(each if width is None else clip_line(each, width)) for each in lines]


def clip_line(line: Line, width: int) -> Line:
    """Return so much of a line as a terminal of that many columns shows in one."""
    if sum(width_of(part) for part, _ in line) <= width:
        return line
    kept, room = [], width - 1
    for part, style in line:
        fitting = _cut(part, room)
        kept.append((fitting, style))
        room -= width_of(fitting)
        if len(fitting) < len(part):
            break
    return [*kept, ("…", "dim")]


def _cut(part: str, room: int) -> str:
    if part.isascii():
        return part[:room]
    at = used = 0
    while at < len(part) and (used := used + width_of(part[at])) <= room:
        at += 1
    return part[:at]
