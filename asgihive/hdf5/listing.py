"""Describes the children of a group by their headers' bytes, which libhdf5 explains once."""

from collections.abc import Callable
from typing import Any

from asgihive.concurrency import Portions
from asgihive.hdf5.file_bytes import NotPlain
from asgihive.hdf5.headers import HeaderReader, ObjectHeader, parse_attribute
from asgihive.hdf5.names import text
from asgihive.hdf5.open_file import OpenFile

Described = dict[str, Any]


class Listing:
    """The hard-linked children of one group of `file`.

    Equal bytes mean equal datatypes and filters in one file, and most of a group's thousands
    of children share a few: what libhdf5 has said of a message holds wherever it is stored.
    What is returned shares its parts, and must not be changed.
    """

    def __init__(self, file: OpenFile) -> None:
        self._types: dict[bytes, Described] = {}
        self._filters: dict[bytes, list[Described]] = {}
        self._attributes: dict[bytes, Described] = {}
        self._reader: HeaderReader | None = None
        try:
            self._reader = HeaderReader(file)
        except NotPlain:
            return

    def describe(
        self, name: str, address: int, by_libhdf5: Callable[[], Portions[Described]]
    ) -> Portions[Described]:
        """The object at `address`, as `by_libhdf5` describes it, which is called only if need be.

        Raises: whatever `by_libhdf5` raises.
        """
        if self._reader is None:
            return (yield from by_libhdf5())
        try:
            header = self._reader.read(address)
            described = self._assembled(name, header)
            if described is None:
                described = yield from by_libhdf5()
                self._learn(header, described)
        except NotPlain:
            described = yield from by_libhdf5()
        return described

    def _assembled(self, name: str, header: ObjectHeader) -> Described | None:
        """Of parts that are known; None when one is not."""
        described: Described = {"name": name, "kind": header.kind}
        if header.type is not None:
            kind = self._types.get(header.type)
            filters = None if header.pipeline is None else self._filters.get(header.pipeline)
            if kind is None or (filters is None and header.pipeline is not None):
                return None
            described["shape"] = header.shape
            described["chunks"] = header.chunks
            described["filters"] = filters
            described["type"] = kind
        known = self._attributes
        attributes = []
        for message in header.attributes:
            attribute = known.get(message) or self._attribute(message)
            if attribute is None:
                return None
            attributes.append(attribute)
        attributes.sort(key=_by_name)
        described["attributes"] = attributes
        return described

    def _learn(self, header: ObjectHeader, described: Described) -> None:
        types = {each["name"]: each["type"] for each in described["attributes"]}
        if len(types) != len(header.attributes):
            return  # some are shown alike, so that it is not certain which is which
        if header.type is not None:
            self._types[header.type] = described["type"]
        if header.pipeline is not None and described["filters"] is not None:
            self._filters[header.pipeline] = described["filters"]
        for message in header.attributes:
            attribute = parse_attribute(message)
            self._types.setdefault(attribute.type, types[text(attribute.name)])

    def _attribute(self, message: bytes) -> Described | None:
        header = parse_attribute(message)
        kind = self._types.get(header.type)
        if kind is None:
            return None
        described = {"name": text(header.name), "shape": header.shape, "type": kind}
        self._attributes[message] = described
        return described


def _by_name(described: Described) -> str:
    name: str = described["name"]
    return name
