"""A run goes on behind whatever ends its processes, and tells of it."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.asgi.exchange import Exchange, http
from tests.fuzz import runs
from tests.fuzz.asking import Effort
from tests.fuzz.judging import complaint

JSON = b"application/json"


@pytest.mark.slow
def test_deaths_are_counted_and_the_next_seed_is_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "MODULE", "tests.fuzz.dying")
    monkeypatch.setattr(runs, "PATIENCE", 1.0)
    report = runs.fuzz(tmp_path, 0, 8, Effort(seconds=0.1), jobs=2)
    assert (report.mutants, report.requests) == (8, 8)
    assert report.statuses == {"200": 10}
    assert [(each.seed, each.how) for each in report.deaths] == [
        (1, "SIGABRT"),
        (2, "SIGABRT"),
        (4, "hung"),
    ]
    assert "dying.py" in report.deaths[0].frames[0]
    assert "crash_in_a_decoder" in report.deaths[0].frames[0]
    assert not any(each.is_ours for each in report.deaths)
    [line] = report.failures
    assert "it is blue: seed 5 (a.h5), /meta?seed=5" in line
    assert "ValueError: blue" in line
    assert "crashes, hangs and stalls of the process: 3" in str(report)
    assert "hung: seed 4 (a.h5), /meta?seed=4" in str(report)


def test_a_crash_in_a_decoder_is_a_failure() -> None:
    ours = runs.Death(3, "a.h5", "/data", "SIGSEGV", ("codecs.py:12 lz4", "chunks.py:9 read"))
    theirs = runs.Death(4, "a.h5", "/data", "SIGSEGV", ("links.py:12 walk", "codecs.py:1 x"))
    assert runs.Report(deaths=[ours, theirs]).failures == [str(ours)]


def test_what_fails_by_itself_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "MODULE", "tests.fuzz.there_is_no_such_module")
    with pytest.raises(RuntimeError, match="there_is_no_such_module"):
        runs.fuzz(tmp_path, 0, 1, Effort())


def _answered(
    status: int, body: bytes, *headers: tuple[bytes, bytes], end: bool = True
) -> Exchange:
    exchange = http("/data")
    exchange.sent = [
        {"type": "http.response.start", "status": status, "headers": list(headers)},
        {"type": "http.response.body", "body": body, "more_body": not end},
    ]
    return exchange


@pytest.mark.parametrize(
    ("exchange", "problem"),
    [
        (_answered(200, b"[1]", (b"content-type", JSON)), None),
        (_answered(404, b'{"message":"x"}', (b"content-type", JSON)), None),
        (_answered(500, b'{"message":"Damaged data in x"}', (b"content-type", JSON)), None),
        (_answered(500, b'{"message":"Internal"}', (b"content-type", JSON)), "500: Internal"),
        (_answered(503, b'{"message":"x"}', (b"content-type", JSON)), "the status is 503"),
        (_answered(422, b"no", (b"content-type", b"text/plain")), "an error is text/plain"),
        (_answered(422, b"{}", (b"content-type", JSON)), "without its message"),
        (_answered(200, b"[NaN]", (b"content-type", JSON)), "not JSON"),
        (_answered(200, b"a", (b"content-type", b"text/csv")), "not application/json"),
        (
            _answered(200, b"[1]", (b"content-type", JSON), (b"content-length", b"4")),
            "Content-Length is 4",
        ),
        (_answered(200, b"[1]", (b"content-type", JSON), end=False), "no end"),
    ],
)
def test_answers_are_judged(exchange: Exchange, problem: str | None) -> None:
    found = complaint(exchange, "json", None)
    assert found is None if problem is None else found is not None and problem in found


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ([{"status": 200, "body": [1]}, {"status": 422, "body": {"message": "x"}}], None),
        ([{"status": 200, "body": [1]}], "a batch of 2 is answered by"),
        ({"message": "x"}, "a batch of 2 is answered by"),
        ([{"status": 200, "body": 1}, {"status": 200}], "member 1 of the batch is"),
        ([{"status": 503, "body": {"message": "x"}}, None], "member 0 of the batch: the status"),
        ([{"status": 422, "body": "x"}, None], "an error without its message"),
        ([{"status": 500, "body": {"message": "Internal"}}, None], "500: Internal"),
    ],
)
def test_batches_are_judged_by_their_members(members: Any, problem: str | None) -> None:
    exchange = _answered(200, orjson.dumps(members), (b"content-type", JSON))
    found = complaint(exchange, "batch", None, members=2)
    assert found is None if problem is None else found is not None and problem in found


def test_what_escapes_is_judged() -> None:
    begun = _answered(200, b"[1", (b"content-type", JSON), end=False)
    assert complaint(begun, "json", ValueError("x")) == "ValueError escaped: x"
    assert orjson.dumps(complaint(http("/data"), "json", TimeoutError())) != b"null"
