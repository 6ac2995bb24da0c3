"""Format `csv`: what `numpy.savetxt(delimiter=",")` writes, without its Python loop."""

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from asgihive.encoders.protocol import Values
from asgihive.encoders.scientific import WIDTH, scientific

MAX_EMPTY_ROWS = 1 << 20
"""Most rows without columns: each is a byte of body that no byte of the file stands for."""

Text = npt.NDArray[np.uint8]


class Csv:
    """Numbers and booleans, one row a line, `%.18e`; byte for byte as `numpy.savetxt`."""

    name = "csv"
    media_type = "text/csv"
    extension = "csv"
    block_elements = 1 << 14  # 2 to 5 ms, and NumPy lets other threads run meanwhile

    def refusal(self, values: Values) -> str | None:
        if not values.is_numeric:
            return "they are not numbers"
        if values.shape is None or len(values.shape) not in (1, 2):
            return "they have neither one dimension nor two"
        if not values.size and values.shape[0] > MAX_EMPTY_ROWS:
            return f"they are more than {MAX_EMPTY_ROWS} empty rows"
        return None

    def length(self, values: Values) -> int | None:  # noqa: ARG002
        return None

    def head(self, values: Values) -> bytes:
        if values.size or values.shape is None:
            return b""
        return b"\n" * values.shape[0]

    def block(self, values: Values, array: npt.NDArray[Any], first: int) -> bytes:
        flat = array.reshape(-1)
        text = _complex_rows(flat) if flat.dtype.kind == "c" else _real_rows(flat)
        columns = values.shape[1] if values.shape and len(values.shape) == 2 else 1
        text[:, -1] = ord(",")
        text[(-first - 1) % columns :: columns, -1] = ord("\n")
        return text.tobytes().translate(None, b"\0")

    def tail(self, values: Values) -> bytes:  # noqa: ARG002
        return b""


def _real_rows(flat: npt.NDArray[Any]) -> Text:
    """Shape (n, `WIDTH`), one number a row; the last byte is for the separator."""
    if flat.dtype.itemsize > 2:
        return scientific(_float64(flat))
    pattern = np.dtype(f"u{flat.dtype.itemsize}").newbyteorder(flat.dtype.byteorder)
    return _every_number(flat.dtype.newbyteorder("=")).take(flat.view(pattern), axis=0)


def _complex_rows(flat: npt.NDArray[Any]) -> Text:
    """` (re+imj)` a row, where a minus of `im` takes the place of the plus."""
    pairs = _float64(flat.view(_part(flat.dtype)))
    parts = scientific(pairs).reshape(-1, 2, WIDTH)
    rows = np.zeros((flat.size, 2 * WIDTH + 6), np.uint8)
    rows[:, :2] = np.frombuffer(b" (", np.uint8)
    rows[:, 2 : 2 + WIDTH] = parts[:, 0]
    rows[:, 2 + WIDTH] = np.where(parts[:, 1, 0] == ord("-"), 0, ord("+"))
    rows[:, 3 + WIDTH : 3 + 2 * WIDTH] = parts[:, 1]
    rows[:, -3:-1] = np.frombuffer(b"j)", np.uint8)
    return rows


def _part(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of a complex dtype's real and imaginary parts."""
    return np.dtype(f"{dtype.byteorder}f{dtype.itemsize // 2}")


def _float64(array: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    # `%` turns every number into a float64 first: 2**63 - 1 loses digits, float128 may be inf.
    with np.errstate(over="ignore"):
        return array.astype(np.float64, copy=False)


@cache
def _every_number(dtype: np.dtype[Any]) -> Text:
    """The text of all numbers of one or two bytes (at most 1.8 MB), by their bit pattern."""
    patterns = np.arange(1 << 8 * dtype.itemsize, dtype=f"u{dtype.itemsize}")
    return scientific(_float64(patterns.view(dtype)))


ENCODER = Csv()
