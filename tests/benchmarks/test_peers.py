"""The peers that are no Python applications, the ceilings, and what holds their answers right."""

import sys
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from benchmarks import peers, rate, verify
from benchmarks.client import BenchmarkError, make_request
from benchmarks.data import DataFolder, Place
from benchmarks.kinds import nexus
from benchmarks.load import AsyncioLoad
from benchmarks.peers import decoders, hsds, nginx, programs, tiled
from benchmarks.peers.s3 import ServerOverS3
from benchmarks.question import HDF5_SERVERS, Turn
from benchmarks.questions import session
from benchmarks.servers import (
    CEILING,
    SUBJECT,
    Launch,
    Server,
    on_uvicorn,
    process,
    running,
    with_setting,
    without_server,
)

GZIP = "gzip_frames"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    """A folder with two stacks of three small gzip+shuffle frames."""
    folder = DataFolder(tmp_path_factory.mktemp("data"))

    def write(path: Path, random: np.random.Generator) -> None:
        for index in range(2):
            with h5py.File(path / f"{index}.h5", "w") as file:
                values = random.integers(100, size=(3, 32, 16), dtype=np.uint16)
                file.create_dataset(
                    "stack", data=values, chunks=(1, 32, 16), compression="gzip", shuffle=True
                )

    folder.require(GZIP, write)
    return folder


PLACES = [Place(f"{GZIP}/{index}.h5", "/stack", (frame,)) for index in (0, 1) for frame in range(3)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "launch", "requests"),
    [
        (nginx.NAME, nginx.launch, nginx.requests),
        (tiled.NAME, tiled.serving(GZIP), tiled.requests),
        (hsds.NAME, hsds.serving(GZIP), hsds.requests),
    ],
    ids=["nginx", "tiled", "hsds"],
)
def test_peer_sends_what_h5py_reads(
    data: DataFolder, name: str, launch: Launch, requests: rate.Requests
) -> None:
    if why := peers.missing().get(name):
        pytest.skip(why)
    nginx.write_files(data, PLACES)
    with running({name: launch}, data.root, {}) as (server,):
        for place, request in zip(PLACES, requests(server, PLACES), strict=True):
            verify.check_bytes([(server, request)], data, place)


@pytest.mark.slow
@pytest.mark.parametrize("app", ["asgihive", "s3fs_h5py"])
def test_servers_over_s3_send_what_h5py_reads(data: DataFolder, app: str) -> None:
    pytest.importorskip("s3fs", reason="the extra bench is not installed")
    if why := programs.missing("nginx"):
        pytest.skip(why)
    launch = ServerOverS3(app)
    with running({app: launch}, data.root, {}) as (server,):
        for place in PLACES:
            request = make_request(rate.values(place))
            verify.check_bytes([(server, request)], data, place)
        counted = launch.count()
    assert counted.requests > 0
    assert counted.sent >= sum(data.file(place).stat().st_size for place in PLACES[::3])


def test_decoders_alone_make_what_h5py_reads(data: DataFolder) -> None:
    for place in PLACES:
        assert decoders.decoded(data, place) == data.read(place).tobytes()


def test_decoders_alone_have_a_rate(data: DataFolder) -> None:
    assert decoders.frames_per_second(data, PLACES, 0.01, seed=0) > 0


@pytest.mark.slow
def test_servers_agree_on_all_that_a_session_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("h5grove")
    monkeypatch.setattr(nexus, "SESSIONS", 2)
    monkeypatch.setattr(nexus, "FILES", 1)
    question, folder = session.Session(), DataFolder(tmp_path)
    question.prepare(folder)
    with running(question.servers, folder.root, {}) as servers:
        question.verify([server for server in servers if server.name != CEILING])
        measured = question.measure(servers[0], Turn(AsyncioLoad(), 1, 0))
        assert measured.keys() == {figure.name for figure in question.figures}
        with pytest.raises(BenchmarkError, match=r"^ceiling: .* is not JSON"):
            question.verify(servers)


@pytest.mark.slow
def test_a_wrong_answer_of_a_server_ends_the_run(data: DataFolder) -> None:
    with running({SUBJECT: HDF5_SERVERS[SUBJECT]}, data.root, {}) as (server,):
        right = make_request(rate.values(PLACES[0]))
        verify.check_bytes([(server, right)], data, PLACES[0])
        with pytest.raises(BenchmarkError, match=r"^asgihive: wrong bytes for Place"):
            verify.check_bytes([(server, right)], data, PLACES[1])


@pytest.mark.slow
def test_statistics_are_held_against_the_frames(data: DataFolder) -> None:
    whole, other = (Place(f"{GZIP}/{index}.h5", "/stack") for index in (0, 1))
    with running({SUBJECT: HDF5_SERVERS[SUBJECT]}, data.root, {}) as (server,):
        request = make_request(whole.target("/stats"))
        verify.check_statistics([(server, request)], data, whole)
        with pytest.raises(BenchmarkError, match=r"^asgihive: (mean|std|min|max) of Place"):
            verify.check_statistics([(server, request)], data, other)


@pytest.mark.slow
def test_a_setting_reaches_the_server_that_it_is_for(data: DataFolder) -> None:
    launches = {
        SUBJECT: on_uvicorn("asgihive"),
        "small": with_setting(on_uvicorn("asgihive"), "ASGIHIVE_MAX_RESPONSE_BYTES", "1"),
    }
    request = make_request(rate.values(PLACES[0]))
    with running(launches, data.root, {}) as servers:
        statuses = []
        for server in servers:
            with server.connect() as connection:
                statuses.append(connection.exchange(request)[0])
    assert statuses == [200, 413]


def test_a_missing_program_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("BENCHMARK_HSDS", raising=False)
    monkeypatch.setenv("BENCHMARK_NGINX", "no-such-program")
    monkeypatch.setenv("BENCHMARK_TILED", sys.executable)
    assert peers.missing() == {
        "nginx": "no nginx on the PATH, nor does BENCHMARK_NGINX name one",
        "HSDS": "no hsds on the PATH, nor does BENCHMARK_HSDS name one",
    }
    assert programs.installed("tiled") == sys.executable


@pytest.mark.slow
def test_a_process_that_ignores_its_end_is_killed() -> None:
    script = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print('ready', flush=True); signal.pause()"
    )
    with process([sys.executable, "-c", script], {}) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"ready\n"
    assert started.returncode == -9


class _Zeros:
    """Decoders that make the right number of bytes, all of them zero."""

    def decoded(self, data: DataFolder, place: Place) -> bytes:
        return bytes(len(data.read(place).tobytes()))

    def frames_per_second(
        self, data: DataFolder, places: Sequence[Place], seconds: float, seed: int
    ) -> float:
        return float(len(places))


@pytest.mark.parametrize(("made", "wrong"), [(decoders, False), (_Zeros(), True)])
def test_what_is_no_server_is_verified_and_measured_here(
    data: DataFolder, made: rate.WithoutHttp, *, wrong: bool
) -> None:
    question = rate.RateQuestion(
        name="any",
        asks="any",
        make=lambda _: PLACES,
        target_of=rate.values,
        check=verify.check_bytes,
        targets={"alone": None},
        servers={"alone": without_server},
        without_http={"alone": made},
    )
    question.prepare(data)
    server = Server("alone", 0, 0)
    if wrong:
        with pytest.raises(BenchmarkError, match=r"^alone: wrong bytes for Place"):
            question.verify([server])
    else:
        question.verify([server])
        measured = question.measure(server, Turn(AsyncioLoad(), 1, 0))
        assert measured.keys() == {rate.REQUESTS}
        assert measured[rate.REQUESTS] > 0
