"""dask: each chunk of the array is a chunk of the store, read in threads and in processes."""

from typing import Any

import h5py
import numpy as np
import pytest

from tests.clients.conftest import Served

FRAMES = "scan.nxs/entry/detector/frames"


def read_frames(served: Served) -> Any:
    with h5py.File(served.root / "scan.nxs") as file:
        return file["entry/detector/frames"][()]


@pytest.fixture
def single_threads(dask: Any) -> Any:
    """End the pool of threads of dask with the test."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    with ThreadPoolExecutor(4) as pool, dask.config.set(pool=pool, scheduler="threads"):
        yield


def test_from_zarr(single_threads: Any, dask: Any, served: Served) -> None:
    array = dask.array.from_zarr(served.url + FRAMES)
    expected = read_frames(served)
    assert array.shape == expected.shape
    assert array.numblocks[0] > 1
    np.testing.assert_array_equal(array.compute(), expected)
    np.testing.assert_array_equal(array[1:, ::7, 3].compute(), expected[1:, ::7, 3])
    assert array.astype("u8").sum().compute() == expected.astype("u8").sum()


def test_open_zarr_by_chunks(single_threads: Any, xr: Any, served: Served) -> None:
    with xr.open_dataset(served.root / "weather.nc") as local:
        remote = xr.open_zarr(served.url + "weather.nc", chunks={})
        assert remote["air"].chunks is not None
        xr.testing.assert_allclose(remote["air"].mean("time").compute(), local["air"].mean("time"))


@pytest.mark.slow
def test_processes(distributed: Any, xr: Any, dask: Any, served: Served) -> None:
    """What processes are sent is the URL: each reads for itself."""
    expected = read_frames(served)
    options = {"n_workers": 2, "threads_per_worker": 2, "processes": True}
    with (
        distributed.LocalCluster(dashboard_address=":0", **options) as cluster,
        distributed.Client(cluster),
    ):
        array = dask.array.from_zarr(served.url + FRAMES)
        np.testing.assert_array_equal(array.compute(), expected)
        remote = xr.open_zarr(served.url + "weather.nc", chunks={})
        with xr.open_dataset(served.root / "weather.nc") as local:
            xr.testing.assert_equal(remote.compute(), local)
