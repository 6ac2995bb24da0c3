"""The tree that `asgihive inspect FILE` shows: objects with shapes, types, links and attributes."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from asgihive.cli.formatting import (
    LONGEST_NAME,
    describe_target,
    describe_type_briefly,
    join_dimensions,
    printable,
)
from asgihive.cli.terminal import Line
from asgihive.hdf5.contents import ContentsNode, ShownAttribute
from asgihive.hdf5.file_bytes import text

# Of a value, characters, and elements of an array.
_LONGEST_VALUE, _MOST_ELEMENTS = 80, 6

# Before what is not the last child of a group, before the last, and before what is below them.
_BRANCH, _LAST_BRANCH, _TRUNK, _NO_TRUNK = "├─ ", "└─ ", "│  ", "   "


def format_tree(file: str, root: ContentsNode) -> Iterator[Line]:
    """Yield the lines of a tree, the group at its root first.

    Args:
        file: as the user names it.
        root: the group.
    """
    head = [(printable(root.path), "bold blue"), (f" of {printable(file)}", "")]
    if root.link is not None:
        head.append((f" {describe_target(root.link)}", "cyan"))
    yield [*head, *_list_notes(root)]
    yield from _format_below(root, "")


def _format_below(node: ContentsNode, indent: str) -> Iterator[Line]:
    rest = len(node.children) + (node.more_children > 0)
    trunk = _TRUNK if rest else _NO_TRUNK
    for attribute in node.attributes:
        yield [(f"{indent}{trunk}", "dim"), *_format_attribute(attribute)]
    if node.more_attributes:
        yield [(f"{indent}{trunk}", "dim"), (f"@… {node.more_attributes:,} more attributes", "dim")]
    for child in node.children:
        rest -= 1
        yield [(f"{indent}{_BRANCH if rest else _LAST_BRANCH}", "dim"), *_format_node(child)]
        yield from _format_below(child, f"{indent}{_TRUNK if rest else _NO_TRUNK}")
    if node.more_children:
        word = "member" if node.more_children == 1 else "members"
        more = f"… {node.more_children:,} {'more ' if node.children else ''}{word}"
        yield [(f"{indent}{_LAST_BRANCH}", "dim"), (more, "dim")]


def _format_node(node: ContentsNode) -> Iterator[tuple[str, str]]:
    is_group = node.kind == "group"
    yield printable(node.name, LONGEST_NAME) + ("/" if is_group else ""), _choose_style(node)
    if node.link is not None:
        yield f" {describe_target(node.link)}", "cyan" if node.link.resolves else "red"
    elif node.same_as is not None:
        yield f" = {printable(node.same_as)}, see there", "cyan"
    if node.type is not None:
        yield f"  {_describe_values(node)}", "yellow"
    if node.filters:
        names = (each.split(";")[0].split(":")[0].strip() for each in node.filters)
        shown = "+".join(printable(each, LONGEST_NAME) for each in names)
        yield f"  {shown} of {join_dimensions(node.chunks or ())}", "dim"
    elif node.chunks is not None:
        yield f"  chunks of {join_dimensions(node.chunks)}", "dim"
    if node.value is not None:
        yield f" = {format_value(node.value)}", "green"
    yield from _list_notes(node)


def _list_notes(node: ContentsNode) -> Iterator[tuple[str, str]]:
    if node.nx_class:
        yield f"  {printable(node.nx_class, LONGEST_NAME)}", "magenta"
    if node.problem is not None and (node.link is None or node.link.resolves):
        yield f"  ({printable(node.problem)})", "red"


def _choose_style(node: ContentsNode) -> str:
    if node.kind == "other":
        return "red"
    return "bold blue" if node.kind == "group" else "bold" if node.kind == "dataset" else ""


def _describe_values(node: ContentsNode) -> str:
    """Return the shape and type of a dataset, the type of a named one."""
    brief = printable(describe_type_briefly(node.type or {}), LONGEST_NAME)
    if node.kind != "dataset":
        return f"datatype {brief}"
    if node.shape is None:
        return f"{brief}, without values"
    return f"{join_dimensions(node.shape)} {brief}" if node.shape else brief


def _format_attribute(attribute: ShownAttribute) -> Iterator[tuple[str, str]]:
    yield f"@{printable(attribute.name, LONGEST_NAME)}", "dim"
    if attribute.value is not None:
        yield f" = {format_value(attribute.value)}", "dim green"
        return
    brief = printable(describe_type_briefly(attribute.type), LONGEST_NAME)
    if attribute.shape is None:
        yield f"  {brief}, without values", "dim"
    else:
        words = [join_dimensions(attribute.shape), brief] if attribute.shape else [brief]
        yield f"  {' '.join(words)}, not shown", "dim"


def format_value(value: Any) -> str:
    """Return a value of an attribute or of a dataset in a few words on one line."""
    if isinstance(value, np.ndarray) and value.shape:
        shown = [format_value(each) for each in islice(value.flat, _MOST_ELEMENTS)]
        more = ", …" if value.size > len(shown) else ""
        of = f" ({join_dimensions(value.shape)})" if more or value.ndim > 1 else ""
        return f"[{printable(', '.join(shown), _LONGEST_VALUE)}{more}]{of}"
    if isinstance(value, np.ndarray):
        value = value[()]
    if isinstance(value, bytes):
        value = text(value)
    if isinstance(value, str):
        return f'"{printable(value, _LONGEST_VALUE)}"'
    if isinstance(value, np.bool_):
        return "true" if value else "false"
    if isinstance(value, np.number | np.void):
        return printable(str(value), _LONGEST_VALUE)
    return f"a {type(value).__name__.lower()}"
