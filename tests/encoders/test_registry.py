import dataclasses
import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from asgihive.encoders import (
    Values,
    check_fit,
    find_encoder,
    list_encoders,
    map_accepted_types,
    map_media_types,
    protocol,
    register,
)
from asgihive.errors import BadParameter, FormatMismatch
from tests.encoders.strategies import Array


@dataclass(frozen=True)
class Repr:
    """A format of somebody else."""

    name: str = "repr"
    media_type: str = "text/x-python"
    extension: str | None = None
    block_elements: int = 1

    def refusal(self, values: Values) -> str | None:
        return None

    def length(self, values: Values) -> int | None:
        return None

    def head(self, values: Values) -> bytes:
        return b""

    def block(self, values: Values, array: Array, first: int) -> bytes:
        return repr(array).encode()

    def tail(self, values: Values) -> bytes:
        return b""


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    list_encoders.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    list_encoders.cache_clear()


def test_the_formats_of_the_contract() -> None:
    assert set(list_encoders()) == {"arrow", "json", "bin", "npy", "csv", "tiff", "msgpack"}
    assert {(e.name, e.media_type, e.extension) for e in list_encoders().values()} == {
        ("json", "application/json", None),
        ("bin", "application/octet-stream", None),
        ("npy", "application/octet-stream", "npy"),
        ("csv", "text/csv", "csv"),
        ("tiff", "image/tiff", "tiff"),
        ("msgpack", "application/vnd.msgpack", None),
        ("arrow", "application/vnd.apache.arrow.stream", "arrows"),
    }


def test_bin_wins_over_npy() -> None:
    chosen = {media_type: encoder.name for media_type, encoder in map_media_types().items()}
    assert chosen == {
        "application/json": "json",
        "application/octet-stream": "bin",
        "application/vnd.apache.arrow.stream": "arrow",
        "application/vnd.msgpack": "msgpack",
        "text/csv": "csv",
        "image/tiff": "tiff",
    }


def test_aliases_choose_an_encoder_as_its_media_type_does() -> None:
    aliases = {name for name in map_accepted_types() if name not in map_media_types()}
    assert aliases == {"application/msgpack", "application/x-msgpack"}
    assert {map_accepted_types()[name].name for name in aliases} == {"msgpack"}
    assert map_accepted_types().items() >= map_media_types().items()


def test_an_unknown_format_says_which_there_are() -> None:
    with pytest.raises(BadParameter, match="`format` is `yaml`") as raised:
        find_encoder("yaml")
    assert all(name in str(raised.value) for name in list_encoders())


def test_register(clean: Any) -> None:
    register(Repr())
    assert find_encoder("repr") == Repr()
    assert map_media_types()["text/x-python"] == Repr()
    with pytest.raises(ValueError, match="'repr'"):
        register(Repr())
    with pytest.raises(ValueError, match="'json'"):
        register(dataclasses.replace(Repr(), name="json"))


def test_entry_points(clean: pytest.MonkeyPatch) -> None:
    entry_point = importlib.metadata.EntryPoint("x", f"{__name__}:REPR", protocol.ENTRY_POINTS)
    clean.setattr(
        protocol, "entry_points", lambda group: [entry_point] * (group == entry_point.group)
    )
    assert find_encoder("repr") is REPR


REPR = Repr()


def test_check_passes_what_fits() -> None:
    check_fit(find_encoder("csv"), Values("", (2, 2), np.dtype(float)))


def test_check_says_what_fits() -> None:
    with pytest.raises(FormatMismatch) as raised:
        check_fit(find_encoder("tiff"), Values("", (2,), np.dtype(float)))
    sentence = str(raised.value)
    assert "`format` is `tiff`" in sentence
    assert "neither two dimensions nor three" in sentence
    assert all(name in sentence for name in ("json", "bin", "npy", "csv", "msgpack"))


def test_check_when_nothing_fits() -> None:
    values = Values("", (1 << 40, 0), np.dtype(object))
    with pytest.raises(FormatMismatch, match="use a smaller selection"):
        check_fit(find_encoder("json"), values)
