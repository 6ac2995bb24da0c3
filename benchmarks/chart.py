"""The chart in README: how many times better asgihive is, a bar for each row of its table."""

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

from benchmarks.results import Cells, Headline
from benchmarks.servers import SUBJECT

_WIDTH, _ROW, _TOP, _LEFT, _RIGHT, _BOTTOM = 860, 30, 44, 320, 130, 12
_MARKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_TITLE = f"How many times better {SUBJECT} is than what it is measured beside"
# Blue for better and orange for worse: people who do not tell red from green see the difference.
_BETTER, _WORSE, _TEXT, _GRID = "#2a6fb0", "#d9822b", "#24292f", "#d0d7de"


def draw_chart(headlines: Sequence[tuple[Headline, Cells]]) -> str:
    """Return an SVG of horizontal bars on a logarithmic axis, which all begin at 1.

    Args:
        headlines: the rows; those without a ratio are left out.
    """
    bars = [
        (headline, float(cells["ratio"].rstrip("x").replace(",", "")))
        for headline, cells in headlines
        if cells["ratio"].endswith("x")
    ]
    ratios = [ratio for _, ratio in bars]
    first = max(mark for mark in _MARKS if mark <= min([0.5, *ratios]))
    last = min(mark for mark in _MARKS if mark >= max([10, *ratios]))
    bottom = _TOP + _ROW * len(bars)

    def place(ratio: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * math.log(ratio / first) / math.log(last / first)

    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom + _BOTTOM}"',
        'role="img" font-family="system-ui, sans-serif" font-size="13">',
        f"<title>{_TITLE}</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    for mark in _MARKS:
        if first <= mark <= last:
            x, color = place(mark), _TEXT if mark == 1 else _GRID
            drawn += [
                f'<path d="M{x:.1f} {_TOP - 8}V{bottom}" stroke="{color}"/>',
                _label(x, _TOP - 14, f"{mark:g}x", "middle"),
            ]
    for number, (headline, ratio) in enumerate(bars):
        top, end = _TOP + _ROW * number, place(max(1.0, ratio))
        start = place(min(1.0, ratio))
        box = f'x="{start:.1f}" y="{top + 5}" width="{end - start:.1f}" height="{_ROW - 10}"'
        drawn += [
            _label(_LEFT - 12, top + 19, headline.text, "end"),
            f'<rect {box} fill="{_BETTER if ratio >= 1 else _WORSE}"/>',
            _label(end + 6, top + 19, f"{ratio:.3g}x {_short(headline.peer)}", "start"),
        ]
    return "\n".join([*drawn, "</svg>", ""])


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y}" fill="{_TEXT}" text-anchor="{anchor}">{escape(text)}</text>'


def _short(peer: str) -> str:
    # Too long for the margin; the table names the class.
    return "middleware" if peer == "BaseHTTPMiddleware" else peer
