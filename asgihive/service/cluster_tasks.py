"""What workers of a cluster are asked, and what they return: small records, which are pickled."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from asgihive import __version__
from asgihive.concurrency import Timings
from asgihive.errors import AsgihiveError
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.reader import HasAxes
from asgihive.hdf5.reductions import BlockReduction

T = TypeVar("T")

TASK_BYTES = 64 << 20
"""Of elements that a task reads, at least: 0.1 s of work or more, where a task costs about 1 ms."""

MAX_TASK_FILES = 256
"""Source files of a dataset, which each task names; one of more is computed here."""

VERSIONS = (__version__, np.__version__, "{}.{}".format(*sys.version_info[:2]))
"""Of asgihive, NumPy and Python: others might round the last bit in another way."""

Contents = Mapping[str, tuple[int, ...] | None]
"""The identity of each source file by its path below the root; None = there is no such file."""


class VersionsDiffer(AsgihiveError):
    """A worker has other versions than the service."""

    def __init__(self, here: tuple[str, ...], there: tuple[str, ...]) -> None:
        super().__init__(here, there)
        self.here = here
        self.there = there

    def __str__(self) -> str:
        def name(versions: tuple[str, ...]) -> str:
            return "asgihive {}, NumPy {} and Python {}".format(*versions)

        return f"A worker has {name(self.there)}; the service has {name(self.here)}"


@dataclass(frozen=True, slots=True)
class SharedDirectory:
    """The served directory, as workers open it."""

    root: str
    """Its absolute path on the workers' machines."""
    follow_symlinks: bool
    max_chunk_bytes: int
    read_timeout_seconds: float


@dataclass(frozen=True, slots=True)
class ClusterTask(Generic[T]):
    """Some blocks of a dataset, and what is asked of each."""

    directory: SharedDirectory
    file: str
    """As the client names it, below the directory."""
    contents: Contents
    """Of what the service has opened: a worker that finds another content computes nothing."""
    path: str
    """Of the dataset."""
    fields: tuple[str, ...]
    """Which columns of compounds; none = all of each element."""
    reduction: BlockReduction[T]
    blocks: tuple[HasAxes, ...]
    versions: tuple[str, ...] = VERSIONS


@dataclass(frozen=True, slots=True)
class TaskResult(Generic[T]):
    """What a worker computed."""

    results: list[T]
    """Of each block in order; only one where merging them is exact."""
    timings: Timings = field(default_factory=dict)
    """Seconds by stage, as those of a request."""


def describe_contents(root: str, lease: Lease) -> dict[str, tuple[int, ...] | None]:
    """Return the identities of all files that `lease` depends on, as machines share them."""
    return {
        path.removeprefix(root): None if identity is None else identity.shared
        for path, identity in lease.depends.items()
    }


def group_blocks(blocks: Iterable[HasAxes], item_bytes: int) -> Iterator[tuple[HasAxes, ...]]:
    """Yield the blocks of each task: in order, `TASK_BYTES` or one block more."""
    group: list[HasAxes] = []
    size = 0
    for block in blocks:
        group.append(block)
        size += block.size * item_bytes
        if size >= TASK_BYTES:
            yield tuple(group)
            group, size = [], 0
    if group:
        yield tuple(group)


def merge_results(reduction: Any, results: list[T], result: T) -> None:
    """Add the result of the next block to those before it."""
    if reduction.is_exact and results:
        results[0] = reduction.merge(results[0], result)
    else:
        results.append(result)
