"""Format `npy`: what `numpy.save` writes (NumPy Enhancement Proposal 1)."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from asgihive.encoders.protocol import Values, raw


class Npy:
    """Numbers and booleans of any shape, byte for byte as `numpy.save`."""

    name = "npy"
    media_type = "application/octet-stream"
    extension = "npy"
    block_elements = 1 << 22  # nothing is computed

    def refusal(self, values: Values) -> str | None:
        if values.shape is None:
            return "the dataspace is empty"
        return None if values.is_numeric else "they are not numbers"

    def length(self, values: Values) -> int | None:
        return len(self.head(values)) + values.nbytes

    def head(self, values: Values) -> bytes:
        header = {
            "descr": np.lib.format.dtype_to_descr(values.dtype),
            "fortran_order": False,
            "shape": values.shape,
        }
        with io.BytesIO() as file:
            # Later versions are for headers over 64 KiB: a number's is far below.
            np.lib.format.write_array_header_1_0(file, header)
            return file.getvalue()

    def block(self, values: Values, array: npt.NDArray[Any], first: int) -> memoryview:  # noqa: ARG002
        return raw(array)

    def tail(self, values: Values) -> bytes:  # noqa: ARG002
        return b""


ENCODER = Npy()
