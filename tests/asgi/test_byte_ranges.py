"""`Range` against RFC 9110 §14."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgihive.asgi import HTTPException
from asgihive.asgi.request_fields import ByteRange, parse_byte_range


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        # The examples of §14.1.2, of 10,000 bytes.
        ("bytes=0-499", (0, 500)),
        ("bytes=500-999", (500, 1000)),
        ("bytes=-500", (9500, 10_000)),
        ("bytes=9500-", (9500, 10_000)),
        ("bytes=0-0", (0, 1)),
        ("bytes=9999-9999", (9999, 10_000)),
        ("bytes=0-", (0, 10_000)),
        ("bytes=0-99999", (0, 10_000)),
        ("bytes=-99999", (0, 10_000)),
        ("Bytes=1-2", (1, 3)),
        ("bytes= ,1-2 ,,", (1, 3)),
        ("bytes=00000000000000000000000000001-2", (1, 3)),
        ("bytes=1-" + "9" * 10_000, (1, 10_000)),
        ("bytes=-" + "9" * 10_000, (0, 10_000)),
    ],
)
def test_one_range(value: str, expected: tuple[int, int]) -> None:
    assert parse_byte_range(value, 10_000) == ByteRange(*expected)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        # Several are answered by the whole.
        "bytes=0-0,-1",
        "bytes=500-600,601-999",
        "bytes=500-700,601-999",
        "bytes=0-1, bytes=2-3",
        # Malformed, or of another unit: as if it were not there (§14.2).
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=,",
        "bytes=2-1",
        "bytes=1",
        "bytes=a-b",
        "bytes=1-2x",
        "bytes=+1-2",
        "bytes=1--2",
        "bytes=0x1-2",
        "bytes=\u0661-\u0662",
        "bytes 0-1",
        "lines=0-1",
        " bytes=0-1",
    ],
)
def test_what_is_answered_by_the_whole(value: str | None) -> None:
    assert parse_byte_range(value, 10_000) is None


@pytest.mark.parametrize(
    "value", ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=" + "9" * 99 + "-"]
)
def test_what_cannot_be_satisfied(value: str) -> None:
    with pytest.raises(HTTPException, match="bytes 0 to 9 are there") as raised:
        parse_byte_range(value, 10)
    assert raised.value.status == 416
    assert raised.value.headers["content-range"] == "bytes */10"


def test_of_an_empty_body() -> None:
    assert parse_byte_range("bytes=-5", 0) is None
    with pytest.raises(HTTPException, match="it is empty") as raised:
        parse_byte_range("bytes=0-", 0)
    assert raised.value.headers["content-range"] == "bytes */0"


def test_content_range() -> None:
    # §14.4
    assert ByteRange(42, 1234).format_content_range(1234) == "bytes 42-1233/1234"
    assert ByteRange(42, 1234).length == 1192


@given(st.integers(1, 1000), st.integers(0, 1200), st.integers(0, 1200))
def test_as_a_slice(size: int, first: int, last: int) -> None:
    body = bytes(index % 251 for index in range(size))
    try:
        found = parse_byte_range(f"bytes={first}-{last}", size)
    except HTTPException:
        assert first >= size
        return
    if last < first:
        assert found is None
    else:
        assert found is not None
        assert body[found.start : found.stop] == body[first : last + 1]
        assert found.length > 0


@given(st.text(st.sampled_from("bytes=0123456789-, \t")), st.integers(0, 100))
def test_no_field_breaks_it(text: str, size: int) -> None:
    for value in (text, f"bytes={text}"):
        with contextlib.suppress(HTTPException):
            found = parse_byte_range(value, size)
            assert found is None or 0 <= found.start < found.stop <= size
