"""Blocks that a cluster reads and reduces, task by task, in the order of the selection.

Whatever goes wrong there is computed here instead: that gives the same answer, or the error that
the answer is.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

import anyio

from asgihive.concurrency import add_time, request_context
from asgihive.errors import ReadTimeout
from asgihive.hdf5.buffers import Array
from asgihive.hdf5.columns import Columns
from asgihive.hdf5.reader import HasAxes, Held
from asgihive.hdf5.reductions import BlockReduction
from asgihive.hdf5.virtual_sources import SourcesFound
from asgihive.service.cluster import Cluster, TaskFailed
from asgihive.service.cluster_tasks import (
    MAX_TASK_FILES,
    ClusterTask,
    Contents,
    describe_contents,
    group_blocks,
    merge_results,
)
from asgihive.service.requests import ReadRequest
from asgihive.service.store import Store
from asgihive.tasks import Budget, WorkAhead, work_ahead

T = TypeVar("T")

MAX_TASKS_AHEAD = 256
"""Tasks of one answer that the cluster has at once."""

# Of elements in a bin of a view, for which a task returns up to 24.
_LEAST_BIN_BYTES = 128
_BIN_BYTES = 24

Reduced = tuple[tuple[HasAxes, ...], list[T]]
"""The blocks of a task, and the results of each; only one where merging them is exact."""


@dataclass(frozen=True, slots=True)
class AskedElements:
    """What a request asks of a dataset, and the dataset."""

    store: Store
    request: ReadRequest
    held: Held
    columns: Columns
    sources: SourcesFound
    """What the elements come from."""


@dataclass(slots=True, eq=False)
class ClusterReading(Generic[T]):
    """One reading of the blocks of a dataset."""

    asked: AskedElements
    cluster: Cluster
    contents: Contents
    reduction: BlockReduction[T]
    work: Callable[[Any, Array], T]
    """What `reduction` makes of a block here."""
    threads: int
    """How many tasks the cluster runs at once."""
    bin_elements: int
    """Of a view; 0 = a result is small, however many elements it is made of."""
    local: anyio.CapacityLimiter = field(init=False)
    """How many tasks are computed here at once, where the cluster does not."""
    has_failed: bool = False
    """Whether the rest is computed here."""

    def __post_init__(self) -> None:
        self.local = anyio.CapacityLimiter(self.asked.store.lanes.decode.threads + 1)

    def read(self, blocks: Iterator[HasAxes]) -> AbstractAsyncContextManager[WorkAhead[Reduced[T]]]:
        """Iterate over what blocks are reduced to, in order, while the next ones are read."""
        reader = self.asked.store.reader
        groups = group_blocks(blocks, self.asked.held.dataset.item_bytes)
        most = min(2 * self.threads + 1, MAX_TASKS_AHEAD)
        budget = Budget(reader.read_ahead_bytes, reader.in_flight)
        return work_ahead(groups, self._compute, most, budget, self._estimate_bytes)

    def _estimate_bytes(self, blocks: tuple[HasAxes, ...]) -> int:
        if not self.bin_elements:
            return 1
        return 1 + sum(block.size for block in blocks) * _BIN_BYTES // self.bin_elements

    async def _compute(self, blocks: tuple[HasAxes, ...]) -> Reduced[T]:
        if not self.has_failed:
            try:
                return blocks, await self._ask(blocks)
            except TaskFailed:
                self.has_failed = True
        results: list[T] = []
        async with self.local:
            for block in blocks:
                work = partial(self.work, block)
                result = await self.asked.store.reader.read(self.asked.held, block.axes, work)
                merge_results(self.reduction, results, result)
        return blocks, results

    async def _ask(self, blocks: tuple[HasAxes, ...]) -> list[T]:
        request, began = self.asked.request, time.perf_counter()
        task = ClusterTask(
            directory=self.cluster.directory,
            file=request.file,
            contents=self.contents,
            path=request.path,
            fields=request.values["fields"],
            reduction=self.reduction,
            blocks=blocks,
        )
        timeout = self.asked.store.reader.timeout_seconds
        with anyio.move_on_after(timeout):
            found = await self.cluster.compute(task)
            timings = request_context.get().timings
            if timings is not None:
                for stage, seconds in found.timings.items():
                    add_time(timings, stage, seconds)
                add_time(timings, "cluster", time.perf_counter() - began)
            return found.results
        raise ReadTimeout(timeout)


async def begin_cluster_reading(
    asked: AskedElements,
    reduction: BlockReduction[T],
    elements: int,
    factors: tuple[int, ...] = (),
) -> ClusterReading[T] | None:
    """Return how a cluster reads and reduces blocks; None where that is done here.

    It is done here where there is no cluster, it is little, the content of a file is not certain,
    or the results would be nearly as large as the elements.

    Args:
        asked: the dataset.
        reduction: what is made of each block.
        elements: how many there are.
        factors: of a view.
    """
    cluster, lease = asked.store.cluster, asked.held.lease
    item_bytes, sources = asked.held.dataset.item_bytes, asked.sources
    if cluster is None or elements * item_bytes <= cluster.over_bytes:
        return None
    if not (sources.depends_on_all and sources.is_all and lease.settled):
        return None
    bin_elements = math.prod(factors) if factors else 0
    if len(lease.depends) > MAX_TASK_FILES or 0 < bin_elements * item_bytes < _LEAST_BIN_BYTES:
        return None
    threads = await cluster.count_threads()
    if not threads:
        return None
    return ClusterReading(
        asked=asked,
        cluster=cluster,
        contents=describe_contents(cluster.root, lease),
        reduction=reduction,
        work=reduction.prepare(asked.columns),
        threads=threads,
        bin_elements=bin_elements,
    )
