"""The pure parts of the comparison: summaries, ratios, targets and the rendered table."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.question import Figure, Target
from benchmarks.table import HEADER, Row, compute_serial_ceiling, render, summarize

RATE = Figure(name="requests", unit="/s", better="higher", target=Target(ratio=4))
TIME = Figure(name="time", unit="ms", better="lower", target=Target(ratio=8))
SLOWEST = Figure(name="slowest", unit="ms", better="lower", target=Target(below=100), turns="worst")
turns = st.lists(st.floats(min_value=0.001, max_value=1e6), min_size=1, max_size=9)


def row(figure: Figure, ours: list[float], theirs: list[float] | None = None) -> Row:
    measured = {"asgihive": ours} if theirs is None else {"asgihive": ours, "h5grove": theirs}
    return Row("question", figure, measured)


@given(turns)
def test_summary_is_the_median_unless_the_worst_counts(values: list[float]) -> None:
    assert summarize(RATE, values) == statistics.median(values)
    assert summarize(SLOWEST, values) == max(values)


def test_worst_of_a_rate_is_the_lowest() -> None:
    rate = Figure(name="rate", unit="/s", better="higher", turns="worst")
    assert summarize(rate, [3, 1, 2]) == 1


@pytest.mark.parametrize(("figure", "expected"), [(RATE, 5.0), (TIME, 0.2)])
def test_ratio_says_how_many_times_better(figure: Figure, expected: float) -> None:
    assert row(figure, [90, 100, 400], [20, 20, 1]).ratio == pytest.approx(expected)


@given(turns, turns)
def test_ratio_is_reversed_when_servers_change_places(
    ours: list[float], theirs: list[float]
) -> None:
    forth, back = row(RATE, ours, theirs).ratio, row(RATE, theirs, ours).ratio
    assert forth is not None
    assert back is not None
    assert forth * back == pytest.approx(1)


@pytest.mark.parametrize(
    ("measured", "met"),
    [
        (row(RATE, [40], [10]), True),
        (row(RATE, [39], [10]), False),
        (row(TIME, [10], [80]), True),
        (row(TIME, [10], [79]), False),
        (row(SLOWEST, [1, 99]), True),
        (row(SLOWEST, [1, 100]), False),
        (row(RATE, [40]), None),
        (row(Figure(name="any", unit="/s", better="higher"), [40], [1]), None),
        (Row("question", SLOWEST, {"h5grove": [50]}), None),
    ],
)
def test_target(measured: Row, met: bool | None) -> None:
    assert measured.met is met


def test_rows_of_several_peers_share_what_was_measured() -> None:
    measured = {"asgihive": [30], "one": [20], "two": [10]}
    figures = [
        Figure(name="requests", unit="/s", better="higher", target=Target(ratio=2), peer=peer)
        for peer in ("one", "two", "absent")
    ]
    rows = [Row("hooks", figure, measured) for figure in figures]
    assert [each.ratio for each in rows] == [1.5, 3, None]
    assert [each.met for each in rows] == [False, True, None]
    assert "two 10/s" in render(rows)


def test_stages_on_the_same_cores_take_turns() -> None:
    turns = {"decoders": [600, 300], "nginx": [300, 100], "contiguous": [200, 150], "other": [1]}
    assert compute_serial_ceiling((("decoders",), ("nginx", "contiguous")), turns) == [200, 100]
    assert compute_serial_ceiling((("decoders",), ("nginx", "absent")), turns) == [200, 75]
    assert compute_serial_ceiling((("decoders",), ("absent",)), turns) == []


def test_table_is_padded_markdown() -> None:
    rows = [
        Row("meta", RATE, {"asgihive": [12_345], "h5grove": [1_000], "ceiling": [44_000.4]}),
        Row("json", SLOWEST, {"asgihive": [120.4, 7], "h5grove": [0.5]}),
    ]
    lines = render(rows).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len({len(line) for line in lines}) == 1
    assert tuple(cells[0]) == HEADER
    assert set("".join(cells[1])) == {":", "-"}
    assert cells[2] == [
        "meta", "requests", "12,300/s", "h5grove 1,000/s", "12.3x", "≥ 4x met", "44,000/s"
    ]  # fmt: skip
    assert cells[3] == [
        "json", "slowest", "120 ms", "h5grove 0.5 ms", "0.00415x", "< 100 ms missed", "-"
    ]  # fmt: skip


def test_table_of_what_was_not_measured() -> None:
    (line,) = render([Row("meta", RATE, {"h5grove": [7]})]).splitlines()[2:]
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "meta", "requests", "-", "h5grove 7/s", "-", "≥ 4x", "-"
    ]  # fmt: skip
