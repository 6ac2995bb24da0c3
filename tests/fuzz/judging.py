"""Whether an answer about a damaged file is one that the contract has."""

from typing import Any

import orjson

from asgihive.encoders.protocol import list_encoders
from asgihive.errors import AsgihiveError
from asgihive.service.files import MEDIA_TYPE
from tests.asgi.exchange import Exchange

# Nothing changes while it is asked about, and nothing else is asked meanwhile: no 503.
_ERRORS = {403, 404, 413, 422, 500, 501, 504}

# Of a chunk of Zarr: 404 would be fill values to its client.
_ERRORS_OF_CHUNKS = _ERRORS - {404} | {410}
_CRASHED = "crashed the reader"  # in a worker process
_JSON = "application/json"

# Looked for on the disk once, here.
_MEDIA_TYPES = {name: each.media_type for name, each in list_encoders().items()} | {
    "file": MEDIA_TYPE,
    "chunk": "application/octet-stream",
}


def complaint(
    exchange: Exchange, format_: str, error: Exception | None, members: int = 0
) -> str | None:
    """What is wrong with an answer; None when nothing is.

    Args:
        format_: of the body; `file` = an HDF5 file as it is, `chunk` = a chunk of Zarr, `batch` =
            a list of answers.
        error: what the application let escape, so that the server aborts the connection.
        members: how many requests were in the batch.
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
    if exchange.status != 200:
        return _refused(exchange, _ERRORS_OF_CHUNKS if format_ == "chunk" else _ERRORS)
    if format_ == "batch":
        return _good(exchange, "json") or _batch(exchange, members)
    return _good(exchange, format_)


def _good(exchange: Exchange, format_: str) -> str | None:
    expected = _MEDIA_TYPES[format_]
    given = exchange.headers["content-type"].partition(";")[0]
    if given != expected:
        return f"the Content-Type is {given}, not {expected}"
    return _not_json(exchange) if given == _JSON else None


def _batch(exchange: Exchange, members: int) -> str | None:
    found = exchange.json
    if not isinstance(found, list) or len(found) != members:
        return f"a batch of {members} is answered by {exchange.body[:300]!r}"
    for number, each in enumerate(found):
        if not isinstance(each, dict) or each.keys() - {"missing_sources"} != {"status", "body"}:
            return f"member {number} of the batch is {each!r}"
        if "missing_sources" in each and each["status"] != 200:
            return f"member {number} of the batch misses sources and is an error: {each!r}"
        problem = None if each["status"] == 200 else _refusal(each["status"], each["body"])
        if problem is not None:
            return f"member {number} of the batch: {problem}"
    return None


def _refused(exchange: Exchange, statuses: set[int]) -> str | None:
    if exchange.headers["content-type"] != _JSON:
        return f"an error is {exchange.headers['content-type']}: {exchange.body[:300]!r}"
    return _not_json(exchange) or _refusal(exchange.status, exchange.json, statuses)


def _refusal(status: int, said: Any, statuses: set[int] = _ERRORS) -> str | None:
    if status not in statuses:
        return f"the status is {status}: {said!r}"
    if not isinstance(said, dict) or said.keys() - {"errors"} != {"message"}:
        return f"an error without its message: {said!r}"
    # Those of them that say what is damaged, and not that the code does not expect it.
    message = str(said["message"])
    is_known = message.startswith("Damaged data") or _CRASHED in message
    return f"500: {message}" if status == 500 and not is_known else None


def _not_json(exchange: Exchange) -> str | None:
    try:
        orjson.loads(exchange.body)
    except orjson.JSONDecodeError as error:
        return f"not JSON ({error}): {exchange.body[:300]!r}"
    return None
