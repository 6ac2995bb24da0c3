"""Routing, requests, responses and errors in plain ASGI."""

from asgihive.asgi.connection import while_connected
from asgihive.asgi.documentation import Documentation, routes_below
from asgihive.asgi.exceptions import ErrorBoundary, HTTPException, send_error
from asgihive.asgi.markers import Body, Cookie, Depends, Header, Query
from asgihive.asgi.negotiation import preferred
from asgihive.asgi.openapi import openapi_document
from asgihive.asgi.paths import Parameter, parse_template, route_path
from asgihive.asgi.query import QueryFields, parse_query
from asgihive.asgi.responses import (
    BufferedResponse,
    ContentLengthMismatch,
    StreamedResponse,
    closing,
    content_disposition,
)
from asgihive.asgi.router import Router
from asgihive.asgi.routes import Options, Route
from asgihive.asgi.signature import HandlerError, location_of, name_of

__all__ = [
    "Body",
    "BufferedResponse",
    "ContentLengthMismatch",
    "Cookie",
    "Depends",
    "Documentation",
    "ErrorBoundary",
    "HTTPException",
    "HandlerError",
    "Header",
    "Options",
    "Parameter",
    "Query",
    "QueryFields",
    "Route",
    "Router",
    "StreamedResponse",
    "closing",
    "content_disposition",
    "location_of",
    "name_of",
    "openapi_document",
    "parse_query",
    "parse_template",
    "preferred",
    "route_path",
    "routes_below",
    "send_error",
    "while_connected",
]
