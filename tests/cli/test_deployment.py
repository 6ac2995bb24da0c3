"""The files of examples/deployment: what they ask for exists, and the nginx site does its work."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from time import monotonic

import h5py
import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Receive, Scope, Send

from asgihive import H5App, H5Settings, cli
from asgihive.cli import options
from asgihive.service.gate import PERMISSION
from tests.cli.processes import PATIENCE, running
from tests.cli.site import EXAMPLES, at_socket, needs_nginx, nginx, read, written_site
from tests.service import servers

META = "/meta?file=x.h5"
DATA = "/data?file=x.h5&path=/values&format=bin"

NOT_OUTSIDE = "This is not for the outside"
TOO_LARGE = {"message": "The request is larger than the site accepts"}


def parsed(words: list[str], directory: Path) -> options.ServerCommand:
    """What the command line of an example asks for, its directory another one."""
    given = [str(directory) if each == "/data" else each for each in words]
    return options.read_options(cli.parse_arguments(given))


@pytest.fixture
def config(directory: Path, tmp_path: Path) -> Path:
    path = tmp_path / "asgihive.toml"
    path.write_text(read("asgihive.toml").replace('"/data"', json.dumps(str(directory))))
    return path


def test_the_unit_and_its_configuration_agree(directory: Path, config: Path) -> None:
    unit = read("asgihive.service")
    (line,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    words = shlex.split(line.replace("/etc/asgihive.toml", str(config)))
    assert words[0] == "/opt/asgihive/bin/asgihive"
    given = parsed(words[1:], directory)
    assert given.directory == str(directory)
    assert given.server.uds == "/run/asgihive/socket"
    assert "RuntimeDirectory=asgihive\n" in unit
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert int(seconds) > given.server.graceful_seconds
    assert given.server.workers > 1  # else ExecReload would stop it
    # At a socket no client has an address: all clients would be one.
    assert "Environment=FORWARDED_ALLOW_IPS=*\n" in unit


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "asgihive.service"
    unit.write_text(read("asgihive.service").replace("/opt/asgihive/bin/asgihive", sys.executable))
    for arguments in (
        ("verify", "--man=no"),
        ("security", "--offline=true", "--threshold=20"),  # of 100, which is no protection
    ):
        done = subprocess.run(
            ["systemd-analyze", *arguments, str(unit)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Unknown" not in done.stderr


def test_the_container_asks_for_what_there_is(directory: Path) -> None:
    recipe = read("Containerfile")
    project = tomllib.loads((EXAMPLES.parents[1] / "pyproject.toml").read_text())["project"]
    (extras,) = re.findall(r"'/source\[(.*)\]'", recipe)
    assert set(extras.split(",")) <= project["optional-dependencies"].keys()
    entry, more = (
        json.loads(re.findall(rf"^{word} (\[.*\])$", recipe, re.MULTILINE)[0])
        for word in ("ENTRYPOINT", "CMD")
    )
    given = parsed([*entry[1:], *more], directory)
    assert f"EXPOSE {given.server.port}\n" in recipe
    user = re.findall(r"^USER (\d+):\d+$", recipe, re.MULTILINE)
    assert int(user[-1]) > 0


@dataclass(frozen=True, slots=True)
class Site:
    """nginx in front of two replicas, each with a client of its own."""

    client: httpx.Client
    replicas: tuple[httpx.Client, httpx.Client]

    def counted(self, route: str) -> Counter[str]:
        """What the replicas have answered, by status."""
        found: Counter[str] = Counter()
        for each in self.replicas:
            for family in text_string_to_metric_families(each.get("/metrics").text):
                for sample in family.samples:
                    if sample.name == "asgihive_requests_total" and sample.labels["route"] == route:
                        found[sample.labels["status"]] += int(sample.value)
        return found


@contextmanager
def serving(directory: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        # Paths of sockets are short.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="site-")))
        first = running("serve", str(directory), "--uds", str(folder / "replica"))
        stack.enter_context(first)
        second = stack.enter_context(running("serve", str(directory), "--port", "0"))
        address = httpx.URL(second.url)
        stack.enter_context(nginx(written_site(folder, f"{address.host}:{address.port}")))
        client = stack.enter_context(at_socket(folder / "nginx"))
        other = httpx.Client(base_url=second.url, timeout=PATIENCE, trust_env=False)
        replicas = (stack.enter_context(at_socket(folder / "replica")), stack.enter_context(other))
        yield Site(client, replicas)


def until_cache_says(client: httpx.Client, url: str, state: str) -> Counter[str]:
    """Ask until the cache is in a state; the states it was in."""
    seen: Counter[str] = Counter()
    end = monotonic() + PATIENCE
    while not seen[state]:
        assert monotonic() < end, seen
        answer = client.get(url)
        assert answer.status_code == 200
        seen[answer.headers["x-cache"]] += 1
    return seen


@needs_nginx
@pytest.mark.slow
def test_the_cache_asks_and_the_replicas_say_that_nothing_changed(directory: Path) -> None:
    with serving(directory) as site:
        # A file that was written just now is not kept.
        seen = until_cache_says(site.client, META, "HIT")
        seen += until_cache_says(site.client, META, "REVALIDATED")
        counted = site.counted("/meta")
        assert seen["HIT"] > 0
        assert counted["304"] == seen["REVALIDATED"] > 0
        assert counted["200"] == seen.total() - seen["HIT"] - seen["REVALIDATED"]
        answer = site.client.get(META)
        unchanged = site.client.get(META, headers={"if-none-match": answer.headers["etag"]})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert answer.headers["cache-control"] == "no-cache"


@needs_nginx
@pytest.mark.slow
def test_a_file_that_changes_is_seen_soon(directory: Path) -> None:
    with serving(directory) as site:
        until_cache_says(site.client, DATA, "HIT")
        with h5py.File(directory / "new.h5", "w") as file:
            file["values"] = np.arange(5) + 100
        (directory / "new.h5").replace(directory / "x.h5")
        changed = monotonic()
        while np.frombuffer(site.client.get(DATA).content, "<i8")[0] != 100:
            assert monotonic() < changed + PATIENCE
        # And never the old one again, from any replica.
        for _ in range(50):
            assert np.frombuffer(site.client.get(DATA).content, "<i8")[0] == 100


@needs_nginx
@pytest.mark.slow
def test_what_many_ask_for_at_once_is_asked_for_once(directory: Path) -> None:
    with serving(directory) as site:
        # The file has settled by then.
        until_cache_says(site.client, META, "HIT")
        with ThreadPoolExecutor(16) as pool:
            bodies = set(pool.map(lambda _: site.client.get(DATA).content, range(16)))
        assert len(bodies) == 1
        assert site.counted("/data")["200"] == 1


@needs_nginx
@pytest.mark.slow
def test_parts_files_and_numbers_go_past_the_cache(directory: Path) -> None:
    with serving(directory) as site:
        until_cache_says(site.client, DATA, "HIT")
        part = site.client.get(DATA, headers={"range": "bytes=8-15"})
        assert (part.status_code, part.content) == (206, np.int64(1).tobytes())
        assert site.counted("/data")["206"] == 1
        for route in ("/file", "/file/"):
            url = f"{route}?file=x.h5"
            part = site.client.get(url, headers={"range": "bytes=0-7"})
            assert (part.status_code, part.content) == (206, b"\x89HDF\r\n\x1a\n")
            whole = site.client.get(url)
            assert whole.content == (directory / "x.h5").read_bytes()
            assert "x-cache" not in whole.headers
        for route in ("/metrics", "/metrics/", "/%6detrics%2f"):
            refused = site.client.get(route)
            assert (refused.status_code, refused.json()) == (403, {"message": NOT_OUTSIDE})


@needs_nginx
def test_errors_of_the_site_are_those_of_the_service() -> None:
    unreached = {"message": "The service cannot be reached: try again later"}
    with tempfile.TemporaryDirectory(prefix="site-") as name, ExitStack() as stack:
        folder = Path(name)
        stack.enter_context(nginx(written_site(folder, f"unix:{folder}/nobody")))
        client = stack.enter_context(at_socket(folder / "nginx"))
        for answer, status, message in (
            (client.get(META), 502, unreached),
            (client.get("/file?file=x.h5"), 502, unreached),
            (client.post("/batch", json=[]), 502, unreached),
            (client.post("/batch", content=bytes((1 << 20) + 1)), 413, TOO_LARGE),
        ):
            assert (answer.status_code, answer.json()) == (status, message)
            assert answer.headers["content-type"] == "application/json"


@needs_nginx
@pytest.mark.slow
def test_what_a_token_was_shown_for_is_for_nobody_else(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASGIHIVE_TOKEN", "open-sesame")
    with serving(directory) as site:
        shown = {"authorization": "Bearer open-sesame"}
        for _ in range(3):
            for url, headers in (
                (META, shown),
                (f"{META}&token=open-sesame", {}),
                (f"{META}&%74oken=open-sesame", {}),
            ):
                assert site.client.get(url, headers=headers).status_code == 200
            for url in (META, f"{META}&token=wrong", f"{META}&%74oken=wrong"):
                assert site.client.get(url).status_code == 401


class Permitting:
    """An application with a permission of its own: who asks is said in a cookie or `x-user`."""

    def __init__(self, app: H5App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        is_ada = b"ada" in (headers.get(b"cookie"), headers.get(b"x-user"))
        state = {**scope.get("state", {}), PERMISSION: lambda _: is_ada}
        await self._app({**scope, "state": state}, receive, send)


@contextmanager
def fronting(app: H5App | Permitting) -> Iterator[httpx.Client]:
    """A client of nginx in front of a replica that is served by this process."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="site-")))
        address = httpx.URL(stack.enter_context(servers.serving(app, "uvicorn-httptools")))
        stack.enter_context(nginx(written_site(folder, f"{address.host}:{address.port}")))
        client = stack.enter_context(at_socket(folder / "nginx"))
        yield client


@needs_nginx
@pytest.mark.parametrize("name", [pytest.param("cookie", marks=pytest.mark.slow), "x-user"])
@pytest.mark.parametrize(
    "cache_control",
    [
        "public, max-age=60",
        *(pytest.param(each, marks=pytest.mark.slow) for each in ("no-cache", "")),
    ],
)
def test_what_one_user_may_have_is_for_nobody_else(
    directory: Path, name: str, cache_control: str
) -> None:
    app = H5App(directory, H5Settings(cache_control=cache_control))
    with fronting(Permitting(app)) as client:
        end = monotonic() + PATIENCE
        # A file that was written just now would not be kept anyhow.
        while "etag" not in client.get(META, headers={name: "ada"}).headers:
            assert monotonic() < end
        for url in (META, DATA, "/paths?file=x.h5", "/files"):
            answers = [client.get(url, headers={name: each}) for each in ("ada", "bob", "ada")]
            assert [each.status_code for each in answers] == [200, 403, 200], url
            assert client.get(url).status_code == 403
            for each in answers:
                assert "private" in each.headers["cache-control"]
                # Past the cache, or through it and not kept.
                assert each.headers.get("x-cache") == (None if name == "cookie" else "MISS")
        known = {
            name: "ada",
            "if-none-match": client.get(META, headers={name: "ada"}).headers["etag"],
        }
        again = client.get(META, headers=known)
        assert (again.status_code, again.content) == (304, b"")
        assert "private" in again.headers["cache-control"]
        assert client.get(META, headers={**known, name: "bob"}).status_code == 403


@needs_nginx
@pytest.mark.parametrize(
    ("cache_control", "is_kept"),
    [
        ("no-store", False),
        ("max-age=5,Private", False),
        ('private="x-a"', False),
        ("max-age=5", True),
        ("no-cache, x-private", True),
    ],
)
def test_the_cache_keeps_what_it_may(directory: Path, cache_control: str, is_kept: bool) -> None:
    with fronting(H5App(directory, H5Settings(cache_control=cache_control))) as client:
        end = monotonic() + PATIENCE
        while "etag" not in client.get(META).headers:
            assert monotonic() < end
        states = {client.get(META).headers["x-cache"] for _ in range(5)}
        assert states == {"MISS"} if not is_kept else "HIT" in states


def read_event(lines: Iterator[str]) -> dict[str, str]:
    """Return the fields up to the next empty line."""
    fields = takewhile(bool, (line for line in lines if not line.startswith(":")))
    return dict(field.split(": ", 1) for field in fields)


@needs_nginx
@pytest.mark.parametrize("route", ["/events", "/events/"])
def test_events_arrive_at_once_whoever_else_listens(directory: Path, route: str) -> None:
    settings = H5Settings(poll_seconds=0.05)
    with fronting(H5App(directory, settings)) as client, ExitStack() as stack:
        # Less than the 5 s that nginx lets the second one wait where one answer is for both.
        url, timeout = f"{route}?file=x.h5&path=/values", 4.0
        listeners = []
        for _ in range(3):
            answer = stack.enter_context(client.stream("GET", url, timeout=timeout))
            assert answer.headers["content-type"] == "text/event-stream"
            assert "x-cache" not in answer.headers
            listeners.append(answer.iter_lines())
            assert read_event(listeners[-1])["retry"]
        with h5py.File(directory / "new.h5", "w") as file:
            file["values"] = np.arange(7)
        (directory / "new.h5").replace(directory / "x.h5")
        for lines in listeners:
            assert read_event(lines)["event"] == "changed"
            assert json.loads(read_event(lines)["data"]) == {"path": "/values", "shape": [7]}


@needs_nginx
@pytest.mark.slow
def test_one_replica_does_without_the_other(directory: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="site-") as name, ExitStack() as stack:
        folder = Path(name)
        with running("serve", str(directory), "--port", "0") as leaving:
            address = httpx.URL(leaving.url)
            first = running("serve", str(directory), "--uds", str(folder / "replica"))
            stack.enter_context(first)
            stack.enter_context(nginx(written_site(folder, f"{address.host}:{address.port}")))
            client = stack.enter_context(at_socket(folder / "nginx"))
        for number in range(20):
            answer = client.get(f"/data?file=x.h5&path=/values&selection={number % 5}")
            assert answer.status_code == 200
