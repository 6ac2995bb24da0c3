"""From a dataset's filter pipeline to the bytes of a chunk, exactly as many as it has."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from asgihive.hdf5 import codecs, decoders
from asgihive.hdf5.decoders import Bytes, Decoder, Room, UnknownForm
from asgihive.hdf5.layout import Filter
from asgihive.hdf5.library_filters import run_filter
from asgihive.hdf5.unshuffle import Unshuffle

_SHUFFLE, _FLETCHER32 = 2, 3

# What the filters before one may have added to a chunk, beyond doubling it.
_SLACK_BYTES = 1 << 16

# What is decoded here, also where no codecs are installed.
_ALWAYS: dict[int, Decoder] = {
    1: decoders.deflate,
    _SHUFFLE: decoders.shuffle,
    _FLETCHER32: decoders.fletcher32,
    307: decoders.bzip2,
}

_DECODERS: dict[int, Decoder] = {**_ALWAYS, **codecs.installed()}


class NoDecoder(Exception):  # translated at once by those who know the entity
    """A chunk went through a filter that nothing here can undo."""

    def __init__(self, missing: Filter) -> None:
        super().__init__(missing)
        self.filter = missing


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The filters of a dataset, in the order of writing, and the raw size of its chunks.

    needs_library: whether `decode` always calls libhdf5, which is for the library lane alone.
    """

    filters: tuple[Filter, ...]
    chunk_bytes: int
    needs_library: bool

    @property
    def most_stored(self) -> int:
        """The largest size that a stored chunk may have, in bytes."""
        return 2 * self.chunk_bytes + _SLACK_BYTES

    def applies(self, filter_mask: int) -> bool:
        """Whether a chunk of that mask went through any filter at all."""
        return any(not filter_mask >> index & 1 for index in range(len(self.filters)))

    def decode(self, stored: Bytes, filter_mask: int) -> Bytes:
        """The raw bytes of a chunk, `chunk_bytes` of them; perhaps `stored` itself.

        A bit of `filter_mask` switches off the filter of that position (HDF5 File Format
        Specification, section III.A.1).

        Raises:
            BadChunk: they are more, or less, or not to be had.
            NoDecoder: a filter is not installed.
        """
        applied = [each for index, each in enumerate(self.filters) if not filter_mask >> index & 1]
        rooms = self._rooms(applied)
        while applied:
            stored = _last_undone(applied, stored, rooms)
        Room(self.chunk_bytes).check("it", stored.size)
        return stored

    def _rooms(self, applied: Sequence[Filter]) -> list[Room]:
        """How much each filter was given: known until one changes the size unpredictably."""
        rooms = []
        room = Room(self.chunk_bytes)
        for each in applied:
            rooms.append(room)
            if each.id == _FLETCHER32:
                room = Room(room.most + 4, room.exact)
            elif each.id != _SHUFFLE:
                room = Room(self.most_stored, exact=False)
        return rooms


def pipeline_of(filters: tuple[Filter, ...], chunk_bytes: int) -> Pipeline:
    """The pipeline of a dataset whose chunks have `chunk_bytes` bytes each."""
    return Pipeline(filters, chunk_bytes, any(each.id not in _DECODERS for each in filters))


def _last_undone(applied: list[Filter], stored: Bytes, rooms: list[Room]) -> Bytes:
    """`stored` before the last filter, or the last two, which are taken off the lists."""
    last, room = applied.pop(), rooms.pop()
    shuffle = _DECODERS[_SHUFFLE]
    if applied and applied[-1].id == _SHUFFLE and isinstance(shuffle, Unshuffle):
        before = shuffle.after(last.id, stored, applied[-1].values, room)
        if before is not None:
            applied.pop()
            rooms.pop()
            return before
    return _undone(last, stored, room)


def _undone(applied: Filter, stored: Bytes, room: Room) -> Bytes:
    decoder = _DECODERS.get(applied.id)
    if decoder is not None:
        # What it does not know, libhdf5's filter may. That runs in whatever lane decodes, which
        # then waits for libhdf5's lock: which form a chunk has is not known before.
        with contextlib.suppress(UnknownForm):
            return decoder(stored, applied.values, room)
    if not applied.available:
        raise NoDecoder(applied)
    check = codecs.CHECKS.get(applied.id)
    if check is not None:
        check(stored, applied.values, room)
    return run_filter(applied.id, applied.name, stored, applied.values, room)
