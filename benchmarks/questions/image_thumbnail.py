"""Small pictures of large frames: decoding, means, colours and PNG, on all cores.

Nothing of an answer is kept, neither chunks nor pictures: each request is as the first one.
"""

import io

import numpy as np
from PIL import Image

from benchmarks import rate
from benchmarks.client import BenchmarkError
from benchmarks.data import DataFolder, Place
from benchmarks.kinds import frames
from benchmarks.question import Target
from benchmarks.questions.frames import CACHE_OFF
from benchmarks.servers import SUBJECT, on_uvicorn
from benchmarks.verify import Asked

PEER = "Matplotlib"

_SIDE = 512


def _make_target(place: Place) -> str:
    return place.target("/image", shape=f"{_SIDE},{_SIDE}", format="png")


def _check(asked: Asked, _: DataFolder, place: Place) -> None:
    """Check that all pictures are the same; rounding may choose the colour beside."""
    pictures = {}
    for server, request in asked:
        with Image.open(io.BytesIO(server.answer(request))) as picture:
            pictures[server.name] = np.asarray(picture.convert("RGB")).astype(int)
    first, *others = pictures.values()
    for other in others:
        if first.shape != (_SIDE, _SIDE, 3) or np.abs(first - other).max() > 8:
            raise BenchmarkError(f"{', '.join(pictures)}: different pictures of {place}")


QUESTION = rate.RateQuestion(
    name="image_thumbnail",
    asks="`/image` of 4096x4096 uint16 as 512x512, 8 gzip+shuffle frames of one chunk each, at "
    "random, no cache; the peer reads by h5py and writes by Matplotlib's imsave",
    make=frames.large_frames,
    target_of=_make_target,
    check=_check,
    targets={PEER: Target(ratio=2)},
    servers={SUBJECT: on_uvicorn("asgihive"), PEER: on_uvicorn("imsave")},
    environment={**CACHE_OFF, "ASGIHIVE_ANSWER_CACHE_BYTES": "0"},
    probed=False,
)
