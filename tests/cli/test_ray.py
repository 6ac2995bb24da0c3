"""The service under Ray Serve: its answers, from one replica to three, and its end."""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from time import monotonic

import h5py
import httpx
import numpy as np
import pytest

MARK = "ASGIHIVE_TEST_OF_RAY"
"""A variable that every process of the cluster has, and no other one."""

SECONDS = 240.0
"""For a cluster to start on a busy machine, and for replicas to be added."""

CLIENTS = 16

needs_ray = pytest.mark.skipif(
    find_spec("ray") is None, reason="ray is not installed: extra test-ray"
)


@pytest.fixture
def stack_directory(tmp_path: Path) -> Path:
    values = np.random.default_rng(3).poisson(30, (12, 256, 256)).astype("<u2")
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_dataset(
            "stack", data=values, chunks=(1, 256, 256), compression="gzip", shuffle=True
        )
        file["stack"].attrs["unit"] = "counts"
    return tmp_path


def list_processes(mark: str) -> list[int]:
    """Return the processes that have the variable with that value."""
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdigit() and int(each.name) != os.getpid():
            try:
                variables = (each / "environ").read_bytes().split(b"\0")
            except OSError:  # it has ended meanwhile
                continue
            if f"{MARK}={mark}".encode() in variables:
                found.append(int(each.name))
    return found


@contextmanager
def cluster(directory: Path, mark: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The URL, and the process whose lines say how many replicas there are."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    # Paths of sockets are short.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as temporary:
        environment = {
            **os.environ,
            MARK: mark,
            "RAY_USAGE_STATS_ENABLED": "0",
            # Ray would make a token and keep it in the home of whoever runs this.
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "HOME": temporary,
        }
        command = [sys.executable, "-m", "tests.cli.ray_cluster", str(directory), str(port)]
        with subprocess.Popen(
            [*command, temporary],
            cwd=Path(__file__).parents[2],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            guard = threading.Timer(2 * SECONDS, process.kill)
            guard.start()
            try:
                yield f"http://127.0.0.1:{port}", process
            finally:
                assert process.stdin is not None
                process.stdin.close()
                code = process.wait(SECONDS)
                guard.cancel()
            assert code == 0


@needs_ray
@pytest.mark.slow
def test_one_replica_becomes_three_with_the_same_answers(stack_directory: Path) -> None:
    mark = uuid.uuid4().hex
    with h5py.File(stack_directory / "scan.h5") as file:
        frames = file["stack"][()]
    with cluster(stack_directory, mark) as (url, process), httpx.Client(
        base_url=url, trust_env=False, timeout=SECONDS
    ) as client:  # fmt: skip
        assert process.stdout is not None
        counts = map(int, process.stdout)
        assert next(each for each in counts if each > 0) == 1
        meta = client.get("/meta?file=scan.h5&path=/stack").json()
        assert (meta["shape"], meta["chunks"]) == ([12, 256, 256], [1, 256, 256])
        assert client.get("/attr?file=scan.h5&path=/stack").json() == {"unit": "counts"}
        assert client.get("/health").json() == {"status": "ok"}
        refused = client.get("/meta?file=../scan.h5")
        assert (refused.status_code, list(refused.json())) == (404, ["message"])

        enough, end = threading.Event(), monotonic() + SECONDS

        def ask(number: int) -> int:
            asked = 0
            while not enough.is_set() and monotonic() < end:
                place = (number + asked) % len(frames)
                data = f"/data?file=scan.h5&path=/stack&selection={place}&format=bin"
                answer = client.get(data)
                assert answer.status_code == 200
                assert answer.content == frames[place].tobytes()
                tag = {"if-none-match": answer.headers["etag"]}
                assert client.get(data, headers=tag).status_code == 304
                asked += 1
            return asked

        with ThreadPoolExecutor(CLIENTS) as pool:
            asked = [pool.submit(ask, number) for number in range(CLIENTS)]
            try:
                assert next(each for each in counts if each == 3) == 3
            finally:
                enough.set()
            assert sum(each.result() for each in asked) > 0
        part = client.get("/file/scan.h5", headers={"range": "bytes=0-7"})
        assert (part.status_code, part.content) == (206, b"\x89HDF\r\n\x1a\n")
    end = monotonic() + SECONDS
    while list_processes(mark):
        assert monotonic() < end, "processes are left"
