"""Headers read with bare identifiers: the plain way through h5py is the oracle."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5a, h5f, h5s, h5t

from asgihive.hdf5 import attributes, entities
from asgihive.hdf5.headers import HeaderError, HeaderReader, header_reader
from asgihive.hdf5.links import LinkResolution, walk
from tests.hdf5.serving import HOPS, described, leased
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


def objects() -> int:
    count: int = h5f.get_obj_count(h5f.OBJ_ALL, h5f.OBJ_ALL)
    return count


def types() -> int:
    count: int = h5py.h5i.nmembers(h5py.h5i.DATATYPE) if hasattr(h5py.h5i, "nmembers") else 0
    return count


def test_no_identifier_is_left_open(written: Path) -> None:
    with leased(written) as lease:
        file = lease.open_asked("main.h5")
        before = objects(), types()
        for _ in range(3):
            entity = walk(lease, file, "/", LinkResolution.ALL, HOPS)
            entities.Describer(lease, HOPS).describe(entity)
            del entity
        assert (objects(), types()) == before


def test_refusals_leave_no_identifier_open(root: Path) -> None:
    with h5py.File(root / "main.h5", "w") as file:
        file["bad"] = np.arange(3)
        file["bad"].attrs["x"] = 1
        header = h5py.h5o.get_info(file["bad"].id).addr
    content = bytearray((root / "main.h5").read_bytes())
    content[header] = 0xEE
    (root / "main.h5").write_bytes(content)
    reader = HeaderReader()
    with leased(root) as lease:
        group = lease.open_asked("main.h5").root
        before = objects()
        for name in (b"bad", b"absent"):
            with pytest.raises(HeaderError):
                reader.child(group.id, name)
        with pytest.raises(HeaderError):
            reader.attributes(-1)
        assert objects() == before


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

    monkeypatch.setattr(headers.ctypes, "PyDLL", absent)
    assert headers._find_reader() is None
