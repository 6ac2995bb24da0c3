"""tiled, as `tiled serve directory` serves a folder of HDF5 files."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

from benchmarks.client import BenchmarkError, make_request
from benchmarks.data import Place
from benchmarks.peers import programs
from benchmarks.servers import Launch, Server, process, wait_until_answering

NAME = "tiled"
missing = partial(programs.missing, "tiled")

_REGISTERED_SECONDS = 60


def serving(kind: str) -> Launch:
    """Start tiled for the files of one kind of data, and let it register every file."""
    return partial(_launch, kind)


def requests(_server: Server, places: Sequence[Place]) -> Sequence[bytes]:
    """Make requests to tiled for the bytes of frames."""
    return [_request(place) for place in places]


def _request(place: Place) -> bytes:
    (frame,) = place.selection
    target = f"/api/v1/array/full/{_key(place)}?slice={frame}"
    return make_request(f"{target}&format={quote('application/octet-stream', safe='')}")


def _key(place: Place) -> str:
    return f"{Path(place.file).stem}{place.path}"


@contextmanager
def _launch(
    kind: str, name: str, directory: Path, environment: Mapping[str, str]
) -> Iterator[Server]:
    port = programs.find_free_port()
    command = [programs.installed("tiled"), "serve", "directory", str(directory / kind)]
    command += ["--public", "--host", "127.0.0.1", "--port", str(port)]
    with process(command, environment, quiet=True) as started:
        server = wait_until_answering(name, started, port)
        _wait_until_registered(server, len(list((directory / kind).glob("*.h5"))))
        yield server


def _wait_until_registered(server: Server, files: int) -> None:
    """Wait, since it answers before it has walked through the folder."""
    end = time.monotonic() + _REGISTERED_SECONDS
    while (found := _registered(server)) < files:
        if time.monotonic() > end:
            raise BenchmarkError(f"{server.name}: {found} of {files} files are registered")
        time.sleep(0.1)


def _registered(server: Server) -> int:
    count = json.loads(server.get("/api/v1/search/"))["meta"]["count"]
    if not isinstance(count, int):
        raise BenchmarkError(f"{server.name}: {count!r} is no count")
    return count
