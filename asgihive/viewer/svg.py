"""A line plot as SVG 1.1, drawn from arrays; pure, and the same bytes for the same plot.

All text is untrusted: characters that XML has not, and those that change the direction of a text,
are U+FFFD. There is no script in it, nothing from elsewhere, and no style that depends on a text.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from asgihive.viewer.ticks import LARGEST, AxisScale, find_ticks, fit_scale, format_number

Array = np.ndarray[Any, Any]

LONGEST_LABEL = 80
"""Characters of a label; of a name in the legend fewer."""

_LONGEST_NAME = 32

# Below these sizes a plot is its curves alone: labels would be larger than they.
_LEAST_WIDTH, _LEAST_HEIGHT = 200, 120

# XML 1.0, production 2; and Unicode's bidirectional formatting characters (UAX 9, 2.1 to 2.5).
_NOT_SHOWN = re.compile(
    "[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)

# Okabe and Ito's colours, which the colour-blind can tell apart, with the yellow and the black
# darker or lighter for contrast with the ground.
_LIGHT = ("#0072b2", "#d55e00", "#007a5a", "#b0568a", "#8a6d00", "#3a86b8", "#a03c00", "#4d4d4d")
_DARK = ("#56b4e9", "#e69f00", "#2fbf93", "#e08fc0", "#f0e442", "#9ad0f5", "#ff9d5c", "#c8c8c8")
_DASHES = ("", "6 3", "2 2", "8 3 2 3")

_STYLE = """\
svg{{font:12px system-ui,sans-serif}}\
.ground{{fill:{ground}}}\
text{{fill:{ink}}}\
.title{{font-size:14px;font-weight:600}}\
.axis{{stroke:{ink};fill:none}}\
.grid{{stroke:{grid}}}\
.line{{fill:none;stroke-width:1.5;stroke-linejoin:round;stroke-linecap:round}}\
.band{{fill-opacity:.25}}\
.legend{{fill:{ground};fill-opacity:.85}}"""
_LIGHT_STYLE = _STYLE.format(ground="#ffffff", ink="#1f2328", grid="#d8dee4")
_DARK_STYLE = _STYLE.format(ground="#16191d", ink="#e6edf3", grid="#373e47")


@dataclass(frozen=True, slots=True)
class DrawnCurve:
    """The points of one curve."""

    name: str
    x: Array
    """Of shape (n,), doubles; where it is no number, there is a gap."""
    low: Array
    """The least value at each of them, likewise."""
    high: Array
    """The greatest value, which is the same where each point is one value."""
    errors: Array | None = None
    """How far the band goes beyond both."""


@dataclass(frozen=True, slots=True)
class LinePlot:
    """What is drawn."""

    curves: Sequence[DrawnCurve]
    title: str
    x_label: str
    y_label: str
    width: int = 640
    """In pixels, as `height`."""
    height: int = 400
    x_is_log: bool = False
    y_is_log: bool = False
    is_dark: bool = False
    note: str = ""
    """What else the description says."""


def draw(plot: LinePlot) -> bytes:
    """Return a plot as SVG, in UTF-8."""
    return "".join(_Drawer(plot).draw()).encode()


def make_text(text: str, most: int = LONGEST_LABEL) -> str:
    """Return text for XML, not too long."""
    shown = " ".join(_NOT_SHOWN.sub("\ufffd", text[: 4 * most]).split())
    return escape(shown if len(shown) <= most else f"{shown[: most - 1]}…")


class _Drawer:
    """Draws one plot.

    Args:
        plot: what is drawn.
    """

    def __init__(self, plot: LinePlot) -> None:
        self._plot = plot
        self._curves = [_clip(each, plot) for each in plot.curves]
        self._is_bare = plot.width < _LEAST_WIDTH or plot.height < _LEAST_HEIGHT
        x_margin, y_margin = (0.0, 0.04) if not self._is_bare else (0.0, 0.02)
        x_values = [each.x for each in self._curves]
        y_values = [part for each in self._curves for part in _list_heights(each, plot)]
        self._x = _fit(x_values, is_log=plot.x_is_log, margin=x_margin)
        self._y = _fit(y_values, is_log=plot.y_is_log, margin=y_margin)
        self._left = self._top = 2.0
        self._right, self._bottom = plot.width - 2.0, plot.height - 2.0
        self._x_ticks: list[tuple[float, str]] = []
        self._y_ticks: list[tuple[float, str]] = []
        if not self._is_bare:
            self._top, self._right = 32.0 if plot.title else 12.0, plot.width - 16.0
            self._bottom = plot.height - 44.0
            self._y_ticks = find_ticks(self._y, max(2, int((self._bottom - self._top) / 45)))
            longest = max((len(label) for _, label in self._y_ticks), default=1)
            self._left = min(34.0 + 7 * longest, plot.width / 3)
            self._x_ticks = find_ticks(self._x, max(2, int((self._right - self._left) / 85)))

    def draw(self) -> Iterator[str]:
        """Yield the parts of the document."""
        plot = self._plot
        names = ", ".join(each.name for each in plot.curves[:4])
        title = make_text(plot.title or names or "Plot")
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{plot.width}" height="{plot.height}" '
            f'viewBox="0 0 {plot.width} {plot.height}" role="img" '
            'aria-labelledby="title description">'
            f'<title id="title">{title}</title>'
            f'<desc id="description">{make_text(self._describe(), 500)}</desc>'
            f"<style>{_DARK_STYLE if plot.is_dark else _LIGHT_STYLE}</style>"
            f'<rect class="ground" width="{plot.width}" height="{plot.height}"/>'
            f'<clipPath id="inside"><path d="{self._frame()}"/></clipPath>'
        )
        if not self._is_bare:
            yield from self._draw_axes()
        yield '<g clip-path="url(#inside)">'
        for number, curve in enumerate(self._curves):
            yield from self._draw_curve(number, curve)
        yield "</g>"
        if not self._is_bare:
            yield f'<path class="axis" d="{self._frame()}"/>'
            if len(plot.curves) > 1:
                yield from self._draw_legend()
        yield "</svg>\n"

    def _describe(self) -> str:
        plot, y, x = self._plot, self._y, self._x
        count = len(plot.curves)
        kind = "A line plot" if count == 1 else f"{count} lines"
        told = (
            f"{kind} of {plot.y_label or 'values'} from {format_number(y.low, 4)} to "
            f"{format_number(y.high, 4)} over {plot.x_label} from {format_number(x.low, 4)} to "
            f"{format_number(x.high, 4)}."
        )
        return f"{told} {plot.note}".strip()

    def _frame(self) -> str:
        return f"M{self._left:g} {self._top:g}H{self._right:g}V{self._bottom:g}H{self._left:g}Z"

    def _place_x(self, value: float) -> float:
        return self._left + self._x.place(value) * (self._right - self._left)

    def _place_y(self, value: float) -> float:
        return self._bottom - self._y.place(value) * (self._bottom - self._top)

    def _draw_axes(self) -> Iterator[str]:
        plot, below = self._plot, self._bottom + 16
        for value, label in self._x_ticks:
            x = f"{self._place_x(value):.2f}"
            yield f'<path class="grid" d="M{x} {self._top:g}V{self._bottom:g}"/>'
            yield f'<text x="{x}" y="{below:g}" text-anchor="middle">{label}</text>'
        for value, label in self._y_ticks:
            y = self._place_y(value)
            yield f'<path class="grid" d="M{self._left:g} {y:.2f}H{self._right:g}"/>'
            yield (f'<text x="{self._left - 6:g}" y="{y + 4:.2f}" text-anchor="end">{label}</text>')
        middle_x, middle_y = (self._left + self._right) / 2, (self._top + self._bottom) / 2
        if plot.title:
            yield (
                f'<text class="title" x="{middle_x:g}" y="20" text-anchor="middle">'
                f"{make_text(plot.title, self._fit_text(plot.width, 8))}</text>"
            )
        label = make_text(plot.x_label, self._fit_text(plot.width, 7))
        yield f'<text x="{middle_x:g}" y="{plot.height - 8}" text-anchor="middle">{label}</text>'
        label = make_text(plot.y_label, self._fit_text(plot.height, 7))
        yield (
            f'<text transform="translate(14 {middle_y:g}) rotate(-90)" text-anchor="middle">'
            f"{label}</text>"
        )

    @staticmethod
    def _fit_text(pixels: int, pixels_each: int) -> int:
        return max(4, min(LONGEST_LABEL, pixels // pixels_each))

    def _draw_curve(self, number: int, curve: DrawnCurve) -> Iterator[str]:
        colour = self._choose_colour(number)
        dashes = _DASHES[number // len(_LIGHT) % len(_DASHES)]
        if curve.errors is not None:
            upper, lower = _list_heights(curve, self._plot)
            for part in _find_runs(curve.x, upper, lower):
                there = self._trace(curve.x[part], upper[part])
                back = self._trace(curve.x[part][::-1], lower[part][::-1])
                yield f'<path class="band" fill="{colour}" d="M{there}L{back}Z"/>'
        lines, dots = [], []
        for part in _find_runs(curve.x, curve.low, curve.high):
            x, heights = curve.x[part], curve.low[part]
            if curve.high is not curve.low:
                x = np.repeat(x, 2)
                heights = np.stack([curve.low[part], curve.high[part]], axis=1).reshape(-1)
            if len(x) == 1:
                dots.append((x[0], heights[0]))
            else:
                lines.append(f"M{self._trace(x, heights)}")
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        if lines:
            yield f'<path class="line" stroke="{colour}"{dashed} d="{"".join(lines)}"/>'
        for x, y in dots:  # a line of no length may not be seen
            yield (
                f'<circle cx="{self._place_x(x):.2f}" cy="{self._place_y(y):.2f}" r="2" '
                f'fill="{colour}"/>'
            )

    def _choose_colour(self, number: int) -> str:
        colours = _DARK if self._plot.is_dark else _LIGHT
        return colours[number % len(colours)]

    def _trace(self, x: Array, y: Array) -> str:
        """Return the points of a path, with a hundredth of a pixel."""
        places = zip(map(self._place_x, x.tolist()), map(self._place_y, y.tolist()), strict=True)
        return "L".join(f"{across:.2f} {down:.2f}" for across, down in places)

    def _find_free_corner(self, width: float, height: float) -> tuple[float, float]:
        """Return the left and the top of a box in the corner where the fewest points are."""
        lefts = (self._right - width - 6, self._left + 6)
        corners = [(x, y) for y in (self._top + 6, self._bottom - height - 6) for x in lefts]
        counts = dict.fromkeys(corners, 0)
        for curve in self._curves:
            for heights in (curve.low, curve.high):
                part = np.isfinite(curve.x) & np.isfinite(heights)
                across = np.array([self._place_x(each) for each in curve.x[part].tolist()])
                down = np.array([self._place_y(each) for each in heights[part].tolist()])
                for x, y in corners:
                    is_inside = (x <= across) & (across <= x + width)
                    is_inside &= (y <= down) & (down <= y + height)
                    counts[x, y] += int(is_inside.sum())
        return min(corners, key=counts.__getitem__)

    def _draw_legend(self) -> Iterator[str]:
        most = int((self._bottom - self._top - 12) / 17)
        shown = self._plot.curves[: max(1, most)]
        names = [make_text(each.name, _LONGEST_NAME) for each in shown]
        width = min(44 + 7 * max(map(len, names)), self._right - self._left - 12)
        height = 17 * len(names) + 6
        left, top = self._find_free_corner(width, height)
        yield (
            f'<rect class="legend" x="{left:g}" y="{top:g}" width="{width:g}" height="{height}"/>'
        )
        for number, name in enumerate(names):
            y = top + 14 + 17 * number
            yield (
                f'<path class="line" stroke="{self._choose_colour(number)}" '
                f'd="M{left + 6:g} {y - 4:g}h20"/>'
                f'<text x="{left + 32:g}" y="{y:g}">{name}</text>'
            )


def _clip(curve: DrawnCurve, plot: LinePlot) -> DrawnCurve:
    """Return a curve with NaN for what has no place, and numbers that can be computed with."""
    x = _clip_values(curve.x, is_log=plot.x_is_log)
    low = _clip_values(curve.low, is_log=plot.y_is_log)
    high = low if curve.high is curve.low else _clip_values(curve.high, is_log=plot.y_is_log)
    return DrawnCurve(curve.name, x, low, high, curve.errors)


def _clip_values(values: Array, *, is_log: bool) -> Array:
    given = np.asarray(values, np.float64)
    is_shown = np.isfinite(given)
    if is_log:
        is_shown &= given > 1 / LARGEST
    return np.where(is_shown, np.clip(given, -LARGEST, LARGEST), np.nan)


def _list_heights(curve: DrawnCurve, plot: LinePlot) -> tuple[Array, Array]:
    """Return the upper and the lower end of a curve with its errors."""
    if curve.errors is None:
        return curve.high, curve.low
    sizes = np.abs(np.nan_to_num(np.asarray(curve.errors, np.float64), posinf=0, neginf=0))
    upper = np.clip(curve.high + sizes, -LARGEST, LARGEST)
    lower = np.clip(curve.low - sizes, -LARGEST, LARGEST)
    if plot.y_is_log:  # a band that goes below zero ends at the curve
        lower = np.where(lower > 1 / LARGEST, lower, curve.low)
    return upper, lower


def _fit(values: Sequence[Array], *, is_log: bool, margin: float) -> AxisScale:
    numbers = [each[np.isfinite(each)] for each in values]
    filled = [each for each in numbers if each.size]
    if not filled:
        return fit_scale(1.0, 10.0, is_log=True) if is_log else fit_scale(0.0, 1.0)
    low = min(float(each.min()) for each in filled)
    high = max(float(each.max()) for each in filled)
    return fit_scale(low, high, is_log=is_log, margin=margin)


def _find_runs(*arrays: Array) -> Iterator[slice]:
    """Yield the runs in which all arrays hold numbers."""
    is_shown = np.logical_and.reduce([np.isfinite(each) for each in arrays])
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_shown, [False]]).astype(np.int8)))
    for first, stop in edges.reshape(-1, 2).tolist():
        yield slice(first, stop)
