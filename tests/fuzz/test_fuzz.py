"""Damaged files over HTTP: an answer of the contract, in time, whatever is in them.

A file may crash libhdf5, and so the process that reads it. That is not the service's fault, is
counted, and printed with the seed; with isolation not even that reaches a client.

`ASGIHIVE_FUZZ_MUTANTS` is how many the long run makes, `ASGIHIVE_FUZZ_SEED` the first seed.
"""

import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import zoo
from tests.cli.processes import running
from tests.fuzz.asking import Effort, name_of, sources
from tests.fuzz.mutations import mutant
from tests.fuzz.runs import Report, fuzz
from tests.service.servers import client

MANY = int(os.environ.get("ASGIHIVE_FUZZ_MUTANTS", "2000"))
SEED = int(os.environ.get("ASGIHIVE_FUZZ_SEED", "0"))
FEW = 200

# Of HTTP itself the zoo's damage says nothing: a few show that a server sends what is answered.
ON_A_SOCKET = 12

# By seed: metadata that was read again for ever, since libhdf5 was told that a writer is there;
# links and attributes that cannot be listed; a file whose damage libhdf5 reports as it is closed.
ONCE_WRONG = (14, 734, 1837, 841, 1259, 10115)

STATUSES = {200, 404, 413, 422, 500, 501, 504}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    zoo.build(tmp_path)
    return tmp_path


def _judge(report: Report, count: int) -> None:
    print(report)
    assert not report.failures, str(report)
    assert report.mutants == count
    # They are neither so damaged that nothing is read, nor so little that all is.
    assert report.statuses["200"] > count
    assert report.statuses["422"] > count


def test_a_few(root: Path) -> None:
    _judge(fuzz(root, SEED, FEW, Effort(requests=9)), FEW)


@pytest.mark.slow
def test_many(root: Path) -> None:
    _judge(fuzz(root, SEED, MANY, Effort(requests=40), jobs=2), MANY)


@pytest.mark.slow
@pytest.mark.parametrize("seed", ONCE_WRONG)
def test_what_was_wrong_once(root: Path, seed: int) -> None:
    report = fuzz(root, seed, 1, Effort())
    assert not report.failures, str(report)
    assert not report.deaths, str(report)


@pytest.mark.slow
def test_not_even_a_crash_reaches_a_client_in_isolation(root: Path) -> None:
    report = fuzz(root, SEED, MANY, Effort(requests=20, isolation="process"), jobs=2)
    _judge(report, MANY)
    assert not report.deaths, str(report)


@pytest.mark.slow
def test_over_a_socket(root: Path) -> None:
    known = sources(root)
    for seed in range(SEED, SEED + ON_A_SOCKET):
        (root / name_of(seed)).write_bytes(mutant(known, seed).content)
    with (
        running("serve", str(root), "--port", "0", "--isolation", "process") as server,
        client(server.url) as asker,
    ):
        for seed in range(SEED, SEED + ON_A_SOCKET):
            for route, query in _requests(name_of(seed)):
                _check(asker.get(route, params=query))
        # And what is sound is still served.
        assert asker.get("/meta", params={"file": "latest.h5"}).status_code == 200


def _requests(file: str) -> list[tuple[str, dict[str, Any]]]:
    return [
        *((route, {"file": file}) for route in ("/meta", "/paths", "/attr", "/file")),
        *(("/data", {"file": file, "path": path}) for path in ("contiguous", "/many", "/data")),
        ("/stats", {"file": file, "path": "/chunked"}),
    ]


def _check(answer: httpx.Response) -> None:
    assert answer.status_code in STATUSES, answer.text
    if answer.status_code != 200:
        assert answer.headers["content-type"] == "application/json"
        assert answer.json().keys() == {"message"}
