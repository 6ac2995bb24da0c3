"""Starts the measured servers as processes of their own and ends them by id, always."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.client import BenchmarkError, Connection, request_bytes

SUBJECT, CEILING = "asgihive", "ceiling"
REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Server:
    """A running server on a port of 127.0.0.1."""

    name: str
    process_id: int
    port: int

    def connect(self) -> Connection:
        return Connection(self.port)

    def get(self, target: str) -> bytes:
        """The body of one answer over a new connection."""
        return self.answer(request_bytes(target))

    def answer(self, request: bytes) -> bytes:
        """As `get`, for any request."""
        with self.connect() as connection:
            return connection.answer(request)

    def reset_peak_memory(self) -> None:
        """Let the peak start again at what is resident now (Linux, proc_pid_clear_refs(5))."""
        Path(f"/proc/{self.process_id}/clear_refs").write_text("5")

    def peak_memory(self) -> int:
        """The most bytes that were resident at once (VmHWM, proc_pid_status(5))."""
        for line in Path(f"/proc/{self.process_id}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "VmHWM":
                return int(value.removesuffix("kB")) * 1024
        raise BenchmarkError(f"no VmHWM of process {self.process_id}")


# Starts the server of a name, for a directory and with an environment, and ends it at the end.
# Whatever listens on a port can be a peer: what starts it need not be `on_uvicorn`.
Launch = Callable[[str, Path, Mapping[str, str]], AbstractContextManager[Server]]


def on_uvicorn(app: str) -> Launch:
    """uvicorn with one worker, which serves a module of `benchmarks.apps`."""
    return partial(_uvicorn, app)


@contextmanager
def without_server(
    name: str, _directory: Path, _environment: Mapping[str, str]
) -> Iterator[Server]:
    """For what a question measures without a server: its process is this one, its port 0."""
    yield Server(name, os.getpid(), 0)


@contextmanager
def running(
    launches: Mapping[str, Launch], directory: Path, environment: Mapping[str, str]
) -> Iterator[list[Server]]:
    """Start the servers, by their names; they have ended when the context has.

    Raises:
        BenchmarkError: a server does not start; what it says is on standard error.
    """
    with ExitStack() as stack:
        yield [
            stack.enter_context(launch(name, directory, environment))
            for name, launch in launches.items()
        ]


@contextmanager
def _uvicorn(
    app: str, name: str, directory: Path, environment: Mapping[str, str]
) -> Iterator[Server]:
    command = [sys.executable, "-m", "benchmarks.serve", app, str(directory)]
    with process(command, environment) as started:
        assert started.stdout is not None
        line = started.stdout.readline()
        if not line:
            raise BenchmarkError(f"{name} did not start")
        server = Server(name, started.pid, int(line))
        try:
            with server.connect() as connection:
                connection.status(request_bytes("/"))  # any: it answers
        except (BenchmarkError, OSError) as error:
            raise BenchmarkError(f"{name} did not start: {error}") from error
        yield server


@contextmanager
def process(
    command: Sequence[str], environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command beside this process; it has ended, or was killed, when the context has."""
    with subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Ctrl-C goes to the whole foreground group: only the benchmark itself shall handle it.
        start_new_session=True,
    ) as started:
        try:
            yield started
        finally:
            started.terminate()
            try:
                started.wait(timeout=5)
            except subprocess.TimeoutExpired:
                started.kill()
