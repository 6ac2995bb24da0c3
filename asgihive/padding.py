"""Clears the padding of NumPy's elements before they leave the process.

Padding is bytes of an element that belong to no value, and must show nothing. NumPy copies the
elements of compounds member by member, and computes long doubles, of which it writes ten bytes of
sixteen, so that the padding of what it makes is what lay in memory before; and what a file has
there may come from the memory of the process that wrote it. So bytes that leave this process go
through `zero_padding`.
"""

import functools
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_LONG_DOUBLES = {np.longdouble, np.clongdouble}
_LONG_DOUBLE_BYTES = np.dtype(np.longdouble).itemsize

# Of an x87 long double; on other processors all bytes of one are its value.
_LONG_DOUBLE_USED = 10 if np.finfo(np.longdouble).nmant == 63 else _LONG_DOUBLE_BYTES

# A mask is repeated up to here, so that one operation of NumPy clears many elements; masks of
# larger elements are not kept.
_MASK_BYTES = 1 << 15


def has_padding(dtype: np.dtype[Any]) -> bool:
    """Return whether elements of this dtype, which hold no pointers, have padding."""
    if dtype.names is None and dtype.type not in _LONG_DOUBLES:
        return False
    return not dtype.hasobject and _has_gaps(dtype)


def zero_padding(array: Array) -> Array:
    """Return the same elements with zeros as their padding; `array` itself if it has none.

    Args:
        array: of any shape and dtype; it is not changed. Elements that hold pointers are returned
            as they are: their bytes are never sent.

    Returns:
        An array of the same shape and dtype; a copy is C-contiguous.
    """
    dtype = array.dtype
    if not has_padding(dtype):
        return array
    mask = _find_mask(dtype)
    # As plain bytes, which NumPy copies at once.
    copied = np.array(array.view(np.dtype((np.void, dtype.itemsize))), order="C")
    octets = copied.reshape(-1).view(np.uint8)
    whole = octets.size // mask.size * mask.size
    octets[:whole].reshape(-1, mask.size)[...] &= mask
    octets[whole:] &= mask[: octets.size - whole]
    return copied.view(dtype)


@functools.lru_cache(maxsize=1024)
def _has_gaps(dtype: np.dtype[Any]) -> bool:
    if dtype.names is None:
        return dtype.type in _LONG_DOUBLES and _LONG_DOUBLE_USED < _LONG_DOUBLE_BYTES
    reached = 0
    members = [dtype.fields[name] for name in dtype.names] if dtype.fields else []
    for member, offset, *_ in sorted(members, key=lambda field: field[1]):
        if offset > reached or _has_gaps(member.base):
            return True
        reached = max(reached, offset + member.itemsize)
    return reached < dtype.itemsize


def _find_mask(dtype: np.dtype[Any]) -> Array:
    """Return 0 for bytes of padding and 255 for others, of one element or more."""
    return (_keep_mask if dtype.itemsize <= _MASK_BYTES else _make_mask)(dtype)


def _make_mask(dtype: np.dtype[Any]) -> Array:
    mask = np.zeros(dtype.itemsize, np.uint8)
    _mark_values(mask.view(dtype))
    return np.tile(mask, max(1, _MASK_BYTES // dtype.itemsize))


_keep_mask = functools.lru_cache(maxsize=256)(_make_mask)


def _mark_values(elements: Array) -> None:
    """Overwrite the bytes of `elements` that belong to a value."""
    dtype = elements.dtype
    if dtype.names is not None:
        for name in dtype.names:
            _mark_values(elements[name])
        return
    octets = elements.view(np.dtype((np.uint8, (dtype.itemsize,))))
    if dtype.type in _LONG_DOUBLES:
        octets = octets.reshape(*elements.shape, -1, _LONG_DOUBLE_BYTES)
        unused = _LONG_DOUBLE_BYTES - _LONG_DOUBLE_USED
        first = 0 if dtype.isnative else unused
        octets = octets[..., first : first + _LONG_DOUBLE_USED]
    octets[...] = 255
