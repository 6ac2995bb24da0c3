"""Statistics, block by block: each block is summed up, and the sums are merged."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
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


# The sum of PIECE products of numbers of this many bits is below 2**53: doubles hold it.
_LIMB = 18
_MASK = (1 << _LIMB) - 1

# OpenBLAS starts threads for longer dot products; the lanes are all the threads there are.
_ROW = 8192
_ONES = np.ones(_ROW)
_ONES.setflags(write=False)

# Squares of doubles with larger exponents leave the range of doubles.
_LARGE = 400


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

    def repeated(self, times: int) -> "Statistics":
        """Of so many times the same values."""
        return replace(self, count=self.count * times, deviations=self.deviations * times)

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


def summarise(values: Array) -> Statistics:
    """The statistics of one block of booleans, integers or real floats."""
    found = _Found()
    scratch = np.empty(min(PIECE, values.size))
    total = squares = 0
    parts = []
    for piece in pieces(values):
        found.add(piece)
        if piece.values.dtype.kind == "f":
            parts.append(_float_sums(piece, scratch))
        else:
            piece_total, piece_squares = _integer_sums(piece, scratch)
            total += piece_total
            squares += piece_squares
    if not found.count:
        return Statistics()
    if parts:
        mean, deviations = _combined(parts)
    else:
        mean = Fraction(total, found.count)
        deviations = squares - mean * total
    return Statistics(
        found.count,
        found.minimum,
        found.maximum,
        found.positive_minimum,
        found.strict_positive_minimum,
        mean,
        deviations,
    )


@dataclass(slots=True)
class _Found:
    """What can be told by comparing, of the pieces so far."""

    count: int = 0
    minimum: float | None = None
    maximum: float = 0
    positive_minimum: float | None = None
    strict_positive_minimum: float | None = None

    def add(self, piece: Piece) -> None:
        positive, strict = _positive_minima(piece)
        self.maximum = piece.maximum if not self.count else max(self.maximum, piece.maximum)
        self.minimum = _least(self.minimum, piece.minimum)
        self.positive_minimum = _least(self.positive_minimum, positive)
        self.strict_positive_minimum = _least(self.strict_positive_minimum, strict)
        self.count += piece.values.size


def _positive_minima(piece: Piece) -> tuple[float | None, float | None]:
    """The least value that is at least 0, and the least above 0."""
    if piece.minimum > 0:
        return piece.minimum, piece.minimum
    if piece.maximum <= 0:
        return (None if piece.maximum < 0 else abs(piece.maximum)), None
    # Read as unsigned integers, what is negative is larger than what is not, integers (two's
    # complement) and floats (IEEE 754 orders positive ones by their bits) alike.
    values = piece.values
    bits = values.view(np.dtype(f"u{values.dtype.itemsize}"))
    least = bits.min()
    if least == 0:
        # Wraps around: 0 becomes the largest.
        strict = np.subtract(bits, bits.dtype.type(1)).min() + bits.dtype.type(1)
        return _plain(least, values.dtype), _plain(strict, values.dtype)
    strictly = _plain(least, values.dtype)
    return (0.0 if _has_negative_zero(values) else strictly), strictly


def _has_negative_zero(values: Array) -> bool:
    """Its bits are those of the least signed integer."""
    signed = np.dtype(f"i{values.dtype.itemsize}")
    return values.dtype.kind == "f" and bool(values.view(signed).min() == np.iinfo(signed).min)


def _plain(bits: Any, dtype: np.dtype[Any]) -> float:
    plain: float = bits.view(dtype).item()
    return plain


def _integer_sums(piece: Piece, scratch: Array) -> tuple[int, int]:
    """Sum and sum of squares, exactly.

    Of the distances from the least value, 18 bits at a time: each product and each sum of
    them is a whole number below 2**53, which doubles hold.
    """
    values, size = piece.values, piece.values.size
    if values.dtype.itemsize <= 2:
        np.copyto(scratch[:size], values)
        doubles = scratch[:size]
        return int(_dot(doubles, None)), int(_dot(doubles, doubles))
    least, span = int(piece.minimum), int(piece.maximum) - int(piece.minimum)
    unsigned = np.dtype(f"u{values.dtype.itemsize}")
    apart = values.view(unsigned) - unsigned.type(least % (1 << 8 * unsigned.itemsize))
    limbs = []
    for shift in range(0, max(1, span.bit_length()), _LIMB):
        limb = apart >> unsigned.type(shift) if shift else apart
        if span >> shift > _MASK:
            limb = limb & unsigned.type(_MASK)
        limbs.append((shift, limb.astype(np.float64)))
    total = sum(int(_dot(limb, None)) << shift for shift, limb in limbs)
    squares = sum(
        int(_dot(a, b)) << (i + j + (i != j))
        for (i, a), (j, b) in itertools.combinations_with_replacement(limbs, 2)
    )
    return total + least * size, squares + 2 * least * total + least * least * size


def _dot(a: Array, b: Array | None) -> float:
    """The sum of products of two 1-D arrays of doubles; of `a` alone without `b`."""
    whole = a.size // _ROW * _ROW
    total = 0.0
    if whole:
        other = _ONES if b is None else b[:whole].reshape(-1, _ROW)
        total = float(np.vecdot(a[:whole].reshape(-1, _ROW), other).sum())
    if whole < a.size:
        other = _ONES[: a.size - whole] if b is None else b[whole:]
        total += float(np.vecdot(a[whole:], other))
    return total


@dataclass(frozen=True, slots=True)
class _FloatSums:
    """Of `count` values times 2**-exponent: their distances from `centre`.

    residue, squares: the sums of those distances and of their squares.
    """

    count: int
    exponent: int
    centre: float
    residue: float
    squares: float

    def scaled(self, exponent: int) -> "_FloatSums":
        down = self.exponent - exponent
        if not down:
            return self
        centre, residue = math.ldexp(self.centre, down), math.ldexp(self.residue, down)
        return _FloatSums(self.count, exponent, centre, residue, math.ldexp(self.squares, 2 * down))


def _float_sums(piece: Piece, scratch: Array) -> _FloatSums:
    values, size = piece.values, piece.values.size
    # Squares of very large and very small values leave the range of doubles: scale those.
    exponent = math.frexp(max(abs(piece.minimum), abs(piece.maximum)))[1]
    if abs(exponent) < _LARGE:
        exponent = 0
    apart = scratch[:size]
    if exponent:
        np.ldexp(values, -exponent, out=apart)
        values = apart
    elif values.dtype != apart.dtype:
        np.copyto(apart, values)
        values = apart
    # Any centre near the mean will do.
    centre = _dot(values, None) / size
    np.subtract(values, centre, out=apart)
    return _FloatSums(size, exponent, centre, _dot(apart, None), _dot(apart, apart))


def _combined(parts: Sequence[_FloatSums]) -> tuple[Fraction, Fraction]:
    """Mean, and sum of squared deviations from it, of all parts."""
    # Zeros have no exponent of their own.
    exponents = (part.exponent for part in parts if part.centre or part.squares)
    exponent = max(exponents, default=0)
    parts = [part.scaled(exponent) for part in parts]
    count = sum(part.count for part in parts)
    centre = math.fsum(part.centre * part.count for part in parts) / count
    residues, squares = [], []
    for part in parts:
        apart = part.centre - centre
        residues += [part.residue, apart * part.count]
        squares += [part.squares, 2 * apart * part.residue, apart * apart * part.count]
    # What the centre lost by rounding is the mean of the distances from it.
    residue = Fraction(math.fsum(residues) / count)
    deviations = Fraction(math.fsum(squares)) - count * residue * residue
    scale = Fraction(2) ** exponent
    return (Fraction(centre) + residue) * scale, max(deviations, Fraction(0)) * scale * scale


def _square_root(value: Fraction) -> float:
    shift = (value.numerator.bit_length() - value.denominator.bit_length()) // 2
    return math.ldexp(math.sqrt(value / Fraction(4) ** shift), shift)


def _least(a: float | None, b: float | None) -> float | None:
    return a if b is None else b if a is None else min(a, b)
