import io
from random import Random
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import tifffile
from hypothesis import given

from asgihive.encoders import Values, find_encoder
from asgihive.encoders.tiff import MAX_PAGES
from tests.encoders.strategies import LONG, Array, arrays, in_blocks, numbers, whole

ENCODER = find_encoder("tiff")
images = hnp.array_shapes(min_dims=2, max_dims=3, max_side=5)
held = numbers.filter(lambda dtype: dtype not in (LONG, np.dtype(np.clongdouble)))


@given(arrays(held, images), st.randoms(use_true_random=False))
def test_tifffile_reads_what_was_sent(array: Array, random: Random) -> None:
    body = in_blocks(ENCODER, array, random)
    read = tifffile.imread(io.BytesIO(body))
    stored = np.dtype("u1") if array.dtype == bool else array.dtype
    np.testing.assert_array_equal(read, array.astype(stored))
    assert read.dtype.newbyteorder("=") == stored.newbyteorder("=")
    assert read.shape == array.shape
    if array.dtype != bool:
        file = io.BytesIO()
        tifffile.imwrite(file, array, photometric="minisblack")
        assert body == file.getvalue()


def test_pages_are_pages() -> None:
    array = np.arange(4 * 5 * 6, dtype="u2").reshape(4, 5, 6)
    with tifffile.TiffFile(io.BytesIO(whole(ENCODER, array))) as tiff:
        assert [page.asarray().tolist() for page in tiff.pages] == array.tolist()
        assert tiff.pages.first.photometric == tifffile.PHOTOMETRIC.MINISBLACK


@pytest.mark.parametrize("shape", [(5 << 15, 1 << 15), (5, 1 << 15, 1 << 15)])
def test_five_gibibytes_need_no_data(shape: tuple[int, ...]) -> None:
    values = Values("", shape, np.dtype("u1"))
    head, tail = ENCODER.head(values), ENCODER.tail(values)
    assert head.startswith(b"II\x2b\0")  # BigTIFF
    assert len(head) + len(tail) < 1 << 12
    assert ENCODER.length(values) == len(head) + values.nbytes + len(tail)


def test_a_classic_file_has_room_for_its_directories() -> None:
    # As many pages as may be, just below the size that makes a BigTIFF.
    values = Values("", (MAX_PAGES, 39, 1092), np.dtype("u1"))
    assert ENCODER.head(values).startswith(b"II\x2a\0")
    length = ENCODER.length(values)
    assert length is not None
    assert length < 1 << 32


@pytest.mark.parametrize(
    ("shape", "dtype", "reason"),
    [
        ((3,), "u1", "two dimensions nor three"),
        ((1, 1, 1, 1), "u1", "two dimensions nor three"),
        (None, "u1", "two dimensions nor three"),
        ((0, 3), "u1", "no elements"),
        ((2, 2), np.longdouble, "longdouble|float128"),
        ((1 << 32, 1), "u1", "longer than 4294967295"),
        ((MAX_PAGES + 1, 2, 2), "u1", "more than 100000 images"),
    ],
)
def test_refusals(shape: tuple[int, ...] | None, dtype: Any, reason: str) -> None:
    refusal = ENCODER.refusal(Values("", shape, np.dtype(dtype)))
    assert refusal is not None
    assert any(words in refusal for words in reason.split("|"))


def test_a_column_is_not_a_stack() -> None:
    assert ENCODER.refusal(Values("", (MAX_PAGES + 1, 2, 1), np.dtype("u1"))) is None
