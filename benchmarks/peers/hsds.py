"""HSDS on this machine's disk, with the frames copied into its own store, chunked as in the file.

Its tools that would link to HDF5 files need matching versions of two more packages; its HTTP
interface needs nothing. One data node, one service node and one head node, as it starts itself.
"""

import base64
import json
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import h5py

from benchmarks.client import BenchmarkError, make_request
from benchmarks.data import Place
from benchmarks.peers import programs
from benchmarks.servers import Launch, Server, process, wait_until_answering

NAME = "HSDS"
missing = partial(programs.missing, "hsds")

_USER, _PASSWORD, _BUCKET, _FOLDER = "benchmark", "benchmark", "bucket", "/home/benchmark"
_HEADERS = {
    "Authorization": "Basic " + base64.b64encode(f"{_USER}:{_PASSWORD}".encode()).decode(),
}
_BYTES = "application/octet-stream"
# Its filters by the names that h5py gives HDF5's.
_GZIP = {"class": "H5Z_FILTER_DEFLATE", "id": 1, "level": 4, "name": "deflate"}
_SHUFFLE = {"class": "H5Z_FILTER_SHUFFLE", "id": 2, "name": "shuffle"}


def serving(kind: str) -> Launch:
    """Start HSDS with the stacks of one kind of data, contiguous or gzip+shuffle."""
    return partial(_launch, kind)


def requests(server: Server, places: Sequence[Place]) -> Sequence[bytes]:
    """Make requests to HSDS for the bytes of frames."""
    stacks = {place.file: _stack_of(server, place.file) for place in places}
    return [_request(place, *stacks[place.file]) for place in places]


def _request(place: Place, dataset: str, shape: Sequence[int]) -> bytes:
    (frame,) = place.selection
    assert isinstance(frame, int)
    members = [f"{frame}:{frame + 1}", *(f"0:{extent}" for extent in shape[1:])]
    query = {"select": f"[{','.join(members)}]"}
    target = _target(f"/datasets/{dataset}/value", place.file, **query)
    return make_request(target, headers={**_HEADERS, "Accept": _BYTES})


def _stack_of(server: Server, file: str) -> tuple[str, Sequence[int]]:
    root = _ask(server, _target("/", file))["root"]
    dataset = _ask(server, _target(f"/groups/{root}/links/stack", file))["link"]["id"]
    return dataset, _ask(server, _target(f"/datasets/{dataset}", file))["shape"]["dims"]


@contextmanager
def _launch(
    kind: str, name: str, directory: Path, environment: Mapping[str, str]
) -> Iterator[Server]:
    port = programs.find_free_port()
    with tempfile.TemporaryDirectory(prefix="asgihive-hsds-") as store:
        command = [programs.installed("hsds"), "--root_dir", store, "--bucket_name", _BUCKET]
        command += ["--hs_username", _USER, "--hs_password", _PASSWORD, "--count", "1"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--loglevel", "ERROR"]
        command += ["--logfile", f"{store}/log"]
        # Its nodes are processes of their own, which it ends when it is interrupted.
        with process(command, environment, quiet=True, end=signal.SIGINT) as started:
            server = wait_until_answering(name, started, port, "/about", b'"READY"')
            _ingest(server, directory, kind)
            yield server


def _ingest(server: Server, directory: Path, kind: str) -> None:
    for folder in (Path("/home"), Path(_FOLDER), Path(_FOLDER, kind)):
        _ask(server, _domain_target("/", str(folder)), "PUT", {"folder": True})
    for path in sorted((directory / kind).glob("*.h5")):
        file = f"{kind}/{path.name}"
        root = _ask(server, _target("/", file), "PUT")["root"]
        with h5py.File(path, "r") as opened:
            _copy(server, file, root, opened["stack"])


def _copy(server: Server, file: str, root: str, stack: h5py.Dataset) -> None:
    """Make the stack and write it frame by frame: HSDS bounds what a request may carry."""
    filters = [*([_SHUFFLE] if stack.shuffle else []), *([_GZIP] if stack.compression else [])]
    layout = {"class": "H5D_CHUNKED", "dims": [1, *stack.shape[1:]]}
    document = {
        "type": f"H5T_STD_U{8 * stack.dtype.itemsize}LE",
        "shape": list(stack.shape),
        "creationProperties": {"layout": layout, "filters": filters},
        "link": {"id": root, "name": "stack"},
    }
    dataset = _ask(server, _target("/datasets", file), "POST", document)["id"]
    for number, frame in enumerate(stack):
        members = [f"{number}:{number + 1}", *(f"0:{extent}" for extent in stack.shape[1:])]
        target = _target(f"/datasets/{dataset}/value", file, select=f"[{','.join(members)}]")
        _ask(server, target, "PUT", content=frame.tobytes())


def _target(path: str, file: str, **query: str) -> str:
    return _domain_target(path, f"{_FOLDER}/{file}", **query)


def _domain_target(path: str, domain: str, **query: str) -> str:
    return f"{path}?{urlencode({'domain': domain, 'bucket': _BUCKET, **query})}"


def _ask(
    server: Server, target: str, method: str = "GET", document: Any = None, content: bytes = b""
) -> Any:
    """Return the JSON document that it answers, with any 2xx status."""
    body = content or (b"" if document is None else json.dumps(document).encode())
    kind = _BYTES if content else "application/json"
    headers = {**_HEADERS, **({"Content-Type": kind} if body else {})}
    with server.connect() as connection:
        status, answer = connection.exchange(make_request(target, method, body, headers))
    # 409: it is there already, as the folders are that it makes for its users.
    if status not in {200, 201, 409}:
        raise BenchmarkError(f"{server.name}: {method} {target}: status {status}: {answer!r}")
    return json.loads(answer) if answer and status != 409 else None
