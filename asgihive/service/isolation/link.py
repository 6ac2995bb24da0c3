"""The parent's end of the connection to one worker: many conversations over one socket.

There is no task that reads for all, which somebody would have to start and end: of those who
wait for a frame, one reads the socket, hands the others theirs, and lets the next one read when
it has its own.
"""

import time
from collections import deque
from itertools import count

import anyio
import msgspec

from asgihive.service.isolation.blame import Visit
from asgihive.service.isolation.channel import ChannelClosed
from asgihive.service.isolation.frames import (
    WINDOW_BYTES,
    Frame,
    Kind,
    LogNote,
    decoded,
    encoded,
)
from asgihive.service.isolation.logs import log
from asgihive.service.isolation.process import WorkerProcess

# How long a new worker may take for what it imports, on a machine that is busy.
_START_SECONDS = 60.0

# How often it is looked whether the worker is well; while it does not even take what is sent,
# how often that is tried.
_LOOK_SECONDS = 1.0
_RETRY_SECONDS = 0.01


class LinkEnded(Exception):  # the request is made again, or fails otherwise
    """The worker is gone, and with it whatever was asked of it."""


class Conversation:
    """One request and the frames that answer it.

    number: of the request, on this link.
    file: that it names, if it names one.
    has_begun: whether something of the answer has come.
    """

    def __init__(self, link: "Link", number: int, file: str | None) -> None:
        self.link = link
        self.number = number
        self.file = file
        self.since = time.monotonic()
        self.has_begun = False
        self._frames: deque[Frame] = deque()
        self._arrived: anyio.Event | None = None
        self._owed = 0

    async def receive(self) -> Frame:
        """The next frame; it is lost to nobody who is cancelled meanwhile.

        Raises:
            LinkEnded: no further one will come.
        """
        if not self._frames:
            await self.link.wait_for(self)
        return self._frames.popleft()

    def at_hand(self) -> Frame | None:
        """The next frame, if it is there already."""
        return self._frames.popleft() if self._frames else None

    @property
    def is_served(self) -> bool:
        """Whether there is a frame to take."""
        return bool(self._frames)

    def hand(self, frame: Frame) -> None:
        """For the link: here is a frame."""
        self._frames.append(frame)
        self.has_begun = True
        self.wake()

    def wake(self) -> None:
        """For the link: look again."""
        if self._arrived is not None:
            self._arrived.set()

    async def sleep(self) -> None:
        """For the link: until `wake`."""
        self._arrived = anyio.Event()
        try:
            await self._arrived.wait()
        finally:
            self._arrived = None

    def took(self, size: int) -> None:
        """The client took so much of the body: as much more may come."""
        self._owed += size
        if self._owed >= WINDOW_BYTES // 2:
            self.link.tell(Kind.CREDIT, self.number, encoded(self._owed))
            self._owed = 0

    def end(self, *, is_answered: bool) -> None:
        """Nobody waits for further frames."""
        self.link.forget(self)
        if not is_answered:
            self.link.tell(Kind.CANCEL, self.number)


class Link:
    """The connection to one worker, used on one event loop at a time.

    Args:
        patience: seconds after which a worker that does not answer, or is in one call all that
            time, is killed.
    """

    def __init__(self, process: WorkerProcess, patience: float) -> None:
        self.process = process
        self.is_ended = False
        self.late: frozenset[int] = frozenset()
        """The requests that were in the lanes for too long, where that is why it was killed."""
        self.is_stuck = False
        """Whether it was killed because it hung."""
        self.is_lone = False
        """Whether it is for one request alone."""
        self._patience = patience
        self._is_ready = False
        self._numbers = count(1)
        self._conversations: dict[int, Conversation] = {}
        self._waiting: dict[Conversation, None] = {}
        self._is_led = False
        self._heard = self._looked = time.monotonic()

    @property
    def is_asked(self) -> bool:
        """Whether anybody waits for an answer of it."""
        return bool(self._conversations)

    def is_held_up(self, conversation: Conversation, seconds: float) -> bool:
        """Whether others that were asked before `conversation` have waited for so long, too."""
        horizon = min(time.monotonic() - seconds, conversation.since)
        return any(
            each.since < horizon and not each.has_begun for each in self._conversations.values()
        )

    def visits(self) -> list[Visit]:
        """The requests that wait for an answer; where there is none, those that wait for more."""
        asked = list(self._conversations.values())
        waiting = [each for each in asked if not each.has_begun] or asked
        return [Visit(each.number, each.since, each.file) for each in waiting]

    def watch(self) -> None:
        """Kill a worker that hangs, where nobody waits for it who would see that."""
        late = self._late()
        if late:
            self._give_up(late)

    def _late(self) -> frozenset[int]:
        horizon = time.monotonic() - self._patience
        asked = self._conversations.values()
        return frozenset(
            each.number for each in asked if each.since < horizon and not each.has_begun
        )

    def ask(self, request: bytes, file: str | None) -> Conversation:
        """Begin a conversation; what is not sent yet is, as soon as the worker takes it.

        Raises:
            LinkEnded
        """
        if not self._conversations:
            self._heard = self._looked = time.monotonic()  # nobody listened until now
        conversation = Conversation(self, next(self._numbers), file)
        self._conversations[conversation.number] = conversation
        self.tell(Kind.REQUEST, conversation.number, request)
        if self.is_ended:
            raise LinkEnded
        return conversation

    def tell(self, kind: Kind, number: int, payload: bytes = b"") -> None:
        """Send a frame, unless the worker is gone: who waits hears of that."""
        if self.is_ended:
            return
        self.process.channel.put(kind, number, payload)
        self._flush()

    def forget(self, conversation: Conversation) -> None:
        """What still comes for it is let go of."""
        self._conversations.pop(conversation.number, None)

    async def wait_for(self, conversation: Conversation) -> None:
        """Return when `conversation` has a frame. Raises LinkEnded."""
        self._waiting[conversation] = None
        try:
            while not conversation.is_served:
                if self.is_ended:
                    raise LinkEnded
                if self._is_led:
                    await conversation.sleep()
                    continue
                self._is_led = True
                try:
                    await self._lead(conversation)
                finally:
                    self._is_led = False
        finally:
            del self._waiting[conversation]
            if not self._is_led:
                # Who is told, but has gone meanwhile, tells the next one here.
                for each in self._waiting:
                    each.wake()
                    break

    async def _lead(self, conversation: Conversation) -> None:
        """Read for all, until `conversation` has a frame."""
        channel = self.process.channel
        while not conversation.is_served and not self.is_ended:
            # First, since who leads may wait for less time than it takes until the next look.
            self._look()
            with anyio.move_on_after(_RETRY_SECONDS if channel.has_unsent else _LOOK_SECONDS):
                await anyio.wait_readable(channel.socket)
            try:
                for frame in channel.read():
                    self._take(frame)
            except (ChannelClosed, msgspec.MsgspecError):
                self._end()
                return
            self._flush()

    def _take(self, frame: Frame) -> None:
        self._heard = time.monotonic()
        if frame.kind == Kind.READY:
            self._is_ready = True
        elif frame.kind == Kind.LOG:
            log(decoded(frame.payload, LogNote))
        elif frame.kind != Kind.PONG:
            conversation = self._conversations.get(frame.request)
            if conversation is not None:
                conversation.hand(frame)

    def _flush(self) -> None:
        try:
            self.process.channel.flush()
        except ChannelClosed:
            self._end()

    def _end(self) -> None:
        self.is_ended = True
        for each in self._waiting:
            each.wake()

    def _look(self) -> None:
        """Kill a worker that hangs: the end of it is then seen as that of any other."""
        now = time.monotonic()
        if now - self._looked < min(_LOOK_SECONDS, self._patience / 4):
            return
        self._looked = now
        silent = now - self._heard
        if silent > (self._patience if self._is_ready else _START_SECONDS):
            self._give_up(frozenset())
        elif self._is_ready and silent > self._patience / 4:
            self.tell(Kind.PING, 0)
        self.watch()

    def _give_up(self, late: frozenset[int]) -> None:
        if not self.is_stuck:
            self.is_stuck = True
            self.late = late
            self.process.kill()
