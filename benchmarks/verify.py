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
from benchmarks.servers import SUBJECT, Server

Asked = Sequence[tuple[Server, bytes]]
"""The servers, and the request that asks each of them for one place."""

Check = Callable[[Asked, DataFolder, Place], None]


def check_bytes(asked: Asked, data: DataFolder, place: Place) -> None:
    """Check that each answer holds exactly the bytes of the values.

    Raises:
        BenchmarkError: as all functions here, at the first answer that is wrong.
    """
    expected = data.read(place).tobytes()
    for server, request in asked:
        if server.answer(request) != expected:
            raise BenchmarkError(f"{server.name}: wrong bytes for {place}")


def check_long_bytes(server: Server, data: DataFolder, place: Place, target: str) -> None:
    """Check as `check_bytes`, for an answer that is too long to be held in memory."""
    received, expected = _Checksum(), _Checksum()
    with server.connect() as connection:
        connection.stream(target, received.add)
    with h5py.File(data.file(place), "r") as file:
        for frame in file[place.path]:
            expected.add(frame.data)
    if received != expected:
        raise BenchmarkError(f"{server.name}: wrong bytes for {place}")


def check_json_values(asked: Asked, data: DataFolder, place: Place) -> None:
    """Check that each JSON answer holds exactly the numbers."""
    expected = data.read(place)
    for server, request in asked:
        if not np.array_equal(np.array(_json(server, request)), expected):
            raise BenchmarkError(f"{server.name}: wrong numbers for {place}")


def check_answers(asked: Asked, *, is_json: bool) -> None:
    """Check that all give the same bytes, or the same JSON, which may differ in its bytes."""
    read = _json if is_json else Server.answer
    (first, request), *others = asked
    agreed = read(first, request)
    for server, request in others:
        if read(server, request) != agreed:
            raise BenchmarkError(f"{server.name} and {first.name} differ on {request!r}")


def check_metadata(asked: Asked, data: DataFolder, place: Place) -> None:
    """Check that all servers say the same of a group, and what h5py finds there."""
    with h5py.File(data.file(place), "r") as file:
        expected = dict(_children(file[place.path]))
    answers = [(server, _json(server, request)) for server, request in asked]
    last, agreed = answers[-1]
    for server, answer in answers:
        if answer != agreed:
            raise BenchmarkError(f"{server.name} and {last.name} differ on {place}")
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


def check_statistics(asked: Asked, data: DataFolder, place: Place) -> None:
    """Check that the statistics are those of all frames, summed here in integers."""
    expected = _statistics(data, place)
    for server, request in asked:
        answer = _json(server, request)
        for name, value in expected.items():
            # h5grove converts all of them to the type of the dataset: 4 for a mean of 4.457.
            right = value if server.name == SUBJECT else int(value)
            if not np.isclose(answer[name], right, rtol=1e-9, atol=0):
                text = f"{server.name}: {name} of {place} is {answer[name]}, not {value}"
                raise BenchmarkError(text)


def _statistics(data: DataFolder, place: Place) -> dict[str, float]:
    count = total = squares = highest = 0
    lowest = np.iinfo(np.int64).max
    with h5py.File(data.file(place), "r") as file:
        for frame in file[place.path]:
            values = frame.astype(np.int64)
            count += values.size
            total += int(values.sum())
            squares += int((values * values).sum())
            lowest, highest = min(lowest, int(values.min())), max(highest, int(values.max()))
    variance = (squares - total * total / count) / count
    return {"min": lowest, "max": highest, "mean": total / count, "std": variance**0.5}


def _json(server: Server, request: bytes) -> Any:
    try:
        return orjson.loads(server.answer(request))
    except orjson.JSONDecodeError as error:
        raise BenchmarkError(
            f"{server.name}: the answer to {request!r} is not JSON: {error}"
        ) from None


def _children(group: h5py.Group) -> Iterator[tuple[str, tuple[list[int], str, list[str]]]]:
    for name, child in group.items():
        yield name, (list(child.shape), child.dtype.str, sorted(child.attrs))


@dataclass(slots=True)
class _Checksum:
    """CRC-32 and number of the bytes that are added."""

    crc: int = 0
    size: int = 0

    def add(self, received: bytes | memoryview) -> None:
        self.crc = zlib.crc32(received, self.crc)
        self.size += memoryview(received).nbytes
