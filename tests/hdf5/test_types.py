"""Type descriptions: h5grove's are the oracle."""

import json
from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5t

from asgihive.hdf5.types import (
    MAX_NESTING,
    AttributeHeader,
    Descriptions,
    NoEquivalent,
    describe_type,
    numpy_dtype,
    without_dimensions,
)


def opaque(tag: bytes) -> Any:
    type_id = h5t.create(h5t.OPAQUE, 6)
    type_id.set_tag(tag)
    return type_id


def string(size: int, padding: int, charset: int) -> Any:
    type_id = h5t.C_S1.copy()
    type_id.set_size(size)
    type_id.set_strpad(padding)
    type_id.set_cset(charset)
    return type_id


def compound(*members: Any) -> Any:
    size = sum(member.get_size() for member in members)
    type_id = h5t.create(h5t.COMPOUND, size)
    offset = 0
    for number, member in enumerate(members):
        type_id.insert(f"member {number} é".encode(), offset, member)
        offset += member.get_size()
    return type_id


def narrow() -> Any:
    type_id = h5t.STD_I32LE.copy()
    type_id.set_precision(20)
    return type_id


NAMED = [
    "STD_I8LE STD_U8BE STD_I16BE STD_U32LE STD_I64BE STD_U64LE IEEE_F16LE IEEE_F32BE IEEE_F64LE",
    "NATIVE_LDOUBLE STD_B8LE STD_B16BE STD_B64LE STD_REF_OBJ STD_REF_DSETREG C_S1",
]
TYPES: dict[str, Any] = {
    **{name: getattr(h5t, name) for name in " ".join(NAMED).split()},
    "narrow": narrow(),
    "opaque": opaque(b"a tag"),
    "null padded": string(7, h5t.STR_NULLPAD, h5t.CSET_ASCII),
    "space padded": string(7, h5t.STR_SPACEPAD, h5t.CSET_UTF8),
    "variable": h5t.py_create(h5py.string_dtype(), logical=True),
    "variable ascii": h5t.py_create(h5py.string_dtype("ascii"), logical=True),
    "sequence": h5t.vlen_create(h5t.STD_I16BE),
    "sequence of sequences": h5t.vlen_create(h5t.vlen_create(h5t.STD_U8LE)),
    "array": h5t.array_create(h5t.IEEE_F32LE, (2, 3)),
    "array of arrays": h5t.array_create(h5t.array_create(h5t.STD_I8LE, (2,)), (3,)),
    "boolean": h5t.py_create(np.dtype("?"), logical=True),
    "enum": h5t.py_create(h5py.enum_dtype({"é": -5, "B": 7}, ">i4"), logical=True),
    "unsigned enum": h5t.py_create(h5py.enum_dtype({"A": 2**32 - 1}, "<u4"), logical=True),
    "complex": h5t.py_create(np.dtype("<c8"), logical=True),
    "compound": compound(h5t.STD_I16BE, string(3, h5t.STR_NULLPAD, 0), h5t.IEEE_F64LE),
    "nested": compound(
        compound(h5t.STD_I8LE, h5t.vlen_create(h5t.STD_I8LE)),
        h5t.array_create(compound(h5t.STD_U16LE), (2,)),
    ),
}


@pytest.mark.parametrize("name", TYPES)
def test_described_as_h5grove_describes(name: str) -> None:
    utils = pytest.importorskip("h5grove.utils")

    def plain(value: Any) -> Any:
        return value.decode() if isinstance(value, bytes) else value.tolist()

    type_id = TYPES[name]
    expected = json.loads(json.dumps(utils.get_type_metadata(type_id), default=plain))
    assert json.loads(json.dumps(describe_type(type_id))) == expected
    # As read from a header, too.
    assert Descriptions().type(type_id.encode()) == describe_type(type_id)
    assert Descriptions().type(type_id.encode() + bytes(64)) == describe_type(type_id)


def nested(depth: int) -> Any:
    type_id = h5t.STD_I32LE
    for _ in range(depth):
        type_id = h5t.vlen_create(type_id)
    return type_id


def test_nesting_is_bounded() -> None:
    assert describe_type(nested(MAX_NESTING - 1))["class"] == h5t.VLEN
    for type_id in (nested(MAX_NESTING + 1), nested(1000), compound(nested(MAX_NESTING))):
        for refusing in (describe_type, numpy_dtype):
            with pytest.raises(NoEquivalent, match="nested more than"):
                refusing(type_id)


def test_types_without_equivalent_are_described_by_size() -> None:
    time = h5t.UNIX_D32LE
    with pytest.raises(NoEquivalent, match="no NumPy equivalent"):
        numpy_dtype(time)
    assert describe_type(time) == {"class": h5t.TIME, "dtype": "|V4", "size": 4}
    within = describe_type(compound(h5t.STD_I8LE, time))
    assert within["dtype"] == "|V5"
    assert [member["dtype"] for member in within["members"]] == ["|i1", "|V4"]


def test_names_that_are_not_utf8() -> None:
    type_id = h5t.create(h5t.COMPOUND, 1)
    type_id.insert(b"caf\xe9", 0, h5t.STD_I8LE)
    described = describe_type(type_id)
    assert described["members"][0]["name"] == "caf\ufffd"
    assert describe_type(opaque(b"\xff"))["tag"] == "\ufffd"


def test_equal_types_and_attributes_are_described_once() -> None:
    known = Descriptions()
    encoding = h5t.STD_I16LE.encode()
    assert known.type(encoding) is known.type(encoding)
    headers: list[AttributeHeader] = [(b"b", (2,), encoding), (b"a", None, encoding)]
    first, second = known.attributes(headers)
    assert (first["name"], second["name"]) == ("a", "b")
    assert (first["shape"], second["shape"]) == (None, (2,))
    assert first["type"] is second["type"]
    assert known.attributes(headers)[0] is first


def test_without_dimensions() -> None:
    nested_arrays = h5t.array_create(h5t.array_create(h5t.STD_I8LE, (2, 5)), (3,)).dtype
    assert without_dimensions(nested_arrays) == (np.dtype("i1"), (3, 2, 5))
    assert without_dimensions(np.dtype("f8")) == (np.dtype("f8"), ())
