"""In which order components start: a pure function of their names and requirements."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from asgihive.errors import ComponentError, join_names, suggest_name
from asgihive.hive.hooks import Metadata


@dataclass(frozen=True, slots=True)
class GraphNode:
    """One component in start order; `requires` are keys, `container.name`."""

    position: int
    kind: str
    key: str
    file: str
    requires: tuple[str, ...]


def sort_components(components: Sequence[Metadata]) -> tuple[GraphNode, ...]:
    """Cornerstones before endpoints; each kind by name, unless one requires another.

    Then what is required comes first, and ties are by name again (the smallest of all
    possible orders). Linear in components and requirements, but for the sorting.

    Raises:
        ComponentError: two of one name, a requirement that is missing, ambiguous or starts
            later by its kind, or a cycle.
    """
    refuse_duplicates(components)
    by_key = {each.key: each for each in components}
    requirements = {
        each.key: tuple(dict.fromkeys(_resolve(name, each, by_key) for name in each.requires))
        for each in components
    }
    ordered: list[Metadata] = []
    for kind in ("cornerstone", "endpoint"):
        ordered += _sorted([each for each in components if each.kind == kind], requirements)
    return tuple(
        GraphNode(position, each.kind, each.key, each.file, requirements[each.key])
        for position, each in enumerate(ordered)
    )


class Named(Protocol):
    """What has a key, whether it is imported already or not."""

    @property
    def kind(self) -> str: ...

    @property
    def key(self) -> str: ...

    @property
    def file(self) -> str: ...


def refuse_duplicates(components: Iterable[Named]) -> None:
    """Two components must not share one key, nor a cornerstone and an endpoint.

    Raises:
        ComponentError: they do; the message names both files.
    """
    by_key: dict[str, Named] = {}
    for each in components:
        other = by_key.setdefault(each.key, each)
        if other is not each:
            detail = f"there is another component of this name: the {other.kind} in {other.file}"
            raise ComponentError(each.key, each.file, detail)


def _resolve(name: str, component: Metadata, by_key: Mapping[str, Metadata]) -> str:
    """The key of what a component requires."""
    own_kind = [each for each in by_key.values() if each.kind == component.kind]
    if name in by_key:
        found = [by_key[name]]
    else:
        found = [each for each in own_kind if each.name == name]
        found = [each for each in found if each.container == component.container] or found
    if not found:
        others = [each for each in by_key.values() if each is not component]
        known = {each.key for each in others} | {each.name for each in own_kind if each in others}
        there = join_names(known, "nothing else")
        detail = (
            f"requires {name!r}, which is not there{suggest_name(name, known)}; there is {there}"
        )
        raise ComponentError(component.key, component.file, detail)
    if len(found) > 1:
        detail = (
            f"requires {name!r}, which may be {join_names(each.key for each in found)}: say one"
        )
        raise ComponentError(component.key, component.file, detail)
    if component.kind == "cornerstone" and found[0].kind == "endpoint":
        detail = (
            f"requires the endpoint {found[0].key} ({found[0].file}), "
            "but every cornerstone starts before the endpoints"
        )
        raise ComponentError(component.key, component.file, detail)
    return found[0].key


def _sorted(
    components: Sequence[Metadata], requirements: Mapping[str, tuple[str, ...]]
) -> list[Metadata]:
    by_key = {each.key: each for each in components}
    waiting = {key: {each for each in requirements[key] if each in by_key} for key in by_key}
    dependents: dict[str, list[str]] = {key: [] for key in by_key}
    for key, needed in waiting.items():
        for each in needed:
            dependents[each].append(key)
    ready = [(each.name, each.container) for each in components if not waiting[each.key]]
    heapq.heapify(ready)
    ordered = []
    while ready:
        name, container = heapq.heappop(ready)
        key = f"{container}.{name}"
        ordered.append(by_key[key])
        del waiting[key]
        for dependent in dependents[key]:
            waiting[dependent].discard(key)
            if not waiting[dependent]:
                heapq.heappush(ready, (by_key[dependent].name, by_key[dependent].container))
    if waiting:
        raise _cycle_error(waiting, by_key)
    return ordered


def _cycle_error(waiting: Mapping[str, set[str]], by_key: Mapping[str, Metadata]) -> ComponentError:
    # All of them wait for one that waits: whoever is followed leads into a cycle.
    path = [min(waiting)]
    while path[-1] not in path[:-1]:
        path.append(min(waiting[path[-1]]))
    cycle = path[path.index(path[-1]) :]
    first = by_key[cycle[0]]
    files = ", ".join(by_key[key].file for key in cycle[1:-1])
    detail = f"requires itself: {' → '.join(cycle)}" + (f" (through {files})" if files else "")
    return ComponentError(first.key, first.file, detail)


@dataclass(frozen=True, slots=True)
class RouteRecord:
    """One route of a hive: what answers which URL, and where that is written.

    A mounted application has the method `*`; where it or its line is not known, `handler`
    is its name, `file` is empty and `line` 0.
    """

    methods: tuple[str, ...]
    url: str
    tag: str
    handler: str
    file: str
    line: int


def format_graph(headline: str, nodes: Sequence[GraphNode]) -> str:
    """One line a component, in start order: its key, what it requires, its file."""
    if not nodes:
        return f"{headline}: no components"
    lines = [f"{headline}: starts from top to bottom, stops from bottom to top"]
    keys = max(len(node.key) for node in nodes)
    requirements = {
        node.key: f"requires {', '.join(node.requires)}" if node.requires else "" for node in nodes
    }
    needed = max(map(len, requirements.values()))
    kind = ""
    for node in nodes:
        if node.kind != kind:
            kind = node.kind
            lines.append(f"\n{kind}s")
        cells = [f"{node.position + 1:>3}. {node.key:<{keys}}", node.file]
        if needed:
            cells.insert(1, f"{requirements[node.key]:<{needed}}")
        lines.append("  ".join(cells))
    return "\n".join(lines)


def format_mermaid(nodes: Sequence[GraphNode]) -> str:
    """A flowchart: start order from left to right, arrows from what is required."""
    lines = ["flowchart LR"]
    for kind in ("cornerstone", "endpoint"):
        group = [node for node in nodes if node.kind == kind]
        if group:
            lines.append(f"    subgraph {kind}s")
            lines += [f'        n{node.position}["{_quoted(node.key)}"]' for node in group]
            lines.append("    end")
    by_key = {node.key: node for node in nodes}
    lines += [
        f"    n{by_key[key].position} --> n{node.position}"
        for node in nodes
        for key in node.requires
    ]
    return "\n".join(lines)


def format_routes(routes: Sequence[RouteRecord]) -> str:
    """A table: methods, URL, tag, handler, file and line."""
    rows = [
        (
            ",".join(each.methods),
            each.url,
            each.tag,
            each.handler,
            f"{each.file}:{each.line}" if each.line else each.file,
        )
        for each in routes
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _quoted(text: str) -> str:
    # Mermaid writes characters that it would read itself as entities.
    return text.replace("&", "#amp;").replace('"', "#quot;").replace("<", "#lt;")
