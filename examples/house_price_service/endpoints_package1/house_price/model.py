"""A linear model whose coefficients are in an HDF5 file."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from msgspec.structs import astuple, fields
from numpy.typing import NDArray

from .schemas import HousePredictionPayload, HousePredictionResult

FEATURES = tuple(each.name for each in fields(HousePredictionPayload))

# About what a linear fit to the California housing data of the census of 1990 gives (Pace and
# Barry, Statistics & Probability Letters 33, 1997), in units of 100,000 dollars: an example, good
# for no other use.
_INTERCEPT = -36.941920207184396
_COEFFICIENTS = (
    4.36693293e-01,
    9.43577803e-03,
    -1.07322041e-01,
    6.45065694e-01,
    -3.97638942e-06,
    -3.78654265e-03,
    -4.21314378e-01,
    -4.34513755e-01,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HousePriceModel:
    """value = (intercept + coefficients · features) · unit.

    Args:
        coefficients: float64, one for each of `FEATURES`.
        unit: what a value of 1 is worth in `currency`.
    """

    coefficients: NDArray[np.float64]
    intercept: float
    unit: float
    currency: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """The model of a file that `write_default` wrote, or one like it.

        Raises:
            ValueError: its features are others, or its coefficients are of another number.
            OSError, KeyError: it is no HDF5 file, or something is missing.
        """
        with h5py.File(path, "r") as file:
            coefficients: Any = file["coefficients"]
            features = tuple(coefficients.attrs["features"])
            if features != FEATURES or coefficients.shape != (len(FEATURES),):
                have = f"{coefficients.shape} coefficients of {', '.join(features)}"
                raise ValueError(f"{path} has {have}; needed is one each of {', '.join(FEATURES)}")
            intercept: Any = file["intercept"]
            return cls(
                coefficients=coefficients[:].astype(np.float64),
                intercept=float(intercept[()]),
                unit=float(intercept.attrs["unit"]),
                currency=str(intercept.attrs["currency"]),
            )

    def predict(self, payload: HousePredictionPayload) -> HousePredictionResult:
        """What a house in that block is worth."""
        value = self.intercept + float(self.coefficients @ np.asarray(astuple(payload)))
        return HousePredictionResult(value * self.unit, self.currency)


def write_default(path: Path) -> None:
    """Write the model of the census; a program that opens `path` meanwhile sees no half of it."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    with h5py.File(partial, "w") as file:
        coefficients = file.create_dataset("coefficients", data=np.array(_COEFFICIENTS))
        coefficients.attrs["features"] = FEATURES
        intercept = file.create_dataset("intercept", data=_INTERCEPT)
        intercept.attrs["unit"] = 100_000.0
        intercept.attrs["currency"] = "USD"
    partial.replace(path)
