"""Hypothesis strategies: shapes, and selections as text."""

from hypothesis import strategies as st

SHAPES = st.lists(st.integers(0, 7), max_size=4).map(tuple)


@st.composite
def members(draw: st.DrawFn, length: int) -> str:
    """An integer within bounds, or any slice with a step of at least 1."""
    if length and draw(st.booleans()):
        return str(draw(st.integers(-length, length - 1)))
    bound = st.one_of(st.just(""), st.integers(-9, 9).map(str))
    start, stop = draw(bound), draw(bound)
    step = draw(st.sampled_from(["", ":", ":1", ":2", ":3", ":99"]))
    return f"{start}:{stop}{step}"


@st.composite
def selections(draw: st.DrawFn, shape: tuple[int, ...]) -> str:
    """A valid selection of a dataset of `shape`."""
    parts = [draw(members(length)) for length in shape]
    if draw(st.booleans()):
        first = draw(st.integers(0, len(parts)))
        last = draw(st.integers(first, len(parts)))
        return ",".join([*parts[:first], "...", *parts[last:]])
    kept = draw(st.integers(0, len(parts)))
    return ", ".join(parts[:kept])
