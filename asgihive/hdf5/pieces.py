"""A block of real numbers in pieces that stay in a core's cache while they are looked at."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

# As doubles 1 MiB, near enough to a core; smaller ones cost more in calls than they save.
PIECE = 1 << 17


@dataclass(frozen=True, slots=True)
class Piece:
    """At least one finite number: 1-D, in native byte order, not to be written to.

    values: integers, float32 or float64, in which booleans, float16 and wider floats fit best.
    minimum, maximum: of `values`, exact.
    """

    values: Array
    minimum: float
    maximum: float


def pieces(values: Array) -> Iterator[Piece]:
    """The finite values of an array of booleans, integers or real floats, at most PIECE at once.

    What is too large for a double counts as infinite.
    """
    flat = values.reshape(-1)
    are_booleans = flat.dtype.kind == "b"
    if are_booleans:
        flat = flat.view(np.uint8)
    dtype = flat.dtype.newbyteorder("=")
    if dtype.kind == "f":
        # NumPy compares halves slowly; and only doubles are as wide everywhere.
        dtype = np.dtype(np.float32 if dtype.itemsize <= 4 else np.float64)
    for first in range(0, flat.size, PIECE):
        part = flat[first : first + PIECE]
        if are_booleans:
            # A file may store true as any byte but 0.
            part = np.not_equal(part, 0).view(np.uint8)
        if part.dtype != dtype:
            # What overflows becomes infinite, a signalling NaN a quiet one.
            with np.errstate(over="ignore", invalid="ignore"):
                part = part.astype(dtype)
        piece = _finite(part)
        if piece is not None:
            yield piece


def _finite(part: Array) -> Piece | None:
    """The finite values of `part`, which is copied only where some are not."""
    if part.dtype.kind != "f":
        return Piece(part, int(part.min()), int(part.max()))
    # A NaN makes both of them NaN; a signalling one would warn.
    with np.errstate(invalid="ignore"):
        least, most = part.min(), part.max()
    if not (np.isfinite(least) and np.isfinite(most)):
        # Thrice as fast as indexing with the mask.
        part = part.compress(np.isfinite(part))
        if not part.size:
            return None
        least, most = part.min(), part.max()
    return Piece(part, float(least), float(most))
