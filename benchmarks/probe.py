"""Latency as other clients see it, from a process of its own: `python -m benchmarks.probe PORT`.

Its threads ask for `/` until standard input ends, then it prints all latencies as JSON. The
measuring process itself would not do: it is busy with receiving, and its threads share one GIL.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from benchmarks.client import BenchmarkError, Connection, ConnectionEndedError
from benchmarks.servers import REPOSITORY

CLIENTS = 4
# A viewer's other requests, not a load: each client pauses between two of them.
PAUSE_SECONDS = 0.005
_TIMEOUT_SECONDS = 120


class Probe:
    """A running probe process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def finish(self) -> Sequence[float]:
        """End the probe and return every answer's latency in milliseconds.

        Raises:
            BenchmarkError: an answer failed, or there was none.
        """
        printed, _ = self._process.communicate(timeout=120)
        if self._process.returncode:
            raise BenchmarkError("the probe failed; what it says is on standard error")
        latencies: list[float] = json.loads(printed)
        return latencies


@contextmanager
def probing(port: int) -> Iterator[Probe]:
    """Start a probe and wait until it has its first answer; end it in any case."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.probe", str(port)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield Probe(process)
        finally:
            process.kill()


def _ask(port: int, end: threading.Event) -> Sequence[float]:
    latencies: list[float] = []
    since: float | None = None
    while not end.is_set():
        # A server that stood still takes its clients for idle and closes their connections: as
        # a browser does, ask again, and count from the first time.
        with (
            suppress(ConnectionEndedError, ConnectionResetError, BrokenPipeError),
            Connection(port, _TIMEOUT_SECONDS) as connection,
        ):
            while not end.wait(PAUSE_SECONDS):
                since = since or time.perf_counter()
                connection.stream("/")
                latencies.append((time.perf_counter() - since) * 1e3)
                since = None
    return latencies if since is None else [*latencies, (time.perf_counter() - since) * 1e3]


def main(port: int) -> None:
    with Connection(port, _TIMEOUT_SECONDS) as connection:
        connection.stream("/")
    print("ready", flush=True)
    end = threading.Event()
    with ThreadPoolExecutor(CLIENTS) as threads:
        clients = [threads.submit(_ask, port, end) for _ in range(CLIENTS)]
        sys.stdin.read()
        end.set()
    print(json.dumps([latency for client in clients for latency in client.result()]))


if __name__ == "__main__":
    main(int(sys.argv[1]))
