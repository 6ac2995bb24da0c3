"""What a reader process runs: the service itself, behind HTTP on a Unix socket.

`asgihive.isolation.process` starts it, with the descriptors of its listening socket and of its
control socket as arguments.
"""

import faulthandler
import logging
import os
import shutil
import socket
import sys
import threading
from types import FrameType

import msgspec
import uvicorn
from starlette.types import Message, Receive, Scope, Send

from asgihive.asgi import BufferedResponse
from asgihive.concurrency import Lane
from asgihive.context import RequestContext, Timings, request_context
from asgihive.hdf5.buffers import share_one_arena
from asgihive.isolation.process import (
    CLIENT,
    FIGURES,
    MEASURED,
    PROBE,
    TIMINGS,
    LogNote,
    ProbeAnswer,
    Setup,
)
from asgihive.service.app import H5App
from asgihive.service.figures import Figures
from asgihive.settings import H5Settings

_WATCH_SECONDS = 1.0

# The front reads lines of at most 256 KiB, and JSON may take six bytes for a character.
_MAX_LOG_CHARACTERS = 40_000

# Only the front closes connections.
_KEEP_ALIVE_SECONDS = 10**8


class ReaderApp:
    """An ASGI application: a service which takes from headers what the front knows of a request.

    Only the front can connect. Each response says what files, lanes and caches are doing.
    """

    def __init__(self, app: H5App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        told = dict(scope["headers"])
        timings = Timings() if MEASURED in told else None

        async def send_noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                figures = ",".join(map(str, Figures.of(self._app.store)))
                headers = [*message["headers"], (FIGURES, figures.encode())]
                if timings is not None:
                    spent = (f"{stage}={took:.6f}" for stage, took in timings.get_spent().items())
                    headers.append((TIMINGS, ",".join(spent).encode()))
                message = {**message, "headers": headers}
            await send(message)

        if scope["path"] == PROBE:
            await self._describe_threads()(scope, receive, send_noted)
            return
        client = told.get(CLIENT)
        headers = [each for each in scope["headers"] if each[0] not in {CLIENT, MEASURED}]
        # For `context.measured`; the service itself puts the client there.
        request_context.set(RequestContext(timings=timings))
        address = None if client is None else (client.decode("latin-1"), 0)
        await self._app({**scope, "client": address, "headers": headers}, receive, send_noted)

    def _describe_threads(self) -> BufferedResponse:
        lanes = (self._app.store.lanes.library, self._app.store.lanes.decode)
        longest = max((max(each.get_call_seconds(), default=0.0) for each in lanes), default=0.0)
        answer = ProbeAnswer(max(map(_measure_stall, lanes)), longest)
        return BufferedResponse(msgspec.json.encode(answer))


def _measure_stall(lane: Lane) -> float:
    """Return for how many seconds all threads of a lane have been in the calls they are in."""
    calls = lane.get_call_seconds()
    return min(calls) if len(calls) >= lane.threads else 0.0


class ReaderServer(uvicorn.Server):
    """A server that says when it serves, and ends with the front only.

    Responses that are under way are completed where all processes of a service get a signal at
    once, as by Ctrl-C.
    """

    def __init__(self, config: uvicorn.Config, control: socket.socket) -> None:
        super().__init__(config)
        self._control = control

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ignore a signal."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve, and tell the front."""
        await super().startup(sockets)
        self._control.sendall(msgspec.json.encode(LogNote("", 0, "")) + b"\n")


class ControlHandler(logging.Handler):
    """Sends records, with their tracebacks, to the front, whose handlers and formats are set up."""

    def __init__(self, control: socket.socket) -> None:
        super().__init__()
        self._control = control

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record as a line."""
        text = self.format(record)[:_MAX_LOG_CHARACTERS].encode("utf-8", "replace").decode()
        line = msgspec.json.encode(LogNote(record.name, record.levelno, text)) + b"\n"
        try:
            self._control.sendall(line)
        except OSError:  # the front has gone, and so does this process
            self.handleError(record)


def _send_logs(control: socket.socket, level: int) -> None:
    root = logging.getLogger()
    root.handlers = [ControlHandler(control)]
    root.setLevel(level)
    # Of the server, only what goes wrong; the front writes the line of each request.
    logging.getLogger("uvicorn").setLevel(max(level, logging.WARNING))
    logging.getLogger("asgihive.access").disabled = True
    logging.captureWarnings(capture=True)
    logging.raiseExceptions = False


def _end_with_front(control: socket.socket, folder: str) -> None:
    """Wait for the end of the front, and end this process at once, whatever it does."""
    try:
        while control.recv(1 << 10):
            pass
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # the front may have been killed
        os._exit(0)


def main() -> None:
    """Run a reader process; the arguments are the descriptors of its two sockets."""
    faulthandler.enable()
    share_one_arena()
    listener, control = (socket.socket(fileno=int(each)) for each in sys.argv[1:])
    with control.makefile("rb", buffering=0) as lines:
        line = lines.readline()
    if not line:
        return
    setup = msgspec.json.decode(line, type=Setup)
    folder = os.path.dirname(listener.getsockname())
    threading.Thread(target=_end_with_front, args=(control, folder), daemon=True).start()
    _send_logs(control, setup.log_level)

    async def watch() -> None:
        """End a process whose event loop hangs, even in a call that nothing interrupts.

        Nothing else would, where the front has been killed meanwhile. Where it hung is written to
        stderr.
        """
        faulthandler.dump_traceback_later(setup.patience_seconds, exit=True)

    app = H5App(os.fsdecode(setup.root), msgspec.convert(setup.settings, H5Settings))
    config = uvicorn.Config(
        ReaderApp(app),
        access_log=False,
        backlog=4096,
        callback_notify=watch,
        date_header=False,
        lifespan="on",
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_notify=int(_WATCH_SECONDS),
        ws="none",
    )
    ReaderServer(config, control).run(sockets=[listener])


if __name__ == "__main__":
    main()
