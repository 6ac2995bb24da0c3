"""From the text of a hyperslab selection to integers; pure."""

import re
from dataclasses import dataclass

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

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the selected elements."""
        return tuple(axis.count for axis in self.axes if not axis.dropped)

    @property
    def size(self) -> int:
        """The number of selected elements."""
        size = 1
        for axis in self.axes:
            size *= axis.count
        return size


def whole(shape: tuple[int, ...]) -> Selection:
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
        return whole(shape)
    members = [member.strip() for member in text.split(",")]
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
    return Selection(
        tuple(
            _parse_member(text, member, dimension, length)
            for dimension, (member, length) in enumerate(zip(members, shape, strict=True))
        )
    )


def _parse_member(text: str, member: str, dimension: int, length: int) -> Axis:
    parts = [part.strip() for part in member.split(":")]
    numbers = [_parse_integer(text, member, part) for part in parts]
    if len(parts) == 1:
        index = numbers[0]
        if index is None:
            raise BadSelection(text, f"member {dimension + 1} is empty; {ACCEPTED}")
        if not -length <= index < length:
            raise BadSelection(
                text, f"index {index} is out of bounds for dimension {dimension} of {length}"
            )
        return Axis(index % length, 1, 1, dropped=True)
    if len(parts) > 3:
        raise BadSelection(text, f"`{member}` has too many colons; {ACCEPTED}")
    step = 1 if len(parts) < 3 or numbers[2] is None else numbers[2]
    if step < 1:
        raise BadSelection(text, f"the step of `{member}` is {step}; at least 1 is accepted")
    start, stop, step = slice(numbers[0], numbers[1], step).indices(length)
    count = len(range(start, stop, step))
    # The step to an index that is not selected means nothing, and may exceed 64 bits.
    return Axis(start, step if count > 1 else 1, count)


def _parse_integer(text: str, member: str, part: str) -> int | None:
    if not part:
        return None
    if not _INTEGER.fullmatch(part):
        raise BadSelection(text, f"`{member}` is neither an integer nor a slice; {ACCEPTED}")
    return int(part)
