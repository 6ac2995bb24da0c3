"""Files whose bytes were changed so that libhdf5 would open other files by itself.

They lie beside what `tests.zoo.hostile` builds, and lead to its directory outside.
"""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from tests.fuzz.checksums import checked, repair
from tests.zoo.hostile import FILL

_LENGTH = 64


def write(root: Path, outside: Path) -> tuple[str, ...]:
    """Write the files into `root`; return their names.

    Targets are an HDF5 file, a plain file and a FIFO in `outside`, by absolute path and, for
    who runs there, by name alone.
    """
    fifo = outside / "fifo.h5"
    if not fifo.exists():
        os.mkfifo(fifo)
    targets = {
        "file": str(outside / "secret.h5"),
        "beside": "secret.h5",
        "fifo": str(fifo),
        "text": str(outside / "secret.txt"),
    }
    names = []
    for label, target in targets.items():
        for kind, forge in _FORGERIES.items():
            name = f"forged_{kind}_{label}.h5"
            forge(root / name, target)
            names.append(name)
    return tuple(names)


def patch(path: Path, old: bytes, new: bytes) -> None:
    """Overwrite `old` wherever it stands in a file, and make its checksums right again."""
    content = path.read_bytes()
    assert len(old) == len(new)
    assert old in content
    _rewrite(path, content, content.replace(old, new))


def _rewrite(path: Path, sound: bytes, forged: bytes) -> None:
    repaired = bytearray(forged)
    repair(repaired, checked(sound))
    path.write_bytes(repaired)


def _two_of_one_name(path: Path, target: str) -> None:
    """Each kind of object has a hard link of the name that an external one has, too."""
    with h5py.File(path, "w") as file:
        for kind in ("dataset", "group", "type"):
            for at in ("/", "/hidden", "/data"):
                group = file.require_group(f"{kind}/{at.strip('/') or 'root'}")
                group["name_a"] = h5py.ExternalLink(target, at)
                _object(group, "name_b", kind)
    patch(path, b"name_b", b"name_a")


def _two_of_one_name_in_order(path: Path, target: str) -> None:
    """The hard one comes first in order of creation, and in that of names."""
    with h5py.File(path, "w", track_order=True) as file:
        _object(file, "name_a", "group")
        file["name_b"] = h5py.ExternalLink(target, "/")
        file["name_c"] = h5py.SoftLink("/name_b/hidden")
        _object(file, "name_d", "dataset")
    for last in b"bcd":
        patch(path, b"name_%c" % last, b"name_a")


def _slashes(path: Path, target: str) -> None:
    """Names that libhdf5 takes for paths through an external link, or through itself."""
    with h5py.File(path, "w") as file:
        file["e"] = h5py.ExternalLink(target, "/")
        for number, kind in enumerate(("group", "dataset", "type")):
            _object(file, f"e_hidden{number}", kind)
        file["e_soft"] = h5py.SoftLink("e/hidden")
        file["soft"] = h5py.SoftLink("/e/hidden")
        file["e_ext"] = h5py.ExternalLink("inside.h5", "/data")
        below = file.create_group("below")
        below["f"] = h5py.ExternalLink(target, "/hidden")
        _object(below, "f_x", "group")
    for name in (b"e_hidden0", b"e_hidden1", b"e_hidden2", b"e_ext", b"e_soft", b"f_x"):
        patch(path, name, name.replace(b"_", b"/"))


def _of_an_unknown_kind(path: Path, target: str) -> None:
    """A link of a type that only its writer can follow, and one of the type of external ones."""
    with h5py.File(path, "w", libver="latest") as file:
        file["name_a"] = h5py.ExternalLink(target, "/")
        file["soft"] = h5py.SoftLink("/name_a/data")
    sound = path.read_bytes()
    content = bytearray(sound)
    # A link message (HDF5 File Format Specification 3.0, IV.A.2.g): version 1, flags, type 64.
    at = content.index(b"name_a")
    kind = content.rindex(b"\x40", at - 16, at)
    content[kind] = 0x41
    _rewrite(path, sound, bytes(content))


def _raw_storage(path: Path, target: str) -> None:
    """External raw storage that a dataset also has an address of its own for."""
    with h5py.File(path, "w") as file:
        storage = [(target, 0, _LENGTH)]
        for name, dtype in (("bytes", "u1"), ("big", ">f2"), ("half", "<f2")):
            count = _LENGTH // np.dtype(dtype).itemsize
            file.create_dataset(name, (count,), dtype, external=storage)
        file.create_dataset("own", data=np.zeros(_LENGTH, "u1"))
        address = file["own"].id.get_offset()
    # A contiguous layout without an address (IV.A.2.i): version 3, class 1, address, size.
    undefined = b"\x03\x01" + b"\xff" * 8 + struct.pack("<Q", _LENGTH)
    patch(path, undefined, b"\x03\x01" + struct.pack("<QQ", address, _LENGTH))


def _virtual_of_another_shape(path: Path, target: str) -> None:
    """A virtual dataset without limits whose dataspace says that it is a scalar."""
    with h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout((1,), "i1", maxshape=(None,))
        source = h5py.VirtualSource(target, "data", (1,), "i1", maxshape=(None,))
        layout[0 : h5py.h5s.UNLIMITED] = source[0 : h5py.h5s.UNLIMITED]
        file.create_virtual_dataset("virtual", layout)
    # A dataspace of version 1 (IV.A.2.b): rank, flags, extent and its maximum.
    space = struct.pack("<BBB5xQQ", 1, 1, 1, 1, 2**64 - 1)
    patch(path, space, struct.pack("<BBB5xQQ", 1, 0, 0, 1, 2**64 - 1))


def _object(group: h5py.Group, name: str, kind: str) -> None:
    if kind == "group":
        group.create_group(name)["inner"] = FILL
    else:
        group[name] = np.dtype("<f4") if kind == "type" else np.full(3, FILL)


_FORGERIES: dict[str, Callable[[Path, str], None]] = {
    "duplicate": _two_of_one_name,
    "duplicate_in_order": _two_of_one_name_in_order,
    "slash": _slashes,
    "unknown": _of_an_unknown_kind,
    "storage": _raw_storage,
    "virtual": _virtual_of_another_shape,
}
