"""The questions without files: their applications, served for real, and what holds them right."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import data
from benchmarks.client import BenchmarkError, make_request
from benchmarks.exchanges import Exchange, ExchangeQuestion
from benchmarks.load import AsyncioLoad, Load, WrkLoad, choose_load
from benchmarks.question import Turn
from benchmarks.questions import QUESTIONS as ALL
from benchmarks.questions import hive_plain, hive_startup, typed_handler
from benchmarks.servers import CEILING, Server, on_uvicorn, running, without_server

QUESTIONS = [each for each in ALL if isinstance(each, ExchangeQuestion)]


@contextmanager
def served(app: str, directory: Path) -> Iterator[Server]:
    with running({"subject": on_uvicorn(app)}, directory, {}) as (server,):
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("question", QUESTIONS, ids=[each.name for each in QUESTIONS])
def test_every_server_of_a_question_gives_the_right_answers(
    question: ExchangeQuestion, tmp_path: Path
) -> None:
    launches = {name: each for name, each in question.servers.items() if name != CEILING}
    with running(launches, tmp_path, question.environment) as servers:
        question.verify(servers)
    peers = {figure.peer for figure in question.figures}
    assert peers | {"asgihive"} == set(launches)


def test_a_wrong_answer_ends_the_run(tmp_path: Path) -> None:
    exchanges = [Exchange(make_request("/greetings/1"), {"greeting": "2"})]
    question = replace(hive_plain.QUESTION, exchanges=exchanges)
    with (
        served("hive_plain", tmp_path) as server,
        pytest.raises(BenchmarkError, match=r"^subject: wrong answer .*GET /greetings/1 "),
    ):
        question.verify([server])


@pytest.mark.slow
@pytest.mark.parametrize(
    "load", {load.name: load for load in (choose_load(), AsyncioLoad())}.values()
)
def test_loads_send_the_requests_as_they_are(load: Load, tmp_path: Path) -> None:
    assert isinstance(load, WrkLoad | AsyncioLoad)
    with served("hive_typed", tmp_path) as server:
        measured = typed_handler.QUESTION.measure(server, Turn(load, 1, 0))
        assert measured["requests"] > 0
        with pytest.raises(BenchmarkError):
            load.requests_per_second(server.port, [make_request("/missing")], 1, 0)


def test_a_server_that_cannot_start_is_named(tmp_path: Path) -> None:
    launches = {"nobody": on_uvicorn("no_such_module")}
    with (
        pytest.raises(BenchmarkError, match="nobody did not start"),
        running(launches, tmp_path, {}),
    ):
        pytest.fail("it did start")


@pytest.mark.slow
def test_start_of_many_endpoints(tmp_path: Path) -> None:
    question = hive_startup.HiveStartup()
    question.prepare(data.DataFolder(tmp_path))
    with running({"asgihive": without_server}, tmp_path, {}) as (server,):
        measured = question.measure(server, Turn(AsyncioLoad(), 1, 0))
    assert measured.keys() == {figure.name for figure in question.figures}
    assert all(value > 0 for value in measured.values())


def test_request_with_a_body() -> None:
    head, _, body = make_request("/a?b=1", "POST", b'{"c":2}').partition(b"\r\n\r\n")
    assert body == b'{"c":2}'
    assert head.splitlines()[0] == b"POST /a?b=1 HTTP/1.1"
    assert b"Content-Length: 7" in head.splitlines()
