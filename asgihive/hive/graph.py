"""The order in which components start, and the tables and the diagram that show it."""

import heapq
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

from asgihive.asgi import Router, find_location, find_name
from asgihive.errors import ComponentError, join_names, suggest_name
from asgihive.hive.components import Component, list_provided
from asgihive.hive.provided import format_type, list_asked
from asgihive.hive.states import Metadata


@dataclass(frozen=True, slots=True)
class GraphNode:
    """One component in start order; `requires` are keys, `container.name`.

    `provides` are the names of types that it says it provides, `asks` those that its routes ask
    for.
    """

    position: int
    kind: str
    key: str
    file: str
    requires: tuple[str, ...]
    provides: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()


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


def record_foreign_routes(routes: Iterable[Any], prefix: str) -> Iterator[RouteRecord]:
    """Yield the routes of Starlette's or FastAPI's routing, those of mounts too.

    Args:
        prefix: before their paths.
    """
    for route in routes:
        # FastAPI keeps routers as they were included, and says by this what it makes of them.
        contexts = getattr(route, "effective_route_contexts", None)
        if contexts is not None:
            for each in contexts():
                seen = each.starlette_route or each
                yield from _record_foreign_route(seen, each.original_route, prefix)
        else:
            yield from _record_foreign_route(route, route, prefix)


def _record_foreign_route(seen: Any, route: Any, prefix: str) -> Iterator[RouteRecord]:
    path = prefix + str(getattr(seen, "path", ""))
    endpoint = getattr(route, "endpoint", None)
    if endpoint is None:
        below = getattr(route, "routes", None)
        if below and isinstance(below, list):  # of a hive it is none
            yield from record_foreign_routes(below, path)
            return
        app = getattr(route, "app", route)
        name = find_name(app) if inspect.isroutine(app) else type(app).__name__
        yield RouteRecord(("*",), path or "/", "", name, "", 0)
        return
    methods = getattr(seen, "methods", None) or getattr(route, "methods", None)
    is_websocket = methods is None and hasattr(route, "path_regex")
    tag = ", ".join(str(getattr(each, "value", each)) for each in getattr(seen, "tags", None) or ())
    file, _, line = find_location(endpoint).rpartition(":")
    yield RouteRecord(
        methods=("WEBSOCKET",) if is_websocket else tuple(sorted(methods or {"*"})),
        url=path or "/",
        tag=tag,
        handler=find_name(endpoint),
        file=file,
        line=int(line) if line.isdecimal() else 0,
    )


def sort_components(components: Sequence[Metadata]) -> tuple[GraphNode, ...]:
    """Return the components in start order.

    Cornerstones come before endpoints; each kind is sorted by name, unless one requires
    another: then what is required comes first, and ties are by name again.

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
        of_kind = {each.key: each for each in components if each.kind == kind}
        ordered += _sort_kind(of_kind, requirements)
    return tuple(
        GraphNode(position, each.kind, each.key, each.file, requirements[each.key])
        for position, each in enumerate(ordered)
    )


def add_types(components: Sequence[Component], nodes: Sequence[GraphNode]) -> tuple[GraphNode, ...]:
    """Return the nodes with what their components, in the same order, provide and ask for."""
    found = []
    for component, node in zip(components, nodes, strict=True):
        router = component.router
        asked = list_asked(router) if isinstance(router, Router) else ()
        asks = dict.fromkeys(format_type(each.kind) for each in asked)
        provides = map(format_type, list_provided(component))
        found.append(replace(node, provides=tuple(provides), asks=tuple(asks)))
    return tuple(found)


def refuse_duplicates(components: Iterable[Metadata]) -> None:
    """Refuse two components that share one key, also a cornerstone and an endpoint.

    Raises:
        ComponentError: they do; the message names both files.
    """
    by_key: dict[str, Metadata] = {}
    for each in components:
        other = by_key.setdefault(each.key, each)
        if other is not each:
            detail = f"there is another component of this name: the {other.kind} in {other.file}"
            raise ComponentError(each.key, each.file, detail)


def _resolve(name: str, component: Metadata, by_key: Mapping[str, Metadata]) -> str:
    """Return the key of the component that `component` requires by `name`."""
    own_kind = [each for each in by_key.values() if each.kind == component.kind]
    if name in by_key:
        found = [by_key[name]]
    else:
        found = [each for each in own_kind if each.name == name]
        found = [each for each in found if each.container == component.container] or found
    if not found:
        others = [each for each in by_key.values() if each is not component]
        known = {each.key for each in others} | {each.name for each in own_kind if each in others}
        near, there = suggest_name(name, known), join_names(known, "nothing else")
        detail = f"requires {name!r}, which is not there{near}; there is {there}"
    elif len(found) > 1:
        candidates = join_names(each.key for each in found)
        detail = f"requires {name!r}, which may be {candidates}: say one"
    elif component.kind == "cornerstone" and found[0].kind == "endpoint":
        detail = (
            f"requires the endpoint {found[0].key} ({found[0].file}), "
            "but every cornerstone starts before the endpoints"
        )
    else:
        return found[0].key
    raise ComponentError(component.key, component.file, detail)


def _sort_kind(
    components: Mapping[str, Metadata], requirements: Mapping[str, tuple[str, ...]]
) -> list[Metadata]:
    """Sort the components of one kind: the smallest of all orders that meet the requirements."""
    sorter = TopologicalSorter(
        {key: [each for each in requirements[key] if each in components] for key in components}
    )
    try:
        sorter.prepare()
    except CycleError as error:
        # Without its last node, which is its first; from what requires to what is required.
        cycle = error.args[1][:0:-1]
        at = cycle.index(min(cycle))
        cycle = [*cycle[at:], *cycle[:at]]
        first, *others = (components[key] for key in cycle)
        through = f" (through {', '.join(each.file for each in others)})" if others else ""
        detail = f"requires itself: {' → '.join((*cycle, first.key))}{through}"
        raise ComponentError(first.key, first.file, detail) from None
    ready: list[tuple[str, str]] = []
    ordered = []
    while sorter.is_active():
        for key in sorter.get_ready():
            heapq.heappush(ready, (components[key].name, key))
        _, key = heapq.heappop(ready)
        ordered.append(components[key])
        sorter.done(key)
    return ordered


def format_graph(headline: str, nodes: Sequence[GraphNode]) -> str:
    """Format one line a component, in start order: its key, what it requires, its file."""
    if not nodes:
        return f"{headline}: no components"
    lines = [f"{headline}: starts from top to bottom, stops from bottom to top"]
    keys = max(len(node.key) for node in nodes)
    requirements = [_format_needs(node) for node in nodes]
    width = max(map(len, requirements))
    kind = ""
    for node, required in zip(nodes, requirements, strict=True):
        if node.kind != kind:
            kind = node.kind
            lines.append(f"\n{kind}s")
        cells = [f"{node.position + 1:>3}. {node.key:<{keys}}", node.file]
        if width:
            cells.insert(1, f"{required:<{width}}")
        lines.append("  ".join(cells))
    return "\n".join(lines)


def _format_needs(node: GraphNode) -> str:
    parts = (("requires", node.requires), ("provides", node.provides), ("asks for", node.asks))
    return "; ".join(f"{verb} {', '.join(names)}" for verb, names in parts if names)


def format_mermaid(nodes: Sequence[GraphNode]) -> str:
    """Format a flowchart: start order from left to right, arrows from what is required."""
    lines = ["flowchart LR"]
    for kind in ("cornerstone", "endpoint"):
        group = [node for node in nodes if node.kind == kind]
        if group:
            lines.append(f"    subgraph {kind}s")
            for node in group:
                # Mermaid writes characters that it would read itself as entities.
                key = node.key.replace("&", "#amp;").replace('"', "#quot;").replace("<", "#lt;")
                lines.append(f'        n{node.position}["{key}"]')
            lines.append("    end")
    positions = {node.key: node.position for node in nodes}
    providers = {name: node.position for node in nodes for name in node.provides}
    arrows: dict[tuple[int, int], list[str]] = {}
    for node in nodes:
        for key in node.requires:
            arrows.setdefault((positions[key], node.position), [])
        for name in node.asks:
            if name in providers:
                arrows.setdefault((providers[name], node.position), []).append(name)
    for (start, end), names in arrows.items():
        label = f' -- "{", ".join(names)}"' if names else ""
        lines.append(f"    n{start}{label} --> n{end}")
    return "\n".join(lines)


def format_routes(routes: Sequence[RouteRecord]) -> str:
    """Format a table: methods, URL, tag, handler, file and line."""
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
