"""Stands in for `tests.fuzz.asking`: a service that shows its memory in each way that it could."""

import runpy
from typing import Any

import numpy as np

from asgihive.encoders.npy import Npy
from asgihive.hdf5.filters.builtin import decode_deflate_by_isal
from asgihive.hdf5.filters.contract import FilterDecoder
from asgihive.hdf5.filters.pipeline import DECODERS
from asgihive.service import data

# At the end of a chunk, and of an answer.
_NOT_WRITTEN = 500


def _decode_in_part(stored: Any, values: Any, room: Any) -> Any:
    decoded = decode_deflate_by_isal(stored, values, room)
    partly = np.empty(decoded.size, np.uint8)
    partly[:-_NOT_WRITTEN] = decoded[:-_NOT_WRITTEN]
    return partly


def _encode_in_part(encoder: Npy, values: Any, array: Any, first: int) -> memoryview:
    partly = np.empty(array.nbytes, np.uint8)
    partly[:-_NOT_WRITTEN] = array.reshape(-1).view(np.uint8)[:-_NOT_WRITTEN]
    return partly.data


if __name__ == "__main__":
    DECODERS[1] = FilterDecoder(1, _decode_in_part)
    setattr(Npy, "block", _encode_in_part)  # noqa: B010  # mypy: methods are no variables
    setattr(data, "zero_padding", lambda array: array)  # noqa: B010  # mypy: of another module
    runpy.run_module("tests.fuzz.asking", run_name="__main__")
