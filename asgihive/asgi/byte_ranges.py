"""Range requests (RFC 9110 §14): one range of bytes; several are answered by the whole body."""

import re
import sys
from dataclasses import dataclass

from asgihive.asgi.errors import HTTPException

_UNIT = re.compile(r"bytes=", re.IGNORECASE)
_SPEC = re.compile(r"([0-9]*)-([0-9]*)")


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes of a body from `start` to before `stop`; at least one."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """How many bytes there are."""
        return self.stop - self.start

    def format_content_range(self, size: int) -> str:
        """Return the value of `Content-Range` (§14.4), out of a body of `size` bytes."""
        return f"bytes {self.start}-{self.stop - 1}/{size}"


def parse_range(value: str | None, size: int) -> ByteRange | None:
    """Return the one range of a body that `Range` asks for; None = the whole body.

    Other units, malformed ranges and several ranges are ignored, as §14.2 allows or demands.

    Args:
        value: the header `Range`, or None without one.
        size: of the body, in bytes.

    Raises:
        HTTPException: 416 with `Content-Range: bytes */size` (§15.5.17), no byte of the body
            lies in the range.
    """
    unit = None if value is None else _UNIT.match(value)
    if value is None or unit is None:
        return None
    # Empty members of a list count for nothing (§5.6.1.2).
    members = [each.strip(" \t") for each in value[unit.end() :].split(",")]
    specs = [_SPEC.fullmatch(each) for each in members if each]
    if len(specs) != 1 or specs[0] is None:
        return None
    first, last = specs[0].groups()
    if first:
        start, stop = _parse_number(first), _parse_number(last) + 1 if last else sys.maxsize
        if stop <= start:
            return None
    elif last:
        start, stop = max(0, size - _parse_number(last)), sys.maxsize
        if not size and _parse_number(last):
            # It is satisfiable, but no Content-Range can say that of an empty body.
            return None
    else:
        return None
    if start >= size:
        positions = f"bytes 0 to {size - 1} are there" if size else "it is empty"
        message = f"Range is {value!r}: no byte of the answer lies in it; {positions}"
        headers = {"content-range": f"bytes */{size}", "accept-ranges": "bytes"}
        raise HTTPException(416, message, headers)
    return ByteRange(start, min(stop, size))


def _parse_number(digits: str) -> int:
    # A longer number is larger than any body, and Python refuses to convert thousands of digits.
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) < 19 else sys.maxsize - 1
