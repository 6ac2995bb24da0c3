"""nginx with sendfile: the same bytes from plain files, which nothing serves faster."""

import grp
import os
import pwd
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.client import make_request
from benchmarks.data import DataFolder, Place
from benchmarks.peers import programs
from benchmarks.servers import Server, process, wait_until_answering

NAME = "nginx"
missing = partial(programs.missing, "nginx")

# One worker, as of the others; its temporary folders are its own.
_CONFIGURATION = """\
{user}
worker_processes 1;
daemon off;
pid {folder}/pid;
error_log stderr crit;
events {{ worker_connections 256; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000;
  default_type application/octet-stream;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


def write_files(
    data: DataFolder, places: Sequence[Place], read: Callable[[Place], bytes] | None = None
) -> None:
    """Write a plain file for each place, with the bytes of its values, or with those of `read`."""
    read = read or (lambda place: data.read(place).tobytes())

    def write(folder: Path, _: np.random.Generator) -> None:
        for place in places:
            file = folder / _name(place)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(read(place))

    data.require(_kind(places[0]), write)


def requests(_server: Server, places: Sequence[Place]) -> Sequence[bytes]:
    """Make requests to nginx for the places that `write_files` was given."""
    return [make_request(f"/{_kind(place)}/{_name(place)}") for place in places]


@contextmanager
def launch(name: str, directory: Path, _environment: Mapping[str, str]) -> Iterator[Server]:
    """Start nginx, whose root is the data's folder."""
    port = programs.find_free_port()
    with tempfile.TemporaryDirectory(prefix="asgihive-nginx-") as folder:
        configuration = Path(folder, "nginx.conf")
        text = _CONFIGURATION.format(folder=folder, root=directory, port=port, user=find_user())
        configuration.write_text(text)
        command = [programs.installed("nginx"), "-p", folder, "-e", "stderr"]
        with process([*command, "-c", str(configuration)], {}) as started:
            yield wait_until_answering(name, started, port)


def find_user() -> str:
    """Return the directive that lets workers read what belongs to whoever started nginx."""
    # A worker that root starts changes to a user who may not read a temporary folder.
    if os.geteuid() != 0:
        return ""
    return f"user {pwd.getpwuid(0).pw_name} {grp.getgrgid(os.getegid()).gr_name};"


def _kind(place: Place) -> str:
    return f"{Path(place.file).parts[0]}_raw"


def _name(place: Place) -> str:
    (frame,) = place.selection
    return f"{Path(place.file).stem}/{frame}"
