"""Start order and routes as text, and start order as a Mermaid diagram."""

from collections.abc import Sequence
from dataclasses import dataclass

from asgihive.hive.graph import GraphNode


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


def graph_as_text(headline: str, nodes: Sequence[GraphNode]) -> str:
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


def graph_as_mermaid(nodes: Sequence[GraphNode]) -> str:
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


def routes_as_text(routes: Sequence[RouteRecord]) -> str:
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
