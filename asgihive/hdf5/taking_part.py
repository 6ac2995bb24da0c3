"""Which files the values of a dataset come from, and which are missing, before they are read."""

from dataclasses import dataclass

from asgihive.concurrency import Portions
from asgihive.hdf5.datasets import Dataset
from asgihive.hdf5.layout import LayoutKind
from asgihive.hdf5.mapping import Mapping
from asgihive.hdf5.opening import Source, Sources
from asgihive.hdf5.pairing import Unpaired, source_box
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.selection import Axis
from asgihive.hdf5.virtual import VirtualLayout, mappings_of
from asgihive.hdf5.virtual_reading import unreadable

# Sources of a virtual dataset that are looked for before an answer is made of them: each is
# opened once more than it is read, though the pool may have it open then.
MAX_SEARCHED_SOURCES = 1024

# Mappings that are looked through in one portion, most of them of a source that is known.
_MAPPINGS_AT_ONCE = 1024


def search_sources(
    lease: Lease, dataset: Dataset, axes: tuple[Axis, ...] | None
) -> Portions["SourcesFound"]:
    """Look for what the elements at `axes` come from; `lease` depends on it then.

    A source that is virtual itself is looked through, and not counted.

    Args:
        axes: None = an empty dataspace, without elements.

    Raises:
        SourceRefused: a source may not or cannot be read.
        FileChanged, Overloaded, Unsettled: and as `Dataset.read`.
    """
    if axes is None:
        return SourcesFound(depends_on_all=True)
    found = sources_at_hand(dataset)
    if dataset.virtual is not None:
        with dataset.diagnosed(lease, axes):
            search = _Search(dataset, found)
            yield from search.look(Source(dataset, lease), dataset.virtual, axes)
    return found


def sources_at_hand(dataset: Dataset) -> "SourcesFound":
    """What `search_sources` finds of a dataset that is not virtual, without looking."""
    return SourcesFound(depends_on_all=dataset.layout.kind is not LayoutKind.EXTERNAL)


@dataclass(slots=True)
class SourcesFound:
    """What was found of the sources of some elements of a dataset.

    depends_on_all: whether the lease depends on every file that they come from: not on external
        raw storage, nor on those of sources that are virtual themselves or too many.
    searched, missing: how many sources were looked for, and how many are not there: their part
        is fill values.
    first_missing: the file of the first one, with the dataset where only that is missing.
    is_all: whether there are no others.
    """

    depends_on_all: bool
    searched: int = 0
    missing: int = 0
    first_missing: str = ""
    is_all: bool = True

    @property
    def is_nothing_there(self) -> bool:
        """Whether all values of a virtual dataset are its fill value, for want of any source."""
        return self.is_all and self.depends_on_all and self.searched == self.missing


class _Search:
    """One search, through all virtual datasets that take part."""

    def __init__(self, dataset: Dataset, found: SourcesFound) -> None:
        self._found = found
        self._dtype = dataset.dtype
        self._item_shape = dataset.item_shape
        self._opened = 0
        # Many a file is mapped frame by frame.
        self._known: set[object] = set()

    def look(
        self, virtual: Source, layout: VirtualLayout, axes: tuple[Axis, ...]
    ) -> Portions[None]:
        """Look for the sources of the elements at `axes`."""
        dataset = virtual.dataset
        sources = Sources(virtual.lease, dataset, dataset.max_hops, virtual.depth)
        try:
            for number, mapping in enumerate(mappings_of(layout, axes), 1):
                if not number % _MAPPINGS_AT_ONCE:
                    yield
                name = (dataset.file.key, mapping.file, mapping.dataset)
                if name in self._known:
                    continue
                if self._opened == MAX_SEARCHED_SOURCES:
                    self._found.is_all = self._found.depends_on_all = False
                    return
                self._opened += 1
                yield from self._look_for(sources, mapping, axes)
                sources.give_back()
                yield
        finally:
            sources.close()

    def _look_for(
        self, sources: Sources, mapping: Mapping, axes: tuple[Axis, ...]
    ) -> Portions[None]:
        found, name = self._found, (sources.file_key, mapping.file, mapping.dataset)
        source = yield from sources.open(mapping)
        if source is None:
            self._known.add(name)
            found.searched += 1
            found.missing += 1
            found.first_missing = found.first_missing or sources.shown(mapping)
            return
        dataset = source.dataset
        problem = unreadable(dataset, self._dtype, self._item_shape)
        if problem is not None:
            raise sources.refusal(mapping, problem)
        if dataset.virtual is None:
            self._known.add(name)
            found.searched += 1
            found.depends_on_all &= dataset.layout.kind is not LayoutKind.EXTERNAL
            return
        found.depends_on_all = False
        try:
            box = source_box(mapping, axes, source.shape or ())
        except Unpaired as error:
            raise sources.refusal(mapping, str(error)) from None
        part = (dataset.file.key, dataset.path, box)
        if box is not None and part not in self._known:
            self._known.add(part)
            yield from self.look(source, dataset.virtual, box)
