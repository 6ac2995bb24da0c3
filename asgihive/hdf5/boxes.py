"""From a run of the answer's elements to the hyperslabs that hold them; pure."""

import math
from collections.abc import Iterator
from dataclasses import replace

from asgihive.hdf5.plan import Block, plan_blocks
from asgihive.hdf5.selection import Axis, Selection


def boxes(axes: tuple[Axis, ...], first: int, stop: int) -> Iterator[tuple[Axis, ...]]:
    """The hyperslabs, in C order, of the elements `first` to before `stop` of those at `axes`.

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
        yield from _within(axis, position, boxes(behind, before, after))
        return
    if before:
        yield from _within(axis, position, boxes(behind, before, row))
        position += 1
    if position < last:
        yield (axis.part(position, last - position), *behind)
    if after:
        yield from _within(axis, last, boxes(behind, 0, after))


def plan_run(
    selection: Selection,
    run: tuple[int, int],
    chunks: tuple[int, ...] | None,
    item_bytes: int,
    block_bytes: int,
) -> Iterator[Block]:
    """As `plan_blocks`, of the elements `run[0]` to before `run[1]` of the selection alone."""
    first, stop = run
    for axes in boxes(selection.axes, first, stop):
        box = Selection(axes)
        for block in plan_blocks(box, chunks, item_bytes, block_bytes):
            yield replace(block, first=first + block.first)
        first += box.size


def _within(
    axis: Axis, position: int, inner: Iterator[tuple[Axis, ...]]
) -> Iterator[tuple[Axis, ...]]:
    for each in inner:
        yield (axis.part(position, 1), *each)
