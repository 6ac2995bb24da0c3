"""A process that asks for damaged files, and says before each request what it asks.

`python -m tests.fuzz.asking ROOT FIRST COUNT REQUESTS SECONDS ISOLATION ABOUT URL`: the mutants of
the seeds from FIRST on, each asked for by at most REQUESTS requests, and no request takes longer
than SECONDS; ISOLATION is the setting, ABOUT and URL as in `Effort`. What it says is one JSON
document a line; the last line of one that crashed says where.
"""

import contextlib
import faulthandler
import hashlib
import importlib
import logging
import os
import random
import re
import resource
import sys
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import anyio
import h5py
import orjson
from starlette.types import Receive, Scope, Send

from asgihive.service import H5App
from asgihive.settings import H5Settings
from tests.asgi.exchange import Exchange, http, run
from tests.fuzz.judging import complaint
from tests.fuzz.mutations import Mutant, Source, mutant, source
from tests.fuzz.questions import (
    Question,
    about_all,
    about_entities,
    about_store,
    about_values,
    opening,
)
from tests.zoo import FILES, awkward, streams

# Of the process: far beyond any sound answer. Damage to a heap may ask for memory for ever.
MEMORY_BYTES = 3 << 30
RESPONSE_BYTES = 1 << 20

# Files are written so many at a time, that the first are old enough when they are asked for.
_BATCH = 20

# Requests about a file that does not even say what is in it.
_UNREADABLE = 6

# For as many of the others, one request about a file as a Zarr store.
_OF_A_STORE = 4

_TICK_SECONDS = 0.1

_VERSION = re.compile(rb'"_asgihive_version":"[0-9a-f]+"')
"""What the metadata of a Zarr store say of the file's inode and times."""


def sources(root: Path) -> list[Source]:
    """The zoo, as it lies below `root`."""
    return [source(name, (root / name).read_bytes()) for name in (*FILES, awkward.FILE)]


def stream_sources(root: Path) -> list[Source]:
    """What `streams.build` wrote below `root`, which is damaged where values are stored."""
    return [
        source(each.name, (root / each.name).read_bytes(), each.anchors)
        for each in streams.find(root)
    ]


def name_of(seed: int) -> str:
    """Of the file of a seed: beside the others, which some of its links lead to."""
    return f"mutant_{seed}.h5"


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is asked.

    requests: about one file, at most, beside its directory, a batch, and the store that it is.
    seconds: how long a request may take.
    isolation: the setting.
    about: `files`: whatever can be asked about one; `values`: what shows values, each question
        twice, and what was answered is told.
    url: of a prefix of an S3 server, which the environment names, that is served instead of the
        directory, and has the same files.
    """

    requests: int = 30
    seconds: float = 5.0
    isolation: Literal["none", "process"] = "none"
    about: Literal["files", "values"] = "files"
    url: str = ""

    @classmethod
    def of(cls, requests: str, seconds: str, isolation: str, about: str, url: str) -> Self:
        """As the arguments of a process say it."""
        return cls(
            int(requests),
            float(seconds),
            "process" if isolation == "process" else "none",
            "values" if about == "values" else "files",
            url,
        )

    @property
    def arguments(self) -> tuple[str, ...]:
        """What `of` makes it of again."""
        return (str(self.requests), str(self.seconds), self.isolation, self.about, self.url)

    @property
    def patience(self) -> float:
        """Longer than the service has, by what its own time limits may take to show.

        A worker that hangs is given up after twice the time, and so is the one that shows who is
        to blame for it.
        """
        return (6 if self.isolation == "process" else 2) * self.seconds + 1


class Asked(Protocol):
    """A service: its ASGI application, and the time that it runs."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    def running(self) -> AbstractAsyncContextManager[None]: ...


def service(root: Path, effort: Effort) -> H5App:
    """The service over `root`, in this process."""
    settings = H5Settings(
        max_response_bytes=RESPONSE_BYTES,
        read_timeout_seconds=effort.seconds,
        max_open_files=2 * _BATCH,
        decode_lanes=2,
        isolation=effort.isolation,
    )
    return H5App(effort.url or root, settings)


class Files(Protocol):
    """Where a service finds its files."""

    def put(self, name: str, content: bytes) -> None: ...

    def remove(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Directory:
    """Files in a directory."""

    root: Path

    def put(self, name: str, content: bytes) -> None:
        (self.root / name).write_bytes(content)

    def remove(self, name: str) -> None:
        (self.root / name).unlink()


class Prefix:
    """Objects of an S3 server, below `s3://bucket/prefix`."""

    def __init__(self, url: str) -> None:
        self._bucket, _, self._prefix = url.removeprefix("s3://").partition("/")
        self._client = importlib.import_module("boto3").client("s3")

    def put(self, name: str, content: bytes) -> None:
        key = f"{self._prefix}/{name}"
        self._client.put_object(Bucket=self._bucket, Key=key, Body=content)

    def remove(self, name: str) -> None:
        self._client.delete_object(Bucket=self._bucket, Key=f"{self._prefix}/{name}")


class Asker:
    """Asks one service.

    Args:
        root: where the files are.
        known: what they were before they were damaged.
        say: is given each thing that happens.
    """

    def __init__(
        self,
        app: Asked,
        root: Path,
        known: list[Source],
        effort: Effort,
        say: Callable[..., None],
    ) -> None:
        self._app = app
        self._paths = {each.name: _paths(root / each.name) for each in known}
        self._effort = effort
        self._say = say
        self._ticked = time.monotonic()
        self._longest_gap = 0.0
        self._logged = _Logged()
        logging.getLogger("asgihive").addHandler(self._logged)

    @property
    def tells_answers(self) -> bool:
        """Whether it asks what shows values, and tells what was answered."""
        return self._effort.about == "values"

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
        file, paths = name_of(mutant.seed), ["/", *self._paths[mutant.source]]
        if self.tells_answers:
            await self._ask_twice(mutant, file, paths[1:], chance, statuses)
            self._say(done=mutant.seed, statuses=statuses, seconds=time.monotonic() - began)
            return
        most, is_opened = self._effort.requests, False
        for question in opening(file):
            answer = await self._ask(mutant, question, statuses)
            if answer is not None and answer.status == 200 and question.format_ == "json":
                is_opened = True
                paths += answer.json if question.route == "/paths" else ()
        if not is_opened:
            most = _UNREADABLE
        for question in about_entities(file, paths, chance, most - 3):
            await self._ask(mutant, question, statuses)
        for question in about_all(file, paths, chance):
            await self._ask(mutant, question, statuses)
        for question in about_store(file, paths, chance, max(2, most // _OF_A_STORE)):
            await self._ask(mutant, question, statuses)
        self._say(done=mutant.seed, statuses=statuses, seconds=time.monotonic() - began)

    async def _ask_twice(
        self,
        mutant: Mutant,
        file: str,
        paths: list[str],
        chance: random.Random,
        statuses: Counter[str],
    ) -> None:
        """What shows values; the second time perhaps from what is kept of the first."""
        most = self._effort.requests
        # But not about the version of the file, which the first one tells.
        questions = [
            *about_values(file, paths, chance, most),
            *about_store(file, paths, chance, max(3, most // _OF_A_STORE))[1:],
        ]
        for question in questions:
            for _ in range(2):
                answer = await self._ask(mutant, question, statuses)
                self._say(**_told(answer))

    async def _ask(
        self, mutant: Mutant, question: Question, statuses: Counter[str]
    ) -> Exchange | None:
        self._say(seed=mutant.seed, source=mutant.source, request=str(question))
        method, query = "POST" if question.body else "GET", question.query_string.encode()
        exchange = http(question.route, method, body=question.body, query_string=query)
        error = None
        self._logged.text, self._longest_gap, self._ticked = "", 0.0, time.monotonic()
        try:
            with anyio.fail_after(self._effort.patience):
                await run(self._app, exchange)
        except Exception as escaped:  # noqa: BLE001  # whatever it is, it is judged
            error = escaped
        wrong = complaint(exchange, question.format_, error, len(question.members))
        statuses[str(exchange.status) if exchange.complete else "aborted"] += 1
        gap = max(self._longest_gap, time.monotonic() - self._ticked)
        if isinstance(error, TimeoutError) and gap > self._effort.seconds:
            # Only what holds the interpreter's lock keeps the event loop from ending it in time.
            self._say(stalled=gap)
        elif wrong is not None:
            details = self._logged.text or _formatted(error)
            self._say(complaint=wrong, details=details, damages=mutant.damages)
        return exchange if exchange.complete else None


def _told(answer: Exchange | None) -> dict[str, Any]:
    """What an answer was, for who compares it; its headers tell the time."""
    if answer is None:
        return {"answer": "none", "status": 0}
    # Each process asks for a copy of its own.
    body = _VERSION.sub(b"", answer.body)
    digest = hashlib.blake2b(body, digest_size=12).hexdigest()
    return {"answer": digest, "status": answer.status}


def _paths(file: Path) -> list[str]:
    """Of a sound file: a damaged one may not say what is in it, and still have it."""
    with h5py.File(file) as opened:
        names: list[bytes] = []
        opened.id.links.visit(names.append)
        return ["/" + name.decode("utf-8", "surrogateescape") for name in names]


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
    known = sources(root) if effort.about == "files" else stream_sources(root)
    asker = Asker(service(root, effort), root, known, effort, _say)
    files = Prefix(effort.url) if effort.url else Directory(root)
    async with asker.running():
        await ask_about_all(files, known, asker, first, count)


async def ask_about_all(
    files: Files, known: list[Source], asker: Asker, first: int, count: int
) -> None:
    """Write the mutants of `count` seeds a few at a time, ask about them, and remove them."""
    for start in range(first, first + count, _BATCH):
        seeds = range(start, min(start + _BATCH, first + count))
        batch = [mutant(known, seed, sound_first=asker.tells_answers) for seed in seeds]
        for each in batch:
            files.put(name_of(each.seed), each.content)
        for each in batch:
            await asker.ask_about(each)
            files.remove(name_of(each.seed))


if __name__ == "__main__":
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    with contextlib.suppress(ImportError):
        import hdf5plugin  # noqa: F401  # h5py reads some filters of the zoo only with it
    _, root, first, count, *rest = sys.argv
    anyio.run(_main, Path(root), int(first), int(count), Effort.of(*rest))
