"""From a selection to the chunks that it touches, and what it takes of each; pure."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from asgihive.hdf5.chunk_table import ChunkGrid, ChunkTable, Numbers
from asgihive.hdf5.selection import Axis

Flags = np.ndarray[Any, np.dtype[np.bool]]

# So many chunks at a time are turned from rows of a table into objects.
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Part:
    """What a selection takes of one chunk: `inside` the chunk, and `outside` where it goes."""

    coordinates: tuple[int, ...]
    inside: tuple[slice, ...]
    outside: tuple[slice, ...]

    def is_whole(self, chunks: tuple[int, ...]) -> bool:
        """Whether it is all elements of the chunk."""
        return all(
            (each.stop - each.start, each.step) == (chunk, 1)
            for each, chunk in zip(self.inside, chunks, strict=True)
        )


def count_touched(axes: tuple[Axis, ...], chunks: tuple[int, ...]) -> int:
    """How many chunks the selection touches."""
    return math.prod(
        min(axis.count, (axis.stop - 1) // chunk - axis.start // chunk + 1) if axis.count else 0
        for axis, chunk in zip(axes, chunks, strict=True)
    )


def parts_of(axes: tuple[Axis, ...], chunks: tuple[int, ...]) -> Iterator[Part]:
    """What the selection takes of each chunk it touches, in C order."""
    if not axes:
        yield Part((), (), ())
        return
    for before in parts_of(axes[:-1], chunks[:-1]):
        for at, inside, outside in cut_axis(axes[-1], chunks[-1]):
            yield Part(
                (*before.coordinates, at), (*before.inside, inside), (*before.outside, outside)
            )


def cut_axis(axis: Axis, chunk: int) -> Iterator[tuple[int, slice, slice]]:
    """Each chunk along one axis, what is selected inside it, and where that goes."""
    done = 0
    while done < axis.count:
        at, first = divmod(axis.start + done * axis.step, chunk)
        count = min(axis.count - done, -(-(chunk - first) // axis.step))
        inside = slice(first, first + (count - 1) * axis.step + 1, axis.step)
        yield at, inside, slice(done, done + count)
        done += count


def begin_of(axis: Axis, chunk: int, number: int) -> int:
    """The position along the axis of the first index in the chunk of that number it touches."""
    if axis.step > chunk:
        return number
    boundary = (axis.start // chunk + number) * chunk
    return min(-(-max(boundary - axis.start, 0) // axis.step), axis.count)


def coordinates_touched(
    axes: tuple[Axis, ...], chunks: tuple[int, ...]
) -> Iterator[tuple[int, ...]]:
    """The coordinates of the chunks that the selection touches, in C order."""
    if not axes:
        yield ()
        return
    for before in coordinates_touched(axes[:-1], chunks[:-1]):
        for at, _, _ in cut_axis(axes[-1], chunks[-1]):
            yield (*before, at)


def numbers_touched(axes: tuple[Axis, ...], grid: ChunkGrid) -> Numbers:
    """The numbers of the chunks that the selection touches, ascending."""
    numbers = np.zeros(1, np.int64)
    for axis, chunk, stride in zip(axes, grid.chunks, grid.strides, strict=True):
        if axis.step <= chunk:
            along = np.arange(axis.start // chunk, (axis.stop - 1) // chunk + 1)
        else:
            along = (axis.start + np.arange(axis.count) * axis.step) // chunk
        numbers = (numbers[:, None] + along * stride).reshape(-1)
    return numbers


def stored_parts(axes: tuple[Axis, ...], grid: ChunkGrid, table: ChunkTable) -> Iterator[Part]:
    """What the selection takes of each chunk of `table` that it touches, in C order.

    Costs what the table has there, however many chunks the selection touches.
    """
    pairs = list(zip(axes, grid.chunks, strict=True))
    ends = [
        grid.number([index // chunk for index, (_, chunk) in zip(corner, pairs, strict=True)])
        for corner in ([axis.start for axis in axes], [axis.stop - 1 for axis in axes])
    ]
    first, stop = np.searchsorted(table.numbers, [ends[0], ends[1] + 1]).tolist()
    for at in range(first, stop, _ROWS_AT_ONCE):
        coordinates = grid.coordinates_of(table.numbers[at : min(at + _ROWS_AT_ONCE, stop)])
        is_touched = np.ones(coordinates[0].shape, bool)
        for along, (axis, chunk) in zip(coordinates, pairs, strict=True):
            is_touched &= _is_touched(axis, chunk, along)
        for each in zip(*(along[is_touched].tolist() for along in coordinates), strict=True):
            yield _part_at(each, pairs)


def _is_touched(
    axis: Axis, chunk: int, along: Numbers
) -> np.ndarray[tuple[int], np.dtype[np.bool]]:
    """Whether the chunks at these coordinates have an index of the axis."""
    begin = along * chunk
    # The first index of the axis that is not before the chunk.
    at = axis.start + -(-np.maximum(begin - axis.start, 0) // axis.step) * axis.step
    touched: Flags = (at < begin + chunk) & (at < axis.stop)
    return touched


def _part_at(coordinates: tuple[int, ...], pairs: list[tuple[Axis, int]]) -> Part:
    """What the selection takes of one chunk that it touches."""
    inside, outside = [], []
    for at, (axis, chunk) in zip(coordinates, pairs, strict=True):
        begin = at * chunk
        done = -(-max(begin - axis.start, 0) // axis.step)
        first = axis.start + done * axis.step - begin
        count = min(axis.count - done, -(-(chunk - first) // axis.step))
        inside.append(slice(first, first + (count - 1) * axis.step + 1, axis.step))
        outside.append(slice(done, done + count))
    return Part(coordinates, tuple(inside), tuple(outside))
