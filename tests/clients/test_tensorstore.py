"""tensorstore: its driver `zarr3` over its own HTTP."""

from typing import Any

import h5py
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.clients.conftest import Served
from tests.clients.expected import read_values, same_values
from tests.efforts import at_most

ARRAYS = (
    ("station.nc", "temperature"),
    ("weather_h5.nc", "air"),
    ("weather.nc", "scalar"),
    ("scan.nxs", "entry/data/counts"),
    ("scan.nxs", "entry/detector/frames"),
    ("table.h5", "wave"),
    ("stored.h5", "blosc"),
    ("stored.h5", "zstd"),
    ("stored.h5", "shuffled zstd"),
    ("stored.h5", "lz4"),
    ("stored.h5", "shuffled lz4"),
    ("stored.h5", "bitshuffled lz4"),
    ("stored.h5", "bitshuffled zstd"),
    ("zoo/layouts.h5", "chunked_edges"),
    ("zoo/layouts.h5", "chunked_never_written"),
    ("zoo/layouts.h5", "chunked_partly"),
    ("zoo/layouts.h5", "compact"),
    ("zoo/layouts.h5", "spaces/zero_2x0x3"),
    ("zoo/layouts.h5", "spaces/scalar_nan"),
    ("zoo/virtual.h5", "strided"),
    ("zoo/types.h5", "numbers/f16_big"),
    ("zoo/types.h5", "enums/boolean"),
    ("names of ä + b.h5", "sp ace"),
)


def open_array(tensorstore: Any, url: str, path: str) -> Any:
    kvstore = {"driver": "http", "base_url": url, "path": f"{path}/"}
    # Otherwise it asks 32 times, for a quarter of an hour, what was answered with 500.
    retries = {"max_retries": 1, "initial_delay": "10ms", "max_delay": "10ms"}
    context = {"http_request_retries": retries}
    spec = {"driver": "zarr3", "kvstore": kvstore, "context": context}
    return tensorstore.open(spec, open=True, read=True).result()


@pytest.mark.parametrize(("file", "path"), ARRAYS)
def test_arrays(tensorstore: Any, served: Served, file: str, path: str) -> None:
    array = open_array(tensorstore, served.url + file + "/", path)
    with h5py.File(served.root / file) as opened:
        assert same_values(array.read().result(), read_values(opened[path]))


@pytest.mark.slow
@settings(
    max_examples=at_most(60),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_selections(tensorstore: Any, served: Served, data: st.DataObject) -> None:
    file, path = data.draw(st.sampled_from(ARRAYS))
    array = open_array(tensorstore, served.url + file + "/", path)
    with h5py.File(served.root / file) as opened:
        values = read_values(opened[path])
    index = tuple(
        data.draw(
            st.builds(slice, st.integers(0, extent), st.just(extent))
            | (st.integers(0, extent - 1) if extent else st.just(slice(None)))
        )
        for extent in values.shape
    )
    assert same_values(array[index].read().result(), values[index])


def test_damaged_chunks_raise(tensorstore: Any, served: Served) -> None:
    array = open_array(tensorstore, served.url + "damaged.h5/", "x")
    assert array[5].read().result() == 5
    with pytest.raises(ValueError, match="500"):
        array[200_000:200_010].read().result()
