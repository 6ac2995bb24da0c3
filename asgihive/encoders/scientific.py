"""C's `%.18e` for whole arrays of float64, correctly rounded: what CSV is made of.

A number is x = M·2**(e-64), M a 64-bit integer. With k the exponent of its first decimal
digit, the 19 digits wanted are the integer nearest to M·S / 2**127, S = 10**(18-k)·2**(e+63).
S fits 128 bits and depends on e and k alone, so it comes from a table, truncated. The
product's error is then below 2 units of 2**-63 of the last digit: enough to round, except
next to a tie. There S is exact (10**-34 <= x < 10**19) and the product decides, or Python
formats that one number.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

U64 = np.uint64
Words = npt.NDArray[np.uint64]

_LEAST_EXPONENT = -1073  # np.frexp(5e-324)
_LEAST_DECIMAL = -324
_DECIMALS = 308 - _LEAST_DECIMAL + 1
_HALF = 1 << 62

WIDTH = 28
"""Bytes of one number's row: 26 of text, and 2 for separators."""


class _Scales(NamedTuple):
    """Two rows for each binary exponent: below the power of ten in its octave, and from it."""

    threshold: npt.NDArray[np.float64]  # the least float64 of the second row, by octave
    decimal: npt.NDArray[np.int64]
    high: Words
    low: Words
    exact: npt.NDArray[np.bool_]


def format_scientific(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Format as `"%.18e" % number` does, with NUL bytes where a number has no character.

    Args:
        numbers: of shape (n,).

    Returns:
        Shape (n, `WIDTH`). The text of row i is its bytes that are not NUL; the last two
        bytes of each row are NUL.
    """
    magnitude = np.abs(numbers)
    finite = np.isfinite(magnitude)
    plain = finite & (magnitude != 0)
    digits, decimal = _find_digits(np.where(plain, magnitude, 1.0))
    if not plain.all():
        digits[~plain] = 0
        decimal[~plain] = 0
    rows = _make_rows(digits, decimal, np.signbit(numbers))
    if not finite.all():
        special = np.flatnonzero(~finite)
        rows[special] = 0
        rows[special, :4] = np.frombuffer(b"\0nan\0inf-inf", np.uint8).reshape(3, 4)[
            np.where(np.isnan(numbers[special]), 0, 1 + np.signbit(numbers[special]))
        ]
    return rows


def _find_digits(numbers: npt.NDArray[np.float64]) -> tuple[Words, npt.NDArray[np.int64]]:
    """Return the 19 digits of positive finite numbers as integers, and their decimal exponents."""
    scales = _make_scales()
    fraction, octave = np.frexp(numbers)
    octave -= _LEAST_EXPONENT
    row = 2 * octave + (numbers >= scales.threshold.take(octave))
    mantissa = (fraction.view(U64) << U64(11)) | U64(1 << 63)

    high_scale, low_scale = scales.high.take(row), scales.low.take(row)
    carry = _multiply_high(mantissa, low_scale)
    low = mantissa * high_scale
    low += carry
    high = _multiply_high(mantissa, high_scale)
    high += low < carry

    digits = (high << U64(1)) | (low >> U64(63))
    rest = low & U64((1 << 63) - 1)
    digits += rest > U64(_HALF)
    decimal = scales.decimal.take(row)

    # Unsigned, so that what lies below the window wraps around to huge values.
    near_tie = np.flatnonzero(rest - U64(_HALF - 2) <= U64(2))
    if near_tie.size:
        exact = scales.exact[row[near_tie]]
        ties = near_tie[exact & (rest[near_tie] == U64(_HALF))]
        beyond = mantissa[ties] * low_scale[ties] != 0
        digits[ties] += beyond | (digits[ties] % U64(2) == 1)
        _format_by_python(numbers, near_tie[~exact], digits, decimal)
    _format_by_python(numbers, np.flatnonzero(digits >= U64(10**19)), digits, decimal)
    return digits, decimal


def _multiply_high(a: Words, b: Words) -> Words:
    """Return the upper 64 bits of the 128-bit products."""
    mask, half = U64((1 << 32) - 1), U64(32)
    a_high, a_low, b_high, b_low = a >> half, a & mask, b >> half, b & mask
    cross = a_low * b_low
    cross >>= half
    cross += a_high * b_low
    middle = cross & mask
    middle += a_low * b_high
    cross >>= half
    middle >>= half
    a_high *= b_high
    a_high += cross
    a_high += middle
    return a_high


def _format_by_python(
    numbers: npt.NDArray[np.float64],
    where: npt.NDArray[np.intp],
    digits: Words,
    decimal: npt.NDArray[np.int64],
) -> None:
    for i in where.tolist():
        significand, exponent = (b"%.18e" % numbers[i]).split(b"e")
        digits[i] = int(significand.replace(b".", b""))
        decimal[i] = int(exponent)


def _make_rows(
    digits: Words, decimal: npt.NDArray[np.int64], negative: npt.NDArray[np.bool_]
) -> npt.NDArray[np.uint8]:
    leading, group, last, exponent = _make_tables()
    first = digits // U64(10**17)
    digits = digits - first * U64(10**17)
    sixteen = digits // U64(10)
    upper = sixteen // U64(10**8)
    lower = (sixteen - upper * U64(10**8)).astype(np.uint32)
    upper = upper.astype(np.uint32)
    ten_thousand = np.uint32(10_000)
    decimal = decimal - _LEAST_DECIMAL

    words = np.empty((digits.size, WIDTH // 4), np.uint32)
    words[:, 0] = leading.take(first.astype(np.intp) + 100 * negative)
    for column, half in ((1, upper), (3, lower)):
        quotient = half // ten_thousand
        words[:, column] = group.take(quotient)
        words[:, column + 1] = group.take(half - quotient * ten_thousand)
    words[:, 5] = last.take((digits - sixteen * U64(10)).astype(np.intp) * _DECIMALS + decimal)
    words[:, 6] = exponent.take(decimal)
    return words.view(np.uint8)


@cache
def _make_tables() -> tuple[npt.NDArray[np.uint32], ...]:
    """Return tables of four characters at a time: `-d.d`, `dddd` (four times), `de+h`, `tu`."""

    def table(texts: Any) -> npt.NDArray[np.uint32]:
        return np.frombuffer(b"".join(texts), np.uint32)

    decimals = range(_LEAST_DECIMAL, _LEAST_DECIMAL + _DECIMALS)
    hundreds = [
        (b"-" if d < 0 else b"+") + (b"%d" % (abs(d) // 100) if abs(d) > 99 else b"\0")
        for d in decimals
    ]
    return (
        table(sign + b"%d.%d" % divmod(i, 10) for sign in (b"\0", b"-") for i in range(100)),
        table(b"%04d" % i for i in range(10_000)),
        table(b"%de%s" % (digit, text) for digit in range(10) for text in hundreds),
        table(b"%02d\0\0" % (abs(d) % 100) for d in decimals),
    )


@cache
def _make_scales() -> _Scales:
    thresholds, decimals, highs, lows, exact = [], [], [], [], []
    for exponent in range(_LEAST_EXPONENT, 1025):
        first = _find_decimal_exponent(exponent - 1)
        thresholds.append(_find_least_float(first + 1))
        for decimal in (first, first + 1):
            power, shift = 18 - decimal, exponent + 63
            numerator = 10 ** max(power, 0) << max(shift, 0)
            scale, remainder = divmod(numerator, 10 ** max(-power, 0) << max(-shift, 0))
            decimals.append(decimal)
            highs.append(scale >> 64)
            lows.append(scale & ((1 << 64) - 1))
            exact.append(remainder == 0)
    return _Scales(
        np.array(thresholds),
        np.array(decimals),
        np.array(highs, U64),
        np.array(lows, U64),
        np.array(exact),
    )


def _find_decimal_exponent(exponent: int) -> int:
    """Return the floor of log10(2**exponent)."""
    if exponent >= 0:
        return len(str(1 << exponent)) - 1
    # 2**-n is 5**n / 10**n
    return len(str(5**-exponent)) - 1 + exponent


def _find_least_float(decimal: int) -> float:
    """Return the least float64 that is not below 10**decimal."""
    nearest = float(f"1e{decimal}")
    if not np.isfinite(nearest):
        return nearest
    numerator, denominator = nearest.as_integer_ratio()
    below = numerator * 10 ** max(-decimal, 0) < denominator * 10 ** max(decimal, 0)
    return float(np.nextafter(nearest, np.inf)) if below else nearest
