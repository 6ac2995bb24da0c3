"""From the text of a hyperslab selection to integers; pure."""

import re
from dataclasses import dataclass, field

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
    pairs = zip(members, shape, strict=True)
    axes = [_parse_member(text, *each, dimension) for dimension, each in enumerate(pairs)]
    return Selection(tuple(axes))


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
