"""The route `/image`: a selection of two dimensions as a picture in false colours.

Reading and reducing go block by block, as for a view of `/data`; then one call in a decode lane
makes the picture of its points.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from starlette.types import ASGIApp, Receive

from asgihive.concurrency import Portions, measured
from asgihive.encoders.pictures import PictureFormat, encode_colours, encode_indices
from asgihive.errors import BadParameter
from asgihive.hdf5.datasets import Array
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.views import Method, View
from asgihive.hdf5.virtual_sources import SourcesFound, search_sources
from asgihive.service.data import hold
from asgihive.service.picture_parameters import ColourScale
from asgihive.service.requests import ReadRequest, Wanted
from asgihive.service.store import Store
from asgihive.viewer.answering import PictureMade, answer_picture, take_turn
from asgihive.viewer.colormaps import LEVELS, find_colour, find_palette
from asgihive.viewer.normalisation import ColourLimits, find_limits, index_colours
from asgihive.viewer.pictured import (
    PicturedDataset,
    find_pictured,
    format_paths,
    format_selection,
)
from asgihive.viewer.points import plan_points, read_points

LEAST_SIDE = 16
"""Pixels below which no side gets for the sake of the proportions."""


async def answer_image(
    store: Store, request: ReadRequest, wanted: Wanted, receive: Receive
) -> ASGIApp | None:
    """Answer with an image; None when the client went away before it was there.

    Raises:
        HTTPException: 412.
        BadParameter, KindMismatch, NothingToShow: and whatever reading raises.
    """
    _check_limits(request)

    def find(lease: Lease) -> Portions[tuple[PicturedDataset, SourcesFound]]:
        pictured = yield from find_pictured(request, lease)
        sources = yield from search_sources(lease, pictured.dataset, pictured.selection.axes)
        return pictured, sources

    return await answer_picture(store, request, wanted, receive, find, _make_image)


def _check_limits(request: ReadRequest) -> None:
    """Refuse limits that contradict each other. Raises BadParameter."""
    low, high, scale = (request.values[name] for name in ("vmin", "vmax", "norm"))
    if low is not None and high is not None and not low < high:
        raise BadParameter("vmin", f"{low:g}", f"a number below vmax, {high:g}, is accepted")
    for name, limit in (("vmin", low), ("vmax", high)):
        if scale is ColourScale.LOG and limit is not None and not limit > 0:
            raise BadParameter(name, f"{limit:g}", "a number above 0 is accepted with norm=log")


async def _make_image(
    store: Store, request: ReadRequest, pictured: PicturedDataset, lease: Lease
) -> PictureMade:
    make = partial(find_colours, request)
    colours = await store.lanes.decode.run(make, patient=True)
    view = plan_points(pictured.dataset, plan_image(request, pictured))
    held = hold(store, pictured.dataset, lease, pictured.selection)
    async with take_turn(math.prod(view.points)):
        points = await read_points(store, held, view)
        render = partial(render_image, request, colours, points, has_colours=pictured.has_colours)
        body, limits = await store.lanes.decode.run(render, patient=True)
    headers = {
        "x-asgihive-paths": format_paths([pictured.dataset.path]),
        "x-asgihive-selection": format_selection(pictured.selection),
        "x-asgihive-shape": ",".join(map(str, view.selection.shape)),
        "x-asgihive-factors": ",".join(map(str, view.factors)),
        "x-asgihive-method": request.values["method"],
    }
    if limits is not None:
        headers["x-asgihive-limits"] = f"{limits.low!r},{limits.high!r}"
    return body, headers


def plan_image(request: ReadRequest, pictured: PicturedDataset) -> View:
    """Return the view of the pixels: its bins are as wide as high, unless that leaves too few."""
    selection, method = pictured.selection, request.values["method"]
    lengths = selection.shape[:2]
    needed = [-(-n // most) for n, most in zip(lengths, request.values["shape"], strict=True)]
    most = max(needed)
    factors = tuple(
        max(own, min(most, n // LEAST_SIDE), 1) for n, own in zip(lengths, needed, strict=True)
    )
    if pictured.has_colours:
        factors = (*factors, 1)
    dtype = np.dtype(np.float64) if method is Method.MEAN else pictured.dataset.dtype
    return View(selection, factors, method, dtype)


@dataclass(frozen=True, slots=True)
class ImageColours:
    """The colours of an image."""

    palette: Array
    """Of shape (LEVELS, 4), uint8."""
    short_palette: Array
    """With one colour fewer, and at its end that of what is no number."""


def find_colours(request: ReadRequest) -> ImageColours:
    """Return the colours that a request asks for. In a decode lane. Raises BadParameter."""
    name, missing = request.values["cmap"], find_colour(request.values["nan"])
    short = np.concatenate([find_palette(name, LEVELS - 1), missing[np.newaxis]])
    return ImageColours(find_palette(name), short)


@measured("encode")
def render_image(
    request: ReadRequest, colours: ImageColours, points: Array, *, has_colours: bool
) -> tuple[bytes, ColourLimits | None]:
    """Return the picture of points, and the values of the first and the last colour.

    Args:
        request: what is asked for.
        colours: by `find_colours`.
        points: real numbers or booleans of shape (h, w), or colours of shape (h, w, 3 or 4).
        has_colours: which of the two.
    """
    picture: Any = request.encoder
    if has_colours:
        pixels = points if points.dtype == np.uint8 else np.rint(points).astype(np.uint8)
        return encode_colours(picture, pixels), None
    values = request.values
    scale = values["norm"]
    limits = find_limits(points, scale, values["percentiles"], values["vmin"], values["vmax"])
    return _render_numbers(picture, colours, points, scale, limits), limits


def _render_numbers(
    picture: PictureFormat,
    colours: ImageColours,
    points: Array,
    scale: ColourScale,
    limits: ColourLimits,
) -> bytes:
    indices, has_nan = index_colours(points, scale, limits, LEVELS)
    palette = colours.short_palette if has_nan else colours.palette
    return encode_indices(picture, indices, palette)
