"""Preconditions against RFC 9110 §8.8 and §13."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgihive.asgi import HTTPException
from asgihive.asgi.request_fields import (
    ByteRange,
    Validators,
    check_preconditions,
    choose_range,
    evaluate_preconditions,
    format_http_date,
    is_range_applicable,
    select_304_headers,
)

NOON = 784_000_000
XYZZY = Validators('"xyzzy"', NOON, NOON)
UNKNOWN = Validators()

BEFORE, AT, AFTER = (format_http_date(NOON + seconds) for seconds in (-1, 0, 1))


@pytest.mark.parametrize(
    ("tags", "same"),
    [
        # The examples of §13.1.2.
        ('"xyzzy"', True),
        ('W/"xyzzy"', True),
        ('"xyzzy", "r2d2xxxx", "c3piozzzz"', True),
        ('W/"xyzzy", W/"r2d2xxxx", W/"c3piozzzz"', True),
        ("*", True),
        (' "r2d2xxxx" ,, "xyzzy"', True),
        ('"r2d2xxxx", "c3piozzzz"', False),
        ("xyzzy", False),
        ('"XYZZY"', False),
        ('"xyzzy', False),
        ('"a,"xyzzy""', False),
        ('w/"xyzzy"', True),  # not the prefix, which is case-sensitive: the tag behind it
        ("", False),
    ],
)
def test_if_none_match(tags: str, same: bool) -> None:
    expected = 304 if same else 200
    assert evaluate_preconditions({"if-none-match": tags}, XYZZY) == expected


def test_tags_may_hold_commas() -> None:
    commas = Validators('"a, b"'.replace(" ", ""))
    assert evaluate_preconditions({"if-none-match": '"x","a,b"'}, commas) == 304
    assert evaluate_preconditions({"if-none-match": '"a","b"'}, commas) == 200


def test_without_a_tag_only_any_version_matches() -> None:
    assert evaluate_preconditions({"if-none-match": '"xyzzy"'}, UNKNOWN) == 200
    assert evaluate_preconditions({"if-none-match": "*"}, UNKNOWN) == 304
    assert evaluate_preconditions({"if-match": '"xyzzy"'}, UNKNOWN) == 412
    assert evaluate_preconditions({"if-match": "*"}, UNKNOWN) == 200


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        (BEFORE, 200),
        (AT, 304),
        (f" {AT} ", 304),
        (AFTER, 304),
        ("yesterday", 200),
        (f"{AT}, {AT}", 200),
    ],
)
def test_if_modified_since(date: str, expected: int) -> None:
    assert evaluate_preconditions({"if-modified-since": date}, XYZZY) == expected
    assert evaluate_preconditions({"if-modified-since": date}, UNKNOWN) == 200


def test_what_was_put_in_place_later_is_modified_whatever_its_own_date() -> None:
    moved_here = Validators(None, NOON, NOON + 10)
    assert evaluate_preconditions({"if-modified-since": AT}, moved_here) == 304
    assert evaluate_preconditions({"if-modified-since": AFTER}, moved_here) == 200
    much_later = format_http_date(NOON + 10)
    assert evaluate_preconditions({"if-modified-since": much_later}, moved_here) == 304


def test_a_tag_wins_over_a_date() -> None:
    fields = {"if-none-match": '"other"', "if-modified-since": AFTER}
    assert evaluate_preconditions(fields, XYZZY) == 200
    fields = {"if-match": '"xyzzy"', "if-unmodified-since": BEFORE}
    assert evaluate_preconditions(fields, XYZZY) == 200


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ('"xyzzy"', 200),
        ('"r2d2xxxx", "xyzzy"', 200),
        ("*", 200),
        ('W/"xyzzy"', 412),  # strong comparison, §13.1.1
        ('"r2d2xxxx"', 412),
    ],
)
def test_if_match(tags: str, expected: int) -> None:
    assert evaluate_preconditions({"if-match": tags}, XYZZY) == expected


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        (BEFORE, 412),
        (AT, 200),
        (AFTER, 200),
        ("?", 200),
    ],
)
def test_if_unmodified_since(date: str, expected: int) -> None:
    assert evaluate_preconditions({"if-unmodified-since": date}, XYZZY) == expected
    assert evaluate_preconditions({"if-unmodified-since": date}, UNKNOWN) == 200


def test_if_match_comes_before_if_none_match() -> None:
    fields = {"if-match": '"other"', "if-none-match": '"xyzzy"'}
    assert evaluate_preconditions(fields, XYZZY) == 412
    assert evaluate_preconditions({**fields, "if-match": "*"}, XYZZY) == 304


@pytest.mark.parametrize("name", ["If-Match", "If-Unmodified-Since"])
def test_what_fails_is_412_and_says_what(name: str) -> None:
    value = {"If-Match": '"other"', "If-Unmodified-Since": BEFORE}[name]
    with pytest.raises(HTTPException, match=name) as raised:
        check_preconditions({name.lower(): value}, XYZZY)
    assert raised.value.status == 412
    assert raised.value.headers["etag"] == '"xyzzy"'


def test_what_passes_says_whether_it_is_modified() -> None:
    assert check_preconditions({"if-none-match": '"xyzzy"'}, XYZZY)
    assert not check_preconditions({"if-none-match": '"other"'}, XYZZY)


@pytest.mark.parametrize(
    ("condition", "applies"),
    [
        ('"xyzzy"', True),
        (' "xyzzy" ', True),
        ('W/"xyzzy"', False),
        ('"other"', False),
        ('"xyzzy", "other"', False),
        ("*", False),
        (AT, True),
        (BEFORE, False),
        (AFTER, False),
        ("", False),
    ],
)
def test_if_range(condition: str, applies: bool) -> None:
    assert is_range_applicable({"if-range": condition}, XYZZY) is applies
    assert is_range_applicable({"if-range": condition}, UNKNOWN) is False
    assert is_range_applicable({}, UNKNOWN)
    expected = ByteRange(0, 2) if applies else None
    fields = {"if-range": condition, "range": "bytes=0-1"}
    assert choose_range(fields, XYZZY, 10) == expected
    assert choose_range({"if-range": condition}, XYZZY, 10) is None


def test_a_date_is_sent_only_when_no_later_change_can_have_it() -> None:
    second = 1_000_000_000
    at = NOON * second + 900_000_000
    assert Validators.from_times('"a"', at, at, at + 50_000_000) == Validators('"a"')
    assert Validators.from_times('"a"', at, at, at + second) == Validators('"a"', NOON, NOON)
    assert Validators.from_times('"a"', at + 9 * second, at, at) == Validators('"a"')
    assert Validators.from_times('"a"', -1, at, at + second) == Validators('"a"')
    moved = Validators.from_times('"a"', at, at + 5 * second, at + 9 * second)
    assert moved == Validators('"a"', NOON, NOON + 5)


def test_the_headers_of_validators() -> None:
    assert XYZZY.to_headers() == {"etag": '"xyzzy"', "last-modified": AT}
    assert UNKNOWN.to_headers() == {}


def test_another_coding_has_another_tag() -> None:
    coded = XYZZY.with_coding("gzip")
    assert coded == Validators('"xyzzy-gzip"', NOON, NOON)
    assert evaluate_preconditions({"if-none-match": '"xyzzy"'}, coded) == 200
    assert XYZZY.with_coding(None) == XYZZY
    assert UNKNOWN.with_coding("gzip") == UNKNOWN


def test_what_a_304_keeps() -> None:
    headers = {
        "content-type": "text/csv",
        "content-length": "5",
        "content-encoding": "gzip",
        "etag": '"a"',
        "last-modified": AT,
        "cache-control": "no-cache",
        "vary": "accept",
    }
    kept = {"etag", "last-modified", "cache-control", "vary"}
    assert select_304_headers(headers) == {name: headers[name] for name in kept}


TEXT = st.text(st.sampled_from('"W/*, \\abc;=\x7f\xff'))


@given(TEXT, TEXT, TEXT)
def test_no_field_breaks_it(first: str, second: str, third: str) -> None:
    fields = {"if-match": first, "if-none-match": second, "if-modified-since": third}
    assert evaluate_preconditions(fields, XYZZY) in {200, 304, 412}
    is_range_applicable({"if-range": first}, XYZZY)


@pytest.mark.parametrize("part", ['"', 'W/"', 'W/"a', ",", '"a",'])
def test_long_hostile_fields_take_linear_time(part: str) -> None:
    started = time.thread_time()
    evaluate_preconditions({"if-none-match": part * 20_000}, XYZZY)
    assert time.thread_time() - started < 1
