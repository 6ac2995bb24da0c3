"""Holds the servers' answers against each other and against what h5py reads."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import orjson

from benchmarks.client import BenchmarkError
from benchmarks.data import DataFolder, Place
from benchmarks.servers import Server


def same_bytes(
    servers: Sequence[Server], data: DataFolder, places: Sequence[Place], target: Callable[..., str]
) -> None:
    """Each answer holds exactly the bytes of the values.

    Raises:
        BenchmarkError: as all functions here, at the first answer that is wrong.
    """
    for place in places:
        expected = data.read(place).tobytes()
        for server in servers:
            if server.get(target(place)) != expected:
                raise BenchmarkError(f"{server.name}: wrong bytes for {place}")


def same_long_bytes(server: Server, data: DataFolder, place: Place, target: str) -> None:
    """As `same_bytes`, for an answer that is too long to be held in memory."""
    received, expected = _Checksum(), _Checksum()
    with server.connect() as connection:
        connection.stream(target, received.add)
    with h5py.File(data.file(place), "r") as file:
        for frame in file[place.path]:
            expected.add(frame.data)
    if received != expected:
        raise BenchmarkError(f"{server.name}: wrong bytes for {place}")


def same_json_values(server: Server, data: DataFolder, place: Place, target: str) -> None:
    """The JSON answer holds exactly the numbers."""
    if not np.array_equal(np.array(_json(server, target)), data.read(place)):
        raise BenchmarkError(f"{server.name}: wrong numbers for {place}")


def same_metadata(
    servers: Sequence[Server], data: DataFolder, places: Sequence[Place], target: Callable[..., str]
) -> None:
    """All servers say the same of a group, and it is what h5py finds there."""
    for place in places:
        with h5py.File(data.file(place), "r") as file:
            expected = dict(_children(file[place.path]))
        answers = [_json(server, target(place)) for server in servers]
        for server, answer in zip(servers, answers, strict=True):
            if answer != answers[-1]:
                raise BenchmarkError(f"{server.name} and {servers[-1].name} differ on {place}")
            found = {
                child["name"]: (
                    child["shape"],
                    child["type"]["dtype"],
                    [attribute["name"] for attribute in child["attributes"]],
                )
                for child in answer["children"]
            }
            if found != expected:
                raise BenchmarkError(f"{server.name}: wrong metadata of {place}")


def _json(server: Server, target: str) -> Any:
    try:
        return orjson.loads(server.get(target))
    except orjson.JSONDecodeError as error:
        raise BenchmarkError(f"{server.name}: {target} is not JSON: {error}") from None


def _children(group: h5py.Group) -> Iterator[tuple[str, tuple[list[int], str, list[str]]]]:
    for name, child in group.items():
        yield name, (list(child.shape), child.dtype.str, sorted(child.attrs))


@dataclass(slots=True)
class _Checksum:
    """CRC-32 and number of the bytes that are added."""

    crc: int = 0
    size: int = 0

    def add(self, piece: bytes | memoryview) -> None:
        self.crc = zlib.crc32(piece, self.crc)
        self.size += memoryview(piece).nbytes
