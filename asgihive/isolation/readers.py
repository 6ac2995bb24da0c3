"""The reader processes of a service: started, chosen, ended; and the files that crash them."""

import contextlib
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
import msgspec

from asgihive.concurrency import LoopLocal, run_in_worker
from asgihive.errors import FileMissing, Overloaded, ReaderCrashed
from asgihive.hdf5.sandbox import Content, Identity, Sandbox
from asgihive.isolation.process import ReaderProcess, Setup
from asgihive.service.operations import Figures
from asgihive.settings import H5Settings

if TYPE_CHECKING:
    from asgihive.isolation.front import Relay

_logger = logging.getLogger(__name__)

QUARANTINE_SECONDS = 600.0
"""For so long a file that crashed reader processes is refused, unless it changes."""

# When some have ended within a minute, the next one has to wait a little, longer each time; when
# many have, requests are answered 503 until that is longer ago.
_MINUTE = 60.0
_FEW_ENDS, _MANY_ENDS = 5, 20
_FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS = 0.1, 2.0

# How often spare processes and hung ones are looked for.
_WATCH_SECONDS = 0.5

# Processes that are held up, beside the one that serves; with more, requests wait.
_MAX_ASIDE = 2

# Requests that may have crashed a process are made again one after the other, each alone in its
# process; where one takes long, up to so many at a time.
_LONG_TURN_SECONDS = 5.0
_MAX_ALONE = 4

# Score from which requests for a file are made alone: one end of a process that could only have
# been its fault or that of few others, or two that may have been.
_SUSPICIOUS, _DOUBTFUL = 2, 1


@dataclass(slots=True)
class CrashReport:
    """The end of a reader process, which the requests that it had wait to hear of."""

    suspects: set["Relay"] = field(default_factory=set)
    """The requests that may have ended it."""
    reason: str = ""
    """How it ended."""
    was_ready: bool = False
    """Whether it had served; otherwise no request is to blame."""
    done: anyio.Event = field(default_factory=anyio.Event)


@dataclass(slots=True)
class _Limits:
    """Of one event loop."""

    starting: anyio.Lock = field(default_factory=anyio.Lock)
    alone: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(1))


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
        self.quarantine_seconds = QUARANTINE_SECONDS
        self.active: ReaderProcess | None = None
        """The process that serves, if one does."""
        self.spare: deque[ReaderProcess] = deque()
        """Processes that have no request."""
        self.all: set[ReaderProcess] = set()
        """Those, and the ones that are held up or answer one request alone."""
        self.bans: dict[Content, tuple[float, str]] = {}
        """The contents of files that are refused: until when, and why."""
        self.ends: deque[float] = deque(maxlen=_MANY_ENDS)
        """When the last processes ended."""
        self._sandbox = sandbox
        # What is for the front alone, and the secret, is not told.
        own: dict[str, object] = dict.fromkeys(("metrics", "server_timing", "docs"), False)
        own |= {"isolation": "none", "token": None, "cors_origins": (), "allowed_hosts": None}
        self._setup = Setup(
            root=os.fsencode(sandbox.root),
            settings=msgspec.to_builtins(settings) | own,
            log_level=logging.getLogger("asgihive").getEffectiveLevel(),
            patience_seconds=max(10.0, 4 * settings.read_timeout_seconds),
        )
        self._aside: list[ReaderProcess] = []
        self._scores: dict[Content, tuple[float, int]] = {}
        self._reports: weakref.WeakKeyDictionary[ReaderProcess, CrashReport] = (
            weakref.WeakKeyDictionary()
        )
        self._counted = Figures()  # by processes that have ended
        self._is_stopping = False
        self._limits: LoopLocal[_Limits] = LoopLocal()
        self.close = weakref.finalize(self, _close_all, self.all)

    # Which process answers a request

    async def find_serving(self) -> ReaderProcess:
        """Return the process that serves, started where there is none.

        Raises:
            Overloaded: too many have ended lately, or none can be started.
        """
        async with self._limits.get(_Limits).starting:
            if self.active is None:
                self.active = await self._take()
            return self.active

    def set_aside(self, reader: ReaderProcess) -> bool:
        """Let another process serve instead of one that is held up; return whether one does.

        What it was asked before it still answers, unless that is asked elsewhere.
        """
        if self.active is reader:
            if len(self._aside) >= _MAX_ASIDE:
                return False
            self._aside.append(reader)
            self.active = None
        return True

    async def take_alone(self, relay: "Relay") -> ReaderProcess:
        """Return a process for one request alone; `release_alone` takes it back.

        Raises:
            Overloaded: too many have ended lately, or none can be started.
        """
        alone = self._limits.get(_Limits).alone
        with anyio.move_on_after(_LONG_TURN_SECONDS) as limit:
            await alone.acquire_on_behalf_of(relay)
        if limit.cancelled_caught:
            alone.total_tokens = min(alone.total_tokens + 1, _MAX_ALONE)
            await alone.acquire_on_behalf_of(relay)
        try:
            return await self._take()
        except BaseException:
            alone.release_on_behalf_of(relay)
            raise

    async def release_alone(self, relay: "Relay", reader: ReaderProcess, *, is_well: bool) -> None:
        """Take back a process that answered one request, or end it if it did not."""
        alone = self._limits.get(_Limits).alone
        alone.release_on_behalf_of(relay)
        if not alone.borrowed_tokens:
            alone.total_tokens = 1
        if reader not in self._reports:
            await self._spare_or_discard(reader, is_well=is_well)

    async def _take(self) -> ReaderProcess:
        while not self._is_stopping:
            with contextlib.suppress(IndexError):
                reader = self.spare.pop()
                if reader.is_running():
                    return reader
                await self.report_end(reader)
                continue
            recent = self._count_recent_ends()
            if recent >= _MANY_ENDS:
                raise Overloaded(f"{recent} readers crashed within a minute")
            if recent >= _FEW_ENDS:
                delay = _FIRST_DELAY_SECONDS * 2 ** (recent - _FEW_ENDS)
                await anyio.sleep(min(delay, _LONGEST_DELAY_SECONDS))
            try:
                await run_in_worker(self._start)
            except OSError as error:
                raise Overloaded(f"no reader can be started: {error.strerror}") from error
        raise Overloaded("it is stopping")

    def _start(self) -> None:
        reader = ReaderProcess(self._setup)
        self.all.add(reader)
        # On the left, as what has worked already knows more.
        self.spare.appendleft(reader)

    def _count_recent_ends(self) -> int:
        horizon = time.monotonic() - _MINUTE
        return sum(each > horizon for each in self.ends)

    async def _spare_or_discard(self, reader: ReaderProcess, *, is_well: bool = True) -> None:
        if not is_well or self._is_stopping:
            await self._discard(reader)
            return
        self.spare.append(reader)
        while len(self.spare) > (2 if self.active is None else 1):
            await self._discard(self.spare.popleft())

    async def _discard(self, reader: ReaderProcess) -> None:
        if reader in self.all:
            self.all.discard(reader)
            self._counted = Figures.sum([self._counted, reader.status.figures.keep_counts()])
        with anyio.CancelScope(shield=True):
            await run_in_worker(reader.close)

    # Which file is to blame

    def has_records(self) -> bool:
        """Return whether any file is refused or suspected."""
        return bool(self.bans or self._scores)

    async def identify(self, *files: str | None) -> list[Content | None]:
        """Return what is in clients' files now, None for each that there is not."""
        return await run_in_worker(lambda: [self._identify(each) for each in files])

    def is_suspect(self, file: str | None, content: Content | None) -> bool:
        """Return whether requests for a file are to be made alone.

        Raises:
            ReaderCrashed: it is refused.
        """
        now = time.monotonic()
        for records in (self.bans, self._scores):
            for each in [key for key, record in records.items() if record[0] <= now]:
                del records[each]
        if content is None:
            return False
        if content in self.bans:
            raise ReaderCrashed(file or "", self.bans[content][1])
        return self._scores.get(content, (0.0, 0))[1] >= _SUSPICIOUS

    def clear(self, content: Content | None) -> None:
        """Suspect a file no more: a request for it was answered alone."""
        if content is not None:
            self._scores.pop(content, None)

    def ban(self, content: Content | None, reason: str) -> str:
        """Refuse a file from now on; return what clients are told."""
        if content is None:
            return reason
        refused = f"the file is refused for {self.quarantine_seconds:g} seconds, unless it changes"
        self.bans[content] = (time.monotonic() + self.quarantine_seconds, f"{reason}; {refused}")
        return self.bans[content][1]

    async def report_end(self, reader: ReaderProcess) -> CrashReport:
        """Find out how a process ended, and which of its requests may have ended it; once for each.

        Suspected are those whose responses had not begun; where there are none, the others.
        """
        report = self._reports.get(reader)
        if report is not None:
            await report.done.wait()
            return report
        report = self._reports[reader] = CrashReport(was_ready=reader.ready.is_set())
        if self.active is reader:
            self.active = None
        if reader in self._aside:
            self._aside.remove(reader)
        waiting = list(reader.waiting)
        begun = [each for each in waiting if each.has_begun]
        files = [each.file for each in waiting if not each.has_begun] + reader.find_abandoned()
        if report.was_ready:
            report.suspects.update({*waiting} - {*begun} if files else begun)
        with anyio.CancelScope(shield=True):
            self.ends.append(time.monotonic())
            report.reason = await run_in_worker(reader.wait)
            if report.was_ready:
                doubtful = [each.file for each in begun]
                suspicious = files or (doubtful if len(doubtful) == 1 else [])
                until = time.monotonic() + self.quarantine_seconds
                for score, names in ((_DOUBTFUL, doubtful), (_SUSPICIOUS, suspicious)):
                    for content in filter(None, {*await self.identify(*names)}):
                        before = self._scores.get(content, (0.0, 0))[1]
                        self._scores[content] = (until, before + score)
            await self._discard(reader)
            asked = ", ".join(sorted({each.file for each in waiting if each.file}))
            text = "The reader %d is replaced: %s; it was asked for: %s"
            _logger.error(text, reader.pid, report.reason, ascii(asked) if asked else "nothing")
            report.done.set()
        return report

    def _identify(self, file: str | None) -> Content | None:
        try:
            return (
                None
                if file is None
                else Identity.of(os.stat(self._sandbox.place(file).real)).content
            )
        except (FileMissing, OSError):
            return None

    # As long as the service runs

    def figures(self) -> Figures:
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
            self._is_stopping = True
            try:
                with anyio.CancelScope(shield=True):
                    await run_in_worker(_close_all, self.all)
            finally:
                self.active = None
                self.spare.clear()
                self._aside.clear()
                self._is_stopping = False

    async def _watch(self) -> None:
        while True:
            for reader in list(self.all):
                await self._check(reader)
            # One after the other, as starting takes a second of a processor.
            is_starting = any(not each.ready.is_set() for each in self.all)
            wanted = 2 if self.active is None else 1
            is_wanted = len(self.spare) < wanted and not is_starting
            if is_wanted and self._count_recent_ends() < _FEW_ENDS:
                try:
                    await run_in_worker(self._start)
                except OSError as error:
                    _logger.warning("No spare reader can be started: %s", error)
            await anyio.sleep(_WATCH_SECONDS)

    async def _check(self, reader: ReaderProcess) -> None:
        """End a process that hangs, note the end of one, and let one serve that is well again."""
        if reader in self._reports:
            return
        stalled, longest = reader.measure_calls()
        if longest > self.timeout_seconds:
            reader.hung_seconds = self.timeout_seconds
            reader.kill()
        if not reader.is_running() or reader.hung_seconds is not None:
            if reader in self.spare:  # otherwise, another request has taken it meanwhile
                self.spare.remove(reader)
            await self.report_end(reader)
        elif reader in self._aside and not reader.waiting and not stalled:
            self._aside.remove(reader)
            await self._spare_or_discard(reader)


def _close_all(readers: set[ReaderProcess]) -> None:
    while readers:
        readers.pop().close()
