"""The picture that `asgihive inspect --preview` shows: an image or a curve in characters."""

import io
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import anyio
import numpy as np
import numpy.typing as npt
from PIL import Image

from asgihive.cli.formatting import describe_type_briefly, join_dimensions, printable
from asgihive.cli.pictures import ask_route
from asgihive.cli.terminal import has_colours
from asgihive.concurrency import run_at_once
from asgihive.encoders.protocol import list_encoders
from asgihive.errors import KindMismatch, NothingToShow
from asgihive.hdf5.datasets import Dataset
from asgihive.hdf5.file_bytes import encoded
from asgihive.hdf5.links import LinkResolution, Resolved, walk
from asgihive.hdf5.nexus import find_default_signal, find_main_image
from asgihive.hdf5.opening import find_dataset
from asgihive.hdf5.plan import parse_selection
from asgihive.hdf5.pool import Lease
from asgihive.service.store import Store
from asgihive.settings import H5Settings
from asgihive.viewer.pictured import is_of_numbers

# Of a picture where the terminal does not say its size; and at most.
_USUAL_SIZE = (80, 24)
_MOST_COLUMNS, _MOST_LINES = 200, 50

# Lines of a curve, and what is left for the lines around a picture.
_CURVE_LINES, _OTHER_LINES = 10, 5

# From dark to light, with and without what not every terminal can show.
_SHADES, _PLAIN_SHADES = " ░▒▓█", " .:-=+*#%@"

_HALF = "▀"

# The dots of a character of braille, by row and column; Unicode Standard, 21.1.
_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
_BRAILLE = 0x2800


@dataclass(frozen=True, slots=True)
class Preview:
    """A picture in characters."""

    title: str
    lines: tuple[str, ...]
    """With colours where stdout shows them."""
    caption: str


def make_preview(
    lease: Lease, name: str, path: str, selection: str | None, settings: H5Settings
) -> Preview:
    """Return a picture of the dataset at a path, or of the default of a group.

    Of one dimension it is a curve, of two an image; of more dimensions the first image.

    Args:
        lease: on the file.
        name: of the file below the root of the sandbox.
        path: of a group or dataset.
        selection: as in a request; None = the first image, or all of a curve.
        settings: those of the service.

    Raises:
        NothingToShow: a group has nothing to show.
        KindMismatch: there are no numbers.
        BadSelection, AsgihiveError: as reading raises.
    """
    dataset = _find_shown(lease, name, path)
    brief = printable(describe_type_briefly(dataset.description))
    shape = join_dimensions(dataset.shape or ()) or "one"
    title = f"{printable(dataset.path)}: {shape} {brief}"
    columns, lines = shutil.get_terminal_size(_USUAL_SIZE)
    size = min(columns, _MOST_COLUMNS), max(2, min(lines - _OTHER_LINES, _MOST_LINES))
    rank = len(dataset.shape or ())
    if selection is not None:
        rank = len(parse_selection(selection, dataset.shape or ()).shape)
    query = [("file", encoded(name)), ("path", encoded(dataset.path))]
    if selection is not None:
        query.append(("selection", encoded(selection)))
    root = lease.pool.sandbox.root
    if rank == 1:
        return _preview_curve(root, settings, query, title, size)
    return _preview_image(root, settings, query, title, size)


def _find_shown(lease: Lease, name: str, path: str) -> Dataset:
    """Return the dataset at a path, or the first of those that a group has to show."""
    file = lease.open_asked(name)
    found = walk(lease, file, path, LinkResolution.ALL)
    if not isinstance(found, Resolved) or found.object.kind != "group":
        dataset = find_dataset(lease, file, path)
        if _has_numbers(dataset):
            return dataset
        brief = describe_type_briefly(dataset.description)
        kind = f"dataset of {brief}" if dataset.shape else f"dataset of one element, {brief}"
        raise KindMismatch(name, dataset.path, kind, "an array of real numbers")
    for find in (find_default_signal, find_main_image):
        shown = run_at_once(find(lease, found))
        if shown is not None and _has_numbers(dataset := find_dataset(lease, file, shown.path)):
            return dataset
    raise NothingToShow(name, found.path, "array of real numbers")


def _has_numbers(dataset: Dataset) -> bool:
    return bool(dataset.shape) and is_of_numbers(dataset)


def _ask(root: str, settings: H5Settings, route: str, query: list[tuple[str, Any]]) -> Any:
    list_encoders()  # found and imported now, not on the event loop
    return anyio.run(ask_route, Store(root, settings), route, urlencode(query))


def _preview_image(
    root: str, settings: H5Settings, query: list[Any], title: str, size: tuple[int, int]
) -> Preview:
    columns, lines = size
    is_coloured = has_colours(sys.stdout)
    # A pixel is half a character; twice as many are asked for, of which each is a mean.
    asked = [*query, ("shape", f"{4 * lines},{2 * columns}"), ("format", "png")]
    body, headers = _ask(
        root, settings, "image", [*asked, ("cmap", "viridis" if is_coloured else "gray")]
    )
    with Image.open(io.BytesIO(body)) as picture:
        fitting = _fit(picture.convert("RGB"), columns, 2 * lines)
    pixels = np.asarray(fitting)
    if pixels.shape[0] % 2:
        pixels = np.concatenate([pixels, np.zeros_like(pixels[:1])])
    shown = _draw_in_colours(pixels) if is_coloured else _draw_in_shades(pixels)
    caption = f"[{headers['x-asgihive-selection']}]"
    if "x-asgihive-limits" in headers:
        low, high = map(float, headers["x-asgihive-limits"].split(","))
        caption += f", from {low:g} (dark) to {high:g} (light)"
    return Preview(title, tuple(shown), caption)


def _fit(picture: Image.Image, columns: int, rows: int) -> Image.Image:
    """Return a picture that fills the room as far as its proportions allow."""
    scale = min(columns / picture.width, rows / picture.height)
    if scale >= 1:
        whole = int(scale)
        return picture.resize(
            (picture.width * whole, picture.height * whole), Image.Resampling.NEAREST
        )
    fitting = (max(1, int(picture.width * scale)), max(1, int(picture.height * scale)))
    return picture.resize(fitting, Image.Resampling.BOX)


def _draw_in_colours(pixels: npt.NDArray[np.uint8]) -> Iterator[str]:
    """Yield lines of half blocks: the upper pixel in front, the lower one behind it."""
    from rich.color import Color  # noqa: PLC0415  # only where there are colours
    from rich.console import Console  # noqa: PLC0415
    from rich.segment import Segment, Segments  # noqa: PLC0415
    from rich.style import Style  # noqa: PLC0415

    console = Console(file=sys.stdout, width=pixels.shape[1] + 1)
    for upper, lower in zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True):
        line = Segments(
            Segment(_HALF, Style(color=Color.from_rgb(*front), bgcolor=Color.from_rgb(*back)))
            for front, back in zip(upper, lower, strict=True)
        )
        with console.capture() as captured:
            console.print(line, end="")
        yield captured.get()


def _draw_in_shades(pixels: npt.NDArray[np.uint8]) -> Iterator[str]:
    """Yield lines of characters that are as light as the two pixels that each stands for."""
    shades = _SHADES if _can_write(_SHADES) else _PLAIN_SHADES
    light = pixels.mean(axis=2)
    means = (light[::2] + light[1::2]) / 2
    for row in np.minimum(means / 256 * len(shades), len(shades) - 1).astype(int).tolist():
        yield "".join(shades[each] for each in row).rstrip()


def _preview_curve(
    root: str, settings: H5Settings, query: list[Any], title: str, size: tuple[int, int]
) -> Preview:
    columns, lines = size[0], min(size[1], _CURVE_LINES)
    dots = 2 * columns
    asked = [*query, ("max_points", str(dots)), ("method", "minmax"), ("format", "npy")]
    body, headers = _ask(root, settings, "data", asked)
    with np.errstate(all="ignore"):
        spans = np.load(io.BytesIO(body), allow_pickle=False).astype(np.float64).reshape(-1, 2)
    finite = spans[np.isfinite(spans)]
    if not finite.size:
        return Preview(title, (), "there is no finite value")
    low, high = float(finite.min()), float(finite.max())
    shown = _draw_curve(spans, low, high, (columns, lines))
    count = headers.get("x-asgihive-shape", str(len(spans)))
    return Preview(title, tuple(shown), f"{count} values, from {low:g} to {high:g}")


def _draw_curve(
    spans: npt.NDArray[np.float64], low: float, high: float, size: tuple[int, int]
) -> Iterator[str]:
    """Yield lines of braille: a span of dots for each minimum and maximum, joined to the next."""
    columns, lines = size
    height, width = 4 * lines, 2 * columns
    grid = np.zeros((height, width), bool)
    with np.errstate(all="ignore"):
        # Halved, since the largest numbers have differences that are infinite.
        place = (spans / 2 - low / 2) / ((high / 2 - low / 2) or 1)
        rows = np.rint((1 - place) * (height - 1))
    before: tuple[int, int] | None = None
    for at, (lower, upper) in enumerate(rows.tolist()):
        if not np.isfinite([lower, upper]).all():
            before = None
            continue
        top, bottom = int(upper), int(lower)
        column = at if len(rows) > columns else round(at * (width - 1) / max(1, len(rows) - 1))
        grid[top : bottom + 1, column] = True
        if before is not None:
            _join(grid, before, (column, (top + bottom) // 2))
        before = column, (top + bottom) // 2
    blocks = grid.reshape(lines, 4, columns, 2).transpose(0, 2, 1, 3)
    codes = (blocks * _DOTS).sum(axis=(2, 3))
    is_braille = _can_write(chr(_BRAILLE))
    for row in codes.tolist():
        cells = (chr(_BRAILLE + each) if is_braille else "*" for each in row)
        yield "".join(cell if each else " " for cell, each in zip(cells, row, strict=True)).rstrip()


def _join(grid: npt.NDArray[np.bool_], one: tuple[int, int], other: tuple[int, int]) -> None:
    """Draw a straight line between two dots, each as column and row."""
    steps = max(abs(other[0] - one[0]), abs(other[1] - one[1]), 1)
    columns = np.rint(np.linspace(one[0], other[0], steps + 1)).astype(int)
    rows = np.rint(np.linspace(one[1], other[1], steps + 1)).astype(int)
    grid[rows, columns] = True


def _can_write(text: str) -> bool:
    """Tell whether stdout has these characters."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
