"""asgihive with a dask cluster on the same machine: a scheduler, and workers of one thread each."""

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.client import BenchmarkError
from benchmarks.peers import programs
from benchmarks.servers import Launch, Server, process

_START_SECONDS = 60


def with_workers(count: int, service: Launch) -> Launch:
    """Start so many workers, and then the service, which asks them."""

    @contextmanager
    def launch(name: str, directory: Path, environment: Mapping[str, str]) -> Iterator[Server]:
        try:
            distributed = importlib.import_module("distributed")
        except ImportError as error:
            raise BenchmarkError(f"{name}: {error}; pip install 'asgihive[dask]'") from None
        address = f"127.0.0.1:{programs.find_free_port()}"
        host, port = address.split(":")
        scheduler = _make_command("scheduler", "--host", host, "--port", port)
        worker = _make_command("worker", f"tcp://{address}", "--nthreads", "1", "--no-nanny")
        with ExitStack() as stack:
            for command in (scheduler, *[worker] * count):
                stack.enter_context(process(command, environment, quiet=True))
            with distributed.Client(f"tcp://{address}", timeout=_START_SECONDS) as client:
                client.wait_for_workers(count, timeout=_START_SECONDS)
            asking = {**environment, "ASGIHIVE_COMPUTE": f"dask://{address}"}
            yield stack.enter_context(service(name, directory, asking))

    return launch


def _make_command(kind: str, *options: str) -> list[str]:
    return [sys.executable, "-m", f"distributed.cli.dask_{kind}", *options, "--no-dashboard"]
