"""The statistics of the contract, in exact arithmetic until the last step."""

import math
from fractions import Fraction
from typing import Any

import numpy as np


def statistics(array: np.ndarray[Any, Any]) -> dict[str, int | float | None]:
    """The six numbers of `/stats`: integers stay integers, mean and std are correctly rounded."""
    integral = array.dtype.kind in "biu"
    finite = array if integral else array[np.isfinite(array)]
    values = [int(v) if integral else Fraction(*v.as_integer_ratio()) for v in finite.flat]
    found: dict[str, Any] = {
        "min": min(values, default=None),
        "max": max(values, default=None),
        "positive_min": min((v for v in values if v >= 0), default=None),
        "strict_positive_min": min((v for v in values if v > 0), default=None),
        "mean": None,
        "std": None,
    }
    if values:
        mean = Fraction(sum(values)) / len(values)
        variance = sum((v - mean) ** 2 for v in values) / len(values)
        found |= {"mean": float(mean), "std": math.sqrt(variance)}
    return {
        name: v if v is None or (integral and isinstance(v, int)) else float(v)
        for name, v in found.items()
    }


def same_statistics(answer: Any, expected: dict[str, int | float | None]) -> bool:
    if not isinstance(answer, dict) or answer.keys() != expected.keys():
        return False
    largest = max(abs(expected["min"] or 0), abs(expected["max"] or 0))
    for name, value in expected.items():
        given = answer[name]
        if name in {"mean", "std"} and None not in (value, given):
            if not math.isclose(given, value or 0.0, rel_tol=1e-12, abs_tol=1e-15 * largest):
                return False
        elif given != value:
            return False
    return True
