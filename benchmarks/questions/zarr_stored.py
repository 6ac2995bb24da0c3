"""Stored chunks that a Zarr client decodes: how far from nginx is sending them as they lie?"""

from collections.abc import Sequence
from functools import partial

from benchmarks import rate
from benchmarks.client import BenchmarkError
from benchmarks.data import DataFolder, Place
from benchmarks.kinds import frames
from benchmarks.peers import nginx
from benchmarks.question import Target
from benchmarks.servers import SUBJECT, on_uvicorn
from benchmarks.verify import Asked

PLAIN = "plain ASGI"
"""As fast as any application is on the same uvicorn."""


def _make(data: DataFolder) -> Sequence[Place]:
    places = frames.zarr_stored(data)
    nginx.write_files(data, places, partial(frames.read_stored_chunk, data))
    return places


def _make_target(place: Place) -> str:
    (frame,) = place.selection
    return f"/zarr/{place.file}{place.path}/c/{frame}/0/0"


def _check(asked: Asked, data: DataFolder, place: Place) -> None:
    expected = frames.read_stored_chunk(data, place)
    for server, request in asked:
        if server.answer(request) != expected:
            raise BenchmarkError(f"{server.name}: wrong bytes for {place}")


QUESTION = rate.RateQuestion(
    name="zarr_stored",
    asks="64 stored chunks of zstd, 1024x1024 uint16 each, of Zarr arrays in 4 files, at random; "
    "nginx sends the same bytes from plain files, and so does an ASGI application that does "
    "nothing else",
    make=_make,
    target_of=_make_target,
    check=_check,
    targets={nginx.NAME: Target(ratio=0.7), PLAIN: None},
    servers={
        SUBJECT: on_uvicorn("asgihive"),
        nginx.NAME: nginx.launch,
        PLAIN: on_uvicorn("plain_files"),
    },
    asked={nginx.NAME: nginx.requests, PLAIN: nginx.requests},
    probed=False,
)
