"""From a dataset's filter pipeline to the bytes of a chunk, exactly as many as it has."""

import contextlib
import importlib
import pkgutil
from dataclasses import dataclass

from asgihive.hdf5 import filters as package
from asgihive.hdf5.buffers import Bytes
from asgihive.hdf5.filters.builtin import FLETCHER32, SHUFFLE, decode_and_unshuffle
from asgihive.hdf5.filters.contract import BadChunk, FilterDecoder, Room, UnknownForm
from asgihive.hdf5.filters.library import run_filter
from asgihive.hdf5.layout import Filter

# What the filters before one may have added to a chunk, beyond doubling it.
_SLACK_BYTES = 1 << 16


def find_decoders() -> dict[int, FilterDecoder]:
    """Return the `FILTERS` of all modules of this package, by number."""
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    modules = [importlib.import_module(f"{package.__name__}.{each}") for each in sorted(names)]
    return {each.number: each for module in modules for each in getattr(module, "FILTERS", ())}


class NoDecoder(Exception):  # translated at once where the entity is known
    """A chunk went through a filter that nothing here can undo."""

    def __init__(self, missing: Filter) -> None:
        super().__init__(missing)
        self.filter = missing


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The filters of a dataset."""

    filters: tuple[Filter, ...]
    """In the order of writing."""

    chunk_bytes: int
    """Of a decoded chunk."""

    needs_library: bool
    """Whether `decode` always calls libhdf5, which is for the library lane alone."""

    most_stored: int
    """The largest size that a raw chunk may have, in bytes."""

    def check_stored(self, size: int) -> None:
        """Raise BadChunk for a raw chunk that is larger than what any filter makes."""
        if size > self.most_stored:
            message = f"{size} bytes are stored, for {self.chunk_bytes} at most {self.most_stored}"
            raise BadChunk(f"{message} are expected")

    def is_applied(self, filter_mask: int) -> bool:
        """Return whether a chunk of that mask went through any filter at all."""
        return ~filter_mask & (1 << len(self.filters)) - 1 != 0

    def decode(self, stored: Bytes, filter_mask: int) -> Bytes:
        """Return the bytes of a decoded chunk, `chunk_bytes` of them; perhaps `stored` itself.

        A bit of `filter_mask` switches off the filter of that position (HDF5 File Format
        Specification, section III.A.1).

        Raises:
            BadChunk: they are more, or less, or cannot be decoded.
            NoDecoder: a filter is not installed.
        """
        # How much each filter was given: known until one changes the size unpredictably.
        applied: list[tuple[Filter, Room]] = []
        room = Room(self.chunk_bytes)
        for position, each in enumerate(self.filters):
            if filter_mask >> position & 1:
                continue
            applied.append((each, room))
            if each.id == FLETCHER32:
                room = Room(room.most + 4, room.exact)
            elif each.id != SHUFFLE:
                room = Room(self.most_stored, exact=False)
        while applied:
            last, room = applied.pop()
            if applied and applied[-1][0].id == SHUFFLE:
                both = decode_and_unshuffle(last.id, stored, applied[-1][0].values, room)
                if both is not None:
                    applied.pop()
                    stored = both
                    continue
            stored = _undo(last, stored, room)
        if stored.size != self.chunk_bytes:
            Room(self.chunk_bytes).check("it", stored.size)
        return stored


def make_pipeline(filters: tuple[Filter, ...], chunk_bytes: int) -> Pipeline:
    """Return the pipeline of a dataset whose chunks have `chunk_bytes` bytes each."""
    needs_library = False
    for each in filters:
        found = DECODERS.get(each.id)
        needs_library |= found is None or found.decode is None
    most_stored = 2 * chunk_bytes + _SLACK_BYTES
    return Pipeline(filters, chunk_bytes, needs_library, most_stored)


def _undo(applied: Filter, stored: Bytes, room: Room) -> Bytes:
    found = DECODERS.get(applied.id)
    if found is not None and found.decode is not None:
        # What it does not know, libhdf5's filter may. That runs in the lane that decodes, which
        # then waits for libhdf5's lock: which form a chunk has is not known before.
        with contextlib.suppress(UnknownForm):
            return found.decode(stored, applied.values, room)
    if not applied.available:
        raise NoDecoder(applied)
    if found is not None and found.check is not None:
        found.check(stored, applied.values, room)
    return run_filter(applied.id, applied.name, stored, applied.values, room)


DECODERS: dict[int, FilterDecoder] = find_decoders()
"""How each filter is undone, by its registered number."""
