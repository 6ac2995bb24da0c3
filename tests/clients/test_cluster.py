"""A cluster of dask whose workers read one store from several replicas."""

import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import httpx
import numpy as np
import pytest

from tests.cli.processes import PATIENCE, Server, running
from tests.cli.site import needs_nginx, nginx, written_site

CHUNKS, SHAPE = 1_000, (256, 128)
"""64 KiB a chunk: of Zarr, too, as it is stored in a form that clients decode."""

REPLICAS = 3


@dataclass(frozen=True, slots=True)
class Replicas:
    """Replicas of a stack, and nginx before them."""

    frames: np.ndarray[Any, np.dtype[np.uint16]]
    servers: list[Server]
    site: str

    def count_chunks(self) -> list[int]:
        """Return how many answers of `/zarr` each replica has given."""
        return [_count_answers(server.url) for server in self.servers]


def _count_answers(url: str) -> int:
    text = httpx.get(f"{url}metrics", trust_env=False, timeout=PATIENCE).text
    lines = [line for line in text.splitlines() if 'asgihive_requests_total{route="/zarr' in line]
    return sum(int(float(line.rpartition(" ")[2])) for line in lines)


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    hdf5plugin = pytest.importorskip("hdf5plugin", reason="extra test-clients")
    root = tmp_path_factory.mktemp("stack")
    random = np.random.default_rng(7)
    frames = random.poisson(5, (CHUNKS, *SHAPE)).astype("<u2")
    with h5py.File(root / "scan.h5", "w") as file:
        options = {"chunks": (1, *SHAPE), **hdf5plugin.Zstd(clevel=1)}
        file.create_dataset("stack", data=frames, **options)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="site-")))
        serve = ("serve", str(root), "--port", "0")
        servers = [
            stack.enter_context(running(*serve, patience=10 * PATIENCE)) for _ in range(REPLICAS)
        ]
        first, *others = (httpx.URL(each.url).netloc.decode() for each in servers)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        stack.enter_context(nginx(written_site(folder, *others, first=first, port=port)))
        yield Replicas(frames, servers, f"http://127.0.0.1:{port}/")


@pytest.fixture(scope="module")
def client(distributed: Any) -> Iterator[Any]:
    options = {"n_workers": 2, "threads_per_worker": 2, "processes": True}
    with (
        distributed.LocalCluster(dashboard_address=":0", **options) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def open_stack(dask: Any, replicas: Replicas, way: str) -> Any:
    """Return the stack: by one address, or a part of it from each replica."""
    if way == "nginx":
        return dask.array.from_zarr(f"{replicas.site}zarr/scan.h5/stack")
    arrays = [dask.array.from_zarr(f"{each.url}zarr/scan.h5/stack") for each in replicas.servers]
    bounds = np.linspace(0, CHUNKS, REPLICAS + 1).astype(int)
    parts = [
        array[start:stop]
        for array, start, stop in zip(arrays, bounds[:-1], bounds[1:], strict=True)
    ]
    return dask.array.concatenate(parts)


@needs_nginx
@pytest.mark.slow
@pytest.mark.parametrize("way", ["nginx", "urls"])
def test_the_mean_image(client: Any, dask: Any, replicas: Replicas, way: str) -> None:
    before = replicas.count_chunks()
    array = open_stack(dask, replicas, way)
    assert array.numblocks == (CHUNKS, 1, 1)
    mean = array.mean(axis=0).compute()
    # To the last bit: sums of these integers are exact, in whichever order.
    np.testing.assert_array_equal(mean, replicas.frames.mean(axis=0))
    asked = [now - then for now, then in zip(replicas.count_chunks(), before, strict=True)]
    assert min(asked) > CHUNKS // 10
    assert sum(asked) >= CHUNKS


@needs_nginx
@pytest.mark.slow
@pytest.mark.parametrize("way", ["nginx", "urls"])
def test_a_rechunk_of_all_chunks(client: Any, dask: Any, replicas: Replicas, way: str) -> None:
    """From frames to the history of each pixel, of which a median needs all."""
    array = open_stack(dask, replicas, way)
    histories = array.rechunk((CHUNKS, 32, 32))
    assert histories.numblocks == (1, 8, 4)
    medians = histories.map_blocks(np.median, axis=0, drop_axis=0, dtype=float)
    found, stack = client.gather(client.compute([medians, histories]))
    np.testing.assert_array_equal(found, np.median(replicas.frames, axis=0))
    np.testing.assert_array_equal(stack, replicas.frames)
