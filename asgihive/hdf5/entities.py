"""The metadata of entities, as `/meta` shows them, and the values of their attributes."""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
from h5py import h5, h5a, h5d, h5g, h5l, h5p, h5t

from asgihive.concurrency import Portions
from asgihive.errors import (
    AnswerTooLarge,
    AsgihiveError,
    AttributeMissing,
    DamagedData,
    FileUnreadable,
    LibraryRefused,
    TypeUnsupported,
)
from asgihive.hdf5.file_bytes import DamagedMetadata, FileBytes, NotPlain, encoded, text
from asgihive.hdf5.headers import (
    AttributeMessage,
    ObjectHeader,
    cut_attribute_value,
    parse_attribute,
    read_header,
)
from asgihive.hdf5.layout import Filter, Layout, LayoutKind, layout_of
from asgihive.hdf5.links import (
    CHANGING,
    Entity,
    ExternalLink,
    LinkResolution,
    Resolved,
    SoftLink,
    kind_of,
    walk_below,
)
from asgihive.hdf5.objects import StoredObject, find_listed_object, list_links
from asgihive.hdf5.open_file import libhdf5_reason, refusal_of
from asgihive.hdf5.opening import virtual_extent
from asgihive.hdf5.pool import Lease
from asgihive.hdf5.stored_metadata import Link, interpret_dataset, read_string, read_strings
from asgihive.hdf5.type_descriptions import (
    KnownType,
    describe_known_type,
    find_type,
    learn_type,
)
from asgihive.hdf5.types import (
    LIBRARY_ERRORS,
    NoEquivalent,
    memory_type,
    relabel_sequences,
    without_dimensions,
)

# Name, extent (None = empty dataspace) and type of an attribute.
AttributeHeader = tuple[bytes, tuple[int, ...] | None, h5t.TypeID]


def attribute_headers(entity_id: Any) -> Portions[list[AttributeHeader]]:
    """Return what libhdf5 says of the attributes of an open object, by name."""
    names: list[bytes] = []
    h5a.iterate(entity_id, names.append)
    headers = []
    for name in names:
        attribute = h5a.open(entity_id, name)
        headers.append((name, attribute.get_space().shape, attribute.get_type()))
        yield
    return headers


def read_attributes(
    entity: Resolved, names: list[str] | None, most_bytes: int
) -> Portions[dict[str, Any]]:
    """Return the values of the attributes called `names`, of all when it is None.

    Each is read once, however often it is named.

    A value is a NumPy array or scalar, an object array of bytes for variable-length
    strings, or None for an empty dataspace. Among all, an attribute of a type that cannot
    be read is None too, since the others are worth reading.

    Args:
        most_bytes: of all values, looked at before each is read.

    Raises:
        AnswerTooLarge: they are more.
        AttributeMissing: one of `names` is not there.
        TypeUnsupported: one of `names` has a type without NumPy equivalent.
        DamagedData
    """
    stored = find_stored_attributes(entity)
    budget = AttributeBudget(most_bytes)
    values: dict[str, Any] = {}
    if names is not None:
        for name in dict.fromkeys(names):
            values[name] = read_stored_attribute(
                entity, stored, _find_name(entity, stored, name), budget
            )
            yield
        return values
    for each in stored:
        try:
            values[text(each)] = read_stored_attribute(entity, stored, each, budget)
        except (TypeUnsupported, LibraryRefused):
            values[text(each)] = None
        yield
    return values


# Attributes by name, in the order in which they are answered; None where libhdf5 must read them.
StoredAttributes = dict[bytes, AttributeMessage | None]


@dataclass(slots=True)
class AttributeBudget:
    """How many bytes of attributes may be read."""

    most: int
    used: int = 0

    def take(self, size: int) -> None:
        """Take bytes from what is left; raise AnswerTooLarge."""
        self.used += size
        if self.used > self.most:
            advice = "name some of the attributes with `attr_keys`"
            raise AnswerTooLarge(self.used, self.most, advice)


def find_stored_attributes(entity: Resolved) -> StoredAttributes:
    """Return the attributes of an object, from its header unless libhdf5 must tell."""
    header, file = entity.object.header, entity.file.metadata
    if header is not None and file is not None:
        with contextlib.suppress(NotPlain):
            found: StoredAttributes = {}
            for message in header.attributes:
                attribute = parse_attribute(message, file.length_bytes)
                found[attribute.name] = attribute
            # Of two attributes of one name, which only a forged header has, libhdf5 chooses.
            if len(found) == len(header.attributes):
                return found if header.tracks_attributes else dict(sorted(found.items()))
    names: list[bytes] = []
    try:
        h5a.iterate(entity.id, names.append, index_type=_attribute_order(entity.id))
    except (OSError, RuntimeError, ValueError) as error:
        detail = f"its attributes ({libhdf5_reason(error)})"
        raise DamagedData(entity.file.place.name, entity.path, detail) from error
    return dict.fromkeys(names)


def _attribute_order(entity_id: Any) -> int:
    """Return the order that the writer meant, if the object keeps track of it; else by name."""
    try:
        order = entity_id.get_create_plist().get_attr_creation_order()
    except RuntimeError:  # a fill value of variable length that was lost
        return int(h5.INDEX_NAME)
    return int(h5.INDEX_CRT_ORDER if order & h5p.CRT_ORDER_TRACKED else h5.INDEX_NAME)


def _find_name(entity: Resolved, stored: StoredAttributes, name: str) -> bytes:
    wanted = encoded(name)
    if wanted in stored:
        return wanted
    shown = [each for each in stored if "\ufffd" in name and text(each) == name]
    if len(shown) != 1:
        raise AttributeMissing(entity.file.place.name, entity.path, name)
    return shown[0]


def read_stored_attribute(
    entity: Resolved, stored: StoredAttributes, name: bytes, budget: AttributeBudget
) -> Any:
    message, file = stored[name], entity.file.metadata
    if message is not None and file is not None:
        if message.shape is None:
            return None
        try:
            return _read_message(file, message, message.shape, budget)
        except NotPlain:
            pass
        except DamagedMetadata as error:
            detail = f"attribute {text(name)!r} ({error})"
            raise DamagedData(entity.file.place.name, entity.path, detail) from error
    return _read_by_library(entity, name, budget)


def _read_message(
    file: FileBytes, message: AttributeMessage, shape: tuple[int, ...], budget: AttributeBudget
) -> Any:
    """Return the value of an attribute in the header. Raises NotPlain, AnswerTooLarge."""
    known = find_type(message.type)
    if known is None or known.dtype is None or known.size is None:
        raise NotPlain
    dtype, count = known.dtype, math.prod(shape)
    if len(message.value) < count * known.size:
        raise NotPlain
    if known.is_text and not shape:
        only = read_string(file, message.value)
        budget.take(dtype.itemsize + len(only))
        return only
    if known.is_text:
        values = read_strings(file, message.value, count).astype(dtype).reshape(shape)
    elif known.description["class"] == h5t.STRING:
        values = _read_fixed(message.value, dtype, count, known.description["strpad"])
        values = values.reshape(shape)
    elif known.is_as_stored:
        items = math.prod(known.item_shape)
        values = np.frombuffer(message.value, dtype, count * items)
        values = values.reshape((*shape, *known.item_shape))
    else:
        raise NotPlain
    budget.take(values.nbytes)
    if known.is_text:
        budget.take(sum(map(len, values.flat)))
    return values if values.shape else values[()]


def _read_fixed(stored: bytes, dtype: np.dtype[Any], count: int, padding: int) -> Any:
    """Return strings of one length, padded with NULs as libhdf5 converts them."""
    if padding == h5t.STR_NULLPAD:
        return np.frombuffer(stored, dtype, count)
    size = dtype.itemsize
    parts = [stored[at : at + size] for at in range(0, count * size, size)]
    if padding == h5t.STR_SPACEPAD:
        return np.array([each.rstrip(b" ") for each in parts], dtype)
    return np.array([each.partition(b"\0")[0] for each in parts], dtype)


def _read_by_library(entity: Resolved, name: bytes, budget: AttributeBudget) -> Any:
    place = (entity.file.place.name, entity.path)
    try:
        attribute = h5a.open(entity.id, name)
        shape = attribute.get_space().shape
        if shape is None:
            return None
        memory = memory_type(attribute.get_type())
        base, inner = without_dimensions(memory.dtype)
        budget.take(math.prod((*shape, *inner)) * base.itemsize)
        # Zeros, because a damaged file may fill less than it promises.
        values = np.zeros((*shape, *inner), base)
        if math.prod(values.shape):
            attribute.read(values, memory.id)
            if memory.is_mislabelled:
                relabel_sequences(values, base)
            if base.kind == "O":
                # About what the values take, beside their places in the array.
                sizes = (
                    len(each) if isinstance(each, bytes | str) else getattr(each, "nbytes", 0)
                    for each in values.flat
                )
                budget.take(sum(sizes))
    except NoEquivalent as error:
        raise TypeUnsupported(*place, f"attribute {text(name)!r}: {error}") from None
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, MemoryError) as error:
        what = f"attribute {text(name)!r}"
        refusal = refusal_of(*place, error, what)
        if refusal is not None:
            raise refusal from error
        raise DamagedData(*place, f"{what} ({libhdf5_reason(error)})") from error
    return values if values.shape else values[()]


@dataclass(frozen=True, slots=True)
class Describer:
    """Describes entities of the files under one lease.

    Attributes:
        lease: holds every file that a link or a virtual dataset leads to.
        keep: what is kept of the metadata of each child, at once; it may raise. None = all.
    """

    lease: Lease
    keep: Callable[[dict[str, Any]], Any] | None = None

    def describe(self, entity: Entity) -> Portions[dict[str, Any]]:
        """Return the metadata of `entity`; a group with its children, one level deep.

        Raises:
            FileUnreadable: the object is damaged.
        """
        name = entity.path.rsplit("/", 1)[-1]
        if not isinstance(entity, Resolved):
            return _describe_link(name, entity)
        try:
            described = yield from self.describe_object(name, entity.object)
            if entity.object.kind == "group":
                described["children"] = yield from self._children(entity)
        except LIBRARY_ERRORS as error:
            detail = f"{entity.path} is damaged ({libhdf5_reason(error)})"
            raise FileUnreadable(entity.file.place.name, detail) from error
        return described

    def _children(self, group: Resolved) -> Portions[list[dict[str, Any]]]:
        # As its writer meant, where the group keeps track of that.
        links = yield from list_links(group.object, by_creation=True)
        metadata = group.object.file.metadata
        if metadata is not None:
            metadata.expect(each.address for each in links if each.type == h5l.TYPE_HARD)
        children = []
        for link in links:
            child = yield from self.describe_child(group, link)
            children.append(child if self.keep is None else self.keep(child))
            yield
        if metadata is not None:
            metadata.drop_pages()
        return children

    def describe_child(self, group: Resolved, link: Link) -> Portions[dict[str, Any]]:
        """Return what a link of a group leads to, without its own children."""
        name = link.name
        shown = text(name)
        if b"/" in name:
            # Forged: it can be asked for by no path.
            return {"name": shown, "kind": "other"}
        try:
            if link.type == h5l.TYPE_HARD:
                # Not by name: a forged group has two of one name, and this may be the other.
                found = find_listed_object(group.object.file, link.address)
                return (yield from self.describe_object(shown, found))
            only_valid = LinkResolution.ONLY_VALID
            child = walk_below(self.lease, group, name, only_valid)
            if isinstance(child, Resolved):
                return (yield from self.describe_object(shown, child.object))
            return _describe_link(shown, child)
        except CHANGING:
            raise
        except (AsgihiveError, *LIBRARY_ERRORS):
            # One damaged child must not hide the others. h5grove's name for what it cannot tell.
            return {"name": shown, "kind": "other"}

    def describe_object(self, name: str, found: StoredObject) -> Portions[dict[str, Any]]:
        """Return the metadata of an object, of a group without its children.

        Raises what h5py raises for a damaged object.
        """
        if found.header is not None and found.file.metadata is not None:
            try:
                return _describe_header(name, found, found.file.metadata, found.header)
            except NotPlain:
                pass
        return (yield from self._describe_by_library(name, found))

    def _describe_by_library(self, name: str, found: StoredObject) -> Portions[dict[str, Any]]:
        described: dict[str, Any] = {"name": name, "kind": found.kind}
        if isinstance(found.id, h5d.DatasetID):
            try:
                layout = layout_of(found.id)
            except NoEquivalent:
                # It may be virtual, and then libhdf5 would look for its extent in other files.
                layout, shape = _layout_of_header(found)
            else:
                shape = None
                if layout.kind is LayoutKind.VIRTUAL:
                    here = Resolved(name, found)
                    shape = yield from virtual_extent(self.lease, here, layout.properties)
                else:
                    shape = found.id.get_space().shape
            described["shape"] = shape
            described["chunks"] = layout.chunks
            described["filters"] = _describe_filters(layout.filters)
            described["type"] = describe_known_type(found.id.get_type())
        elif not isinstance(found.id, h5g.GroupID):
            described["type"] = describe_known_type(found.id)
        headers = yield from attribute_headers(found.id)
        described["attributes"] = [
            {"name": text(name), "shape": shape, "type": describe_known_type(type_id)}
            for name, shape, type_id in headers
        ]
        described["attributes"].sort(key=_get_name)
        return described


def _describe_header(
    name: str, found: StoredObject, file: FileBytes, header: ObjectHeader
) -> dict[str, Any]:
    """Return the metadata of a group or dataset by the messages of its header.

    Raises:
        NotPlain: libhdf5 must describe it.
        NeedsThread: libhdf5 must explain a type.
    """
    described: dict[str, Any] = {"name": name, "kind": header.kind}
    if header.kind == "dataset":
        stored = interpret_dataset(file, header)
        known = find_type(stored.type) or learn_type(stored.type, found.id.get_type())
        described["shape"] = stored.shape
        described["chunks"] = stored.chunks
        described["filters"] = _describe_filters(stored.filters)
        described["type"] = known.description
    described["attributes"] = attributes = []
    for message in header.attributes:
        # In a wide group thousands of objects have the same attributes with other values.
        key = cut_attribute_value(message), file.length_bytes
        shown = _shown_attributes.get(key)
        if shown is None:
            each = parse_attribute(message, file.length_bytes)
            known = find_type(each.type) or _learn_attribute_type(found, file, header, each)
            shown = {"name": text(each.name), "shape": each.shape, "type": known.description}
            if len(key[0]) <= _MAX_SHOWN_BYTES:
                if len(_shown_attributes) >= _MAX_SHOWN_ATTRIBUTES:
                    _shown_attributes.clear()
                _shown_attributes[key] = shown
        attributes.append(shown)
    if len(attributes) > 1:
        attributes.sort(key=_get_name)
    return described


# What is shown of attributes, by their messages without the values, and by `length_bytes`. They are
# told apart by all that they are shown by, so that those of all files are one; not to be changed.
_shown_attributes: dict[tuple[bytes, int], dict[str, Any]] = {}
_MAX_SHOWN_ATTRIBUTES = 4096
_MAX_SHOWN_BYTES = 1 << 10


def _learn_attribute_type(
    found: StoredObject, file: FileBytes, header: ObjectHeader, attribute: AttributeMessage
) -> KnownType:
    names = [parse_attribute(each, file.length_bytes).name for each in header.attributes]
    # It is opened by its name: of two attributes of one name libhdf5 would choose.
    if names.count(attribute.name) > 1:
        raise NotPlain
    return learn_type(attribute.type, h5a.open(found.id, attribute.name).get_type())


_get_name = itemgetter("name")


def _describe_filters(filters: tuple[Filter, ...]) -> list[dict[str, Any]] | None:
    return [{"id": each.id, "name": each.name} for each in filters] or None


def _layout_of_header(found: StoredObject) -> tuple[Layout, tuple[int, ...] | None]:
    """Return how a dataset is stored, where libhdf5 says nothing of its properties.

    Raises:
        NoEquivalent: the header is not plain.
    """
    file = found.file.metadata
    if file is not None:
        with contextlib.suppress(NotPlain):
            stored = interpret_dataset(file, read_header(file, found.address))
            return Layout(stored.kind, stored.chunks, stored.filters), stored.shape
    detail = "its fill value is lost, and its header is not plain"
    raise NoEquivalent(detail)


def _describe_link(name: str, link: SoftLink | ExternalLink) -> dict[str, Any]:
    described = {"name": name, "kind": kind_of(link), "target_path": link.target_path}
    if isinstance(link, ExternalLink):
        described["target_file"] = link.target_file
    return described
