"""The files of examples/deployment: what they ask for exists, and the nginx site does its work."""

import json
import os
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
from pathlib import Path
from time import monotonic

import h5py
import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from asgihive import cli
from asgihive.cli import options
from tests.cli.processes import PATIENCE, running

EXAMPLES = Path(__file__).parents[2] / "examples" / "deployment"
NGINX = shutil.which("nginx")
META = "/meta?file=x.h5"
DATA = "/data?file=x.h5&path=/values&format=bin"

needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


def read(name: str) -> str:
    return (EXAMPLES / name).read_text()


def parsed(words: list[str], directory: Path) -> options.Given:
    """What the command line of an example asks for, its directory another one."""
    given = [str(directory) if each == "/data" else each for each in words]
    return options.read_options(cli._parser().parse_args(given))


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


def at_socket(path: Path) -> httpx.Client:
    transport = httpx.HTTPTransport(uds=str(path))
    return httpx.Client(transport=transport, base_url="http://localhost", timeout=PATIENCE)


def written_site(folder: Path, replica: str) -> Path:
    """The site of the example in a whole configuration, everything below `folder`."""
    site = read("nginx.conf")
    for before, after in (
        ("unix:/run/asgihive/socket", f"unix:{folder}/replica"),
        ("10.0.0.2:8000", replica),
        ("/var/cache/nginx", f"{folder}/cache"),
        ("/var/log/nginx", str(folder)),
        ("listen 80;", f"listen unix:{folder}/nginx;"),
    ):
        assert site.count(before) == 1
        site = site.replace(before, after)
    temporary = "\n".join(
        f"{each}_temp_path {folder}/{each};"
        for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "cache").mkdir()
    (folder / "nginx.conf").write_text(
        f"{user} daemon off; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{ {temporary}\n{site} }}"
    )
    return folder / "nginx.conf"


@contextmanager
def nginx(configuration: Path) -> Iterator[None]:
    assert NGINX is not None
    arguments = [NGINX, "-e", "stderr", "-c", str(configuration)]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield
        finally:
            process.terminate()
            _, said = process.communicate(timeout=PATIENCE)
            assert "[emerg]" not in said, said


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
        answers_soon(client)
        yield Site(client, replicas)


def answers_soon(client: httpx.Client) -> None:
    end = monotonic() + PATIENCE
    while True:
        try:
            assert client.get("/").text == "ok"
        except httpx.ConnectError:
            assert monotonic() < end
        else:
            return


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
        # And never the old one again, whichever replica is asked.
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
        file = site.client.get("/file?file=x.h5", headers={"range": "bytes=0-7"})
        assert (file.status_code, file.content) == (206, b"\x89HDF\r\n\x1a\n")
        assert site.client.get("/metrics").status_code == 403


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
            answers_soon(client)
        for number in range(20):
            answer = client.get(f"/data?file=x.h5&path=/values&selection={number % 5}")
            assert answer.status_code == 200
