"""The query parser against `urllib.parse`, and every byte against itself."""

from urllib.parse import parse_qsl, quote_from_bytes, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgihive.asgi import parse_query
from asgihive.asgi.request_fields import find_header, join_headers
from asgihive.errors import BadParameter
from tests.asgi.exchange import http


@given(st.text(st.one_of(st.sampled_from("%&=+;0aAfF"), st.characters(exclude_categories=["Cs"]))))
def test_it_reads_what_urllib_reads(text: str) -> None:
    expected: dict[str, list[str]] = {}
    for name, value in parse_qsl(text, keep_blank_values=True, errors="surrogateescape"):
        expected.setdefault(name, []).append(value)
    assert parse_query(text.encode()) == expected


@given(st.lists(st.tuples(st.text(), st.text()), max_size=20))
def test_it_reads_what_urllib_writes(pairs: list[tuple[str, str]]) -> None:
    query = parse_query(urlencode(pairs, errors="surrogatepass").encode())
    for name, _ in pairs:
        written = [value for key, value in pairs if key == name]
        wanted = [_escaped(value) for value in written]
        assert query[_escaped(name)] == wanted


def _escaped(text: str) -> str:
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")


@given(st.binary())
def test_every_byte_comes_back(value: bytes) -> None:
    for raw in (quote_from_bytes(value).encode(), b"".join(b"%%%02x" % each for each in value)):
        [read] = parse_query(b"file=" + raw)["file"]
        assert read.encode("utf-8", "surrogateescape") == value


def test_blank_and_missing_values_differ() -> None:
    query = parse_query(b"file=&path&&=x")
    assert query == {"file": [""], "path": [""], "": ["x"]}
    assert parse_query(b"") == {}


def test_malformed_percent_sequences_stay() -> None:
    assert parse_query(b"a=%&b=%4&c=%zz&d=%41") == {
        "a": ["%"],
        "b": ["%4"],
        "c": ["%zz"],
        "d": ["A"],
    }


def test_the_number_of_fields_is_bounded() -> None:
    assert len(parse_query(b"&".join([b"a"] * 1000))["a"]) == 1000
    with pytest.raises(BadParameter, match="at most 1000"):
        parse_query(b"&" * 1000)


def test_headers_are_found_and_joined() -> None:
    headers = [(b"accept", b"a/b"), (b"host", b"h\xe9re"), (b"accept", b"c/d;q=0.5")]
    scope = http(headers=headers).scope
    assert find_header(scope, b"host") == "h\xe9re"
    assert find_header(scope, b"accept") == "a/b"
    assert find_header(scope, b"cookie") is None
    assert join_headers(scope, b"accept") == "a/b, c/d;q=0.5"
    assert join_headers(scope, b"cookie") == ""
