"""Worker processes: how one is started, and how it is ended."""

import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass

from asgihive.service.isolation.board import Board
from asgihive.service.isolation.channel import Channel
from asgihive.service.isolation.frames import Kind, Setup, encoded

MODULE = "asgihive.service.isolation.worker"
"""What a worker runs."""

# A process that a system call holds up cannot end before that is over.
_END_SECONDS = 5.0

# How a process ends by what it does itself, and not by what others do to it.
_FAULTS = frozenset(
    {
        signal.SIGSEGV,
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGTRAP,
        signal.SIGSYS,
    }
)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended; `is_fault`: by itself, as by an access violation."""

    text: str
    is_fault: bool


class WorkerProcess:
    """A running worker, and the parent's ends of what it shares with it.

    Starting and ending it block: not for the event loop.

    Args:
        setup: what it is to be.

    Raises:
        OSError: no process can be started.
    """

    def __init__(self, setup: Setup) -> None:
        ours, theirs = socket.socketpair()
        try:
            self.board, shared = Board.create()
            try:
                numbers = (theirs.fileno(), shared)
                self._process = subprocess.Popen(  # noqa: S603  # this interpreter
                    # -P: modules in the directory that happens to be the current one are not ours.
                    [sys.executable, "-P", "-m", MODULE, *map(str, numbers)],
                    pass_fds=numbers,
                    stdin=subprocess.DEVNULL,
                    env={**os.environ, "PYTHONPATH": _module_path(os.fsdecode(setup.root))},
                )
            finally:
                os.close(shared)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self.channel = Channel(ours)
        self.channel.put(Kind.SETUP, 0, encoded(setup))

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended by itself."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it, without waiting for that."""
        if self._process.poll() is None:
            self._process.kill()

    def end(self) -> Ending:
        """Wait for a process that closed its end, and kill it where it does not end.

        What is shared with it is there until `close`.
        """
        try:
            code = self._process.wait(0.5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            try:
                code = self._process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                return Ending("it does not even end", is_fault=False)
        if code >= 0:
            return Ending(f"it ended with exit code {code}", is_fault=False)
        return Ending(f"it ended by {_name(-code)}", is_fault=-code in _FAULTS)

    def close(self) -> None:
        """Kill it, and let go of what is shared with it; harmless when repeated."""
        self.kill()
        self.end()
        self.channel.close()
        self.board.close()


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _module_path(root: str) -> str:
    """Where this process finds modules, but not where strangers may put some."""
    return os.pathsep.join(each for each in sys.path if each and os.path.realpath(each) != root)
