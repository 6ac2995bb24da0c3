"""Clients of servers that are set otherwise: chunks as they are stored, reader processes."""

import json
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.cli.processes import running
from tests.clients.javascript import install_zarrita, run_in_node
from tests.clients.stores import over_obstore
from tests.clients.test_tensorstore import open_array

pytestmark = pytest.mark.slow  # a server each

VALUES = np.arange(512 * 700, dtype="<u4").reshape(512, 700)


@pytest.fixture
def deflated(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        options: Any = {"chunks": (256, 512), "compression": "gzip"}
        file.create_dataset("plain", data=VALUES, **options)
        file.create_dataset("shuffled", data=VALUES, shuffle=True, **options)
        file.create_dataset("checked", data=VALUES, shuffle=True, fletcher32=True, **options)
    return tmp_path


@pytest.mark.usefixtures("obstore")
def test_stored_chunks_of_deflate(zarr: Any, tensorstore: Any, deflated: Path) -> None:
    names = ("plain", "shuffled", "checked")
    with running("serve", str(deflated), "--port", "0", "--zarr-stored-chunks") as server:
        url = f"{server.url}zarr/x.h5"
        with warnings.catch_warnings():
            # No codec that is not in the specification.
            warnings.simplefilter("error")
            file = zarr.open_group(url, mode="r")
        by_obstore = zarr.open_group(over_obstore(url), mode="r")
        for name in names:
            codec = file[name].metadata.to_dict()["codecs"][1]
            assert (codec["name"], codec["configuration"]["cname"]) == ("blosc", "zlib")
            np.testing.assert_array_equal(file[name][...], VALUES)
            np.testing.assert_array_equal(by_obstore[name][...], VALUES)
            array = open_array(tensorstore, f"{url}/", name)
            np.testing.assert_array_equal(array.read().result(), VALUES)
        wanted = [[url, f"/{name}", [[0, 2], [0, 3]]] for name in names]
        found = run_in_node(install_zarrita(), f"readArrays(zarr, {json.dumps(wanted)})")
        assert [each.get("values") for each in found] == [VALUES[:2, :3].ravel().tolist()] * 3


def test_reader_processes(xr: Any, zarr: Any, files_root: Path) -> None:
    arguments = ("serve", str(files_root), "--port", "0", "--isolation", "process")
    with running(*arguments) as server:
        url = f"{server.url}zarr/"
        with xr.open_dataset(files_root / "weather.nc") as local:
            xr.testing.assert_equal(xr.open_zarr(f"{url}weather.nc", chunks=None), local)
        names = zarr.open_group(f"{url}names of ä + b.h5", mode="r")
        with h5py.File(files_root / "names of ä + b.h5") as file:
            for name, member in names.arrays():
                real = member.attrs.get("_asgihive_name", name)
                np.testing.assert_array_equal(member[...], file[real][...])
            assert len(dict(names.arrays())) == len(file) - 1
        with pytest.raises(Exception, match="500"):
            zarr.open_array(f"{url}damaged.h5/x", mode="r")[200_000:200_010]
