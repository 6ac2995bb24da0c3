"""Load: connections that each send the next random request as soon as they are answered."""

import asyncio
import json
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from benchmarks.client import AnswerParser, BenchmarkError

CONNECTIONS = 8
LONGEST_SECONDS = 60
"""A turn without any answer is tried again, longer, until it takes that."""


class Load(Protocol):
    """A load generator; `name` says in the table which one it was."""

    name: str

    def requests_per_second(
        self,
        port: int,
        requests: Sequence[bytes],
        seconds: int,
        seed: int,
        connections: int = CONNECTIONS,
    ) -> float:
        """Send seeded random picks of `requests` and count the complete answers.

        Raises:
            BenchmarkError: an answer was not 200, a connection broke, or nothing was answered.
        """


def choose_load() -> Load:
    """Return wrk where it is installed, else the asyncio generator."""
    program = shutil.which("wrk")
    return WrkLoad(program) if program else AsyncioLoad()


# One thread: on the few cores of a benchmark machine a second one would take from the server.
_WRK_SCRIPT = """\
local requests = {}

function init(args)
  math.randomseed(tonumber(args[2]))
  for line in io.lines(args[1]) do
    requests[#requests + 1] = line:gsub("%x%x", function(pair)
      return string.char(tonumber(pair, 16))
    end)
  end
end

function request()
  return requests[math.random(#requests)]
end

function done(summary)
  local errors = summary.errors
  io.write(string.format('\\n{"answers": %d, "microseconds": %d, "errors": %d}\\n',
    summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


class WrkLoad:
    """wrk with a script that varies the requests."""

    def __init__(self, program: str) -> None:
        self._program = program
        said = subprocess.run([program, "-v"], capture_output=True, text=True, check=False)
        version = re.search(r"\d+(\.\d+)+", said.stdout + said.stderr)
        self.name = f"wrk {version[0] if version else ''}".strip()

    def requests_per_second(
        self,
        port: int,
        requests: Sequence[bytes],
        seconds: int,
        seed: int,
        connections: int = CONNECTIONS,
    ) -> float:
        with tempfile.TemporaryDirectory(prefix="asgihive-wrk-") as folder:
            script, listed = Path(folder, "varied.lua"), Path(folder, "requests")
            script.write_text(_WRK_SCRIPT)
            # In hexadecimal digits: a request has line breaks, and its body may be anything.
            listed.write_text("\n".join(request.hex() for request in requests))
            command = [self._program, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout=60s"]
            command += ["-s", str(script), f"http://127.0.0.1:{port}", "--", str(listed), str(seed)]
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise BenchmarkError(f"wrk failed: {ran.stderr or ran.stdout}")
        counted = json.loads(ran.stdout.splitlines()[-1])
        if not counted["answers"] and not counted["errors"] and seconds < LONGEST_SECONDS:
            return self.requests_per_second(port, requests, 4 * seconds, seed, connections)
        if counted["errors"] or not counted["answers"]:
            raise BenchmarkError(f"wrk counted {counted}")
        return float(counted["answers"] / counted["microseconds"] * 1e6)


class AsyncioLoad:
    """The same in Python, over raw sockets: slower itself, so that it flattens high rates."""

    name = "asyncio generator"

    def requests_per_second(
        self,
        port: int,
        requests: Sequence[bytes],
        seconds: int,
        seed: int,
        connections: int = CONNECTIONS,
    ) -> float:
        rate = asyncio.run(_asyncio_load(port, requests, seconds, seed, connections))
        if not rate and seconds < LONGEST_SECONDS:
            return self.requests_per_second(port, requests, 4 * seconds, seed, connections)
        if not rate:
            raise BenchmarkError("nothing was answered")
        return rate


async def _asyncio_load(
    port: int, requests: Sequence[bytes], seconds: int, seed: int, connections: int
) -> float:
    loop = asyncio.get_running_loop()
    picks = _picks(requests, seed)
    clients = []
    start = loop.time()
    for _ in range(connections):
        _, client = await loop.create_connection(lambda: _Client(picks), "127.0.0.1", port)
        clients.append(client)
    done, _ = await asyncio.wait([client.broken for client in clients], timeout=seconds)
    rate = sum(client.answers for client in clients) / (loop.time() - start)
    for client in clients:
        client.broken.cancel()
        client.transport.abort()
    for error in [future.exception() for future in done]:
        if error is not None:
            raise error
    return rate


def _picks(requests: Sequence[bytes], seed: int) -> Iterator[bytes]:
    generator = random.Random(seed)
    while True:
        yield generator.choice(requests)


class _Client(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, picks: Iterator[bytes]) -> None:
        self.answers = 0
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._picks = picks
        self.data_received = AnswerParser(len, self._answered).feed  # type: ignore[method-assign]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(next(self._picks))

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"a connection was lost: {error or 'closed by the server'}")

    def _answered(self, status: int) -> None:
        if status != 200:
            self._fail(f"status {status}")
            return
        self.answers += 1
        self.transport.write(next(self._picks))

    def _fail(self, why: str) -> None:
        if not self.broken.done():
            self.broken.set_exception(BenchmarkError(why))
