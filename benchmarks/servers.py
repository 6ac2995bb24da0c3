"""Starts the measured servers as processes of their own and ends them by id, always."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.client import BenchmarkError, Connection

SUBJECT, PEER, CEILING = "asgihive", "h5grove", "ceiling"
REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: uvicorn, one worker, on a free port of 127.0.0.1."""

    name: str
    process_id: int
    port: int

    def connect(self) -> Connection:
        return Connection(self.port)

    def get(self, target: str) -> bytes:
        """The body of one answer over a new connection."""
        with self.connect() as connection:
            return connection.get(target)

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


@contextmanager
def running(
    names: Sequence[str], directory: Path, environment: Mapping[str, str]
) -> Iterator[list[Server]]:
    """Start the servers side by side; they have ended when the context has.

    Raises:
        BenchmarkError: a server does not start; what it says is on standard error.
    """
    with ExitStack() as stack:
        processes = [stack.enter_context(_process(name, directory, environment)) for name in names]
        yield [_started(name, process) for name, process in zip(names, processes, strict=True)]


@contextmanager
def _process(
    name: str, directory: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.serve", name, directory],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Ctrl-C goes to the whole foreground group: only the benchmark itself shall handle it.
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()


def _started(name: str, process: subprocess.Popen[bytes]) -> Server:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise BenchmarkError(f"{name} did not start")
    server = Server(name, process.pid, int(line))
    server.get("/")
    return server
