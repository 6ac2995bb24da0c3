import io
from random import Random
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given

from asgihive.encoders import Values, by_name
from asgihive.encoders.csv import MAX_EMPTY_ROWS
from asgihive.encoders.scientific import _by_python, _digits, scientific
from tests.encoders.strategies import Array, arrays, in_blocks, numbers, whole

ENCODER = by_name("csv")


def savetxt(array: Array) -> bytes:
    file = io.BytesIO()
    with np.errstate(over="ignore"):
        np.savetxt(file, array, delimiter=",")
    return file.getvalue()


@given(
    arrays(numbers, hnp.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=6)),
    st.randoms(use_true_random=False),
)
def test_csv_is_savetxt(array: Array, random: Random) -> None:
    assert in_blocks(ENCODER, array, random) == savetxt(array)


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", ">i2", "f2", ">f2"])
def test_every_small_number(dtype: str) -> None:
    size = np.dtype(dtype).itemsize
    patterns = np.arange(2 if dtype == "?" else 1 << 8 * size, dtype=f"u{size}")
    array = patterns.view(dtype).reshape(2, -1)
    assert whole(ENCODER, array) == savetxt(array)


@pytest.mark.parametrize("shape", [(), (1, 1, 1), None])
def test_other_dimensions_are_refused(shape: tuple[int, ...] | None) -> None:
    assert "one dimension nor two" in str(ENCODER.refusal(Values("", shape, np.dtype(float))))


def test_rows_out_of_nothing_are_refused() -> None:
    dtype: np.dtype[Any] = np.dtype(float)
    assert ENCODER.refusal(Values("", (MAX_EMPTY_ROWS, 0), dtype)) is None
    assert "empty rows" in str(ENCODER.refusal(Values("", (MAX_EMPTY_ROWS + 1, 0), dtype)))
    assert ENCODER.refusal(Values("", (0, MAX_EMPTY_ROWS + 1), dtype)) is None


def assert_scientific(numbers: Array) -> None:
    rows = scientific(numbers)
    texts = [bytes(row).replace(b"\0", b"").decode() for row in rows]
    assert texts == [f"{number:.18e}" for number in numbers.tolist()]
    assert not rows[:, -2:].any()


@given(st.lists(st.floats(allow_subnormal=True)))
@example([0.0, -0.0, np.nan, np.inf, -np.inf, 5e-324, 1.7976931348623157e308, 1e22, 1e23])
def test_a_number_is_as_c_writes_it(numbers: list[float]) -> None:
    assert_scientific(np.array(numbers, np.float64))


@given(st.lists(st.integers(0, (1 << 64) - 1), max_size=200))
def test_every_bit_pattern(patterns: list[int]) -> None:
    assert_scientific(np.array(patterns, np.uint64).view(np.float64))


def test_ties_go_to_even() -> None:
    # 1 + i / 2**19 has 20 digits, the last one 5.
    assert_scientific(1 + np.arange(1, 5000) * 2.0**-19)


def test_around_every_power() -> None:
    tens = np.array([float(f"1e{i}") for i in range(-323, 309)])
    for power in (tens, 2.0 ** np.arange(-1074, 1024)):
        assert_scientific(power)
        assert_scientific(np.nextafter(power, 0))
        assert_scientific(np.nextafter(power, np.inf)[:-1])


def test_integers_beyond_the_exact_scales() -> None:
    # From 1e19 on the scales are truncated: short multiples of powers of ten are hardest.
    assert_scientific(np.array([float(f"{i}e{j}") for i in range(1, 200) for j in range(17, 40)]))


def test_what_the_scales_cannot_decide_python_does() -> None:
    # No float64 is known to need it, so it is called by hand.
    array = np.array([1.5, 9.875e-300, 1e23])
    digits, decimal = _digits(array)
    again, again_decimal = np.zeros_like(digits), np.zeros_like(decimal)
    _by_python(array, np.arange(array.size), again, again_decimal)
    np.testing.assert_array_equal(again, digits)
    np.testing.assert_array_equal(again_decimal, decimal)
