"""Errors as problem details (RFC 9457)."""

from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

from asgihive import HTTPException

MEDIA_TYPE = "application/problem+json"


def describe(*statuses: int) -> dict[int, Any]:
    """Return what `responses=` of a route tells the documentation of its errors."""
    fields = {"title": "string", "status": "integer", "detail": "string", "instance": "string"}
    properties = {name: {"type": kind} for name, kind in fields.items()}
    schema = {"type": "object", "required": [*fields], "properties": properties}
    content = {MEDIA_TYPE: {"schema": schema}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in statuses
    }


def answer(context: Any, error: Exception) -> JSONResponse | None:
    """Answer what handlers, dependencies and hooks raise on purpose."""
    if not isinstance(error, HTTPException):
        return None  # unexpected: logged, and a 500
    problem = {"title": HTTPStatus(error.status).phrase, "status": error.status}
    problem |= {"detail": error.message, "instance": context.request.url.path, **error.details}
    return JSONResponse(problem, error.status, error.headers, MEDIA_TYPE)
