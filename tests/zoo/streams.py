"""Small files for what lies in memory: each filter, layout and type, and chunks that lack bytes.

Each file is one way of storing values, so that a damage to it is met by each request about it.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import msgpack
import numpy as np
from h5py import h5d, h5p, h5s, h5t, h5z

from tests.zoo import chunks

SHAPE, CHUNKS = (64, 48), (32, 48)
INTEGERS = (np.arange(SHAPE[0] * SHAPE[1]) * 7 // 3 % 1000).astype("<i4").reshape(SHAPE)
FLOATS = (INTEGERS / 8).astype("<f8")
PADDED = np.dtype(
    [("flag", "i1"), ("value", "<f8"), ("id", "<i2"), ("ratio", "<c8", (2,)), ("name", "S3")],
    align=True,
)
# Of a plane of these a chunk is larger than what allocators keep apart.
TABLE = np.zeros(600, PADDED)
TABLE["value"], TABLE["id"] = np.arange(600) / 4, np.arange(600)

Options = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Streams:
    """A file below the root, and where its chunks and the values of its filters are."""

    name: str
    anchors: tuple[int, ...]


def build(root: Path) -> None:
    """Write them all below `root`, which must exist and be empty."""
    for name, write in _files():
        path = root / f"{name}.h5"
        # The oldest format, whose structures have no checksums.
        with h5py.File(path, "w", libver=("earliest", "v110")) as file:
            write(file)
    for name, forge in FORGED.items():
        forge(root / f"{name}.h5")


def find(root: Path) -> list[Streams]:
    """What `build` wrote there."""
    names = [*(name for name, _ in _files()), *FORGED]
    paths = [root / f"{name}.h5" for name in names]
    return [Streams(path.name, tuple(_anchors(path))) for path in paths]


def _files() -> Iterator[tuple[str, Callable[[h5py.File], None]]]:
    for name, options in _filters().items():
        yield f"filter_{name}", partial(_filtered, options=options)
    for name, options in _lossy_filters().items():
        yield f"filter_{name}", partial(_lossy, options=options)
    yield "layouts", _layouts
    yield "virtual", _virtual
    yield "nbit", _nbit


def _filters() -> dict[str, Options]:
    options: dict[str, Options] = {
        "none": {},
        "gzip": {"compression": "gzip"},
        "gzip_shuffle": {"compression": "gzip", "shuffle": True},
        "gzip_shuffle_fletcher32": {"compression": "gzip", "shuffle": True, "fletcher32": True},
        "shuffle": {"shuffle": True},
        "fletcher32": {"fletcher32": True},
        "lzf": {"compression": "lzf"},
        "lzf_shuffle": {"compression": "lzf", "shuffle": True},
    }
    try:
        import hdf5plugin  # noqa: PLC0415  # optional: the rest works without
    except ImportError:
        return options
    plugins = {
        "bzip2": hdf5plugin.BZip2(),
        "lz4": hdf5plugin.LZ4(),
        "lz4_blocks": hdf5plugin.LZ4(nbytes=1000),
        "zstd": hdf5plugin.Zstd(),
        "bitshuffle": hdf5plugin.Bitshuffle(cname="none"),
        "bitshuffle_lz4": hdf5plugin.Bitshuffle(),
        "bitshuffle_zstd": hdf5plugin.Bitshuffle(cname="zstd"),
    }
    for name in ("blosclz", "lz4", "zlib", "zstd"):
        for shuffle in (0, 1, 2):
            plugins[f"blosc_{name}_{shuffle}"] = hdf5plugin.Blosc(cname=name, shuffle=shuffle)
            plugins[f"blosc2_{name}_{shuffle}"] = hdf5plugin.Blosc2(cname=name, filters=shuffle)
    plugins["blosc_stored"] = hdf5plugin.Blosc(clevel=0)
    plugins["blosc2_delta"] = hdf5plugin.Blosc2(filters=3)
    plugins["blosc2_truncated"] = hdf5plugin.Blosc2(filters=4)
    options |= {name: {"compression": filter_} for name, filter_ in plugins.items()}
    options["zstd_shuffle"] = {"compression": hdf5plugin.Zstd(), "shuffle": True}
    return options


def _lossy_filters() -> dict[str, Options]:
    options: dict[str, Options] = {"scale_offset": {"scaleoffset": 2}}
    if h5z.filter_avail(h5z.FILTER_SZIP):
        options["szip_nn"] = {"compression": "szip", "compression_opts": ("nn", 10)}
        options["szip_ec"] = {"compression": "szip", "compression_opts": ("ec", 16)}
    try:
        import hdf5plugin  # noqa: PLC0415  # optional: the rest works without
    except ImportError:
        return options
    options["zfp"] = {"compression": hdf5plugin.Zfp(accuracy=0.01)}
    options["zfp_reversible"] = {"compression": hdf5plugin.Zfp(reversible=True)}
    return options


def _filtered(file: h5py.File, options: Options) -> None:
    file.create_dataset("integers", data=INTEGERS, chunks=CHUNKS, **options)
    file.create_dataset("table", data=TABLE, chunks=(200,), **options)


def _lossy(file: h5py.File, options: Options) -> None:
    file.create_dataset("floats", data=FLOATS, chunks=CHUNKS, **options)
    file.create_dataset("integers", data=INTEGERS, chunks=CHUNKS, **options)


def _layouts(file: h5py.File) -> None:
    file["contiguous"] = TABLE
    file["long"] = np.arange(500).astype(np.longdouble)
    file.create_dataset("partly", (600,), PADDED, chunks=(200,))[:250] = TABLE[:250]
    file.create_dataset("never_written", (600,), PADDED, chunks=(200,))
    file.create_dataset("swapped", data=TABLE, chunks=(200,), dtype=PADDED.newbyteorder(">"))
    compact = h5p.create(h5p.DATASET_CREATE)
    compact.set_layout(h5d.COMPACT)
    type_id = h5t.py_create(PADDED, logical=True)
    stored = h5d.create(file.id, b"compact", type_id, h5s.create_simple((600,)), compact)
    stored.write(h5s.ALL, h5s.ALL, TABLE, mtype=type_id)
    outside = str(Path(file.filename).with_suffix(".bin"))
    Path(outside).write_bytes(TABLE.tobytes()[:-999])
    storage = [(outside, 0, TABLE.nbytes)]
    file.create_dataset("external", (600,), PADDED, external=storage)
    file.attrs["table"] = TABLE[:40]
    file.attrs["long"] = np.arange(9).astype(np.longdouble)


def _virtual(file: h5py.File) -> None:
    file.create_dataset("source", data=TABLE, chunks=(200,), compression="gzip")
    file["plain"] = TABLE
    layout = h5py.VirtualLayout((800,), PADDED)
    layout[:300] = h5py.VirtualSource(".", "source", (600,))[:300]
    layout[300:500] = h5py.VirtualSource(".", "plain", (600,))[100:500:2]
    layout[500:600] = h5py.VirtualSource("missing.h5", "x", (100,), PADDED)
    file.create_virtual_dataset("virtual", layout)


def _nbit(file: h5py.File) -> None:
    narrow = h5t.STD_I32LE.copy()
    narrow.set_precision(20)
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_chunk(CHUNKS)
    properties.set_filter(h5z.FILTER_NBIT, h5z.FLAG_OPTIONAL)
    space = h5s.create_simple(SHAPE)
    stored = h5d.create(file.id, b"integers", narrow, space, properties)
    h5py.Dataset(stored)[...] = INTEGERS


def _anchors(path: Path) -> Iterator[int]:
    """Where chunks begin and have their middle, and the values of filters."""
    content = path.read_bytes()
    with h5py.File(path) as file:
        for name in file:
            dataset = file[name]
            properties = dataset.id.get_create_plist()
            if properties.get_layout() != h5d.CHUNKED:
                continue
            for number in range(min(3, dataset.id.get_num_chunks())):
                chunk = dataset.id.get_chunk_info(number)
                yield from [chunk.byte_offset] * 4
                yield chunk.byte_offset + chunk.size // 2
            for number in range(properties.get_nfilters()):
                values = properties.get_filter(number)[2]
                place = content.find(struct.pack(f"<{len(values)}I", *values)) if values else -1
                if place >= 0:
                    yield place


def _blosc2_frame(size: int, chunk: bytes) -> bytes:
    """A frame around one chunk (README_CFRAME_FORMAT of c-blosc2)."""

    def header(length: int) -> bytes:
        pack = msgpack.Packer(use_bin_type=False)
        packed: bytes = pack.pack_array_header(14) + b"\xa8b2frame\0"
        packed += b"\xd2" + struct.pack(">i", length)
        packed += b"\xcf" + struct.pack(">Q", 0) + b"\xa4\0\0\0\0"
        fields = (size, len(chunk), 1, size, size, 1, 1, False, b"", [0, {}, []])
        return packed + b"".join(map(pack.pack, fields))

    return header(len(header(0))) + chunk


def _blosc2_special(size: int, kind: int) -> bytes:
    """A chunk that is nothing but its header: of zeros, NaNs, or not initialised."""
    head = struct.pack("<BBBBIII", 5, 1, 5, 1, size, size, 32)
    return head + bytes(15) + bytes([kind << 4])


def _write_blosc2_special(path: Path) -> None:
    cases = [
        chunks.Crafted(
            f"special_{kind}",
            _blosc2_frame(chunks.RAW, _blosc2_special(chunks.RAW, kind)),
            {32026: (2, 2, 4, chunks.RAW, 5, 1, 5)},
        )
        for kind in (1, 2, 4)
    ]
    chunks.write(path, cases)


def _write_szip_forged(path: Path) -> None:
    """Streams that end early, and scanlines that end within a block."""
    if not h5z.filter_avail(h5z.FILTER_SZIP):
        chunks.write(path, [])
        return
    with h5py.File("x", "w", driver="core", backing_store=False) as file:
        whole = file.create_dataset(
            "x", data=chunks.VALUES // 7, chunks=(chunks.ITEMS,), compression="szip"
        )
        _, stream = whole.id.read_direct_chunk((0,))
    cases = [
        chunks.Crafted(
            f"szip_{scanline}_{bits}_{part}",
            struct.pack("<I", chunks.RAW) + stream[4 : len(stream) // part],
            {4: (169, 8, bits, scanline)},
        )
        for scanline in (63, 100, 1001, 1024)
        for bits, part in ((32, 1), (32, 3), (8, 2))
    ]
    chunks.write(path, cases)


def _write_short(path: Path) -> None:
    """Unfiltered chunks that are stored short, among few and among many."""
    size = 1 << 13
    with h5py.File(path, "w", libver=("earliest", "v110")) as file:
        for name, count in {"few": 8, "many": 3000}.items():
            dataset = file.create_dataset(name, (count * size,), "u1", chunks=(size,))
            for number in range(4):
                dataset.id.write_direct_chunk((number * size,), b"A" * (16 + number))


def _write_crafted(path: Path) -> None:
    # Not the bombs, which take their time.
    small = [each for each in chunks.crafted() if not each.name.endswith("bomb")]
    chunks.write(path, small)


FORGED: dict[str, Callable[[Path], None]] = {
    "forged_blosc2": _write_blosc2_special,
    "forged_szip": _write_szip_forged,
    "forged_short": _write_short,
    "forged_others": _write_crafted,
}
