"""xarray and zarr-python read what xarray, netCDF4 and h5py wrote: from the documents of a tree."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from asgihive.zarr.nodes import ENUMERATION, ArrayNode, GroupNode, walk_nodes
from tests.zarr.reading import Reader, make_store, read_values

zarr = pytest.importorskip("zarr", reason="zarr is not installed")
xarray = pytest.importorskip("xarray", reason="xarray is not installed")

pytestmark = pytest.mark.filterwarnings("ignore::Warning:zarr", "ignore::Warning:xarray")


def make_dataset() -> Any:
    times = np.array(["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"], "M8[ns]")
    temperature = np.arange(24, dtype="f4").reshape(4, 3, 2)
    packed = np.array([1.5, np.nan, 2.5, 3.5])
    words = np.array(["a", "ü", "ccc"], object)
    return xarray.Dataset(
        {
            "t2m": (("time", "lat", "lon"), temperature, {"units": "K", "long_name": "warm"}),
            "packed": (("time",), packed),
            "count": (("lat",), np.arange(3)),
            "word": (("lat",), words),
            "flag": (("lat",), np.array([True, False, True])),
            "scalar": ((), 5.0),
            "alone": (("phantom",), np.arange(7)),
        },
        coords={
            "time": times,
            "lat": [1.0, 2.0, 3.0],
            "lon": ("lon", [10, 20], {"units": "deg"}),
            "height": ((), 2.0),
            "area": (("lat", "lon"), np.ones((3, 2))),
        },
        attrs={"title": "a title", "count": 3, "limits": [1.5, 2.5]},
    )


ENCODING = {
    "packed": {"dtype": "i2", "scale_factor": 0.1, "add_offset": 5.0, "_FillValue": -999},
    "t2m": {"zlib": True, "chunksizes": (2, 3, 2), "_FillValue": np.float32(1e20)},
}


def open_store(store: Any, **options: Any) -> Any:
    return xarray.open_zarr(store, consolidated=True, chunks=None, **options)


@pytest.mark.parametrize("engine", ["netcdf4", "h5netcdf"])
def test_a_netcdf_file_is_the_same_dataset(tmp_path: Path, reader: Reader, engine: str) -> None:
    module = {"netcdf4": "netCDF4"}.get(engine, engine)
    pytest.importorskip(module, reason=f"{module} is not installed")
    path = tmp_path / "x.nc"
    make_dataset().to_netcdf(path, engine=engine, encoding=ENCODING)
    found = open_store(make_store(reader.read("x.nc"), path)).load()
    with xarray.open_dataset(path, engine=engine) as local:
        xarray.testing.assert_identical(found, local.load())
        assert set(found.indexes) == set(local.indexes) == {"time", "lat", "lon"}


def test_a_tree_of_netcdf_groups_is_the_same_tree(tmp_path: Path, reader: Reader) -> None:
    pytest.importorskip("netCDF4", reason="netCDF4 is not installed")
    whole, path = make_dataset(), tmp_path / "x.nc"
    parts = {
        "/": whole[["time"]].drop_vars("height", errors="ignore"),
        "/a": whole[["t2m", "packed"]].drop_vars("time"),
        "/a/b": whole[["count"]].drop_vars(["lat", "height"]),
    }
    xarray.DataTree.from_dict(parts).to_netcdf(path)
    store = make_store(reader.read("x.nc"), path)
    found = xarray.open_datatree(store, engine="zarr", consolidated=True).load()
    with xarray.open_datatree(path, engine="netcdf4") as local:
        xarray.testing.assert_identical(found, local.load())
    inner = make_store(reader.read("x.nc", "/a"), path)
    with xarray.open_dataset(path, group="a", engine="netcdf4") as local:
        xarray.testing.assert_identical(open_store(inner).load(), local.load())


def test_a_file_that_netcdf4_wrote_means_the_same(tmp_path: Path, reader: Reader) -> None:
    netcdf = pytest.importorskip("netCDF4", reason="netCDF4 is not installed")
    path = tmp_path / "x.nc"
    with netcdf.Dataset(path, "w") as file:
        file.createDimension("t", None)
        file.createDimension("x", 3)
        time = file.createVariable("t", "f8", ("t",))
        time[:], time.units = [0, 1, 2], "hours since 2000-01-01"
        packed = file.createVariable("a", "i2", ("t", "x"), fill_value=-1, zlib=True)
        packed.scale_factor = np.float32(0.5)
        packed[:] = np.arange(9).reshape(3, 3)
        for number in range(12):  # more than eight lie in dense storage
            packed.setncattr(f"attribute {number}", number)
        packed.coordinates = "place"
        file.createVariable("place", "f4", ("t", "x"))[:] = 7
        byte = file.createVariable("byte", "u1", ("x",), fill_value=255)
        byte[:] = [1, 2, 255]
        text = file.createVariable("text", str, ("x",))
        text[:] = np.array(["a", "ü", "c"], object)
        kind = file.createEnumType(np.uint8, "Kind", {"A": 0, "B": 1})
        file.createVariable("kind", kind, ("x",))[:] = [0, 1, 0]
    found = open_store(make_store(reader.read("x.nc"), path)).load()
    assert found["kind"].attrs.pop(ENUMERATION) == ["A=0", "B=1"]
    assert found.attrs.pop("_asgihive_omitted") == ["Kind: Zarr has no named data types"]
    with xarray.open_dataset(path, engine="h5netcdf") as local:
        xarray.testing.assert_identical(found, local.load())


def write_odd(file: h5py.File) -> None:
    """Write values of every type that Zarr has, with names that it has not."""
    file["a#1"] = np.arange(6, dtype=">i4").reshape(2, 3)
    file["a%1"] = np.array([1 + 2j, np.nan], "c8")
    file["bool"] = np.array([[True], [False]])
    file["half"] = np.array([1.5, np.inf], "f2")
    file["text"] = np.array(["ä", "", "long text"], object)
    file["fixed"] = np.array([b"ab", b"c"])
    file["bytes"] = np.array([b"ab", b"c\0"], "V2")
    file["scalar"] = 5
    file["empty"] = np.zeros((0, 3), "f4")
    file["cube"] = np.zeros((3, 3, 3), "u8")
    file["table"] = np.array([(1, 2.5, b"x")], [("a", ">i2"), ("b", "f8"), ("c", "S3")])
    file.create_dataset("array", data=np.ones((2,), np.dtype(("<i2", (3,)))))
    file.create_dataset("chunked", data=np.arange(10.0), chunks=(4,), fillvalue=7)


def write_conflicts(file: h5py.File) -> None:
    """Write scales that would break a tree: of one name and other sizes, and of other meaning."""
    for group, size in (("/", 4), ("/g", 5), ("/g/h", 4)):
        scope = file.require_group(group)
        scope["x"] = np.arange(float(size))
        scope["x"].make_scale("x")
        scope["values"] = np.zeros((size, 2))
        scope["values"].dims[0].attach_scale(scope["x"])
    file["y"] = np.arange(3.0)
    file["y"].make_scale("y")
    file["along"] = np.zeros(3)
    file["along"].dims[0].attach_scale(file["y"])
    file["g/y/values"] = 1  # a group with the name of a coordinate above
    file["g/h/k/x"] = 1  # a scalar with the name of a dimension
    file["g/h/k/values"] = np.zeros(4)
    file["g/h/k/values"].dims[0].attach_scale(file["g/h/x"])
    file["dim_2"] = 7
    file["dim_4"] = np.zeros(4)
    file["square"] = np.zeros((4, 4))
    for axis in range(2):
        file["square"].dims[axis].attach_scale(file["x"])
    file["grown"] = np.zeros(6)
    file["grown"].dims[0].attach_scale(file["x"])


def write_nexus(file: h5py.File) -> None:
    data = file.create_group("entry/data")
    data.attrs.update({"NX_class": "NXdata", "signal": "counts", "axes": ["y", "."]})
    data["counts"] = np.zeros((3, 5))
    data["y"] = np.arange(3.0)
    data["errors"] = np.ones((4, 5))  # of another length
    file["entry/detector/counts"] = np.zeros((3, 5))
    old = file.create_group("entry/old")
    old.attrs["NX_class"] = "NXdata"
    old["counts"] = np.zeros((3, 5))
    old["counts"].attrs["axes"] = "[y,x]"
    old["y"], old["x"] = np.arange(3.0), np.arange(5.0)
    linked = file.create_group("entry/linked")
    linked.attrs.update({"NX_class": "NXdata", "axes": "y"})
    linked["y"] = h5py.SoftLink("/entry/data/y")
    linked["signal"] = np.zeros(3)


@pytest.mark.parametrize("write", [write_odd, write_conflicts, write_nexus])
def test_every_array_is_what_h5py_reads(
    tmp_path: Path, reader: Reader, write: Callable[[h5py.File], None]
) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        write(file)
    root = reader.read("x.h5")
    store = make_store(root, path)
    assert isinstance(root, GroupNode)
    arrays = {name: node for name, node in walk_nodes(root) if isinstance(node, ArrayNode)}
    opened = zarr.open_group(store, mode="r")
    with h5py.File(path) as file:
        assert sorted(node.path for node in arrays.values()) == sorted(list_datasets(file))
        for name, node in arrays.items():
            found, expected = opened[name][...], read_values(file[node.path])
            np.testing.assert_array_equal(np.asarray(found, expected.dtype), expected)
    with xarray.open_datatree(store, engine="zarr", consolidated=True) as tree:
        tree.load()


def list_datasets(file: h5py.File) -> list[str]:
    found: list[str] = []

    def visit(name: str, each: Any) -> None:
        if isinstance(each, h5py.Dataset):
            found.append(f"/{name}")

    file.visititems_links(lambda name, _: visit(name, file[name]))
    return found


def find_names(reader: Reader, tmp_path: Path, write: Callable[[h5py.File], None]) -> Any:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        write(file)
    root = reader.read("x.h5")
    assert isinstance(root, GroupNode)
    return {
        name: node.dimension_names for name, node in walk_nodes(root) if isinstance(node, ArrayNode)
    }


def test_names_of_dimensions_have_one_meaning_on_the_way_from_the_root(
    tmp_path: Path, reader: Reader
) -> None:
    names = find_names(reader, tmp_path, write_conflicts)
    assert names["x"] == ("x",)
    assert names["values"] == ("x", "dim_2_")  # dim_2 is a scalar
    assert names["g/x"] == ("dim_5",)
    assert names["g/values"] == ("dim_5", "dim_2")
    assert names["g/h/x"] == ("dim_4",)
    assert names["g/h/k/values"] == ("dim_4",)
    assert names["y"] == names["along"] == ("dim_3",)
    assert names["dim_4"] == ("dim_4_",)
    assert names["square"] == ("x", "dim_4_")
    assert names["grown"] == ("dim_6",)
    inner = reader.read("x.h5", "/g/h")
    assert isinstance(inner, GroupNode)
    assert inner.members["values"].dimension_names == ("x", "dim_2")  # type: ignore[union-attr]


def test_axes_of_nexus_are_dimensions(tmp_path: Path, reader: Reader) -> None:
    names = find_names(reader, tmp_path, write_nexus)
    assert names["entry/data/counts"] == ("y", "dim_5")
    assert names["entry/data/y"] == ("y",)
    assert names["entry/data/errors"] == ("dim_4", "dim_5")
    assert names["entry/detector/counts"] == ("dim_3", "dim_5")
    assert names["entry/old/counts"] == ("y", "x")
    assert (names["entry/old/y"], names["entry/old/x"]) == (("y",), ("x",))
    assert names["entry/linked/signal"] == names["entry/linked/y"] == ("y",)
    alone = reader.read("x.h5", "/entry/old/y")
    assert isinstance(alone, ArrayNode)
    assert alone.dimension_names == ("y",)
