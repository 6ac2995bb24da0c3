"""A store that speaks what S3 does of reading, and servers over it.

nginx answers a bucket's objects from files: GET with Range and If-Match, and HEAD. moto's server,
which the tests use, takes several milliseconds for each request, and would be what is measured.
What nginx knows not is signatures, which it ignores, and listings, for which nothing here asks.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.client import BenchmarkError
from benchmarks.peers import programs
from benchmarks.peers.nginx import find_user
from benchmarks.servers import Server, process, start_uvicorn, wait_until_answering

BUCKET = "measured"

_CONFIGURATION = """\
{user}
worker_processes 1;
daemon off;
pid {folder}/pid;
error_log stderr crit;
events {{ worker_connections 256; }}
http {{
  log_format counted "$request_method $status $body_bytes_sent";
  access_log {folder}/requests counted;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000;
  default_type application/octet-stream;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location /{bucket}/ {{ alias {root}/; }}
  }}
}}
"""

_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_SECRET_ACCESS_KEY": "none",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """How often a store was asked for bytes, and how many it sent."""

    requests: int
    sent: int


@dataclass(slots=True)
class ServerOverS3:
    """A `Launch`: an application over a store of its own, which counts.

    Args:
        app: a module of `benchmarks.apps`, which is given the URL of the bucket.
        environment: of the application.
    """

    app: str
    environment: Mapping[str, str] = field(default_factory=dict)
    _requests: Path | None = None

    @contextmanager
    def __call__(
        self, name: str, directory: Path, environment: Mapping[str, str]
    ) -> Iterator[Server]:
        if (why := programs.missing("nginx")) is not None:
            raise BenchmarkError(f"{name}: {why}")
        port = programs.find_free_port()
        with tempfile.TemporaryDirectory(prefix="asgihive-s3-") as folder:
            configuration = Path(folder, "nginx.conf")
            configuration.write_text(
                _CONFIGURATION.format(
                    folder=folder, root=directory, port=port, user=find_user(), bucket=BUCKET
                )
            )
            command = [programs.installed("nginx"), "-p", folder, "-e", "stderr"]
            endpoint = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
            given = {**environment, **_CREDENTIALS, **endpoint, **self.environment}
            with process([*command, "-c", str(configuration)], {}) as started:
                wait_until_answering(f"the store of {name}", started, port)
                self._requests = Path(folder, "requests")
                with start_uvicorn(self.app, name, f"s3://{BUCKET}", given) as server:
                    yield server

    def count(self) -> Asked:
        """Return what the store was asked for bytes until now; heads of answers are not counted."""
        assert self._requests is not None
        lines = [line.split() for line in self._requests.read_text().splitlines()]
        sent = [int(size) for method, status, size in lines if (method, status) == ("GET", "206")]
        return Asked(len(sent), sum(sent))
