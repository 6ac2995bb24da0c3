"""What is computed of blocks of numbers: records that name it, and may go to other processes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from asgihive.hdf5.columns import Columns
from asgihive.hdf5.statistics import Histogram, Statistics, ValueRange, find_range, summarise
from asgihive.hdf5.views import BlockBins, View, ViewBlock, reduce_view_block

Array = np.ndarray[Any, Any]
R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")


class BlockReduction(Protocol[R_co]):
    """What is asked of the blocks of a selection."""

    is_exact: ClassVar[bool]
    """Whether results may be merged in any groups, as their order has no say in the last bit."""

    def prepare(self, columns: Columns) -> Callable[[Any, Array], R_co]:
        """Return what makes a result of a block and its elements; pure, for any thread.

        Args:
            columns: what is taken of each element.
        """


class MergingReduction(BlockReduction[R], Protocol[R]):
    """One whose results of blocks are merged to that of the selection."""

    def merge(self, one: R, other: R) -> R:
        """Return the result of the blocks of both, of which those of `one` come first."""


@dataclass(frozen=True, slots=True)
class StatisticsReduction:
    """The statistics of each column."""

    is_exact: ClassVar[bool] = False

    def prepare(self, columns: Columns) -> Callable[[Any, Array], list[Statistics]]:
        """Return what summarises a block."""
        each_column = list(columns.split())

        def reduce(_: Any, array: Array) -> list[Statistics]:
            return [summarise(each.take(array)) for each in each_column]

        return reduce

    def merge(self, one: list[Statistics], other: list[Statistics]) -> list[Statistics]:
        """Return the statistics of both, column by column."""
        return list(map(Statistics.merge, one, other))


@dataclass(frozen=True, slots=True)
class RangeReduction:
    """The range of the finite values."""

    is_exact: ClassVar[bool] = True

    def prepare(self, columns: Columns) -> Callable[[Any, Array], ValueRange]:
        """Return what finds the range of a block."""
        return lambda _, array: find_range(columns.take(array))

    def merge(self, one: ValueRange, other: ValueRange) -> ValueRange:
        """Return the range of both."""
        return one.merge(other)


@dataclass(frozen=True, slots=True)
class HistogramReduction:
    """The counts of `Histogram`."""

    bins: int
    given: ValueRange | None
    """As `Histogram` takes it."""
    is_exact: ClassVar[bool] = True

    def prepare(self, columns: Columns) -> Callable[[Any, Array], Array]:
        """Return what counts the values of a block."""
        histogram = Histogram(self.bins, columns.dtype, self.given)
        return lambda _, array: histogram.count(columns.take(array))

    def merge(self, one: Array, other: Array) -> Array:
        """Return the counts of both."""
        return np.add(one, other)


@dataclass(frozen=True, slots=True)
class ViewReduction:
    """The bins of a view, which `ViewReducer` adds up in the order of the blocks."""

    view: View
    is_exact: ClassVar[bool] = False

    def prepare(self, columns: Columns) -> Callable[[ViewBlock, Array], BlockBins]:
        """Return what reduces a block to its bins."""
        return lambda block, array: reduce_view_block(self.view, block, columns.take(array))
