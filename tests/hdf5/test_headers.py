"""Headers read with bare identifiers: the plain way through h5py is the oracle."""

import ctypes
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5a, h5f, h5s, h5t

from asgihive.hdf5 import attributes, entities
from asgihive.hdf5.headers import HeaderError, HeaderReader, header_reader
from tests.hdf5.serving import described, leased
from tests.hdf5.test_types import TYPES

pytestmark = pytest.mark.skipif(header_reader is None, reason="libhdf5 is not to be found")

# More than 8 are stored densely in new files; the long names make long encodings.
WIDE = np.dtype([(f"a member with a rather long name {i}", "<f4") for i in range(12)])


def write(file: h5py.File) -> None:
    file.create_group("group/below")
    file["type"] = np.dtype([("a", "<i4")])
    file["committed"] = np.zeros(3, file["type"].dtype)
    for name, value in {
        "contiguous": np.arange(6).reshape(2, 3),
        "scalar": 1.5,
        "null": h5py.Empty("i2"),
        "zero": np.zeros((0, 4)),
        "text": "é",
        "wide": np.zeros(2, WIDE),
        "deep": np.zeros((1,) * 32, "i1"),
    }.items():
        file[name] = value
    file.create_dataset("chunked", data=np.arange(9), chunks=(2,), compression="gzip")
    file.create_dataset("growing", (2, 2), "f4", maxshape=(None, 4))
    file.create_dataset("unwritten", (7,), "<f4")
    file["soft"] = h5py.SoftLink("/contiguous")
    for owner in (file, file["group"], file["contiguous"], file["chunked"], file["type"]):
        owner.attrs["scalar"] = 1
        owner.attrs["null"] = h5py.Empty("f4")
        owner.attrs["array"] = np.arange(6).reshape(3, 2)
        owner.attrs["wide"] = np.zeros((), WIDE)
        owner.attrs["é"] = "text"
        owner.attrs.create("committed", np.zeros(2, file["type"].dtype), dtype=file["type"])
    many = file.create_group("many attributes")
    for number, type_id in enumerate(TYPES.values()):
        h5a.create(many.id, f"{number} caf".encode() + b"\xe9", type_id, h5s.create(h5s.SCALAR))


@pytest.fixture(params=["earliest", "v108", "latest"])
def written(request: pytest.FixtureRequest, root: Path) -> Path:
    with h5py.File(root / "main.h5", "w", libver=request.param) as file:
        write(file)
        for number in range(20):
            file[f"group/child {number}"] = number
    return root


@pytest.fixture
def plainly() -> Iterator[pytest.MonkeyPatch]:
    """Patches away the header reader, once asked to."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def by_h5py(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(entities, "header_reader", None)
    patch.setattr(attributes, "header_reader", None)


def everything(root: Path) -> dict[str, dict[str, Any]]:
    paths = ["/", "/group", "/contiguous", "/chunked", "/type", "/many attributes", "/deep"]
    return {path: described(root, "main.h5", path) for path in paths}


def test_descriptions_are_those_of_h5py(written: Path, plainly: pytest.MonkeyPatch) -> None:
    found = everything(written)
    by_h5py(plainly)
    assert found == everything(written)
    kinds = {child["kind"] for child in found["/"]["children"]}
    assert kinds == {"group", "dataset", "datatype"}
    assert len(found["/many attributes"]["attributes"]) == len(TYPES)


OPENING = ("H5Oopen", "H5Aopen", "H5Dget_space", "H5Dget_type", "H5Aget_space", "H5Aget_type")
CLOSING = ("H5Oclose", "H5Aclose", "H5Sclose", "H5Tclose")


def counting(reader: HeaderReader) -> Counter[int]:
    """Identifiers that libhdf5 gave out to the reader and did not get back."""
    open_now: Counter[int] = Counter()

    def watch(name: str, delta: int) -> None:
        function = reader._call[name]

        def watched(*arguments: Any) -> int:
            found: int = function(*arguments)
            identifier = found if delta > 0 else arguments[0]
            if identifier >= 0:
                open_now[identifier] += delta
            return found

        reader._call[name] = watched

    for name in OPENING:
        watch(name, 1)
    for name in CLOSING:
        watch(name, -1)
    return open_now


def test_no_identifier_is_left_open(written: Path) -> None:
    reader = HeaderReader()
    open_now = counting(reader)
    with leased(written) as lease:
        root = lease.open_asked("main.h5").root
        before = h5f.get_obj_count(h5f.OBJ_ALL, h5f.OBJ_ALL)
        names: list[bytes] = []
        root.links.iterate(names.append)
        for name in names:
            if name != b"soft":
                reader.child(root.id, name)
        reader.attributes(root.id)
        assert h5f.get_obj_count(h5f.OBJ_ALL, h5f.OBJ_ALL) == before
    assert len(open_now) > len(names)
    assert not any(open_now.values())


def test_refusals_leave_no_identifier_open(root: Path) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        file["bad"] = np.arange(3)
        file["bad"].attrs["x"] = 1
        header = h5py.h5o.get_info(file["bad"].id).addr
    content = bytearray((root / "main.h5").read_bytes())
    content[header] = 0xEE
    (root / "main.h5").write_bytes(content)
    reader = HeaderReader()
    open_now = counting(reader)
    with leased(root) as lease:
        group = lease.open_asked("main.h5").root
        for name in (b"bad", b"absent"):
            with pytest.raises(HeaderError):
                reader.child(group.id, name)
        with pytest.raises(HeaderError):
            reader.attributes(-1)
    assert not any(open_now.values())


@pytest.mark.parametrize("refusing", ["H5Dget_space", "H5Aget_type", "H5Aiterate2", "H5Tencode"])
def test_a_refusal_half_way_leaves_no_identifier_open(root: Path, refusing: str) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        file["data"] = np.arange(3)
        file["data"].attrs["x"] = 1
    reader = HeaderReader()
    reader._call[refusing] = lambda *_: -1
    open_now = counting(reader)
    with leased(root) as lease:
        group = lease.open_asked("main.h5").root
        with pytest.raises(HeaderError):
            reader.child(group.id, b"data")
    assert not any(open_now.values())


def test_types_longer_than_the_buffer(root: Path) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        file["wide"] = np.zeros(2, WIDE)
    with leased(root) as lease:
        header = HeaderReader().child(lease.open_asked("main.h5").root.id, b"wide")
    assert header is not None
    assert header.type is not None
    assert len(header.type) > 96
    assert h5t.decode(header.type).dtype == WIDE
    assert header.shape == (2,)


def test_h5py_looks_where_headers_do_not_tell(written: Path) -> None:
    with leased(written) as lease:
        group = lease.open_asked("main.h5").root
        for name in (b"chunked", b"growing", b"unwritten", b"type"):
            assert HeaderReader().child(group.id, name) is None


def test_without_libhdf5s_symbols_there_is_no_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    from asgihive.hdf5 import headers  # noqa: PLC0415  # the module itself is patched

    def absent(_: str) -> object:
        raise OSError

    monkeypatch.setattr(ctypes, "PyDLL", absent)
    assert headers._find_reader() is None
