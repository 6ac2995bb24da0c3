"""`preferred` against the examples of RFC 9110 §12.5.1."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgihive.asgi import choose_media_type

RFC_TABLE = (
    "text/*;q=0.3, text/plain;q=0.7, text/plain;format=flowed, text/plain;format=fixed;q=0.4, "
    "*/*;q=0.5"
)
RFC_QUALITIES = {
    "text/plain;format=flowed": 1.0,
    "text/plain": 0.7,
    "text/html": 0.3,
    "image/jpeg": 0.5,
    "text/plain;format=fixed": 0.4,
    "text/html;level=3": 0.3,
}


@given(st.permutations(list(RFC_QUALITIES)), st.integers(1, len(RFC_QUALITIES)))
def test_the_table_of_the_rfc(order: list[str], count: int) -> None:
    offers = order[:count]
    chosen = choose_media_type(RFC_TABLE, tuple(offers))
    assert chosen is not None
    assert RFC_QUALITIES[chosen] == max(RFC_QUALITIES[each] for each in offers)


@pytest.mark.parametrize(
    ("accept", "offers", "expected"),
    [
        ("audio/*; q=0.2, audio/basic", ["audio/mpeg", "audio/basic"], "audio/basic"),
        ("audio/*; q=0.2, audio/basic", ["audio/mpeg"], "audio/mpeg"),
        (
            "text/plain; q=0.5, text/html, text/x-dvi; q=0.8, text/x-c",
            ["text/plain", "text/x-dvi"],
            "text/x-dvi",
        ),
        ("text/*, text/plain, text/plain;format=flowed, */*", ["a/b", "text/plain"], "text/plain"),
        ("*/*", ["application/json", "text/csv"], "application/json"),
        ("text/csv, */*", ["application/json", "text/csv"], "text/csv"),
        ("text/csv;q=0, */*", ["text/csv"], None),
        ("text/csv;q=0.000, */*;q=0.1", ["text/csv", "a/b"], "a/b"),
        ("TEXT/CSV;Q=0.5", ["text/csv"], "text/csv"),
        ("text/html", ["application/json"], None),
        ("", ["application/json", "text/csv"], "application/json"),
        (" , ,", ["application/json"], "application/json"),
        ("text/html", [], None),
        ("", [], None),
        # Malformed parts say nothing.
        ("text/csv;q=2, a/b;q=0.1", ["text/csv", "a/b"], "a/b"),
        ("text/csv;q=0.1234, a/b;q=0.1", ["text/csv", "a/b"], "a/b"),
        ("*/csv, a/b;q=0.1", ["text/csv", "a/b"], "a/b"),
        ("text, text/csv x, ;text/csv, text/csv;=, a/b;q=0.1", ["text/csv", "a/b"], "a/b"),
        ("garbage", ["a/b"], "a/b"),
        # Commas and semicolons in a quoted string separate nothing.
        ('text/plain;x="a, text/csv;q=1, b", a/b;q=0.1', ["text/csv", "a/b"], "a/b"),
        ('a/b;x="1\\",2;3"', ['a/b;x="1\\",2;3"'], 'a/b;x="1\\",2;3"'),
        ("a/b;;q=0.5;", ["a/b"], "a/b"),
    ],
)
def test_preferred(accept: str, offers: list[str], expected: str | None) -> None:
    assert choose_media_type(accept, tuple(offers)) == expected


@given(st.text(), st.text(st.sampled_from('*/;,="q01. \\ab')))
def test_no_header_breaks_it(one: str, other: str) -> None:
    for accept in (one, other):
        assert choose_media_type(accept, ("a/b", "text/csv")) in {"a/b", "text/csv", None}


@pytest.mark.parametrize("part", ['"', "\\", '"\\', ";", "; ", ";a=", ',"', "a/b;", 'a/b;x="\\"'])
def test_long_hostile_headers_take_linear_time(part: str) -> None:
    started = time.thread_time()
    choose_media_type("a/b" + part * 20_000, ("a/b",))
    assert time.thread_time() - started < 1


def test_an_offer_must_be_a_media_type() -> None:
    with pytest.raises(ValueError, match="'json'"):
        choose_media_type("*/*", ("json",))
