"""`/metrics`: the numbers, where they are, and where they are not."""

from pathlib import Path
from typing import Any

import anyio
import h5py
import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from asgihive.service import H5App
from asgihive.service import operations as measures
from asgihive.settings import H5Settings

pytestmark = pytest.mark.anyio

Numbers = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["values"] = np.arange(5)
        file.create_dataset("deep", data=np.zeros((64, 64)), chunks=(8, 8), compression="gzip")
    return tmp_path


def client(app: Any) -> httpx.AsyncClient:
    transport, headers = httpx.ASGITransport(app), {"accept-encoding": "identity"}
    return httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers)


def numbers(answer: httpx.Response) -> Numbers:
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def of(found: Numbers, name: str, **labels: str) -> float | None:
    return found.get((f"asgihive_{name}", frozenset(labels.items())))


async def test_requests_are_counted_by_route_and_status(root: Path) -> None:
    async with client(H5App(root)) as http:
        sizes = [len((await http.get("/meta?file=x.h5")).content) for _ in range(3)]
        await http.get("/meta/?file=x.h5")
        missing = await http.get("/meta?file=y.h5")
        await http.get("/data?file=x.h5&path=/deep")
        for path in ("/a", "/b", "/metadata"):
            await http.get(path)
        found = numbers(await http.get("/metrics"))
    assert of(found, "requests_total", route="/meta", status="200") == 4
    assert of(found, "requests_total", route="/meta", status="404") == 1
    assert of(found, "requests_total", route="/data", status="200") == 1
    assert of(found, "requests_total", route="other", status="404") == 3
    sent = 4 * sizes[0] + len(missing.content)
    assert of(found, "sent_bytes_total", route="/meta") == sent
    assert of(found, "request_seconds_count", route="/meta") == 5
    assert of(found, "request_seconds_bucket", route="/meta", le="+Inf") == 5
    duration = of(found, "request_seconds_sum", route="/meta")
    assert duration is not None
    assert duration > 0


async def test_the_state_of_the_service(root: Path) -> None:
    app = H5App(root, H5Settings(decode_lanes=3))
    async with client(app) as http:
        before = numbers(await http.get("/metrics"))
        await http.get("/data?file=x.h5&path=/deep")
        after = numbers(await http.get("/metrics"))
    assert of(before, "open_files") == 0
    assert of(after, "open_files") == 1
    assert of(after, "cache_bytes", cache="chunks") == app.store.pool.chunks.bytes > 0
    for lane, threads in (("library", 1), ("decode", 3)):
        assert of(after, "lane_threads", lane=lane) == threads
        assert of(after, "lane_busy_threads", lane=lane) == 0
        assert of(after, "lane_waiting_calls", lane=lane) == 0
    # The one that asks.
    assert of(after, "requests_in_progress") == 1


async def test_what_is_under_way(root: Path) -> None:
    app = H5App(root)
    lane = app.store.lanes.library
    release = anyio.Event()

    async def hold() -> None:
        await lane.run(lambda: anyio.from_thread.run(release.wait))

    async with client(app) as http, anyio.create_task_group() as tasks:
        tasks.start_soon(hold)
        while not lane.busy():
            await anyio.lowlevel.checkpoint()
        tasks.start_soon(http.get, "/meta?file=x.h5")
        while not lane.waiting():
            await anyio.lowlevel.checkpoint()
        found = numbers(await http.get("/metrics"))
        release.set()
    assert of(found, "lane_busy_threads", lane="library") == 1
    assert of(found, "lane_waiting_calls", lane="library") == 1
    assert of(found, "requests_in_progress") == 2


async def test_services_side_by_side_count_for_themselves(root: Path) -> None:
    first, second = H5App(root), H5App(root)
    async with client(first) as http, client(second) as other:
        await http.get("/")
        assert of(numbers(await http.get("/metrics")), "requests_total", route="/", status="200")
        counted = numbers(await other.get("/metrics"))
        assert of(counted, "requests_total", route="/", status="200") is None


async def test_openmetrics_where_it_is_asked_for(root: Path) -> None:
    async with client(H5App(root)) as http:
        plain = await http.get("/metrics/")
        openmetrics = await http.get(
            "/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0"}
        )
    assert plain.headers["content-type"].startswith("text/plain")
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")
    assert plain.headers["cache-control"] == openmetrics.headers["cache-control"] == "no-store"


async def test_off_by_a_setting(root: Path) -> None:
    async with client(H5App(root, H5Settings(metrics=False))) as http:
        answer = await http.get("/metrics")
        assert answer.status_code == 404
        assert answer.json()["message"] == "No such route: /metrics"


async def test_without_the_package(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "is_installed", False)
    async with client(H5App(root)) as http:
        assert (await http.get("/meta?file=x.h5")).status_code == 200
        answer = await http.get("/metrics")
        assert answer.status_code == 501
        assert "pip install 'asgihive[metrics]'" in answer.json()["message"]


async def test_no_name_of_a_file_is_told(root: Path) -> None:
    async with client(H5App(root)) as http:
        await http.get("/data?file=x.h5&path=/deep")
        await http.get("/x.h5")
        text = (await http.get("/metrics")).text
    assert "x.h5" not in text
    assert str(root) not in text


async def test_the_caches(root: Path) -> None:
    app = H5App(root)
    async with client(app) as http:
        # A file that was written just now is waited for, and its answers are not kept at first.
        while app.store.answers.hits == 0:
            await http.get("/meta?file=x.h5")
        await http.get("/data?file=x.h5&path=/deep")
        await http.get("/data?file=x.h5&path=/deep&selection=3,3")
        found = numbers(await http.get("/metrics"))
    chunks, answers = app.store.pool.chunks, app.store.answers
    assert (chunks.hits, chunks.misses) == (1, 64)
    for name, cache in (("chunks", chunks), ("answers", answers)):
        assert of(found, "cache_hits_total", cache=name) == cache.hits > 0
        assert of(found, "cache_misses_total", cache=name) == cache.misses > 0
        assert of(found, "cache_bytes", cache=name) == cache.bytes > 0
