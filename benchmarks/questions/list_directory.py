"""The first page of a directory of many files, as the page at /view/ asks for it."""

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.client import BenchmarkError
from benchmarks.data import DataFolder
from benchmarks.question import Figure, Target, Turn
from benchmarks.servers import SUBJECT, Launch, Server, on_uvicorn

FILES = 5_000
_FOLDER = "many_files"
_PAGE = 100
_LISTINGS_A_SECOND = 5

_QUERIES = {
    "by name": f"dir={_FOLDER}",
    "by date": f"dir={_FOLDER}&sort=modified&order=descending",
    "by size": f"dir={_FOLDER}&sort=size",
    "search below": f"dir={_FOLDER}&search=scan_0&recursive=true",
}


class ListDirectory:
    """One client; before each listing a file is touched, as while an instrument writes."""

    name = "list_directory"
    asks = f"`/files` of {FILES:,} HDF5 files, {_PAGE} on a page, one of them touched before"
    figures = tuple(
        Figure(name=name, unit="ms", better="lower", target=Target(below=300)) for name in _QUERIES
    )
    servers: Mapping[str, Launch] = {SUBJECT: on_uvicorn(SUBJECT)}
    environment: Mapping[str, str] = {}
    heavy = False

    def prepare(self, data: DataFolder) -> None:
        data.require(_FOLDER, _write_files)
        self._folder = data.root / _FOLDER

    def verify(self, servers: Sequence[Server]) -> None:
        names = sorted(each.name for each in self._folder.iterdir())
        for server in servers:
            page = _list(server, f"dir={_FOLDER}")
            listed = [each["name"] for each in page["entries"]]
            while page["next"] is not None:
                page = _list(server, f"dir={_FOLDER}&after={page['next']}")
                listed += [each["name"] for each in page["entries"]]
            if listed != names:
                raise BenchmarkError(f"{server.name}: lists {len(listed)} names")
            for query in _QUERIES.values():
                if len(_list(server, query)["entries"]) != _PAGE:
                    raise BenchmarkError(f"{server.name}: no whole page of {query}")

    def measure(self, server: Server, turn: Turn) -> Mapping[str, float]:
        times: dict[str, list[float]] = {name: [] for name in _QUERIES}
        for number in range(_LISTINGS_A_SECOND * turn.seconds):
            for name, query in _QUERIES.items():
                _name_file(self._folder, (turn.number * 1009 + number * 31) % FILES).touch()
                start = time.perf_counter()
                _list(server, query)
                times[name].append((time.perf_counter() - start) * 1e3)
        return {name: statistics.median(each) for name, each in times.items()}


def _list(server: Server, query: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(server.get(f"/files?{query}&limit={_PAGE}"))
    return found


def _name_file(folder: Path, number: int) -> Path:
    return folder / f"scan_{number:05}.h5"


def _write_files(folder: Path, random: np.random.Generator) -> None:
    for number in range(FILES):
        with h5py.File(_name_file(folder, number), "w") as file:
            file["values"] = random.integers(256, size=int(random.integers(512)), dtype=np.uint8)


QUESTION = ListDirectory()
