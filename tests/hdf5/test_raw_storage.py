"""External raw storage: h5py's own reading, through absolute names, is the oracle."""

import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t
from hypothesis import given, settings
from hypothesis import strategies as st

from asgihive.errors import LinkUnresolved, TypeUnsupported
from asgihive.hdf5 import linear
from asgihive.hdf5.plan import parse_selection
from tests.efforts import at_most
from tests.hdf5.serving import dataset_of, forge, selected, values
from tests.hdf5.strategies import selections


def write(
    root: Path, shape: tuple[int, ...], type_id: Any, segments: list[tuple[int, int, int]]
) -> None:
    """`data`, in segments of `(bytes in the file, offset, size)`, each in a file of its own."""
    properties = h5p.create(h5p.DATASET_CREATE)
    for number, (length, offset, size) in enumerate(segments):
        file = root / f"raw_{number}.bin"
        file.write_bytes((np.arange(length) * 37 + number).astype("u1").tobytes())
        properties.set_external(bytes(file), offset, size)
    with h5py.File(root / "main.h5", "w") as written:
        h5d.create(written.id, b"data", type_id, h5s.create_simple(shape), properties)


def by_libhdf5(root: Path) -> np.ndarray[Any, Any]:
    with h5py.File(root / "main.h5", locking=False) as file:
        array: np.ndarray[Any, Any] = file["data"][...]
    return array


@settings(max_examples=at_most(60), deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple),
    type_id=st.sampled_from([h5t.STD_I32LE, h5t.STD_I16BE, h5t.IEEE_F64BE, h5t.STD_U8LE]),
    parts=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), min_size=1, max_size=4),
    missing=st.integers(-12, 4),
    span=st.sampled_from([1, 16, 1 << 16]),
    data=st.data(),
)
def test_segments_and_selections(
    tmp_path_factory: pytest.TempPathFactory,
    *,
    shape: tuple[int, ...],
    type_id: Any,
    parts: list[tuple[int, int]],
    missing: int,
    span: int,
    data: st.DataObject,
) -> None:
    root = tmp_path_factory.mktemp("raw")
    size = int(np.prod(shape)) * type_id.get_size()
    segments, left = [], size
    for length, offset in parts:
        segments.append((max(0, offset + length), offset, max(1, min(length, left))))
        left = max(0, left - length)
    # The last one holds the rest, and may end early.
    segments.append((max(0, max(1, left) + missing), 0, max(1, left)))
    write(root, shape, type_id, segments)
    expected = by_libhdf5(root)
    text = data.draw(selections(shape))
    with (
        pytest.MonkeyPatch.context() as patch,
        dataset_of(root, "main.h5", "data") as (lease, dataset),
    ):
        patch.setattr(linear, "WINDOW_BYTES", span)
        for each in (None, text):
            selection = parse_selection(each, shape)
            if selection.size:
                part = eval(f"array[{each or '...'}]", {"array": expected})
                np.testing.assert_array_equal(selected(lease, dataset, selection), part)


COMPOUND = np.dtype([("a", ">i4"), ("b", "S3"), ("c", ">f8", (2,))])


@pytest.mark.parametrize(
    "type_id",
    [
        h5t.array_create(h5t.STD_I16BE, (2, 3)),
        h5t.array_create(h5t.array_create(h5t.STD_I16LE, (2,)), (3,)),
        h5t.py_create(COMPOUND),
        h5t.STD_B16BE,
        h5t.py_create(np.dtype("S5")),
        h5t.py_create(h5py.enum_dtype({"A": 1, "B": 2}, ">i2")),
    ],
    ids=["array", "nested", "compound", "bits", "text", "enum"],
)
def test_types(root: Path, type_id: Any) -> None:
    size = 6 * type_id.get_size()
    write(root, (6,), type_id, [(7 + size, 7, size)])
    np.testing.assert_array_equal(values(root, "main.h5", "data"), by_libhdf5(root))
    np.testing.assert_array_equal(values(root, "main.h5", "data", "1::2"), by_libhdf5(root)[1::2])


def test_pointers_are_not_read(root: Path) -> None:
    write(root, (2,), h5t.vlen_create(h5t.STD_I32LE), [(64, 0, 64)])
    with pytest.raises(TypeUnsupported, match="variable-length"):
        values(root, "main.h5", "data")


def test_elements_far_apart_take_little_memory(root: Path) -> None:
    """Of a terabyte, four bytes."""
    (root / "raw.bin").write_bytes(b"\x07")
    far = 1 << 40
    with h5py.File(root / "main.h5", "w") as file:
        file.create_dataset("data", (far,), "u1", external=[("raw.bin", 0, h5py.h5f.UNLIMITED)])
    assert values(root, "main.h5", "data", f"::{far // 4}").tolist() == [7, 0, 0, 0]


def test_files_outside_are_not_read(root: Path) -> None:
    secret = root.parent / "outside/secret.bin"
    secret.write_bytes(b"secret!!")
    (root / "link.bin").symlink_to(secret)
    for name in (str(secret), "../outside/secret.bin", "link.bin", "absent.bin"):
        with h5py.File(root / "main.h5", "w") as file:
            file.create_dataset("data", (8,), "u1", external=[(name, 0, 8)])
        with pytest.raises(LinkUnresolved, match="not in the served directory"):
            values(root, "main.h5", "data")


def test_relative_names_start_at_the_file(root: Path) -> None:
    (root / "sub").mkdir()
    (root / "sub/raw.bin").write_bytes(b"here")
    with h5py.File(root / "sub/main.h5", "w") as file:
        file.create_dataset("data", (4,), "u1", external=[("raw.bin", 0, 4)])
    assert values(root, "sub/main.h5", "data").tobytes() == b"here"


def test_a_forged_compact_dataset_with_segments(root: Path) -> None:
    """libhdf5 reads the segments, whatever the layout message says."""
    secret = root.parent / "outside/secret.bin"
    secret.write_bytes(b"0123456789abcdef")
    with h5py.File(root / "main.h5", "w") as file:
        file.create_dataset("data", (16,), "u1", external=[(str(secret), 0, 16)])
    # Version 3, contiguous, no address, 16 bytes → version 3, compact, 16 bytes.
    contiguous = b"\x03\x01" + b"\xff" * 8 + struct.pack("<Q", 16)
    forge(root / "main.h5", contiguous, b"\x03\x00\x10\x00" + contiguous[4:])
    assert by_libhdf5(root).tobytes() == secret.read_bytes()
    with pytest.raises(LinkUnresolved):
        values(root, "main.h5", "data")
