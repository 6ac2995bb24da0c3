"""A cluster of dask that reads one store from three replicas, from 1 to 4 workers.

python -m benchmarks.cluster [--workers 1 2 4] [--data FOLDER]

Each worker is a process of one thread. Before each measurement the file is touched, so that neither
nginx nor a replica has anything of it. The results are held against NumPy's.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.client import BenchmarkError
from benchmarks.data import DataFolder, Place
from benchmarks.kinds.frames import repeat_frames
from benchmarks.peers import nginx_site
from benchmarks.servers import SUBJECT, running

REPLICAS = 3
CHUNKS, SHAPE = 1_000, (512, 256)
"""256 KiB of uint16 each: sent as they are stored, so that workers decode and servers send."""

_HISTORY = (CHUNKS, 64, 64)
_SETTLED_SECONDS = 2.5
"""A file that was written just before has no entity tag, and nginx keeps nothing of it."""


def write_stack(data: DataFolder) -> Place:
    """Make 1,000 frames, each a chunk of zstd."""
    import hdf5plugin  # noqa: PLC0415  # of the extra `codecs`

    def write(folder: Path, random: np.random.Generator) -> None:
        with h5py.File(folder / "zstd.h5", "w") as file:
            shape, chunks = (CHUNKS, *SHAPE), (1, *SHAPE)
            options = {"chunks": chunks, **hdf5plugin.Zstd()}
            stack = file.create_dataset("stack", shape, np.uint16, **options)
            repeat_frames(stack, random, different=32, counts=8)

    data.require("cluster", write)
    return Place("cluster/zstd.h5", "/stack")


def compute_mean(stack: Any) -> np.ndarray:
    """Return the mean image."""
    return np.asarray(stack.mean(axis=0).compute())


def compute_medians(stack: Any) -> np.ndarray:
    """Return the median of each pixel, for which all chunks are put together anew."""
    histories = stack.rechunk(_HISTORY)
    medians = histories.map_blocks(np.median, axis=0, drop_axis=0, dtype=float)
    return np.asarray(medians.compute())


def measure(url: str, file: Path, workers: int, compute: Callable[[Any], np.ndarray]) -> Any:
    """Return the seconds that a cluster of so many workers needs, and its result."""
    import dask.array as da  # noqa: PLC0415  # takes a second
    import distributed  # noqa: PLC0415  # as above

    options = {"n_workers": workers, "threads_per_worker": 1, "processes": True}
    with (
        distributed.LocalCluster(dashboard_address=":0", **options) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.run(_import_clients)
        file.touch()
        time.sleep(_SETTLED_SECONDS)
        start = time.perf_counter()
        result = compute(da.from_zarr(url))
        return time.perf_counter() - start, result


def _import_clients() -> None:
    # What a worker imports once is not what is measured.
    import zarr  # noqa: F401, PLC0415


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--data", type=Path, help="keep the data here and reuse it")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="asgihive-data-") as temporary:
        data = DataFolder(chosen.data or Path(temporary))
        place = write_stack(data)
        values = data.read(place)
        tasks = {
            "mean image": (compute_mean, values.mean(axis=0)),
            "rechunk, medians": (compute_medians, np.median(values, axis=0)),
        }
        launches = {SUBJECT: nginx_site.before_replicas(REPLICAS)}
        rows = []
        with running(launches, data.root, {}) as (server,):
            url = f"http://127.0.0.1:{server.port}/zarr/{place.file}{place.path}"
            for name, (compute, expected) in tasks.items():
                for workers in chosen.workers:
                    seconds, result = measure(url, data.file(place), workers, compute)
                    if not np.array_equal(result, expected):
                        raise BenchmarkError(f"{name}, {workers} workers: a wrong result")
                    rows.append((name, workers, seconds, values.nbytes / seconds / (1 << 20)))
                    print(f"{name}, {workers}: {seconds:.1f} s", file=sys.stderr, flush=True)
    _print_table(rows)
    return 0


def _print_table(rows: Sequence[tuple[str, int, float, float]]) -> None:
    load = os.getloadavg()[0]
    print(f"{CHUNKS} chunks, {REPLICAS} replicas, {os.cpu_count()} CPUs, load average {load:.1f}\n")
    print("| task | workers | seconds | MiB/s |\n| :--- | ---: | ---: | ---: |")
    for name, workers, seconds, speed in rows:
        print(f"| {name} | {workers} | {seconds:.1f} | {speed:.0f} |")


if __name__ == "__main__":
    sys.exit(main())
