"""A format of another distribution: its attributes decide ranges and compression."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from asgihive.encoders.protocol import Values, list_encoders, register, view_bytes
from asgihive.service import H5App
from tests.zoo.client import client

pytestmark = pytest.mark.anyio

VALUES = np.arange(3000, dtype="<i4")
HEAD = b"RAW1 "


class Framed:
    """A head and the elements as they lie in memory."""

    media_type = "application/x-framed"
    extension = None
    block_elements = 1 << 10

    def __init__(self, name: str, **attributes: bool) -> None:
        self.name = name
        self.__dict__.update(attributes)

    def refusal(self, values: Values) -> str | None:
        return None

    def length(self, values: Values) -> int:
        return len(HEAD) + values.nbytes

    def head(self, values: Values) -> bytes:
        return HEAD

    def block(self, values: Values, array: npt.NDArray[Any], first: int) -> memoryview:
        return view_bytes(array)

    def tail(self, values: Values) -> bytes:
        return b""


@pytest.fixture
def app(tmp_path: Path) -> Iterator[H5App]:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["values"] = VALUES
    known = dict(list_encoders())
    register(Framed("framed", is_raw=True, is_compressible=False))
    register(Framed("plain"))
    yield H5App(tmp_path)
    list_encoders().clear()
    list_encoders().update(known)


BODY = HEAD + VALUES.tobytes()


async def ask(app: H5App, name: str, **headers: str) -> Any:
    async with client(app) as asker:
        url = f"/data?file=x.h5&path=/values&format={name}"
        return await asker.get(url, headers={"accept-encoding": "identity", **headers})


@pytest.mark.parametrize("span", [(0, 3), (2, 6), (5, 8), (7, 9000), (11_000, 12_004)])
async def test_ranges_of_what_is_raw(app: H5App, span: tuple[int, int]) -> None:
    whole = await ask(app, "framed")
    assert (whole.content, whole.headers["accept-ranges"]) == (BODY, "bytes")
    first, last = span
    part = await ask(app, "framed", range=f"bytes={first}-{last}")
    assert (part.status_code, part.content) == (206, BODY[first : last + 1])
    assert part.headers["content-range"] == f"bytes {first}-{last}/{len(BODY)}"


async def test_what_is_said_of_nothing_has_no_ranges_and_is_compressed(app: H5App) -> None:
    answer = await ask(app, "plain", range="bytes=0-3")
    assert (answer.status_code, answer.content) == (200, BODY)
    assert "accept-ranges" not in answer.headers
    coded = {"accept-encoding": "gzip"}
    async with client(app) as asker:
        url = "/data?file=x.h5&path=/values&format="
        assert "content-encoding" not in (await asker.get(f"{url}framed", headers=coded)).headers
        answer = await asker.get(f"{url}plain", headers=coded)
    assert (answer.headers["content-encoding"], answer.content) == ("gzip", BODY)


async def test_all_problems_of_a_query_are_told(app: H5App) -> None:
    async with client(app) as asker:
        answer = await asker.get("/data?path=/values&format=none&dtype=other&flatten=maybe")
    assert answer.status_code == 422
    document = answer.json()
    assert [each["where"] for each in document["errors"]] == [
        ["query", name] for name in ("file", "format", "dtype", "flatten")
    ]
    assert document["message"] == "; ".join(each["message"] for each in document["errors"])
