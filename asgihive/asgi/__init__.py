"""Routing, requests, responses and errors in plain ASGI."""

from asgihive.asgi.compression import Coding, compressed, preferred_coding
from asgihive.asgi.conditional import Validators
from asgihive.asgi.connection import while_connected
from asgihive.asgi.dates import http_date, parse_http_date
from asgihive.asgi.documentation import Documentation, routes_below
from asgihive.asgi.exceptions import ErrorBoundary, HTTPException, send_error
from asgihive.asgi.markers import Body, Cookie, Depends, Header, Query
from asgihive.asgi.negotiation import preferred
from asgihive.asgi.openapi import openapi_document
from asgihive.asgi.paths import Parameter, parse_template, route_path
from asgihive.asgi.query import QueryFields, parse_query
from asgihive.asgi.ranges import ByteRange, parse_range
from asgihive.asgi.responses import (
    Block,
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
    "Block",
    "Body",
    "BufferedResponse",
    "ByteRange",
    "Coding",
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
    "Validators",
    "closing",
    "compressed",
    "content_disposition",
    "http_date",
    "location_of",
    "name_of",
    "openapi_document",
    "parse_http_date",
    "parse_query",
    "parse_range",
    "parse_template",
    "preferred",
    "preferred_coding",
    "route_path",
    "routes_below",
    "send_error",
    "while_connected",
]
