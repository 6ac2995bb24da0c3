"""One reader process as the front sees it: its start, its end, and the connections to it."""

import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import anyio
import h11
import msgspec

from asgihive.errors import Overloaded
from asgihive.service.operations import Figures
from asgihive.settings import H5Settings

if TYPE_CHECKING:
    from asgihive.isolation.front import Relay

MODULE = "asgihive.isolation.reader"
"""What a reader process runs."""

STATUS_SECONDS = 0.5
"""How often the event loop of a reader process says that it runs."""

# Without a status for so long, the event loop hangs, or the machine is very busy.
_SILENT_SECONDS = 4 * STATUS_SECONDS

# A process that a system call holds up cannot end before that is over.
_END_SECONDS = 5.0

_RECEIVE_BYTES = 1 << 18
_MAX_LINE_BYTES = 1 << 18
_MAX_IDLE_CONNECTIONS = 64
_MAX_ABANDONED = 16
# `sun_path` holds 104 bytes on macOS and 108 on Linux, 25 of them for our own names.
_MAX_FOLDER_BYTES = 75


class Setup(msgspec.Struct):
    """What a reader process serves: the first line of the control socket, as JSON."""

    root: bytes
    """The served directory, without symbolic links."""
    settings: H5Settings
    """Those of the service, without what is for the front alone."""
    log_level: int
    """Of what it logs."""


class LogNote(msgspec.Struct, tag=True):
    """A line in the other direction: a logged record, with its traceback in the text."""

    logger: str
    level: int
    text: str


class Status(msgspec.Struct, tag=True):
    """A line in the other direction: the event loop runs, and what the process does."""

    stalled_seconds: float = 0.0
    """For so long all threads of a lane have been in one call each, so that none could begin."""
    longest_seconds: float = 0.0
    """For so long the longest call has run."""
    figures: Figures = Figures()


class ReaderEnded(Exception):  # no error: the request is made again, or fails otherwise
    """The reader process is gone, or has closed the connection."""


class Connection:
    """A connection to a reader process. It belongs to no event loop between two requests.

    Args:
        path: of the socket.

    Raises:
        ReaderEnded
        Overloaded: the process accepts no further one now, or there is no descriptor left.
    """

    def __init__(self, path: str) -> None:
        self.protocol = h11.Connection(h11.CLIENT)
        try:
            self.socket = socket.socket(socket.AF_UNIX)
        except OSError as error:
            raise Overloaded(f"no connection to a reader process: {error.strerror}") from error
        self.socket.setblocking(False)
        try:
            self.socket.connect(path)
        except OSError as error:
            self.socket.close()
            if isinstance(error, BlockingIOError):
                raise Overloaded("too many requests wait for the reader process") from None
            raise ReaderEnded from error

    async def send(self, request: h11.Request) -> None:
        """Send a request, which has no body.

        Raises:
            ReaderEnded
        """
        head = self.protocol.send(request) or b""
        unsent = memoryview(head + (self.protocol.send(h11.EndOfMessage()) or b""))
        while unsent:
            try:
                unsent = unsent[self.socket.send(unsent) :]
            except BlockingIOError:
                await anyio.wait_writable(self.socket)
            except OSError as error:
                raise ReaderEnded from error

    async def receive(self, seconds: float) -> bool:
        """Return whether bytes of the response came within some seconds.

        Raises:
            ReaderEnded: no more will come.
        """
        with anyio.move_on_after(seconds):
            while True:
                # First, so that a response of gigabytes gives other requests their turns.
                await anyio.wait_readable(self.socket)
                try:
                    received = self.socket.recv(_RECEIVE_BYTES)
                except BlockingIOError:
                    continue
                except OSError as error:
                    raise ReaderEnded from error
                if not received:
                    raise ReaderEnded
                self.protocol.receive_data(received)
                return True
        return False

    def parse_event(self) -> Any:
        """Return the next event of the response; `h11.NEED_DATA` where bytes are missing.

        Raises:
            ReaderEnded: it is no HTTP.
        """
        try:
            return self.protocol.next_event()
        except h11.RemoteProtocolError as error:
            raise ReaderEnded from error


class Role(Enum):
    """What a reader process is there for."""

    SPARE = auto()
    """It has no request."""
    SERVING = auto()
    """It gets all requests, except those that are made alone."""
    ASIDE = auto()
    """It is held up, and gets no further request before it is well again."""
    ALONE = auto()
    """It answers one request that may end it."""
    ENDED = auto()


class ReaderProcess:
    """A running reader process.

    Starting it, `wait` and `close` block: not for the event loop.

    Args:
        setup: what it serves.

    Raises:
        OSError: no process can be started.
    """

    def __init__(self, setup: Setup) -> None:
        self.role = Role.SPARE
        self.waiting: dict[Relay, None] = {}
        """The requests that it has, in the order in which it was asked."""
        self.abandoned: deque[tuple[float, str | None]] = deque(maxlen=_MAX_ABANDONED)
        """When requests were given up before their responses began, and their files."""
        self.ready = threading.Event()
        """Set when it serves."""
        self.status = Status()
        """What it said last."""
        self.hung_seconds: float | None = None
        """After how long it was killed, because it hung; None = it was not."""
        self.end = ""
        """How it ended; empty = it has not, as far as is known."""
        self._heard = 0.0
        self._idle: list[Connection] = []
        parent = tempfile.gettempdir()
        if len(os.fsencode(parent)) > _MAX_FOLDER_BYTES:
            parent = "/tmp"  # noqa: S108  # short
        # Only this user can enter the directory, and so connect.
        self._folder = tempfile.mkdtemp(prefix="asgihive-", dir=parent)
        self._path = os.path.join(self._folder, "reader")
        self._control, theirs = socket.socketpair()
        listener = socket.socket(socket.AF_UNIX)
        try:
            # It listens before the process runs, so that nothing has to wait for it to be ready.
            listener.bind(self._path)
            listener.listen(4096)
            numbers = (listener.fileno(), theirs.fileno())
            root = os.fsdecode(setup.root)
            # Modules are found where this process finds them, but not in the served directory.
            folders = (each for each in sys.path if each and os.path.realpath(each) != root)
            self._process = subprocess.Popen(  # noqa: S603  # this interpreter
                # -P: modules in the directory that happens to be the current one are not ours.
                [sys.executable, "-P", "-m", MODULE, *map(str, numbers)],
                pass_fds=numbers,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
            )
        except BaseException:
            self._control.close()
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        finally:
            listener.close()
            theirs.close()
        with contextlib.suppress(OSError):  # it has ended already, as is seen later
            self._control.sendall(msgspec.json.encode(setup) + b"\n")
        threading.Thread(target=self._listen, name=f"reader {self.pid}", daemon=True).start()

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def is_running(self) -> bool:
        """Return whether it has not ended; a process that has is reaped by this."""
        return self._process.poll() is None

    def connect(self) -> Connection:
        """Return a connection for one request, new or used before.

        Raises:
            As `Connection`.
        """
        return self._idle.pop() if self._idle else Connection(self._path)

    def put_back(self, connection: Connection) -> None:
        """Keep a connection whose response is complete for the next request, or close it."""
        try:
            connection.protocol.start_next_cycle()
        except h11.LocalProtocolError:  # either side wants it closed
            connection.socket.close()
            return
        self._idle.append(connection)
        if len(self._idle) > _MAX_IDLE_CONNECTIONS:
            self._idle.pop(0).socket.close()

    def measure_calls(self) -> tuple[float, float]:
        """Return for how long no call could begin there, and how long one lasts, in seconds."""
        silent = time.monotonic() - self._heard if self.ready.is_set() else 0.0
        if silent > _SILENT_SECONDS:
            return silent, silent
        return self.status.stalled_seconds, self.status.longest_seconds

    def find_abandoned(self) -> list[str | None]:
        """Return the files of requests that were given up, but may still be in a thread."""
        _, longest = self.measure_calls()
        began = time.monotonic() - longest - 2 * STATUS_SECONDS
        return [file for since, file in self.abandoned if since > began]

    def kill(self, *, hung_seconds: float | None = None) -> None:
        """End it, without waiting for that; `hung_seconds` says that it hung for so long."""
        if hung_seconds is not None:
            self.hung_seconds = hung_seconds
        if self.is_running():
            self._process.kill()

    def wait(self, seconds: float) -> str | None:
        """Return how it ended; None if it has not within some seconds."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        if self.hung_seconds is not None:
            return f"it hung for more than {self.hung_seconds:g} seconds"
        if code >= 0:
            return f"it ended with exit code {code}"
        try:
            return f"it ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"it ended by signal {-code}"

    def close(self) -> str:
        """Kill it, release all that leads to it, and return how it ended; harmless if repeated."""
        self.kill()
        reason = self.wait(_END_SECONDS) or "it does not even end"
        with contextlib.suppress(OSError):  # the thread that listens ends by this
            self._control.shutdown(socket.SHUT_RDWR)
        self._control.close()
        while self._idle:
            self._idle.pop().socket.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        return reason

    def _listen(self) -> None:
        """Take over what the process says, until it ends; in a thread."""
        decoder = msgspec.json.Decoder(LogNote | Status)
        with contextlib.suppress(OSError, ValueError), self._control.makefile("rb") as lines:
            while line := lines.readline(_MAX_LINE_BYTES):
                with contextlib.suppress(msgspec.DecodeError):  # of another process than it was
                    said = decoder.decode(line)
                    if isinstance(said, LogNote):
                        logging.getLogger(said.logger).log(said.level, "%s", said.text)
                        continue
                    self.status, self._heard = said, time.monotonic()
                    self.ready.set()
