"""Texts of the `selection` parameter: what they mean to NumPy, and strategies that write them."""

import re
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st


def fitting(shape: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
    """Texts that fit the shape, and the NumPy index that each stands for.

    No index holds an ellipsis, which would reach into the elements of an array type.
    """
    yield "", ()
    yield "...", ()
    if not shape:
        return
    rest = (slice(None),) * (len(shape) - 1)
    yield ":", slice(None)
    yield " 1 : , ..." if len(shape) > 1 else " 1 : ", slice(1, None)
    yield "::2", slice(None, None, 2)
    yield "-2:", slice(-2, None)
    yield "2:1", slice(2, 1)
    yield "0:1000000:3", slice(0, 1_000_000, 3)
    yield ",".join([":"] * len(shape)), ()
    yield "...,1::2", (*rest, slice(1, None, 2))
    if all(shape):
        last = tuple(extent - 1 for extent in shape)
        yield ",".join(map(str, last)), last
        yield ",".join(["-1"] * len(shape)), last
        yield "0", 0
        yield "...,-1", (*rest, -1)
        yield "0,:" if len(shape) > 1 else "-1", 0 if len(shape) > 1 else -1


def impossible(shape: tuple[int, ...]) -> Iterator[str]:
    """Texts that no dataset of the shape can answer."""
    yield ",".join([":"] * (len(shape) + 1))
    yield "one"
    yield "0:1:2:3"
    yield "1.5"
    if shape:
        yield f"{shape[0]}"
        yield f"-{shape[0] + 1}"
        yield "::0"
        yield "...,..."


# Up to 18 digits, which any 64-bit integer holds.
_NUMBER = r"-?[0-9]{1,18}"
_MEMBER = re.compile(
    rf" *(?:{_NUMBER}|(?:{_NUMBER})? *:(?: *{_NUMBER})? *(?:: *(?:[1-9][0-9]{{0,17}})?)?|\.\.\.) *"
)


def plain(text: str) -> bool:
    """Whether the contract's grammar has this text: integers, forward slices, one `...`."""
    members = text.split(",")
    return all(map(_MEMBER.fullmatch, members)) and sum("..." in each for each in members) < 2


def numpy_index(text: str) -> tuple[Any, ...]:
    """The NumPy index of a text, read as generously as Python reads integers.

    Raises:
        ValueError: it stands for none.
    """
    return tuple(_member(each.strip()) for each in text.split(",")) if text.strip() else ()


def _member(text: str) -> Any:
    if text == "...":
        return ...
    if ":" not in text:
        return int(text)
    parts = [int(part) if part.strip() else None for part in text.split(":")]
    if len(parts) > 3 or 0 in parts[2:]:
        raise ValueError(text)
    return slice(*parts)


_numbers = st.integers(-9, 9).map(str) | st.sampled_from(["", "99999999999999999999", "-0", "007"])
_slices = st.lists(_numbers, min_size=2, max_size=3).map(":".join)
_odd = st.text("0123456789:,.- +_eE\u0661\x00", max_size=6) | st.text(max_size=4)
_blanks = st.sampled_from(["", " ", "  "])
_members = st.builds(
    "{}{}{}".format, _blanks, _numbers | _slices | st.just("...") | st.just(":"), _blanks
)
texts = st.lists(_members, max_size=5).map(",".join) | st.lists(
    _members | _odd, min_size=1, max_size=5
).map(",".join)
