"""Files as scientists write them, by h5py, netCDF4 and xarray, for the clients of `/zarr`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import xarray as xr

NAMES = ("a#1", "a?1", "50%", "sp ace", "ä", "a+b", "a&b", "[x]", "a;b", "t:1", "b\\s", "a_1")
"""Of which `a#1`, `a?1` and `a_1` are one name where a character is replaced."""

LARGE = (3, 400, 500)
"""Of chunks that are larger than what is merged, and of a last one that reaches beyond."""


def write_files(root: Path) -> None:
    """Write all of them into `root`."""
    (root / "deep/er").mkdir(parents=True)
    for name, write in WRITERS.items():
        write(root / name)


def _write_station(path: Path) -> None:
    """netCDF4: packed values, an unlimited dimension, text, an enum, every compression of it."""
    with netCDF4.Dataset(path, "w") as file:
        file.title = "station"
        file.history = ["one", "two"]
        file.createDimension("time", None)
        file.createDimension("level", 4)
        time = file.createVariable("time", "f8", ("time",))
        time.units, time.calendar = "hours since 2026-01-01", "standard"
        time[:] = np.arange(7)
        level = file.createVariable("level", "f4", ("level",))
        level.units = "hPa"
        level[:] = [1000, 850, 500, 200]
        packed = file.createVariable(
            "temperature",
            "i2",
            ("time", "level"),
            fill_value=-999,
            zlib=True,
            shuffle=True,
            chunksizes=(2, 3),
        )
        packed.scale_factor, packed.add_offset, packed.units = 0.1, 273.15, "K"
        values = 280 + np.arange(28.0).reshape(7, 4) / 10
        packed[:] = np.ma.masked_greater(values, 282.5)
        wind = file.createVariable("wind", "f4", ("time", "level"), fill_value=-1e30, zlib=True)
        wind[:] = np.ma.masked_less(np.arange(28, dtype="f4").reshape(7, 4), 3)
        wind.valid_range = np.array([0, 100], "f4")
        counts = file.createVariable("counts", "u1", ("level",), compression="zstd")
        counts[:] = [0, 1, 254, 255]
        name = file.createVariable("name", str, ("level",))
        name[:] = np.array(["ground", "é", "", "🎉"], object)
        _write_odd_variables(file)
        kinds = file.createEnumType(np.int8, "sky_type", {"clear": 0, "cloudy": 1, "unknown": 9})
        sky = file.createVariable("sky", kinds, ("time",))
        sky[:] = [0, 1, 1, 0, 1, 9, 9]
        file.createVariable("crs", "i4", ()).grid_mapping_name = "latitude_longitude"


def _write_odd_variables(file: Any) -> None:
    """Text in single bytes, and what stands for a number that is missing."""
    file.createDimension("letter", 6)
    for name, texts, encoding in (
        ("code", np.array(["abc", "", "x", "defghi"], "S6"), None),
        ("place", np.array(["äb", "cé", "", "z"], "U6"), "utf-8"),
    ):
        variable = file.createVariable(name, "S1", ("level", "letter"))
        if encoding is not None:
            variable._Encoding = encoding
        variable[:] = texts if encoding else netCDF4.stringtochar(texts)
    unsigned = file.createVariable("unsigned", "i1", ("level",), fill_value=np.int8(-1))
    unsigned._Unsigned = "true"
    unsigned.set_auto_maskandscale(False)
    unsigned[:] = np.array([-1, -2, 3, 4], "i1")
    for name, dtype, missing in (("no_number", "f8", np.nan), ("large", "f4", np.float32(1e20))):
        variable = file.createVariable(name, dtype, ("level",))
        variable.missing_value = missing
        variable[:] = [1, missing, 3, 4]
    partly = file.createVariable("partly", "f4", ("level",), zlib=True, chunksizes=(2,))
    partly[:2] = [1, 2]
    since = file.createVariable("since", "i4", ("level",))
    since.units = "days"
    since[:] = [1, 2, 3, 4]


def _write_groups(path: Path) -> None:
    """netCDF4: groups that inherit dimensions, and a dimension that is no variable."""
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("x", 5)
        file.createDimension("without", 3)
        file.createVariable("x", "f8", ("x",))[:] = np.linspace(0, 1, 5)
        file.createVariable("top", "i4", ("x", "without"))[:] = np.arange(15).reshape(5, 3)
        inner = file.createGroup("forecast")
        inner.source = "model"
        inner.createDimension("y", 2)
        inner.createVariable("y", "i4", ("y",))[:] = [10, 20]
        inner.createVariable("rain", "f4", ("y", "x"))[:] = np.arange(10).reshape(2, 5)
        deep = inner.createGroup("member")
        deep.createVariable("rain", "f4", ("y", "x"), zlib=True)[:] = np.ones((2, 5))


def _make_dataset() -> xr.Dataset:
    generator = np.random.default_rng(1)
    air = generator.normal(size=(6, 5, 4)).astype("f4")
    air[0, 0] = np.nan
    return xr.Dataset(
        {
            "air": (("time", "lat", "lon"), air, {"units": "K", "long_name": "air"}),
            "count": (("lat", "lon"), generator.integers(0, 9, (5, 4)).astype("i8")),
            "is_land": (("lat", "lon"), generator.random((5, 4)) > 0.5),
            "station": (("lat",), np.array(["a", "bé", "", "dd", "e"], object)),
            "scalar": ((), 4.5),
        },
        {
            "time": np.array("2026-01-01", "M8[ns]") + np.arange(6) * np.timedelta64(6, "h"),
            "lat": np.linspace(-10, 10, 5),
            "lon": ("lon", np.arange(4), {"units": "degrees_east"}),
            "height": ("lat", np.arange(5.0)),
        },
        {"title": "weather", "numbers": [1, 2, 3], "level": 3},
    )


def _write_weather(path: Path) -> None:
    """xarray: times, coordinates that are no dimensions, packing of its own."""
    encoding = {
        "air": {
            "dtype": "i2",
            "scale_factor": 0.01,
            "_FillValue": -32768,
            "zlib": True,
            "chunksizes": (4, 5, 3),
        },
    }
    _make_dataset().to_netcdf(path, engine="netcdf4", encoding=encoding)


def _write_weather_by_h5netcdf(path: Path) -> None:
    encoding = {"air": {"compression": "gzip", "shuffle": True, "chunksizes": (2, 2, 2)}}
    _make_dataset().to_netcdf(path, engine="h5netcdf", encoding=encoding)


def _write_tree(path: Path) -> None:
    """xarray: a tree, whose children have coordinates of their parent."""
    whole = _make_dataset()
    children = {
        "/": whole[["air"]],
        "/mean": whole[["air"]].mean("time"),
        "/mean/all": xr.Dataset({"over": ((), 1.5), "count": ("time", np.arange(6))}),
    }
    xr.DataTree.from_dict(children).to_netcdf(path)


def _write_scan(path: Path) -> None:
    """NeXus: what an axis of the signal is, says the group, not a dimension scale."""
    with h5py.File(path, "w") as file:
        file.attrs["default"] = "entry"
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        entry["title"] = "scan"
        data = entry.create_group("data")
        data.attrs["NX_class"] = "NXdata"
        data.attrs["signal"] = "counts"
        data.attrs["axes"] = ["angle", "energy"]
        data["angle"] = np.linspace(0, 1, 6)
        data["angle"].attrs["units"] = "rad"
        data["energy"] = np.arange(4, dtype="f4")
        data.create_dataset(
            "counts", data=np.arange(24, dtype="u4").reshape(6, 4), chunks=(1, 4), compression=32015
        )
        data["errors"] = np.ones((6, 4))
        frames = entry.create_group("detector")
        frames.create_dataset(
            "frames",
            data=np.arange(np.prod(LARGE), dtype=">u2").reshape(LARGE),
            chunks=(1, 256, 512),
            maxshape=(None, 400, 512),
            compression=32008,
            compression_opts=(0, 2),
        )
        frames["square"] = np.arange(16).reshape(4, 4)
        entry["link"] = h5py.SoftLink("/entry/data/counts")
        entry["loop"] = h5py.SoftLink("/entry")
        entry["broken"] = h5py.SoftLink("/nowhere")
        entry["outside"] = h5py.ExternalLink("/etc/passwd", "/")
        entry["station"] = h5py.ExternalLink("station.nc", "/wind")


def _write_stored(path: Path) -> None:
    """Large chunks of each filter that the codecs of Zarr undo, the last ones beyond the extent."""
    values = np.random.default_rng(1).poisson(3, (300, 500)).astype("<u4")
    options: dict[str, Any] = {
        "blosc": {"compression": 32001},
        "zstd": {"compression": 32015},
        "shuffled zstd": {"compression": 32015, "shuffle": True, "fletcher32": True},
        "lz4": {"compression": 32004, "compression_opts": (4096,)},
        "shuffled lz4": {"compression": 32004, "shuffle": True},
        "bitshuffled lz4": {"compression": 32008, "compression_opts": (0, 2)},
        "bitshuffled zstd": {"compression": 32008, "compression_opts": (0, 3)},
    }
    with h5py.File(path, "w") as file:
        for name, given in options.items():
            dataset = file.create_dataset(
                name, (600, 500), "<u4", chunks=(256, 256), fillvalue=7, **given
            )
            dataset[:300] = values


def _write_names(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for number, name in enumerate(NAMES):
            file[name] = np.arange(3) + 10 * number
            file[f"groups/{name}/inside"] = number


def _write_dashed(path: Path) -> None:
    """The file itself has a name that is no plain URL."""
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(4)


def _write_table(path: Path) -> None:
    row = np.dtype([("id", "<i4"), ("energy", ">f8"), ("name", "S6"), ("ok", "?")])
    rows = np.zeros(500, row)
    rows["id"] = np.arange(500)
    rows["energy"] = np.arange(500) / 8
    rows["name"] = [b"row %d" % (each % 100) for each in range(500)]
    with h5py.File(path, "w") as file:
        file.create_dataset("rows", data=rows, chunks=(64,), compression="gzip")
        file.create_dataset("wave", data=np.arange(5) + 1j, dtype="c8")
        file["left out"] = np.array([1.5], np.longdouble)
        file["inside/left out"] = file.ref


def _write_float32(path: Path) -> None:
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("x", 3)
        packed = file.createVariable("packed", "i2", ("x",))
        packed.scale_factor, packed.add_offset = np.float32(0.1), np.float32(10)
        packed.set_auto_maskandscale(False)
        packed[:] = [1, 2, 3]


WRITERS: dict[str, Callable[[Path], None]] = {
    "station.nc": _write_station,
    "groups.nc": _write_groups,
    "weather.nc": _write_weather,
    "weather_h5.nc": _write_weather_by_h5netcdf,
    "tree.nc": _write_tree,
    "scan.nxs": _write_scan,
    "stored.h5": _write_stored,
    "names of ä + b.h5": _write_names,
    "deep/er/x [1];2.h5": _write_dashed,
    "table.h5": _write_table,
    "float32.nc": _write_float32,
}


def damage_chunk(path: Path) -> None:
    """Write a file with a dataset `x` of three chunks, of which the second cannot be decoded."""
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset(
            "x", data=np.arange(600_000, dtype="f8"), chunks=(200_000,), compression="gzip"
        )
        place = dataset.id.get_chunk_info(1)
    with path.open("r+b") as raw:
        raw.seek(place.byte_offset + 100)
        raw.write(bytes(1000))
