"""One line a request: what a client asked for, what was sent, and what took how long.

The token is in no line, of this log or of a server's own.
"""

import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from starlette.types import Scope

logger = logging.getLogger("asgihive.access")

# Printable ASCII but blank, quote and backslash, which would break a line or its quotes.
_PLAIN = re.compile(rb"[!#-\[\]-~]*")
_SAFE = "".join(chr(each) for each in range(0x21, 0x7F) if chr(each) not in '"\\')

_PARAMETER = b"token"
_FIELD = re.compile(r"(^|[?&\s\"'])([^?&=\s\"']+)=[^&\s\"]*")

SERVER_LOGGERS = ("uvicorn.access", "uvicorn.asgi", "hypercorn.access", "granian.access")
"""The logs in which servers write URLs."""


@dataclass(frozen=True, slots=True)
class AccessEntry:
    """One answered request; its text is a line of the access log.

    client: address, `-` where the server does not say.
    path, query: as they were sent, percent-encoded; the value of `token` is left out, and so is
        the token itself, wherever it stands.
    sent_bytes: of the body.
    seconds: until the last byte.
    is_complete: whether the whole answer was handed to the server.
    timings: seconds by stage.
    route: the template of the route that answered, those of mounts included; empty if none did.
    """

    client: str
    method: str
    path: str
    query: str
    http_version: str
    status: int
    sent_bytes: int
    seconds: float
    is_complete: bool
    timings: Mapping[str, float]
    route: str = ""

    def __str__(self) -> str:
        target = f"{self.path}?{self.query}" if self.query else self.path
        words = [
            self.client,
            f'"{self.method} {target} HTTP/{self.http_version}"',
            str(self.status),
            str(self.sent_bytes),
            f"{self.seconds * 1000:.1f}ms",
            *(f"{stage}={seconds * 1000:.1f}ms" for stage, seconds in self.timings.items()),
        ]
        return " ".join(words if self.is_complete else [*words, "incomplete"])

    def to_fields(self) -> dict[str, Any]:
        """Return the same as JSON has it, times in milliseconds."""
        return {
            "client": self.client,
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "route": self.route or None,
            "http_version": self.http_version,
            "status": self.status,
            "bytes": self.sent_bytes,
            "duration_ms": round(self.seconds * 1000, 3),
            "complete": self.is_complete,
            "timings_ms": {name: round(each * 1000, 3) for name, each in self.timings.items()},
        }


class JSONFormatter(logging.Formatter):
    """Log records as JSON objects, one a line; for `logging.config` and handlers of your own.

    Each has `time` (RFC 3339, UTC), `level`, `logger` and `process`; records of
    `asgihive.access` have the fields of `AccessEntry`, others `message` and, with a
    traceback, `exception`.
    """

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC)
        fields: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
        }
        entry = record.__dict__.get("access")
        if isinstance(entry, AccessEntry):
            return json.dumps(fields | entry.to_fields())
        fields["message"] = record.getMessage()
        fields |= record.__dict__.get("fields", {})
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def log(entry: AccessEntry) -> None:
    """Write one line, to whatever handlers `asgihive.access` has."""
    logger.info("%s", entry, extra={"access": entry})


def get_client(scope: Scope) -> str:
    """Return the address of the client, `-` where there is none, as at a Unix socket."""
    client = scope.get("client")
    return make_printable(str(client[0]).encode()) if client else "-"


def get_path(scope: Scope) -> str:
    """Return the whole path, percent-encoded: as it was sent, where the server says so."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"], errors="surrogatepass").encode()
    return make_printable(raw.partition(b"?")[0])


def get_query(scope: Scope) -> str:
    """Return the query as it was sent, but `token=***` for any token, however it is spelt."""
    return hide_token_fields(make_printable(scope.get("query_string", b"")))


def make_printable(raw: bytes) -> str:
    """Return printable ASCII without blanks and quotes: nothing that a client sends ends a line."""
    return raw.decode() if _PLAIN.fullmatch(raw) else quote(raw, safe=_SAFE)


def is_token_field(field: bytes) -> bool:
    """Return whether a field of a query is the token, however its name is spelt."""
    return unquote_to_bytes(field.partition(b"=")[0]) == _PARAMETER


def hide_token_fields(text: str) -> str:
    """Return a text with `***` in the place of the value of each field that is the token."""

    def hide(field: re.Match[str]) -> str:
        before, name = field.groups()
        return f"{before}{name}=***" if is_token_field(name.encode()) else field[0]

    return _FIELD.sub(hide, text)


def make_token_hider(token: str | None) -> Callable[[str], str]:
    """Return what puts `***` in the place of a token in the path or the query of a URL.

    It is found by its characters, since a client that misspells the parameter, or puts the token
    into the path, has sent it all the same: percent-encoded (RFC 3986, section 2.1) or not, byte
    by byte, once or several times.
    """
    if token is None:
        return str
    text = "".join(f"(?:{re.escape(each)}|%(?:25)*(?i:{ord(each):02x}))" for each in token)
    return partial(re.compile(text).sub, "***")


def hide_tokens_in_server_logs() -> None:
    """Let the access logs of servers show `token=***`, in this process."""
    for name in SERVER_LOGGERS:
        log = logging.getLogger(name)
        if not any(isinstance(each, TokenFilter) for each in log.filters):
            log.addFilter(TokenFilter())


class TokenFilter(logging.Filter):
    """Takes tokens out of the URLs in log records."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record, and let it pass."""
        arguments = record.args or ()
        if isinstance(arguments, tuple) and all(isinstance(each, str | int) for each in arguments):
            # Formatters of access logs take these apart.
            if isinstance(record.msg, str):
                record.msg = hide_token_fields(record.msg)
            record.args = tuple(
                hide_token_fields(each) if isinstance(each, str) else each for each in arguments
            )
        else:
            record.msg, record.args = hide_token_fields(record.getMessage()), ()
        return True
