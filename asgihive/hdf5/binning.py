"""Reducing arrays in bins of a whole number of elements along each axis."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

# Runs so short that NumPy's cost per run would be that of the whole.
_SHORT = 16

# Elements of such runs at once: what is read column by column stays in a core's cache.
_CACHED = 1 << 15


def binned(
    operation: np.ufunc,
    array: Array,
    factors: Sequence[int],
    offsets: Sequence[int],
    dtype: np.dtype[Any],
) -> Array:
    """`operation` over each bin: `factors[k]` elements along axis k, the last bin maybe fewer.

    Args:
        operation: associative, of two arguments.
        offsets: how many elements of the first bin along each axis lie before `array`.
        dtype: in which it is computed, and of the result.
    """
    # The outer axis first: whole rows are combined, which is fast, and little is left to do.
    for axis, (factor, offset) in enumerate(zip(factors, offsets, strict=True)):
        if factor > 1 and array.shape[axis] > 1:
            array = _along(operation, array, _Bins(axis, factor, offset), dtype)
    return array.astype(dtype, copy=False)


@dataclass(frozen=True, slots=True)
class _Bins:
    """Of one axis, as `binned` takes them."""

    axis: int
    factor: int
    offset: int


def _along(operation: np.ufunc, array: Array, bins: _Bins, dtype: np.dtype[Any]) -> Array:
    axis, factor = bins.axis, bins.factor
    if axis < array.ndim - 1 and array[(0,) * (axis + 1)].size < _SHORT:
        # Short rows are slow: turned into columns first.
        turned = np.ascontiguousarray(np.moveaxis(array, axis, -1))
        last = _Bins(array.ndim - 1, factor, bins.offset)
        result = _along(operation, turned, last, dtype)
        return np.ascontiguousarray(np.moveaxis(result, -1, axis))
    length = array.shape[axis]
    # The rest of a bin that began before, whole bins, and the beginning of one that goes on.
    head = min(length, -bins.offset % factor)
    whole = (length - head) // factor
    tail = head + whole * factor
    before = (slice(None),) * axis
    parts = []
    if head:
        part = array[(*before, slice(0, head))]
        parts.append(operation.reduce(part, axis=axis, dtype=dtype, keepdims=True))
    if whole:
        part = array[(*before, slice(head, tail))]
        split = part.reshape(*array.shape[:axis], whole, factor, *array.shape[axis + 1 :])
        if axis == array.ndim - 1 and factor <= _SHORT:
            parts.append(_rows(operation, split, dtype))
        else:
            parts.append(operation.reduce(split, axis=axis + 1, dtype=dtype))
    if tail < length:
        part = array[(*before, slice(tail, length))]
        parts.append(operation.reduce(part, axis=axis, dtype=dtype, keepdims=True))
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=axis)


def _rows(operation: np.ufunc, split: Array, dtype: np.dtype[Any]) -> Array:
    """Over the last axis, which is short: column by column, in pieces that stay in the cache."""
    factor = split.shape[-1]
    rows = split.reshape(-1, factor)
    result = np.empty(len(rows), dtype)
    for first in range(0, len(rows), _CACHED // factor):
        # Converting on the way, column by column, is ten times as slow.
        piece = rows[first : first + _CACHED // factor].astype(dtype, copy=False)
        target = result[first : first + len(piece)]
        operation(piece[:, 0], piece[:, 1], out=target)
        for column in range(2, factor):
            operation(target, piece[:, column], out=target)
    return result.reshape(split.shape[:-1])
