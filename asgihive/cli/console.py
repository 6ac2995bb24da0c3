"""How every command of `asgihive` reads its arguments, tells and complains."""

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from asgihive.errors import suggest_name

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

# What all parsers are made with.
STYLE: dict[str, Any] = {
    "formatter_class": argparse.RawDescriptionHelpFormatter,
    "allow_abbrev": False,
}

USAGE, FAILURE = 2, 1
"""Exit codes: what was asked for cannot be used; or it was begun, and cannot be done."""


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

    def error(self, message: str) -> NoReturn:
        line = " ".join(message.split())
        self.exit(USAGE, f"{self.prog}: error: {line} (see {self.prog} --help)\n")

    def refuse_unknown(self, unknown: Sequence[str]) -> NoReturn:
        """End with one line on stderr: what is unknown, and what may have been meant.

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
        """End with one line on stderr, where the arguments are not what is wrong."""
        self.complain(message)
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
        """End the process, with whatever was told on stdout.

        Raises:
            OutputFailed: that cannot be written.
        """
        flush_output()
        super().exit(status, message)


class TellVersion(argparse.Action):
    """The option `--version`: as argparse's own, which hides that stdout cannot be written.

    Args:
        version: the text to tell.
    """

    def __init__(self, *, version: str, **rest: Any) -> None:
        super().__init__(**rest, nargs=0, default=argparse.SUPPRESS)
        self._version = version

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Tell the version, and end the process."""
        tell(self._version)
        parser.exit()


def tell(text: str) -> None:
    """Say it on stdout, at once.

    Raises:
        OutputFailed: it cannot be written.
    """
    try:
        print(text, flush=True)  # noqa: T201  # the command's output, for people and pipes
    except OSError as error:
        _drop_output()
        raise OutputFailed(error) from None


def flush_output() -> None:
    """Write what argparse has left in the buffer of stdout.

    Raises:
        OutputFailed: it cannot be written.
    """
    if sys.stdout is None:  # closed by the shell: `>&-`
        return
    try:
        sys.stdout.flush()
    except OSError as error:
        _drop_output()
        raise OutputFailed(error) from None


def _drop_output() -> None:
    """Let the rest of the buffer go nowhere: Python would complain of it when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
