"""`compute` with a scheduler and workers in processes of their own, which end in the middle."""

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import h5py
import numpy as np
import pytest

from asgihive import H5App, H5Settings
from asgihive.service import cluster_tasks
from asgihive.service.cluster import Cluster
from tests.service.asking import ask

pytest.importorskip("distributed")
pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PATIENCE = 60.0  # seconds
WORKERS = 2


class Processes:
    """A scheduler and workers, as an administrator starts them.

    Args:
        stack: that ends them.
        folder: their current directory.
        failures: of workers over a task, after which the scheduler gives it up at the next one.
    """

    def __init__(self, stack: ExitStack, folder: Path, failures: int) -> None:
        self._stack = stack
        self._failures = failures
        self._folder = folder
        options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
        self.scheduler, match = self._start("scheduler", [*options], r"Scheduler at:\s+tcp://(\S+)")
        self.address = match[1]
        options = [f"tcp://{self.address}", "--no-nanny", "--nthreads", "1", "--no-dashboard"]
        self.workers = [
            self._start("worker", options, r"Registered to:\s+tcp://(\S+)")[0]
            for _ in range(WORKERS)
        ]

    def _start(
        self, kind: str, options: list[str], pattern: str
    ) -> tuple[subprocess.Popen[str], re.Match[str]]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *options]
        process = self._stack.enter_context(
            subprocess.Popen(
                command,
                cwd=self._folder,
                env={
                    **os.environ,
                    "PYTHONPATH": os.getcwd(),
                    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(self._failures),
                },
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        self._stack.callback(process.kill)
        assert process.stderr is not None
        told = ""
        for line in process.stderr:
            told += line
            match = re.search(pattern, line)
            if match is not None:
                return process, match
        pytest.fail(told)


@pytest.fixture
def failures() -> int:
    return 3  # dask's default


@pytest.fixture
def processes(tmp_path: Path, failures: int) -> Iterator[Processes]:
    with ExitStack() as stack:
        yield Processes(stack, tmp_path, failures)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        values = np.random.default_rng(3).normal(size=(256, 1024)).astype("f4")
        file.create_dataset("x", data=values, chunks=(1, 1024), compression=1)
    return tmp_path


@pytest.fixture
def make_app(
    root: Path, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], H5App]:
    monkeypatch.setattr(cluster_tasks, "TASK_BYTES", 1 << 12)
    monkeypatch.setattr("asgihive.service.data._BLOCK_BYTES", 1 << 12)
    settings = H5Settings(
        compute=f"dask://{processes.address}", compute_over_bytes=1, answer_cache_bytes=0
    )
    return lambda: H5App(root, settings)


def act_after(monkeypatch: pytest.MonkeyPatch, results: int, act: Callable[[], object]) -> None:
    """Do something when so many tasks have been computed."""
    compute, computed = Cluster.compute, [0]

    async def compute_and_act(self: Cluster, task: Any) -> Any:
        result = await compute(self, task)
        computed[0] += 1
        if computed[0] == results:
            act()
        return result

    monkeypatch.setattr(Cluster, "compute", compute_and_act)


async def test_a_worker_that_ends_has_its_tasks_done_by_another(
    root: Path,
    processes: Processes,
    make_app: Callable[[], H5App],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # So that it has tasks when it ends.
    worker = processes.workers[0]
    worker.send_signal(signal.SIGSTOP)
    act_after(monkeypatch, 1, worker.kill)
    app = make_app()
    caplog.set_level(logging.WARNING)
    with anyio.fail_after(PATIENCE):
        async with app.running():
            answer = await ask(app, "/stats", path="x")
        expected = await ask(H5App(root), "/stats", path="x")
    assert (answer.status, answer.body) == (200, expected.body)
    assert worker.wait(PATIENCE) == -signal.SIGKILL
    assert "cluster;dur=" in answer.headers["server-timing"]
    assert not [each for each in caplog.messages if "cluster at" in each]


@pytest.mark.parametrize("failures", [0])
async def test_a_file_that_ends_the_workers_which_read_it(
    processes: Processes, make_app: Callable[[], H5App], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = processes.workers[0]
    worker.send_signal(signal.SIGSTOP)
    act_after(monkeypatch, 1, worker.kill)
    app = make_app()
    with anyio.fail_after(PATIENCE):
        async with app.running():
            answer = await ask(app, "/stats", path="x")
            # It is not tried here, where it would end the service.
            assert answer.status == 500
            assert answer.json["message"].startswith("x.h5 crashed the reader: x: it crashed the")
            assert (await ask(app, "/meta", path="x")).status == 200


async def test_a_scheduler_that_ends_is_done_without(
    root: Path,
    processes: Processes,
    make_app: Callable[[], H5App],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    act_after(monkeypatch, 3, processes.scheduler.kill)
    app = make_app()
    caplog.set_level(logging.WARNING)
    with anyio.fail_after(PATIENCE):
        async with app.running():
            answers = [await ask(app, "/stats", path="x") for _ in range(3)]
        expected = await ask(H5App(root), "/stats", path="x")
    assert {each.status for each in answers} == {200}
    assert {each.body for each in answers} == {expected.body}
    timings = [each.headers["server-timing"] for each in answers]
    assert ["cluster;dur=" in each for each in timings] == [True, False, False]
    [warning] = [each.getMessage() for each in caplog.records if each.name.startswith("asgihive")]
    assert warning.startswith(f"The cluster at {processes.address} is away, and this process")
