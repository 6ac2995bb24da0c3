"""Damaged files over HTTP: an answer of the contract, in time, whatever is in them.

A file may crash libhdf5, and so the process that reads it. That is not the service's fault, is
counted, and printed with the seed; with isolation not even that reaches a client.

`ASGIHIVE_FUZZ_MUTANTS` is how many the long run makes, and those over sockets a quarter of;
`ASGIHIVE_FUZZ_SEED` is the first seed.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests import zoo
from tests.asgi.exchange import http, run
from tests.cli import processes
from tests.fuzz.asking import (
    RESPONSE_BYTES,
    Asker,
    Directory,
    Effort,
    ask_about_all,
    sources,
)
from tests.fuzz.runs import Report, fuzz
from tests.fuzz.wire import Wire

MANY = int(os.environ.get("ASGIHIVE_FUZZ_MUTANTS", "2000"))
SEED = int(os.environ.get("ASGIHIVE_FUZZ_SEED", "0"))
FEW = 40
# What damage does is seen in one process; that processes and sockets pass it on, in fewer.
SOME = MANY // 4

SERVER_PATIENCE = 1000.0

ABORTED = "An answer that had begun was broken off: "  # what is logged of it

# By seed: metadata that was read again for ever, since libhdf5 was told that a writer is there;
# links and attributes that cannot be listed; a file whose damage libhdf5 reports as it is closed.
ONCE_WRONG = (14, 734, 1837, 841, 1259, 10115)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    zoo.build(tmp_path)
    return tmp_path


def _judge(report: Report, count: int) -> None:
    print(report)
    assert not report.failures, str(report)
    assert report.mutants == count
    # They are neither so damaged that nothing is read, nor so little that all is.
    assert report.statuses["200"] > count
    assert report.statuses["422"] > count


def test_a_few(root: Path) -> None:
    _judge(fuzz(root, SEED, FEW, Effort(requests=5)), FEW)


@pytest.mark.slow
def test_many(root: Path) -> None:
    _judge(fuzz(root, SEED, MANY, Effort(requests=40), jobs=2), MANY)


@pytest.mark.slow
@pytest.mark.parametrize("seed", ONCE_WRONG)
def test_what_was_wrong_once(root: Path, seed: int) -> None:
    report = fuzz(root, seed, 1, Effort())
    assert not report.failures, str(report)
    assert not report.deaths, str(report)


@pytest.mark.slow
def test_not_even_a_crash_reaches_a_client_in_isolation(root: Path) -> None:
    report = fuzz(root, SEED, SOME, Effort(requests=20, isolation="process"), jobs=2)
    _judge(report, SOME)
    assert not report.deaths, str(report)


@pytest.mark.slow
def test_over_a_socket(root: Path) -> None:
    effort = Effort(requests=5, isolation="process")
    options = (
        *("--port", "0", "--isolation", effort.isolation, "--log-level", "info"),
        *("--read-timeout-seconds", str(effort.seconds)),
        *("--max-response-bytes", str(RESPONSE_BYTES)),
    )
    with (
        # By this name its log and what libhdf5 prints are among its lines.
        processes.running(
            *("serve", str(root)),
            *options,
            module="asgihive.__main__",
            patience=SERVER_PATIENCE,
        ) as server,
        _read_to_the_end(server),
    ):
        wire = Wire(server.url, effort.patience)
        report = _ask_over(wire, root, effort)
    _judge(report, SOME)
    aborted = report.statuses["aborted"]
    assert len(wire.connections) <= 1 + aborted
    # An abort is the end of an answer that turned out to be damaged, and of no other.
    log = "".join(server.lines)
    assert "Unexpected error" not in log
    assert log.count(ABORTED) == aborted, log
    assert "Traceback" not in log


def _ask_over(wire: Wire, root: Path, effort: Effort) -> Report:
    known, report = sources(root), Report()
    last: dict[str, Any] = {}

    def hear(**said: Any) -> None:
        nonlocal last
        last = report.hear(last, said)

    asker = Asker(wire, root, known, effort, hear)

    async def ask() -> None:
        async with asker.running():
            await ask_about_all(Directory(root), known, asker, SEED, SOME)
            # And what is sound is still served.
            assert (await run(wire, http("/meta?file=latest.h5"))).status == 200

    began = time.monotonic()
    anyio.run(ask)
    report.seconds = time.monotonic() - began
    return report


@contextmanager
def _read_to_the_end(server: processes.Server) -> Iterator[None]:
    """Take down what a server says meanwhile, which would else wait for it; at the end, end it."""
    reading = threading.Thread(target=server.read_until, args=("Finished server process",))
    reading.start()
    try:
        yield
    finally:
        server.tell(signal.SIGINT)
        reading.join()
