"""From the text of a hyperslab selection to integers, and to the blocks of one reading; pure."""

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from asgihive.errors import BadSelection

ACCEPTED = (
    "comma-separated integers and slices `start:stop:step` are accepted, one per dimension, "
    "with `...` for the rest"
)

_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class Axis:
    """What is selected along one dimension: `start, start + step, …`, `count` indices."""

    start: int
    step: int
    count: int
    dropped: bool = False
    """Whether it was given as an integer, and so is no axis of the selection's shape."""

    @property
    def stop(self) -> int:
        """One past the last selected index; `start` when nothing is selected."""
        return self.start + (self.count - 1) * self.step + 1 if self.count else self.start

    def part(self, first: int, count: int) -> "Axis":
        """Return the `count` indices from position `first` on."""
        return Axis(self.start + first * self.step, self.step, count, self.dropped)


@dataclass(frozen=True, slots=True)
class Selection:
    """A regular hyperslab selection, one `Axis` per dimension of the dataset."""

    axes: tuple[Axis, ...]
    shape: tuple[int, ...] = field(init=False, compare=False)
    """Of the selected elements."""

    size: int = field(init=False, compare=False)
    """The number of selected elements."""

    def __post_init__(self) -> None:
        shape, size = [], 1
        for axis in self.axes:
            size *= axis.count
            if not axis.dropped:
                shape.append(axis.count)
        object.__setattr__(self, "shape", tuple(shape))
        object.__setattr__(self, "size", size)


def select_all(shape: tuple[int, ...]) -> Selection:
    """Return the selection of everything."""
    return Selection(tuple(Axis(0, 1, length) for length in shape))


def parse_selection(text: str | None, shape: tuple[int, ...]) -> Selection:
    """Return the selection that `text` means on a dataset of `shape`; None and empty mean all.

    As in NumPy: negative indices count from the end, slices are clipped, an integer drops
    its dimension. Steps are at least 1, since HDF5's hyperslabs know no others.

    Raises:
        BadSelection: says which member is wrong, and what is accepted.
    """
    if text is None or not text.strip():
        return select_all(shape)
    members = list(map(str.strip, text.split(",")))
    if members.count("...") > 1:
        raise BadSelection(text, f"more than one `...`; {ACCEPTED}")
    given = len(members) - ("..." in members)
    if given > len(shape):
        dimensions = f"{len(shape)} dimension{'s' if len(shape) != 1 else ''}"
        raise BadSelection(text, f"{given} members, but the dataset has {dimensions} {shape}")
    rest = [":"] * (len(shape) - given)
    if "..." in members:
        at = members.index("...")
        members[at : at + 1] = rest
    else:
        members += rest
    parse = partial(_parse_member, text)
    return Selection(tuple(map(parse, members, shape, range(len(shape)))))


def _parse_member(text: str, member: str, length: int, dimension: int) -> Axis:
    numbers: list[int | None] = []
    for part in map(str.strip, member.split(":")):
        if part and not _INTEGER.fullmatch(part):
            message = f"`{member}` is neither an integer nor a slice; {ACCEPTED}"
            raise BadSelection(text, message)
        numbers.append(int(part) if part else None)
    if len(numbers) == 1:
        index = numbers[0]
        if index is None:
            raise BadSelection(text, f"member {dimension + 1} is empty; {ACCEPTED}")
        if not -length <= index < length:
            raise BadSelection(
                text, f"index {index} is out of bounds for dimension {dimension} of {length}"
            )
        return Axis(index % length, 1, 1, dropped=True)
    if len(numbers) > 3:
        raise BadSelection(text, f"`{member}` has too many colons; {ACCEPTED}")
    step = 1 if len(numbers) < 3 or numbers[2] is None else numbers[2]
    if step < 1:
        raise BadSelection(text, f"the step of `{member}` is {step}; at least 1 is accepted")
    start, stop, step = slice(numbers[0], numbers[1], step).indices(length)
    count = len(range(start, stop, step))
    # The step to an index that is not selected means nothing, and may exceed 64 bits.
    return Axis(start, step if count > 1 else 1, count)


@dataclass(frozen=True, slots=True)
class Block:
    """One contiguous run of the selection, in C order, and where it lies in the dataset."""

    first: int
    """Number of elements of the selection before this block."""

    axes: tuple[Axis, ...]
    """What to read, one per dimension of the dataset."""

    shape: tuple[int, ...]
    """The block's shape in the selection: whole rows of one axis."""

    size: int
    """The number of elements."""


def plan_blocks(
    selection: Selection, chunks: tuple[int, ...] | None, item_bytes: int, block_bytes: int
) -> Iterator[Block]:
    """Yield the blocks of `selection` in C order, each at most `block_bytes` large.

    A block spans whole rows of all axes behind the one that is cut. Cuts fall on chunk
    boundaries where one is near enough, so that a chunk is not decoded for two blocks.
    A single element larger than `block_bytes` still makes a block. Nothing is yielded for
    an empty selection.
    """
    if selection.size == 0:
        return
    if selection.size * item_bytes <= block_bytes or not selection.axes:
        yield Block(0, selection.axes, selection.shape, selection.size)
        return
    cut = _choose_cut(selection, item_bytes, block_bytes)
    behind = selection.axes[cut + 1 :]
    row = math.prod(axis.count for axis in behind)
    most = max(1, block_bytes // max(1, row * item_bytes))
    axis = selection.axes[cut]
    chunk = chunks[cut] if chunks else 1
    kept_behind = tuple(each.count for each in behind if not each.dropped)
    first = 0
    for before in walk_positions(selection.axes[:cut]):
        position = 0
        while position < axis.count:
            count = _count_to_boundary(axis, position, min(most, axis.count - position), chunk)
            shape = kept_behind if axis.dropped else (count, *kept_behind)
            if selection.shape and not shape:
                shape = (1,)
            axes = (*before, axis.part(position, count), *behind)
            yield Block(first, axes, shape, count * row)
            position += count
            first += count * row


def measure_chunk_row(selection: Selection, chunks: tuple[int, ...] | None, item_bytes: int) -> int:
    """Return the bytes of the selection in one row of chunks.

    Smaller blocks would decode chunks repeatedly.
    """
    if chunks is None or not selection.size:
        return 0
    rest = selection.size * item_bytes
    for axis, chunk in zip(selection.axes, chunks, strict=True):
        rest //= axis.count
        if axis.count > 1:
            return rest * min(axis.count, -(-chunk // axis.step))
    return rest


def _choose_cut(selection: Selection, item_bytes: int, block_bytes: int) -> int:
    """Return the first axis whose single positions fit into a block; the last one at worst."""
    size = item_bytes * selection.size
    for position, axis in enumerate(selection.axes):
        size //= axis.count
        if size <= block_bytes:
            return position
    return len(selection.axes) - 1


def _count_to_boundary(axis: Axis, position: int, most: int, chunk: int) -> int:
    """Return how many positions to take, at most `most`, up to a chunk boundary among them."""
    if position + most >= axis.count:
        return most
    # First dataset index of the chunk in which the position after the longest block lies.
    beyond = axis.start + (position + most) * axis.step
    boundary = beyond // chunk * chunk
    count = -(-(boundary - axis.start) // axis.step) - position
    return count if count > 0 else most


def walk_positions(axes: tuple[Axis, ...]) -> Iterator[tuple[Axis, ...]]:
    """Yield every combination of single positions along `axes`, in C order."""
    if not axes:
        yield ()
        return
    for before in walk_positions(axes[:-1]):
        for position in range(axes[-1].count):
            yield (*before, axes[-1].part(position, 1))


def find_run(axes: tuple[Axis, ...], shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Return first and number of elements, if those at `axes` are one run of linear storage."""
    first, count, stride, is_whole = 0, 1, 1, True
    for axis, extent in zip(reversed(axes), reversed(shape), strict=True):
        first += axis.start * stride
        if axis.count != 1:
            if not is_whole or axis.step != 1:
                return None
            count *= axis.count
        is_whole = is_whole and axis.count == extent
        stride *= extent
    return first, count


@dataclass(frozen=True, slots=True)
class Window:
    """Elements of linear storage that are read in one go, though only some are wanted."""

    first: int
    count: int
    shape: tuple[int, ...]
    """Of the box that they are."""

    inside: tuple[slice, ...] | None
    """What of that is wanted; None = all of it."""

    target: tuple[slice, ...]
    """Where that goes in what is read."""


GAP_BYTES = 4096
"""Bytes between two wanted runs that cost less to read than a second call does."""


def plan_windows(
    axes: tuple[Axis, ...], shape: tuple[int, ...], item_bytes: int, window_bytes: int
) -> Iterator[Window]:
    """Yield what to read of linear storage for the elements at `axes`, each at most once.

    Runs that lie near each other share a window of at most about `window_bytes`; a run by
    itself may be longer.
    """
    cut = _choose_window_axis(axes, shape, item_bytes)
    behind = axes[cut + 1 :]
    row = math.prod(shape[cut + 1 :])
    strides = [math.prod(shape[dimension + 1 :]) for dimension in range(cut)]
    is_whole = all(
        axis == Axis(0, 1, n, axis.dropped)
        for axis, n in zip(behind, shape[cut + 1 :], strict=True)
    )
    inner = tuple(slice(axis.start, axis.stop, axis.step) for axis in behind)
    axis = axes[cut]
    together = is_whole and axis.step == 1
    apart = axis.step > 1 and (axis.step - 1) * row * item_bytes > GAP_BYTES
    most = axis.count if together else max(1, window_bytes // max(1, row * item_bytes * axis.step))
    for outer in itertools.product(*(range(each.count) for each in axes[:cut])):
        base = sum(
            (each.start + each.step * at) * stride
            for each, at, stride in zip(axes, outer, strides, strict=False)
        )
        where = tuple(slice(at, at + 1) for at in outer)
        for position in range(0, axis.count, 1 if apart else most):
            part = axis.part(position, min(1 if apart else most, axis.count - position))
            length = part.stop - part.start
            inside = None if together else (slice(None, None, axis.step), *inner)
            if cut:
                inside = inside and (*(slice(None),) * cut, *inside)
            yield Window(
                base + part.start * row,
                length * row,
                (*(1,) * cut, length, *shape[cut + 1 :]),
                inside,
                (*where, slice(position, position + part.count)),
            )


def _choose_window_axis(axes: tuple[Axis, ...], shape: tuple[int, ...], item_bytes: int) -> int:
    """Return the first axis whose rows are worth reading whole: small, or mostly wanted."""
    cut = len(axes) - 1
    wanted = 1
    while cut:
        row = math.prod(shape[cut:])
        wanted *= axes[cut].count
        if row * item_bytes > GAP_BYTES and wanted * 4 < row:
            break
        cut -= 1
    return cut


def cut_run(axes: tuple[Axis, ...], first: int, stop: int) -> Iterator[tuple[Axis, ...]]:
    """Yield the boxes, in C order, of the elements `first` to before `stop` of those at `axes`.

    At most one less than twice as many as there are dimensions: parts of rows at both ends of
    each of them, and whole rows between.
    """
    if first >= stop:
        return
    if not axes:
        yield ()
        return
    axis, behind = axes[0], axes[1:]
    row = math.prod(each.count for each in behind)
    (position, before), (last, after) = divmod(first, row), divmod(stop, row)
    if position == last:
        yield from _prefix(axis, position, cut_run(behind, before, after))
        return
    if before:
        yield from _prefix(axis, position, cut_run(behind, before, row))
        position += 1
    if position < last:
        yield (axis.part(position, last - position), *behind)
    if after:
        yield from _prefix(axis, last, cut_run(behind, 0, after))


def plan_run(
    selection: Selection,
    run: tuple[int, int],
    chunks: tuple[int, ...] | None,
    item_bytes: int,
    block_bytes: int,
) -> Iterator[Block]:
    """Yield blocks as `plan_blocks`, of the elements `run[0]` to before `run[1]` alone."""
    first, stop = run
    for axes in cut_run(selection.axes, first, stop):
        box = Selection(axes)
        for block in plan_blocks(box, chunks, item_bytes, block_bytes):
            yield replace(block, first=first + block.first)
        first += box.size


def _prefix(
    axis: Axis, position: int, inner: Iterator[tuple[Axis, ...]]
) -> Iterator[tuple[Axis, ...]]:
    for each in inner:
        yield (axis.part(position, 1), *each)
