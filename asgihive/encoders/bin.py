"""Format `bin`: the elements as they lie in memory."""

from typing import Any

import numpy.typing as npt

from asgihive.encoders.protocol import Values, view_bytes


class Bin:
    """C-order bytes of the selection, without a copy; an empty dataspace has none."""

    name = "bin"
    media_type = "application/octet-stream"
    extension = None
    is_raw = True
    is_compressible = False
    block_elements = 1 << 22  # nothing is computed

    def refusal(self, values: Values) -> str | None:
        # Their bytes in memory are pointers of this process.
        return "their elements are of variable length" if values.dtype.hasobject else None

    def length(self, values: Values) -> int | None:
        return values.nbytes

    def head(self, values: Values) -> bytes:  # noqa: ARG002
        return b""

    def block(self, values: Values, array: npt.NDArray[Any], first: int) -> memoryview:  # noqa: ARG002
        return view_bytes(array)

    def tail(self, values: Values) -> bytes:  # noqa: ARG002
        return b""


ENCODER = Bin()
