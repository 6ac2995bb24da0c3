"""The soak sees what is wrong: its truth, its judgement, and a whole short run of it."""

import http.server
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest

from benchmarks.servers import REPOSITORY
from benchmarks.soak import figures
from benchmarks.soak.clients import Client, Record, Wrong
from benchmarks.soak.files import AWAY, CUT_OFF, Folder, History, content
from benchmarks.soak.processes import Sample, trend
from benchmarks.soak.questions import QUESTIONS


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that a history sees."""
    now = [0.0]
    monkeypatch.setattr("benchmarks.soak.files.time.monotonic", lambda: now[0])
    return now


def _history(clock: list[float]) -> History:
    """Version 1 from the first second on, 2 from 11, none from 21 to 31, cut off from 41."""
    history = History()
    for at, version in ((0, 1), (10, 2), (20, AWAY), (30, 3), (40, CUT_OFF)):
        clock[0] = at
        history.begin(version)
        clock[0] = at + 1
        history.end()
    return history


def test_what_a_file_was_when(clock: list[float]) -> None:
    history = _history(clock)
    for began, ended, versions in [
        (2, 9, {1}),
        (2, 10, {1, 2}),
        (10.5, 10.6, {1, 2}),
        (11.5, 19, {2}),
        (19, 35, {2, AWAY, 3}),
        (25, 26, {AWAY}),
        (42, 99, {CUT_OFF}),
        (2, 99, {1, 2, AWAY, 3, CUT_OFF}),
    ]:
        assert history.versions(began, ended) == versions, (began, ended)
    assert not history.changed(0, 9)  # that it came to be is no change
    assert history.changed(9, 10)
    assert history.changed(10.5, 10.6)
    assert not history.changed(12, 19)


def test_a_change_that_goes_on_is_both(clock: list[float]) -> None:
    history = _history(clock)
    clock[0] = 50
    history.begin(4)
    assert history.versions(60, 61) == {CUT_OFF, 4}
    assert history.changed(60, 61)


def test_a_version_is_the_same_bytes_again() -> None:
    content.cache_clear()
    once = content(7)
    content.cache_clear()
    assert content(7) == once
    assert content(8) != once


@contextmanager
def _answering(status: int, answers: dict[str, bytes]) -> Iterator[int]:
    """A server that answers by route, whatever is asked of it; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            target = urlsplit(self.path)
            body = answers[parse_qs(target.query).get("format", [target.path])[0]]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def _asked(folder: Folder, kind: str, status: int, answers: dict[str, bytes]) -> Record:
    """What a client found that asked for each of some versions."""
    record = Record()
    with _answering(status, answers) as port:
        client = Client(port, folder, record, 1)
        QUESTIONS[kind][1](client, kind)
        client.close()
    return record


@pytest.mark.parametrize(
    ("kind", "answers"),
    [
        ("attr", {"/attr": b'{"version":23}'}),
        ("json", {"/data": orjson.dumps([1, 1, 2])}),
        ("stats", {"/stats": b'{"min":1,"max":2,"mean":1.5}'}),
        ("bin, chunked", {"bin": b"\1" * 5}),
        ("meta", {"/meta": b'{"children":[{"name":"version_2","shape":[300]}]}'}),
        ("file", {"/file": b"no such file"}),
        ("files", {"/files": b'{"entries":[]}'}),
        ("download", {"bin": b"\0" * 100}),
    ],
)
def test_an_answer_that_was_never_true_is_wrong(
    folder: Folder, kind: str, answers: dict[str, bytes]
) -> None:
    with pytest.raises(Wrong):
        _asked(folder, kind, 200, answers)


@pytest.mark.parametrize("status", [404, 422, 500, 503, 504])
def test_an_error_without_a_reason_is_wrong(folder: Folder, status: int) -> None:
    with pytest.raises(Wrong, match=str(status)):
        _asked(folder, "attr", status, {"/attr": b'{"message":"x"}'})


def test_304_that_nobody_asked_for_is_wrong(folder: Folder) -> None:
    with pytest.raises(Wrong, match="not asked for"):
        _asked(folder, "attr", 304, {"/attr": b""})


def test_a_broken_connection_is_wrong_unless_a_worker_was_killed(folder: Folder) -> None:
    client = Client(1, folder, Record(), 1)  # where no server listens
    with pytest.raises(Wrong, match="ConnectionRefused"):
        QUESTIONS["attr"][1](client, "attr")
    client.record.kills.append(client._connected)
    QUESTIONS["attr"][1](client, "attr")
    assert client.record.tallies["attr"].outcomes == {"broken off": 2}


def test_a_trend_is_the_line_through_the_points() -> None:
    found = trend([(60.0 * minute, 100 + 3.0 * minute) for minute in range(11)])
    assert found.per_minute == pytest.approx(3)
    assert found.growth == pytest.approx(30)
    assert (found.first, found.last) == (100 + 1.5, 100 + 28.5)
    flat = trend([(float(second), 5.0 + second % 2) for second in range(100)])
    assert abs(flat.growth) < 0.2


def _samples(**growth: float) -> list[Sample]:
    return [
        Sample(
            seconds=60.0 * minute,
            memory_bytes=(100 << 20) + growth.get("memory", 0) * minute,
            descriptors=30 + growth.get("descriptors", 0) * minute,
            threads=10 + growth.get("threads", 0) * minute,
        )
        for minute in range(11)
    ]


def test_what_grows_is_a_problem() -> None:
    record = Record()
    record.add("attr", "200", 0.01, 100)
    assert figures.problems(record, {1: _samples()}, []) == []
    for name, growth in (("memory", 5 << 20), ("descriptors", 2), ("threads", 1)):
        [found] = figures.problems(record, {7: _samples(**{name: growth})}, [])
        assert "worker 7" in found
        assert name in found
    [found] = figures.problems(record, {7: _samples(memory=100 << 20)[-3:] * 4}, [])
    assert "memory is up to 1100 MiB" in found
    # What rises in a minute may still come to rest.
    assert figures.problems(record, {7: _samples(memory=20 << 20)[:3] * 4}, []) == []
    assert "too short" in figures.problems(record, {1: _samples()[:3]}, [])[0]
    assert "still open at the end: /x.h5" in figures.problems(record, {}, ["/x.h5"])
    record.blame("attr", "version {3}")
    assert "attr: version {3}" in figures.problems(record, {}, [])
    assert figures.problems(Record(), {}, []) == ["nothing was asked"]


def test_the_tables_show_all_of_it() -> None:
    record = Record()
    for seconds in (0.01, 0.02, 0.03):
        record.add("attr", "200", seconds, 100)
    record.add("attr", "503", 0.04)
    assert re.search(r"attr +4 +3 x 200, 1 x 503 .*40\.0 ms", figures.render_answers(record))
    assert "memory MiB" in figures.render_processes({1: _samples()})


@pytest.mark.slow
def test_a_short_run_finds_no_wrong_answer() -> None:
    """Twenty seconds are too short for what is flat, if at all, and for nothing else."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", "--seconds", "20"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    problems = re.findall("WRONG: (.*)", done.stdout)
    assert all(re.search("grow by|too short", each) for each in problems), done.stdout
    assert "3 workers killed; 0 wrong answers" in done.stdout, done.stdout + done.stderr
