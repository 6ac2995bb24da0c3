"""What h5py and NumPy say about a file, in the words of the HTTP contract.

Written from the contract and independent of asgihive: metadata are taken from h5py's type
objects, values from whole reads, selections from NumPy on the whole array.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5t

from tests.zoo import links

Json = Any


@dataclass(frozen=True, slots=True)
class Entity:
    """One path of a file.

    Attributes:
        path: its path from the root group.
        metadata: what `/meta` answers; for a link that cannot be followed, the link's own.
        link: what `/meta` answers with `resolve_links=none`.
        attributes: attribute name → value as h5py gives it; empty for an unresolved link.
        value: the whole dataset as h5py gives it; None where there is no dataset.
        dtype: the NumPy dtype of a dataset, else None.
        below: what `/paths` answers for a group, else empty.
    """

    path: str
    metadata: dict[str, Json]
    link: dict[str, Json]
    attributes: dict[str, Any]
    value: Any = None
    dtype: np.dtype[Any] | None = None
    below: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        return str(self.metadata["kind"])

    @property
    def shape(self) -> tuple[int, ...] | None:
        shape = self.metadata["shape"]
        return None if shape is None else tuple(shape)


@cache
def read(root: Path, name: str) -> tuple[Entity, ...]:
    """Every entity of one file, read once.

    libhdf5 refuses to have one file open in two ways, so the first read of a file must come
    before a service's: the `zoo` fixture sees to that.
    """
    with h5py.File(root / name, "r") as file:
        paths = [*_listed(file, "/"), *links.MORE_PATHS.get(name, ())]
        return tuple(_entity(file, path) for path in paths if _exists(file, path))


def datasets(root: Path, name: str) -> Iterator[Entity]:
    """The datasets of one file, whatever links lead to them."""
    return (entity for entity in read(root, name) if entity.kind == "dataset")


def _listed(file: h5py.File, path: str) -> list[str]:
    """The group at `path`, then every path below it that hard links reach, each group once."""
    names: list[bytes] = []
    group = file[path]
    group.id.links.visit(names.append)
    return [path, *(path.rstrip("/") + "/" + text(name) for name in names)]


def _exists(file: h5py.File, path: str) -> bool:
    return path == "/" or file.get(path, getlink=True) is not None


def _entity(file: h5py.File, path: str) -> Entity:
    found = _follow(file, path)
    metadata = _metadata(file, path, found)
    link = _link_metadata(file, path) or metadata
    if found is None:
        return Entity(path, metadata, link, {})
    attributes = {name: found.attrs[name] for name in found.attrs}
    if isinstance(found, h5py.Group):
        return Entity(path, metadata, link, attributes, below=tuple(_listed(file, path)))
    if isinstance(found, h5py.Datatype):
        return Entity(path, metadata, link, attributes)
    value = _in_order(found[()], h5py.check_vlen_dtype(found.dtype))
    return Entity(path, metadata, link, attributes, value, found.dtype)


def _in_order(value: Any, base: Any) -> Any:
    """Sequences whose elements h5py (3.16) calls native, though their bytes are not."""
    if not isinstance(base, np.dtype) or base.isnative:
        return value
    if not isinstance(value, np.ndarray) or value.dtype != object:
        return value.view(base)
    for position in np.ndindex(value.shape):
        value[position] = value[position].view(base)
    return value


def _follow(file: h5py.File, path: str) -> Any:
    try:
        return file[path]
    except (KeyError, OSError, RuntimeError):
        return None


def _link_metadata(file: h5py.File, path: str) -> dict[str, Json] | None:
    link = None if path == "/" else file.get(path, getlink=True)
    name = path.rsplit("/", 1)[-1]
    if isinstance(link, h5py.SoftLink):
        return {"name": name, "kind": "soft_link", "target_path": link.path}
    if isinstance(link, h5py.ExternalLink):
        target = {"target_file": link.filename, "target_path": link.path}
        return {"name": name, "kind": "external_link", **target}
    return None


def _metadata(
    file: h5py.File, path: str, found: Any, *, with_children: bool = True
) -> dict[str, Json]:
    if found is None:
        link = _link_metadata(file, path)
        assert link is not None, f"{path} exists, is not a link, and cannot be opened"
        return link
    metadata: dict[str, Json] = {
        "name": path.rsplit("/", 1)[-1],
        "attributes": [_attribute(found, name) for name in sorted(found.attrs)],
    }
    if isinstance(found, h5py.Group):
        if with_children:
            below = [path.rstrip("/") + "/" + name for name in found]
            metadata["children"] = [
                _metadata(file, child, _follow(file, child), with_children=False) for child in below
            ]
        return metadata | {"kind": "group"}
    if isinstance(found, h5py.Datatype):
        return metadata | {"kind": "datatype", "type": describe(found.id)}
    return metadata | {
        "kind": "dataset",
        "shape": None if found.shape is None else list(found.shape),
        "chunks": None if found.chunks is None else list(found.chunks),
        "filters": _filters(found),
        "type": describe(found.id.get_type()),
    }


def _attribute(owner: Any, name: str) -> dict[str, Json]:
    attribute = owner.attrs.get_id(name)
    shape = None if isinstance(owner.attrs[name], h5py.Empty) else list(attribute.shape)
    return {"name": name, "shape": shape, "type": describe(attribute.get_type())}


def _filters(dataset: h5py.Dataset) -> list[dict[str, Json]] | None:
    plist = dataset.id.get_create_plist()
    pipeline = [plist.get_filter(index) for index in range(plist.get_nfilters())]
    return [{"id": number, "name": text(name)} for number, _, _, name in pipeline] or None


def describe(type_id: Any) -> dict[str, Json]:
    """The contract's `type` of an HDF5 type."""
    type_class = type_id.get_class()
    base = {"class": type_class, "dtype": _dtype(type_id.dtype), "size": type_id.get_size()}
    return base | _DETAILS.get(type_class, lambda _: {})(type_id)


def _enum(type_id: Any) -> dict[str, Json]:
    members = {
        text(type_id.get_member_name(i)): int(type_id.get_member_value(i))
        for i in range(type_id.get_nmembers())
    }
    return {"members": members, "base": describe(type_id.get_super())}


_DETAILS: dict[int, Callable[[Any], dict[str, Json]]] = {
    h5t.INTEGER: lambda t: {"order": t.get_order(), "sign": t.get_sign()},
    h5t.FLOAT: lambda t: {"order": t.get_order()},
    h5t.BITFIELD: lambda t: {"order": t.get_order()},
    h5t.STRING: lambda t: {
        "cset": t.get_cset(),
        "strpad": t.get_strpad(),
        "vlen": bool(t.is_variable_str()),
    },
    h5t.OPAQUE: lambda t: {"tag": text(t.get_tag())},
    h5t.COMPOUND: lambda t: {"members": [_member(t, i) for i in range(t.get_nmembers())]},
    h5t.ENUM: _enum,
    h5t.VLEN: lambda t: {"base": describe(t.get_super())},
    h5t.ARRAY: lambda t: {"dims": list(t.get_array_dims()), "base": describe(t.get_super())},
}


def _member(type_id: Any, index: int) -> dict[str, Json]:
    name = text(type_id.get_member_name(index))
    return {"name": name} | describe(type_id.get_member_type(index))


def _dtype(dtype: np.dtype[Any]) -> Json:
    if dtype.fields is None:
        return dtype.str
    return {name: _dtype(dtype.fields[name][0]) for name in dtype.fields}


def text(raw: str | bytes) -> str:
    """Bytes as the service must show them: UTF-8, and U+FFFD for what is not."""
    if isinstance(raw, str):
        raw = raw.encode("utf-8", "surrogateescape")
    return raw.decode("utf-8", "replace")


def flattened(value: Any) -> Any:
    """`flatten=true`: arrays lose their shape, everything else stays what it is."""
    return np.ravel(value) if isinstance(value, np.ndarray) and value.ndim else value


def is_numeric(dtype: np.dtype[Any]) -> bool:
    """Numbers and booleans, also as elements of an array type."""
    return dtype.base.kind in "biufc"


def safe(value: Any) -> Any:
    """`dtype=safe`: what a JavaScript typed array holds."""
    array = np.asarray(value)
    if array.dtype.kind == "f":
        size = min(max(array.dtype.itemsize, 4), 8)
        with np.errstate(over="ignore"):
            return array.astype(f"<f{size}")
    return array.astype(array.dtype.newbyteorder("<"))


def same_json(answer: Json, value: Any) -> bool:  # noqa: PLR0911  # one line a kind of value
    """Whether a JSON document says what `value` holds, floats to their last bit."""
    if isinstance(value, h5py.Empty):
        return answer is None
    if isinstance(value, np.ndarray) and value.ndim:
        return (
            isinstance(answer, list)
            and len(answer) == len(value)
            and all(map(same_json, answer, value))
        )
    if isinstance(value, np.ndarray):
        return same_json(answer, value[()])
    if isinstance(value, np.void) and value.dtype.names:
        members = [value[name] for name in value.dtype.names]
        return (
            isinstance(answer, list)
            and len(answer) == len(members)
            and all(map(same_json, answer, members))
        )
    if isinstance(value, h5py.Reference | h5py.RegionReference):
        return bool(answer == str(value))
    if isinstance(value, bytes | str | np.void):
        raw = value.tobytes() if isinstance(value, np.void) else value
        return bool(answer == text(raw))
    return _same_number(answer, value)


def _same_number(answer: Json, value: Any) -> bool:  # noqa: PLR0911  # as above
    if isinstance(value, bool | np.bool_):
        return answer is bool(value)
    if isinstance(value, np.datetime64):
        return answer is None or isinstance(answer, str)  # opaque to HDF5, time to NumPy
    if np.iscomplexobj(value):
        return isinstance(answer, list) and all(map(_same_number, answer, (value.real, value.imag)))
    if isinstance(value, int | np.integer):
        return type(answer) is int and answer == int(value)
    if not np.isfinite(value) or not np.isfinite(float(value)):
        return answer is None
    if isinstance(answer, bool) or not isinstance(answer, int | float):
        return False
    if isinstance(value, np.longdouble):
        return float(value) == answer
    return bool(type(value)(answer) == value)
