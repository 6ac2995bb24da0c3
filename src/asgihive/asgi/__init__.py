"""Routing, requests, responses and errors in plain ASGI."""

from asgihive.asgi.exceptions import ErrorBoundary, HTTPException, send_error
from asgihive.asgi.negotiation import preferred
from asgihive.asgi.paths import Parameter, parse_template, route_path
from asgihive.asgi.query import Query, parse_query
from asgihive.asgi.responses import (
    BufferedResponse,
    ContentLengthMismatch,
    StreamedResponse,
    content_disposition,
)
from asgihive.asgi.router import Route, Router

__all__ = [
    "BufferedResponse",
    "ContentLengthMismatch",
    "ErrorBoundary",
    "HTTPException",
    "Parameter",
    "Query",
    "Route",
    "Router",
    "StreamedResponse",
    "content_disposition",
    "parse_query",
    "parse_template",
    "preferred",
    "route_path",
    "send_error",
]
