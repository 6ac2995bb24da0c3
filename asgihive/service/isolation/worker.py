"""What a worker process runs: the service itself, for requests out of a socket.

It is started by `asgihive.service.isolation.process`, with two descriptors as its arguments.
"""

import faulthandler
import importlib.util
import os
import signal
import socket
import sys
from typing import Any, NoReturn

import anyio
from anyio.abc import TaskGroup
from starlette.types import Message

from asgihive.context import RequestContext, Timings, request_context
from asgihive.hdf5.buffers import share_one_arena
from asgihive.service.app import H5App
from asgihive.service.figures import Figures
from asgihive.service.isolation.board import Board
from asgihive.service.isolation.channel import Channel, ChannelClosed
from asgihive.service.isolation.frames import (
    MOST_BODY_BYTES,
    WINDOW_BYTES,
    Frame,
    Kind,
    Request,
    Setup,
    Start,
    decoded,
    encoded,
)
from asgihive.service.isolation.logs import send_logs
from asgihive.settings import H5Settings

_LOOK_SECONDS = 1.0


class Worker:
    """Answers requests out of a channel.

    Args:
        app: what answers them.
        channel: to the parent.
        board: where it is noted what the process has come to.
        patience: seconds after which a process that is stuck as a whole ends itself.
    """

    def __init__(self, app: H5App, channel: Channel, board: Board, patience: float) -> None:
        self._app = app
        self._channel = channel
        self._board = board
        self._patience = patience
        self._answers: dict[int, Answer] = {}
        self._is_held_up = anyio.Event()

    async def run(self, frames: list[Frame]) -> None:
        """Answer `frames`, and what comes after them; the process ends when the parent does."""
        self._channel.put(Kind.READY)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._stay_alive)
            tasks.start_soon(self._write)
            self.flush()
            while True:
                for frame in frames:
                    self._take(frame, tasks)
                await anyio.wait_readable(self._channel.socket)
                try:
                    frames = self._channel.read()
                except ChannelClosed:
                    _leave()

    def put(self, kind: Kind, request: int, payload: bytes | memoryview = b"") -> None:
        """Let `flush` send a frame."""
        self._channel.put(kind, request, payload)

    def tell_figures(self) -> None:
        """Let the parent know what files, lanes and caches have come to."""
        self._board.tell(Figures.of(self._app.store))

    def flush(self) -> None:
        """Send what was put, now or as soon as the parent takes it.

        Nobody waits for that: what may be under way is bounded for each answer.
        """
        try:
            if not self._channel.flush():
                self._is_held_up.set()
        except ChannelClosed:
            _leave()

    async def _write(self) -> None:
        while True:
            await self._is_held_up.wait()
            self._is_held_up = anyio.Event()
            await anyio.wait_writable(self._channel.socket)
            self.flush()

    def _take(self, frame: Frame, tasks: TaskGroup) -> None:
        answer = self._answers.get(frame.request)
        if frame.kind == Kind.REQUEST:
            answer = self._answers[frame.request] = Answer(self, frame.request)
            tasks.start_soon(self._answer, decoded(frame.payload, Request), answer)
        elif frame.kind == Kind.CREDIT and answer is not None:
            answer.grant(decoded(frame.payload, int))
        elif frame.kind == Kind.CANCEL and answer is not None:
            answer.scope.cancel()
        elif frame.kind == Kind.PING:
            self.put(Kind.PONG, 0)
            self.flush()

    async def _answer(self, request: Request, answer: "Answer") -> None:
        if request.is_measured:
            request_context.set(RequestContext(timings=answer.timings))
        reason = "the reader did not complete it"
        with answer.scope:
            try:
                await self._app(_scope(request), answer.receive, answer.send)
            except Exception as error:  # noqa: BLE001  # the parent raises it in its turn
                reason = str(error) or type(error).__name__
        del self._answers[answer.number]
        if not answer.is_complete and not answer.scope.cancelled_caught:
            self.put(Kind.BROKEN, answer.number, encoded(reason))
            self.flush()

    async def _stay_alive(self) -> None:
        """End a process whose event loop is stuck, even in a call that nothing interrupts.

        Nobody else would, if the parent were killed meanwhile. Where it was stuck is said on
        stderr.
        """
        while True:
            faulthandler.dump_traceback_later(self._patience, exit=True)
            await anyio.sleep(_LOOK_SECONDS)
            self.tell_figures()
            self.flush()  # what other threads logged


class Answer:
    """One answer on its way to the parent, which has room for so much at a time.

    Attributes:
        number: of the request.
        scope: of whatever works for it.
        is_complete: whether all of it is on its way.
    """

    def __init__(self, worker: Worker, number: int) -> None:
        self.number = number
        self.scope = anyio.CancelScope()
        self.timings = Timings()
        self.is_complete = False
        self._worker = worker
        self._is_asked = False
        self._reported: dict[str, float] = {}
        self._window = WINDOW_BYTES
        self._granted = anyio.Event()

    def grant(self, size: int) -> None:
        """So much more may come."""
        self._window += size
        self._granted.set()

    async def receive(self) -> Message:
        """For the application: a request without a body, whose client waits until `scope` ends."""
        if self._is_asked:
            await anyio.sleep_forever()
        self._is_asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Message) -> None:
        """For the application."""
        if message["type"] == "http.response.start":
            # With the first bytes of the body, which follow at once.
            start = Start(message["status"], list(message["headers"]), self._spent())
            self._worker.put(Kind.START, self.number, encoded(start))
            return
        body = memoryview(message.get("body", b""))
        has_more = message.get("more_body", False)
        while len(body) > MOST_BODY_BYTES:
            await self._send_piece(body[:MOST_BODY_BYTES])
            body = body[MOST_BODY_BYTES:]
        if has_more:
            if body:
                await self._send_piece(body)
            return
        spent = self._spent()
        if spent:
            self._worker.put(Kind.SPENT, self.number, encoded(spent))
        self.is_complete = True
        self._worker.tell_figures()
        self._worker.put(Kind.LAST, self.number, body)
        self._worker.flush()

    async def _send_piece(self, piece: memoryview) -> None:
        while self._window <= 0:
            self._granted = anyio.Event()
            await self._granted.wait()
        self._window -= len(piece)
        self._worker.put(Kind.BODY, self.number, piece)
        self._worker.flush()

    def _spent(self) -> dict[str, float]:
        """Seconds by stage since the last time."""
        now = self.timings.get_spent()
        new = {stage: seconds - self._reported.get(stage, 0.0) for stage, seconds in now.items()}
        self._reported = dict(now)
        return {stage: seconds for stage, seconds in new.items() if seconds}


def _scope(request: Request) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": request.path,
        "raw_path": request.path.encode(),
        "root_path": "",
        "query_string": request.query_string,
        "headers": request.headers,
        "client": None if request.client is None else (request.client, 0),
        "server": None,
        "extensions": {},
    }


def _leave() -> NoReturn:
    """End the process at once: no thread that is stuck in a file holds it up."""
    os._exit(0)


async def _first(channel: Channel) -> list[Frame]:
    while True:
        await anyio.wait_readable(channel.socket)
        try:
            frames = channel.read()
        except ChannelClosed:
            _leave()
        if frames:
            return frames


async def serve(channel: Channel, board: Board) -> None:
    """Become what the parent says, and answer until it is gone."""
    first, *more = await _first(channel)
    setup = decoded(first.payload, Setup)
    send_logs(channel, setup.log_level)
    app = H5App(os.fsdecode(setup.root), H5Settings(**setup.settings))
    worker = Worker(app, channel, board, setup.patience)
    async with app.running():
        await worker.run(more)


def main() -> None:
    """Run a worker; the arguments are the descriptors of its socket and of its board."""
    faulthandler.enable()
    share_one_arena()
    for each in (signal.SIGINT, signal.SIGTERM):
        # Whoever stops all processes of a service at once: answers under way are completed, and
        # this one ends with its parent.
        signal.signal(each, signal.SIG_IGN)
    connection, shared = map(int, sys.argv[1:])
    board = Board(shared)
    os.close(shared)
    channel = Channel(socket.socket(fileno=connection))
    options = {"use_uvloop": importlib.util.find_spec("uvloop") is not None}
    anyio.run(serve, channel, board, backend_options=options)


if __name__ == "__main__":
    main()
