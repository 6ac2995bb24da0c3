"""Answers in JSON to what is no HTTP, which uvicorn refuses before an application is asked."""

import asyncio
import inspect
import logging
import re
import sys
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import orjson
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from asgihive.service.gate import NO_SNIFFING

_logger = logging.getLogger(__name__)

# What uvicorn calls where its parser gives up. Neither uvicorn's documentation nor its changelog
# speaks of it, so `protocol_class` does without where it is not as it was in 0.50 to 0.54.
_HOOK = "send_400_response"

# The beginning of what h11 and httptools say: behind a colon h11 repeats what the client sent.
_REASON = re.compile(r"[A-Za-z][A-Za-z0-9 -]*")
# What httptools says where uvicorn cannot take the URL apart.
_OF_UVICORN = "user callback error"
_ABOUT_THE_URL = re.compile("url|request line", re.IGNORECASE)
_ADVICE = (
    "; in a URL only printable ASCII is accepted, without blanks, and all else is "
    "percent-encoded: %C3%A9 stands for \N{LATIN SMALL LETTER E WITH ACUTE}"
)


def protocol_class(base: type[asyncio.Protocol] = AutoHTTPProtocol) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with refusals in JSON, or as it is where that cannot be had.

    Args:
        base: `H11Protocol`, `HttpToolsProtocol`, or the one that uvicorn chooses.
    """
    method = getattr(base, _HOOK, None)
    if method is None or list(inspect.signature(method).parameters) != ["self", "msg"]:
        _logger.info("This uvicorn answers in plain text what is no HTTP")
        return base

    def send_400_response(self: Any, msg: str) -> None:
        refuse(self, msg, sys.exc_info()[1])

    return type(f"JSON{base.__name__}", (base,), {_HOOK: send_400_response})


JSONProtocol = protocol_class()
"""The protocol that uvicorn chooses, with refusals in JSON; worker processes import it by name."""


def refuse(protocol: Any, message: str, error: BaseException | None) -> None:
    """Answer what is no HTTP, and close the connection.

    Nothing is answered where another response has begun: it would become a part of that one.

    Args:
        protocol: uvicorn's, of one connection.
        message: uvicorn's own, which says no reason.
        error: of the parser.
    """
    cycle = getattr(protocol, "cycle", None)
    has_begun = getattr(cycle, "response_started", False)
    if not has_begun or getattr(cycle, "response_complete", False):
        defaults = getattr(getattr(protocol, "server_state", None), "default_headers", ())
        protocol.transport.write(_response(message, error, defaults))
    protocol.transport.close()


def _response(
    message: str, error: BaseException | None, defaults: Iterable[tuple[bytes, bytes]]
) -> bytes:
    # h11 has a status of its own for headers that are too large: 431.
    status = HTTPStatus(getattr(error, "error_status_hint", HTTPStatus.BAD_REQUEST))
    body = orjson.dumps({"message": _message(message, error)})
    fields = [
        *defaults,
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        NO_SNIFFING,
        (b"connection", b"close"),
    ]
    lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode()]
    lines += [name + b": " + value for name, value in fields]
    return b"\r\n".join([*lines, b"", body])


def _message(message: str, error: BaseException | None) -> str:
    reason = _REASON.match(str(error or ""))
    if reason is None:
        return message
    text = reason[0].strip().lower()
    if text == _OF_UVICORN:
        text = "the url cannot be taken apart, or is longer than 65,535 bytes"
    told = f"{message.rstrip('.')}: {text}"
    return told + _ADVICE if _ABOUT_THE_URL.search(text) else told
