"""Services out of folders: cornerstones and endpoints, with asynchronous hooks in plain ASGI."""

from asgihive.hive.components import Component, Part
from asgihive.hive.config import HiveConfig
from asgihive.hive.errors import (
    ComponentError,
    ConfigurationError,
    HiveError,
    HiveRunning,
    HookDenied,
    HookFailed,
)
from asgihive.hive.graph import GraphNode
from asgihive.hive.hive import Hive
from asgihive.hive.hooks import (
    CornerstoneAsyncHooks,
    CornerstoneHooks,
    EndpointAsyncHooks,
    EndpointHooks,
    LifeContext,
    RequestContext,
)
from asgihive.hive.lifespan import compose_lifespans
from asgihive.hive.middleware import HiveMiddleware
from asgihive.hive.rendering import (
    RouteRecord,
    graph_as_mermaid,
    graph_as_text,
    routes_as_text,
)
from asgihive.hive.states import ComponentState, Metadata

__all__ = [
    "Component",
    "ComponentError",
    "ComponentState",
    "ConfigurationError",
    "CornerstoneAsyncHooks",
    "CornerstoneHooks",
    "EndpointAsyncHooks",
    "EndpointHooks",
    "GraphNode",
    "Hive",
    "HiveConfig",
    "HiveError",
    "HiveMiddleware",
    "HiveRunning",
    "HookDenied",
    "HookFailed",
    "LifeContext",
    "Metadata",
    "Part",
    "RequestContext",
    "RouteRecord",
    "compose_lifespans",
    "graph_as_mermaid",
    "graph_as_text",
    "routes_as_text",
]
