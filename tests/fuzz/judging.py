"""Whether an answer about a damaged file is one that the contract has."""

import orjson

from asgihive.encoders.registry import encoders
from asgihive.errors import AsgihiveError
from asgihive.service.files import MEDIA_TYPE
from tests.asgi.exchange import Exchange

# Nothing changes while it is asked about, and nothing else is asked meanwhile: no 503.
_ERRORS = {403, 404, 413, 422, 500, 501, 504}
_CRASHED = "crashed the reader"  # in a worker process
_JSON = "application/json"


def complaint(exchange: Exchange, format_: str, error: Exception | None) -> str | None:
    """What is wrong with an answer; None when nothing is.

    Args:
        format_: of the body; `file` = an HDF5 file as it is.
        error: what the application let escape, so that the server aborts the connection.
    """
    if error is not None:
        # What comes to light when the answer has begun can only be told by an end too early.
        is_aborted = bool(exchange.sent) and isinstance(error, AsgihiveError)
        return None if is_aborted else f"{type(error).__name__} escaped: {error}"
    if not exchange.complete:
        return f"the answer has no end: {exchange.types}"
    length = exchange.headers.get("content-length")
    if length is not None and int(length) != len(exchange.body):
        return f"Content-Length is {length}, and the body has {len(exchange.body)} bytes"
    if exchange.status == 200:
        return _good(exchange, format_)
    return _refused(exchange)


def _good(exchange: Exchange, format_: str) -> str | None:
    expected = MEDIA_TYPE if format_ == "file" else encoders()[format_].media_type
    given = exchange.headers["content-type"].partition(";")[0]
    if given != expected:
        return f"the Content-Type is {given}, not {expected}"
    return _not_json(exchange) if given == _JSON else None


def _refused(exchange: Exchange) -> str | None:
    if exchange.status not in _ERRORS:
        return f"the status is {exchange.status}: {exchange.body[:300]!r}"
    if exchange.headers["content-type"] != _JSON:
        return f"an error is {exchange.headers['content-type']}: {exchange.body[:300]!r}"
    if problem := _not_json(exchange):
        return problem
    if not isinstance(exchange.json, dict) or exchange.json.keys() != {"message"}:
        return f"an error without its message: {exchange.body[:300]!r}"
    # Those of them that say what is damaged, and not that nobody thought of it.
    is_known = exchange.message.startswith("Damaged data") or _CRASHED in exchange.message
    if exchange.status == 500 and not is_known:
        return f"500: {exchange.message}"
    return None


def _not_json(exchange: Exchange) -> str | None:
    try:
        orjson.loads(exchange.body)
    except orjson.JSONDecodeError as error:
        return f"not JSON ({error}): {exchange.body[:300]!r}"
    return None
