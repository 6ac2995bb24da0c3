"""Type descriptions: h5grove's are the oracle."""

import ctypes
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5t
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asgihive.hdf5 import types
from asgihive.hdf5.type_descriptions import describe_type, find_type, learn_type
from asgihive.hdf5.types import (
    MAX_NESTING,
    NoEquivalent,
    memory_type,
    without_dimensions,
)
from tests.efforts import at_most
from tests.hdf5.serving import described
from tests.zoo.low_level import create_attribute, create_dataset


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
    assert describe_type(h5t.decode(type_id.encode())) == describe_type(type_id)


def nested(depth: int) -> Any:
    type_id = h5t.STD_I32LE
    for _ in range(depth):
        type_id = h5t.vlen_create(type_id)
    return type_id


def test_nesting_is_bounded() -> None:
    assert describe_type(nested(MAX_NESTING - 1))["class"] == h5t.VLEN
    for type_id in (nested(MAX_NESTING + 1), nested(1000), compound(nested(MAX_NESTING))):
        with pytest.raises(NoEquivalent, match="nested more than"):
            memory_type(type_id)
        # Described as far as that.
        assert json.dumps(describe_type(type_id)).count("class") == MAX_NESTING + 1


def test_types_without_equivalent_are_described_by_size() -> None:
    time = h5t.UNIX_D32LE
    with pytest.raises(NoEquivalent, match="no NumPy equivalent"):
        memory_type(time)
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


@pytest.mark.parametrize("name", sorted(TYPES))
def test_what_a_message_says_is_what_libhdf5_says(name: str) -> None:
    message = TYPES[name].encode()[2:]
    known = find_type(message) or learn_type(message, TYPES[name])
    assert find_type(message) is known
    if not h5py.check_string_dtype(known.dtype):  # in a file they have another size
        assert known.description == describe_type(TYPES[name])
    if known.dtype is not None:
        memory = memory_type(TYPES[name])
        base, dimensions = types.without_dimensions(memory.dtype)
        assert (known.dtype, known.item_shape) == (base, dimensions)
        assert known.dtype.metadata == base.metadata
        assert known.is_as_stored == memory.is_as_stored


def test_without_dimensions() -> None:
    nested_arrays = h5t.array_create(h5t.array_create(h5t.STD_I8LE, (2, 5)), (3,)).dtype
    assert without_dimensions(nested_arrays) == (np.dtype("i1"), (3, 2, 5))
    assert without_dimensions(np.dtype("f8")) == (np.dtype("f8"), ())


# What a file may bring.


def tagged(size: int, tag: bytes) -> Any:
    type_id = h5t.create(h5t.OPAQUE, size)
    type_id.set_tag(tag)
    return type_id


HARMLESS = ["<i4", ">f8", "|S5", "<M8[ns]", "<m8[25s]", "<c16", "|b1", ">u2", "|V3"]


@pytest.mark.parametrize("name", HARMLESS)
def test_tags_of_numpys_own_types_are_taken(name: str) -> None:
    dtype = np.dtype(name)
    assert memory_type(tagged(dtype.itemsize, b"NUMPY:" + name.encode())).dtype == dtype
    assert memory_type(tagged(dtype.itemsize + 1, b"NUMPY:" + name.encode())).dtype.kind == "V"


# Each of these makes h5py's own dtype one of objects, of characters, or of something that breaks.
FORGED = [
    *(b"|O O O8 object U <U2 <U1 str T StringDType d,O O,O {'a':'O'} (2,)i4 2i4").split(),
    *(b"f16 M8[s/7] M8[] V0 S0 S99999999999 M8[1e9s] ?").split(),
    *(b"[('a','O')]", b"(" * 120, b"i4," * 80, b"M8[" + b"9" * 100 + b"s]", b"\xff", b""),
]


@pytest.mark.parametrize("tag", FORGED)
@pytest.mark.parametrize("size", [1, 4, 8, 16])
def test_other_tags_leave_bytes(tag: bytes, size: int) -> None:
    type_id = tagged(size, b"NUMPY:" + tag)
    plain = np.dtype(f"V{size}")
    memory = memory_type(type_id)
    assert memory.dtype in {plain, np.dtype("f16")}
    assert not memory.dtype.hasobject
    assert memory.id.get_size() == size
    within = memory_type(compound(h5t.STD_I8LE, type_id)).dtype
    assert not within.hasobject
    if memory.dtype == plain:
        # h5py alone decides of what dtype the elements of sequences are.
        with pytest.raises(NoEquivalent, match="tag"):
            memory_type(h5t.array_create(compound(h5t.vlen_create(type_id)), (2,)))


def test_references_to_regions_are_refused_in_sequences_alone() -> None:
    region = h5t.STD_REF_DSETREG
    assert memory_type(region).dtype.hasobject
    assert memory_type(compound(h5t.array_create(region, (2,)))).dtype.hasobject
    sequence = h5t.vlen_create(region)
    for type_id in (
        sequence,
        h5t.vlen_create(sequence),
        h5t.vlen_create(compound(h5t.STD_I8LE, region)),
        compound(h5t.array_create(h5t.vlen_create(h5t.array_create(region, (2,))), (3,))),
    ):
        with pytest.raises(NoEquivalent, match="references to regions"):
            memory_type(type_id)
    # As h5py calls them nevertheless.
    assert describe_type(sequence)["dtype"] == "|O"
    assert describe_type(sequence)["base"]["dtype"] == "|O"


ATOMS = [
    "STD_I8LE STD_I16BE STD_I64LE STD_U8BE STD_U32LE STD_U64BE IEEE_F16LE IEEE_F32BE",
    "IEEE_F64LE NATIVE_LDOUBLE IEEE_F128LE STD_B8BE STD_B32LE STD_REF_OBJ STD_REF_DSETREG",
    "UNIX_D32LE UNIX_D64BE COMPLEX_IEEE_F32LE COMPLEX_IEEE_F64BE COMPLEX_IEEE_F16LE",
]


@st.composite
def integers(draw: st.DrawFn) -> Any:
    sizes = st.sampled_from([1, 2, 3, 4, 5, 8, 16])
    type_id = draw(st.sampled_from([h5t.STD_I32LE, h5t.STD_U32BE])).copy()
    size = draw(sizes)
    type_id.set_size(size)
    # libhdf5 2.0 takes types that leave half of their bits or more unused for damaged.
    type_id.set_precision(draw(st.integers(4 * size + 1, 8 * size)))
    type_id.set_offset(draw(st.integers(0, 8 * size - type_id.get_precision())))
    return type_id


@st.composite
def floats(draw: st.DrawFn) -> Any:
    type_id = h5t.IEEE_F64LE.copy()
    type_id.set_order(draw(st.sampled_from([h5t.ORDER_LE, h5t.ORDER_BE])))
    mantissa, exponent = draw(st.integers(20, 40)), draw(st.integers(12, 20))
    type_id.set_fields(mantissa + exponent, mantissa, exponent, 0, mantissa)
    type_id.set_precision(mantissa + exponent + 1)
    type_id.set_ebias((1 << exponent - 1) - 1)
    if draw(st.booleans()):
        type_id.set_size(-(-(mantissa + exponent + 1) // 8))
    return type_id


@st.composite
def strings(draw: st.DrawFn) -> Any:
    size = draw(st.sampled_from([1, 3, 8, h5t.VARIABLE]))
    return string(size, draw(st.integers(0, 2)), draw(st.integers(0, 1)))


@st.composite
def enumerations(draw: st.DrawFn) -> Any:
    base = draw(st.sampled_from([h5t.STD_I8LE, h5t.STD_I32BE, h5t.STD_U64LE, h5t.STD_U8LE]))
    names = draw(st.sampled_from([[b"FALSE", b"TRUE"], [b"A"], [b"caf\xe9", b"B"]]))
    type_id = h5t.enum_create(base)
    for value, name in enumerate(names):
        type_id.enum_insert(name, value)
    return type_id


OPAQUES = st.builds(
    tagged,
    st.sampled_from([1, 2, 8, 16]),
    st.sampled_from([b"", b"a tag", b"NUMPY:<M8[s]", b"NUMPY:|O", b"PYTHON:OBJECT", b"NUMPY:<U2"]),
)
LEAVES = st.one_of(
    st.sampled_from([getattr(h5t, name) for name in " ".join(ATOMS).split() if hasattr(h5t, name)]),
    *(integers(), floats(), strings(), enumerations(), OPAQUES),
)
KINDS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map(lambda members: compound(*members)),
        inner.map(h5t.vlen_create),
        st.builds(h5t.array_create, inner, st.sampled_from([(1,), (2, 3)])),
    ),
    max_leaves=6,
)


def has_pointers(type_id: Any) -> bool:
    """Whether h5py makes objects of it by itself."""
    if isinstance(type_id, h5t.TypeStringID):
        return bool(type_id.is_variable_str())
    return isinstance(type_id, h5t.TypeVlenID | h5t.TypeReferenceID)


def places(type_id: Any, dtype: np.dtype[Any]) -> Iterator[tuple[Any, np.dtype[Any]]]:
    """Every place of a type, with the dtype that is there."""
    yield type_id, dtype
    if isinstance(type_id, h5t.TypeCompoundID) and dtype.names is not None:
        for i in range(type_id.get_nmembers()):
            yield from places(type_id.get_member_type(i), dtype[i])
    elif isinstance(type_id, h5t.TypeArrayID):
        base, _ = without_dimensions(dtype)
        while isinstance(type_id, h5t.TypeArrayID):
            type_id = type_id.get_super()
        yield from places(type_id, base)
    elif isinstance(type_id, h5t.TypeVlenID):
        yield from places(type_id.get_super(), h5py.check_vlen_dtype(dtype))


@settings(max_examples=at_most(300))
@given(KINDS)
def test_objects_are_only_where_h5py_makes_them(type_id: Any) -> None:
    try:
        memory = memory_type(type_id)
    except NoEquivalent:
        assert "class" in describe_type(type_id)
        return
    assert memory.id.get_size() == memory.dtype.itemsize
    if memory.is_as_stored:
        assert type_id.get_size() == memory.dtype.itemsize
        assert not memory.dtype.hasobject
    for kind, dtype in places(type_id, memory.dtype):
        if not isinstance(kind, h5t.TypeCompoundID | h5t.TypeArrayID):
            assert dtype.hasobject == has_pointers(kind)
            assert dtype.kind not in "UT"
    if not memory.dtype.hasobject:
        # Where values lie in memory is where libhdf5 puts them.
        assert_agree(memory.id, memory.dtype)


def assert_agree(type_id: Any, dtype: np.dtype[Any]) -> None:
    assert type_id.get_size() == dtype.itemsize
    if isinstance(type_id, h5t.TypeCompoundID) and dtype.fields is not None:
        for i, field in enumerate(dtype.fields[name] for name in dtype.names or ()):
            assert type_id.get_member_offset(i) == field[1]
            assert_agree(type_id.get_member_type(i), field[0])


@settings(max_examples=at_most(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(KINDS, min_size=1, max_size=4), st.sampled_from(["earliest", "latest"]))
def test_described_alike_from_wherever_a_type_comes(
    root: Path, kinds: list[Any], version: str
) -> None:
    """From memory, from its encoding, from a dataset, an attribute, a header, and a named type."""
    with h5py.File(root / "x.h5", "w", libver=version) as file:
        for number, type_id in enumerate(kinds):
            group = file.create_group(str(number))
            for name in "ab":
                dataset = create_dataset(group, name, type_id, shape=(1,))
                create_attribute(dataset, b"attribute", type_id)
            type_id.copy().commit(group.id, b"named")
    for number, type_id in enumerate(kinds):
        expected = describe_type(type_id)
        assert describe_type(h5t.decode(type_id.encode())) == expected
        group = described(root, "x.h5", f"/{number}")
        found = [child["type"] for child in group["children"]]
        found += [each["type"] for child in group["children"] for each in child["attributes"]]
        for name in ("a", "named"):
            alone = described(root, "x.h5", f"/{number}/{name}")
            found += [alone["type"], *(each["type"] for each in alone["attributes"])]
        assert found == [expected] * 8


def vax() -> Any:
    """The single-precision float of a VAX, H5T_VAX_F32, which h5py has no name for."""
    return h5t.decode(bytes.fromhex("030031611f0004000000000020001708001781000000"))


def test_floats_of_a_vax_are_described(root: Path) -> None:
    with h5py.File(root / "x.h5", "w") as file:
        for name in "ab":
            create_dataset(file, name, vax(), shape=(1,))
        create_attribute(file, b"attribute", compound(h5t.STD_I8LE, vax()))
    expected = {"class": h5t.FLOAT, "dtype": "|V4", "size": 4, "order": h5t.ORDER_VAX}
    found = described(root, "x.h5")
    assert [child["type"] for child in found["children"]] == [expected] * 2
    assert found["attributes"][0]["type"]["dtype"] == "|V5"
    assert described(root, "x.h5", "/a")["type"] == expected


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u4", "i8", "u8"])
@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_members_of_an_enumeration_are_exact(
    root: Path, order: str, kind: str, version: str
) -> None:
    limits = np.iinfo(kind)
    values = [int(limits.min), int(limits.max), 5, 1, int(limits.max) - 1]
    type_id = enumeration_of(np.dtype(f"{order}{kind}"), values)
    names = ["caf\ufffd", *"BCDE"]
    expected = dict(zip(names, values, strict=True))
    assert describe_type(type_id)["members"] == expected
    with h5py.File(root / "x.h5", "w", libver=version) as file:
        create_dataset(file, "x", compound(type_id, h5t.vlen_create(type_id)), shape=(1,))
    members = described(root, "x.h5", "/x")["type"]["members"]
    assert members[0]["members"] == members[1]["base"]["members"] == expected


def enumeration_of(dtype: np.dtype[Any], values: list[int]) -> Any:
    """As libhdf5 makes it: h5py takes values for signed integers of 64 bits."""
    library = ctypes.CDLL(h5t.__file__)
    library.H5Tenum_insert.argtypes = [ctypes.c_int64, ctypes.c_char_p, ctypes.c_void_p]
    type_id = h5t.enum_create(h5t.py_create(dtype))
    for name, value in zip([b"caf\xe9", *(bytes([c]) for c in b"BCDE")], values, strict=False):
        stored = np.array(value, dtype).tobytes()
        assert library.H5Tenum_insert(type_id.id, name, stored) >= 0
    return type_id


def test_members_of_narrow_and_of_wide_integers() -> None:
    narrow_base = h5t.STD_I16BE.copy()
    narrow_base.set_precision(12)
    narrow_base.set_offset(3)
    type_id = h5t.enum_create(narrow_base)
    for name, value in ((b"A", -5), (b"B", 2047), (b"C", -2048)):
        type_id.enum_insert(name, value)
    assert describe_type(type_id)["members"] == {"A": -5, "B": 2047, "C": -2048}
    # h5py would have libhdf5 write 16 bytes where there are 8.
    wide = h5t.STD_U64LE.copy()
    wide.set_size(16)
    wide.set_precision(128)
    library = ctypes.CDLL(h5t.__file__)
    library.H5Tenum_insert.argtypes = [ctypes.c_int64, ctypes.c_char_p, ctypes.c_void_p]
    type_id = h5t.enum_create(wide)
    assert library.H5Tenum_insert(type_id.id, b"ALL", b"\xff" * 16) >= 0
    assert describe_type(type_id)["members"] == {"ALL": 2**128 - 1}
    with pytest.raises(NoEquivalent, match="16 bytes"):
        memory_type(type_id)


def test_members_where_the_encoding_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    type_id = enumeration_of(np.dtype(">i2"), [-5, 7])
    monkeypatch.setattr(types, "KNOWN_ENCODING", b"another version")
    assert describe_type(type_id)["members"] == {"caf\ufffd": -5, "B": 7}
