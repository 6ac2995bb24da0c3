"""Which curves are plotted: signals with their axes, errors and names, as NeXus has them."""

from dataclasses import dataclass

from asgihive.concurrency import Portions
from asgihive.errors import (
    AsgihiveError,
    BadParameter,
    BadSelection,
    KindMismatch,
    NothingToShow,
)
from asgihive.hdf5.datasets import Dataset
from asgihive.hdf5.links import PASSING, LinkResolution, Resolved, walk
from asgihive.hdf5.nexus import Described, describe, find_axes, find_default_signal, is_signal
from asgihive.hdf5.open_file import OpenFile
from asgihive.hdf5.opening import open_dataset
from asgihive.hdf5.plan import Selection, parse_selection
from asgihive.hdf5.pool import Lease
from asgihive.service.requests import ReadRequest
from asgihive.viewer.pictured import find_named, is_of_numbers, select_last

MAX_CURVES = 16
"""Curves of one plot."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """What an axis or a curve is called."""

    name: str
    units: str = ""

    @property
    def label(self) -> str:
        """Both."""
        return f"{self.name} ({self.units})" if self.units else self.name


@dataclass(frozen=True, slots=True)
class CurveSource:
    """A curve, and the datasets that it is made of."""

    dataset: Dataset
    selection: Selection
    """Of one dimension."""
    quantity: Quantity
    axis: Dataset | None
    """Of one dimension, as long as that of the dataset, or with one more: the edges of bins."""
    axis_quantity: Quantity
    errors: Dataset | None
    """Of the shape of the dataset."""
    title: str

    @property
    def dimension(self) -> int:
        """The dimension of the dataset along which the curve goes."""
        return next(k for k, axis in enumerate(self.selection.axes) if not axis.dropped)

    @property
    def datasets(self) -> list[Dataset]:
        """All that it is made of."""
        return [each for each in (self.dataset, self.axis, self.errors) if each is not None]


def find_curves(request: ReadRequest, lease: Lease) -> Portions[list[CurveSource]]:
    """Return what a request for a plot shows. In the library lane.

    Without a selection, of all dimensions but the last the first element.

    Raises:
        NothingToShow: no dataset is named, and no default is found.
        KindMismatch, BadSelection: it is no curve.
        BadParameter: there are too many, or too few selections for them.
        Exception: whatever opening raises.
    """
    file = lease.open_asked(request.file)
    paths, selections = request.values["path"] or ("/",), request.values["selection"]
    if len(paths) > MAX_CURVES:
        raise BadParameter("path", paths[MAX_CURVES], f"at most {MAX_CURVES} paths are accepted")
    if len(selections) not in {0, 1, len(paths)}:
        accepted = f"one selection for all paths, or one for each of {len(paths)}, is accepted"
        raise BadParameter("selection", ";".join(selections), accepted)
    if len(selections) < 2:
        selections = (selections[0] if selections else "",) * len(paths)
    found: list[tuple[str, str]] = []
    for path, text in zip(paths, selections, strict=True):
        signals = yield from _find_signals(request, lease, file, path)
        found += [(each, text) for each in signals]
    curves = []
    for path, text in found[:MAX_CURVES]:
        curve = yield from _describe_curve(request, lease, file, path, text)
        curves.append(curve)
    return curves


def _find_signals(
    request: ReadRequest, lease: Lease, file: OpenFile, path: str
) -> Portions[list[str]]:
    """Return the paths of the signals that a path means: of a group its default ones."""
    found = find_named(request, lease, file, path)
    if found.object.kind == "dataset":
        return [path]
    signal = yield from find_default_signal(lease, found)
    if signal is None:
        raise NothingToShow(request.file, path, "signal of a group")
    group = _find_parent(lease, file, signal.path)
    names = () if group is None else group.find_texts("auxiliary_signals")[: MAX_CURVES - 1]
    folder = signal.path.rpartition("/")[0]
    return [signal.path, *(f"{folder}/{name}" for name in names)]


def _find_parent(lease: Lease, file: OpenFile, path: str) -> Described | None:
    parent = path.rstrip("/").rpartition("/")[0] or "/"
    found = walk(lease, file, parent, LinkResolution.ALL)
    return describe(found) if isinstance(found, Resolved) else None


def _describe_curve(
    request: ReadRequest, lease: Lease, file: OpenFile, path: str, text: str
) -> Portions[CurveSource]:
    dataset = yield from open_dataset(lease, file, path)
    lease.objects.append(dataset)
    if not is_of_numbers(dataset):
        kind = f"dataset of {dataset.dtype}"
        raise KindMismatch(request.file, dataset.path, kind, "a dataset of real numbers")
    selection = _select_curve(request, dataset, text)
    found = walk(lease, file, path, LinkResolution.ALL)
    group, name = _find_parent(lease, file, path), path.rstrip("/").rpartition("/")[2]
    signal = describe(found) if isinstance(found, Resolved) else None
    quantity = _find_quantity(signal, name)
    axis = errors = None
    axis_quantity, title = Quantity("index"), ""
    if group is not None and signal is not None and is_signal(group, signal, name):
        rank = len(dataset.shape or ())
        along = next(k for k, each in enumerate(selection.axes) if not each.dropped)
        names = find_axes(group, signal, rank)
        axis = yield from _open_member(lease, file, group, names[along])
        length = (dataset.shape or ())[along]
        if axis is None or axis.shape not in {(length,), (length + 1,)}:
            axis = None
        else:
            axis_quantity = _find_quantity_at(lease, file, axis.path, names[along])
        wanted = (f"{name}_errors", signal.find_text("uncertainties"), "errors")
        for each in wanted:
            errors = yield from _open_member(lease, file, group, each)
            if errors is not None and errors.shape == dataset.shape:
                break
            errors = None
        title = group.find_text("title")
    return CurveSource(dataset, selection, quantity, axis, axis_quantity, errors, title)


def _select_curve(request: ReadRequest, dataset: Dataset, text: str) -> Selection:
    shape = dataset.shape
    if not shape:
        kind = "scalar dataset" if shape == () else "dataset without values"
        raise KindMismatch(request.file, dataset.path, kind, "one of one dimension or more")
    if not text.strip():
        text = select_last(shape, 1)
    selection = parse_selection(text, shape)
    if len(selection.shape) != 1:
        accepted = (
            f"it has {len(selection.shape)} dimensions, and a curve has one: a slice for one of "
            f"{len(shape)} and integers for all others are accepted; of two, /image makes a picture"
        )
        raise BadSelection(text, accepted)
    if not selection.size:
        raise BadSelection(text, "nothing is selected")
    return selection


def _open_member(
    lease: Lease, file: OpenFile, group: Described, name: str
) -> Portions[Dataset | None]:
    """Return a dataset of real numbers that a group names; None where there is none."""
    if name in {"", "."}:
        return None
    try:
        path = name if name.startswith("/") else f"{group.path.rstrip('/')}/{name}"
        dataset = yield from open_dataset(lease, file, path)
    except PASSING:
        raise
    except AsgihiveError:
        return None
    lease.objects.append(dataset)
    return dataset if is_of_numbers(dataset) else None


def _find_quantity_at(lease: Lease, file: OpenFile, path: str, name: str) -> Quantity:
    found = walk(lease, file, path, LinkResolution.ALL)
    return _find_quantity(describe(found) if isinstance(found, Resolved) else None, name)


def _find_quantity(described: Described | None, name: str) -> Quantity:
    if described is None:
        return Quantity(name)
    return Quantity(described.find_text("long_name") or name, described.find_text("units"))
