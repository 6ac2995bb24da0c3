"""Routing, requests, responses and errors in plain ASGI."""

from starlette.datastructures import UploadFile

from asgihive.asgi.compression import Coding, choose_coding, compress_chunks, compress_zstd
from asgihive.asgi.documentation import Documentation
from asgihive.asgi.errors import HTTPException, answer_error, send_error
from asgihive.asgi.gate import Gate
from asgihive.asgi.markers import Body, Cookie, Depends, Form, Header, Query
from asgihive.asgi.request_fields import (
    ByteRange,
    Validators,
    choose_media_type,
    parse_query,
)
from asgihive.asgi.responses import (
    BodyChunk,
    BufferedResponse,
    StreamedResponse,
    closing,
    format_content_disposition,
    run_while_connected,
)
from asgihive.asgi.router import Router, get_route_path, list_routes
from asgihive.asgi.routes import Route
from asgihive.asgi.signatures import find_location, find_name

__all__ = [
    "Body",
    "BodyChunk",
    "BufferedResponse",
    "ByteRange",
    "Coding",
    "Cookie",
    "Depends",
    "Documentation",
    "Form",
    "Gate",
    "HTTPException",
    "Header",
    "Query",
    "Route",
    "Router",
    "StreamedResponse",
    "UploadFile",
    "Validators",
    "answer_error",
    "choose_coding",
    "choose_media_type",
    "closing",
    "compress_chunks",
    "compress_zstd",
    "find_location",
    "find_name",
    "format_content_disposition",
    "get_route_path",
    "list_routes",
    "parse_query",
    "run_while_connected",
    "send_error",
]
