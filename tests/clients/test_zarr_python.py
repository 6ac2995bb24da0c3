"""zarr-python over fsspec and over obstore: every array and attribute as h5py has them."""

import warnings
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from tests import zoo
from tests.clients.conftest import Served
from tests.clients.expected import (
    OMITTED,
    REAL_NAME,
    find_attribute_differences,
    follow,
    has_data_type,
    read_values,
    same_values,
)
from tests.clients.stores import over_obstore, quote_fragment
from tests.efforts import at_most
from tests.zoo.oracle import text

FILES = (
    "station.nc",
    "groups.nc",
    "weather.nc",
    "weather_h5.nc",
    "tree.nc",
    "stored.h5",
    "scan.nxs",
    "table.h5",
)
ODD = ("names of ä + b.h5", "deep/er/x [1];2.h5")


@pytest.fixture(params=["fsspec", "obstore"])
def open_group(request: pytest.FixtureRequest, zarr: Any, served: Served) -> Any:
    """Open a file of the server as a group."""
    if request.param == "obstore":
        request.getfixturevalue("obstore")

    def open_it(file: str, **options: Any) -> Any:
        store: Any = served.url + file
        if request.param == "obstore":
            store = over_obstore(store, **options)
        return zarr.open_group(store, mode="r")

    return open_it


def walk_groups(group: Any, node: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the path, the client's and h5py's object, of each node that the client sees."""
    yield group.path, group, node
    for name, member in group.members():
        real = member.attrs.get(REAL_NAME, name)
        if hasattr(member, "members"):
            yield from walk_groups(member, node[real])
        else:
            yield member.path, member, node[real]


def find_differences(group: Any, file: Any) -> list[str]:
    found = []
    with warnings.catch_warnings():
        # That other clients may not know the data type.
        warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification")
        for path, mine, theirs in walk_groups(group, file):
            if hasattr(mine, "members"):
                found += [f"{path}: {each}" for each in find_missing(mine, theirs)]
            else:
                found += [f"{path}: {each}" for each in find_other_values(mine, theirs)]
            differences = find_attribute_differences(mine.attrs.asdict(), theirs)
            found += [f"{path}: {each}" for each in differences]
    return found


def find_other_values(mine: Any, theirs: Any) -> Iterator[str]:
    values, given = read_values(theirs), mine[...]
    if values is None or not same_values(given, values):
        yield f"{given!r:.200}, not {values!r:.200}"


def find_missing(mine: Any, theirs: Any) -> Iterator[str]:
    """Say which members of a group are neither there nor listed, and which are wrongly so."""
    seen = {member.attrs.get(REAL_NAME, name) for name, member in mine.members()}
    omitted = mine.attrs.get(OMITTED, [])
    for name in theirs:
        node = follow(theirs, name)
        if name in seen or is_dimension_only(node) or isinstance(node, h5py.Datatype):
            continue
        reasons = [each for each in omitted if each.startswith(f"{text(name)}: ")]
        if not reasons:
            yield f"{name!r} is neither there nor listed"
        elif can_be_had(node):
            yield f"{reasons[0]!r}"
    names = [text(name) for name in theirs]
    for each in omitted:
        if not any(each.startswith(f"{name}: ") for name in names):
            yield f"{each!r} is not there"


def is_dimension_only(node: Any) -> bool:
    """Return whether a dataset is only there to be a dimension of netCDF."""
    label = b"" if node is None else node.attrs.get("NAME", b"")
    return bytes(label).startswith(b"This is a netCDF dimension but not a netCDF variable")


def can_be_had(node: Any) -> bool:
    """Return whether a client would have an array; a group is left out where it is repeated."""
    return isinstance(node, h5py.Dataset) and node.shape is not None and has_data_type(node.dtype)


@pytest.mark.parametrize("file", ["weather.nc", ODD[0]])
def test_a_file(open_group: Any, served: Served, file: str) -> None:
    with h5py.File(served.root / file) as opened:
        assert find_differences(open_group(file), opened) == []


@pytest.mark.slow
@pytest.mark.parametrize("file", [*FILES[:2], *FILES[3:], ODD[1]])
def test_every_file(open_group: Any, served: Served, file: str) -> None:
    with h5py.File(served.root / file) as opened:
        assert find_differences(open_group(file), opened) == []
        groups = [name for name, node in opened.items() if isinstance(node, h5py.Group)]
        for name in groups:
            assert find_differences(open_group(f"{file}/{name}"), opened[name]) == []


@pytest.mark.slow
@pytest.mark.parametrize("file", zoo.FILES)
def test_the_zoo(zarr: Any, served: Served, file: str) -> None:
    url = "/".join([served.url.rstrip("/"), "zoo", quote_fragment(file)])
    with h5py.File(served.root / "zoo" / file) as opened:
        assert find_differences(zarr.open_group(url, mode="r"), opened) == []


def test_each_dataset_is_seen_once_at_least(zarr: Any, served: Served) -> None:
    """Through links and cycles, too."""
    for name in ("scan.nxs", "zoo/links.h5"):
        group = zarr.open_group(served.url + name, mode="r")
        with h5py.File(served.root / name) as file:
            seen = {node.id for _, _, node in walk_groups(group, file)}
            names: list[bytes] = []
            file.id.links.visit(names.append)
            for each in names:
                node = follow(file, text(each))
                if isinstance(node, h5py.Group) or can_be_had(node):
                    assert node.id in seen, each


@pytest.mark.slow
@settings(
    max_examples=at_most(60),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_selections(open_group: Any, served: Served, data: st.DataObject) -> None:
    file, path = data.draw(
        st.sampled_from(
            [
                ("weather.nc", "air"),
                ("weather_h5.nc", "air"),
                ("station.nc", "name"),
                ("scan.nxs", "entry/detector/frames"),
                ("table.h5", "wave"),
                ("zoo/layouts.h5", "chunked_partly"),
                ("zoo/layouts.h5", "shrunk"),
                ("zoo/layouts.h5", "external_storage"),
                ("zoo/virtual.h5", "stack"),
                ("zoo/virtual.h5", "strided"),
                ("zoo/filters.h5", "gzip_float_big"),
                ("zoo/filters.h5", "plugins/bitshuffle_lz4"),
            ]
        )
    )
    array = open_group(file)[path]
    with h5py.File(served.root / file) as opened:
        values = read_values(opened[path])
    index = data.draw(npst.basic_indices(values.shape, allow_newaxis=False))
    steps = [each.step for each in np.atleast_1d(np.array(index, object)) if is_slice(each)]
    if not any(step is not None and step < 0 for step in steps):
        assert same_values(array[index], np.asarray(values[index]))
    lists = tuple(
        data.draw(st.lists(st.integers(0, extent - 1), min_size=1, max_size=4).map(sorted))
        for extent in values.shape
    )
    assert same_values(array.oindex[lists], values[np.ix_(*lists)])


def is_slice(member: Any) -> bool:
    return isinstance(member, slice)
