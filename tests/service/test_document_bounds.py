"""Documents: what a few bytes of a file or of a request stand for is bounded."""

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import h5py
import numpy as np
import pytest
from h5py import h5a

from asgihive.hdf5 import entities
from asgihive.service import H5App, batch
from asgihive.settings import H5Settings
from tests.asgi.exchange import Exchange, http, run
from tests.service.asking import ask, held

pytestmark = pytest.mark.anyio

MOST = 100_000


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    with h5py.File(root / "x.h5", "w", libver="latest") as file:
        file.attrs["small"] = np.arange(100.0)
        file.attrs["large"] = np.zeros(MOST // 8)
        text = "x" * (MOST // 10)
        file.attrs.create("texts", [text] * 11, dtype=h5py.string_dtype())
        for number in range(300):
            # All of one object: its description is much longer than a link.
            file[f"links/{number:03}"] = file.require_group("object")
        for number in range(20):
            file["object"].attrs[f"attribute {number}"] = number
    return root


@pytest.fixture
def app(root: Path) -> H5App:
    return H5App(root, H5Settings(max_response_bytes=MOST))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The attributes that are opened to be read."""
    opened: list[bytes] = []

    class Noting:
        def __getattr__(self, name: str) -> Any:
            return getattr(h5a, name)

        def open(self, owner: Any, name: bytes) -> Any:
            opened.append(name)
            return h5a.open(owner, name)

    monkeypatch.setattr(entities, "h5a", Noting())
    return opened


def too_large(answer: Exchange, *words: str) -> None:
    assert answer.status == 413, answer.body[:200]
    for each in (str(MOST), *words):
        assert each in answer.message


async def test_an_attribute_is_read_once_however_often_it_is_named(
    app: H5App, reads: list[bytes]
) -> None:
    query = urlencode([("file", "x.h5"), *[("attr_keys", "small")] * 990])
    answer = await run(app, http(f"/attr?{query}"))
    assert answer.json == {"small": np.arange(100.0).tolist()}
    assert reads == [b"small"]


async def test_nor_by_a_batch(app: H5App, reads: list[bytes]) -> None:
    names = ",".join(['"small"'] * 900)
    body = f'[{{"route":"attr","params":{{"file":"x.h5","attr_keys":[{names}]}}}}]'
    json = [(b"content-type", b"application/json")]
    answer = await run(app, http("/batch", "POST", body=body.encode(), headers=json))
    assert answer.json == [{"status": 200, "body": {"small": np.arange(100.0).tolist()}}]
    assert reads == [b"small"]


async def test_a_batch_encodes_no_more_than_is_accepted(
    app: H5App, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []

    def noted(fields: list[Any]) -> str:
        encoded.append(len(fields))
        return urlencode(fields)

    monkeypatch.setattr(batch, "urlencode", noted)
    names = ",".join(['"small"'] * 100_000)
    body = f'[{{"route":"attr","params":{{"file":"x.h5","attr_keys":[{names}]}}}}]'
    json = [(b"content-type", b"application/json")]
    answer = await run(app, http("/batch", "POST", body=body.encode(), headers=json))
    assert [each["status"] for each in answer.json] == [422]
    assert "at most 1000" in answer.json[0]["body"]["message"]
    assert not encoded


async def test_attributes_are_measured_before_they_are_read(
    app: H5App, monkeypatch: pytest.MonkeyPatch
) -> None:
    zeros = np.zeros
    made: list[int] = []

    def noted(shape: Any, dtype: Any) -> Any:
        array = zeros(shape, dtype)
        made.append(array.nbytes)
        return array

    monkeypatch.setattr(np, "zeros", noted)
    assert (await ask(app, "/attr", attr_keys="large")).status == 200
    made.clear()
    too_large(await ask(app, "/attr"), "attr_keys")
    assert sum(made) <= MOST
    assert held(app) == 0


async def test_values_of_variable_length_count(app: H5App) -> None:
    too_large(await ask(app, "/attr", attr_keys="texts"), "attr_keys")


@pytest.mark.parametrize("format_", ["json", "msgpack"])
async def test_metadata_are_measured_child_by_child(app: H5App, format_: str) -> None:
    too_large(await ask(app, "/meta", path="links", format=format_), "one by one")
    answer = await ask(app, "/meta", path="links/000")
    assert answer.status == 200
    assert len(answer.json["attributes"]) == 20
    assert held(app) == 0


async def test_both_bounds_hold(root: Path) -> None:
    app = H5App(root, H5Settings(max_response_bytes=MOST))
    too_large(await ask(app, "/meta", path="links"))
