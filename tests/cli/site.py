"""The nginx site of examples/deployment, run as it is but for its paths and addresses."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import httpx
import pytest

from tests.cli.processes import PATIENCE

EXAMPLES = Path(__file__).parents[2] / "examples" / "deployment"
NGINX = shutil.which("nginx")

needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


def read(name: str) -> str:
    return (EXAMPLES / name).read_text()


def at_socket(path: Path) -> httpx.Client:
    transport = httpx.HTTPTransport(uds=str(path))
    return httpx.Client(transport=transport, base_url="http://localhost", timeout=PATIENCE)


REPLICAS = ("unix:/run/asgihive/socket", "10.0.0.2:8000", "10.0.0.3:8000")
"""Those of the example, each named twice."""


def written_site(folder: Path, *others: str, first: str = "", port: int | None = None) -> Path:
    """The site of the example in a whole configuration, everything below `folder`.

    Args:
        folder: nginx listens at the socket `nginx` in it.
        others: addresses of the other replicas; of fewer than in the example, the rest is left out.
        port: of 127.0.0.1, where it listens too.
        first: address of the first replica; by default the socket `replica` in the folder.
    """
    site = read("nginx.conf")
    for place, before in enumerate(REPLICAS):
        assert site.count(f"server {before} ") == 2
        here = (first or f"unix:{folder}/replica", *others)
        if place < len(here):
            site = site.replace(before, here[place])
        else:
            site = re.sub(rf"^ *server {re.escape(before)} .*\n", "", site, flags=re.MULTILINE)
    too = "" if port is None else f" listen 127.0.0.1:{port};"
    for before, after in (
        ("/var/cache/nginx", f"{folder}/cache"),
        ("/var/log/nginx", str(folder)),
        ("listen 80;", f"listen unix:{folder}/nginx;{too}"),
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
        # The first two as Debian's own file has them.
        f"events {{}}\nhttp {{ sendfile on; tcp_nopush on; {temporary}\n{site} }}"
    )
    return folder / "nginx.conf"


@contextmanager
def nginx(configuration: Path) -> Iterator[None]:
    """Run it, from when it listens."""
    assert NGINX is not None
    arguments = [NGINX, "-e", "stderr", "-c", str(configuration)]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        try:
            end = monotonic() + PATIENCE
            while not _listens(configuration.parent / "nginx") and process.poll() is None:
                assert monotonic() < end
            yield
        finally:
            process.terminate()
            _, said = process.communicate(timeout=PATIENCE)
            assert "[emerg]" not in said, said


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True
