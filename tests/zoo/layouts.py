"""Every storage layout, filter and dataspace."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t, h5z

from tests.zoo.low_level import create_dataset

IMAGE = (np.arange(31 * 23) * 7 % 65521).astype("<u2").reshape(31, 23)


FILES = ("layouts.h5", "filters.h5", "virtual.h5", "sources/one.h5")


def write(root: Path) -> None:
    (root / "raw").mkdir()
    with h5py.File(root / "layouts.h5", "w") as file:
        _layouts(file, root)
        _dataspaces(file.create_group("spaces"))
    with h5py.File(root / "filters.h5", "w") as file:
        _filters(file)
        _plugin_filters(file.create_group("plugins"))
    _virtual(root)


def _layouts(file: h5py.File, root: Path) -> None:
    compact = h5p.create(h5p.DATASET_CREATE)
    compact.set_layout(h5d.COMPACT)
    create_dataset(file, "compact", h5t.STD_I16BE, np.arange(8, dtype=">i2"), plist=compact)
    file["contiguous"] = IMAGE
    file.create_dataset("contiguous_never_written", (3, 4), "<f4", fillvalue=2.5)
    file.create_dataset("contiguous_no_fill", (3, 4), "<f4")
    file.create_dataset("chunked_edges", data=IMAGE, chunks=(8, 10))
    file.create_dataset(
        "chunk_larger_than_data", data=IMAGE[:3, :3], chunks=(3, 3), maxshape=(9, 9)
    )
    file.create_dataset("chunked_never_written", (10, 10), "<i4", chunks=(3, 4), fillvalue=-7)
    partly = file.create_dataset("chunked_partly", (10, 10), ">i4", chunks=(3, 4), fillvalue=-7)
    partly[4, 5] = 99
    resizable = file.create_dataset("resizable", (4, 5), "i8", maxshape=(None, None), chunks=(2, 2))
    resizable[...] = np.arange(20).reshape(4, 5)
    resizable.resize((6, 7))
    shrunk = file.create_dataset("shrunk", data=IMAGE, chunks=(8, 10), maxshape=(None, None))
    shrunk.resize((9, 11))
    one = file.create_dataset("one_unlimited", data=np.arange(50), maxshape=(None,), chunks=(4,))
    one.resize((60,))
    dtype = np.dtype([("a", "<i4"), ("b", "S2")])
    fill = np.array((9, b"zz"), dtype)
    file.create_dataset("compound_fill", (5,), dtype, chunks=(2,), fillvalue=fill)
    (root / "raw/first.bin").write_bytes(bytes(16) + np.arange(10, dtype="<i4").tobytes())
    (root / "raw/second.bin").write_bytes(np.arange(10, 20, dtype="<i4").tobytes())
    # libhdf5 takes a relative name from the process's directory, so h5py reads absolute ones only.
    external = [(str(root / "raw/first.bin"), 16, 40), (str(root / "raw/second.bin"), 0, 40)]
    file.create_dataset("external_storage", (4, 5), "<i4", external=external)


def _dataspaces(group: h5py.Group) -> None:
    group["null"] = h5py.Empty("f8")
    group["null_text"] = h5py.Empty(h5py.string_dtype())
    group["scalar_int"] = np.int32(-3)
    group["scalar_float"] = 0.1
    group["scalar_nan"] = np.nan
    for shape in [(0,), (0, 3), (3, 0), (2, 0, 3)]:
        group.create_dataset(f"zero_{'x'.join(map(str, shape))}", shape, "<i4")
    group.create_dataset("zero_chunked", (0, 4), ">f4", chunks=(2, 2), maxshape=(None, 4))
    group.create_dataset("zero_text", (0,), h5py.string_dtype())
    for shape in [(1,), (7,), (5, 4), (3, 4, 5), (2, 3, 4, 5), (2, 1, 3, 2, 2)]:
        values = np.arange(int(np.prod(shape)), dtype="<i4").reshape(shape)
        name = "x".join(map(str, shape))
        group[f"shape_{name}"] = values
        chunks = tuple(max(1, extent // 2) for extent in shape)
        group.create_dataset(f"chunked_{name}", data=values.astype(">f8"), chunks=chunks)


def _filters(file: h5py.File) -> None:
    options: dict[str, dict[str, Any]] = {
        "gzip": {"compression": "gzip", "compression_opts": 9},
        "gzip_shuffle": {"compression": "gzip", "shuffle": True},
        "gzip_shuffle_fletcher32": {"compression": "gzip", "shuffle": True, "fletcher32": True},
        "shuffle": {"shuffle": True},
        "fletcher32": {"fletcher32": True},
        "lzf": {"compression": "lzf"},
        "lzf_shuffle": {"compression": "lzf", "shuffle": True},
        "scale_offset": {"scaleoffset": True},
    }
    if h5z.filter_avail(h5z.FILTER_SZIP):
        options["szip"] = {"compression": "szip"}
    for name, option in options.items():
        file.create_dataset(name, data=IMAGE, chunks=(8, 10), **option)
    floats = IMAGE.astype(">f4") / 8
    file.create_dataset("scale_offset_float", data=floats, chunks=(8, 10), scaleoffset=3)
    file.create_dataset(
        "gzip_float_big", data=floats, chunks=(8, 10), compression="gzip", shuffle=True
    )
    file.create_dataset(
        "gzip_bool", data=IMAGE > 9, chunks=(8, 10), compression="gzip", shuffle=True
    )
    file.create_dataset(
        "gzip_text",
        data=[b"a", b"b\xff"] * 9,
        chunks=(5,),
        compression="gzip",
        dtype=h5py.string_dtype(),
    )
    table = np.zeros(20, [("a", "<i4"), ("b", ">f8"), ("c", "S3")])
    table["a"] = np.arange(20)
    file.create_dataset("gzip_compound", data=table, chunks=(6,), compression="gzip", shuffle=True)
    narrow = h5t.STD_I32LE.copy()
    narrow.set_precision(20)
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_chunk((8,))
    plist.set_filter(h5z.FILTER_NBIT, h5z.FLAG_OPTIONAL)
    create_dataset(file, "nbit", narrow, shape=(20,), plist=plist)[...] = np.arange(-10, 10)
    _filter_mask(file)


def _filter_mask(file: h5py.File) -> None:
    """Two chunks, the second stored with its gzip filter switched off."""
    dataset = file.create_dataset("masked_chunk", (16,), "<i4", chunks=(8,), compression="gzip")
    dataset[:8] = np.arange(8)
    dataset.id.write_direct_chunk((8,), np.arange(8, 16, dtype="<i4").tobytes(), filter_mask=1)


def _plugin_filters(group: h5py.Group) -> None:
    try:
        import hdf5plugin  # noqa: PLC0415  # optional: the rest of the zoo works without
    except ImportError:
        return
    lossless = {
        "blosc": hdf5plugin.Blosc(),
        "blosc_lz4_bitshuffle": hdf5plugin.Blosc(cname="lz4", shuffle=2),
        "blosc2": hdf5plugin.Blosc2(),
        "lz4": hdf5plugin.LZ4(),
        "zstd": hdf5plugin.Zstd(),
        "bitshuffle": hdf5plugin.Bitshuffle(cname="none"),
        "bitshuffle_lz4": hdf5plugin.Bitshuffle(),
        "bitshuffle_zstd": hdf5plugin.Bitshuffle(cname="zstd"),
        "bzip2": hdf5plugin.BZip2(),
    }
    for name, compression in lossless.items():
        group.create_dataset(name, data=IMAGE, chunks=(8, 10), compression=compression)
    big = IMAGE.astype(">f8")
    group.create_dataset(
        "zfp", data=IMAGE.astype("<f4"), chunks=(8, 10), compression=hdf5plugin.Zfp()
    )
    group.create_dataset(
        "bitshuffle_big_endian", data=big, chunks=(16, 16), compression=hdf5plugin.Bitshuffle()
    )
    group.create_dataset(
        "zstd_shuffle", data=big, chunks=(16, 16), shuffle=True, compression=hdf5plugin.Zstd()
    )


def _virtual(root: Path) -> None:
    (root / "sources").mkdir()
    for index, name in enumerate(("one", "two", "three")):
        with h5py.File(root / f"sources/{name}.h5", "w") as source:
            source["data"] = np.arange(12, dtype="<i4").reshape(3, 4) + 100 * index
            source["row"] = np.arange(4, dtype="<i4") + 100 * index
    for index in range(3):
        with h5py.File(root / f"sources/part_{index}.h5", "w") as source:
            source["row"] = np.full(4, index + 1, "<i4")
    with h5py.File(root / "virtual.h5", "w") as file:
        file.create_dataset("local", data=np.arange(20, dtype="<i4").reshape(4, 5), chunks=(2, 2))
        _virtual_datasets(file)
        _printf_source(file)


def _virtual_datasets(file: h5py.File) -> None:
    names = ("one", "two", "three", "missing")
    stack = h5py.VirtualLayout((4, 3, 4), "<i4")
    for index, name in enumerate(names):
        stack[index] = h5py.VirtualSource(f"sources/{name}.h5", "data", (3, 4))
    file.create_virtual_dataset("stack", stack, fillvalue=-9)
    strided = h5py.VirtualLayout((4, 4), ">f8")
    strided[::2, :] = h5py.VirtualSource("sources/one.h5", "data", (3, 4))[::2, :]
    strided[1, 1:3] = h5py.VirtualSource("sources/two.h5", "row", (4,))[::3]
    file.create_virtual_dataset("strided", strided, fillvalue=0.5)
    same = h5py.VirtualLayout((2, 5), "<i4")
    same[...] = h5py.VirtualSource(".", "/local", (4, 5))[1:3]
    file.create_virtual_dataset("same_file", same)
    nested = h5py.VirtualLayout((3, 4), "<i4")
    nested[...] = h5py.VirtualSource("virtual.h5", "stack", (4, 3, 4))[1]
    file.create_virtual_dataset("nested", nested)
    empty = h5py.VirtualLayout((2, 3), "<i2")
    file.create_virtual_dataset("without_sources", empty, fillvalue=5)
    absent = h5py.VirtualLayout((4,), "<i4")
    absent[...] = h5py.VirtualSource("sources/one.h5", "no_such_dataset", (4,))
    file.create_virtual_dataset("source_dataset_missing", absent, fillvalue=3)


def _printf_source(file: h5py.File) -> None:
    """Unlimited, one row from each `part_%b.h5` that exists."""
    plist = h5p.create(h5p.DATASET_CREATE)
    space = h5s.create_simple((3, 4), (h5s.UNLIMITED, 4))
    space.select_hyperslab((0, 0), (h5s.UNLIMITED, 1), (1, 1), (1, 4))
    plist.set_virtual(space, b"sources/part_%b.h5", b"row", h5s.create_simple((4,)))
    h5d.create(file.id, b"printf", h5t.STD_I32LE, space, plist)
