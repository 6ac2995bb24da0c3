"""What a reader process runs: the service itself, behind HTTP on a Unix socket.

`asgihive.isolation.process` starts it, with the descriptors of its listening socket and of its
control socket as arguments.
"""

import asyncio
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

from asgihive.hdf5.buffers import share_one_arena
from asgihive.isolation.process import STATUS_SECONDS, LogNote, Setup, Status
from asgihive.service.app import H5App
from asgihive.service.operations import Figures
from asgihive.service.store import Store

# The front reads lines of at most 256 KiB, and JSON may take six bytes for a character.
_MAX_LOG_CHARACTERS = 40_000

# Only the front closes connections.
_KEEP_ALIVE_SECONDS = 10**8

# A process whose event loop hangs ends itself after this, or after some times that a read may take.
_LEAST_PATIENCE_SECONDS = 10.0


class ReaderServer(uvicorn.Server):
    """A server that says what it does, and ends with the front only.

    Responses that are under way are completed where all processes of a service get a signal at
    once, as by Ctrl-C.
    """

    def __init__(self, app: H5App, control: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            access_log=False,
            backlog=4096,
            date_header=False,
            # The front, which alone can connect, says which client asks.
            forwarded_allow_ips="*",
            lifespan="on",
            log_config=None,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            ws="none",
        )
        super().__init__(config)
        self._store = app.store
        self._control = control
        self._patience = max(_LEAST_PATIENCE_SECONDS, 4 * app.settings.read_timeout_seconds)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ignore a signal."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve, and tell the front from then on."""
        await super().startup(sockets)
        self._telling = asyncio.create_task(self._tell_status())

    async def _tell_status(self) -> None:
        while True:
            # Ends a process whose event loop hangs, even in a call that nothing interrupts, where
            # the front has been killed meanwhile; stderr says where it hung.
            faulthandler.dump_traceback_later(self._patience, exit=True)
            self._control.sendall(msgspec.json.encode(_read_status(self._store)) + b"\n")
            await asyncio.sleep(STATUS_SECONDS)


def _read_status(store: Store) -> Status:
    lanes = (store.lanes.library, store.lanes.decode)
    calls = [each.get_call_seconds() for each in lanes]
    stalls = [
        min(running)
        for lane, running in zip(lanes, calls, strict=True)
        if len(running) >= lane.threads
    ]
    longest = max((each for running in calls for each in running), default=0.0)
    return Status(max(stalls, default=0.0), longest, Figures.read(store))


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
    folder = os.path.dirname(listener.getsockname())
    with control.makefile("rb", buffering=0) as lines:
        line = lines.readline()
    if not line:  # the front has been killed
        shutil.rmtree(folder, ignore_errors=True)
        return
    setup = msgspec.json.decode(line, type=Setup)
    threading.Thread(target=_end_with_front, args=(control, folder), daemon=True).start()
    _send_logs(control, setup.log_level)
    app = H5App(os.fsdecode(setup.root), setup.settings)
    ReaderServer(app, control).run(sockets=[listener])


if __name__ == "__main__":
    main()
