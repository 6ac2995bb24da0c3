"""Which files the values of a dataset come from, known before the values are."""

from asgihive.hdf5.datasets import Dataset
from asgihive.hdf5.layout import LayoutKind
from asgihive.hdf5.opening import Sources
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.selection import Axis
from asgihive.hdf5.virtual import mappings_of

# Sources of a virtual dataset that are opened once more than they are read; the pool has them
# open then.
_MOST_SOURCES = 64


def depends_on_all(lease: Lease, dataset: Dataset, axes: tuple[Axis, ...]) -> bool:
    """Whether `lease` depends on every file that the elements at `axes` come from.

    It does so, too, on the sources of a virtual dataset, which are opened for it here, in the
    library lane. Not on external raw storage, nor on sources that are virtual themselves, have
    such storage, or are too many.

    Raises:
        FileChanged, Overloaded, Unsettled: and as `Dataset.read`.
    """
    if dataset.virtual is None:
        return dataset.layout.kind is not LayoutKind.EXTERNAL
    sources = Sources(lease, dataset.file, dataset.max_hops, 0)
    try:
        with dataset.diagnosed(lease, axes):
            # Many a file is mapped frame by frame.
            known: set[tuple[str, str]] = set()
            for mapping in mappings_of(dataset.virtual, axes):
                name = (mapping.file, mapping.dataset)
                if name in known:
                    continue
                if len(known) == _MOST_SOURCES:
                    return False
                known.add(name)
                source = sources.open(*name)
                if source is not None and not _is_plain(source.dataset):
                    return False
                sources.give_back()
    finally:
        sources.close()
    return True


def _is_plain(dataset: Dataset) -> bool:
    return dataset.virtual is None and dataset.layout.kind is not LayoutKind.EXTERNAL
