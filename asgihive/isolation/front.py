"""The front: the routes of the service, whose requests are handed to reader processes."""

import re
import time
from collections.abc import Callable, Mapping
from typing import NoReturn
from urllib.parse import quote, urlencode

import anyio
import h11
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgihive.asgi import HTTPException, Router, get_route_path, parse_query, run_while_connected
from asgihive.asgi.responses import ClientGone
from asgihive.concurrency import STAGES, add_time, request_context, run_in_worker
from asgihive.errors import AnswerBroken, Overloaded, ReaderCrashed, ReadTimeout
from asgihive.hdf5.file_bytes import encoded
from asgihive.hdf5.sandbox import Content
from asgihive.hive import Component, ModuleHooks
from asgihive.isolation.process import Connection, ReaderEnded, ReaderProcess
from asgihive.isolation.readers import Readers
from asgihive.service.app import ReadingParts
from asgihive.service.batch import Batch
from asgihive.service.gate import STATUSES
from asgihive.service.parameters import FILE_PREFIX, NAMED_FILE, find_file_in_path
from asgihive.service.store import Store

# Where a response takes no longer, it is not worth watching whether its client goes away.
_UNWATCHED_SECONDS = 0.05

# How long a request waits behind others before another process is asked.
_HELD_UP_SECONDS = 1.0

# How often a request is made again that cannot have ended its process.
_MAX_ATTEMPTS = 5

# Of the time that a request has waited, the part that a hung process has hung.
_HUNG_PART = 0.75

# A process closes its sockets a moment before it can be waited for.
_END_SECONDS = 0.25

# What a process that reads files of strangers need not know, and what is of one connection.
_DROPPED_FROM_REQUEST = frozenset(
    {b"authorization", b"cookie", b"proxy-authorization", b"content-length", b"upgrade", b"expect"}
    | {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding"}
    # The reader process believes these of the front.
    | {b"host", b"x-forwarded-for", b"x-forwarded-proto"}
)
_DROPPED_FROM_RESPONSE = frozenset({b"connection", b"transfer-encoding", b"server-timing"})

_TIMING = re.compile(rb"(%b);dur=([0-9.]+)" % "|".join(STAGES).encode())


class Relay:
    """A request that a reader process answers, or one after the other until a response begins.

    Args:
        scope: of the request.
        send: to the client.

    Raises:
        HTTPException: 400, the headers cannot be handed on.
        FileMissing: the path of the URL can name no file.
    """

    def __init__(self, readers: Readers, scope: Scope, send: Send) -> None:
        self.has_begun = False
        """Whether the client has got something of the response."""
        self.is_complete = False
        """Whether the client has got all of it."""
        named = find_file_in_path(scope)
        by_query = parse_query(scope["query_string"]).get("file", [""])[0]
        self.file = scope.get(NAMED_FILE) or named or by_query or None
        """The client's name of the file that it asks for."""
        self.content: Content | None = None
        """What was in that file, where it had to be known."""
        self._request = _make_request(scope, named)
        self._readers = readers
        self._send = send
        self._deadline = time.monotonic() + readers.timeout_seconds
        self._reader: ReaderProcess | None = None
        self._connection: Connection | None = None
        self._is_alone = False
        self._attempts = 0

    async def begin(self, seconds: float) -> None:
        """Ask the process that serves, and hand on what comes within some seconds.

        Raises:
            As `run`.
        """
        reader = self._readers.active
        if reader is None or self._readers.records:
            return
        try:
            connection = await self._ask(reader)
            if await connection.receive(seconds):
                await self._hand_on(connection)
        except ReaderEnded:
            await self._recover()

    async def run(self) -> None:
        """Hand on the rest of the response, or all of it.

        Raises:
            ReaderCrashed: the request has ended two processes, or its file is refused.
            ReadTimeout: the response has not begun in time.
            AnswerBroken: it has begun, and its process has ended.
            Overloaded: there is no process.
            ClientGone
        """
        # Of a response that has begun, twice what the process gives itself for a block.
        patience = 2 * self._readers.timeout_seconds
        while not self.is_complete:
            connection = self._connection
            try:
                if connection is None or not self.has_begun:
                    try:
                        with anyio.fail_after(self._deadline - time.monotonic()):
                            connection = await self._wait_for_beginning()
                    except TimeoutError:
                        await self._give_up()
                elif not await connection.receive(patience):
                    raise AnswerBroken(f"its reader sent nothing for {patience:g} s")
                await self._hand_on(connection)
            except ReaderEnded:
                await self._recover()

    async def end(self) -> None:
        """Release the process and the connection, whatever has become of the request."""
        reader = self._leave()
        if reader is not None and self._is_alone:
            self._is_alone = False
            await self._readers.release_alone(self, reader)

    async def _ask(self, reader: ReaderProcess) -> Connection:
        self._reader = reader
        connection = self._connection = reader.connect()
        await connection.send(self._request)
        # Only now: what a process never got cannot have ended it.
        reader.waiting[self] = None
        return connection

    def _leave(self) -> ReaderProcess | None:
        """Return the process that was asked, which is to do no more for this request."""
        reader, self._reader = self._reader, None
        connection, self._connection = self._connection, None
        if reader is not None:
            reader.waiting.pop(self, None)
            if not self.has_begun:
                reader.abandoned.append((time.monotonic(), self.file))
        if reader is not None and connection is not None and self.is_complete:
            reader.put_back(connection)
        elif connection is not None:
            connection.socket.close()
        return reader

    async def _choose(self) -> ReaderProcess:
        if self._attempts == _MAX_ATTEMPTS:
            raise Overloaded(f"{self._attempts} readers crashed while it was answered")
        self._attempts += 1
        readers = self._readers
        if readers.records:
            [self.content] = await readers.identify(self.file)
            if readers.is_suspect(self.file, self.content):
                self._reader = await readers.take_alone(self)
                self._is_alone = True
                return self._reader
        return await readers.find_serving()

    async def _wait_for_beginning(self) -> Connection:
        """Wait for bytes of the response, from another process where others hold this one up."""
        connection = self._connection or await self._ask(await self._choose())
        pause = min(_HELD_UP_SECONDS, self._readers.timeout_seconds / 8)
        while not await connection.receive(pause):
            reader = self._reader
            if reader is None or self._is_alone:
                continue
            stalled, _ = reader.measure_calls()
            first = next((each for each in reader.waiting if not each.has_begun), self)
            is_behind_others = first is not self or bool(reader.find_abandoned())
            if stalled >= pause and is_behind_others and self._readers.set_aside(reader):
                self._leave()
                connection = await self._ask(await self._choose())
        return connection

    async def _give_up(self) -> NoReturn:
        """Answer that it took too long, and end the process if it hangs.

        Raises:
            ReadTimeout
            ReaderCrashed: it hangs, and had this request only.
        """
        reader, seconds = self._reader, self._readers.timeout_seconds
        if reader is not None:
            is_hung = reader.measure_calls()[1] >= _HUNG_PART * seconds
            if is_hung:
                reader.kill(hung_seconds=seconds)
            if is_hung or not reader.is_running():
                await self._recover()
        raise ReadTimeout(seconds)

    async def _recover(self) -> None:
        """Find out what the end of a connection means for the request.

        Raises:
            ReaderCrashed, AnswerBroken, Overloaded
        """
        reader = self._reader
        if reader is None:
            return
        was_alone = self._is_alone and self in reader.waiting
        exited = await run_in_worker(reader.wait, _END_SECONDS)
        if exited is None and reader.hung_seconds is None:
            await self.end()
            if self.has_begun:
                raise AnswerBroken("its reader broke it off, as is logged", is_logged=True)
            return
        reason = await self._readers.note_end(reader)
        await self.end()
        # Before it serves, no request is to blame.
        was_ready = reader.ready.is_set()
        is_guilty = was_alone and was_ready
        if is_guilty:
            reason = self._readers.refuse(self.content, reason)
        if self.has_begun:
            raise AnswerBroken(f"its reader crashed: {reason}")
        if is_guilty:
            raise ReaderCrashed(self.file or "", reason)
        if not was_ready and self._attempts == _MAX_ATTEMPTS:
            raise Overloaded(f"no reader can be started: {reason}")

    async def _hand_on(self, connection: Connection) -> None:
        """Send the client what has come."""
        block = b""
        while True:
            event = connection.parse_event()
            has_ended = isinstance(event, h11.EndOfMessage)
            if block or has_ended:
                kind = "http.response.body"
                await self._tell({"type": kind, "body": block, "more_body": not has_ended})
                block = b""
            if isinstance(event, h11.Data):
                block = bytes(event.data)
            elif isinstance(event, h11.Response):
                await self._begin_response(event)
            elif has_ended or event is h11.NEED_DATA:
                self.is_complete = has_ended
                return
            else:
                raise ReaderEnded

    async def _begin_response(self, response: h11.Response) -> None:
        if response.status_code == 504:  # as it says itself
            await self._give_up()
        headers, timings = [], request_context.get().timings
        for name, value in response.headers:
            if name not in _DROPPED_FROM_RESPONSE:
                headers.append((name, value))
            elif name == b"server-timing" and timings is not None:
                for stage, milliseconds in _TIMING.findall(value):
                    add_time(timings, stage.decode(), float(milliseconds) / 1000)
        self.has_begun = True
        status, kind = response.status_code, "http.response.start"
        await self._tell({"type": kind, "status": status, "headers": headers})

    async def _tell(self, message: Message) -> None:
        try:
            await self._send(message)
        except OSError as error:
            raise ClientGone from error


def _make_request(scope: Scope, named: str | None) -> h11.Request:
    """Return the request for a reader process.

    Raises:
        HTTPException: 400, the headers cannot be handed on.
    """
    path, query = quote(get_route_path(scope), errors="surrogateescape"), scope["query_string"]
    if named is not None:
        # As a parameter, which may be any bytes.
        path, query = FILE_PREFIX, urlencode({"file": encoded(named)}).encode()
    # Servers let bytes through that are not ASCII, or blanks.
    target = path + ("?" + quote(query, safe="%!\"#$&'()*+,/:;<=>?@[\\]^`{|}~") if query else "")
    given, client = scope["headers"], scope.get("client")
    headers = [(name, value.strip()) for name, value in given if name not in _DROPPED_FROM_REQUEST]
    headers.append((b"host", next((value for name, value in given if name == b"host"), b"reader")))
    if client:
        # Clients take turns in a reader process.
        headers.append((b"x-forwarded-for", str(client[0]).encode("latin-1", "replace")))
    try:
        return h11.Request(method=scope["method"], target=target, headers=headers)
    except h11.LocalProtocolError as error:
        message = f"The request cannot be handed on: {error}"
        raise HTTPException(400, message) from error


class Front:
    """An ASGI application: answers as a reader process does, whatever happens to that one."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        relay = Relay(self._readers, scope, send)
        try:
            await relay.begin(_UNWATCHED_SECONDS)
            if not relay.is_complete:
                await run_while_connected(receive, relay.run)
        except ClientGone:
            return
        finally:
            with anyio.CancelScope(shield=True):
                await relay.end()


def isolate(
    store: Store, router: Router, fronts: Mapping[str, Callable[[ASGIApp], ASGIApp]]
) -> ReadingParts:
    """Return the parts of a service whose files are read by reader processes.

    A batch is taken apart in the front, so that each of its requests needs the permission that an
    application asks for, and only the request fails that ends its process.

    Args:
        store: of the front, where nothing is opened through it.
        router: the service's routes.
        fronts: by the name of a route, what makes an application of the front that stands before
            that route in the readers.

    Raises:
        ValueError: there can be no reader processes here.
    """
    readers = Readers(store.sandbox, store.settings)
    front = Front(readers)
    relayed = Router(optional_trailing_slash=router.optional_trailing_slash)
    for route in router.registered:
        app: ASGIApp = front
        if isinstance(route.target, Batch):
            app = Batch(store, relayed)
        elif route.name in fronts:
            app = fronts[route.name](front)
        relayed.add(route.path, app, methods=route.methods, name=route.name)
    cornerstone = Component(
        kind="cornerstone",
        container="hdf5",
        name="store",
        # Blocks pass through the memory of this process, too, which the store gives back.
        modules=(
            ModuleHooks(lifespan=lambda _: store.running()),
            ModuleHooks(lifespan=lambda _: readers.running()),
        ),
        state={"store": store, "readers": readers},
        statuses=STATUSES,
        needs_lifespan=False,
    )
    return ReadingParts(cornerstone, relayed, readers.sum_figures, health=front)
