"""Logs of a server: its life and errors on stderr, requests on stdout."""

import io
import logging
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from asgihive.service.access_log import JSONFormatter

_logger = logging.getLogger("asgihive.cli")

_HANDLER = "asgihive.cli.logs.LineHandler"
_JSON = "asgihive.service.access_log.JSONFormatter"


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


def make_log_config(level: str, access_log: str) -> dict[str, Any]:
    """Return the argument of `logging.config.dictConfig` in every worker process.

    Args:
        level: the least one on stderr.
        access_log: `text` or `json` for a line a request, in the latter case with all others
            in JSON too; `off` for none.
    """
    is_json = access_log == "json"
    streams = {"errors": ("stderr", "text"), "access": ("stdout", "line")}
    levels = {
        "uvicorn": ("errors", level.upper()),
        "asgihive": ("errors", level.upper()),
        "asgihive.access": ("access", logging.CRITICAL + 1 if access_log == "off" else "INFO"),
    }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "text": {"format": "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"},
            "line": {"format": "%(asctime)s %(message)s"},
            "json": {"()": _JSON},
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
