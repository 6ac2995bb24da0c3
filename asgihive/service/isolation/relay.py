"""One request on its way to a worker, and its answer on the way to the client."""

from collections.abc import Mapping
from urllib.parse import urlencode

import anyio
import msgspec
from isal import isal_zlib
from starlette.types import Message, Scope, Send

from asgihive.asgi import get_route_path, parse_query
from asgihive.context import request_context
from asgihive.errors import AsgihiveError, Overloaded, ReaderCrashed
from asgihive.hdf5.names import encoded as encoded_name
from asgihive.service.isolation.blame import Verdict
from asgihive.service.isolation.frames import Frame, Kind, Request, Start, decoded, encoded
from asgihive.service.isolation.link import Conversation, Link, LinkEnded
from asgihive.service.isolation.supervisor import Crew
from asgihive.service.parameters import FILE_PREFIX, file_in_path

# How long one waits behind others before a spare worker is asked.
_HELD_UP_SECONDS = 1.0

# How often a request is made again that was in no lane when its worker ended.
_MOST_ATTEMPTS = 5

# What of an answer that goes on elsewhere must be as it was: whatever says which bytes it has.
_TELLING_HEADERS = frozenset(
    {b"content-encoding", b"content-length", b"content-range", b"content-type", b"etag"}
)

# What a process that reads files of strangers need not know.
_PRIVATE_HEADERS = frozenset({b"authorization", b"cookie", b"proxy-authorization"})


class AnswerBroken(AsgihiveError):
    """An answer that has begun cannot be completed: the connection has to be aborted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"The answer has begun and cannot be completed: {self.reason}"


class ClientGone(Exception):  # nobody is left to be answered
    """`send` says that nobody listens any more (ASGI 2.4)."""


class Relay:
    """A request that a worker answers, or one after the other until it is answered.

    What a client has got of an answer is not sent again: of the next worker's, which must be
    the same, so much is skipped.

    Attributes:
        is_complete: whether the client got all of the answer.
        file: that the request names, if it names one.
    """

    def __init__(self, crew: Crew, scope: Scope, send: Send) -> None:
        self.is_complete = False
        self._crew = crew
        self._send = send
        self._request = encoded(_request(scope))
        self.file = file_in_path(scope) or parse_query(scope["query_string"]).first("file") or None
        self._attempts = 0
        self._conversation: Conversation | None = None
        self._start: Start | None = None
        # Bytes of the body that the client has, and their checksum.
        self._sent = self._checksum = 0
        # The same of those that are skipped.
        self._skipped = self._skipped_checksum = 0

    async def begin(self, seconds: float) -> bool:
        """Ask, and hand on what comes first, within so long; whether that is the whole answer.

        Raises:
            as `rest`.
        """
        link = self._crew.at_hand()
        if link is None:
            return False
        try:
            self._ask(link)
            frame = None
            with anyio.move_on_after(seconds):
                frame = await self._next()
            return frame is not None and await self._forward(frame)
        except LinkEnded:
            return False

    async def rest(self) -> None:
        """Hand on the rest, whatever it takes.

        Raises:
            ReaderCrashed: the request is to blame for the end of a worker.
            AnswerBroken: the client has a part of an answer that is another one now.
            Overloaded: there is no worker.
            ClientGone
        """
        while not self.is_complete:
            try:
                await self._until_complete()
            except LinkEnded:
                await self._again()

    def end(self) -> None:
        """Nothing further is wanted of it."""
        if self._conversation is not None:
            self._conversation.end(is_answered=self.is_complete)
            self._conversation = None

    def _ask(self, link: Link) -> None:
        self._skipped = self._skipped_checksum = 0
        if self._attempts == _MOST_ATTEMPTS:
            raise Overloaded(f"{self._attempts} readers crashed while it was answered")
        self._attempts += 1
        self._conversation = link.ask(self._request, self.file)

    async def _until_complete(self) -> None:
        if self._conversation is None:
            self._ask(await self._crew.serving())
        if self._start is None:
            is_complete = await self._forward(await self._first())
        else:
            is_complete = False
        while not is_complete:
            is_complete = await self._forward(await self._next())

    async def _first(self) -> Frame:
        """What comes first; from another worker, where others hold this one up."""
        while True:
            frame = None
            with anyio.move_on_after(_HELD_UP_SECONDS):
                frame = await self._next()
            if frame is not None:
                return frame
            asked = self._conversation
            if (
                asked is not None
                and asked.link.is_held_up(asked, _HELD_UP_SECONDS)
                and self._crew.set_aside(asked.link)
            ):
                self.end()
                self._ask(await self._crew.serving())

    async def _next(self) -> Frame:
        if self._conversation is None:
            raise LinkEnded
        return await self._conversation.receive()

    async def _again(self) -> None:
        """The worker has ended: find out what that means, and how to go on."""
        ended, self._conversation = self._conversation, None
        if ended is not None:
            verdict = await self._crew.verdict(ended.link)
            if ended.number == verdict.guilty:
                raise self._crashed(verdict)
            if ended.number in verdict.suspects:
                await self._alone()

    async def _alone(self) -> None:
        """The same in a worker of its own: if that ends too, the request is to blame."""
        async with self._crew.alone() as link:
            try:
                self._ask(link)
                await self._until_complete()
            except LinkEnded:
                verdict = await self._crew.verdict(link)
                if verdict.guilty is not None:
                    raise self._crashed(verdict) from None
            finally:
                self.end()

    def _crashed(self, verdict: Verdict) -> ReaderCrashed:
        detail = self._crew.supervisor.detail(verdict)
        return ReaderCrashed(self.file or "", detail)

    async def _forward(self, frame: Frame) -> bool:
        """Hand on a frame, and those after it that are there; whether the answer is complete."""
        following: Frame | None = frame
        while following is not None:
            await self._hand_on(following)
            if self.is_complete:
                return True
            following = None if self._conversation is None else self._conversation.at_hand()
        return False

    async def _hand_on(self, frame: Frame) -> None:
        try:
            match frame.kind:
                case Kind.BODY | Kind.LAST:
                    await self._hand_on_body(frame.payload, is_last=frame.kind == Kind.LAST)
                case Kind.START:
                    await self._hand_on_start(decoded(frame.payload, Start))
                case Kind.SPENT:
                    _count(decoded(frame.payload, dict[str, float]))
                case Kind.BROKEN:
                    raise AnswerBroken(decoded(frame.payload, str))
        except msgspec.DecodeError as error:
            raise AnswerBroken("the reader does not make sense") from error

    async def _hand_on_start(self, start: Start) -> None:
        _count(start.spent)
        if self._start is not None:
            self._check_same(self._start, start)
            return
        self._start = start
        headers = list(start.headers)
        await self._tell(
            {"type": "http.response.start", "status": start.status, "headers": headers}
        )

    def _check_same(self, before: Start, now: Start) -> None:
        telling, telling_now = _telling(before), _telling(now)
        # Without a tag nothing says that what follows belongs to what was sent.
        is_known = not self._sent or b"etag" in telling
        if (before.status, telling) != (now.status, telling_now) or not is_known:
            raise AnswerBroken("its reader crashed, and a file has changed since")

    async def _hand_on_body(self, block: bytes | memoryview, *, is_last: bool) -> None:
        size = len(block)
        if self._skipped < self._sent:
            block = self._skip(block)
            if is_last and self._skipped < self._sent:
                raise AnswerBroken("its reader crashed, and it is shorter now")
        if block or is_last:
            if not is_last:
                self._checksum = isal_zlib.crc32(block, self._checksum)
            # Counted before, as it may be sent whatever comes of that.
            self._sent += len(block)
            self._skipped += len(block)
            await self._tell(
                {"type": "http.response.body", "body": block, "more_body": not is_last}
            )
        self.is_complete = is_last
        if self._conversation is not None and not is_last:
            self._conversation.took(size)

    async def _tell(self, message: Message) -> None:
        try:
            await self._send(message)
        except OSError as error:
            raise ClientGone from error

    def _skip(self, block: bytes | memoryview) -> bytes | memoryview:
        """What is left of it behind what the client has. Raises AnswerBroken."""
        known = memoryview(block)[: self._sent - self._skipped]
        self._skipped += len(known)
        self._skipped_checksum = isal_zlib.crc32(known, self._skipped_checksum)
        if self._skipped == self._sent and self._skipped_checksum != self._checksum:
            raise AnswerBroken("its reader crashed, and it is another one now")
        return memoryview(block)[len(known) :]


def _request(scope: Scope) -> Request:
    client = scope.get("client")
    path, query = get_route_path(scope), scope["query_string"]
    named = file_in_path(scope)
    if named is not None:
        # As a parameter, which may be any bytes.
        path, query = FILE_PREFIX, urlencode({"file": encoded_name(named)}).encode()
    return Request(
        method=scope["method"],
        path=path,
        query_string=query,
        headers=[each for each in scope["headers"] if each[0] not in _PRIVATE_HEADERS],
        client=str(client[0]) if client else None,
        is_measured=request_context.get().timings is not None,
    )


def _telling(start: Start) -> dict[bytes, bytes]:
    return {name: value for name, value in start.headers if name in _TELLING_HEADERS}


def _count(spent: Mapping[str, float]) -> None:
    mine = request_context.get().timings
    if mine is not None:
        for stage, seconds in spent.items():
            mine.add(stage, seconds)
