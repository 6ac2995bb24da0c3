"""`python -m benchmarks.soak [--quick]`: see the package; exit code 1 when something is wrong."""

import argparse
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.client import BenchmarkError
from benchmarks.servers import process
from benchmarks.soak import figures
from benchmarks.soak.clients import Client, Record, Wrong
from benchmarks.soak.files import Folder
from benchmarks.soak.processes import Watch, open_below, workers
from benchmarks.soak.questions import QUESTIONS

FULL_SECONDS, QUICK_SECONDS = 1200, 120
WORKERS, CLIENTS = 2, 8

# Parts of the time: when workers are killed, and from when on everything has to be flat.
_KILLS = (0.08, 0.16, 0.24)
_FLAT_FROM = 0.5

# Small caches fill up at once, what little is in flight is soon as much as it ever is (else memory
# rises with each rare coincidence of downloads), and idle files are closed while one waits for it.
_OPTIONS = (
    *("--chunk-cache-bytes", "32MiB", "--answer-cache-bytes", "4MiB"),
    *("--max-in-flight-bytes", "24MiB"),
    *("--workers", str(WORKERS), "--port", "0"),
)
_IDLE_SECONDS = 60.0
_REPLACED_SECONDS = 30.0
_LONGEST_END_SECONDS = 40.0


def main() -> int:
    options = _options()
    # So that `kill` unwinds as Ctrl-C does and the server is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    seconds = options.seconds or (QUICK_SECONDS if options.quick else FULL_SECONDS)
    with tempfile.TemporaryDirectory(prefix="asgihive-soak-") as directory:
        folder = Folder(Path(directory).resolve())
        print(f"{seconds:g} seconds, seed {options.seed}", file=sys.stderr, flush=True)
        with _serving(folder.root) as (server, port):
            return _soak(server, port, folder, seconds, options.seed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two minutes, not twenty")
    parser.add_argument("--seconds", type=float, help="any other time")
    parser.add_argument("--seed", type=int, default=1, help="of all chance (%(default)s)")
    return parser.parse_args()


@contextmanager
def _serving(root: Path) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    command = [sys.executable, "-m", "asgihive", "serve", str(root), *_OPTIONS]
    with process(command, {}) as server:
        assert server.stdout is not None
        for line in server.stdout:
            if found := re.search(rb"http://127\.0\.0\.1:(\d+)", line):
                yield server, int(found[1])
                return
        raise BenchmarkError("the server did not start")


def _soak(
    server: "subprocess.Popen[bytes]", port: int, folder: Folder, seconds: float, seed: int
) -> int:
    record, watch, over = Record(), Watch(server.pid, time.monotonic()), threading.Event()
    jobs: list[Callable[[], object]] = [
        lambda: folder.change(random.Random(seed), over),
        lambda: watch.run(max(0.5, seconds / 240), over),
        *(_client(Client(port, folder, record, seed + each), over) for each in range(CLIENTS)),
    ]
    failures: list[BaseException] = []
    threads = [threading.Thread(target=_noting, args=(job, failures, over)) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        _wait_and_kill(watch, record, seconds, over)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    if failures:
        raise BenchmarkError("the soak itself failed") from failures[0]
    flat = watch.since(_FLAT_FROM * seconds)
    found = figures.problems(record, flat, _list_left_open(server.pid, folder.root))
    found += _ended(server)
    _report(record, folder, seconds, figures.render_processes(flat))
    print("\n".join(["", *(f"WRONG: {each}" for each in found)] if found else ["", "all is well"]))
    return 1 if found else 0


def _noting(
    job: Callable[[], object], failures: list[BaseException], over: threading.Event
) -> None:
    try:
        job()
    except BaseException as error:  # noqa: BLE001  # raised by who waits for the thread
        failures.append(error)
        over.set()


def _client(client: Client, over: threading.Event) -> Callable[[], None]:
    kinds, weights = list(QUESTIONS), [weight for weight, _ in QUESTIONS.values()]

    def run() -> None:
        while not over.wait(client.chance.uniform(0, 0.02)):
            [kind] = client.chance.choices(kinds, weights)
            try:
                QUESTIONS[kind][1](client, kind)
            except Wrong as error:
                client.record.blame(kind, str(error))
            except (ValueError, KeyError, TypeError, IndexError) as error:
                # No answer of the contract can be read like that.
                client.record.blame(kind, f"{type(error).__name__}: {error}")
            if client.chance.random() < 0.01:
                client.close()
        client.close()

    return run


def _wait_and_kill(watch: Watch, record: Record, seconds: float, over: threading.Event) -> None:
    for number, part in enumerate(_KILLS):
        if over.wait(max(0.0, watch.began + part * seconds - time.monotonic())):
            return
        record.kills.append(time.monotonic())
        killed = watch.kill_one(number)
        _wait_until_replaced(watch.pid, killed)
    over.wait(max(0.0, watch.began + seconds - time.monotonic()))


def _wait_until_replaced(pid: int, killed: int) -> None:
    until = time.monotonic() + _REPLACED_SECONDS
    while killed in (found := workers(pid)) or len(found) != WORKERS:
        if time.monotonic() > until:
            raise BenchmarkError(f"the worker {killed} was killed, and is not replaced")
        time.sleep(0.1)


def _list_left_open(pid: int, root: Path) -> list[str]:
    """Return the served files still open some time after the last request: none should be."""
    time.sleep(_IDLE_SECONDS)
    return [each for worker in workers(pid) for each in open_below(worker, root)]


def _ended(server: "subprocess.Popen[bytes]") -> list[str]:
    """Return what is wrong with how the server ends."""
    before = workers(server.pid)
    server.terminate()
    try:
        code = server.wait(_LONGEST_END_SECONDS)
    except subprocess.TimeoutExpired:
        return [f"the server does not end in {_LONGEST_END_SECONDS:g} s"]
    alive = [f"worker {each} outlives it" for each in before if Path(f"/proc/{each}").exists()]
    return alive if code == 0 else [*alive, f"the server ends with exit code {code}"]


def _report(record: Record, folder: Folder, seconds: float, processes: str) -> None:
    count = sum(len(each.seconds) for each in record.tallies.values())
    print(figures.render_answers(record))
    print(
        f"\n{count:,} requests, {count / seconds:.0f} a second, "
        f"{record.received_bytes / 2**30:.2f} GiB; {folder.changes:,} changes of files; "
        f"{len(record.kills)} workers killed; {len(record.wrong)} wrong answers\n"
    )
    print(processes)


if __name__ == "__main__":
    sys.exit(main())
