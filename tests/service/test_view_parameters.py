"""Parameters of views and histograms: what is accepted, and what the errors say."""

from typing import Any

import pytest

from asgihive.errors import BadParameter
from asgihive.hdf5.statistics import MAX_BINS, ValueRange
from asgihive.hdf5.views import Method, ViewRequest
from asgihive.service.parameters import DEFAULT_BINS
from asgihive.service.requests import ReadRequest, read_request
from tests.asgi.exchange import http


def parse(route: str, query: str) -> ReadRequest:
    return read_request(http(f"/{route}?file=a.h5&{query}").scope, route)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", None),
        ("max_points=&shape=&method=", None),
        ("max_points=2000", ViewRequest(2000)),
        ("max_points=2000&method=minmax", ViewRequest(2000, method=Method.MINMAX)),
        ("shape=3", ViewRequest(shape=(3,))),
        ("shape=300,%20400&method=max", ViewRequest(shape=(300, 400), method=Method.MAX)),
    ],
)
def test_views(query: str, expected: ViewRequest | None) -> None:
    assert parse("data", query).view == expected


@pytest.mark.parametrize(
    ("query", "parameter", "sentence"),
    [
        ("max_points=0", "max_points", "`0`: a whole number of at least 1 is accepted"),
        ("max_points=-1", "max_points", "`-1`: a whole number"),
        ("max_points=1e3", "max_points", "`1e3`: a whole number"),
        ("max_points=%D9%A3", "max_points", "a whole number"),
        (f"max_points={'9' * 20}", "max_points", "a whole number"),
        ("shape=3,", "shape", "`3,`: comma-separated whole numbers of at least 1"),
        ("shape=3,0", "shape", "`3,0`: comma-separated"),
        ("shape=3x4", "shape", "`3x4`: comma-separated"),
        ("max_points=9&shape=3", "shape", "not accepted together with max_points"),
        ("method=mean", "method", "`mean`: it is accepted with max_points or shape only"),
        ("max_points=9&method=median", "method", "`median`: mean, min, max, minmax, nearest are"),
    ],
)
def test_views_that_are_refused(query: str, parameter: str, sentence: str) -> None:
    with pytest.raises(BadParameter) as caught:
        parse("data", query)
    assert caught.value.parameter == parameter
    assert f"Parameter `{parameter}` is" in str(caught.value)
    assert sentence in str(caught.value)


def histogram(query: str) -> dict[str, Any]:
    return dict(parse("histogram", query).values)


@pytest.mark.parametrize(
    ("query", "low", "high"),
    [
        ("0,1", 0, 1),
        ("-1.5,+2e3", -1.5, 2000.0),
        (".5, 1.", 0.5, 1.0),
        ("-9223372036854775808,18446744073709551615", -(2**63), 2**64 - 1),
        ("0,18446744073709551616", 0, 2.0**64),
    ],
)
def test_ranges(query: str, low: float, high: float) -> None:
    found = histogram(f"range={query.replace('+', '%2B')}")["range"]
    assert found == ValueRange(low, high)
    assert [type(x) for x in (found.low, found.high)] == [type(low), type(high)]


def test_bins() -> None:
    assert histogram("") == histogram("bins=&range=")
    assert histogram("")["bins"] == DEFAULT_BINS
    assert histogram("")["range"] is None
    assert histogram(f"bins={MAX_BINS}")["bins"] == MAX_BINS
    assert histogram("selection=2,:")["selection"] == "2,:"


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        *((f"bins={text}", "bins") for text in ("0", "-3", "2.5", "ten", str(MAX_BINS + 1))),
        *(
            (f"range={text}", "range")
            for text in ("1", "1,", ",", "1,2,3", "2,1", "1,1", "nan,1", "0,inf", "0,1e999", "a,b")
        ),
    ],
)
def test_bins_and_ranges_that_are_refused(query: str, parameter: str) -> None:
    accepted = {
        "bins": f"a whole number from 1 to {MAX_BINS} is accepted",
        "range": "two finite numbers `min,max`, min below max, are accepted",
    }[parameter]
    with pytest.raises(BadParameter) as caught:
        histogram(query)
    assert str(caught.value) == f"Parameter `{parameter}` is `{query.split('=')[1]}`: {accepted}"
