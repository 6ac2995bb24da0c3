"""Ticks of axes: nice numbers, all different, inside of the axis."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgihive.viewer.ticks import find_ticks, fit_scale, format_number, round_nicely

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(FINITE, FINITE, st.integers(2, 20))
@example(0.0, 5e-324, 5)
@example(-1.8e308, 1.8e308, 5)
@example(1e9, 1e9 + 1, 5)
@example(3.0, 3.0, 5)
def test_ticks_lie_within_the_axis_and_differ(one: float, other: float, most: int) -> None:
    low, high = sorted((one, other))
    scale = fit_scale(low, high)
    assert scale.low < scale.high
    ticks = find_ticks(scale, most)
    values = [value for value, _ in ticks]
    assert 2 <= len(values) <= 2 * most + 1
    assert values == sorted(values)
    for value in values:
        assert -1e-6 <= scale.place(value) <= 1 + 1e-6
    assert len({label for _, label in ticks}) == len(ticks)


@given(st.floats(1e-280, 1e280), st.floats(1e-280, 1e280), st.integers(2, 20))
def test_logarithmic_ticks_too(one: float, other: float, most: int) -> None:
    low, high = sorted((one, other))
    scale = fit_scale(low, high, is_log=True)
    ticks = find_ticks(scale, most)
    assert len(ticks) <= 2 * most + 12
    for value, _ in ticks:
        assert -1e-6 <= scale.place(value) <= 1 + 1e-6


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0, 10, ["0", "2", "4", "6", "8", "10"]),
        (-1, 1, ["\N{MINUS SIGN}1", "\N{MINUS SIGN}0.5", "0", "0.5", "1"]),
        (0.001, 0.0042, ["0.001", "0.002", "0.003", "0.004"]),
        (0, 100_000, ["0", "20000", "40000", "60000", "80000", "100000"]),
        (
            0,
            4e9,
            [
                "0",
                "1\N{MULTIPLICATION SIGN}10⁹",
                "2\N{MULTIPLICATION SIGN}10⁹",
                "3\N{MULTIPLICATION SIGN}10⁹",
                "4\N{MULTIPLICATION SIGN}10⁹",
            ],
        ),
    ],
)
def test_labels_are_as_people_write_them(low: float, high: float, labels: list[str]) -> None:
    assert [label for _, label in find_ticks(fit_scale(low, high), 5)] == labels


def test_powers_of_ten() -> None:
    scale = fit_scale(0.02, 4000, is_log=True)
    assert [label for _, label in find_ticks(scale, 9)] == ["10⁻¹", "10⁰", "10¹", "10²", "10³"]
    scale = fit_scale(150, 2500, is_log=True)
    assert [label for _, label in find_ticks(scale, 9)] == ["200", "500", "10³", "2000"]


@given(st.floats(1e-290, 1e290))
def test_a_nice_number_is_one_two_or_five(value: float) -> None:
    nice = round_nicely(value)
    part = nice / 10 ** math.floor(math.log10(nice) + 1e-9)
    assert min(abs(part - each) for each in (1, 2, 5)) < 1e-6
    assert 0.5 < nice / value < 2


def test_numbers_of_descriptions() -> None:
    assert format_number(-0.25) == "\N{MINUS SIGN}0.25"
    assert format_number(1234567.0, 4) == "1234567"
    assert format_number(0.0) == "0"
