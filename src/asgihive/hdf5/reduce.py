"""Statistics, block by block: each block is summed up, and the sums are merged."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

# Elements whose squares are summed at once: small enough for exact 64-bit partial sums.
_EXACT_RUN = 1 << 20
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFF_FFFF)


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of the finite values seen so far; exact for integers, double precision for floats.

    deviations: sum of squared deviations from the mean.
    """

    count: int = 0
    minimum: float | None = None
    maximum: float | None = None
    positive_minimum: float | None = None
    strict_positive_minimum: float | None = None
    mean: Fraction = Fraction(0)
    deviations: Fraction = Fraction(0)

    def merge(self, other: "Statistics") -> "Statistics":
        """Of the values of both.

        Pairwise update after Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm
        for computing sample variances" (1979), in exact fractions: a large offset costs no
        digits, and nothing overflows.
        """
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        apart = other.mean - self.mean
        share = Fraction(other.count, count)
        return Statistics(
            count=count,
            minimum=_least(self.minimum, other.minimum),
            maximum=max(x for x in (self.maximum, other.maximum) if x is not None),
            positive_minimum=_least(self.positive_minimum, other.positive_minimum),
            strict_positive_minimum=_least(
                self.strict_positive_minimum, other.strict_positive_minimum
            ),
            mean=self.mean + apart * share,
            deviations=self.deviations + other.deviations + apart * apart * self.count * share,
        )

    def described(self) -> dict[str, Any]:
        """As `/stats` shows them; all None when there was no finite value."""
        return {
            "strict_positive_min": self.strict_positive_minimum,
            "positive_min": self.positive_minimum,
            "min": self.minimum,
            "max": self.maximum,
            "mean": float(self.mean) if self.count else None,
            "std": _square_root(self.deviations / self.count) if self.count else None,
        }


def summarise(values: np.ndarray[Any, Any]) -> Statistics:
    """The statistics of one block of booleans, integers or real floats."""
    flat = values.reshape(-1)
    if flat.dtype.kind == "f":
        # What is too large for a double becomes infinite, a signalling NaN a quiet one.
        with np.errstate(over="ignore", invalid="ignore"):
            flat = flat.astype(np.float64, copy=False)
        flat = flat[np.isfinite(flat)]
    elif flat.dtype.kind == "b":
        flat = flat.view(np.uint8)
    if not flat.size:
        return Statistics()
    mean, deviations = _moments(flat)
    positive = flat[flat >= 0] if flat.dtype.kind != "u" else flat
    strictly = flat[flat > 0]
    plain = float if flat.dtype.kind == "f" else int
    return Statistics(
        count=flat.size,
        minimum=plain(flat.min()),
        maximum=plain(flat.max()),
        positive_minimum=plain(positive.min()) if positive.size else None,
        strict_positive_minimum=plain(strictly.min()) if strictly.size else None,
        mean=mean,
        deviations=deviations,
    )


def _moments(flat: np.ndarray[Any, Any]) -> tuple[Fraction, Fraction]:
    """Mean, and sum of squared deviations from it."""
    if flat.dtype.kind == "f":
        return _float_moments(flat)
    least = int(flat.min())
    total = squares = 0
    for first in range(0, flat.size, _EXACT_RUN):
        run_total, run_squares = _exact_sums(flat[first : first + _EXACT_RUN], least)
        total += run_total
        squares += run_squares
    exact = Fraction(total, flat.size)
    return exact + least, squares - exact * total


def _float_moments(flat: np.ndarray[Any, Any]) -> tuple[Fraction, Fraction]:
    # Squares of very large and very small values leave the range of doubles: scale those.
    exponent = math.frexp(float(np.abs(flat).max()))[1]
    if abs(exponent) < 400:
        exponent = 0
    scaled = np.ldexp(flat, -exponent) if exponent else flat
    near = float(scaled.mean())
    apart = scaled - near
    # What the mean lost by rounding is the mean of the deviations from it.
    residue = Fraction(float(apart.mean()))
    deviations = Fraction(float(np.square(apart).sum())) - flat.size * residue * residue
    scale = Fraction(2) ** exponent
    return (Fraction(near) + residue) * scale, max(deviations, Fraction(0)) * scale * scale


def _square_root(value: Fraction) -> float:
    shift = (value.numerator.bit_length() - value.denominator.bit_length()) // 2
    return math.ldexp(math.sqrt(value / Fraction(4) ** shift), shift)


def _exact_sums(run: np.ndarray[Any, Any], least: int) -> tuple[int, int]:
    """Sum and sum of squares of `run - least`, exactly, by 32-bit halves."""
    native = run.astype(np.dtype(run.dtype).newbyteorder("="), copy=False)
    wide = native.astype(np.uint64) - np.uint64(least % (1 << 64))
    high, low = wide >> _HALF, wide & _LOW
    total = (int(high.sum()) << 32) + int(low.sum())
    squares = _sum_of_products(low, low)
    if high.any():
        squares += (_sum_of_products(high, low) << 33) + (_sum_of_products(high, high) << 64)
    return total, squares


def _sum_of_products(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> int:
    """The exact sum of products of 32-bit numbers, of at most 2**20 of them."""
    products = a * b
    return (int((products >> _HALF).sum()) << 32) + int((products & _LOW).sum())


def _least(a: float | None, b: float | None) -> float | None:
    return a if b is None else b if a is None else min(a, b)
