"""The route `/plot`: selections of one dimension as curves, with axes, units and errors."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from starlette.types import ASGIApp, Receive

from asgihive.concurrency import Portions, measured
from asgihive.hdf5.datasets import Array, Dataset
from asgihive.hdf5.plan import Axis, Selection, select_all
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.views import Method, View
from asgihive.hdf5.virtual_sources import SourcesFound, search_sources
from asgihive.service.data import hold
from asgihive.service.requests import ReadRequest, Wanted
from asgihive.service.store import Store
from asgihive.viewer.answering import PictureMade, answer_picture
from asgihive.viewer.curves import CurveSource, find_curves
from asgihive.viewer.pictured import format_paths, format_selection
from asgihive.viewer.points import read_points
from asgihive.viewer.svg import DrawnCurve, LinePlot, draw

SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Of a plot that a browser shows by itself: it may run and load nothing."""

POINTS_PER_PIXEL = 2
"""Of each curve, unless a request says otherwise: a minimum and a maximum."""


async def answer_plot(
    store: Store, request: ReadRequest, wanted: Wanted, receive: Receive
) -> ASGIApp | None:
    """Answer with a plot; None when the client went away before it was there.

    Raises:
        HTTPException: 412.
        BadParameter, KindMismatch, NothingToShow: and whatever reading raises.
    """

    def find(lease: Lease) -> Portions[tuple[list[CurveSource], SourcesFound]]:
        curves = yield from find_curves(request, lease)
        searched: list[SourcesFound] = []
        for curve in curves:
            for dataset in curve.datasets:
                axes = select_all(dataset.shape or ()).axes
                if dataset is curve.dataset:
                    axes = curve.selection.axes
                searched.append((yield from search_sources(lease, dataset, axes)))
        return curves, _merge_sources(searched)

    return await answer_picture(store, request, wanted, receive, find, _make_plot)


def _merge_sources(searched: list[SourcesFound]) -> SourcesFound:
    """Return what the values of several datasets come from."""
    merged = next((each for each in searched if each.missing), searched[0])
    return replace(merged, depends_on_all=all(each.depends_on_all for each in searched))


async def _make_plot(
    store: Store, request: ReadRequest, curves: list[CurveSource], lease: Lease
) -> PictureMade:
    values = request.values
    most = values["max_points"] or POINTS_PER_PIXEL * values["shape"][0]
    drawn = [await _CurveRead(store, lease, each, most).read() for each in curves]
    render = partial(_render, request, curves, drawn)
    body = await store.lanes.decode.run(render, patient=True)
    paths = dict.fromkeys(each.path for curve in curves for each in curve.datasets)
    return body, {
        "content-security-policy": SECURITY_POLICY,
        "x-asgihive-paths": format_paths(list(paths)),
        "x-asgihive-selection": ";".join(format_selection(each.selection) for each in curves),
    }


@dataclass(frozen=True, slots=True)
class _CurveRead:
    """A curve that is read and reduced."""

    store: Store
    lease: Lease
    source: CurveSource
    most: int
    """Points, of which a minimum and a maximum are two."""

    @property
    def factor(self) -> int:
        """How many elements are in a bin."""
        count = self.source.selection.size
        return 1 if count <= self.most else -(-count // max(1, self.most // 2))

    async def read(self) -> DrawnCurve:
        """Return the points."""
        source, method = self.source, Method.MINMAX if self.factor > 1 else Method.NEAREST
        points = await self._read(source.dataset, source.selection, method)
        low = high = points
        if method is Method.MINMAX:
            low, high = points[:, 0], points[:, 1]
        errors = None
        if source.errors is not None:
            largest = Method.MAX if self.factor > 1 else Method.NEAREST
            errors = await self._read(source.errors, source.selection, largest)
        return DrawnCurve(source.quantity.label, await self._read_axis(), low, high, errors)

    async def _read_axis(self) -> Array:
        """Return where the points lie: the means of the axis over their bins."""
        source = self.source
        along = source.selection.axes[source.dimension]
        if source.axis is None:
            firsts = np.arange(0, along.count, self.factor, dtype=np.float64)
            lasts = np.minimum(firsts + self.factor, along.count) - 1
            middles: Array = along.start + along.step * (firsts + lasts) / 2
            return middles
        method = Method.MEAN if self.factor > 1 else Method.NEAREST
        values = await self._read(source.axis, _select_one(along), method)
        if source.axis.shape == ((source.dataset.shape or ())[source.dimension],):
            return values
        # The edges of bins, whose middles are shown.
        further = Axis(along.start + 1, along.step, along.count)
        return values / 2 + await self._read(source.axis, _select_one(further), method) / 2

    async def _read(self, dataset: Dataset, selection: Selection, method: Method) -> Array:
        dtype = np.dtype(np.float64) if method is Method.MEAN else dataset.dtype
        held = hold(self.store, dataset, self.lease, selection)
        points = await read_points(self.store, held, View(selection, (self.factor,), method, dtype))
        with np.errstate(all="ignore"):
            return points.astype(np.float64)


def _select_one(axis: Axis) -> Selection:
    return Selection((axis,))


@measured("encode")
def _render(request: ReadRequest, sources: list[CurveSource], drawn: list[DrawnCurve]) -> bytes:
    values: Any = request.values
    first, is_single = sources[0], len(sources) == 1
    x_labels = {each.axis_quantity.label for each in sources}
    units = {each.quantity.units for each in sources}
    shared = units.pop() if len(units) == 1 else ""
    title = first.title or (first.dataset.path if is_single else "")
    count = max(each.selection.size for each in sources)
    points = max(each.x.size for each in drawn)
    note = f"{count} values"
    if any(each.high is not each.low for each in drawn):
        note += f", drawn as the minima and maxima of {points} parts"
    plot = LinePlot(
        curves=drawn,
        title=title,
        x_label=x_labels.pop() if len(x_labels) == 1 else "",
        y_label=first.quantity.label if is_single else shared,
        width=values["shape"][0],
        height=values["shape"][1],
        x_is_log=values["xscale"] == "log",
        y_is_log=values["yscale"] == "log",
        is_dark=values["theme"] == "dark",
        note=f"{note}.",
    )
    return draw(plot)
