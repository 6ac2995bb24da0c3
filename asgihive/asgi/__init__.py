"""Routing, requests, responses and errors in plain ASGI."""

from asgihive.asgi.compression import Coding, choose_coding, compress_chunks
from asgihive.asgi.errors import HTTPException, answer_error, send_error
from asgihive.asgi.gate import Gate
from asgihive.asgi.openapi import Documentation, make_openapi_document
from asgihive.asgi.parameters import (
    Body,
    Cookie,
    Depends,
    HandlerError,
    Header,
    Query,
    find_location,
    find_name,
)
from asgihive.asgi.request_fields import (
    ByteRange,
    Validators,
    choose_media_type,
    format_http_date,
    parse_http_date,
    parse_query,
)
from asgihive.asgi.responses import (
    BodyChunk,
    BufferedResponse,
    ContentLengthMismatch,
    StreamedResponse,
    closing,
    format_content_disposition,
    run_while_connected,
)
from asgihive.asgi.router import Router, get_route_path, list_routes
from asgihive.asgi.routes import Options, PathParameter, Route, parse_template

__all__ = [
    "Body",
    "BodyChunk",
    "BufferedResponse",
    "ByteRange",
    "Coding",
    "ContentLengthMismatch",
    "Cookie",
    "Depends",
    "Documentation",
    "Gate",
    "HTTPException",
    "HandlerError",
    "Header",
    "Options",
    "PathParameter",
    "Query",
    "Route",
    "Router",
    "StreamedResponse",
    "Validators",
    "answer_error",
    "choose_coding",
    "choose_media_type",
    "closing",
    "compress_chunks",
    "find_location",
    "find_name",
    "format_content_disposition",
    "format_http_date",
    "get_route_path",
    "list_routes",
    "make_openapi_document",
    "parse_http_date",
    "parse_query",
    "parse_template",
    "run_while_connected",
    "send_error",
]
