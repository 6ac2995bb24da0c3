"""Links of every kind whose targets, where they exist, lie inside the served directory."""

from pathlib import Path

import h5py
import numpy as np

LONG_CHAIN = 12


FILES = ("links.h5", "target.h5", "deep/er/up.h5", "chain_a.h5", "cycle_a.h5")
# Paths through links and group cycles, which a walk along hard links does not meet.
MORE_PATHS = {
    "links.h5": (
        "/soft/to_group/data",
        "/soft/to_group/self/child/parent/data",
        "/soft/to_root/soft/to_root/hard",
        "/external/group/inner",
        "/external/group/sibling",
        "/external/root/to_chain",
        "/external/root/group",
        "/group/root/group/self/self",
    ),
}


def write(root: Path) -> None:
    deep = root / "deep" / "er"
    deep.mkdir(parents=True)
    with h5py.File(root / "target.h5", "w") as target:
        target["values"] = np.arange(6).reshape(2, 3)
        target["group/inner"] = 1.5
        target["group/sibling"] = h5py.SoftLink("inner")
        target["group"].attrs["unit"] = "mm"
        target["type"] = np.dtype("<f4")
        target["to_chain"] = h5py.ExternalLink("chain_a.h5", "/step")
    with h5py.File(root / "links.h5", "w") as file:
        _hard(file)
        _soft(file)
        _external(file, root)
    with h5py.File(deep / "up.h5", "w") as file:
        file["own"] = 7
        file["parent"] = h5py.ExternalLink("../../target.h5", "/values")
        file["beside"] = h5py.ExternalLink("beside.h5", "/x")
    with h5py.File(deep / "beside.h5", "w") as file:
        file["x"] = np.arange(4.0)
    _chains(root)


def _hard(file: h5py.File) -> None:
    file["data"] = np.arange(4)
    file["data"].attrs["unit"] = "mm"
    file["hard"] = file["data"]
    group = file.create_group("group")
    group["data"] = np.arange(3.0)
    group["self"] = group
    group["root"] = file["/"]
    child = group.create_group("child")
    child["parent"] = group


def _soft(file: h5py.File) -> None:
    soft = file.create_group("soft")
    soft["absolute"] = h5py.SoftLink("/data")
    soft["relative"] = h5py.SoftLink("here")
    soft["here"] = 5
    soft["through"] = h5py.SoftLink("/soft/to_group/data")
    soft["to_group"] = h5py.SoftLink("/group")
    soft["to_root"] = h5py.SoftLink("/")
    soft["to_self_group"] = h5py.SoftLink(".")
    soft["broken"] = h5py.SoftLink("/no/such/thing")
    soft["broken_through_dataset"] = h5py.SoftLink("/data/inner")
    soft["cycle"] = h5py.SoftLink("/soft/cycle")
    soft["cycle_two"] = h5py.SoftLink("/soft/cycle_three")
    soft["cycle_three"] = h5py.SoftLink("/soft/cycle_two")
    soft["dots"] = h5py.SoftLink("./here")
    soft["empty_segments"] = h5py.SoftLink("//group///data/")
    soft["chain_0"] = h5py.SoftLink("/data")
    for step in range(1, LONG_CHAIN):
        soft[f"chain_{step}"] = h5py.SoftLink(f"/soft/chain_{step - 1}")


def _external(file: h5py.File, root: Path) -> None:
    external = file.create_group("external")
    targets = {
        "values": ("target.h5", "/values"),
        "group": ("target.h5", "/group"),
        "root": ("target.h5", "/"),
        "type": ("target.h5", "/type"),
        "relative_path": ("target.h5", "values"),
        "through_soft": ("target.h5", "/group/sibling"),
        "dot_slash": ("./target.h5", "/values"),
        "up_and_down": ("deep/../target.h5", "/values"),
        "subdirectory": ("deep/er/up.h5", "/own"),
        "chain": ("target.h5", "/to_chain"),
        "absolute": (str(root / "target.h5"), "/values"),
        "itself": ("links.h5", "/data"),
        "no_file": ("no_such_file.h5", "/values"),
        "no_path": ("target.h5", "/no/such/path"),
        "not_hdf5": ("raw/first.bin", "/values"),
        "cycle": ("cycle_a.h5", "/turn"),
    }
    for name, (target_file, target_path) in targets.items():
        external[name] = h5py.ExternalLink(target_file, target_path)
    file["soft/to_external"] = h5py.SoftLink("/external/group/inner")


def _chains(root: Path) -> None:
    for name, following in {"a": "b", "b": "c"}.items():
        with h5py.File(root / f"chain_{name}.h5", "w") as file:
            file["step"] = h5py.ExternalLink(f"chain_{following}.h5", "/step")
    with h5py.File(root / "chain_c.h5", "w") as file:
        file["step"] = np.arange(5)
    for name, following in {"a": "b", "b": "a"}.items():
        with h5py.File(root / f"cycle_{name}.h5", "w") as file:
            file["turn"] = h5py.ExternalLink(f"cycle_{following}.h5", "/turn")
            file["back"] = h5py.ExternalLink(f"cycle_{following}.h5", "/")
