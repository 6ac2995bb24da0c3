"""Workers of a cluster read the same object store."""

import io

import h5py
import numpy as np
import pytest

from asgihive.service import H5App, cluster_tasks
from asgihive.settings import H5Settings
from tests.object_stores.conftest import Bucket
from tests.service.asking import ask

distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
pytestmark = [
    pytest.mark.anyio,
    # As it says of a machine that is busy.
    pytest.mark.filterwarnings("ignore:Creating scratch directories"),
]


async def test_workers_read_the_same_objects(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_tasks, "TASK_BYTES", 1 << 14)
    monkeypatch.setattr("asgihive.service.data._BLOCK_BYTES", 1 << 13)
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        values = np.random.default_rng(1).normal(size=(64, 1024))
        file.create_dataset("x", data=values, chunks=(4, 1024), compression=1)
    bucket.put("x.h5", content.getvalue())
    with distributed.LocalCluster(
        processes=False, protocol="tcp", n_workers=2, threads_per_worker=1, host="127.0.0.1",
        dashboard_address=":0",
    ) as running:  # fmt: skip
        address = running.scheduler_address.replace("tcp:", "dask:")
        app = H5App(bucket.url, H5Settings(compute=address, compute_over_bytes=1))
        async with app.running():
            answer = await ask(app, "/stats", path="x")
    alone = H5App(bucket.url, H5Settings())
    async with alone.running():
        expected = await ask(alone, "/stats", path="x")
    assert (answer.status, answer.body) == (200, expected.body)
    assert "cluster;dur=" in answer.headers["server-timing"]
