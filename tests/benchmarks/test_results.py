"""The kept table, what README shows of it, and the chart."""

from xml.etree import ElementTree as ET

import pytest

from benchmarks.chart import draw_chart
from benchmarks.question import Figure, Target
from benchmarks.questions import QUESTIONS
from benchmarks.results import (
    HEADLINES,
    README,
    RESULTS,
    list_headlines,
    parse_table,
    replace_headlines,
    replace_rows,
)
from benchmarks.servers import REPOSITORY
from benchmarks.table import Row

ORDER = [question.name for question in QUESTIONS]
TEXT = RESULTS.read_text(encoding="utf-8")


def measured(question: str, figure: str, ours: float) -> Row:
    found = Figure(name=figure, unit="/s", better="higher", target=Target(ratio=2))
    return Row(question, found, {"asgihive": [ours], "h5grove": [10]})


def test_readme_and_its_chart_show_what_is_kept() -> None:
    table = parse_table(TEXT)
    readme = README.read_text(encoding="utf-8")
    assert replace_headlines(readme, table) == readme
    chart = REPOSITORY / "docs" / "benchmarks.svg"
    assert draw_chart(list_headlines(table)) == chart.read_text(encoding="utf-8")


def test_headlines_are_figures_of_questions() -> None:
    figures = {
        (question.name, figure.name, figure.peer)
        for question in QUESTIONS
        for figure in question.figures
    }
    assert {(each.question, each.figure, each.peer) for each in HEADLINES} <= figures


def test_new_rows_take_the_place_of_their_question_and_leave_the_others() -> None:
    rows = [measured("data_16k", "requests", 70), measured("session", "whole session", 30)]
    table = parse_table(replace_rows(TEXT, rows, "2026-01-02 abc", ORDER))
    assert table[0]["question"] == "session"
    (small,) = [cells for cells in table if cells["question"] == "data_16k"]
    assert (small["ratio"], small["target"]) == ("7x", "≥ 2x met")
    assert small["measured"] == "2026-01-02 abc"
    others = ["session", "data_16k"]
    assert [cells for cells in table if cells["question"] not in others] == [
        cells for cells in parse_table(TEXT) if cells["question"] not in others
    ]


def test_a_text_without_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="no table with the columns question, figure"):
        parse_table("| one | two |\n| --- | --- |\n")


def test_bars_begin_at_one_and_are_as_long_as_the_ratio_says() -> None:
    better, worse, unmeasured = HEADLINES[:3]
    rows = [(better, {"ratio": "10x"}), (worse, {"ratio": "0.5x"}), (unmeasured, {"ratio": "-"})]
    drawn = ET.fromstring(draw_chart(rows))  # made here
    _, longer, shorter = drawn.findall("{*}rect")
    start, end = float(longer.get("x", "")), float(shorter.get("x", ""))
    assert float(shorter.get("width", "")) == pytest.approx(start - end, abs=0.2)
    assert float(longer.get("width", "")) / float(shorter.get("width", "")) == pytest.approx(
        3.32, abs=0.01
    )
    assert longer.get("fill") != shorter.get("fill")
    assert better.text in [text.text for text in drawn.findall("{*}text")]
