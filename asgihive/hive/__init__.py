"""Services out of folders: cornerstones and endpoints, with asynchronous hooks in plain ASGI."""

from asgihive.errors import (
    ComponentError,
    ConfigurationError,
    HiveError,
    HiveRunning,
    HookDenied,
    HookFailed,
)
from asgihive.hive.components import Component, ModuleHooks
from asgihive.hive.config import HiveConfig
from asgihive.hive.contexts import (
    ErrorContext,
    LifeContext,
    RequestHookContext,
    ResponseHead,
)
from asgihive.hive.graph import (
    GraphNode,
    RouteRecord,
    format_graph,
    format_mermaid,
    format_routes,
)
from asgihive.hive.hive import Hive, HiveMiddleware
from asgihive.hive.hooks import (
    CornerstoneAsyncHooks,
    CornerstoneHooks,
    EndpointAsyncHooks,
    EndpointHooks,
)
from asgihive.hive.lifespan import compose_lifespans
from asgihive.hive.provided import FromHive, NotProvided
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
    "ErrorContext",
    "FromHive",
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
    "ModuleHooks",
    "NotProvided",
    "RequestHookContext",
    "ResponseHead",
    "RouteRecord",
    "compose_lifespans",
    "format_graph",
    "format_mermaid",
    "format_routes",
]
