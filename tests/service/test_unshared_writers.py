"""Files that a writer holds open without SWMR, and those that it left so when it died."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import h5py
import pytest

from asgihive.hdf5 import swmr
from asgihive.service import H5App
from tests.asgi.exchange import Exchange
from tests.service.asking import ask

pytestmark = pytest.mark.anyio

_WRITE = """
import sys, h5py
file = h5py.File(sys.argv[1], sys.argv[2], libver="latest", locking=sys.argv[3] == "locks")
file.require_dataset("x", (), "i4")[...] = 7
if sys.argv[4] == "flushed":
    file.flush()
print("ready", flush=True)
sys.stdin.readline()
file.close()
"""

Writing = Callable[..., AbstractContextManager[subprocess.Popen[str]]]


@contextmanager
def writing(
    file: Path, locks: str, mode: str = "w", state: str = "flushed"
) -> Iterator[subprocess.Popen[str]]:
    """A program that has `file` open for writing until it reads a line, or is killed."""
    command = [sys.executable, "-c", _WRITE, str(file), mode, locks, state]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            yield writer
        finally:
            writer.kill()


def message(answer: Exchange) -> str:
    text: str = json.loads(answer.body)["message"]
    return text


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "x.h5"


@pytest.mark.parametrize("locks", ["locks", "no locks"])
@pytest.mark.slow_on_trio
async def test_while_it_writes_and_after_it_closed(file: Path, locks: str) -> None:
    app = H5App(file.parent)
    with writing(file, locks) as writer:
        for _ in range(2):
            answer = await ask(app, "/meta")
            assert answer.status == 503, answer.body
            assert int(answer.headers["retry-after"]) >= 1
            assert "is being written" in message(answer)
            assert "SWMR" in message(answer)
            assert "h5clear" not in message(answer)
        writer.communicate("\n")
    answer = await ask(app, "/data", path="/x")
    assert (answer.status, answer.body) == (200, b"7")


@pytest.mark.parametrize("locks", ["locks", "no locks"])
@pytest.mark.slow_on_trio
async def test_after_it_died(file: Path, locks: str) -> None:
    app = H5App(file.parent)
    with writing(file, locks) as writer:
        assert (await ask(app, "/meta")).status == 503
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    answer = await ask(app, "/meta")
    assert answer.status == 422
    assert "not a readable HDF5 file" in message(answer)
    assert "h5clear" in message(answer)


@pytest.mark.slow_on_trio
async def test_a_file_that_is_opened_again_for_writing(file: Path) -> None:
    """Clients get what was read before: the file changes when its flags are set."""
    with h5py.File(file, "w", libver="latest") as first:
        first["x"] = 7
    app = H5App(file.parent)
    assert (await ask(app, "/data", path="/x")).status == 200
    with writing(file, "locks", "r+"):
        assert (await ask(app, "/data", path="/x")).status == 503


@pytest.mark.slow_on_trio
async def test_a_link_to_such_a_file_passes_the_condition_on(file: Path) -> None:
    with h5py.File(file.with_name("links.h5"), "w") as links:
        links["link"] = h5py.ExternalLink("x.h5", "/x")
        links["own"] = 1
    app = H5App(file.parent)
    with writing(file, "locks") as writer:
        assert (await ask(app, "/data", file="links.h5", path="/link")).status == 503
        listed = await ask(app, "/meta", file="links.h5")
        assert [each["name"] for each in json.loads(listed.body)["children"]] == ["link", "own"]
        writer.communicate("\n")
    assert (await ask(app, "/data", file="links.h5", path="/link")).body == b"7"
    # Nothing of what was said meanwhile was kept.
    listed = await ask(app, "/meta", file="links.h5")
    assert json.loads(listed.body)["children"][0]["kind"] == "dataset"


async def test_what_is_no_hdf5_stays_so_while_it_is_written(file: Path) -> None:
    app = H5App(file.parent)
    with file.open("w") as log:
        log.write("a log\n")
        log.flush()
        answer = await ask(app, "/meta")
    assert answer.status == 422


async def test_damage_without_a_writer_is_told_as_such(file: Path) -> None:
    with h5py.File(file, "w", libver="latest") as whole:
        whole["x"] = list(range(1000))
    os.truncate(file, os.stat(file).st_size // 2)
    answer = await ask(H5App(file.parent), "/meta")
    assert answer.status == 422
    assert "h5clear" not in message(answer)


@pytest.mark.parametrize(("age", "status"), [(1, 503), (swmr.SILENT_SECONDS + 1, 422)])
@pytest.mark.slow_on_trio
async def test_where_the_system_does_not_tell_the_time_of_writing_does(
    file: Path, monkeypatch: pytest.MonkeyPatch, age: float, status: int
) -> None:
    """A network file system, or a file of another user."""
    monkeypatch.setattr(swmr, "find_file_system", lambda device: "nfs4")
    with writing(file, "no locks"):
        written = time.time() - age
        os.utime(file, (written, written))
        answer = await ask(H5App(file.parent), "/meta")
        assert answer.status == status
        assert ("h5clear" in message(answer)) == (status == 422)
        if status == 422:
            assert "if no program writes it any more" in message(answer)
