"""The front: the routes of the service, whose requests are handed to reader processes."""

import time
from typing import Any
from urllib.parse import quote, urlencode

import anyio
import h11
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgihive.asgi import HTTPException, Router, get_route_path, parse_query, run_while_connected
from asgihive.concurrency import run_in_worker
from asgihive.context import add_time, request_context
from asgihive.errors import AnswerBroken, Overloaded, ReaderCrashed, ReadTimeout
from asgihive.hdf5.file_bytes import encoded
from asgihive.hdf5.sandbox import Content
from asgihive.hive import Component, ModuleHooks
from asgihive.isolation.process import (
    CLIENT,
    MEASURED,
    TIMINGS,
    Connection,
    ReaderEnded,
    ReaderProcess,
)
from asgihive.isolation.readers import Readers
from asgihive.service.app import ReadingParts
from asgihive.service.batch import Batch
from asgihive.service.gate import STATUSES
from asgihive.service.parameters import FILE_PREFIX, find_file_in_path
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
    {b"authorization", b"cookie", b"proxy-authorization", b"content-length"}
    | {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding"}
    | {b"upgrade", b"expect", b"host", CLIENT, MEASURED}
)
_DROPPED_FROM_RESPONSE = frozenset({b"connection", b"transfer-encoding", TIMINGS})


class ClientGone(Exception):  # no error: there is no client to answer
    """The client has gone, as `send` says (ASGI 2.4)."""


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
        self.file = named or parse_query(scope["query_string"]).first("file") or None
        """The client's name of the file that it asks for."""
        self._request = _make_request(scope, named)
        self._readers = readers
        self._send = send
        self._deadline = time.monotonic() + readers.timeout_seconds
        self._reader: ReaderProcess | None = None
        self._connection: Connection | None = None
        self._content: Content | None = None
        self._is_suspect = self._is_alone = False
        self._attempts = 0

    async def begin(self, seconds: float) -> None:
        """Ask the process that serves, and hand on what comes within some seconds.

        Raises:
            As `run`.
        """
        reader = self._readers.active
        if reader is None or self._readers.has_records():
            return
        try:
            connection = await self._ask(reader)
            with anyio.move_on_after(seconds) as limit:
                await connection.receive()
            if not limit.cancelled_caught:
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
        timeout = self._readers.timeout_seconds
        while not self.is_complete:
            try:
                if not self.has_begun:
                    with anyio.move_on_after(self._deadline - time.monotonic()) as limit:
                        await self._wait_for_beginning()
                    if limit.cancelled_caught:
                        await self._give_up()
                elif self._connection is not None:
                    # Twice what the process gives itself for a block.
                    with anyio.move_on_after(2 * timeout) as limit:
                        await self._connection.receive()
                    if limit.cancelled_caught:
                        raise AnswerBroken(f"its reader sent nothing for {2 * timeout:g} s")
                if self._connection is not None:
                    await self._hand_on(self._connection)
            except ReaderEnded:
                await self._recover()

    async def end(self) -> None:
        """Release the process and the connection, whatever has become of the request."""
        reader = self._leave()
        if reader is not None and self._is_alone:
            self._is_alone = False
            if self.is_complete:
                self._readers.clear(self._content)
            await self._readers.release_alone(self, reader, is_well=self.is_complete)

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
        if self._is_suspect or readers.has_records():
            [self._content] = await readers.identify(self.file)
            self._is_suspect |= readers.is_suspect(self.file, self._content)
        if not self._is_suspect:
            return await readers.find_serving()
        self._reader = await readers.take_alone(self)
        self._is_alone = True
        return self._reader

    async def _wait_for_beginning(self) -> None:
        """Wait for bytes of the response, from another process where others hold this one up."""
        connection = self._connection or await self._ask(await self._choose())
        pause = min(_HELD_UP_SECONDS, self._readers.timeout_seconds / 8)
        while True:
            with anyio.move_on_after(pause) as limit:
                await connection.receive()
            reader = self._reader
            if not limit.cancelled_caught or reader is None:
                return
            stalled, _ = reader.measure_calls()
            first = next((each for each in reader.waiting if not each.has_begun), self)
            is_behind_others = first is not self or bool(reader.find_abandoned())
            if self._is_alone or stalled < pause or not is_behind_others:
                continue
            if self._readers.set_aside(reader):
                self._leave()
                connection = await self._ask(await self._choose())

    async def _give_up(self) -> None:
        """Answer that it took too long, and end the process if it hangs.

        Raises:
            ReadTimeout
            ReaderCrashed: it hangs, and had this request only.
        """
        reader, seconds = self._reader, self._readers.timeout_seconds
        if reader is not None:
            _, longest = reader.measure_calls()
            if longest >= _HUNG_PART * seconds:
                reader.hung_seconds = seconds
                reader.kill()
            if longest >= _HUNG_PART * seconds or not reader.is_running():
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
        if not await run_in_worker(reader.has_ended_within, _END_SECONDS):
            await self.end()
            if self.has_begun:
                raise AnswerBroken("its reader broke it off, as is logged", is_logged=True)
            return
        report = await self._readers.report_end(reader)
        await self.end()
        reason, is_guilty = report.reason, was_alone and report.was_ready
        if is_guilty:
            reason = self._readers.ban(self._content, reason)
        if self.has_begun:
            raise AnswerBroken(f"its reader crashed: {reason}")
        if is_guilty:
            raise ReaderCrashed(self.file or "", reason)
        if not report.was_ready and self._attempts == _MAX_ATTEMPTS:
            raise Overloaded(f"no reader can be started: {reason}")
        self._is_suspect |= self in report.suspects

    async def _hand_on(self, connection: Connection) -> None:
        """Send the client what has come."""
        block = b""
        while True:
            event = connection.parse_event()
            has_ended = isinstance(event, h11.EndOfMessage)
            if block or has_ended:
                await self._tell(
                    {"type": "http.response.body", "body": block, "more_body": not has_ended}
                )
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
        timings = request_context.get().timings
        if timings is not None:
            spent = dict(response.headers).get(TIMINGS, b"").decode("latin-1")
            for each in filter(None, spent.split(",")):
                stage, _, seconds = each.partition("=")
                add_time(timings, stage, float(seconds))
        headers = [each for each in response.headers if each[0] not in _DROPPED_FROM_RESPONSE]
        self.has_begun = True
        await self._tell(
            {
                "type": "http.response.start",
                "status": response.status_code,
                "headers": headers,
            }
        )

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
    headers: list[tuple[Any, Any]] = [
        (name, value.strip())
        for name, value in scope["headers"]
        if name not in _DROPPED_FROM_REQUEST
    ]
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    headers.append((b"host", hosts[0] if hosts else b"reader"))
    client = scope.get("client")
    if client:
        headers.append((CLIENT, str(client[0]).encode("latin-1", "replace")))
    if request_context.get().timings is not None:
        headers.append((MEASURED, b"1"))
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


def isolate(store: Store, router: Router) -> ReadingParts:
    """Return the parts of a service whose files are read by reader processes.

    A batch is taken apart in the front, so that each of its requests needs the permission that an
    application asks for, and only the request fails that ends its process.

    Args:
        store: of the front, where nothing is opened through it.
        router: the service's routes.

    Raises:
        ValueError: there can be no reader processes here.
    """
    readers = Readers(store.sandbox, store.settings)
    front = Front(readers)
    relayed = Router(optional_trailing_slash=router.optional_trailing_slash)
    for route in router.registered:
        is_batch = isinstance(route.target, Batch)
        app: ASGIApp = Batch(store, relayed) if is_batch else front
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
    return ReadingParts(cornerstone, relayed, readers.figures, health=front)
