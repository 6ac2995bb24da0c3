"""The nginx site of examples/deployment before replicas, as it is but for paths and addresses."""

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.client import BenchmarkError
from benchmarks.peers import programs
from benchmarks.peers.nginx import find_user
from benchmarks.servers import REPOSITORY, Launch, Server, on_uvicorn, process, wait_until_answering

_SITE = REPOSITORY / "examples" / "deployment" / "nginx.conf"


def before_replicas(count: int) -> Launch:
    """Start so many replicas of asgihive, and nginx with its cache, which is the server."""

    @contextmanager
    def launch(name: str, directory: Path, environment: Mapping[str, str]) -> Iterator[Server]:
        if (why := programs.missing("nginx")) is not None:
            raise BenchmarkError(f"{name}: {why}")
        with ExitStack() as stack:
            start = on_uvicorn("asgihive")
            replicas = [
                stack.enter_context(start(f"{name} {number}", directory, environment))
                for number in range(count)
            ]
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="asgihive-site-")))
            port = programs.find_free_port()
            configuration = folder / "nginx.conf"
            configuration.write_text(_write_site(folder, port, [each.port for each in replicas]))
            command = [programs.installed("nginx"), "-p", str(folder), "-e", "stderr"]
            started = stack.enter_context(process([*command, "-c", str(configuration)], {}))
            yield wait_until_answering(name, started, port)

    return launch


def _write_site(folder: Path, port: int, replicas: Sequence[int]) -> str:
    """Return the whole configuration; one worker, as of the others."""
    site = _SITE.read_text()
    servers = [line for line in site.splitlines() if re.match(r" +server \S+:\S+ .*;", line)]
    addresses = list(dict.fromkeys(line.split()[1] for line in servers))
    for place, address in enumerate(addresses):
        if place < len(replicas):
            site = site.replace(f"server {address} ", f"server 127.0.0.1:{replicas[place]} ")
        else:
            site = re.sub(rf"(?m)^ +server {re.escape(address)} .*\n", "", site)
    for before, after in (
        ("/var/cache/nginx", f"{folder}/cache"),
        ("/var/log/nginx", str(folder)),
        ("listen 80;", f"listen 127.0.0.1:{port};"),
    ):
        assert before in site, before
        site = site.replace(before, after)
    (folder / "cache").mkdir()
    temporary = "\n".join(
        f"{each}_temp_path {folder}/{each};"
        for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return (
        f"{find_user()}\nworker_processes 1;\ndaemon off;\npid {folder}/pid;\n"
        f"error_log stderr crit;\nevents {{ worker_connections 256; }}\n"
        f"http {{ sendfile on; tcp_nopush on; keepalive_requests 1000000;\n{temporary}\n{site} }}\n"
    )
