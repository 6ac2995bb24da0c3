"""What scientists wait for: xarray, zarr and dask in a process of their own, over HTTP."""

import importlib.util
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks.client import BenchmarkError
from benchmarks.data import DataFolder, Place
from benchmarks.kinds.frames import SHAPE, gzip_frames
from benchmarks.kinds.large import two_gib
from benchmarks.kinds.zarr_stores import (
    BLOSC_STORE,
    STORE,
    many_datasets,
    write_blosc_store,
    write_store,
)
from benchmarks.peers import nginx
from benchmarks.question import H5GROVE, HDF5_SERVERS, Figure, Target, Turn
from benchmarks.rate import values
from benchmarks.servers import SUBJECT, Launch, Server, on_uvicorn, without_server

DATA_ROUTE = "/data"
H5NETCDF = "h5netcdf"
IN_MEMORY = "in memory"
"""The same document in a store in memory: what the client needs by itself."""

_TIME, _DOCUMENT = "time", "`zarr.json`"
_ROWS, _COLUMNS = 20, 1024
_SLICES_A_SECOND = 20


def find_missing() -> str | None:
    """Return why the clients cannot be measured here, or None if they can."""
    needed = ("xarray", "zarr", "dask", "aiohttp", "h5netcdf")
    absent = [name for name in needed if importlib.util.find_spec(name) is None]
    if not absent:
        return None
    return f"needs {', '.join(absent)}: pip install -e '.[bench]'"


def _check_clients() -> None:
    missing = find_missing()
    if missing is not None:
        raise BenchmarkError(missing)


def make_store_url(server: Server, place: Place, store: str = STORE) -> str:
    """Return the URL of the Zarr store that a server has of the file of a place.

    Args:
        store: the directory that nginx has instead.
    """
    if server.name == nginx.NAME:
        return f"http://127.0.0.1:{server.port}/{store}"
    return f"http://127.0.0.1:{server.port}/zarr/{place.file}"


class DaskRead:
    """A client that adds up all frames with as many threads as cores, by dask.

    Of h5grove, which has no Zarr, dask's tasks ask for one frame each, as bytes, by a client that
    costs less than that of Zarr.
    """

    name = "zarr_dask"
    asks = (
        "xarray adds up 2 GiB (1,024 gzip+shuffle frames of 1024x1024 uint16) by dask: over "
        "`/zarr`; h5grove frame by frame; nginx with the same as a Zarr directory (zstd)"
    )
    figures = (
        Figure(name=_TIME, unit="s", better="lower", target=Target(ratio=3), peer=H5GROVE),
        Figure(name=_TIME, unit="s", better="lower", target=Target(ratio=0.8), peer=nginx.NAME),
    )
    servers: Mapping[str, Launch] = {**HDF5_SERVERS, nginx.NAME: nginx.launch}
    environment: Mapping[str, str] = {}
    heavy = True

    def prepare(self, data: DataFolder) -> None:
        _check_clients()
        self._place = two_gib(data)
        write_store(data, self._place)
        data.bring_to_memory([self._place])
        stored = data.read(self._place)
        # Frame by frame: all at once would be 8 GiB of uint64.
        self._sum = sum(int(frame.sum(dtype=np.uint64)) for frame in stored)
        self._frames = len(stored)

    def verify(self, servers: Sequence[Server]) -> None:
        """Do nothing: each measurement compares its sum."""

    def measure(self, server: Server, turn: Turn) -> Mapping[str, float]:
        if server.name == H5GROVE and turn.number > 0:
            return {}
        start = time.perf_counter()
        stack = self._open_frames(server) if server.name == H5GROVE else self._open_store(server)
        total = int(stack.sum(dtype=np.uint64).compute(scheduler="threads"))
        seconds = time.perf_counter() - start
        if total != self._sum:
            raise BenchmarkError(f"{server.name}: the sum is {total}, not {self._sum}")
        return {_TIME: seconds}

    def _open_store(self, server: Server) -> Any:
        import xarray  # noqa: PLC0415  # takes a second

        url = make_store_url(server, self._place)
        return xarray.open_dataset(url, engine="zarr", chunks={})["stack"].data

    def _open_frames(self, server: Server) -> Any:
        import dask.array as da  # noqa: PLC0415
        from dask import delayed  # noqa: PLC0415

        read = delayed(partial(self._read_frame, server))
        frames = [da.from_delayed(read(number), SHAPE, np.uint16) for number in range(self._frames)]
        return da.stack(frames)

    def _read_frame(self, server: Server, number: int) -> np.ndarray:
        frame = Place(self._place.file, self._place.path, (number,))
        return np.frombuffer(server.get(values(frame)), np.uint16).reshape(SHAPE)


class Slice:
    """One client: 20 rows of a frame anywhere, by zarr-python and by `/data` of the same server."""

    name = "zarr_slice"
    asks = (
        "20x1024 values of gzip+shuffle frames at random: zarr-python, and `/data` as bin; nginx "
        "with such frames as a Zarr directory (Blosc)"
    )
    figures = (
        # At most 1.5 times the time of `/data`.
        Figure(
            name=_TIME, unit="ms", better="lower", target=Target(ratio=1 / 1.5), peer=DATA_ROUTE
        ),
        # What the client needs by itself, for a whole chunk.
        Figure(name=_TIME, unit="ms", better="lower", peer=nginx.NAME),
    )
    servers: Mapping[str, Launch] = {
        SUBJECT: on_uvicorn(SUBJECT),
        DATA_ROUTE: on_uvicorn(SUBJECT),
        nginx.NAME: nginx.launch,
    }
    environment: Mapping[str, str] = {}
    heavy = False

    def prepare(self, data: DataFolder) -> None:
        _check_clients()
        self._data, self._places = data, gzip_frames(data)
        write_blosc_store(data, Place(self._places[0].file, self._places[0].path))
        data.bring_to_memory(self._places)
        self._open: dict[tuple[int, str], Any] = {}

    def verify(self, servers: Sequence[Server]) -> None:
        for server in servers:
            for place in self._choose_places(server)[:: 16 if server.name != nginx.NAME else 4]:
                part = Place(place.file, place.path, (*place.selection, slice(100, 120)))
                if not np.array_equal(self._read(server, part), self._data.read(part)):
                    raise BenchmarkError(f"{server.name}: wrong values for {part}")

    def measure(self, server: Server, turn: Turn) -> Mapping[str, float]:
        picks = random.Random(turn.number)
        times = []
        for _ in range(_SLICES_A_SECOND * turn.seconds):
            place, row = (
                picks.choice(self._choose_places(server)),
                picks.randrange(SHAPE[0] - _ROWS),
            )
            part = Place(place.file, place.path, (*place.selection, slice(row, row + _ROWS)))
            start = time.perf_counter()
            self._read(server, part)
            times.append((time.perf_counter() - start) * 1e3)
        return {_TIME: statistics.median(times)}

    def _choose_places(self, server: Server) -> Sequence[Place]:
        """Return what is asked of a server: nginx has the frames of the first file."""
        if server.name != nginx.NAME:
            return self._places
        return [place for place in self._places if place.file == self._places[0].file]

    def _read(self, server: Server, place: Place) -> np.ndarray:
        if server.name == DATA_ROUTE:
            read = np.frombuffer(server.get(values(place)), np.uint16)
            return read.reshape(-1, _COLUMNS)
        import zarr  # noqa: PLC0415  # takes a second

        key = (server.port, place.file)
        if key not in self._open:
            url = make_store_url(server, place, BLOSC_STORE)
            self._open[key] = zarr.open_group(url, mode="r")["stack"]
        return np.asarray(self._open[key][place.selection])


class TreeOpening:
    """One client opens a file of 10,000 datasets as a tree, touched before, so nothing is known."""

    name = "zarr_tree"
    asks = (
        "`xarray.open_datatree` of a file of 10,000 datasets that was touched before: over "
        "`/zarr`, by h5netcdf of the local file, and of a store in memory with the same document"
    )
    figures = (
        Figure(name=_TIME, unit="s", better="lower", target=Target(below=1.5), peer=H5NETCDF),
        Figure(name=_TIME, unit="s", better="lower", peer=IN_MEMORY),
        Figure(name=_DOCUMENT, unit="s", better="lower", target=Target(below=1), peer=H5NETCDF),
    )
    servers: Mapping[str, Launch] = {
        SUBJECT: on_uvicorn(SUBJECT),
        H5NETCDF: without_server,
        IN_MEMORY: without_server,
    }
    environment: Mapping[str, str] = {}
    heavy = True

    def prepare(self, data: DataFolder) -> None:
        _check_clients()
        self._data, self._place = data, many_datasets(data)

    def verify(self, servers: Sequence[Server]) -> None:
        """Keep the document for the store in memory; each measurement counts the datasets."""
        for server in servers:
            if server.name == SUBJECT:
                self._document = server.get(f"/zarr/{self._place.file}/zarr.json")

    def measure(self, server: Server, turn: Turn) -> Mapping[str, float]:  # noqa: ARG002  # one opening
        import xarray  # noqa: PLC0415  # takes a second

        file = self._data.file(self._place)
        measured = {}
        where: Any = str(file)
        options: dict[str, Any] = {"engine": "h5netcdf", "phony_dims": "sort"}
        if server.name == SUBJECT:
            where, options = make_store_url(server, self._place), {"engine": "zarr"}
            file.touch()
            start = time.perf_counter()
            server.get(f"/zarr/{self._place.file}/zarr.json")
            measured[_DOCUMENT] = time.perf_counter() - start
        if server.name == IN_MEMORY:
            where, options = self._make_memory_store(), {"engine": "zarr"}
        file.touch()
        start = time.perf_counter()
        tree = xarray.open_datatree(where, **options)
        measured[_TIME] = time.perf_counter() - start
        found = sum(len(node.variables) for node in tree.subtree)
        tree.close()
        if found != 10_000:
            raise BenchmarkError(f"{server.name}: {found} datasets were found")
        return measured

    def _make_memory_store(self) -> Any:
        from zarr.core.buffer import default_buffer_prototype  # noqa: PLC0415  # takes a second
        from zarr.storage import MemoryStore  # noqa: PLC0415  # as above

        content = default_buffer_prototype().buffer.from_bytes(self._document)
        return MemoryStore({"zarr.json": content}, read_only=True)


DASK, SLICE, TREE = DaskRead(), Slice(), TreeOpening()
