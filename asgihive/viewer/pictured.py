"""Which dataset is pictured, and which part of it; and how that is told."""

from dataclasses import dataclass
from urllib.parse import quote

from asgihive.concurrency import Portions
from asgihive.errors import BadSelection, KindMismatch, NothingToShow
from asgihive.hdf5.datasets import Dataset
from asgihive.hdf5.file_bytes import encoded
from asgihive.hdf5.links import LinkResolution, Resolved, kind_of, walk
from asgihive.hdf5.nexus import describe, find_default_signal, find_main_image
from asgihive.hdf5.open_file import OpenFile
from asgihive.hdf5.opening import open_dataset
from asgihive.hdf5.plan import Axis, Selection, parse_selection
from asgihive.hdf5.pool import Lease
from asgihive.service.requests import ReadRequest

# HDF5 Image and Palette Specification, 1.2; NeXus, NXdata.
_COLOUR_INTERPRETATIONS = frozenset({"rgb-image", "rgba-image"})
_COLOURS = frozenset({3, 4})
_BY_PIXEL = frozenset({"", "INTERLACE_PIXEL"})


@dataclass(frozen=True, slots=True)
class PicturedDataset:
    """The part of a dataset that is pictured."""

    dataset: Dataset
    selection: Selection
    has_colours: bool
    """Whether its last axis is red, green, blue and maybe alpha, and not a length."""


def find_pictured(request: ReadRequest, lease: Lease) -> Portions[PicturedDataset]:
    """Return what a request for an image shows. In the library lane.

    Without a selection, of all axes but those of the image the first element.

    Raises:
        NothingToShow: no dataset is named, and none is found.
        KindMismatch, BadSelection: it is no image.
        Exception: whatever opening raises.
    """
    file = lease.open_asked(request.file)
    dataset = yield from _find_dataset(request, lease, file)
    lease.objects.append(dataset)
    if not is_of_numbers(dataset):
        kind = f"dataset of {dataset.dtype}"
        if dataset.item_shape:
            kind = f"dataset of arrays {dataset.item_shape} of {dataset.dtype}"
        raise KindMismatch(request.file, dataset.path, kind, "a dataset of real numbers")
    if dataset.shape is None:
        raise KindMismatch(request.file, dataset.path, "dataset without values", "an image")
    has_colours = _has_colours(lease, file, dataset)
    text, rank = request.values["selection"], 3 if has_colours else 2
    if not text or not text.strip():
        shape = dataset.shape
        if len(shape) < rank:
            kind = "dataset of one dimension" if shape else "scalar dataset"
            needed = "one of two dimensions or more (/plot shows one)"
            raise KindMismatch(request.file, dataset.path, kind, needed)
        text = select_last(shape, rank)
    selection = parse_selection(text, dataset.shape)
    if has_colours:
        last = selection.axes[-1]
        is_whole = not last.dropped and last.count == dataset.shape[-1] and last.step == 1
        has_colours = is_whole and len(selection.shape) == 3
    _check(text, selection, has_colours=has_colours)
    return PicturedDataset(dataset, selection, has_colours)


def _check(text: str, selection: Selection, *, has_colours: bool) -> None:
    rank = len(selection.shape)
    if rank != 2 and not has_colours:
        accepted = (
            f"it has {rank} dimensions, and an image has two: slices for two of them and integers "
            "for all others are accepted, such as 0,:,:"
        )
        if rank == 1:
            accepted += "; of one dimension, /plot makes a picture"
        raise BadSelection(text, accepted)
    if not selection.size:
        raise BadSelection(text, f"nothing is selected, as its shape is {selection.shape}")


def _find_dataset(request: ReadRequest, lease: Lease, file: OpenFile) -> Portions[Dataset]:
    found = find_named(request, lease, file, request.path)
    if found.object.kind == "dataset":
        return (yield from open_dataset(lease, file, request.path))
    shown = yield from find_default_signal(lease, found)
    if shown is None:
        shown = yield from find_main_image(lease, found)
    if shown is None:
        needed = "dataset of real numbers in two dimensions or more"
        raise NothingToShow(request.file, request.path, needed)
    return (yield from open_dataset(lease, file, shown.path))


def find_named(request: ReadRequest, lease: Lease, file: OpenFile, path: str) -> Resolved:
    """Return the dataset or group that a request names.

    Raises:
        KindMismatch: it is neither.
        Exception: whatever `walk` raises.
    """
    found = walk(lease, file, path, LinkResolution.ALL)
    if not isinstance(found, Resolved) or found.object.kind not in {"group", "dataset"}:
        kind = kind_of(found).replace("_", " ")
        raise KindMismatch(request.file, found.path, kind, "a dataset or a group")
    return found


def select_last(shape: tuple[int, ...], rank: int) -> str:
    """Return the selection of the last dimensions, of all others of the first element.

    Raises:
        BadSelection: there are no elements.
    """
    text = ",".join(["0"] * (len(shape) - rank) + [":"] * rank)
    if 0 in shape:
        raise BadSelection(text, f"there is nothing to show, as the shape is {shape}")
    return text


def is_of_numbers(dataset: Dataset) -> bool:
    """Return whether the elements of a dataset are real numbers or booleans."""
    return dataset.dtype.kind in "biuf" and not dataset.item_shape


def _has_colours(lease: Lease, file: OpenFile, dataset: Dataset) -> bool:
    """Return whether a dataset says that its last axis is one of colours."""
    shape = dataset.shape or ()
    if dataset.dtype.str != "|u1" or len(shape) < 3 or shape[-1] not in _COLOURS:
        return False
    found = walk(lease, file, dataset.path, LinkResolution.ALL)
    if not isinstance(found, Resolved):
        return False
    said = describe(found)
    if said.find_text("interpretation") in _COLOUR_INTERPRETATIONS:
        return True
    is_image = said.find_text("CLASS") == "IMAGE"
    return is_image and said.find_text("INTERLACE_MODE") in _BY_PIXEL


def format_selection(selection: Selection) -> str:
    """Return a selection as a request would have it."""
    return ",".join(map(_format_axis, selection.axes))


def _format_axis(axis: Axis) -> str:
    if axis.dropped:
        return str(axis.start)
    step = f":{axis.step}" if axis.step != 1 else ""
    return f"{axis.start}:{axis.stop}{step}"


def format_paths(paths: list[str]) -> str:
    """Return paths as the value of a header, percent-encoded, with commas between them."""
    return ",".join(quote(encoded(path)) for path in paths)
