"""Where an axis has ticks, and what they are called; pure.

Nice numbers for graph labels: Heckbert, Graphics Gems (1990), p. 61.
"""

import math
from dataclasses import dataclass

LARGEST = 1e300
"""Values beyond this are drawn at it: differences of them must be numbers, too."""

# Ranges that are less wide than this part of their values are one value.
_LEAST_PART = 1e-12

_LEAST_SPAN = 1e-290
_MOST_DECADES = 600
_MOST_DIGITS = 16
# As they are printed, which are other characters than those of programs.
_TIMES, _MINUS = "\N{MULTIPLICATION SIGN}", "\N{MINUS SIGN}"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True)
class AxisScale:
    """One axis: the values at its ends, and how others lie between them."""

    low: float
    high: float
    is_log: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies: 0 at the low end, 1 at the high one."""
        if self.is_log:
            low = math.log10(self.low)
            return (math.log10(value) - low) / (math.log10(self.high) - low)
        return (value - self.low) / (self.high - self.low)


def fit_scale(low: float, high: float, *, is_log: bool = False, margin: float = 0.0) -> AxisScale:
    """Return an axis that shows values from `low` to `high`, which may be equal.

    Args:
        low: the least value, above 0 for a logarithmic axis.
        high: the greatest value.
        is_log: whether the axis is logarithmic.
        margin: what is left free at both ends, as a part of what lies between.
    """
    low, high = (min(max(each, -LARGEST), LARGEST) for each in (low, high))
    if is_log:
        first, last = math.log10(low), math.log10(high)
        if last - first < 1e-9:
            first, last = first - 0.5, last + 0.5
        room = margin * (last - first)
        return AxisScale(10.0 ** max(first - room, -300), 10.0 ** min(last + room, 300), True)
    span, size = high - low, max(abs(low), abs(high))
    if span < _LEAST_SPAN or span < _LEAST_PART * size:
        room = 0.5 if size < 1e-280 else 0.05 * size
        return AxisScale(low - room, high + room)
    return AxisScale(low - margin * span, high + margin * span)


def find_ticks(scale: AxisScale, most: int) -> list[tuple[float, str]]:
    """Return the values with a tick, in their order, and what each is called.

    Args:
        scale: of the axis.
        most: how many there may be, about.
    """
    if scale.is_log:
        return _find_decades(scale, most) or _find_even(scale, most)
    return _find_even(scale, most)


def _find_even(scale: AxisScale, most: int) -> list[tuple[float, str]]:
    step = round_nicely((scale.high - scale.low) / max(1, most - 1))
    first, last = _count_steps(scale, step)
    if last - first < 1:  # an axis with one number says nothing
        step = round_nicely(step / 2)
        first, last = _count_steps(scale, step)
    values = [number * step for number in range(first, min(last, first + 2 * most) + 1)]
    digits = _count_digits(max(map(abs, values), default=0.0), step)
    return [(value, format_number(value, digits)) for value in values]


def _count_steps(scale: AxisScale, step: float) -> tuple[int, int]:
    return math.ceil(scale.low / step - 1e-9), math.floor(scale.high / step + 1e-9)


def _find_decades(scale: AxisScale, most: int) -> list[tuple[float, str]]:
    """Return powers of ten, all or each so many of them; of few also 2 and 5 times these.

    None where they are fewer than two in all.
    """
    low, high = math.log10(scale.low) - 1e-9, math.log10(scale.high) + 1e-9
    first, last = math.ceil(low), min(math.floor(high), math.ceil(low) + _MOST_DECADES)
    if last - first > 1:
        every = max(1, math.ceil((last - first + 1) / most))
        powers = range(first, last + 1, every)
        return [(10.0**power, _name_power(power)) for power in powers]
    found = []
    for power in range(first - 1, last + 1):
        for part in (1, 2, 5):
            if low <= power + math.log10(part) <= high:
                value = part * 10.0**power
                found.append((value, _name_power(power) if part == 1 else format_number(value, 1)))
    return found if len(found) > 1 else []


def _name_power(power: int) -> str:
    return f"10{str(power).translate(_SUPERSCRIPTS)}"


def round_nicely(value: float) -> float:
    """Return the number that is 1, 2 or 5 times a power of ten and nearest to a positive one."""
    power = math.floor(math.log10(value))
    part = value / 10.0**power
    nice = 1 if part < 1.5 else 2 if part < 3 else 5 if part < 7 else 10
    return float(nice * 10.0**power)


def _count_digits(largest: float, step: float) -> int:
    """Return how many digits tell numbers apart that are a step from each other."""
    if not largest:
        return 1
    digits = math.floor(math.log10(largest)) - math.floor(math.log10(step) + 1e-9) + 1
    return min(max(1, digits), _MOST_DIGITS)


def format_number(value: float, digits: int = 6) -> str:
    """Return a number for people, with so many digits; whole numbers below 10⁷ have all."""
    text = f"{value:.{digits}g}" if value else "0"
    mantissa, _, exponent = text.partition("e")
    if exponent and -5 < int(exponent) < 7:
        text = f"{value:.{max(0, digits - 1 - int(exponent))}f}"
    elif exponent:
        text = f"{mantissa}{_TIMES}10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
    return text.replace("-", _MINUS)
