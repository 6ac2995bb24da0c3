"""How every command of `asgihive` reads its arguments, tells, complains, and is interrupted."""

import argparse
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from asgihive.errors import suggest_name

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

USAGE, FAILURE = 2, 1
"""Exit codes: the arguments cannot be used; or the command has begun, and has failed."""


class OutputFailed(Exception):
    """Standard output cannot be written."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error

    @property
    def has_reader_gone(self) -> bool:
        """Whether the reader of a pipe has seen enough (`| head`)."""
        return self.error.errno == errno.EPIPE

    def __str__(self) -> str:
        return f"standard output cannot be written: {os.strerror(self.error.errno or errno.EIO)}"


class Parser(argparse.ArgumentParser):
    """Complains in one line, which tells how to see the usage."""

    def __init__(self, **rest: Any) -> None:
        style = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
        super().__init__(**style | rest, add_help=False)  # type: ignore[arg-type]  # mixed kinds
        self.add_argument("-h", "--help", action="help", help="Show this help and exit.")

    def error(self, message: str) -> NoReturn:
        line = " ".join(message.split())
        self.exit(USAGE, f"{self.prog}: error: {line} (see {self.prog} --help)\n")

    def refuse_unknown(self, unknown: Sequence[str]) -> NoReturn:
        """End with one line on stderr: the unknown arguments, and names that resemble them.

        Raises:
            SystemExit: 2.
        """
        options = [each.partition("=")[0] for each in unknown if each.startswith("-")]
        if not options:
            self.error(f"too many arguments: {' '.join(unknown)}")
        known = self._option_string_actions  # argparse says them nowhere else, but as help
        near = [f"{each}{suggest_name(each, known)}" for each in options]
        self.error(f"there is no option {', '.join(near)}")

    def fail(self, message: str) -> NoReturn:
        """End with one line on stderr, where the mistake is not in the arguments."""
        self.complain(message)
        self.exit(FAILURE)

    def fail_with_lines(self, message: str) -> NoReturn:
        """End as `fail` does, with further lines below the first one."""
        first, _, rest = message.partition("\n")
        self.complain(first)
        if rest:
            self._print_message(f"{rest}\n", sys.stderr)
        self.exit(FAILURE)

    def complain(self, message: str) -> None:
        """Write one line to stderr, and go on."""
        self._print_message(f"{self.prog}: error: {' '.join(message.split())}\n", sys.stderr)

    def print_help(self, file: "SupportsWrite[str] | None" = None) -> None:
        """Write the help, by default to stdout.

        Raises:
            OutputFailed: that cannot be written, which argparse would not tell.
        """
        if file is None:
            tell(self.format_help().rstrip("\n"))
        else:
            super().print_help(file)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """End the process, with everything that was told on stdout.

        Raises:
            OutputFailed: that cannot be written.
        """
        if sys.stdout is not None:  # else the shell has closed it: `>&-`
            _write_output(sys.stdout.flush)
        super().exit(status, message)


def tell(text: str) -> None:
    """Say it on stdout, at once.

    Raises:
        OutputFailed: it cannot be written.
    """
    # The command's output, for people and pipes.
    _write_output(lambda: print(text, flush=True))  # noqa: T201


def tell_bytes(content: bytes) -> None:
    """Write bytes to stdout, at once.

    Raises:
        OutputFailed: it cannot be written.
    """

    def write() -> None:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()

    _write_output(write)


def _write_output(write: Callable[[], None]) -> None:
    try:
        write()
    except OSError as error:
        # Let the rest of the buffer go nowhere: Python would complain of it when it ends.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        raise OutputFailed(error) from None


@contextmanager
def interrupting_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind like Ctrl+C, so that temporary files are removed."""
    handlers: dict[signal.Signals, Callable[[int, Any], object]] = {
        signal.SIGTERM: signal.default_int_handler
    }
    if hasattr(signal, "SIGHUP"):  # not on Windows
        # uvicorn stops gracefully on SIGTERM only, and a closed terminal sends this.
        handlers[signal.SIGHUP] = lambda *_: signal.raise_signal(signal.SIGTERM)
    # A signal that is ignored (nohup) stays so.
    with replacing_handlers(signal.SIG_DFL, handlers):
        yield


@contextmanager
def replacing_handlers(
    expected: Any, handlers: Mapping[signal.Signals, Callable[[int, Any], object]]
) -> Iterator[None]:
    """Handle signals in another way for a while, where `expected` handles them now."""
    replaced = [number for number in handlers if signal.getsignal(number) is expected]
    for number in replaced:
        signal.signal(number, handlers[number])
    try:
        yield
    finally:
        for number in replaced:
            signal.signal(number, expected)
