"""Keeps worker processes: starts, lends, replaces and ends them, and judges what crashed one."""

import contextlib
import dataclasses
import logging
import os
import sys
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import msgspec

from asgihive.concurrency import LoopLocal, run_in_worker
from asgihive.errors import FileMissing, Overloaded
from asgihive.hdf5.identity import Content, Identity
from asgihive.hdf5.sandbox import Sandbox
from asgihive.service.figures import Figures
from asgihive.service.isolation.bans import Bans
from asgihive.service.isolation.blame import Verdict, judged
from asgihive.service.isolation.board import Board
from asgihive.service.isolation.frames import Setup
from asgihive.service.isolation.link import Link
from asgihive.service.isolation.logs import lowest_level
from asgihive.service.isolation.process import WorkerProcess
from asgihive.settings import H5Settings

_logger = logging.getLogger(__name__)

QUARANTINE_SECONDS = 600.0
"""How long a file that crashed a reader is refused, unless it changes."""

# Workers that ended within a minute: when there were some, the next one has to wait a little,
# longer each time; when there were many, requests are answered 503 until some are forgotten.
_MINUTE = 60.0
_FEW_ENDS, _MANY_ENDS = 5, 20
_FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS = 0.1, 2.0

# For the suspect before, which goes on in its own worker, as slowly as its client takes it.
_TURN_SECONDS = 10.0

# How often it is looked whether there is a spare worker.
_SPARE_SECONDS = 0.5

# Workers that are held up, beside the one that serves; with more, requests wait.
_MOST_ASIDE = 2


class Supervisor:
    """The worker processes of one service.

    They start when the first request needs one, or with `running`, which also keeps a spare
    one. They end with it, or with this object, or with this process.

    Args:
        sandbox: of the served directory.
        settings: of the service.

    Attributes:
        bans: the contents of files that no worker opens.

    Raises:
        ValueError: there can be no worker processes here.
    """

    def __init__(self, sandbox: Sandbox, settings: H5Settings) -> None:
        if os.name != "posix" or not sys.executable:
            message = "isolation is 'process', which needs a POSIX system and a Python executable"
            raise ValueError(message)
        self.bans = Bans()
        # A little less than until the request is 504, so that the file can be named.
        self.patience = 0.9 * settings.read_timeout_seconds
        self._sandbox = sandbox
        self._root = os.fsencode(sandbox.root)
        self._settings = _of_worker(settings)
        self._idle: deque[Link] = deque()
        self._all: set[WorkerProcess] = set()
        # Of the workers that are not discarded, and what those that are had counted.
        self._boards: set[Board] = set()
        self._counted = Figures()
        self._is_stopping = False
        self._ends: deque[float] = deque(maxlen=_MANY_ENDS)
        self._crews: LoopLocal[Crew] = LoopLocal()
        self._finalizer = weakref.finalize(self, _close_all, self._all)

    def crew(self) -> "Crew":
        """Whom requests on the running event loop share."""
        return self._crews.get(lambda: Crew(self))

    async def take(self) -> Link:
        """A worker for the caller alone, until it is put back or discarded.

        Raises:
            Overloaded: too many have ended lately, or none can be started.
        """
        while not self._is_stopping:
            with contextlib.suppress(IndexError):
                link = self._idle.pop()
                if link.process.is_running and not link.is_ended:
                    return link
                self._ends.append(time.monotonic())
                await self.discard(link)
                continue
            await self._wait_to_start()
            try:
                await run_in_worker(self._start)
            except OSError as error:
                raise Overloaded(f"no reader can be started: {error.strerror}") from error
        raise Overloaded("it is stopping")

    def at_hand(self) -> Link | None:
        """The same without waiting; None also where the next one has ended, as `take` sees."""
        return self._idle.pop() if self._idle and self._idle[-1].process.is_running else None

    def put_back(self, link: Link) -> None:
        """The caller of `take` needs it no more, and it is well."""
        self._idle.append(link)

    async def judge(self, link: Link) -> Verdict:
        """What the end of a worker means; bans the file that is to blame."""
        self._ends.append(time.monotonic())
        ending = await run_in_worker(link.process.end)
        visits = link.visits()
        reason = ending.text
        if link.is_stuck:
            reason = f"it hung for more than {self.patience:g} seconds"
        is_certain = ending.is_fault or link.is_stuck or link.is_lone
        verdict = judged(visits, link.late, reason, is_certain=is_certain)
        await self.convict(verdict)
        await self.discard(link)
        inside = ", ".join(sorted({each.file for each in visits if each.file}))
        text = "The reader %d is replaced: %s; it was asked for: %s"
        _logger.error(text, link.process.pid, reason, ascii(inside) if inside else "nothing")
        return verdict

    async def convict(self, verdict: Verdict) -> None:
        """Refuse the file of a verdict from now on, if it names one."""
        if verdict.culprit is not None:
            content = await run_in_worker(self._content, verdict.culprit)
            if content is not None:
                self.bans.pronounce(content, QUARANTINE_SECONDS, self.detail(verdict))

    async def check(self, file: str | None) -> None:
        """Raise ReaderCrashed when the client's file `file` is refused."""
        if file is not None and len(self.bans):
            content = await run_in_worker(self._content, file)
            if content is not None:
                self.bans.check(file, content)

    def _content(self, file: str) -> Content | None:
        """What is in the client's file `file` now, None if there is no such file."""
        try:
            return Identity.of(os.stat(self._sandbox.place(file).real)).content
        except (FileMissing, OSError):
            return None

    def detail(self, verdict: Verdict) -> str:
        """What a client is told of it."""
        if verdict.culprit is None:
            return verdict.reason
        refused = f"the file is refused for {QUARANTINE_SECONDS:g} seconds, unless it changes"
        return f"{verdict.reason}; {refused}"

    def figures(self) -> Figures:
        """What all workers have come to, and those before them."""
        return Figures.sum([self._counted, *(each.figures() for each in list(self._boards))])

    async def discard(self, link: Link) -> None:
        """End a worker, and let go of it; not interrupted by cancellation."""
        board = link.process.board
        if board in self._boards:
            self._boards.remove(board)
            self._counted = Figures.sum([self._counted, board.figures().at_end()])
        with anyio.CancelScope(shield=True):
            await run_in_worker(link.process.close)
        self._all.discard(link.process)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep a worker at work and a spare one, and end all of them at the end."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._keep_spare)
                try:
                    yield
                finally:
                    tasks.cancel_scope.cancel()
        finally:
            # Only now: until here one may have been started.
            with anyio.CancelScope(shield=True):
                await self._stop()

    async def _stop(self) -> None:
        self._is_stopping = True
        try:
            while self._idle:
                await self.discard(self._idle.pop())
            for each in list(self._all):
                # Whoever still waits for it lets go of what it shares.
                await run_in_worker(each.kill)
        finally:
            self._is_stopping = False

    async def _keep_spare(self) -> None:
        """One more than work for this loop; more are not kept."""
        crew = self.crew()
        while True:
            await self._discard_ended()
            await crew.tidy()
            wanted = 1 if crew.is_at_work else 2
            if len(self._idle) < wanted and len(self._recent_ends()) < _FEW_ENDS:
                try:
                    await run_in_worker(self._start)
                except OSError as error:
                    _logger.warning("No spare reader can be started: %s", error)
            await anyio.sleep(_SPARE_SECONDS)

    async def _discard_ended(self) -> None:
        """Let go of idle workers that have ended: each is a zombie until somebody asks for it."""
        for link in [each for each in self._idle if not each.process.is_running]:
            # Another request may have taken it meanwhile.
            with contextlib.suppress(ValueError):
                self._idle.remove(link)
                self._ends.append(time.monotonic())
                _logger.warning("The spare reader %d has ended, and is replaced", link.process.pid)
                await self.discard(link)

    def _start(self) -> None:
        setup = Setup(self._root, self._settings, 2 * self.patience, lowest_level())
        process = WorkerProcess(setup)
        self._all.add(process)
        self._boards.add(process.board)
        # On the left, as what has worked already knows more.
        self._idle.appendleft(Link(process, self.patience))

    async def _wait_to_start(self) -> None:
        recent = len(self._recent_ends())
        if recent >= _MANY_ENDS:
            raise Overloaded(f"{recent} readers crashed within a minute")
        if recent >= _FEW_ENDS:
            delay = _FIRST_DELAY_SECONDS * 2 ** (recent - _FEW_ENDS)
            await anyio.sleep(min(delay, _LONGEST_DELAY_SECONDS))

    def _recent_ends(self) -> list[float]:
        horizon = time.monotonic() - _MINUTE
        return [each for each in self._ends if each > horizon]


class Crew:
    """The worker that serves the requests of one event loop, and those for single suspects.

    While there are requests it is this loop's own; in between it is anybody's.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self._link: Link | None = None
        self._aside: set[Link] = set()
        self._users = 0
        self._starting = anyio.Lock()
        self._turn = anyio.Lock()
        self._cases: weakref.WeakKeyDictionary[Link, _Case] = weakref.WeakKeyDictionary()

    @property
    def is_at_work(self) -> bool:
        """Whether it has a worker of its own."""
        return self._link is not None

    def enter(self) -> None:
        """One more request."""
        self._users += 1

    def leave(self) -> None:
        """One less."""
        self._users -= 1
        if not self._users:
            link, self._link = self._link, None
            if link is not None and not link.is_ended:
                self.supervisor.put_back(link)

    def at_hand(self) -> Link | None:
        """The worker that serves, if nobody has to wait for one."""
        if self._link is None and not self._starting.locked():
            self._link = self.supervisor.at_hand()
        return None if self._link is None or self._link.is_ended else self._link

    def set_aside(self, link: Link) -> bool:
        """Let a spare worker serve in the place of one that is held up; whether there is one.

        What was asked of `link` already is still answered by it, unless it is asked elsewhere.
        """
        if self._link is not link:
            return self._link is not None
        if len(self._aside) == _MOST_ASIDE or (spare := self.supervisor.at_hand()) is None:
            return False
        self._aside.add(link)
        self._link = spare
        return True

    async def tidy(self) -> None:
        """Take workers back that were set aside, and judge those that hang for good."""
        for link in list(self._aside):
            link.watch()
            if link.is_ended or not link.process.is_running:
                self._aside.discard(link)
                await self.verdict(link)
            elif not link.is_asked and not link.visits():
                self._aside.discard(link)
                self.supervisor.put_back(link)

    async def serving(self) -> Link:
        """The worker that serves. Raises Overloaded."""
        async with self._starting:
            # Whoever came first has seen to it.
            if self._link is None or self._link.is_ended:
                self._link = await self.supervisor.take()
            return self._link

    async def verdict(self, link: Link) -> Verdict:
        """What the end of a worker means; however many ask, it is judged once."""
        case = self._cases.get(link)
        if case is None:
            case = self._cases[link] = _Case()
            with anyio.CancelScope(shield=True):
                case.verdict = await self.supervisor.judge(link)
            case.closed.set()
        else:
            await case.closed.wait()
        return case.verdict

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[Link]:
        """A worker for one request, which may crash it. Raises Overloaded.

        One after the other, unless one takes long.
        """
        has_turn = False
        with anyio.move_on_after(_TURN_SECONDS):
            await self._turn.acquire()
            has_turn = True
        try:
            link = await self.supervisor.take()
            link.is_lone = True
            try:
                yield link
            except BaseException:
                await self.supervisor.discard(link)
                raise
            link.is_lone = False
            if not link.is_ended:
                self.supervisor.put_back(link)
        finally:
            if has_turn:
                self._turn.release()


@dataclasses.dataclass(slots=True)
class _Case:
    """The end of a worker, which is judged."""

    verdict: Verdict = dataclasses.field(default_factory=Verdict)
    closed: anyio.Event = dataclasses.field(default_factory=anyio.Event)


def _of_worker(settings: H5Settings) -> dict[str, object]:
    """What is the parent's alone, and secret, is not told."""
    own = msgspec.structs.replace(
        settings,
        isolation="none",
        token=None,
        cors_origins=(),
        allowed_hosts=None,
        metrics=False,
        server_timing=False,
        docs=False,
    )
    given = msgspec.structs.asdict(own)
    # As MessagePack it would come back as a list.
    del given["cors_origins"]
    return given


def _close_all(processes: set[WorkerProcess]) -> None:
    while processes:
        processes.pop().close()
