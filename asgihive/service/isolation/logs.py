"""What a worker logs, logged by the parent, whose handlers and formats are set up."""

import logging

from asgihive.service.isolation.channel import MOST_JOINED_BYTES, Channel
from asgihive.service.isolation.frames import Kind, LogNote, encoded

# Encoded, a character takes up to four bytes.
_MOST_CHARACTERS = MOST_JOINED_BYTES // 5


class ChannelHandler(logging.Handler):
    """Sends records, with their tracebacks, to the parent; from any thread."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        """Let the channel send it with what it sends next."""
        text = self.format(record).encode("utf-8", "replace").decode()
        note = LogNote(record.name, record.levelno, text[:_MOST_CHARACTERS])
        self._channel.put(Kind.LOG, 0, encoded(note))


def log(note: LogNote) -> None:
    """Log what a worker logged."""
    logging.getLogger(note.name).log(note.level, "%s", note.text)


def lowest_level() -> int:
    """The level below which nothing of the service is logged here."""
    return logging.getLogger(__name__.partition(".")[0]).getEffectiveLevel()


def send_logs(channel: Channel, level: int) -> None:
    """Let everything that is logged in this process go to the parent."""
    root = logging.getLogger()
    root.handlers = [ChannelHandler(channel)]
    root.setLevel(level)
    # The parent writes the line of each request.
    logging.getLogger("asgihive.access").disabled = True
    logging.captureWarnings(capture=True)
    logging.raiseExceptions = False
