"""What the front and a reader process say to each other beside HTTP."""

from typing import Any

import msgspec

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
