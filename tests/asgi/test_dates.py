"""HTTP dates against the examples of RFC 9110 §5.6.7."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgihive.asgi.request_fields import format_http_date, parse_http_date

EXAMPLE = 784111777


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ],
)
def test_the_three_formats(text: str) -> None:
    assert parse_http_date(text) == EXAMPLE


def test_the_preferred_format_is_written() -> None:
    assert format_http_date(EXAMPLE) == "Sun, 06 Nov 1994 08:49:37 GMT"


@given(st.integers(0, 253_402_300_799))
def test_what_is_written_is_read(seconds: int) -> None:
    assert parse_http_date(format_http_date(seconds)) == seconds


@pytest.mark.parametrize("seconds", [-1, 253_402_300_800])
def test_there_is_no_date_for_other_years(seconds: int) -> None:
    with pytest.raises(ValueError, match=str(seconds)):
        format_http_date(seconds)


def test_a_leap_second_is_the_last_of_its_minute() -> None:
    leap = parse_http_date("Sat, 31 Dec 2016 23:59:60 GMT")
    assert leap == parse_http_date("Sat, 31 Dec 2016 23:59:59 GMT") is not None


def test_two_digits_are_a_year_of_at_most_fifty_years_ahead() -> None:
    assert parse_http_date("Sunday, 06-Nov-94 08:49:37 GMT") == EXAMPLE
    near = parse_http_date("Wednesday, 06-Nov-30 08:49:37 GMT")
    assert near == parse_http_date("Wed, 06 Nov 2030 08:49:37 GMT")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "1994-11-06T08:49:37Z",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 nov 1994 08:49:37 GMT",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, ٠٦ Nov 1994 08:49:37 GMT",
    ],
)
def test_what_is_no_date(text: str) -> None:
    assert parse_http_date(text) is None


@given(st.text())
def test_no_text_breaks_it(text: str) -> None:
    parse_http_date(text)
