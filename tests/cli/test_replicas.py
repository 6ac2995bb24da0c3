"""The nginx site of examples/deployment over three replicas: what happens when one is killed."""

import json
import random
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import httpx
import numpy as np
import pytest
from starlette.types import Receive, Scope, Send

from tests.cli.processes import Server, running
from tests.cli.site import at_socket, needs_nginx, nginx, written_site
from tests.service import servers

# A chunk of Zarr is a frame where that has a MiB.
FRAMES, SHAPE = 16, (512, 1024)
CLIENTS, REQUESTS = 8, 600
KILLED_AFTER = 200  # requests

Frames = np.ndarray[Any, np.dtype[np.uint16]]

VALUES: Frames = np.random.default_rng(5).poisson(40, (FRAMES, *SHAPE)).astype("<u2")


@pytest.fixture
def stack_directory(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        options = {"chunks": (1, *SHAPE), "compression": "gzip", "shuffle": True}
        file.create_dataset("stack", data=VALUES, **options)
    return tmp_path


@dataclass(frozen=True, slots=True)
class Question:
    """A request, and how what h5py reads is found in its answer."""

    url: str
    headers: dict[str, str]
    has_values: Callable[[httpx.Response], bool]


def make_questions(path: Path) -> list[Question]:
    """The same values in several representations, some of them of one URL."""
    with h5py.File(path) as file:
        frames = file["stack"][()]
    found = []
    for number, frame in enumerate(frames):
        url = f"/data?file=scan.h5&path=/stack&selection={number}"
        row = frame[7]
        # Not to be taken for each other, though the URL is one.
        for name, accept, coding in (
            ("json", "application/json", "gzip"),
            ("json", "application/json", "identity"),
            ("npy", "application/octet-stream", "identity"),
        ):
            headers = {"accept": accept, "accept-encoding": coding}
            found.append(Question(f"{url},7", headers, make_check(name, row)))
        plain, is_frame = {"accept-encoding": "identity"}, make_check("bin", frame)
        found.append(Question(f"{url}&format=bin", plain, is_frame))
        found.append(Question(f"/zarr/scan.h5/stack/c/{number}/0/0", plain, is_frame))
    return found


def make_check(name: str, values: Frames) -> Callable[[httpx.Response], bool]:
    def has_values(answer: httpx.Response) -> bool:
        content = answer.content
        if name == "json":
            is_json = answer.headers["content-type"].startswith("application/json")
            return is_json and json.loads(content) == values.tolist()
        if name == "npy":
            return content.endswith(values.tobytes())
        return content == values.tobytes()

    return has_values


@dataclass(slots=True)
class Load:
    """Clients that ask at random, of which each remembers the entity tags that it was told."""

    questions: list[Question]
    at: Callable[[], httpx.Client]
    kill: Callable[[], None]
    states: Counter[str] = field(default_factory=Counter)
    """By `X-Cache`."""
    statuses: Counter[int] = field(default_factory=Counter)
    broken: int = 0
    """Answers that ended in the middle, which clients have to ask for again."""
    _asked: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(self._ask_often, range(CLIENTS)))

    def _ask_often(self, seed: int) -> None:
        picks = random.Random(seed)
        tags: dict[int, str | None] = {}
        with self.at() as client:
            for _ in range(REQUESTS // CLIENTS):
                place = picks.randrange(len(self.questions))
                known = tags.get(place) if picks.random() < 0.5 else None
                answer = self._ask(client, self.questions[place], known)
                tags[place] = answer.headers.get("etag")

    def _ask(self, client: httpx.Client, question: Question, tag: str | None) -> httpx.Response:
        with self._lock:
            self._asked += 1
            is_the_moment = self._asked == KILLED_AFTER
        if is_the_moment:
            self.kill()
        more = {} if tag is None else {"if-none-match": tag}
        try:
            answer = client.get(question.url, headers={**question.headers, **more})
        except (httpx.RemoteProtocolError, httpx.ReadError):
            with self._lock:
                self.broken += 1
            answer = client.get(question.url, headers={**question.headers, **more})
        assert answer.status_code in ({200} if tag is None else {200, 304}), answer.text
        if answer.status_code == 200:
            assert question.has_values(answer), question
        else:
            assert answer.headers["etag"] == tag
        with self._lock:
            self.states[answer.headers["x-cache"]] += 1
            self.statuses[answer.status_code] += 1
        return answer


@contextmanager
def three_replicas(directory: Path) -> Iterator[tuple[Callable[[], httpx.Client], list[Server]]]:
    """Clients of the site, and its replicas: the last two, which listen at ports."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="site-")))
        serve = ("serve", str(directory), "--zarr-compression", "none")
        stack.enter_context(running(*serve, "--uds", str(folder / "replica")))
        others = [stack.enter_context(running(*serve, "--port", "0")) for _ in range(2)]
        addresses = [httpx.URL(each.url).netloc.decode() for each in others]
        stack.enter_context(nginx(written_site(folder, *addresses)))
        yield lambda: at_socket(folder / "nginx"), others


@needs_nginx
@pytest.mark.slow
def test_nothing_is_lost_when_a_replica_is_killed(stack_directory: Path) -> None:
    questions = make_questions(stack_directory / "scan.h5")
    with three_replicas(stack_directory) as (at, (victim, _)):
        with at() as client:
            # A file that was written just now is not kept.
            while "etag" not in client.get(questions[0].url).headers:
                pass
        load = Load(questions, at, lambda: victim.tell(signal.SIGKILL))
        load.run()
    assert load.statuses.total() == REQUESTS
    assert load.statuses[304] > 0
    assert load.states["HIT"] > 0
    # At most those that were on their way from the one replica; they were asked for again.
    assert load.broken <= CLIENTS


async def answer_by_path(scope: Scope, receive: Receive, send: Send) -> None:
    """A replica for which one file is being written."""
    if scope["type"] != "http":
        return
    status = 503 if scope["path"] == "/written" else 200
    headers = [(b"content-length", b"2"), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


@needs_nginx
def test_a_file_that_nobody_can_read_yet_takes_no_replica_away() -> None:
    """503 of all replicas to one request does not make them unreachable for others."""
    with tempfile.TemporaryDirectory(prefix="site-") as name, ExitStack() as stack:
        folder = Path(name)
        urls = [
            stack.enter_context(servers.serving(answer_by_path, "uvicorn-httptools"))
            for _ in range(3)
        ]
        first, *others = (httpx.URL(url).netloc.decode() for url in urls)
        stack.enter_context(nginx(written_site(folder, *others, first=first)))
        client = stack.enter_context(at_socket(folder / "nginx"))
        for _ in range(5):
            assert client.get("/written").status_code == 503
            assert client.get("/else").status_code == 200
