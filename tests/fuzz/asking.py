"""A process that asks for damaged files, and says before each request what it asks.

`python -m tests.fuzz.asking ROOT FIRST COUNT REQUESTS SECONDS ISOLATION`: the mutants of the
seeds from FIRST on, each asked for by at most REQUESTS requests, none of which takes longer than
SECONDS; ISOLATION is the setting. What it says is one JSON document a line; the last line of one
that crashed says where.
"""

import contextlib
import faulthandler
import logging
import os
import random
import resource
import sys
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

import anyio
import h5py
import orjson

from asgihive.service import H5App
from asgihive.settings import H5Settings
from tests.asgi.exchange import Exchange, http, run
from tests.fuzz.judging import complaint
from tests.fuzz.mutations import Mutant, Source, mutant, source
from tests.zoo import FILES, awkward

# Of the process: far beyond any sound answer. Damage to a heap may ask for memory for ever.
MEMORY_BYTES = 3 << 30
RESPONSE_BYTES = 1 << 20

# Files are written so many at a time, that the first are old enough when they are asked for.
_BATCH = 20

# Requests about a file that does not even say what is in it.
_UNREADABLE = 6

_TICK_SECONDS = 0.1

_FORMATS = ("json", "json", "json", "bin", "bin", "npy", "csv", "tiff", "msgpack")
_SELECTIONS = ("", "", "", "0", "...", "1:3", ":,1", "-1", "::2", "0:99999999")
_VIEWS: tuple[dict[str, str], ...] = ({}, {}, {}, {"max_points": "10"}, {"shape": "2,2"})


def sources(root: Path) -> list[Source]:
    """The zoo, as it lies below `root`."""
    return [source(name, (root / name).read_bytes()) for name in (*FILES, awkward.FILE)]


def name_of(seed: int) -> str:
    """Of the file of a seed: beside the others, which some of its links lead to."""
    return f"mutant_{seed}.h5"


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is asked.

    requests: about one file, at most.
    seconds: how long a request may take.
    isolation: the setting.
    """

    requests: int = 30
    seconds: float = 5.0
    isolation: Literal["none", "process"] = "none"

    @property
    def patience(self) -> float:
        """Longer than the service has, by what its own time limits may take to show.

        A worker that hangs is given up after twice the time, and so is the one that shows who is
        to blame for it.
        """
        return (6 if self.isolation == "process" else 2) * self.seconds + 1


class Asker:
    """Asks one service.

    Args:
        known: what the files were before they were damaged.
        say: is given each thing that happens.
    """

    def __init__(
        self, root: Path, known: list[Source], effort: Effort, say: Callable[..., None]
    ) -> None:
        settings = H5Settings(
            max_response_bytes=RESPONSE_BYTES,
            read_timeout_seconds=effort.seconds,
            max_open_files=2 * _BATCH,
            decode_lanes=2,
            isolation=effort.isolation,
        )
        self._app = H5App(root, settings)
        self._paths = {each.name: _paths(root / each.name) for each in known}
        self._effort = effort
        self._say = say
        self._ticked = time.monotonic()
        self._longest_gap = 0.0
        self._logged = _Logged()
        logging.getLogger("asgihive").addHandler(self._logged)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the service, and see whether the event loop does."""
        async with self._app.running(), anyio.create_task_group() as tasks:
            tasks.start_soon(self._tick)
            yield
            tasks.cancel_scope.cancel()

    async def _tick(self) -> None:
        while True:
            self._longest_gap = max(self._longest_gap, time.monotonic() - self._ticked)
            self._ticked = time.monotonic()
            await anyio.sleep(_TICK_SECONDS)

    async def ask_about(self, mutant: Mutant) -> None:
        """Every request about one of them."""
        chance = random.Random(mutant.seed)
        statuses: Counter[str] = Counter()
        began = time.monotonic()
        paths = ["/", *self._paths[mutant.source]]
        most, is_opened = self._effort.requests, False
        for route, format_ in (("/paths", "json"), ("/meta", "json"), ("/file", "file")):
            answer = await self._ask(mutant, route, {}, format_, statuses)
            if answer is not None and answer.status == 200 and route != "/file":
                is_opened = True
                paths += answer.json if route == "/paths" else ()
        if not is_opened:
            most = _UNREADABLE
        for route, query, format_ in _questions(paths, chance, most - 3):
            await self._ask(mutant, route, query, format_, statuses)
        self._say(done=mutant.seed, statuses=statuses, seconds=time.monotonic() - began)

    async def _ask(
        self,
        mutant: Mutant,
        route: str,
        query: dict[str, str],
        format_: str,
        statuses: Counter[str],
    ) -> Exchange | None:
        query = {"file": name_of(mutant.seed), **query}
        query_string = urlencode(query, errors="surrogateescape")
        self._say(seed=mutant.seed, source=mutant.source, request=f"{route}?{query_string}")
        exchange, error = http(route, query_string=query_string.encode()), None
        self._logged.text, self._longest_gap, self._ticked = "", 0.0, time.monotonic()
        try:
            with anyio.fail_after(self._effort.patience):
                await run(self._app, exchange)
        except Exception as escaped:  # noqa: BLE001  # whatever it is, it is judged
            error = escaped
        wrong = complaint(exchange, format_, error)
        statuses[str(exchange.status) if exchange.complete else "aborted"] += 1
        gap = max(self._longest_gap, time.monotonic() - self._ticked)
        if isinstance(error, TimeoutError) and gap > self._effort.seconds:
            # Only what holds the interpreter's lock keeps the event loop from ending it in time.
            self._say(stalled=gap)
        elif wrong is not None:
            details = self._logged.text or _formatted(error)
            self._say(complaint=wrong, details=details, damages=mutant.damages)
        return exchange if exchange.complete else None


def _paths(file: Path) -> list[str]:
    """Of a sound file: a damaged one may not say what is in it, and still have it."""
    with h5py.File(file) as opened:
        names: list[bytes] = []
        opened.id.links.visit(names.append)
        return ["/" + name.decode("utf-8", "surrogateescape") for name in names]


def _questions(
    paths: list[str], chance: random.Random, most: int
) -> Iterator[tuple[str, dict[str, str], str]]:
    """Route, parameters and format, of each path in turn."""
    distinct = list(dict.fromkeys(paths))
    chance.shuffle(distinct)
    routes = ("/meta", "/data", "/attr", "/stats", "/data", "/histogram")
    asked = [(path, route) for route in routes for path in distinct]
    for path, route in asked[:most] if len(asked) <= most else chance.sample(asked, most):
        query, format_ = {"path": path}, "json"
        if route == "/data":
            format_ = chance.choice(_FORMATS)
            query |= {"format": format_, **chance.choice(_VIEWS)}
        if route not in {"/meta", "/attr"}:
            query["selection"] = chance.choice(_SELECTIONS)
        yield route, query, format_


class _Logged(logging.Handler):
    """The last error that was logged, with its traceback."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.text = _formatted(record.exc_info[1])


def _formatted(error: BaseException | None) -> str:
    return "" if error is None else "".join(traceback.format_exception(error))[-3000:]


def _say(**what: Any) -> None:
    # At once: what is not written when the process crashes is lost.
    os.write(1, orjson.dumps(what, default=str) + b"\n")


async def _main(root: Path, first: int, count: int, effort: Effort) -> None:
    known = sources(root)
    asker = Asker(root, known, effort, _say)
    async with asker.running():
        await _ask_about_all(root, known, asker, first, count)


async def _ask_about_all(
    root: Path, known: list[Source], asker: Asker, first: int, count: int
) -> None:
    for start in range(first, first + count, _BATCH):
        batch = [mutant(known, seed) for seed in range(start, min(start + _BATCH, first + count))]
        files = [root / name_of(each.seed) for each in batch]
        for file, each in zip(files, batch, strict=True):
            file.write_bytes(each.content)
        for file, each in zip(files, batch, strict=True):
            await asker.ask_about(each)
            file.unlink()


if __name__ == "__main__":
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    with contextlib.suppress(ImportError):
        import hdf5plugin  # noqa: F401  # h5py reads some filters of the zoo only with it
    _, root, first, count, requests, seconds, isolation = sys.argv
    effort = Effort(int(requests), float(seconds), "process" if isolation == "process" else "none")
    anyio.run(_main, Path(root), int(first), int(count), effort)
