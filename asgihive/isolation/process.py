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
from typing import TYPE_CHECKING, Any

import anyio
import h11
import msgspec

from asgihive.errors import Overloaded
from asgihive.service.figures import Figures

if TYPE_CHECKING:
    from asgihive.isolation.front import Relay

MODULE = "asgihive.isolation.reader"
"""What a reader process runs."""

# What the front and a reader process say to each other beside HTTP.

PROBE = "/asgihive-reader"
"""The path at which a reader process says what its threads do: no route of the service."""

CLIENT = b"asgihive-client"
"""The request header with the address of the client, which the reader process takes turns by."""
MEASURED = b"asgihive-measured"
"""The request header that asks for `TIMINGS`."""
FIGURES = b"asgihive-figures"
"""The response header with the members of `Figures`, in their order."""
TIMINGS = b"asgihive-timings"
"""The response header with the seconds that each stage took before the response began."""
PREFIX = b"asgihive-"
"""No client's header that begins so is handed on."""


class Setup(msgspec.Struct):
    """What a reader process serves: the first line of the control socket, as JSON."""

    root: bytes
    """The served directory, without symbolic links."""
    settings: dict[str, Any]
    """Of `H5Settings`, by name."""
    log_level: int
    """Of what it logs."""
    patience_seconds: float
    """After so long a process whose event loop is stuck ends itself."""


class LogNote(msgspec.Struct):
    """A logged record, with its traceback in the text: the lines in the other direction."""

    logger: str
    """Empty: no record; the process has started and serves."""
    level: int
    text: str


class ProbeAnswer(msgspec.Struct):
    """What the threads of a reader process do."""

    stalled_seconds: float = 0.0
    """For so long all threads of a lane have been in one call each, so that none could begin."""
    longest_seconds: float = 0.0
    """For so long the longest call has run."""


# A process that a system call holds up cannot end before that is over.
_END_SECONDS = 5.0

_RECEIVE_BYTES = 1 << 18
# Where no call is longer, nothing of what was given up is left in a thread.
_SHORT_CALL_SECONDS = 1.0
_MAX_IDLE_CONNECTIONS = 64
_MAX_ABANDONED = 16
_MAX_LOG_BYTES = 1 << 18
# `sun_path` holds 104 bytes on macOS and 108 on Linux.
_MAX_FOLDER_BYTES = 90

_PROBE_HEAD = (
    h11.Request(method="GET", target=PROBE, headers=[("host", "reader")]),
    h11.EndOfMessage(),
)


class ReaderEnded(Exception):  # no error: the request is made again, or fails otherwise
    """The reader process is gone, or has closed the connection."""


class Connection:
    """A connection to a reader process. It belongs to no event loop between two requests."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self._protocol = h11.Connection(h11.CLIENT)

    async def send(self, *events: h11.Request | h11.EndOfMessage) -> None:
        """Send a request, which has no body.

        Raises:
            h11.LocalProtocolError: it is not well-formed.
            ReaderEnded
        """
        unsent = memoryview(b"".join(self._protocol.send(each) or b"" for each in events))
        while unsent:
            try:
                unsent = unsent[self.socket.send(unsent) :]
            except BlockingIOError:
                await anyio.wait_writable(self.socket)
            except OSError as error:
                raise ReaderEnded from error

    async def receive(self) -> None:
        """Wait for bytes of the response; a wait that is cancelled has taken none.

        Raises:
            ReaderEnded: no more will come.
        """
        while True:
            # First, so that a response of gigabytes gives other requests their turns.
            await anyio.wait_readable(self.socket)
            if self.receive_now():
                return

    def receive_now(self) -> bool:
        """Take the bytes that are there, and return whether there are some.

        Raises:
            ReaderEnded: no more will come.
        """
        try:
            received = self.socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:
            raise ReaderEnded from error
        if not received:
            raise ReaderEnded
        self._protocol.receive_data(received)
        return True

    def parse_event(self) -> Any:
        """Return the next event of the response; `h11.NEED_DATA` where bytes are missing.

        Raises:
            ReaderEnded: it is no HTTP.
        """
        try:
            return self._protocol.next_event()
        except h11.RemoteProtocolError as error:
            raise ReaderEnded from error

    def is_reusable(self) -> bool:
        """Return whether another request can be sent after the one that is answered."""
        if self._protocol.our_state is not h11.DONE or self._protocol.their_state is not h11.DONE:
            return False
        self._protocol.start_next_cycle()
        return True


class ReaderProcess:
    """A running reader process.

    Starting it, `wait` and `close` block: not for the event loop.

    Args:
        setup: what it serves.

    Raises:
        OSError: no process can be started.
    """

    def __init__(self, setup: Setup) -> None:
        self.waiting: dict[Relay, None] = {}
        """The requests that it has, in the order in which it was asked."""
        self.abandoned: deque[str | None] = deque(maxlen=_MAX_ABANDONED)
        """The files of requests that were given up before their responses began."""
        self.figures = Figures()
        """What it said last of its files, lanes and caches."""
        self.ready = threading.Event()
        """Set when it serves."""
        self.hung_seconds: float | None = None
        """After how long it was killed, because it hung; None = it was not."""
        self._idle: deque[Connection] = deque()
        self._probe: Connection | None = None
        self._probed = 0.0
        self._calls = ProbeAnswer()
        # Only this user can enter the directory, and so connect.
        folder = tempfile.mkdtemp(prefix="asgihive-")
        if len(os.fsencode(folder)) > _MAX_FOLDER_BYTES:
            os.rmdir(folder)
            folder = tempfile.mkdtemp(prefix="asgihive-", dir="/tmp")  # a short path
        self._folder = folder
        self._path = os.path.join(folder, "reader")
        self._control, theirs = socket.socketpair()
        listener = socket.socket(socket.AF_UNIX)
        try:
            # It listens before the process runs, so that nothing has to wait for it to be ready.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _RECEIVE_BYTES)
            listener.bind(self._path)
            listener.listen(4096)
            numbers = (listener.fileno(), theirs.fileno())
            self._process = subprocess.Popen(  # noqa: S603  # this interpreter
                # -P: modules in the directory that happens to be the current one are not ours.
                [sys.executable, "-P", "-m", MODULE, *map(str, numbers)],
                pass_fds=numbers,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": _list_module_folders(os.fsdecode(setup.root))},
            )
        except BaseException:
            self._control.close()
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            listener.close()
            theirs.close()
        with contextlib.suppress(OSError):  # it has ended already, as is seen later
            self._control.sendall(msgspec.json.encode(setup) + b"\n")
        name = f"logs of reader {self.pid}"
        threading.Thread(
            target=_log, args=(self._control, self.ready), name=name, daemon=True
        ).start()

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
            ReaderEnded
            Overloaded: it accepts no further one now, or there is no descriptor left.
        """
        with contextlib.suppress(IndexError):
            return self._idle.pop()
        try:
            connected = socket.socket(socket.AF_UNIX)
        except OSError as error:
            raise Overloaded(f"no connection to a reader process: {error.strerror}") from error
        connected.setblocking(False)
        try:
            connected.connect(self._path)
        except BlockingIOError:
            connected.close()
            raise Overloaded("too many requests wait for the reader process") from None
        except OSError as error:
            connected.close()
            raise ReaderEnded from error
        return Connection(connected)

    def put_back(self, connection: Connection) -> None:
        """Keep a connection whose response is complete for the next request, or close it."""
        if len(self._idle) < _MAX_IDLE_CONNECTIONS and connection.is_reusable():
            self._idle.append(connection)
        else:
            connection.socket.close()

    def note_figures(self, raw: bytes) -> None:
        """Take over what a response says of its files, lanes and caches."""
        with contextlib.suppress(ValueError, TypeError):  # of another process than it was
            self.figures = Figures(*map(int, raw.split(b",")))

    def has_ended_within(self, seconds: float) -> bool:
        """Return whether it ends within some seconds, or was killed as it hung."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self.hung_seconds is not None or not self.is_running()

    async def probe(self) -> None:
        """Ask what its threads do, unless that was asked and is not answered; see `look`.

        Raises:
            ReaderEnded
        """
        if self._probe is not None or not self.ready.is_set():
            return
        try:
            self._probe = self.connect()
        except Overloaded:  # it is asked the next time
            return
        self._probed = time.monotonic()
        await self._probe.send(*_PROBE_HEAD)

    def look(self) -> tuple[float, float]:
        """Return for how long nothing could begin there, and how long one call lasts, in seconds.

        It is what the last probe was told, or how long that has waited.

        Raises:
            ReaderEnded
        """
        if self._probe is None:
            return self._calls.stalled_seconds, self._calls.longest_seconds
        connection, is_answered = self._probe, False
        while connection.receive_now():
            event = connection.parse_event()
            while event is not h11.NEED_DATA and not is_answered:
                if isinstance(event, h11.Response):
                    self.note_figures(dict(event.headers).get(FIGURES, b""))
                elif isinstance(event, h11.Data):
                    with contextlib.suppress(msgspec.DecodeError):
                        self._calls = msgspec.json.decode(event.data, type=ProbeAnswer)
                is_answered = isinstance(event, h11.EndOfMessage)
                event = h11.NEED_DATA if is_answered else connection.parse_event()
            if is_answered:
                self._probe = None
                self.put_back(connection)
                if self._calls.longest_seconds < _SHORT_CALL_SECONDS:
                    self.abandoned.clear()
                return self._calls.stalled_seconds, self._calls.longest_seconds
        unanswered = time.monotonic() - self._probed
        return unanswered, unanswered

    def kill(self) -> None:
        """End it, without waiting for that."""
        if self._process.poll() is None:
            self._process.kill()

    def wait(self) -> str:
        """Wait for a process that closed its end, kill it where it does not end, say how it did."""
        try:
            code = self._process.wait(0.5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            try:
                code = self._process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                return "it does not even end"
        if self.hung_seconds is not None:
            return f"it hung for more than {self.hung_seconds:g} seconds"
        if code >= 0:
            return f"it ended with exit code {code}"
        try:
            return f"it ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"it ended by signal {-code}"

    def close(self) -> None:
        """Kill it, and release all that leads to it; harmless when repeated."""
        self.kill()
        self.wait()
        with contextlib.suppress(OSError):  # the thread that reads it ends by this
            self._control.shutdown(socket.SHUT_RDWR)
        self._control.close()
        if self._probe is not None:
            self._probe.socket.close()
        while self._idle:
            self._idle.pop().socket.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _log(control: socket.socket, ready: threading.Event) -> None:
    """Log what the reader process logs, until it ends."""
    decoder = msgspec.json.Decoder(LogNote)
    with contextlib.suppress(OSError, ValueError), control.makefile("rb") as lines:
        while line := lines.readline(_MAX_LOG_BYTES):
            with contextlib.suppress(msgspec.DecodeError):
                note = decoder.decode(line)
                if not note.logger:
                    ready.set()
                    continue
                logging.getLogger(note.logger).log(note.level, "%s", note.text)


def _list_module_folders(root: str) -> str:
    """Return where this process finds modules, but not the served directory."""
    return os.pathsep.join(each for each in sys.path if each and os.path.realpath(each) != root)
