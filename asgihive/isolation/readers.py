"""The reader processes of a service: started, chosen, ended; and the files that crash them."""

import logging
import os
import sys
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
from msgspec import structs

from asgihive.concurrency import LoopLocal, run_in_worker
from asgihive.errors import FileMissing, Overloaded, ReaderCrashed
from asgihive.hdf5.sandbox import Content, Identity, Sandbox
from asgihive.isolation.process import ReaderProcess, Role, Setup
from asgihive.service.operations import Figures
from asgihive.settings import H5Settings

if TYPE_CHECKING:
    from asgihive.isolation.front import Relay

_logger = logging.getLogger(__name__)

QUARANTINE_SECONDS = 600.0
"""For so long a file that crashed reader processes is refused, unless it changes."""

# When so many have ended within a minute, requests are answered 503 until that is longer ago.
_MINUTE = 60.0
_MANY_ENDS = 20

# How often spare processes and hung ones are looked for.
_WATCH_SECONDS = 0.5

# Processes that are held up, beside the one that serves; with more, requests wait.
_MAX_ASIDE = 2

# Requests that are made alone at a time. Each needs a process, and one that hangs holds up others.
_MAX_ALONE = 3

# Score from which requests for a file are made alone: one end of a process that could only have
# been its fault or that of few others, or two that may have been.
_SUSPICIOUS, _DOUBTFUL = 2, 1


@dataclass(slots=True)
class FileRecord:
    """What is known of a file that may have crashed reader processes."""

    until: float
    """When it is forgotten."""
    score: int = 0
    refusal: str = ""
    """What clients are told; empty = the file is not refused."""


@dataclass(slots=True)
class _Limits:
    """Of one event loop."""

    starting: anyio.Lock = field(default_factory=anyio.Lock)
    noting: anyio.Lock = field(default_factory=anyio.Lock)
    alone: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(_MAX_ALONE))


class Readers:
    """The reader processes of one service.

    One serves all requests. They start when the first request needs one, or with `running`,
    which also keeps a spare one. They end with it, or with this object, or with this process.

    Args:
        sandbox: of the served directory.
        settings: of the service.

    Raises:
        ValueError: there can be no reader processes here.
    """

    def __init__(self, sandbox: Sandbox, settings: H5Settings) -> None:
        if os.name != "posix" or not sys.executable:
            message = "isolation is 'process', which needs a POSIX system and a Python executable"
            raise ValueError(message)
        self.timeout_seconds = settings.read_timeout_seconds
        self.all: list[ReaderProcess] = []
        self.records: dict[Content | None, FileRecord] = {}
        """Of contents of files."""
        self.ends: deque[float] = deque(maxlen=_MANY_ENDS)
        """When the last processes ended."""
        # What is for the front alone, and the secret, is not told.
        told = structs.replace(
            settings,
            isolation="none",
            token=None,
            allowed_hosts=None,
            cors_origins=(),
            docs=False,
            metrics=False,
            server_timing=True,  # the front takes the times of a request from there
        )
        log_level = logging.getLogger("asgihive").getEffectiveLevel()
        self.setup = Setup(os.fsencode(sandbox.root), told, log_level)
        """What reader processes are told."""
        self._sandbox = sandbox
        self._counted = Figures()  # by processes that have ended
        self._limits: LoopLocal[_Limits] = LoopLocal()
        self.close = weakref.finalize(self, _close_all, self.all)

    @property
    def active(self) -> ReaderProcess | None:
        """The process that serves, if one does."""
        return next((each for each in self.all if each.role is Role.SERVING), None)

    @property
    def spare(self) -> list[ReaderProcess]:
        """The processes that have no request."""
        return [each for each in self.all if each.role is Role.SPARE]

    # Which process answers a request

    async def find_serving(self) -> ReaderProcess:
        """Return the process that serves, started where there is none.

        Raises:
            Overloaded: too many have ended lately, or none can be started.
        """
        async with self._limits.get(_Limits).starting:
            return self.active or await self._take(Role.SERVING)

    def set_aside(self, reader: ReaderProcess) -> bool:
        """Let another process serve instead of one that is held up; return whether one does.

        What it was asked before it still answers, unless that is asked elsewhere.
        """
        if reader.role is Role.SERVING:
            if sum(each.role is Role.ASIDE for each in self.all) >= _MAX_ASIDE:
                return False
            reader.role = Role.ASIDE
        return True

    async def take_alone(self, relay: "Relay") -> ReaderProcess:
        """Return a process for one request alone; `release_alone` takes it back.

        Raises:
            Overloaded: too many have ended lately, or none can be started.
        """
        alone = self._limits.get(_Limits).alone
        await alone.acquire_on_behalf_of(relay)
        try:
            return await self._take(Role.ALONE)
        except BaseException:
            alone.release_on_behalf_of(relay)
            raise

    async def release_alone(self, relay: "Relay", reader: ReaderProcess) -> None:
        """Take back a process that answered one request, or end it if it did not."""
        self._limits.get(_Limits).alone.release_on_behalf_of(relay)
        if relay.is_complete:
            self.records.pop(relay.content, None)
        if reader.role is Role.ALONE:
            await (self._make_spare if relay.is_complete else self._discard)(reader)

    async def _take(self, role: Role) -> ReaderProcess:
        while True:
            # What serves already knows more than what is starting.
            reader = max(self.spare, key=lambda each: each.ready.is_set(), default=None)
            if reader is not None:
                reader.role = role
                if reader.is_running():
                    return reader
                await self.note_end(reader)
                continue
            if recent := self._find_too_many_ends():
                raise Overloaded(f"{recent} readers crashed within a minute")
            try:
                await run_in_worker(self._start)
            except OSError as error:
                raise Overloaded(f"no reader can be started: {error.strerror}") from error

    def _start(self) -> None:
        self.all.append(ReaderProcess(self.setup))

    def _find_too_many_ends(self) -> int:
        """Return how many have ended lately, 0 where another one may be started."""
        horizon = time.monotonic() - _MINUTE
        recent = sum(each > horizon for each in self.ends)
        return recent if recent >= _MANY_ENDS else 0

    def _count_wanted(self) -> int:
        """Return how many spare processes there should be."""
        return 2 if self.active is None else 1

    async def _make_spare(self, reader: ReaderProcess) -> None:
        reader.role = Role.SPARE
        while len(self.spare) > self._count_wanted():
            await self._discard(self.spare[0])

    async def _discard(self, reader: ReaderProcess) -> str:
        """End a process, and return how it ended."""
        reader.role = Role.ENDED
        if reader in self.all:
            self.all.remove(reader)
            self._counted = Figures.sum([self._counted, reader.status.figures.keep_counts()])
        with anyio.CancelScope(shield=True):
            reason: str = await run_in_worker(reader.close)
        return reason

    # Which file is to blame

    async def identify(self, *files: str | None) -> list[Content | None]:
        """Return what is in clients' files now, None for each that there is not."""
        return await run_in_worker(lambda: [self._identify(each) for each in files])

    def _identify(self, file: str | None) -> Content | None:
        try:
            real = None if file is None else self._sandbox.place(file).real
            return None if real is None else Identity.of(os.stat(real)).content
        except (FileMissing, OSError):
            return None

    def is_suspect(self, file: str | None, content: Content | None) -> bool:
        """Return whether requests for a file are to be made alone.

        Raises:
            ReaderCrashed: it is refused.
        """
        now = time.monotonic()
        self.records = {key: each for key, each in self.records.items() if each.until > now}
        record = self.records.get(content)
        if record is not None and record.refusal:
            raise ReaderCrashed(file or "", record.refusal)
        return record is not None and record.score >= _SUSPICIOUS

    def refuse(self, content: Content | None, reason: str) -> str:
        """Refuse a file from now on; return what clients are told."""
        if content is None:
            return reason
        until = time.monotonic() + QUARANTINE_SECONDS
        refusal = (
            f"{reason}; the file is refused for {QUARANTINE_SECONDS:g} seconds, unless it changes"
        )
        self.records[content] = FileRecord(until, refusal=refusal)
        return refusal

    async def note_end(self, reader: ReaderProcess) -> str:
        """Return how a process ended, once it is noted which files may have ended it.

        The requests that it had wait for this; the first of them finds it out.
        """
        reader.role = Role.ENDED
        with anyio.CancelScope(shield=True):
            async with self._limits.get(_Limits).noting:
                if not reader.end:
                    waiting = sorted({each.file for each in reader.waiting if each.file})
                    suspected = self._list_suspected(reader)
                    self.ends.append(time.monotonic())
                    reader.end = await self._discard(reader)
                    until = time.monotonic() + QUARANTINE_SECONDS
                    for score, files in suspected.items():
                        for content in filter(None, {*await self.identify(*files)}):
                            record = self.records.setdefault(content, FileRecord(until))
                            record.until, record.score = until, record.score + score
                    asked = ascii(", ".join(waiting)) if waiting else "nothing"
                    text = "The reader %d is replaced: %s; it was asked for: %s"
                    _logger.error(text, reader.pid, reader.end, asked)
        return reader.end

    def _list_suspected(self, reader: ReaderProcess) -> dict[int, list[str | None]]:
        """Return the files that may have ended a process, by the score that each gets.

        Suspicious are those whose responses had not begun; where there are none, the only other.
        """
        if not reader.ready.is_set():
            return {}
        begun = [each.file for each in reader.waiting if each.has_begun]
        others = [each.file for each in reader.waiting if not each.has_begun]
        others += reader.find_abandoned()
        only = begun if len(begun) == 1 else []
        return {_DOUBTFUL: begun, _SUSPICIOUS: others or only}

    # As long as the service runs

    def sum_figures(self) -> Figures:
        """Return what all processes have come to, and those before them."""
        return Figures.sum([self._counted, *(each.status.figures for each in list(self.all))])

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep a process that serves and a spare one, and end all of them at the end."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch)
                try:
                    yield
                finally:
                    tasks.cancel_scope.cancel()
        finally:
            # Only now: until here one may have been started.
            with anyio.CancelScope(shield=True):
                await run_in_worker(_close_all, self.all)

    async def _watch(self) -> None:
        while True:
            for reader in list(self.all):
                await self._check(reader)
            # One after the other, as starting takes a second of a processor.
            is_starting = any(not each.ready.is_set() for each in self.all)
            is_wanted = len(self.spare) < self._count_wanted() and not is_starting
            if is_wanted and not self._find_too_many_ends():
                try:
                    await run_in_worker(self._start)
                except OSError as error:
                    _logger.warning("No spare reader can be started: %s", error)
            await anyio.sleep(_WATCH_SECONDS)

    async def _check(self, reader: ReaderProcess) -> None:
        """End a process that hangs, note the end of one, and let one serve that is well again."""
        if reader.role is Role.ENDED:
            return
        stalled, longest = reader.measure_calls()
        if longest > self.timeout_seconds:
            reader.kill(hung_seconds=self.timeout_seconds)
        if not reader.is_running() or reader.hung_seconds is not None:
            await self.note_end(reader)
        elif reader.role is Role.ASIDE and not reader.waiting and not stalled:
            await self._make_spare(reader)


def _close_all(readers: list[ReaderProcess]) -> None:
    while readers:
        readers.pop().close()
