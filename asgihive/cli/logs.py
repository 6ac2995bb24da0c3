"""Logs of a server: its life and errors on stderr, requests on stdout."""

import io
import logging
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from asgihive.cli.formatting import LONGEST_LINE, LONGEST_NAME, human_size, printable
from asgihive.cli.terminal import Painter, clip_line, is_terminal
from asgihive.service.access_log import AccessEntry, JSONFormatter

_logger = logging.getLogger("asgihive.cli")

_HANDLER = "asgihive.cli.logs.LineHandler"
_JSON = "asgihive.service.access_log.JSONFormatter"
_SHORT = "asgihive.cli.logs.TerminalFormatter"


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes a line for each record at once, and goes on where that cannot be done.

    A full disk, or a reader that has gone, is told once, in the log on stderr; lines are dropped
    until they can be written again. No request fails because its line cannot be written.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__(stream and _without_buffer(stream))
        self._has_failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # of `logging`
        """Drop a line that cannot be written; complain of any other error, as `logging` does."""
        error = sys.exception()
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._has_failed:
            self._has_failed = True
            _logger.warning("Lines of the log are lost, as they cannot be written: %s", error)


class TerminalFormatter(logging.Formatter):
    """Writes a request as a short line that fits the terminal, with a colour for its status.

    What it is about stands last, so that it is what is clipped. The parts of an `AccessEntry` are
    printable ASCII, and no token is in them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._painter = Painter(sys.stdout)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record of `asgihive.access`."""
        entry = record.__dict__.get("access")
        if not isinstance(entry, AccessEntry):
            return printable(record.getMessage(), LONGEST_LINE)
        target = f"{entry.path}?{entry.query}" if entry.query else entry.path
        line = [
            (time.strftime("%H:%M:%S", time.localtime(record.created)), "dim"),
            (f" {entry.status}", _choose_style(entry)),
            (f" {entry.seconds * 1000:7.1f} ms {human_size(entry.sent_bytes):>9} ", "dim"),
            (f"{printable(entry.client, LONGEST_NAME)} ", "dim"),
            (f"{printable(entry.method, LONGEST_NAME)} {printable(target, LONGEST_LINE)}", ""),
        ]
        if not entry.is_complete:
            line.insert(-1, ("incomplete ", "yellow"))
        return self._painter.paint(clip_line(line, shutil.get_terminal_size().columns))


def _choose_style(entry: AccessEntry) -> str:
    """Return the colour of a status: what is the server's fault stands out most."""
    return {2: "green", 3: "cyan", 4: "yellow", 5: "bold red"}.get(entry.status // 100, "")


def make_log_config(level: str, access_log: str) -> dict[str, Any]:
    """Return the argument of `logging.config.dictConfig` in every worker process.

    Args:
        level: the least one on stderr.
        access_log: `text` or `json` for a line a request, in the latter case with all others
            in JSON too; `off` for none; `auto` for short ones where stdout is a terminal.
    """
    is_json = access_log == "json"
    is_short = access_log == "auto" and is_terminal(sys.stdout)
    is_off = access_log == "off" or (access_log == "auto" and not is_short)
    streams = {"errors": ("stderr", "text"), "access": ("stdout", "short" if is_short else "line")}
    levels = {
        "uvicorn": ("errors", level.upper()),
        "asgihive": ("errors", level.upper()),
        "asgihive.access": ("access", logging.CRITICAL + 1 if is_off else "INFO"),
    }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "text": {"format": "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"},
            "line": {"format": "%(asctime)s %(message)s"},
            "json": {"()": _JSON},
            # It loads what makes colours.
            **({"short": {"()": _SHORT}} if is_short else {}),
        },
        "handlers": {
            name: {
                "class": _HANDLER,
                "stream": f"ext://sys.{stream}",
                "formatter": "json" if is_json else formatter,
            }
            for name, (stream, formatter) in streams.items()
        },
        "root": {"handlers": ["errors"], "level": "WARNING"},
        "loggers": {
            name: {"handlers": [handler], "level": least, "propagate": False}
            for name, (handler, least) in levels.items()
        },
    }


def format_json_line(message: str, fields: Mapping[str, Any], level: int = logging.INFO) -> str:
    """Return a line as those of the log in JSON are, with further fields."""
    record = logging.makeLogRecord(
        {
            "name": _logger.name,
            "levelno": level,
            "levelname": logging.getLevelName(level),
            "msg": message,
            "fields": dict(fields),
        }
    )
    return JSONFormatter().format(record)


def log_warnings_and_crashes() -> None:
    """Log what Python itself would write to stderr, which is not JSON."""
    logging.captureWarnings(capture=True)

    def log_crash(error: BaseException | None) -> None:
        _logger.critical("This was not caught", exc_info=error)

    sys.excepthook = lambda _, error, __: log_crash(error)
    threading.excepthook = lambda crash: log_crash(crash.exc_value)


@contextmanager
def hold_log() -> Iterator[list[logging.LogRecord]]:
    """Keep what the package logs until it is known how and where it is to be logged.

    It is logged as by default where the context ends with an exception.
    """
    package = logging.getLogger("asgihive")
    records: list[logging.LogRecord] = []
    holder = logging.Handler()
    holder.emit = records.append  # type: ignore[method-assign, assignment]  # that is all it does
    package.addHandler(holder)
    propagate, package.propagate = package.propagate, False
    try:
        yield records
    except BaseException:
        package.propagate = propagate
        package.removeHandler(holder)
        log_held(records)
        raise
    package.propagate = propagate
    package.removeHandler(holder)


def log_held(records: Sequence[logging.LogRecord]) -> None:
    """Log what `hold_log` has kept."""
    for each in records:
        logger = logging.getLogger(each.name)
        if logger.isEnabledFor(each.levelno):
            logger.handle(each)


def _without_buffer(stream: TextIO) -> TextIO:
    """Return the same place without a buffer, which would keep a line that cannot be written."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # it is no file, as in tests
        return stream
    raw = io.FileIO(descriptor, "w", closefd=False)
    # A buffered writer wants a buffer; `TextIOWrapper` itself is content with a raw file.
    return io.TextIOWrapper(raw, "utf-8", "backslashreplace", write_through=True)
