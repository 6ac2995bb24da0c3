"""What the components of a graph provide and ask for by type."""

from collections.abc import Sequence
from dataclasses import replace

from asgihive.asgi import Router
from asgihive.hive.components import Component, list_provided
from asgihive.hive.graph import GraphNode
from asgihive.hive.provided import format_type, list_asked


def add_types(components: Sequence[Component], nodes: Sequence[GraphNode]) -> tuple[GraphNode, ...]:
    """Return the nodes with what their components, in the same order, provide and ask for."""
    found = []
    for component, node in zip(components, nodes, strict=True):
        router = component.router
        asked = list_asked(router) if isinstance(router, Router) else ()
        asks = dict.fromkeys(format_type(kind) for *_, kind in asked)
        provides = map(format_type, list_provided(component))
        found.append(replace(node, provides=tuple(provides), asks=tuple(asks)))
    return tuple(found)
