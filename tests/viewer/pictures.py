"""What tests of pictures share: a request, and the pixels of its answer."""

import io
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from cmap import Colormap
from PIL import Image

from asgihive.service import H5App
from tests.asgi.exchange import Exchange
from tests.service.asking import ask

Array = np.ndarray[Any, Any]


def write(folder: Path, values: dict[str, Any], name: str = "x.h5") -> H5App:
    """A service over a file with these datasets."""
    with h5py.File(folder / name, "w") as file:
        for path, value in values.items():
            file[path] = value
    return H5App(folder)


async def ask_image(app: H5App, path: str = "/a", **query: str) -> Exchange:
    """The answer to a request for an image."""
    return await ask(app, "/image", None, "GET", path=path, **query)


async def draw(app: H5App, path: str = "/a", **query: str) -> Array:
    """The pixels of an image: red, green, blue, alpha."""
    answer = await ask_image(app, path, **query)
    assert answer.status == 200, answer.body
    return decode(answer)


def decode(answer: Exchange) -> Array:
    """The pixels of an answer, by Pillow."""
    with Image.open(io.BytesIO(answer.body)) as image:
        assert Image.MIME[str(image.format)] == answer.headers["content-type"]
        return np.asarray(image.convert("RGBA"))


def paint(values: Any, low: float, high: float, name: str = "viridis") -> Array:
    """The pixels that cmap itself gives numbers between two limits."""
    parts = (np.asarray(values, np.float64) - low) / (high - low)
    painted: Array = Colormap(name)(parts.clip(0, 1), bytes=True)
    return painted
