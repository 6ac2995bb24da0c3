"""`/events`: what happens to a file while somebody looks at it, as server-sent events.

The format is that of the HTML standard, section 9.2.6.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import urlencode

import anyio
import orjson
from starlette.types import ASGIApp, Receive, Scope, Send

from asgihive.asgi import parse_query, run_while_connected
from asgihive.asgi.errors import send_error
from asgihive.asgi.request_fields import join_headers
from asgihive.concurrency import LoopLocal
from asgihive.errors import Overloaded
from asgihive.hdf5.file_bytes import decoded, encoded, split_path, text
from asgihive.hdf5.sandbox import normalised
from asgihive.service.answering import (
    CapturedResponse,
    begin_in_time,
    make_inner_scope,
    receive_nothing,
)
from asgihive.service.gate import STATUSES
from asgihive.service.requests import parse_parameters
from asgihive.service.store import Store
from asgihive.viewer.watching import Shape, ShapeUnknown, Sight, WatchedFile, WatchEnded

EVENT_STREAM = "text/event-stream"

HEARTBEAT_SECONDS = 15.0
"""Proxies close connections on which nothing is sent for a minute or so."""

RETRY_MS = 2000
"""How long a client waits before it connects again."""

_HEADERS = (
    (b"content-type", EVENT_STREAM.encode()),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would keep events until it has some KiB of them
)


class Events:
    """An ASGI application: the route over one store.

    Args:
        store: with the served directory.
        app: answers `/meta`; shapes are asked of it.
    """

    def __init__(self, store: Store, app: ASGIApp) -> None:
        self._store = store
        self._app = app
        self._watched: LoopLocal[dict[str, WatchedFile]] = LoopLocal()
        self._listeners = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        values = parse_parameters("events", parse_query(scope["query_string"]))
        file = normalised(values["file"])
        path = "/" + decoded(b"/".join(split_path(values["path"])))
        with self._count_listener(), self._watch(file) as watched, watched.listening(path):
            seconds = self._store.settings.read_timeout_seconds
            with begin_in_time(seconds, send) as begin:
                sight = await watched.look(path)
                start = {"type": "http.response.start", "status": 200, "headers": [*_HEADERS]}
                await begin(start)
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body", "body": b""})
                return
            seen = join_headers(scope, b"last-event-id")
            tell = partial(_tell, watched, path, sight, seen, send)
            await run_while_connected(receive, tell)

    @contextmanager
    def _count_listener(self) -> Iterator[None]:
        most = self._store.settings.max_listeners
        if self._listeners >= most:
            raise Overloaded(f"{most} clients listen to files")
        self._listeners += 1
        try:
            yield
        finally:
            self._listeners -= 1

    @contextmanager
    def _watch(self, file: str) -> Iterator[WatchedFile]:
        """Yield the file that all who listen to it share; it is forgotten with the last one."""
        files = self._watched.get(dict)
        watched = files.get(file)
        if watched is None:
            store = self._store
            watched = files[file] = WatchedFile(
                file,
                store.sandbox,
                self._ask_shape,
                store.settings.poll_seconds,
                is_server_stopping,
            )
        watched.users += 1
        try:
            yield watched
        finally:
            watched.users -= 1
            if not watched.users:
                del files[file]

    async def _ask_shape(self, file: str, path: str) -> Shape | None:
        """Return the shape of a dataset, None of anything else.

        Raises:
            ShapeUnknown: `/meta` is busy, or the file changes all the time.
            HTTPException: there is no such thing.
        """
        query = urlencode({"file": encoded(file), "path": encoded(path)})
        scope = make_inner_scope("/meta", query, [(b"accept", b"application/json")])
        answer = CapturedResponse()
        try:
            await self._app(scope, receive_nothing, answer.send)
        except Exception as error:  # noqa: BLE001  # answered, as by the gate
            await send_error(error, scope, receive_nothing, answer.send, statuses=STATUSES)
        if answer.status >= 500:
            raise ShapeUnknown
        if answer.status != 200:
            raise answer.make_error()
        shape = orjson.loads(answer.body).get("shape")
        return None if shape is None else tuple(shape)


async def _tell(watched: WatchedFile, path: str, sight: Sight, seen: str, send: Send) -> None:
    """Send events until the server stops: one message for all that happened meanwhile.

    Args:
        watched: the file.
        path: of the dataset whose growth is told.
        sight: what the client starts with.
        seen: the version that the client has; empty = none.
        send: of the request.
    """
    shape = watched.get_shape(path)
    first = b"retry: %d\n%b" % (RETRY_MS, _format_id(sight))
    if seen and seen != sight.version:
        first += b"\n" + _format_changes(watched, sight, path, shape)
    await _send(send, first + b"\n")
    while True:
        later = None
        try:
            with anyio.move_on_after(HEARTBEAT_SECONDS):
                later = await watched.wait(sight)
        except WatchEnded:
            await send({"type": "http.response.body", "body": b""})
            return
        if later is None:
            await _send(send, b":\n\n")
            continue
        now = watched.get_shape(path)
        grown = now if now != shape and _has_grown(shape, now) else None
        if later.version != sight.version or grown is not None:
            await _send(send, _format_changes(watched, later, path, grown))
        sight, shape = later, now if now is not None else shape


def _has_grown(before: Shape | None, now: Shape | None) -> bool:
    """Return whether a shape is that of a dataset to which elements were added."""
    if now is None:
        return False
    if before is None or len(before) != len(now):
        return True
    return any(n > b for b, n in zip(before, now, strict=True))


def _format_changes(watched: WatchedFile, sight: Sight, path: str, shape: Shape | None) -> bytes:
    """Return the events that a change means."""
    name = text(encoded(watched.name))
    if sight.version is None:
        return _format_event("gone", {"file": name}, sight)
    told = _format_event("changed", {"file": name, "version": sight.version}, sight)
    if shape is not None:
        told += _format_event("grown", {"path": text(encoded(path)), "shape": shape}, sight)
    return told


def _format_event(kind: str, data: dict[str, Any], sight: Sight) -> bytes:
    # JSON has no line breaks of its own.
    return b"event: %b\n%bdata: %b\n\n" % (kind.encode(), _format_id(sight), orjson.dumps(data))


def _format_id(sight: Sight) -> bytes:
    return b"id: %b\n" % (sight.version or "gone").encode()


async def _send(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


def is_server_stopping() -> bool:
    """Return whether uvicorn, which serves this, was told to stop.

    It waits for all responses then, and an event stream has no end. Its handler of signals is a
    method of the server, which says whether it stops. Of other servers nothing is known: hypercorn
    ends its connections after a time of grace.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(server, "should_exit", False) is True
