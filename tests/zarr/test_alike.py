"""Datasets that are alike, of which a tree takes one apart: their documents are those of each."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from asgihive.hdf5 import opening, stored_metadata
from asgihive.zarr import tree
from asgihive.zarr.nodes import OMITTED_ATTRIBUTES
from asgihive.zarr.object_attributes import read_object_attributes
from asgihive.zarr.plain_attributes import PlainAttributes
from tests import zoo as files
from tests.zarr.reading import Reader, make_document


def make_each_alone(reader: Reader, file: str) -> dict[str, Any]:
    """Return the document where nothing is known of a dataset by another one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree, "find_common_key", lambda *_: None)
        patch.setattr(PlainAttributes, "read", lambda *_: None)
        return make_document(reader.read(file))


@pytest.mark.parametrize("file", files.FILES)
def test_every_file_of_the_zoo(zoo: Path, file: str) -> None:
    reader = Reader(zoo)
    document = make_document(reader.read(file))
    assert json.dumps(document) == json.dumps(make_each_alone(reader, file))


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("track_order", [False, True])
def test_datasets_that_differ_in_one_thing(
    tmp_path: Path, reader: Reader, libver: str, *, track_order: bool
) -> None:
    """Each twice, the first one before and behind all others."""
    with h5py.File(tmp_path / "x.h5", "w", libver=libver, track_order=track_order) as file:
        for turn in range(2):
            group = file.create_group(f"{turn}")
            kinds: dict[str, dict[str, Any]] = {
                "plain": {},
                "longer": {"shape": (5,)},
                "growing": {"maxshape": (None,), "chunks": (2,)},
                "bounded": {"maxshape": (9,), "chunks": (2,)},
                "cut": {"chunks": (3,)},
                "packed": {"chunks": (3,), "compression": 4},
                "other level": {"chunks": (3,), "compression": 5},
                "other type": {"dtype": ">i2"},
                "fill": {"fillvalue": 7},
                "other fill": {"fillvalue": 8},
                "enum": {"dtype": h5py.enum_dtype({"A": 1}, "i4")},
                "other enum": {"dtype": h5py.enum_dtype({"B": 1}, "i4")},
                "array": {"dtype": np.dtype(("<i4", (2,)))},
            }
            for name, options in kinds.items():
                dataset = group.create_dataset(name, **{"shape": (4,), "dtype": "<i4", **options})
                dataset.attrs["z"] = turn
                dataset.attrs["units"] = f"{name} {turn}"
                dataset.attrs["a"] = np.arange(turn)
            written = group.create_dataset("written", data=np.arange(4, dtype="<i4"))
            written.attrs["units"] = b"\xff"
            written.attrs["bytes"] = np.bytes_(b"fixed")
            written.attrs["_FillValue"] = np.int32(turn)
            written.attrs["_asgihive_name"] = "forged"
    found = make_document(reader.read("x.h5"))
    assert json.dumps(found) == json.dumps(make_each_alone(reader, "x.h5"))
    nodes = found["consolidated_metadata"]["metadata"]
    for turn in range(2):
        attributes = nodes[f"{turn}/other fill"]["attributes"]
        assert (attributes["units"], attributes["z"]) == (f"other fill {turn}", turn)
        assert nodes[f"{turn}/other fill"]["fill_value"] == 8
        assert nodes[f"{turn}/written"]["attributes"]["units"] == "\ufffd"
        assert len(nodes[f"{turn}/written"]["attributes"][OMITTED_ATTRIBUTES]) == 2


def refuse_datasets(entity: Any) -> Any:
    assert entity.object.kind == "group"
    return read_object_attributes(entity)


def test_of_many_alike_one_is_taken_apart(
    tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for number in range(50):
            dataset = file.create_dataset(f"{number}", data=np.arange(4))
            dataset.attrs["units"], dataset.attrs["gain"] = f"m{number}", 1.5
    calls = []

    def count(*given: Any) -> Any:
        calls.append(given)
        return stored_metadata.interpret_dataset(*given)

    monkeypatch.setattr(opening, "interpret_dataset", count)
    # Nor is an attribute looked at in the way of those that are not plain.
    monkeypatch.setattr(tree, "read_object_attributes", refuse_datasets)
    nodes = make_document(reader.read("x.h5"))["consolidated_metadata"]["metadata"]
    assert nodes["49"]["attributes"] == {"gain": 1.5, "units": "m49"}
    assert len(nodes) == 50
    assert len(calls) == 1
