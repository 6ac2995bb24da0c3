"""Every HDF5 type class that NumPy has an equivalent of, as datasets and as attributes."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5t

from tests.zoo.low_level import create_attribute, create_dataset

NOT_UTF8 = b"\xff\xfe"
TEXTS = [b"plain", "née 🎉".encode(), NOT_UTF8, b""]


FILES = ("types.h5", "attributes.h5")


def write(root: Path) -> None:
    with h5py.File(root / "types.h5", "w") as file:
        _numbers(file.create_group("numbers"))
        _bits(file.create_group("bits"))
        _strings(file.create_group("strings"))
        _opaque(file.create_group("opaque"))
        _enums(file.create_group("enums"))
        _complex(file.create_group("complex"))
        _compounds(file.create_group("compounds"))
        _sequences(file.create_group("sequences"))
        _references(file.create_group("references"))
        _committed(file.create_group("committed"))
    with h5py.File(root / "attributes.h5", "w") as file:
        _attributes(file)


def _numbers(group: h5py.Group) -> None:
    for order in "<>":
        for kind in "iu":
            for size in (1, 2, 4, 8):
                limits = np.iinfo(f"{kind}{size}")
                values = [limits.min, limits.max, 0, 1, 7, limits.max // 2]
                dtype = np.dtype(f"{order}{kind}{size}")
                group[f"{kind}{8 * size}_{_word(order)}"] = np.array(values, dtype).reshape(2, 3)
        for size in (2, 4, 8):
            numbers = [0.1, -0.0, np.nan, np.inf, -np.inf, -2.5e-5, 1.0, 60000.0]
            dtype = np.dtype(f"{order}f{size}")
            group[f"f{8 * size}_{_word(order)}"] = np.array(numbers, dtype).reshape(4, 2)
    group["longdouble"] = np.array([1.1, -2, np.nan, np.inf], np.longdouble)
    group["longdouble_beyond_double"] = np.array([np.longdouble("1e4000"), 1.5], np.longdouble)
    group["big_offset"] = np.float32(1e6) + np.arange(1000, dtype="f4") / 16
    group["uint64_sum_overflows"] = np.full(100, 2**64 - 1, "u8")
    group["all_nan"] = np.full(3, np.nan)
    brain_float = h5t.IEEE_F32LE.copy()
    brain_float.set_fields(15, 7, 8, 0, 7)
    brain_float.set_size(2)
    create_dataset(group, "bfloat16", brain_float)[...] = [1, 2.5, -3, 1e30]
    narrow = h5t.STD_I32LE.copy()
    narrow.set_precision(24)
    create_dataset(group, "int24_in_32", narrow)[...] = [-5, 2**22, 0, 1]


def _word(order: str) -> str:
    return "little" if order == "<" else "big"


def _bits(group: h5py.Group) -> None:
    for size in (8, 16, 32, 64):
        # libhdf5 cannot convert a big-endian bit field of one byte to what h5py asks for.
        for order in ("LE", "BE") if size > 8 else ("LE",):
            type_id = getattr(h5t, f"STD_B{size}{order}")
            values = np.array([0, 1, 2 ** (size - 1), 2**size - 1], type_id.dtype)
            create_dataset(group, f"b{size}{order}", type_id, values)


def _strings(group: h5py.Group) -> None:
    for padding in ("NULLTERM", "NULLPAD", "SPACEPAD"):
        for charset in ("ASCII", "UTF8"):
            type_id = h5t.C_S1.copy()
            type_id.set_size(12)
            type_id.set_strpad(getattr(h5t, f"STR_{padding}"))
            type_id.set_cset(getattr(h5t, f"CSET_{charset}"))
            fill = b" " if padding == "SPACEPAD" else b"\0"
            values = np.array([text.ljust(12, fill) for text in TEXTS], "S12")
            create_dataset(group, f"fixed_{padding}_{charset}", type_id, values)
    group["fixed_scalar"] = np.bytes_("é".encode())
    for charset in ("ascii", "utf-8"):
        dtype = h5py.string_dtype(charset)
        group.create_dataset(f"variable_{charset}", data=TEXTS, dtype=dtype)
        group.create_dataset(f"variable_2d_{charset}", data=[TEXTS, TEXTS[::-1]], dtype=dtype)
    group["variable_scalar"] = 'hé\n"quoted" \\ \u2028 end'
    group.create_dataset("never_written", (3,), h5py.string_dtype())
    group.create_dataset("chunked", data=TEXTS * 50, dtype=h5py.string_dtype(), chunks=(7,))


def _opaque(group: h5py.Group) -> None:
    group["bytes"] = np.array([b"abcd", b"\x00\xff12", b"a\0\0\0"], "V4")
    group["scalar"] = np.void(b"ab\xffcd\0")
    moments = np.array(["2020-01-01T12:00:00", "NaT", "1969-12-31"], "M8[s]")
    group["datetime64"] = moments.astype(h5py.opaque_dtype(moments.dtype))


def _enums(group: h5py.Group) -> None:
    for base in ("i1", "u1", "<i2", ">u2", ">i4", "<u4", "<i8", ">u8"):
        dtype = h5py.enum_dtype({"OFF": 0, "ON": 1, "Übel": 100}, basetype=base)
        name = base.replace("<", "little_").replace(">", "big_")
        group.create_dataset(name, data=np.array([[0, 1, 100], [100, 1, 42]], base), dtype=dtype)
    group["boolean"] = np.array([[True, False], [False, True]])
    group["boolean_scalar"] = np.bool_(True)
    group["boolean_big"] = np.arange(1000) % 3 == 0


def _complex(group: h5py.Group) -> None:
    values = np.array([[1 + 2j, 3 - 4j], [0.1, 1j * np.inf]])
    values[1, 0] = complex(np.nan, -1)
    for dtype in ("<c8", ">c8", "<c16", ">c16"):
        name = dtype.replace("<", "little_").replace(">", "big_")
        group[f"pair_{name}"] = values.astype(dtype)
        if hasattr(h5t, "COMPLEX"):
            order = "LE" if dtype[0] == "<" else "BE"
            type_id = getattr(h5t, f"COMPLEX_IEEE_F{4 * int(dtype[2:])}{order}")
            create_dataset(group, f"native_{name}", type_id, values.astype(dtype))
    group["scalar"] = 1.5 - 2.5j
    group["longdouble"] = values.astype(np.clongdouble)


def _compounds(group: h5py.Group) -> None:
    packed = np.dtype([("small", "i1"), ("large", ">f8"), ("Größe", "<u2")])
    rows = [(1, 2.5, 3), (-4, np.nan, 65535)]
    group["packed"] = np.array(rows, packed)
    aligned = np.dtype([("small", "i1"), ("large", "f8"), ("last", "u2")], align=True)
    group["aligned"] = np.array(rows, aligned)
    group["scalar"] = np.array((1, b"ab"), [("a", "i4"), ("s", "S3")])
    group["real_imaginary_mixed"] = np.array([(1.0, 2.0)], [("r", "f8"), ("i", "f4")])
    group["real_imaginary_integers"] = np.array([(1, 2)], [("r", "i4"), ("i", "i4")])
    nested = np.dtype([("point", [("x", "f4"), ("y", "f4")]), ("z", "c16"), ("on", "?")])
    group["nested"] = np.array([((1, 2), 3 - 4j, True)] * 3, nested)
    fixed = np.dtype([("grid", ">i2", (2, 3)), ("name", "S5"), ("raw", "V3")])
    table = np.zeros((2, 2), fixed)
    table["grid"], table["name"], table["raw"] = np.arange(6).reshape(2, 3), b"n\xff", b"a\0b"
    group["fixed_members"] = table
    _compound_of_everything(group)
    gaps = h5t.create(h5t.COMPOUND, 24)
    gaps.insert(b"second", 16, h5t.IEEE_F32BE)
    gaps.insert(b"first", 4, h5t.STD_I32LE)
    create_dataset(group, "gaps_out_of_order", gaps)[...] = np.array(
        [(1.5, 2)] * 4, [("second", "f4"), ("first", "i4")]
    )


def _compound_of_everything(group: h5py.Group) -> None:
    dtype = np.dtype(
        [
            ("number", "<i4"),
            ("half", "<f2"),
            ("text", h5py.string_dtype()),
            ("letters", "S4"),
            ("sequence", h5py.vlen_dtype("i4")),
            ("reference", h5py.ref_dtype),
            ("enum", h5py.enum_dtype({"A": 0, "B": 1})),
            ("flag", "?"),
            ("matrix", "<f8", (2, 2)),
        ]
    )
    values = np.empty(2, dtype)
    for index, text in enumerate(["née", NOT_UTF8]):
        values[index] = (
            index,
            0.1,
            text,
            b"ab\xff",
            np.arange(index + 2, dtype="i4"),
            group.ref,
            1,
            True,
            np.array([[1, np.nan], [np.inf, 0.1]]),
        )
    group.create_dataset("everything", data=values, dtype=dtype)


def _sequences(group: h5py.Group) -> None:
    for base in ("i1", "<i4", ">f4", "f8", "f2"):
        name = base.replace("<", "little_").replace(">", "big_")
        dataset = group.create_dataset(f"of_{name}", (3,), h5py.vlen_dtype(np.dtype(base)))
        dataset[0], dataset[2] = [1, 2, 3], [100]
    grid = group.create_dataset("grid", (2, 2), h5py.vlen_dtype(np.dtype("i2")))
    grid[0, 0], grid[1, 1] = [1, 2], [3]
    same_length = group.create_dataset("same_length", (2,), h5py.vlen_dtype(np.dtype("f4")))
    same_length[0], same_length[1] = [1, np.nan], [np.inf, 4]
    scalar = group.create_dataset("scalar", (), h5py.vlen_dtype(np.dtype("i4")))
    scalar[()] = np.array([1, 2, 3], "i4")
    texts = group.create_dataset("of_strings", (2,), h5py.vlen_dtype(h5py.string_dtype()))
    texts[0] = np.array(["a", "é"], object)
    group.create_dataset("of_booleans", (2,), h5py.vlen_dtype(np.dtype("?")))[0] = [True, False]
    for name, dtype in {
        "array_i4": np.dtype(("<i4", (2, 3))),
        "array_f4_big": np.dtype((">f4", (2,))),
        "array_of_strings": np.dtype(("S3", (2,))),
        "array_of_bool": np.dtype(("?", (2,))),
    }.items():
        dataset = group.create_dataset(name, (4,), dtype)
        length = int(np.prod(dtype.shape))
        values: Any = np.arange(4 * length).reshape(4, *dtype.shape).astype(dtype.base)
        dataset[...] = values


def _references(group: h5py.Group) -> None:
    group["target"] = np.arange(12).reshape(3, 4)
    objects = group.create_dataset("objects", (3,), h5py.ref_dtype)
    objects[0], objects[1] = group.ref, group["target"].ref
    regions = group.create_dataset("regions", (2,), h5py.regionref_dtype)
    regions[0] = group["target"].regionref[0:2, ::2]
    group.create_dataset("scalar", data=group.ref, dtype=h5py.ref_dtype)


def _committed(group: h5py.Group) -> None:
    group["number"] = np.dtype(">f4")
    group["text"] = h5py.string_dtype()
    group["pair"] = np.dtype([("a", "<i4"), ("b", "S3")])
    group["state"] = h5py.enum_dtype({"X": 1, "Y": 2})
    group["matrix"] = np.dtype(("<i2", (2, 2)))
    group["pair"].attrs["unit"] = "mm"
    group.create_dataset("uses_pair", (2,), group["pair"])
    group["pair_again"] = h5py.SoftLink("pair")


def _attributes(file: h5py.File) -> None:
    dataset = file.create_dataset("dataset", data=np.arange(3))
    for owner in (file, dataset, file.create_group("group")):
        _attributes_of(owner, file)
    file.create_group("without")


def _attributes_of(owner: Any, file: h5py.File) -> None:
    attributes = owner.attrs
    attributes["int"] = np.int16(-5)
    attributes["uint64_max"] = np.uint64(2**64 - 1)
    attributes["float_nan"] = np.nan
    attributes["float32"] = np.float32(0.1)
    attributes["half_big"] = np.array([0.1, np.inf], ">f2")
    attributes["longdouble"] = np.longdouble("1.5")
    attributes["complex"] = 1 + 2j
    attributes["boolean"] = True
    attributes["enum"] = np.int8(1)
    attributes.create("enumerated", 1, dtype=h5py.enum_dtype({"A": 0, "B": 1}))
    attributes["text"] = "née 🎉"
    attributes["texts"] = ["a", "é", ""]
    attributes["fixed"] = np.bytes_("é".encode())
    attributes["fixed_not_utf8"] = np.bytes_(NOT_UTF8)
    attributes["fixed_array"] = np.array([b"ab", NOT_UTF8], "S4")
    attributes.create("text_not_utf8", NOT_UTF8, dtype=h5py.string_dtype())
    attributes.create("ascii_not_utf8", NOT_UTF8, dtype=h5py.string_dtype("ascii"))
    texts = np.array([NOT_UTF8, b"fine"], object)
    attributes.create("texts_not_utf8", texts, dtype=h5py.string_dtype())
    attributes["empty_number"] = h5py.Empty("f4")
    attributes["empty_text"] = h5py.Empty("S5")
    attributes["zero_sized"] = np.zeros((0, 3))
    attributes["matrix"] = np.arange(6, dtype=">i4").reshape(2, 3)
    attributes["compound"] = np.array([(1, b"x", 0.5)], [("a", "i4"), ("s", "S3"), ("f", "f4")])
    attributes["compound_scalar"] = np.array((1, b"x\xff"), [("a", "i4"), ("s", "S3")])
    sequences = np.array([np.arange(3, dtype="i4"), np.arange(2, dtype="i4")], object)
    attributes.create("sequences", sequences, dtype=h5py.vlen_dtype("i4"))
    attributes["reference"] = file.ref
    attributes["region"] = file["dataset"].regionref[:1]
    attributes["opaque"] = np.void(b"ab\xff")
    attributes["slash/inside"] = 1
    attributes["sp ace & ? # % é"] = 2
    attributes["x" * 5000] = 3
    create_attribute(owner, b"bits", h5t.STD_B16BE, np.array(513, ">u2"))
