"""tiled, as `tiled serve directory` serves a folder of HDF5 files."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

from benchmarks.client import BenchmarkError, request_bytes
from benchmarks.data import Place
from benchmarks.peers import programs
from benchmarks.servers import Launch, Server, process, until_it_answers

NAME = "tiled"
missing = partial(programs.missing, "tiled")

_REGISTERED_SECONDS = 60


def serving(kind: str) -> Launch:
    """tiled for the files of one kind of data: it registers every file before it can be asked."""
    return partial(_launch, kind)


def requests(_server: Server, places: Sequence[Place]) -> Sequence[bytes]:
    """How tiled is asked for frames as bytes."""
    return [_request(place) for place in places]


def _request(place: Place) -> bytes:
    (frame,) = place.selection
    target = f"/api/v1/array/full/{_key(place)}?slice={frame}"
    return request_bytes(f"{target}&format={quote('application/octet-stream', safe='')}")


def _key(place: Place) -> str:
    return f"{Path(place.file).stem}{place.path}"


@contextmanager
def _launch(
    kind: str, name: str, directory: Path, environment: Mapping[str, str]
) -> Iterator[Server]:
    port = programs.free_port()
    command = [programs.installed("tiled"), "serve", "directory", str(directory / kind)]
    command += ["--public", "--host", "127.0.0.1", "--port", str(port)]
    with process(command, environment, quiet=True) as started:
        server = until_it_answers(name, started, port)
        _wait_until_registered(server, len(list((directory / kind).glob("*.h5"))))
        yield server


def _wait_until_registered(server: Server, files: int) -> None:
    """It answers before it has walked through the folder."""
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
