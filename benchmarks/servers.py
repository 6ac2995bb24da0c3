"""Starts the measured servers as processes of their own and ends them by id, always."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.client import BenchmarkError, Connection, make_request

SUBJECT, CEILING = "asgihive", "ceiling"
_START_SECONDS = 60
REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Server:
    """A running server on a port of 127.0.0.1."""

    name: str
    process_id: int
    port: int

    def connect(self, timeout_seconds: float = 120) -> Connection:
        return Connection(self.port, timeout_seconds)

    def get(self, target: str) -> bytes:
        """Return the body of one answer over a new connection."""
        return self.answer(make_request(target))

    def answer(self, request: bytes) -> bytes:
        """Do as `get`, for any request."""
        with self.connect() as connection:
            return connection.answer(request)

    def reset_peak_memory(self) -> None:
        """Let the peak start again at what is resident now (Linux, proc_pid_clear_refs(5))."""
        Path(f"/proc/{self.process_id}/clear_refs").write_text("5")

    def peak_memory(self) -> int:
        """Return the most bytes that were resident at once (VmHWM, proc_pid_status(5))."""
        for line in Path(f"/proc/{self.process_id}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "VmHWM":
                return int(value.removesuffix("kB")) * 1024
        raise BenchmarkError(f"no VmHWM of process {self.process_id}")


# Starts the server of a name, for a directory and with an environment, and ends it at the end.
# Any program that listens on a port can be a peer: its start need not be `on_uvicorn`.
Launch = Callable[[str, Path, Mapping[str, str]], AbstractContextManager[Server]]


def on_uvicorn(app: str) -> Launch:
    """Start uvicorn with one worker, which serves a module of `benchmarks.apps`."""
    return partial(start_uvicorn, app)


def with_setting(launch: Launch, variable: str, value: str) -> Launch:
    """Start the same with one more environment variable: to hold a server against itself."""

    def changed(
        name: str, directory: Path, environment: Mapping[str, str]
    ) -> AbstractContextManager[Server]:
        return launch(name, directory, {**environment, variable: value})

    return changed


@contextmanager
def without_server(
    name: str, _directory: Path, _environment: Mapping[str, str]
) -> Iterator[Server]:
    """Start nothing, for what is measured in this process; the port is 0."""
    yield Server(name, os.getpid(), 0)


@contextmanager
def running(
    launches: Mapping[str, Launch], directory: Path, environment: Mapping[str, str]
) -> Iterator[list[Server]]:
    """Start the servers at once, by their names; they have ended when the context has.

    Raises:
        BenchmarkError: a server does not start; what it says is on standard error.
    """
    with ExitStack() as stack:
        contexts = [launch(name, directory, environment) for name, launch in launches.items()]
        with ThreadPoolExecutor(len(contexts) or 1) as threads:
            started = [threads.submit(stack.enter_context, context) for context in contexts]
        yield [each.result() for each in started]


@contextmanager
def start_uvicorn(
    app: str, name: str, served: Path | str, environment: Mapping[str, str]
) -> Iterator[Server]:
    """Start it over a directory, or over the URL of an object store."""
    command = [sys.executable, "-m", "benchmarks.serve", app, str(served)]
    with process(command, environment) as started:
        assert started.stdout is not None
        line = started.stdout.readline()
        if not line:
            raise BenchmarkError(f"{name} did not start")
        yield wait_until_answering(name, started, int(line))


def wait_until_answering(
    name: str, started: subprocess.Popen[bytes], port: int, target: str = "/", word: bytes = b""
) -> Server:
    """Return the server once it answers `target` with any status and a body with `word` in it.

    Raises:
        BenchmarkError: it ends before that, or needs too long.
    """
    server = Server(name, started.pid, port)
    end = time.monotonic() + _START_SECONDS
    while True:
        try:
            with server.connect() as connection:
                if word in connection.exchange(make_request(target))[1]:
                    return server
            error = "it is not ready"
        except (BenchmarkError, OSError) as problem:
            error = str(problem)
        if started.poll() is not None or time.monotonic() > end:
            raise BenchmarkError(f"{name} did not start: {error}")
        time.sleep(0.05)


@contextmanager
def process(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    quiet: bool = False,
    end: signal.Signals = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command beside this process; it has ended, or was killed, when the context has.

    Args:
        quiet: whether what it says is dropped: peers log each request, which is not read.
        end: the signal that ends it and its own processes.
    """
    output = subprocess.DEVNULL if quiet else None
    with subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=output or subprocess.PIPE,
        stderr=output,
        # Ctrl-C goes to the whole foreground group: only the benchmark itself shall handle it.
        start_new_session=True,
    ) as started:
        try:
            yield started
        finally:
            started.send_signal(end)
            try:
                started.wait(timeout=5)
            except subprocess.TimeoutExpired:
                os.killpg(started.pid, signal.SIGKILL)
