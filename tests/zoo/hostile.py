"""A served directory that tries in every known way to show what lies outside it.

Outside lies a secret: HDF5 files and a plain file that hold `MARKER` as names, text and bytes.
Inside lie files whose links, virtual sources, external storage and symbolic links lead there,
and beside each of them one of the same kind that leads to a target inside.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t

MARKER = b"TOP-SECRET-MARKER"
FILL = 7
INSIDE = np.arange(len(MARKER), dtype="u1")


@dataclass(frozen=True, slots=True)
class Hostile:
    """Where it lies, and what must and must not be served.

    Attributes:
        root: the directory to serve.
        outside: a directory beside it.
        escapes: (file, path) of entities whose targets lie outside.
        honest: (file, path) of datasets whose values end as `INSIDE` does.
        fifos: pipes without a writer, which block the program that opens them.
    """

    root: Path
    outside: Path
    escapes: tuple[tuple[str, str], ...]
    honest: tuple[tuple[str, str], ...]
    fifos: tuple[Path, ...]


def build(place: Path) -> Hostile:
    """Write both directories below `place`."""
    root, outside = place / "root", place / "outside"
    for folder in (root, root / "sub", outside):
        folder.mkdir()
    secret = outside / "secret.h5"
    _write_secret(secret)
    # A neighbour whose name begins as the root's does: no prefix of a string is a directory.
    (place / "root-neighbour").mkdir()
    _write_secret(place / "root-neighbour/secret.h5")
    (outside / "secret.txt").write_bytes(MARKER)
    with h5py.File(root / "inside.h5", "w") as file:
        file["data"] = INSIDE
        file["group/data"] = INSIDE
    (root / "inside.bin").write_bytes(INSIDE.tobytes())
    fifo = root / "pipe.h5"
    os.mkfifo(fifo)
    _symbolic_links(root, outside)
    links = _links(root, outside)
    virtual = _virtual(root, outside)
    storage = _external_storage(root, outside)
    honest = [
        *(("hostile_links.h5", f"/honest/{name}") for name in _HONEST_LINKS),
        ("sub/up.h5", "/data"),
        ("hostile_virtual.h5", "/honest"),
        ("hostile_virtual.h5", "/honest_absolute"),
        ("hostile_virtual.h5", "/honest_part"),
        ("hostile_virtual.h5", "/honest_absolute_part"),
        ("hostile_storage.h5", "/honest"),
        ("symlink_inside.h5", "/data"),
        ("directory_inside/up.h5", "/data"),
    ]
    return Hostile(root, outside, (*links, *virtual, *storage), tuple(honest), (fifo,))


def _write_secret(path: Path) -> None:
    marker = np.frombuffer(MARKER, "u1")
    with h5py.File(path, "w") as file:
        file["data"] = marker
        file["text"] = MARKER.decode()
        file.attrs["note"] = MARKER.decode()
        file[f"hidden/{MARKER.decode()}"] = marker
        file["data"].attrs["note"] = MARKER.decode()
    for index in range(2):
        with h5py.File(path.with_name(f"part_{index}.h5"), "w") as file:
            file["data"] = marker


def _symbolic_links(root: Path, outside: Path) -> None:
    (root / "symlink.h5").symlink_to(outside / "secret.h5")
    (root / "symlink_relative.h5").symlink_to("../outside/secret.h5")
    (root / "symlink_twice.h5").symlink_to("symlink.h5")
    (root / "directory").symlink_to(outside)
    (root / "symlink_loop.h5").symlink_to("symlink_loop.h5")
    (root / "symlink_dangling.h5").symlink_to("no_such_file.h5")
    (root / "symlink_pipe.h5").symlink_to("pipe.h5")
    (root / "device.h5").symlink_to("/dev/zero")
    (root / "symlink_inside.h5").symlink_to("inside.h5")
    (root / "directory_inside").symlink_to("sub")


_HONEST_LINKS = {
    "plain": "inside.h5",
    "up_and_down": "sub/../inside.h5",
    "out_and_in": "../root/inside.h5",
    "symlink": "symlink_inside.h5",
}


def _links(root: Path, outside: Path) -> list[tuple[str, str]]:
    name = "hostile_links.h5"
    secret = outside / "secret.h5"
    targets = {
        "absolute": str(secret),
        "relative": "../outside/secret.h5",
        "neighbour": "../root-neighbour/secret.h5",
        "through_sub": "sub/../../outside/secret.h5",
        "symlink": "symlink.h5",
        "symlink_directory": "directory/secret.h5",
        "symlink_twice": "symlink_twice.h5",
        "self_reference": "/proc/self/cwd/../../../../../../.." + str(secret),
        "pipe": "pipe.h5",
        "device": "/dev/zero",
        "directory": "sub",
        "text": "../outside/secret.txt",
    }
    with h5py.File(root / name, "w") as file:
        for label, target in targets.items():
            for suffix, path in {"data": "/data", "root": "/", "group": "/hidden"}.items():
                file[f"escape/{label}_{suffix}"] = h5py.ExternalLink(target, path)
        for label, target in _HONEST_LINKS.items():
            file[f"honest/{label}"] = h5py.ExternalLink(target, "/data")
        file["soft"] = h5py.SoftLink("/escape/absolute_data")
        file["chain"] = h5py.ExternalLink("sub/up.h5", "/escape")
        file["chain_below"] = h5py.ExternalLink("sub/up.h5", "/escape_root/data")
        escapes = [(name, f"/escape/{label}") for label in file["escape"]]
    with h5py.File(root / "sub/up.h5", "w") as file:
        file["data"] = h5py.ExternalLink("../inside.h5", "/data")
        file["escape"] = h5py.ExternalLink("../../outside/secret.h5", "/data")
        file["escape_root"] = h5py.ExternalLink(str(secret), "/")
    return [
        *escapes,
        *((name, path) for path in ("/soft", "/chain", "/chain_below")),
        *((name, f"/escape/{label}_root/data") for label in targets),
        *(("sub/up.h5", path) for path in ("/escape", "/escape_root", "/escape_root/text")),
    ]


def _virtual(root: Path, outside: Path) -> list[tuple[str, str]]:
    name = "hostile_virtual.h5"
    targets = {
        "absolute": str(outside / "secret.h5"),
        "relative": "../outside/secret.h5",
        "symlink": "symlink.h5",
        "symlink_directory": "directory/secret.h5",
        "pipe": "pipe.h5",
        "device": "/dev/zero",
        # Each of these leads out only at the second step.
        "nested": name,
        "through_link": "hostile_links.h5",
    }
    paths = {"nested": "/absolute", "through_link": "/escape/absolute_data"}
    with h5py.File(root / name, "w") as file:
        for label, target in targets.items():
            _map(file, label, target, paths.get(label, "/data"))
        _map(file, "honest", "inside.h5", "/data")
        _map(file, "honest_absolute", str(root / "inside.h5"), "/data")
        _printf(file, "printf", b"../outside/part_%b.h5")
        _printf(file, "printf_absolute", str(outside / "part_%b.h5").encode())
        file["soft"] = h5py.SoftLink("/absolute")
    parts = [f"{label}_part" for label in targets]
    return [
        (name, f"/{label}") for label in (*targets, *parts, "printf", "printf_absolute", "soft")
    ]


def _map(file: h5py.File, name: str, target: str, path: str) -> None:
    """The whole source, and as `…_part` all but its first element: libhdf5 stores them apart."""
    for label, first in ((name, 0), (f"{name}_part", 1)):
        length = len(MARKER) - first
        source = h5py.VirtualSource(target, path, (len(MARKER),))
        layout = h5py.VirtualLayout((length,), "u1")
        layout[...] = source[first:] if first else source
        file.create_virtual_dataset(label, layout, fillvalue=FILL)


def _printf(file: h5py.File, name: str, pattern: bytes) -> None:
    length = len(MARKER)
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_fill_value(np.array(FILL, "u1"))
    space = h5s.create_simple((2, length), (h5s.UNLIMITED, length))
    space.select_hyperslab((0, 0), (h5s.UNLIMITED, 1), (1, 1), (1, length))
    plist.set_virtual(space, pattern, b"/data", h5s.create_simple((length,)))
    h5d.create(file.id, name.encode(), h5t.STD_U8LE, space, plist)


def _external_storage(root: Path, outside: Path) -> list[tuple[str, str]]:
    name = "hostile_storage.h5"
    secret = outside / "secret.txt"
    targets = {
        "absolute": str(secret),
        "relative": "../outside/secret.txt",
        "dotted": f"{root}/../outside/secret.txt",
        "symlink_directory": f"{root}/directory/secret.txt",
        "pipe": f"{root}/pipe.h5",
        "device": "/dev/zero",
    }
    with h5py.File(root / name, "w") as file:
        for label, target in targets.items():
            storage = [(target, 0, len(MARKER))]
            file.create_dataset(label, (len(MARKER),), "u1", external=storage, fillvalue=FILL)
        # Its first half lies inside.
        half = len(MARKER) // 2
        storage = [(f"{root}/inside.bin", 0, half), (str(secret), half, len(MARKER) - half)]
        file.create_dataset("second_half", (len(MARKER),), "u1", external=storage)
        honest = [(f"{root}/inside.bin", 0, len(MARKER))]
        file.create_dataset("honest", (len(MARKER),), "u1", external=honest)
    return [(name, f"/{label}") for label in (*targets, "second_half")]
