"""xarray: a file of the server is the Dataset that the local file is."""

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import zoo
from tests.clients.conftest import Served
from tests.clients.expected import OWN
from tests.clients.stores import quote_fragment
from tests.efforts import at_most

NETCDF = ("station.nc", "weather.nc", "weather_h5.nc", "groups.nc", "tree.nc")


def normalize(local: Any) -> Any:
    """Change what a Zarr store cannot say as netCDF does.

    - Attributes are JSON: an array of numbers is a list, a number of NumPy one of Python, of
      float32 the nearest of float64.
    """

    def simplify(value: Any) -> Any:
        return value.tolist() if isinstance(value, np.ndarray | np.generic) else value

    local = local.copy()
    for each in (local, *local.variables.values()):
        each.attrs = {name: simplify(value) for name, value in each.attrs.items()}
    return local


def drop_own(remote: Any) -> Any:
    """Drop the attributes that are not in the file: the version, and what is left out."""
    remote = remote.copy()
    for each in (remote, *remote.variables.values()):
        each.attrs = {name: value for name, value in each.attrs.items() if not name.startswith(OWN)}
    return remote


def local_tree(xr: Any, path: Path, **options: Any) -> Any:
    with xr.open_datatree(path, **options) as tree:
        return tree.load()


@pytest.mark.parametrize("file", NETCDF)
def test_open_zarr_gives_what_the_local_file_gives(xr: Any, served: Served, file: str) -> None:
    engine = "h5netcdf" if "h5" in file else "netcdf4"
    with xr.open_dataset(served.root / file, engine=engine) as local:
        remote = xr.open_zarr(served.url + file, chunks=None)
        xr.testing.assert_identical(drop_own(remote), normalize(local))
        for name, variable in local.variables.items():
            mine = remote.variables[name]
            assert mine.dtype == variable.dtype or mine.dtype.kind in "OT"
            for key in ("scale_factor", "add_offset", "units", "calendar"):
                assert mine.encoding.get(key) == variable.encoding.get(key)


def test_the_engine_is_guessed_from_the_suffix(xr: Any, served: Served) -> None:
    with xr.open_dataset(served.root / "weather.nc") as local:
        with xr.open_dataset(served.url + "weather.nc.zarr") as remote:
            xr.testing.assert_identical(drop_own(remote), normalize(local))
        with xr.open_dataset(served.url + "weather.nc", engine="zarr", chunks={}) as remote:
            xr.testing.assert_identical(drop_own(remote.compute()), normalize(local))


def test_factors_of_float32_are_those_of_float64(xr: Any, served: Served) -> None:
    """Of one value; so packed data become float64, which the local file makes float32 of."""
    with xr.open_dataset(served.root / "float32.nc") as local:
        remote = xr.open_zarr(served.url + "float32.nc", chunks=None)
        assert (remote["packed"].dtype, local["packed"].dtype) == ("f8", "f4")
        xr.testing.assert_allclose(remote["packed"], local["packed"], rtol=1e-6)


def test_without_consolidated_metadata_nothing_is_silently_empty(xr: Any, served: Served) -> None:
    """A store over HTTP cannot be listed."""
    with pytest.raises(Exception, match="422"):
        xr.open_zarr(served.url + "weather.nc", chunks=None, consolidated=False)


@pytest.mark.parametrize("file", ["weather.nc", "scan.nxs/entry/data"])
def test_what_is_read_can_be_saved(xr: Any, served: Served, tmp_path: Path, file: str) -> None:
    remote = xr.open_zarr(served.url + file, chunks=None)
    remote.to_netcdf(tmp_path / "copy.nc")
    with xr.open_dataset(tmp_path / "copy.nc") as copy:
        xr.testing.assert_equal(copy, remote)
    remote.to_zarr(tmp_path / "copy.zarr", zarr_format=3, consolidated=False)
    copy = xr.open_zarr(tmp_path / "copy.zarr", chunks=None, consolidated=False)
    xr.testing.assert_identical(copy, remote)


def test_what_is_not_decoded_is_as_it_is_stored(xr: Any, served: Served) -> None:
    options = {"mask_and_scale": False, "decode_times": False}
    with xr.open_dataset(served.root / "station.nc", **options) as local:
        remote = xr.open_zarr(served.url + "station.nc", chunks=None, **options)
        assert remote["temperature"].attrs["_FillValue"] == -999
        for name, variable in local.variables.items():
            np.testing.assert_array_equal(remote[name].values, variable.values)
            assert remote[name].dtype.kind == variable.dtype.kind or name == "name"


@pytest.mark.parametrize("file", ["groups.nc", "tree.nc"])
def test_trees(xr: Any, served: Served, file: str) -> None:
    local = local_tree(xr, served.root / file)
    with xr.open_datatree(served.url + file, engine="zarr") as remote:
        assert [each.path for each in remote.subtree] == [each.path for each in local.subtree]
        for mine, theirs in zip(remote.subtree, local.subtree, strict=True):
            xr.testing.assert_identical(drop_own(mine.to_dataset()), normalize(theirs.to_dataset()))


@pytest.mark.slow
@pytest.mark.parametrize("file", zoo.FILES)
def test_every_tree_of_the_zoo_can_be_loaded(xr: Any, served: Served, file: str) -> None:
    with warnings.catch_warnings():
        # That other clients may not know a data type, and what attributes mean by chance.
        warnings.simplefilter("ignore")
        url = f"{served.url}zoo/{quote_fragment(file)}"
        with xr.open_datatree(url, engine="zarr", chunks=None) as tree:
            assert tree.load().subtree


def test_a_group_is_opened_as_a_root(xr: Any, served: Served) -> None:
    local = xr.open_dataset(served.root / "groups.nc", group="forecast").load()
    by_group = xr.open_zarr(served.url + "groups.nc", group="forecast", chunks=None)
    by_url = xr.open_zarr(served.url + "groups.nc/forecast", chunks=None)
    xr.testing.assert_identical(drop_own(by_group), drop_own(by_url))
    xr.testing.assert_identical(drop_own(by_url), normalize(local))


def test_axes_of_nexus_are_coordinates(xr: Any, served: Served) -> None:
    with xr.open_datatree(served.url + "scan.nxs", engine="zarr") as tree:
        data = tree["entry/data"].to_dataset()
        assert data["counts"].dims == ("angle", "energy")
        assert set(data.coords) == {"angle", "energy"}
        assert data["angle"].attrs["units"] == "rad"
        near = data["counts"].sel(angle=0.41, energy=2, method="nearest")
        assert near == 2 * 4 + 2
        assert data["errors"].dims == ("angle", "energy")
        # Without axes, by size; the second of the same one is another.
        assert tree["entry/detector/square"].dims == ("dim_4", "dim_4_")
        assert tree["entry/detector/frames"].dims == ("dim_3", "dim_400", "dim_500")
        assert str(tree["entry/title"].values) == "scan"


def test_damaged_chunks_raise(xr: Any, served: Served) -> None:
    with xr.open_zarr(served.url + "damaged.h5", chunks=None) as remote:
        whole = h5py.File(served.root / "damaged.h5")["x"]
        np.testing.assert_array_equal(remote["x"][:1000], whole[:1000])
        np.testing.assert_array_equal(remote["x"][-1000:], whole[-1000:])
        with pytest.raises(Exception, match=r"500|x"):
            remote["x"][200_000:200_010].load()


def is_forward(index: slice) -> bool:
    """Return whether a slice goes forward: xarray fails at some that go back and are empty."""
    return index.step is None or index.step > 0


@pytest.mark.slow
@settings(
    max_examples=at_most(60),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_selections(xr: Any, served: Served, data: st.DataObject) -> None:
    file, name = data.draw(
        st.sampled_from(
            [
                ("weather.nc", "air"),
                ("weather_h5.nc", "is_land"),
                ("station.nc", "temperature"),
                ("station.nc", "name"),
            ]
        )
    )
    with (
        xr.open_zarr(served.url + file, chunks=None) as remote,
        xr.open_dataset(served.root / file) as local,
    ):
        index = {
            dimension: data.draw(
                st.slices(extent).filter(is_forward)
                | st.integers(-extent, extent - 1)
                | st.lists(st.integers(-extent, extent - 1), max_size=5)
            )
            for dimension, extent in local[name].sizes.items()
        }
        xr.testing.assert_identical(
            drop_own(remote)[name].isel(index), normalize(local)[name].isel(index)
        )
