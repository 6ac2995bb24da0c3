"""Contents of one file that say in every element which version they are; requests, a writer.

Run as a program, it writes files in a process of its own: it takes `action argument…` lines
and answers each with the seconds that it took.
"""

import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import h5py
import numpy as np

from asgihive.service import H5App
from tests.asgi.exchange import Exchange, http, run

ROW = 1 << 16
SHAPE = (9, ROW)  # of bytes, a chunk per row


def fill(file: h5py.File, version: int) -> None:
    """Write the version everywhere: values, attributes, names, extents."""
    file.attrs["first"] = file.attrs["second"] = version
    values = np.full(SHAPE, version, "u1")
    file["small"] = np.full(1000, version, "<i4")
    file["contiguous"] = values
    file.create_dataset("chunked", data=values, chunks=(1, SHAPE[1]), compression=1)
    for name in ("a", "b"):
        file[f"{name}{version}"] = np.zeros(version)


def content(version: int, padding: int = 0) -> bytes:
    """A whole file; `padding` in bytes makes versions differ in size."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        fill(file, version)
        file["padding"] = np.zeros(padding, "u1")
    return buffer.getvalue()


def overwrite(file: Path, new: bytes) -> None:
    """In place, as `cp` does it, but without being empty in between."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    try:
        os.write(descriptor, new)
        os.ftruncate(descriptor, len(new))
    finally:
        os.close(descriptor)


def replace(file: Path, new: bytes) -> None:
    """By another file, at once."""
    beside = file.with_suffix(".new")
    beside.write_bytes(new)
    beside.rename(file)


def truncate(file: Path, new: bytes) -> None:
    """Cut it in half, then write it anew."""
    os.truncate(file, file.stat().st_size // 2)
    overwrite(file, new)


def delete(file: Path, new: bytes) -> None:
    """Then write it anew, elsewhere on the disk."""
    file.unlink()
    replace(file, new)


def remove(file: Path) -> None:
    """And write nothing."""
    file.unlink()


CHANGES = {each.__name__: each for each in (overwrite, replace, truncate, delete)}


def seen(route: str, body: bytes) -> set[int]:
    """The versions that an answer about `content` shows: one, when all is well."""
    if route == "bin":
        return set(np.unique(np.frombuffer(body, "u1")).tolist())
    document = json.loads(body)
    if route == "attr":
        return set(document.values())
    if route == "meta":
        named = [each for each in document["children"] if each["name"][0] in "ab"]
        return {int(each["name"][1:]) for each in named} | {each["shape"][0] for each in named}
    if route == "paths":
        return {int(found[1]) for each in document if (found := re.fullmatch(r"/[ab](\d+)", each))}
    if route == "stats":
        return {int(document["min"]), int(document["max"])}
    return set(np.unique(document).tolist())


# What is asked about `content`, by the form of its answer and what is read.
REQUESTS: dict[str, tuple[str, dict[str, str]]] = {
    "meta": ("/meta", {}),
    "attr": ("/attr", {}),
    "paths": ("/paths", {}),
    "stats chunked": ("/stats", {"path": "chunked"}),
    "stats contiguous": ("/stats", {"path": "contiguous"}),
    "json": ("/data", {"path": "small"}),
    "bin one block": ("/data", {"path": "contiguous", "format": "bin", "selection": ":,:4"}),
    "bin chunked": ("/data", {"path": "chunked", "format": "bin"}),
    "bin contiguous": ("/data", {"path": "contiguous", "format": "bin"}),
}


async def ask(app: H5App, path: str, /, file: str = "x.h5", **query: str) -> Exchange:
    """The answer; raises what aborts it."""
    exchange = http(path, query_string=urlencode({"file": file, **query}).encode())
    return await run(app, exchange)


async def versions_of(app: H5App, request: str) -> set[int]:
    """What the answer to one of `REQUESTS` shows, which must be a good one."""
    path, query = REQUESTS[request]
    answer = await ask(app, path, **query)
    assert (answer.status, answer.complete) == (200, True), answer.body[:300]
    return seen(request.partition(" ")[0], answer.body)


@dataclass(frozen=True)
class Writer:
    """A process that writes; each call returns when the file is written and closed."""

    process: subprocess.Popen[str]

    def __call__(self, action: str, file: Path, *arguments: object) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps([action, str(file), *arguments]), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, "the writer is dead"
        return float(answer)


@contextmanager
def writer() -> Iterator[Writer]:
    """A writer, ended with the context."""
    with subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Writer(process)


def _write(file: Path, version: int) -> None:
    with h5py.File(file, "w") as out:
        fill(out, version)


def _modify(file: Path, version: int) -> None:
    with h5py.File(file, "r+") as out:
        out["contiguous"][...] = version
        out["small"][...] = version


class _Appending:
    """A dataset that grows under HDF5's single-writer-multiple-reader protocol."""

    def __init__(self, file: Path) -> None:
        self._file = h5py.File(file, "w", libver="latest")
        shape, chunks = (0, ROW), (1, ROW)
        self._rows = self._file.create_dataset(
            "rows", shape, "u1", maxshape=(None, ROW), chunks=chunks
        )
        self._file.swmr_mode = True

    def append(self, count: int) -> None:
        begin = len(self._rows)
        self._rows.resize(begin + count, axis=0)
        for number in range(begin, begin + count):
            self._rows[number] = number
        self._rows.flush()

    def close(self) -> None:
        self._file.close()


def _main() -> None:
    appending: dict[str, _Appending] = {}
    for line in sys.stdin:
        action, name, *arguments = json.loads(line)
        file = Path(name)
        begin = time.monotonic()
        if action == "begin":
            appending[name] = _Appending(file)
        elif action == "append":
            appending[name].append(*arguments)
        elif action == "end":
            appending.pop(name).close()
        elif action == "write":
            _write(file, arguments[0])
        elif action == "modify":
            _modify(file, arguments[0])
        else:
            new = content(*arguments)
            begin = time.monotonic()
            CHANGES[action](file, new)
        print(time.monotonic() - begin, flush=True)


if __name__ == "__main__":
    _main()
